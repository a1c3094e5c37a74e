//! Backward of the convolutions, for weights and input in one pass.

use super::conv::{Input, convolve};
use super::convolve::{Epilogue, Operand, Sink};
use super::element::Element;
use super::elementwise::{AddAll, NormBackward, PairPixels};
use super::geometry::{Direction, Group, Planned};
use super::isa::Isa;
use super::multiply::{Single, Words};
use super::norm::{Affine, fold_sums};
use super::products::WeightGradient;
use super::registers::padded;
use super::winograd::Buffers;
use super::workers::{Scratch, Shared, Workers, grown};
use rayon::prelude::*;
use std::ops::Range;

/// Values of a pass over large buffers that one task takes.
const TASK_VALUES: usize = 64 << 10;
/// Parts into which the pixels are split for the weight gradient, and the weights that all these
/// partial sums may have.
const CHUNKS: usize = 8;
const PARTIAL_WEIGHTS: usize = 512 << 10;

/// Gradient with respect to a convolution's output.
pub enum Upstream<'a, E> {
    Direct(&'a [E]),
    /// Through the batch norm that follows: masked gradient, the output's values, coefficients.
    Norm(&'a [E], &'a [E], &'a Affine),
    Unit(UnitGradient<'a, E>),
}

/// The gradient of a unit's output: through the batch norm that follows, plus the gradient of what
/// the output is the residual of.
pub struct UnitGradient<'a, E> {
    /// The masked gradient, in whose place the gradient is left.
    pub masked: Shared<E>,
    pub values: &'a [E],
    pub norm: &'a Affine,
    pub residual: Option<&'a [E]>,
}

impl<E: Element> UnitGradient<'_, E> {
    /// Computes all of it, over `pixels` pixels.
    pub fn compute_all(&self, isa: Isa, pixels: usize) -> &[E] {
        let c = self.norm.scale.len();
        let task = (TASK_VALUES / c).max(1);
        (0..pixels.div_ceil(task)).into_par_iter().for_each(|i| {
            self.compute(isa, i * task * c..((i + 1) * task).min(pixels) * c);
        });
        // SAFETY: nobody writes there after this.
        unsafe { self.masked.slice(0, pixels * c) }
    }

    /// Computes a range of its values.
    fn compute(&self, isa: Isa, range: Range<usize>) -> &[E] {
        // SAFETY: the ranges of tasks are disjoint.
        let out = unsafe { self.masked.slice(range.start, range.len()) };
        isa.dispatch(NormBackward {
            gradient: out.as_ptr(),
            values: &self.values[range.clone()],
            residual: self.residual.map(|r| &r[range]),
            output: out.as_mut_ptr(),
            norm: self.norm.coefficients(),
        });
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

impl Group {
    /// Backward of `forward`. `packed`: the weights for this direction. Adds weight gradients to
    /// `weights` (the whole parameter vector, where wanted), with `partial` to work in, and writes
    /// the gradient of the input. Returns the sums that the backward pass of the input's norm needs.
    #[allow(clippy::too_many_arguments)]
    pub fn backward<E: Element>(
        &self,
        workers: &Workers<E>,
        units: usize,
        input: Input<E>,
        packed: &[f32],
        upstream: &[Upstream<E>],
        weights: Option<(&mut [f32], &mut Vec<f32>)>,
        downstream: &Downstream<E>,
    ) -> [Vec<f64>; 2] {
        let total = self.gradient_values();
        let tiles = units.div_ceil(self.tile);
        let chunks = CHUNKS.min(PARTIAL_WEIGHTS.div_ceil(total)).min(tiles);
        let chunk = tiles.div_ceil(chunks);
        let chunks = tiles.div_ceil(chunk);
        let (_, block) = self.split(units, chunks, self.inputs);
        let blocks = self.inputs.div_ceil(block);
        // A unit's gradient is computed in place: by one task, or before all of them.
        let direct;
        let upstream = match upstream {
            [Upstream::Unit(unit)] if blocks > 1 => {
                let pixels = units * self.convs[0].out_pixels;
                direct = [Upstream::Direct(unit.compute_all(workers.isa, pixels))];
                &direct
            }
            all => all,
        };
        let c = padded(self.inputs);
        let masked = matches!(downstream, Downstream::Norm(..));
        let mut sums = vec![0f32; if masked { tiles * 2 * c } else { 0 }];
        let shared_sums = Shared::new(&mut sums);
        let (weights, partial) = match weights {
            Some((weights, partial)) => (Some(weights), grown(partial, chunks * total)),
            None => (None, &mut [][..]),
        };
        let wanted = weights.is_some();
        let shared = Shared::new(partial);
        workers.run(chunks * blocks, |task, scratch| {
            let (k, b) = (task / blocks, task % blocks);
            let channels = b * block..((b + 1) * block).min(self.inputs);
            for t in k * chunk..((k + 1) * chunk).min(tiles) {
                // SAFETY: tiles are disjoint, and so are the channels of blocks.
                let sums = masked.then(|| unsafe {
                    let s0 = shared_sums.slice(t * 2 * c, c);
                    (s0, shared_sums.slice((t * 2 + 1) * c, c))
                });
                let gradients = wanted.then_some((shared, k * total, t > k * chunk));
                self.backward_tile(
                    workers.isa,
                    scratch,
                    self.tile_units(t, units),
                    channels.clone(),
                    input,
                    packed,
                    upstream,
                    gradients,
                    downstream,
                    sums,
                );
            }
        });
        if let Some(weights) = weights {
            let mut start = 0;
            for p in &self.convs {
                let size = p.gradient_values();
                let parts = partial.chunks_exact(total).map(|c| &c[start..start + size]);
                let parts: Vec<&[f32]> = parts.collect();
                let out = &mut weights[p.conv.range()];
                match &p.patches {
                    Some(patches) => patches.add_weight_gradient(workers.isa, &parts, out),
                    None => add_partial_sums(workers.isa, &parts, out),
                }
                start += size;
            }
        }
        fold_sums(&sums, c)
    }

    /// `gradients`: where the partial sums are, their start, and whether they have been begun.
    #[allow(clippy::too_many_arguments)]
    fn backward_tile<E: Element>(
        &self,
        isa: Isa,
        scratch: &mut Scratch<E>,
        (first, count): (usize, usize),
        channels: Range<usize>,
        input: Input<E>,
        packed: &[f32],
        upstream: &[Upstream<E>],
        gradients: Option<(Shared<f32>, usize, bool)>,
        downstream: &Downstream<E>,
        sums: Option<(&mut [f32], &mut [f32])>,
    ) {
        let Scratch {
            input: loaded,
            upstream: [up0, up1],
            downstream: down,
            patches: buffers,
            words,
        } = scratch;
        let mut loads = [up0, up1].into_iter();
        let loaded_upstream: Vec<&[E]> = self
            .convs
            .iter()
            .zip(upstream)
            .zip(&mut loads)
            .map(|((p, up), buffer)| p.upstream(isa, up, first, count, buffer))
            .collect();
        if let Some((shared, mut start, begun)) = gradients {
            let tile = grown(loaded, count * self.bordered_pixels() * channels.len());
            self.load(isa, input, (first, count), channels.clone(), tile);
            for (p, gradient) in self.convs.iter().zip(&loaded_upstream) {
                if let Some(patches) = &p.patches {
                    let from = (&*tile, channels.clone());
                    let out = (shared, start);
                    patches.weight_gradient(isa, buffers, from, gradient, count, out, begun);
                }
                for tap in &p.weight_taps {
                    let (runs, width) = if self.pixels {
                        (&tap.runs[..1], count)
                    } else {
                        (&tap.runs[..count * tap.per_unit], tap.width)
                    };
                    let (row, outputs) = (tap.row + channels.start, p.conv.outputs);
                    let depth = tap.depth - self.inputs + channels.len();
                    // SAFETY: chunks are disjoint, and so are the rows of blocks.
                    let out = unsafe { shared.slice(start + row * outputs, depth * outputs) };
                    let from = (&*tile, channels.len(), depth);
                    p.weight_gradient(isa, words, from, gradient, (runs, width), out, begun);
                }
                start += p.gradient_values();
            }
        }
        let values = self.unit_pixels() * self.inputs;
        let start = first * values;
        match (downstream, sums) {
            (Downstream::Norm(out, x, n), Some(sums)) => {
                let epilogue = Epilogue::Mask {
                    x: x[start..start + count * values].as_ptr(),
                    scale: &n.scale,
                    shift: &n.shift,
                    mean: &n.mean,
                    sums,
                };
                let output = out.pointer(start, count * values);
                let upstream = (&loaded_upstream[..], count);
                self.input_gradient(isa, buffers, packed, upstream, channels, output, epilogue);
            }
            (Downstream::Images(out), _) => {
                let c = padded(self.inputs);
                let down = grown(down, count * self.unit_pixels() * c);
                let output = down.as_mut_ptr();
                let upstream = (&loaded_upstream[..], count);
                let epilogue = Epilogue::Store;
                self.input_gradient(isa, buffers, packed, upstream, 0..c, output, epilogue);
                // SAFETY: tiles are disjoint.
                let out = unsafe { out.slice(start, count * values) };
                for (out, down) in out.chunks_exact_mut(self.inputs).zip(down.chunks_exact(c)) {
                    out.copy_from_slice(&down[..self.inputs]);
                }
            }
            _ => {}
        }
    }

    /// The gradient of the `channels` of the input of a tile of `count` units.
    #[allow(clippy::too_many_arguments)]
    fn input_gradient<E: Element, O: Element>(
        &self,
        isa: Isa,
        buffers: &mut Buffers,
        packed: &[f32],
        (upstream, count): (&[&[E]], usize),
        channels: Range<usize>,
        output: *mut O,
        mut epilogue: Epilogue<O>,
    ) {
        if let Some(patches) = &self.convs[0].patches {
            let tile = (upstream[0], count);
            patches.convolve(isa, buffers, tile, packed, channels, output, epilogue);
            return;
        }
        for part in &self.backward {
            let pixels = count * part.per_unit;
            let mut rest = packed;
            let operands = self.convs.iter().zip(upstream).zip(&part.from);
            let operands = operands.map(|((p, up), (from, taps))| {
                let (weights, after) = rest.split_at(p.packed_words(Direction::Backward));
                rest = after;
                Operand {
                    input: up.as_ptr(),
                    pixels: &from[..pixels],
                    taps,
                    weights,
                    rows: p.rows(Direction::Backward),
                }
            });
            let operands: Vec<_> = operands.collect();
            let sink = Sink { output, to: &part.to[..pixels], epilogue: epilogue.reborrow() };
            let pairs = self.convs[0].pairs;
            convolve(isa, pairs, &operands, channels.clone(), sink);
        }
    }
}

/// Adds the chunks' partial sums to `out`, in their order.
fn add_partial_sums(isa: Isa, parts: &[&[f32]], out: &mut [f32]) {
    let task = 4 << 10;
    out.par_chunks_mut(task).enumerate().for_each(|(i, out)| {
        let start = i * task;
        isa.dispatch(AddAll { parts, start, out });
    });
}

impl Planned {
    /// The gradient of this convolution's output for a tile: as it lies in memory where it can be,
    /// else in `buffer`.
    fn upstream<'a, E: Element>(
        &self,
        isa: Isa,
        up: &'a Upstream<'a, E>,
        first: usize,
        count: usize,
        buffer: &'a mut Vec<E>,
    ) -> &'a [E] {
        let values = self.out_pixels * self.conv.outputs;
        let range = first * values..(first + count) * values;
        match up {
            Upstream::Direct(g) => &g[range],
            Upstream::Unit(unit) => unit.compute(isa, range),
            Upstream::Norm(g, z, n) => {
                let buffer = grown(buffer, range.len());
                isa.dispatch(NormBackward {
                    gradient: g[range.clone()].as_ptr(),
                    values: &z[range],
                    residual: None,
                    output: buffer.as_mut_ptr(),
                    norm: n.coefficients(),
                });
                buffer
            }
        }
    }

    /// The weight gradient of `depth` rows of the kernel: `out[i, j] (+)= ` sum over the pixels of
    /// the runs of tile * gradient; see `WeightGradient`.
    #[allow(clippy::too_many_arguments)]
    fn weight_gradient<E: Element>(
        &self,
        isa: Isa,
        words: &mut [Vec<f32>; 2],
        (tile, channels, depth): (&[E], usize, usize),
        gradient: &[E],
        (runs, width): (&[(u32, u32)], usize),
        out: &mut [f32],
        accumulate: bool,
    ) {
        let (outputs, stride) = (self.conv.outputs, self.conv.stride);
        if !(E::PAIRS && self.pairs) {
            return isa.dispatch(WeightGradient::<Single<E>> {
                input: tile.as_ptr(),
                channels,
                stride,
                depth,
                gradient: gradient.as_ptr(),
                outputs,
                runs,
                width,
                out,
                accumulate,
            });
        }
        let pairs = (runs.len() * width).div_ceil(2);
        let [inputs, gradients] = words;
        let inputs = grown(inputs, pairs * channels);
        let gradients = grown(gradients, pairs * outputs);
        isa.dispatch(PairPixels {
            input: E::as_pairs(tile),
            channels,
            runs: runs.iter().map(|r| r.0),
            width,
            step: stride,
            output: inputs,
        });
        isa.dispatch(PairPixels {
            input: E::as_pairs(gradient),
            channels: outputs,
            runs: runs.iter().map(|r| r.1),
            width,
            step: 1,
            output: gradients,
        });
        isa.dispatch_pairs(WeightGradient::<Words> {
            input: inputs.as_ptr(),
            channels,
            stride: 1,
            depth,
            gradient: gradients.as_ptr(),
            outputs,
            runs: &[(0, 0)],
            width: pairs,
            out,
            accumulate,
        });
    }
}
