//! Training batches: which images in which order, augmented. A batch is a pure function of (seed,
//! step), whatever the number of threads, so a run can go on from any step.

use crate::augment::{Output, Pipe};
use crate::error::{Error, Result};
use crate::methods::{Batch, Labels};
use crate::rng::{Stream, permutation, rng};
use crate::shards::Split;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
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

/// Images that the system is asked to have in memory before their turn: enough reads in flight to
/// keep a disk busy.
const LOOK_AHEAD: usize = 64;

/// Images that the processor is asked to have in its cache before their turn.
const NEAR: usize = 4;

/// Batches that are ready before their turn.
const READY: usize = 2;

impl Source {
    /// Views of an image and their size.
    pub fn output(&self) -> Result<Output> {
        self.labelled.pipe.output(self.split.channels())
    }

    /// Keys of a part's images in a step, for messages.
    pub fn keys(&self, part: &Part, step: u64) -> Vec<&str> {
        let draws = Order::default().draws(self.seed, part, step);
        let rows = draws.iter().map(|d| part.rows[d.1] as usize);
        rows.map(|row| self.split.key(row)).collect()
    }

    /// The batches of steps `from..to` in order, made by the worker threads before their turn.
    pub fn batches(self: &Arc<Self>, from: u64, to: u64) -> Batches {
        Batches {
            source: self.clone(),
            ahead: Ahead::new(from..to),
            made: VecDeque::new(),
            batch: Batch::default(),
        }
    }

    /// A batch in the buffers of one that was used.
    fn batch(&self, [labelled, unlabelled]: &[Vec<Draw>; 2], spent: Batch) -> Result<Batch> {
        let labels = match &self.labelled.labels {
            PartLabels::Hard(l) => Labels::Hard(labelled.iter().map(|d| l[d.1]).collect()),
            PartLabels::Soft(p, classes) => Labels::Soft(
                labelled
                    .iter()
                    .flat_map(|d| &p[d.1 * classes..(d.1 + 1) * classes])
                    .copied()
                    .collect(),
            ),
        };
        Ok(Batch {
            unlabelled: self.images(&self.unlabelled, unlabelled, spent.unlabelled)?,
            labelled: self.images(&self.labelled, labelled, spent.labelled)?,
            labels,
            views: self.output()?.views,
        })
    }

    /// The augmented images of a part, in the place of others.
    fn images(&self, part: &Part, draws: &[Draw], mut images: Vec<f32>) -> Result<Vec<f32>> {
        let size = part.pipe.output(self.split.channels())?.values();
        images.resize(draws.len() * size, 0.0);
        images.par_chunks_exact_mut(size).enumerate().try_for_each(|(i, out)| {
            if let Some(&(_, index)) = draws.get(i + NEAR) {
                self.split.touch(part.rows[index] as usize);
            }
            let (epoch, index) = draws[i];
            let row = part.rows[index];
            let mut rng = rng(self.seed, part.augment, epoch, u64::from(row));
            self.split.augment(row as usize, &part.pipe, &mut rng, out)
        })?;
        Ok(images)
    }
}

/// Batches in the order of their steps.
pub struct Batches {
    source: Arc<Source>,
    ahead: Ahead,
    /// Those that the workers are making, or have made.
    made: VecDeque<Receiver<Result<Batch>>>,
    batch: Batch,
}

impl Batches {
    /// The batch of the next step, waiting for it where it is not ready.
    pub fn advance(&mut self) -> Result<&Batch> {
        while self.made.len() <= READY
            && let Some(draws) = self.ahead.next(&self.source)
        {
            let (source, spent) = (self.source.clone(), std::mem::take(&mut self.batch));
            let (sender, receiver) = sync_channel(1);
            // The receiver is gone once training has stopped.
            rayon::spawn(move || drop(sender.send(source.batch(&draws, spent))));
            self.made.push_back(receiver);
        }
        let early = || Error::Internal("the loader ended early".into());
        let next = self.made.pop_front().ok_or_else(early)?;
        self.batch = next.recv().map_err(|_| early())??;
        Ok(&self.batch)
    }
}

/// Epoch of a drawn image and its index into the part's rows.
type Draw = (u64, usize);

/// The order of a part's rows in the epoch used last.
#[derive(Default)]
struct Order(Option<(u64, Vec<u32>)>);

impl Order {
    /// The images of a step.
    fn draws(&mut self, seed: u64, part: &Part, step: u64) -> Vec<Draw> {
        let n = part.rows.len() as u64;
        let draws = step * part.batch as u64..(step + 1) * part.batch as u64;
        draws
            .map(|draw| {
                let (epoch, position) = (draw / n, (draw % n) as usize);
                if self.0.as_ref().is_none_or(|(e, _)| *e != epoch) {
                    let mut rng = rng(seed, part.order, epoch, 0);
                    self.0 = Some((epoch, permutation(&mut rng, part.rows.len())));
                }
                let rows = self.0.as_ref().map_or(&[][..], |(_, rows)| rows);
                (epoch, rows[position] as usize)
            })
            .collect()
    }
}

/// What the steps draw, known some images before their turn and fetched from then on.
struct Ahead {
    steps: Range<u64>,
    orders: [Order; 2],
    queue: VecDeque<[Vec<Draw>; 2]>,
}

impl Ahead {
    fn new(steps: Range<u64>) -> Ahead {
        Ahead { steps, orders: Default::default(), queue: VecDeque::new() }
    }

    fn next(&mut self, source: &Source) -> Option<[Vec<Draw>; 2]> {
        let parts = [&source.labelled, &source.unlabelled];
        let batch: usize = parts.iter().map(|p| p.batch).sum();
        while self.queue.len() * batch < LOOK_AHEAD + batch
            && let Some(step) = self.steps.next()
        {
            let mut draws = [Vec::new(), Vec::new()];
            for ((part, order), draws) in parts.iter().zip(&mut self.orders).zip(&mut draws) {
                *draws = order.draws(source.seed, part, step);
                for (_, index) in draws {
                    source.split.prefetch(part.rows[*index] as usize);
                }
            }
            self.queue.push_back(draws);
        }
        self.queue.pop_front()
    }
}
