//! What computes a network: the seam between the methods and a device.

use crate::error::Result;
use serde::{Deserialize, Serialize};

/// What activations and their gradients are stored as, and what the CPU multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Precision {
    /// float32.
    F32,
    /// bfloat16, summed in float32; weights, statistics and VAT's direction stay float32.
    Bf16,
}

/// What a forward pass normalizes with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pass {
    /// Batch statistics; the moving ones follow and keep this share of themselves.
    Train { keep: f32 },
    /// Batch statistics; the moving ones stay (VAT's perturbed passes).
    Perturbed,
}

/// Share of the moving statistics that a training step keeps (reference models/resnet.py).
pub const BATCH_NORM_MOMENTUM: f32 = 0.99;

/// Added to the variance by a batch norm (TensorFlow layers' default, as in the reference).
pub const BATCH_NORM_EPSILON: f64 = 1e-3;

/// Which gradients a backward pass computes: added to `parameters`, written to `images`.
#[derive(Default)]
pub struct Gradients<'a> {
    /// The whole parameter vector, or its trunk part.
    pub parameters: Option<&'a mut [f32]>,
    /// `[n, height, width, channels]`, as the images.
    pub images: Option<&'a mut [f32]>,
}

/// Images `[n, height, width, channels]` → pre-logits `[n, features]`, differentiable.
pub trait Trunk: Send {
    /// Runs the images through; keeps what `backward` needs.
    fn forward(
        &mut self,
        parameters: &[f32],
        moving: &mut [f32],
        images: &[f32],
        pass: Pass,
    ) -> Result<Vec<f32>>;

    /// Backward of the last `forward` with the same parameters, from the gradient of the pre-logits.
    fn backward(&mut self, parameters: &[f32], features: &[f32], wanted: Gradients) -> Result<()>;

    /// Takes over the weights and moving statistics for `infer`, until the next `forward`.
    fn prepare(&mut self, parameters: &[f32], moving: &[f32]) -> Result<()>;

    /// Pre-logits by the moving statistics last prepared.
    fn infer(&mut self, images: &[f32]) -> Result<Vec<f32>>;
}
