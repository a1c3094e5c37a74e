//! The seam between the methods and what computes a network: an engine owns its weights, and the host
//! sees logits.

use super::update::Update;
use super::weights::Weights;
use crate::error::Result;
use crate::ranks::Ranks;
use serde::{Deserialize, Serialize};

/// The number format in which activations and gradients are stored, and which the CPU multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Precision {
    /// float32.
    F32,
    /// bfloat16, summed in float32; weights and statistics stay float32.
    Bf16,
}

/// Share of the moving statistics that a training step keeps (reference models/resnet.py).
pub const BATCH_NORM_MOMENTUM: f32 = 0.99;

/// Added to the variance by a batch norm (TensorFlow layers' default, as in the reference).
pub const BATCH_NORM_EPSILON: f64 = 1e-3;

/// Which images go through the network, and which gradient the way back computes. Every pass
/// normalizes with the statistics of its own batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pass {
    /// The images of the step. The moving statistics follow and keep this share of themselves. The
    /// gradient of the parameters is accumulated.
    Train { keep: f32 },
    /// The moved images. The gradient of the parameters is accumulated.
    Perturbed,
    /// The moved images, together with the tangent along their directions. The gradient of these images
    /// becomes their direction.
    Direction,
}

/// A vector that stays in the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Inner {
    /// Of the parameters, since the last update.
    Gradient,
    /// `[moved images, height, width, channels]`.
    Direction,
    /// The moved images themselves.
    Moved,
}

/// A network on a device. Images are `[n, height, width, channels]`, logits `[n, outputs]`.
pub trait Engine: Send {
    /// From now on, batches are those of all ranks: gradients of the parameters, and, with `sync_batch_norm`,
    /// statistics of a batch.
    fn join(&mut self, ranks: Ranks, sync_batch_norm: bool) -> Result<()>;

    /// Bytes of memory that training may take, if it is not the host's memory.
    fn most_bytes(&self) -> Result<Option<usize>>;

    /// Takes over the weights.
    fn put(&mut self, weights: Weights) -> Result<()>;

    /// The weights as they are now.
    fn get(&self) -> Result<Weights>;

    /// Takes the images of a step, and leaves the buffer of the last ones in their place.
    fn images(&mut self, images: &mut Vec<f32>);

    /// Gives images of the step a direction each, of any length: from the first on each `every`-th, as many
    /// as there are directions.
    fn direction(&mut self, direction: Vec<f32>, every: usize);

    /// Moves each image that has a direction by this length along it; from where it was in the step,
    /// whatever moves came before. Without a direction (a gradient of zero) it stays there.
    fn along(&mut self, length: f64);

    /// The logits of each head, in the order of the layout.
    fn forward(&mut self, pass: Pass) -> Result<Vec<Vec<f32>>>;

    /// After `forward(Pass::Direction)`: how the logits of each head change per unit of length if all images move
    /// along their directions, `[n, outputs]`. An image without a direction does not move.
    fn tangents(&mut self) -> Result<Vec<Vec<f32>>>;

    /// The backward pass of the last `forward`, from the gradient of each head's logits, `None` for a head
    /// that the loss does not depend on. `last`: no other pass adds to the gradient of the parameters before the
    /// `update`, so ranks may begin to add it up.
    fn backward(&mut self, logits: &[Option<Vec<f32>>], last: bool) -> Result<()>;

    /// Makes an optimizer step along the gradient of the parameters of all ranks, then clears the gradient.
    fn update(&mut self, update: &Update) -> Result<()>;

    /// Prepares inference with the current weights.
    fn prepare(&mut self) -> Result<()>;

    /// The logits of one head, by its place in the layout, by the moving statistics. Comes after
    /// `prepare`, with no other call between them.
    fn infer(&mut self, images: &[f32], head: usize) -> Result<Vec<f32>>;

    /// A copy of what stays inside, for tests.
    fn read(&self, inner: Inner) -> Result<Vec<f32>>;
}
