//! Training batches: which images in which order, augmented. A batch is a pure function of (seed,
//! step), whatever the number of threads, so a run can go on from any step.

use crate::augment::{Output, Pipe};
use crate::error::Result;
use crate::methods::{Batch, Labels};
use crate::rng::{Stream, permutation, rng};
use crate::shards::Split;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Labels of a part, one of each of its rows.
#[derive(Debug, Clone)]
pub enum PartLabels {
    Hard(Vec<u32>),
    /// Class probabilities, `classes` of each row.
    Soft(Vec<f32>, usize),
}

/// One of the two halves of a step: rows of a split, drawn without replacement within an epoch of
/// its own (an epoch's rest is not dropped: the next one's order follows on).
#[derive(Clone)]
pub struct Part {
    pub rows: Vec<u32>,
    pub labels: PartLabels,
    pub batch: usize,
    pub pipe: Pipe,
    pub order: Stream,
    pub augment: Stream,
}

/// What batches are made from.
#[derive(Clone)]
pub struct Source {
    pub split: Split,
    pub labelled: Part,
    /// With a batch of 0: no unlabelled images.
    pub unlabelled: Part,
    pub seed: u64,
}

/// The order of a part's rows in the epoch used last.
type Order = Option<(u64, Vec<u32>)>;

impl Source {
    /// Views of an image and their size.
    pub fn output(&self) -> Result<Output> {
        self.labelled.pipe.output(self.split.channels()?)
    }

    /// Keys of a part's images in a step, for messages.
    pub fn keys(&self, part: &Part, step: u64) -> Vec<&str> {
        let draws = self.draws(part, step, &mut None);
        let rows = draws.iter().map(|d| part.rows[d.1] as usize);
        rows.map(|row| self.split.key(row)).collect()
    }

    /// The batch of one step.
    fn batch(&self, step: u64, orders: &mut [Order; 2]) -> Result<Batch> {
        let [labelled_order, unlabelled_order] = orders;
        let unlabelled = self.part(&self.unlabelled, step, unlabelled_order)?.1;
        let (picked, labelled) = self.part(&self.labelled, step, labelled_order)?;
        let labels = match &self.labelled.labels {
            PartLabels::Hard(l) => Labels::Hard(picked.iter().map(|&i| l[i]).collect()),
            PartLabels::Soft(p, classes) => Labels::Soft(
                picked
                    .iter()
                    .flat_map(|&i| &p[i * classes..(i + 1) * classes])
                    .copied()
                    .collect(),
            ),
        };
        Ok(Batch {
            unlabelled,
            labelled,
            labels,
            views: self.output()?.views,
        })
    }

    /// Epoch and index into the part's rows of each image of a step.
    fn draws(&self, part: &Part, step: u64, order: &mut Order) -> Vec<(u64, usize)> {
        let n = part.rows.len() as u64;
        let mut draws = Vec::with_capacity(part.batch);
        for draw in step * part.batch as u64..(step + 1) * part.batch as u64 {
            let (epoch, position) = (draw / n, (draw % n) as usize);
            let index = match order {
                Some((e, rows)) if *e == epoch => rows[position],
                _ => {
                    let mut rng = rng(self.seed, part.order, epoch, 0);
                    let rows = permutation(&mut rng, part.rows.len());
                    let index = rows[position];
                    *order = Some((epoch, rows));
                    index
                }
            };
            draws.push((epoch, index as usize));
        }
        draws
    }

    /// Indices into the part's rows, and their augmented images.
    fn part(&self, part: &Part, step: u64, order: &mut Order) -> Result<(Vec<usize>, Vec<f32>)> {
        let draws = self.draws(part, step, order);
        let images: Vec<Vec<f32>> = draws
            .par_iter()
            .map(|&(epoch, index)| {
                let row = part.rows[index];
                let image = self.split.decode(row as usize)?;
                let mut rng = rng(self.seed, part.augment, epoch, u64::from(row));
                let mut out = Vec::new();
                part.pipe.apply(
                    &image.pixels,
                    image.height,
                    image.width,
                    image.channels,
                    &mut rng,
                    &mut out,
                )?;
                Ok(out)
            })
            .collect::<Result<_>>()?;
        Ok((draws.iter().map(|d| d.1).collect(), images.concat()))
    }

    /// The batches of steps `from..to` in order, prepared ahead by a thread of their own.
    pub fn batches(self: &Arc<Self>, from: u64, to: u64) -> Receiver<Result<Batch>> {
        let (sender, receiver) = sync_channel(2);
        let source = self.clone();
        std::thread::spawn(move || {
            let mut orders = [None, None];
            for step in from..to {
                // The receiver is gone once training has stopped.
                if sender.send(source.batch(step, &mut orders)).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}
