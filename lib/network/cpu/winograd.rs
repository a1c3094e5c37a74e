//! 3x3 convolutions with stride 1 by Winograd's minimal filtering (Lavin & Gray, arXiv 1509.09308).
//! F(2x2, 3x3): 16 multiplications where the definition has 36, for 2x2 outputs of a 4x4 patch.
//! F(4x4, 3x3): 36 where it has 144, for 4x4 outputs of a 6x6 patch. Forward and input gradient are
//! the algorithm itself, the weight gradient its adjoint.

mod kernels;
mod transforms;

use super::convolve::{Epilogue, Sink};
use super::element::Element;
use super::geometry::Direction;
use super::isa::Isa;
use super::multiply::Single;
use super::products::{Products, WeightGradient};
use super::registers::panel_width;
use super::workers::{Shared, grown};
use crate::network::layout::Conv;
use kernels::{FoldGradient, Transform, TransformOutput, TransformWeights};
use rayon::prelude::*;
use std::ops::Range;
use transforms::Transforms;

/// Values of the transformed patches of a block, on one side.
const BLOCK_VALUES: usize = 64 << 10;
/// Those of one channel: at least as many as the matrix product of each position needs rows for.
const CHANNEL_VALUES: Range<usize> = 1008..4096;
/// Larger patches are used where an image has this many of them: they save multiplications, and
/// have twice the weights.
const LARGE: usize = 16;
/// A pixel outside the image.
const OUTSIDE: u32 = u32::MAX;

/// How a convolution is cut into patches.
pub enum Patches {
    Small(Form<4, 2>),
    Large(Form<6, 4>),
}

/// The patches of a tile of whole images: `OUT` x `OUT` outputs of `IN` x `IN` inputs.
pub struct Form<const IN: usize, const OUT: usize> {
    /// Pixels of the inputs of each patch.
    inputs: Vec<[[u32; IN]; IN]>,
    /// Pixels of its outputs.
    outputs: Vec<[[u32; OUT]; OUT]>,
    /// Offsets of the outputs inside the image, patch by patch, and each patch's first one.
    to: Vec<u32>,
    first: Vec<u32>,
    /// Patches of an image.
    per_image: usize,
    /// Input and output channels.
    channels: usize,
    /// Patches of a block.
    block: usize,
}

/// Transformed patches of one block, before and after the products.
#[derive(Default)]
pub struct Buffers([Vec<f32>; 2]);

/// The same call for either form.
macro_rules! forms {
    ($self:ident, $form:ident => $call:expr) => {
        match $self {
            Patches::Small($form) => $call,
            Patches::Large($form) => $call,
        }
    };
}

impl Patches {
    /// For tiles of `tile` images, where the algorithm fits the convolution.
    pub fn new(conv: &Conv, (h, w): (usize, usize), tile: usize) -> Option<Patches> {
        let channels = conv.inputs;
        if (conv.kernel, conv.stride, conv.outputs) != (3, 1, channels) || h < 4 || w < 4 {
            return None;
        }
        Some(match h.div_ceil(4) * w.div_ceil(4) >= LARGE {
            true => Patches::Large(Form::new(channels, (h, w), tile)),
            false => Patches::Small(Form::new(channels, (h, w), tile)),
        })
    }

    /// Values of the transformed weights, and of their gradient.
    pub fn packed_words(&self) -> usize {
        forms!(self, f => f.packed_words())
    }

    /// Transforms the weights `[3, 3, channels, channels]` and packs them: `[channels, channels]`
    /// in panels for each position.
    pub fn pack(&self, isa: Isa, weights: &[f32], direction: Direction, packed: &mut [f32]) {
        forms!(self, f => f.pack(isa, weights, direction, packed));
    }

    /// Convolves a tile of `images` images. `columns`: of the output.
    #[allow(clippy::too_many_arguments)]
    pub fn convolve<E: Element, O: Element>(
        &self,
        isa: Isa,
        buffers: &mut Buffers,
        tile: (&[E], usize),
        weights: &[f32],
        columns: Range<usize>,
        output: *mut O,
        epilogue: Epilogue<O>,
    ) {
        forms!(self, f => f.convolve(isa, buffers, tile, weights, columns, output, epilogue));
    }

    /// Weight gradient, transformed: for each position `[channels, channels]`, the rows of the
    /// `channels` that the tile holds. `begun`: `out` holds sums to add to.
    #[allow(clippy::too_many_arguments)]
    pub fn weight_gradient<E: Element>(
        &self,
        isa: Isa,
        buffers: &mut Buffers,
        tile: (&[E], Range<usize>),
        gradient: &[E],
        images: usize,
        out: (Shared<f32>, usize),
        begun: bool,
    ) {
        forms!(self, f => f.weight_gradient(isa, buffers, tile, gradient, images, out, begun));
    }

    /// Adds the weight gradient `[3, 3, channels, channels]` of transformed ones to `out`.
    pub fn add_weight_gradient(&self, isa: Isa, transformed: &[&[f32]], out: &mut [f32]) {
        forms!(self, f => f.add_weight_gradient(isa, transformed, out));
    }
}

impl<const IN: usize, const OUT: usize> Form<IN, OUT>
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    /// Positions of a transformed patch.
    const POSITIONS: usize = IN * IN;

    fn new(channels: usize, (h, w): (usize, usize), tile: usize) -> Form<IN, OUT> {
        let (ph, pw) = (h.div_ceil(OUT), w.div_ceil(OUT));
        let pixel = |u: usize, y: usize, x: usize| match y < h && x < w {
            true => ((u * h + y) * w + x) as u32,
            false => OUTSIDE,
        };
        let all =
            (0..tile).flat_map(|u| (0..ph * pw).map(move |p| (u, p / pw * OUT, p % pw * OUT)));
        let outputs = all.clone().map(|(u, y, x)| {
            std::array::from_fn(|i| std::array::from_fn(|j| pixel(u, y + i, x + j)))
        });
        let outputs: Vec<[[u32; OUT]; OUT]> = outputs.collect();
        let mut to = Vec::new();
        let mut first = Vec::new();
        for patch in &outputs {
            first.push(to.len() as u32);
            let inside = patch.as_flattened().iter().filter(|&&p| p != OUTSIDE);
            to.extend(inside.map(|p| p * channels as u32));
        }
        // A row or column before the first wraps round and is outside.
        let before = |i: usize, j: usize| (i + j).wrapping_sub(1);
        let inputs = all.map(|(u, y, x)| {
            std::array::from_fn(|i| std::array::from_fn(|j| pixel(u, before(y, i), before(x, j))))
        });
        Form {
            inputs: inputs.collect(),
            outputs,
            to,
            first,
            per_image: ph * pw,
            channels,
            block: (BLOCK_VALUES / channels).clamp(CHANNEL_VALUES.start, CHANNEL_VALUES.end)
                / Self::POSITIONS,
        }
    }

    fn packed_words(&self) -> usize {
        Self::POSITIONS * self.channels * self.channels
    }

    fn pack(&self, isa: Isa, weights: &[f32], direction: Direction, packed: &mut [f32]) {
        let (c, width) = (self.channels, panel_width(isa));
        let packed = Shared::new(packed);
        (0..c.div_ceil(width)).into_par_iter().for_each(|panel| {
            let start = panel * width;
            isa.dispatch(TransformWeights::<IN, OUT> {
                weights,
                channels: c,
                columns: start..(start + width).min(c),
                direction,
                packed,
            });
        });
    }

    /// Values from one position to the next: an odd number of cache lines.
    fn position(&self, channels: usize) -> usize {
        self.block * channels + 16
    }

    /// Blocks of the patches of `images` images, of nearly equal size.
    fn blocks(&self, images: usize) -> impl Iterator<Item = Range<usize>> {
        let all = images * self.per_image;
        let block = all.div_ceil(all.div_ceil(self.block));
        (0..all).step_by(block).map(move |p| p..(p + block).min(all))
    }

    #[allow(clippy::too_many_arguments)]
    fn convolve<E: Element, O: Element>(
        &self,
        isa: Isa,
        Buffers([inputs, outputs]): &mut Buffers,
        (tile, images): (&[E], usize),
        weights: &[f32],
        columns: Range<usize>,
        output: *mut O,
        mut epilogue: Epilogue<O>,
    ) {
        let (c, width) = (self.channels, columns.len());
        let inputs = grown(inputs, Self::POSITIONS * self.position(c));
        let outputs = grown(outputs, Self::POSITIONS * self.position(width));
        for patches in self.blocks(images) {
            isa.dispatch(Transform {
                of: kernels::Input::<OUT>,
                pixels: &self.inputs[patches.clone()],
                values: tile,
                channels: c,
                out: inputs,
                position: self.position(c),
            });
            isa.dispatch(Products::<Single<f32>> {
                count: Self::POSITIONS,
                rows: patches.len(),
                depth: c,
                columns: columns.clone(),
                input: inputs,
                input_step: self.position(c),
                weights,
                weights_step: c * c,
                output: outputs,
                output_step: self.position(width),
            });
            let sink = Sink { output, to: &self.to, epilogue: epilogue.reborrow() };
            isa.dispatch(TransformOutput::<O, IN, OUT> {
                products: outputs,
                position: self.position(width),
                pixels: &self.outputs[patches.clone()],
                first: &self.first[patches],
                columns: columns.clone(),
                sink,
            });
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn weight_gradient<E: Element>(
        &self,
        isa: Isa,
        Buffers([inputs, gradients]): &mut Buffers,
        (tile, rows): (&[E], Range<usize>),
        gradient: &[E],
        images: usize,
        (out, start): (Shared<f32>, usize),
        begun: bool,
    ) {
        let (c, channels) = (self.channels, rows.len());
        let inputs = grown(inputs, Self::POSITIONS * self.position(channels));
        let gradients = grown(gradients, Self::POSITIONS * self.position(c));
        for patches in self.blocks(images) {
            isa.dispatch(Transform {
                of: kernels::Input::<OUT>,
                pixels: &self.inputs[patches.clone()],
                values: tile,
                channels,
                out: inputs,
                position: self.position(channels),
            });
            isa.dispatch(Transform {
                of: kernels::Gradient,
                pixels: &self.outputs[patches.clone()],
                values: gradient,
                channels: c,
                out: gradients,
                position: self.position(c),
            });
            for p in 0..Self::POSITIONS {
                isa.dispatch(WeightGradient::<Single<f32>> {
                    input: inputs[p * self.position(channels)..].as_ptr(),
                    channels,
                    stride: 1,
                    depth: channels,
                    gradient: gradients[p * self.position(c)..].as_ptr(),
                    outputs: c,
                    runs: &[(0, 0)],
                    width: patches.len(),
                    // SAFETY: tasks have chunks, or rows, of their own.
                    out: unsafe { out.slice(start + (p * c + rows.start) * c, channels * c) },
                    accumulate: begun || patches.start > 0,
                });
            }
        }
    }

    fn add_weight_gradient(&self, isa: Isa, transformed: &[&[f32]], out: &mut [f32]) {
        let size = self.channels * self.channels;
        let out = Shared::new(out);
        let task = 4 << 10;
        (0..size.div_ceil(task)).into_par_iter().for_each(|t| {
            isa.dispatch(FoldGradient::<IN, OUT> {
                transformed,
                size,
                range: t * task..((t + 1) * task).min(size),
                out,
            });
        });
    }
}
