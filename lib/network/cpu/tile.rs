//! A tile: consecutive items of a layer, which one task computes at a time.

use super::convolve::Epilogue;
use super::shared::Shared;
use std::ops::Range;

/// Consecutive items, and which of the layer's tiles they are.
#[derive(Clone, Copy)]
pub struct Tile {
    pub index: usize,
    pub first: usize,
    pub count: usize,
}

/// A convolution over a tile.
pub struct Job<'a, E, O> {
    /// What each operand reads: `items` items.
    pub inputs: &'a [&'a [E]],
    pub items: usize,
    /// Packed, one operand's after the other's.
    pub weights: &'a [f32],
    /// Channels of the output that are computed.
    pub columns: Range<usize>,
    pub output: *mut O,
    pub epilogue: Epilogue<'a, O>,
}

/// The weight gradient of a convolution over a tile.
pub struct GradientJob<'a, E> {
    /// These channels of the input: `items` items.
    pub input: &'a [E],
    pub channels: Range<usize>,
    pub items: usize,
    /// Of the convolution's output.
    pub gradient: &'a [E],
    pub sums: PartialSums,
}

/// Where a chunk adds up the weight gradient of one convolution.
#[derive(Clone, Copy)]
pub struct PartialSums {
    pub values: Shared<f32>,
    pub start: usize,
    /// They hold sums to add to.
    pub begun: bool,
}
