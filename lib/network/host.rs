//! The part that all engines with host memory share: the images and their perturbations, the heads, the
//! optimizer.

use super::engine::{Inner, Pass};
use super::heads::Heads;
use super::layout::Layout;
use super::update::{Update, update};
use super::weights::Weights;
use crate::error::Result;
use crate::ranks::{Alone, Communicator, GradientSum, Ranks};
use crate::tasks;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// See the module.
pub struct HostMemory {
    layout: Layout,
    pub weights: Weights,
    /// Values per image.
    image_values: usize,
    /// Parameters under weight decay.
    decayed: Vec<Range<usize>>,
    gradient: Vec<f32>,
    images: Vec<f32>,
    /// The direction of each `every`-th image, and the images moved along it.
    direction: Vec<f32>,
    every: usize,
    moved: Vec<f32>,
    heads: Heads,
    ranks: Ranks,
    /// Those whose rows a batch norm takes its statistics of.
    statistics: Ranks,
    sum: GradientSum,
    /// The pass of the last `forward`.
    pass: Pass,
}

/// The inputs of the trunk's forward pass.
pub struct TrunkForward<'a> {
    pub parameters: &'a [f32],
    pub images: &'a [f32],
    /// A direction of each image, of length 1 or 0, along which the tangent is wanted.
    pub direction: Option<&'a [f32]>,
    /// Updated with the statistics of the batch.
    pub moving: Option<Moving<'a>>,
    /// Those whose rows make the statistics.
    pub ranks: &'a dyn Communicator,
}

/// The moving statistics, and the share of the old value that stays in an update.
pub struct Moving<'a> {
    pub statistics: &'a mut [f32],
    pub keep: f32,
}

/// The inputs of the trunk's backward pass, after a `TrunkForward` with the same parameters and images.
pub struct TrunkBackward<'a> {
    pub parameters: &'a [f32],
    pub images: &'a [f32],
    /// Gradient of the pre-logits.
    pub features: Vec<f32>,
    pub wanted: Wanted<'a>,
    /// Those whose rows made the statistics.
    pub ranks: &'a dyn Communicator,
}

/// The wanted gradient, and its destination.
pub enum Wanted<'a> {
    /// Added to this gradient of the whole parameter vector. In the last pass of a step, its sum over the ranks
    /// begins with what is whole.
    Parameters(&'a mut [f32], Option<&'a mut GradientSum>),
    /// Written to this buffer, which is as large as the images.
    Images(&'a mut [f32]),
}

impl HostMemory {
    /// For images of (height, width).
    pub fn new(layout: &Layout, (height, width): (usize, usize), weights: Weights) -> HostMemory {
        HostMemory {
            image_values: height * width * layout.stem.inputs,
            decayed: layout.decayed(),
            gradient: vec![0.0; layout.parameters],
            images: Vec::new(),
            direction: Vec::new(),
            every: 1,
            moved: Vec::new(),
            heads: Heads::default(),
            ranks: Arc::new(Alone),
            statistics: Arc::new(Alone),
            sum: GradientSum::new(Arc::new(Alone), layout.parameters),
            pass: Pass::Perturbed,
            layout: layout.clone(),
            weights,
        }
    }

    /// As `Engine::join`.
    pub fn join(&mut self, ranks: Ranks, sync_batch_norm: bool) {
        self.sum = GradientSum::new(ranks.clone(), self.layout.parameters);
        self.statistics = if sync_batch_norm { ranks.clone() } else { Arc::new(Alone) };
        self.ranks = ranks;
    }

    pub fn put(&mut self, weights: Weights) {
        self.weights = weights;
        self.heads.forget();
    }

    pub fn images(&mut self, images: &mut Vec<f32>) {
        std::mem::swap(&mut self.images, images);
    }

    pub fn direction(&mut self, direction: Vec<f32>, every: usize) {
        (self.direction, self.every) = (direction, every);
    }

    pub fn along(&mut self, length: f64) {
        self.moved.resize(self.direction.len(), 0.0);
        let values = self.image_values;
        let images = self.images.par_chunks_exact(values).step_by(self.every);
        let directions = self.direction.par_chunks_exact(values);
        let moved = self.moved.par_chunks_exact_mut(values);
        tasks::each(moved.zip(images).zip(directions), |((moved, image), direction)| {
            moved.copy_from_slice(image);
            add_along(moved, direction, length);
        });
    }

    /// The inputs of the trunk for a pass.
    pub fn forward(&mut self, pass: Pass) -> TrunkForward<'_> {
        self.pass = pass;
        let statistics = &mut self.weights.moving[..];
        let (images, moving) = match pass {
            Pass::Train { keep } => (&self.images, Some(Moving { statistics, keep })),
            Pass::Perturbed | Pass::Direction => (&self.moved, None),
        };
        let direction = (pass == Pass::Direction).then(|| {
            tasks::each(self.direction.par_chunks_exact_mut(self.image_values), normalize);
            &self.direction[..]
        });
        let ranks = &*self.statistics;
        TrunkForward { parameters: &self.weights.parameters, images, direction, moving, ranks }
    }

    /// After a forward pass in which each rank moved its own moving statistics: their mean over the ranks.
    pub fn average_moving(&mut self) -> Result<()> {
        let size = self.ranks.size();
        if size == self.statistics.size() || !matches!(self.pass, Pass::Train { .. }) {
            return Ok(());
        }
        let moving = &mut self.weights.moving;
        let all = self.ranks.gathered(moving)?;
        moving.fill(0.0);
        for of_rank in all.chunks_exact(moving.len()) {
            moving.iter_mut().zip(of_rank).for_each(|(mean, own)| *mean += own / size as f32);
        }
        Ok(())
    }

    /// The logits of each head from the pre-logits.
    pub fn logits(&mut self, features: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        self.heads.forward(&self.layout, &self.weights.parameters, features)
    }

    /// The tangents of each head's logits from that of the pre-logits.
    pub fn tangents(&mut self, features: &[f32]) -> Result<Vec<Vec<f32>>> {
        self.heads.tangents(&self.layout, &self.weights.parameters, features)
    }

    /// The inputs of the trunk's backward pass after the last `forward`, from the gradients of all heads'
    /// logits. `last`: as in `Engine::backward`.
    pub fn backward(
        &mut self,
        logits: &[Option<Vec<f32>>],
        last: bool,
    ) -> Result<TrunkBackward<'_>> {
        let HostMemory { layout, heads, gradient, sum, .. } = self;
        let (images, features, wanted) = match self.pass {
            Pass::Direction => {
                let features = heads.backward(layout, logits, None)?;
                (&self.moved, features, Wanted::Images(&mut self.direction))
            }
            Pass::Train { .. } | Pass::Perturbed => {
                let images = match self.pass {
                    Pass::Train { .. } => &self.images,
                    _ => &self.moved,
                };
                let features = heads.backward(layout, logits, Some(gradient))?;
                (images, features, Wanted::Parameters(gradient, last.then_some(sum)))
            }
        };
        let parameters = &self.weights.parameters;
        Ok(TrunkBackward { parameters, images, features, wanted, ranks: &*self.statistics })
    }

    pub fn update(&mut self, by: &Update) -> Result<()> {
        self.sum.end(&mut self.gradient)?;
        update(&mut self.weights, &mut self.gradient, &self.decayed, by);
        self.heads.forget();
        Ok(())
    }

    /// The logits of a head from inferred pre-logits.
    pub fn infer(&mut self, features: Vec<f32>, head: usize) -> Result<Vec<f32>> {
        self.heads.infer(&self.layout, &self.weights.parameters, features, head)
    }

    pub fn read(&self, inner: Inner) -> Vec<f32> {
        match inner {
            Inner::Gradient => self.gradient.clone(),
            Inner::Direction => self.direction.clone(),
            Inner::Moved => self.moved.clone(),
        }
    }
}

/// The largest value of a direction, and its norm in units of that; `None` if it is 0. So the squares of tiny
/// gradients do not underflow.
fn norm(direction: &[f32]) -> Option<(f32, f64)> {
    let largest = direction.iter().fold(0f32, |m, v| m.max(v.abs()));
    let squares = direction.iter().map(|&v| f64::from(v / largest).powi(2));
    (largest != 0.0).then(|| (largest, squares.sum::<f64>().sqrt()))
}

/// image + length * direction / |direction|. Without a direction the image is unchanged.
fn add_along(image: &mut [f32], direction: &[f32], length: f64) {
    let Some((largest, norm)) = norm(direction) else { return };
    let factor = length / norm;
    for (x, &d) in image.iter_mut().zip(direction) {
        *x += (factor * f64::from(d / largest)) as f32;
    }
}

/// direction / |direction|, in place.
fn normalize(direction: &mut [f32]) {
    let Some((largest, norm)) = norm(direction) else { return };
    for d in direction {
        *d = (f64::from(*d / largest) / norm) as f32;
    }
}
