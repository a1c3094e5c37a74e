//! Convolutions over the patches of a tile, block by block.

use super::form::Form;
use super::kernels::{
    FoldGradient, OfGradient, OfInput, Transform, TransformOutput, TransformWeights,
};
use super::transforms::Transforms;
use crate::network::cpu::convolve::Sink;
use crate::network::cpu::element::Element;
use crate::network::cpu::isa::Isa;
use crate::network::cpu::multiply::Single;
use crate::network::cpu::packing::Way;
use crate::network::cpu::products::{Products, WeightGradient};
use crate::network::cpu::registers::{LANES, panel_width};
use crate::network::cpu::shared::{Shared, grown};
use crate::network::cpu::tile::{GradientJob, Job};
use crate::network::layout::Conv;
use crate::tasks;
use rayon::prelude::*;

/// Larger patches are used if an image has at least this many of them: they save multiplications, but have
/// twice the weights.
const LARGE: usize = 16;
/// Products of pairs have twice the rate, which makes up for all multiplications that patches save, but for
/// large patches in images of more than this many of them.
const FEW: usize = 16;
/// Rows of a panel that a task transforms.
const ROWS: usize = 32;
/// Values that a task adds up.
const TASK_VALUES: usize = 64 << 10;

/// How a convolution is cut into patches.
pub enum Patches {
    Small(Form<4, 2>),
    Large(Form<6, 4>),
}

/// Transformed patches of one block, before and after the products.
#[derive(Default)]
pub struct PatchBuffers([Vec<f32>; 2]);

/// The same call for both forms.
macro_rules! forms {
    ($self:ident, $form:ident => $call:expr) => {
        match $self {
            Patches::Small($form) => $call,
            Patches::Large($form) => $call,
        }
    };
}

impl Patches {
    /// For tiles of `tile` images, if the algorithm fits the convolution. `pairs`: what is not cut into
    /// patches is multiplied in pairs.
    pub fn new(conv: &Conv, (h, w): (usize, usize), tile: usize, pairs: bool) -> Option<Patches> {
        let channels = conv.inputs;
        if (conv.kernel, conv.stride, conv.outputs) != (3, 1, channels) || h < 4 || w < 4 {
            return None;
        }
        let large = h.div_ceil(4) * w.div_ceil(4);
        if pairs && large <= FEW {
            return None;
        }
        Some(match large >= LARGE {
            true => Patches::Large(Form::new(channels, (h, w), tile)),
            false => Patches::Small(Form::new(channels, (h, w), tile)),
        })
    }

    /// Words of the transformed weights.
    pub fn packed_words(&self) -> usize {
        forms!(self, f => f.packed_words())
    }

    /// Values of the transformed weights' gradient.
    pub fn gradient_values(&self) -> usize {
        forms!(self, f => f.gradient_values())
    }

    /// Transforms the weights `[3, 3, channels, channels]` and packs them: `[channels, channels]` in panels
    /// per position.
    pub fn pack(&self, isa: Isa, weights: &[f32], way: Way, packed: &mut [f32]) {
        forms!(self, f => f.pack(isa, weights, way, packed));
    }

    /// Convolves a tile of whole images.
    pub fn convolve<E: Element, O: Element>(
        &self,
        isa: Isa,
        buffers: &mut PatchBuffers,
        job: Job<E, O>,
    ) {
        forms!(self, f => f.convolve(isa, buffers, job));
    }

    /// The transformed weight gradient: per position `[channels, channels]`, the rows of the channels that
    /// the tile holds.
    pub fn weight_gradient<E: Element>(
        &self,
        isa: Isa,
        buffers: &mut PatchBuffers,
        job: &GradientJob<E>,
    ) {
        forms!(self, f => f.weight_gradient(isa, buffers, job));
    }

    /// Adds the weight gradient `[3, 3, channels, channels]` of a transformed one to `out`.
    pub fn add_weight_gradient(&self, isa: Isa, transformed: &[&[f32]], out: &mut [f32]) {
        forms!(self, f => f.add_weight_gradient(isa, transformed, out));
    }
}

impl<const IN: usize, const OUT: usize> Form<IN, OUT>
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    /// Words of the transformed weights from one position to the next: an odd number of cache lines.
    fn weights_step(&self) -> usize {
        self.channels * self.channels + LANES
    }

    fn packed_words(&self) -> usize {
        Self::POSITIONS * self.weights_step()
    }

    fn gradient_values(&self) -> usize {
        Self::POSITIONS * self.channels * self.channels
    }

    fn pack(&self, isa: Isa, weights: &[f32], way: Way, packed: &mut [f32]) {
        let (c, width) = (self.channels, panel_width(isa));
        let packed = Shared::new(packed);
        let panels = c.div_ceil(width);
        tasks::each((0..c.div_ceil(ROWS) * panels).into_par_iter(), |task| {
            let (row, start) = (task / panels * ROWS, task % panels * width);
            isa.dispatch(TransformWeights::<IN, OUT> {
                weights,
                channels: c,
                rows: row..(row + ROWS).min(c),
                columns: start..(start + width).min(c),
                way,
                packed,
                position: self.weights_step(),
            });
        });
    }

    fn convolve<E: Element, O: Element>(
        &self,
        isa: Isa,
        PatchBuffers([inputs, outputs]): &mut PatchBuffers,
        job: Job<E, O>,
    ) {
        let Job { weights, columns, output, mut epilogue, .. } = job;
        let (c, width) = (self.channels, columns.len());
        let inputs = grown(inputs, Self::POSITIONS * self.position(c));
        let outputs = grown(outputs, Self::POSITIONS * self.position(width));
        for patches in self.blocks(job.items) {
            isa.dispatch(Transform {
                of: OfInput::<OUT>,
                pixels: &self.inputs[patches.clone()],
                values: job.inputs[0],
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
                weights_step: self.weights_step(),
                output: outputs,
                output_step: self.position(width),
            });
            let sink = Sink { output, to: &self.to, epilogue: epilogue.reborrow() };
            let transform = TransformOutput::<O, IN, OUT> {
                products: outputs,
                position: self.position(width),
                pixels: &self.outputs[patches.clone()],
                first: &self.first[patches],
                columns: columns.clone(),
                sink,
            };
            O::dispatch(isa, transform);
        }
    }

    fn weight_gradient<E: Element>(
        &self,
        isa: Isa,
        PatchBuffers([inputs, gradients]): &mut PatchBuffers,
        job: &GradientJob<E>,
    ) {
        let GradientJob { channels: rows, sums, .. } = job;
        let (c, channels) = (self.channels, rows.len());
        let inputs = grown(inputs, Self::POSITIONS * self.position(channels));
        let gradients = grown(gradients, Self::POSITIONS * self.position(c));
        for patches in self.blocks(job.items) {
            isa.dispatch(Transform {
                of: OfInput::<OUT>,
                pixels: &self.inputs[patches.clone()],
                values: job.input,
                channels,
                out: inputs,
                position: self.position(channels),
            });
            isa.dispatch(Transform {
                of: OfGradient,
                pixels: &self.outputs[patches.clone()],
                values: job.gradient,
                channels: c,
                out: gradients,
                position: self.position(c),
            });
            for p in 0..Self::POSITIONS {
                isa.dispatch(WeightGradient::<Single<f32>> {
                    input: &inputs[p * self.position(channels)..],
                    channels,
                    stride: 1,
                    depth: channels,
                    gradient: &gradients[p * self.position(c)..],
                    outputs: c,
                    runs: &[(0, 0)],
                    width: patches.len(),
                    // SAFETY: each task has its own chunks, or rows.
                    out: unsafe {
                        let start = sums.start + (p * c + rows.start) * c;
                        sums.values.slice(start, channels * c)
                    },
                    accumulate: sums.begun || patches.start > 0,
                });
            }
        }
    }

    fn add_weight_gradient(&self, isa: Isa, transformed: &[&[f32]], out: &mut [f32]) {
        let size = self.channels * self.channels;
        let out = Shared::new(out);
        let values = (TASK_VALUES / (Self::POSITIONS * transformed.len())).max(1 << 7);
        let task = values.next_multiple_of(LANES);
        tasks::each((0..size.div_ceil(task)).into_par_iter(), |t| {
            isa.dispatch(FoldGradient::<IN, OUT> {
                transformed,
                size,
                range: t * task..((t + 1) * task).min(size),
                out,
            });
        });
    }
}
