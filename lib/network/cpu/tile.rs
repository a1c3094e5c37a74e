//! A tile: consecutive items of a layer that one task computes at a time.

use super::convolve::Epilogue;
use super::shared::Shared;
use std::ops::Range;

/// Consecutive items, and the index of their tile in the layer.
#[derive(Clone, Copy)]
pub struct Tile {
    pub index: usize,
    pub first: usize,
    pub count: usize,
}

/// A convolution over a tile.
pub struct Job<'a, E, O> {
    /// The input of each operand: `items` items.
    pub inputs: &'a [&'a [E]],
    pub items: usize,
    /// Packed weights, one operand after the other.
    pub weights: &'a [f32],
    /// Output channels to compute.
    pub columns: Range<usize>,
    pub output: *mut O,
    pub epilogue: Epilogue<'a, O>,
}

/// The weight gradient of a convolution over a tile.
pub struct GradientJob<'a, E> {
    /// Input channels: `items` items.
    pub input: &'a [E],
    pub channels: Range<usize>,
    pub items: usize,
    /// Gradient of the convolution's output.
    pub gradient: &'a [E],
    pub sums: PartialSums,
}

/// Where a chunk adds up the weight gradient of one convolution.
#[derive(Clone, Copy)]
pub struct PartialSums {
    pub values: Shared<f32>,
    pub start: usize,
    /// Whether the sums are added to the present content.
    pub begun: bool,
}
