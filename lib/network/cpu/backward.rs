//! Backward pass of the convolutions, for weights and input together.

use super::conv::{LayerInput, convolve};
use super::convolve::Epilogue;
use super::element::Element;
use super::elementwise::{AddAll, NormBackward, PairPixels};
use super::geometry::{Group, TiledConv};
use super::isa::Isa;
use super::multiply::{Single, Words};
use super::norm::{Affine, fold_sums};
use super::packing::Way;
use super::products::WeightGradient;
use super::registers::padded;
use super::shared::{Shared, grown};
use super::tile::{GradientJob, Job, PartialSums, Tile};
use super::workers::{KernelBuffers, Scratch, Workers};
use crate::error::Result;
use crate::ranks::GradientSum;
use crate::tasks;
use rayon::prelude::*;
use std::ops::Range;

/// Values per task in a pass over large buffers.
const TASK_VALUES: usize = 64 << 10;

/// The backward pass of one `conv::Forward`.
pub struct Backward<'a, E> {
    /// Number of input items.
    pub items: usize,
    pub input: LayerInput<'a, E>,
    /// Packed for this pass.
    pub weights: &'a [f32],
    /// One per convolution.
    pub upstream: &'a [Upstream<'a, E>],
    pub downstream: Downstream<'a, E>,
}

/// Gradient with respect to a convolution's output.
pub enum Upstream<'a, E> {
    Direct(&'a [E]),
    /// Through the batch norm that follows: masked gradient, the output's values, coefficients.
    Norm(&'a [E], &'a [E], &'a Affine),
    Unit(UnitGradient<'a, E>),
}

/// The gradient of a bottleneck unit's output: the gradient through the batch norm that follows, plus the
/// gradient through the next residual connection.
pub struct UnitGradient<'a, E> {
    /// The masked gradient, which the computed gradient replaces.
    pub masked: Shared<E>,
    pub values: &'a [E],
    pub norm: &'a Affine,
    pub residual: Option<&'a [E]>,
}

impl<E: Element> UnitGradient<'_, E> {
    /// Computes the gradient of `pixels` pixels.
    pub fn compute_all(&self, isa: Isa, pixels: usize) -> &[E] {
        let c = self.norm.scale.len();
        let task = (TASK_VALUES / c).max(1);
        tasks::each((0..pixels.div_ceil(task)).into_par_iter(), |i| {
            self.compute(isa, i * task * c..((i + 1) * task).min(pixels) * c);
        });
        // SAFETY: nobody writes there after this.
        unsafe { self.masked.slice(0, pixels * c) }
    }

    /// Computes a range of the gradient.
    fn compute(&self, isa: Isa, range: Range<usize>) -> &[E] {
        // SAFETY: the ranges of tasks are disjoint.
        let out = unsafe { self.masked.slice(range.start, range.len()) };
        E::dispatch(
            isa,
            NormBackward {
                gradient: out.as_ptr(),
                values: &self.values[range.clone()],
                residual: self.residual.map(|r| &r[range]),
                output: out.as_mut_ptr(),
                norm: self.norm.coefficients(),
            },
        );
        out
    }
}

/// Where the gradient of a group's input goes.
pub enum Downstream<'a, E> {
    Nowhere,
    Images(Shared<f32>),
    /// Masked by the ReLU of this norm; the input's values.
    Norm(Shared<E>, &'a [E], &'a Affine),
}

/// Where the gradient of the parameters is added up.
pub struct ParameterGradient<'a> {
    /// The sums of the whole parameter vector; `None` if no gradient is wanted.
    pub sums: Option<&'a mut [f32]>,
    /// The sum of these over the ranks, if it can begin.
    pub over_ranks: Option<&'a mut GradientSum>,
    /// Working memory.
    pub partial: &'a mut Vec<f32>,
}

impl ParameterGradient<'_> {
    /// This pass has added all that it adds to the parameters from this one on.
    pub fn whole_from(&mut self, from: usize) -> Result<()> {
        match (&self.sums, &mut self.over_ranks) {
            (Some(sums), Some(over_ranks)) => over_ranks.whole_from(sums, from),
            _ => Ok(()),
        }
    }
}

/// The channels of a tile that one task computes, and where the sums go.
struct Task<'a> {
    tile: Tile,
    channels: Range<usize>,
    /// The sums for the norm of the input: of the gradient, and of gradient * (x - mean).
    norm: Option<(&'a mut [f32], &'a mut [f32])>,
    weights: Option<PartialSums>,
    /// Whether the gradient of the input is computed.
    input: bool,
}

impl Group {
    /// Backward of `forward`: adds to the gradient of the parameters and writes the gradient of the input.
    /// Returns the sums that the backward pass of the input's norm needs.
    pub fn backward<E: Element>(
        &self,
        workers: &Workers<E>,
        pass: Backward<E>,
        gradient: &mut ParameterGradient,
    ) -> [Vec<f64>; 2] {
        let wanted = gradient.sums.is_some();
        let input = !matches!(pass.downstream, Downstream::Nowhere);
        let tiles = pass.items.div_ceil(self.tile);
        let grid = self.grid(tiles, workers.threads(), wanted, input);
        // A unit's gradient is computed in place: by the only task, or before all tasks.
        let direct;
        let upstream = match pass.upstream {
            [Upstream::Unit(unit)] if grid.blocks > 1 || grid.apart => {
                let pixels = pass.items * self.convs[0].out_pixels;
                direct = [Upstream::Direct(unit.compute_all(workers.isa, pixels))];
                &direct
            }
            all => all,
        };
        let pass = Backward { upstream, ..pass };
        let c = padded(self.inputs);
        let masked = matches!(pass.downstream, Downstream::Norm(..));
        let mut sums = vec![0f32; if masked { grid.tiles * 2 * c } else { 0 }];
        let norm_sums = Shared::new(&mut sums);
        let total = self.gradient_values();
        let partial = grown(gradient.partial, if wanted { grid.chunks * total } else { 0 });
        let weight_sums = Shared::new(partial);
        let run = |task, scratch: &mut Scratch<E>| {
            let (b, tiles, weights, input) = grid.task(task);
            let channels = b * grid.block..((b + 1) * grid.block).min(self.inputs);
            for t in tiles.clone() {
                // SAFETY: tiles are disjoint, and so are the channels of blocks.
                let of = |i| unsafe { norm_sums.slice((t * 2 + i) * c, c) };
                let sums = PartialSums {
                    values: weight_sums,
                    start: t / grid.chunk * total,
                    begun: t > tiles.start,
                };
                let task = Task {
                    tile: self.tile(t, pass.items),
                    channels: channels.clone(),
                    norm: (masked && input).then(|| (of(0), of(1))),
                    weights: (wanted && weights).then_some(sums),
                    input,
                };
                self.backward_tile(workers.isa, scratch, &pass, task);
            }
        };
        match grid.apart {
            true => workers.run_in_order(grid.tasks(), run),
            false => workers.run(grid.tasks(), run),
        }
        if let Some(out) = &mut gradient.sums {
            self.add_chunks(workers.isa, partial, out);
        }
        fold_sums(&sums, c)
    }

    /// Adds the partial sums of the chunks to the weights in `out`.
    fn add_chunks(&self, isa: Isa, partial: &[f32], out: &mut [f32]) {
        let mut start = 0;
        for conv in &self.convs {
            let size = conv.gradient_values();
            let chunks = partial.chunks_exact(self.gradient_values());
            let parts: Vec<&[f32]> = chunks.map(|c| &c[start..start + size]).collect();
            let out = &mut out[conv.conv.range()];
            match &conv.patches {
                Some(patches) => patches.add_weight_gradient(isa, &parts, out),
                None => add_partial_sums(isa, &parts, out),
            }
            start += size;
        }
    }

    fn backward_tile<E: Element>(
        &self,
        isa: Isa,
        scratch: &mut Scratch<E>,
        pass: &Backward<E>,
        task: Task,
    ) {
        let Scratch { input, upstream: [up0, up1], kernels } = scratch;
        let mut buffers = [up0, up1].into_iter();
        let upstream: Vec<&[E]> = self
            .convs
            .iter()
            .zip(pass.upstream)
            .zip(&mut buffers)
            .map(|((conv, upstream), buffer)| conv.upstream(isa, upstream, task.tile, buffer))
            .collect();
        if let Some(mut sums) = task.weights {
            let (tile, channels) = (task.tile, task.channels.clone());
            let input = grown(input, tile.count * self.bordered_pixels() * channels.len());
            self.load(isa, pass.input, tile, channels.clone(), input);
            for (conv, gradient) in self.convs.iter().zip(&upstream) {
                let (channels, items) = (channels.clone(), tile.count);
                let job = GradientJob { input, channels, items, gradient, sums };
                self.weight_gradient(isa, kernels, conv, &job);
                sums.start += conv.gradient_values();
            }
        }
        if task.input {
            self.input_gradient(isa, kernels, pass, task, &upstream);
        }
    }

    /// Adds the weight gradient of one convolution over a tile to its partial sums.
    fn weight_gradient<E: Element>(
        &self,
        isa: Isa,
        buffers: &mut KernelBuffers,
        conv: &TiledConv,
        job: &GradientJob<E>,
    ) {
        if let Some(patches) = &conv.patches {
            return patches.weight_gradient(isa, &mut buffers.patches, job);
        }
        for tap in &conv.weight_taps {
            let (runs, width) = match self.pixels {
                true => (&tap.runs[..1], job.items),
                false => (&tap.runs[..job.items * tap.per_item], tap.width),
            };
            let (row, outputs) = (tap.row + job.channels.start, conv.conv.outputs);
            let depth = tap.depth - self.inputs + job.channels.len();
            let start = job.sums.start + row * outputs;
            let of_tap = WeightGradient::<Single<E>> {
                input: job.input,
                channels: job.channels.len(),
                stride: conv.conv.stride,
                depth,
                gradient: job.gradient,
                outputs,
                runs,
                width,
                // SAFETY: chunks are disjoint, and so are the rows of blocks.
                out: unsafe { job.sums.values.slice(start, depth * outputs) },
                accumulate: job.sums.begun,
            };
            match conv.pairs {
                true => paired(isa, &mut buffers.words, of_tap),
                false => E::dispatch(isa, of_tap),
            }
        }
    }

    /// Writes the gradient of the task's part of the input.
    fn input_gradient<E: Element>(
        &self,
        isa: Isa,
        buffers: &mut KernelBuffers,
        pass: &Backward<E>,
        task: Task,
        upstream: &[&[E]],
    ) {
        let KernelBuffers { patches, downstream, .. } = buffers;
        let Task { tile: Tile { first, count, .. }, channels, .. } = task;
        let values = self.item_pixels() * self.inputs;
        let (start, len) = (first * values, count * values);
        let (inputs, items, weights) = (upstream, count, pass.weights);
        match (&pass.downstream, task.norm) {
            (Downstream::Norm(out, x, n), Some(sums)) => {
                let (scale, shift, mean) = (&n.scale, &n.shift, &n.mean);
                let x = x[start..start + len].as_ptr();
                let epilogue = Epilogue::Mask { x, scale, shift, mean, sums };
                let output = out.pointer(start, len);
                let job = Job { inputs, items, weights, columns: channels, output, epilogue };
                convolve(isa, patches, &self.convs, &self.backward, Way::Backward, job);
            }
            (Downstream::Images(out), _) => {
                let c = padded(self.inputs);
                let downstream = grown(downstream, count * self.item_pixels() * c);
                let (output, epilogue) = (downstream.as_mut_ptr(), Epilogue::Store);
                let job = Job { inputs, items, weights, columns: 0..c, output, epilogue };
                convolve(isa, patches, &self.convs, &self.backward, Way::Backward, job);
                // SAFETY: tiles are disjoint.
                let out = unsafe { out.slice(start, len) };
                let pixels = out.chunks_exact_mut(self.inputs).zip(downstream.chunks_exact(c));
                pixels.for_each(|(out, d)| out.copy_from_slice(&d[..self.inputs]));
            }
            _ => {}
        }
    }
}

impl TiledConv {
    /// The gradient of this convolution's output for a tile: a slice of the stored gradient if possible,
    /// else computed into `buffer`.
    fn upstream<'a, E: Element>(
        &self,
        isa: Isa,
        upstream: &'a Upstream<'a, E>,
        tile: Tile,
        buffer: &'a mut Vec<E>,
    ) -> &'a [E] {
        let values = self.out_pixels * self.conv.outputs;
        let range = tile.first * values..(tile.first + tile.count) * values;
        match upstream {
            Upstream::Direct(g) => &g[range],
            Upstream::Unit(unit) => unit.compute(isa, range),
            Upstream::Norm(g, z, n) => {
                let buffer = grown(buffer, range.len());
                E::dispatch(
                    isa,
                    NormBackward {
                        gradient: g[range.clone()].as_ptr(),
                        values: &z[range],
                        residual: None,
                        output: buffer.as_mut_ptr(),
                        norm: n.coefficients(),
                    },
                );
                buffer
            }
        }
    }
}

/// Adds the partial sums of the chunks to `out`, in order.
fn add_partial_sums(isa: Isa, parts: &[&[f32]], out: &mut [f32]) {
    let task = (TASK_VALUES / parts.len()).clamp(1 << 8, 1 << 12);
    tasks::each(out.par_chunks_mut(task).enumerate(), |(i, out)| {
        let start = i * task;
        isa.dispatch(AddAll { parts, start, out });
    });
}

/// A weight gradient by products of pairs of pixels. `words`: working memory.
fn paired<E: Element>(isa: Isa, words: &mut [Vec<f32>; 2], single: WeightGradient<Single<E>>) {
    let WeightGradient { channels, stride, outputs, runs, width, .. } = single;
    let pairs = (runs.len() * width).div_ceil(2);
    let [inputs, gradients] = words;
    let inputs = grown(inputs, pairs * channels);
    let gradients = grown(gradients, pairs * outputs);
    isa.dispatch(PairPixels {
        input: E::as_pairs(single.input),
        channels,
        runs: runs.iter().map(|r| r.0),
        width,
        step: stride,
        output: inputs,
    });
    isa.dispatch(PairPixels {
        input: E::as_pairs(single.gradient),
        channels: outputs,
        runs: runs.iter().map(|r| r.1),
        width,
        step: 1,
        output: gradients,
    });
    isa.dispatch_pairs(WeightGradient::<Words> {
        input: inputs,
        channels,
        stride: 1,
        depth: single.depth,
        gradient: gradients,
        outputs,
        runs: &[(0, 0)],
        width: pairs,
        out: single.out,
        accumulate: single.accumulate,
    });
}
