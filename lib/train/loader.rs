//! Training batches: which images in which order, augmented. A batch is a pure function of (seed,
//! step), for any number of threads, so a run can resume at any step.

use crate::error::{Error, Result};
use crate::methods::batch::{Batch, Half, Labels, Rows};
use crate::methods::views::ImageViews;
use crate::ranks::Share;
use crate::rng::{Stream, permutation, rng};
use crate::shards::Split;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// Images for one half of each batch: rows of a split, drawn without replacement within an epoch of
/// these rows (the rest of an epoch is not dropped: the next epoch follows on it).
#[derive(Clone)]
pub struct ImageSet {
    pub rows: Vec<u32>,
    /// Images per step.
    pub batch: usize,
    pub views: ImageViews,
    pub order: Stream,
    pub augment: Stream,
}

/// The data that batches are made from.
#[derive(Clone)]
pub struct TrainingImages {
    pub split: Split,
    pub labelled: ImageSet,
    /// One of each row of `labelled`.
    pub labels: Labels,
    /// With a batch of 0: no unlabelled images.
    pub unlabelled: ImageSet,
    pub seed: u64,
    /// The share of each batch whose images are made.
    pub share: Share,
}

/// Images that the system is asked to have in memory before their turn: enough reads in flight to
/// keep a disk busy.
const LOOK_AHEAD: usize = 64;

/// Images that the processor is asked to have in its cache before their turn.
const NEAR: usize = 4;

/// Batches that are ready before their turn.
const READY: usize = 2;

impl TrainingImages {
    /// Keys of a set's images in a step, for messages.
    pub fn keys(&self, set: &ImageSet, step: u64) -> Vec<&str> {
        let draws = Order::default().draws(self.seed, set, step);
        draws.iter().map(|draw| self.split.key(set.rows[draw.index] as usize)).collect()
    }

    /// The batches of steps `from..to` in order, made by the worker threads before their turn.
    pub fn batches(self: &Arc<Self>, from: u64, to: u64) -> Batches {
        Batches {
            images: self.clone(),
            ahead: Ahead::new(from..to),
            made: VecDeque::new(),
            batch: None,
        }
    }

    /// The batch of a step, in the buffer of a used batch.
    fn batch(&self, draws: &StepDraws, mut images: Vec<f32>) -> Result<Batch> {
        let own = [self.own(&draws.unlabelled), self.own(&draws.labelled)];
        let values = |set: &ImageSet, draws: &[Draw]| set.views.values() * draws.len();
        let unlabelled = values(&self.unlabelled, own[0]);
        images.resize(unlabelled + values(&self.labelled, own[1]), 0.0);
        let (unlabelled, labelled) = images.split_at_mut(unlabelled);
        self.augment(&self.unlabelled, own[0], unlabelled)?;
        self.augment(&self.labelled, own[1], labelled)?;
        let half = |set: &ImageSet| Half { images: set.batch, views: set.views.count() };
        Ok(Batch {
            images,
            rows: Rows { unlabelled: half(&self.unlabelled), labelled: half(&self.labelled) },
            labels: self.labels.pick(draws.labelled.iter().map(|draw| draw.index)),
        })
    }

    /// Those of a half that are made here.
    fn own<'a>(&self, draws: &'a [Draw]) -> &'a [Draw] {
        &draws[self.share.of(draws.len())]
    }

    /// Writes the views of each drawn image to `out`. The pipes of an image draw from one generator,
    /// in their order.
    fn augment(&self, set: &ImageSet, draws: &[Draw], out: &mut [f32]) -> Result<()> {
        let images = out.par_chunks_exact_mut(set.views.values()).enumerate();
        images.try_for_each(|(i, mut out)| {
            if let Some(near) = draws.get(i + NEAR) {
                self.split.touch(set.rows[near.index] as usize);
            }
            let row = set.rows[draws[i].index];
            let mut rng = rng(self.seed, set.augment, draws[i].epoch, u64::from(row));
            for (pipe, output) in set.views.pipes() {
                let (views, rest) = out.split_at_mut(output.values());
                self.split.augment(row as usize, pipe, &mut rng, views)?;
                out = rest;
            }
            Ok(())
        })
    }
}

/// Batches in the order of their steps.
pub struct Batches {
    images: Arc<TrainingImages>,
    ahead: Ahead,
    /// Batches that the workers are making or have made.
    made: VecDeque<Receiver<Result<Batch>>>,
    batch: Option<Batch>,
}

impl Batches {
    /// The batch of the next step, waiting for it if it is not ready.
    pub fn advance(&mut self) -> Result<&mut Batch> {
        while self.made.len() <= READY
            && let Some(draws) = self.ahead.next(&self.images)
        {
            let images = self.images.clone();
            let spent = self.batch.take().map(|batch| batch.images).unwrap_or_default();
            let (sender, receiver) = sync_channel(1);
            // The receiver is gone once training has stopped.
            rayon::spawn(move || drop(sender.send(images.batch(&draws, spent))));
            self.made.push_back(receiver);
        }
        let early = || Error::Internal("the loader ended early".into());
        let next = self.made.pop_front().ok_or_else(early)?;
        let batch = next.recv().map_err(|_| early())??;
        Ok(self.batch.insert(batch))
    }
}

/// A drawn image: an index into the rows of its set, in an epoch of the set.
#[derive(Clone, Copy)]
struct Draw {
    epoch: u64,
    index: usize,
}

/// What a step draws.
struct StepDraws {
    labelled: Vec<Draw>,
    unlabelled: Vec<Draw>,
}

/// The order of a set's rows in the epoch used last.
#[derive(Default)]
struct Order(Option<(u64, Vec<u32>)>);

impl Order {
    /// The images of a step.
    fn draws(&mut self, seed: u64, set: &ImageSet, step: u64) -> Vec<Draw> {
        let n = set.rows.len() as u64;
        let draws = step * set.batch as u64..(step + 1) * set.batch as u64;
        draws
            .map(|draw| {
                let (epoch, position) = (draw / n, (draw % n) as usize);
                if self.0.as_ref().is_none_or(|(e, _)| *e != epoch) {
                    let mut rng = rng(seed, set.order, epoch, 0);
                    self.0 = Some((epoch, permutation(&mut rng, set.rows.len())));
                }
                let rows = self.0.as_ref().map_or(&[][..], |(_, rows)| rows);
                Draw { epoch, index: rows[position] as usize }
            })
            .collect()
    }
}

/// What the steps draw, known some images before their turn and fetched from then on.
struct Ahead {
    steps: Range<u64>,
    labelled: Order,
    unlabelled: Order,
    queue: VecDeque<StepDraws>,
}

impl Ahead {
    fn new(steps: Range<u64>) -> Ahead {
        Ahead {
            steps,
            labelled: Order::default(),
            unlabelled: Order::default(),
            queue: VecDeque::new(),
        }
    }

    fn next(&mut self, images: &TrainingImages) -> Option<StepDraws> {
        let batch = images.labelled.batch + images.unlabelled.batch;
        while self.queue.len() * batch < LOOK_AHEAD + batch
            && let Some(step) = self.steps.next()
        {
            let draw = |order: &mut Order, set: &ImageSet| {
                let draws = order.draws(images.seed, set, step);
                for draw in images.own(&draws) {
                    images.split.prefetch(set.rows[draw.index] as usize);
                }
                draws
            };
            self.queue.push_back(StepDraws {
                labelled: draw(&mut self.labelled, &images.labelled),
                unlabelled: draw(&mut self.unlabelled, &images.unlabelled),
            });
        }
        self.queue.pop_front()
    }
}
