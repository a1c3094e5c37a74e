//! Convolutions over tiles of whole images (or, for 1x1, of pixels): forward with batch norm and
//! ReLU applied on load and the statistics of the output gathered on store; backward for weights
//! and input in one pass.
//!
//! Work is split into tiles, and where there are few, into blocks of channels. Sums over pixels are
//! added up tile by tile in a fixed order.

use super::element::Element;
use super::geometry::{Group, Planned};
use super::kernels::{
    Convolve, Epilogue, Moments, NormBackward, NormRelu, Operand, Sink, WeightGradient, padded,
};
use super::norm::{Affine, BatchStatistics, fold_sums, merge};
use super::winograd::Buffers;
use super::workers::{Scratch, Shared, Workers, grown};
use rayon::prelude::*;
use std::ops::Range;

/// Values of a pass over large buffers that one task takes.
const TASK_VALUES: usize = 64 << 10;
/// Tasks of a layer that can be told apart, at least, where the layer is large enough.
const TASKS: usize = 8;
/// Channels of a block: whole weight panels of any instruction set, and enough to be worth loading
/// the tile for.
const BLOCK: usize = 64;
/// Parts into which the pixels are split for the weight gradient, and the weights that all these
/// partial sums may have.
const CHUNKS: usize = 8;
const PARTIAL_WEIGHTS: usize = 512 << 10;

/// What a group of convolutions reads.
#[derive(Clone, Copy)]
pub enum Input<'a, E> {
    Images(&'a [f32]),
    /// relu(norm(x)); without a norm x as it is.
    Activations(&'a [E], Option<&'a Affine>),
}

/// Where a convolution's output goes, and what is done on the way.
pub struct Output<'a, E> {
    pub values: Shared<E>,
    /// Added to the output; it may be the output's own old content.
    pub residual: Option<*const E>,
    pub then: Then<'a>,
}

impl<'a, E> Output<'a, E> {
    pub fn new(values: &mut [E], then: Then<'a>) -> Output<'a, E> {
        Output {
            values: Shared::new(values),
            residual: None,
            then,
        }
    }
}

pub enum Then<'a> {
    Nothing,
    /// Statistics of the output are gathered.
    Statistics,
    /// relu(norm(output)) is stored.
    Activate(&'a Affine),
}

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
    pub fn compute_all(&self, arch: pulp::Arch, pixels: usize) -> &[E] {
        let c = self.norm.scale.len();
        let task = (TASK_VALUES / c).max(1);
        (0..pixels.div_ceil(task)).into_par_iter().for_each(|i| {
            self.compute(arch, i * task * c..((i + 1) * task).min(pixels) * c);
        });
        // SAFETY: nobody writes there after this.
        unsafe { self.masked.slice(0, pixels * c) }
    }

    /// Computes a range of its values.
    fn compute(&self, arch: pulp::Arch, range: Range<usize>) -> &[E] {
        // SAFETY: the ranges of tasks are disjoint.
        let out = unsafe { self.masked.slice(range.start, range.len()) };
        arch.dispatch(NormBackward {
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

// SAFETY: the residual is only read, and where it is the output's old content, by the thread that
// writes there.
unsafe impl<E: Sync> Sync for Output<'_, E> {}

impl Group {
    /// Tiles, and blocks of channels to split them into, `channels` wide together.
    fn split(&self, units: usize, chunks: usize, channels: usize) -> (usize, usize) {
        let tiles = units.div_ceil(self.tile);
        let tasks = if chunks > 0 { chunks } else { tiles };
        let blocks = TASKS.div_ceil(tasks).min(channels.div_ceil(BLOCK));
        (tiles, channels.div_ceil(blocks).next_multiple_of(BLOCK / 2))
    }

    /// Loads the channels of a tile of `units` units from the `first` on: relu(norm(x)), or x as it is, inside
    /// the group's border.
    fn load<E: Element>(
        &self,
        arch: pulp::Arch,
        input: Input<E>,
        (first, units): (usize, usize),
        channels: Range<usize>,
        tile: &mut [f32],
    ) {
        let (start, c) = (first * self.unit_pixels() * self.inputs, channels.len());
        match input {
            Input::Activations(x, norm) => arch.dispatch(NormRelu {
                input: &x[start + channels.start..]
                    [..units * self.unit_pixels() * self.inputs - channels.start],
                stride: self.inputs,
                output: tile,
                channels: c,
                norm: norm.map(|n| (&n.scale[channels.clone()], &n.shift[channels])),
            }),
            Input::Images(x) => {
                let (b, row) = (self.border * c, self.width * c);
                let images = x[start..].chunks_exact(self.height * row);
                for (tile, x) in tile
                    .chunks_exact_mut(self.bordered_pixels() * c)
                    .zip(images)
                    .take(units)
                {
                    tile.fill(0.0);
                    let inner = tile.chunks_exact_mut(row + 2 * b).skip(self.border);
                    for (tile, x) in inner.zip(x.chunks_exact(row)) {
                        tile[b..b + row].copy_from_slice(x);
                    }
                }
            }
        }
    }

    /// Convolves the input with each convolution of the group. Returns the statistics of the
    /// outputs that ask for them, in order.
    pub fn forward<E: Element>(
        &self,
        workers: &Workers,
        units: usize,
        input: Input<E>,
        outputs: &[Output<E>],
    ) -> Vec<BatchStatistics> {
        // Each convolution's columns start at a block's.
        let widths = self
            .convs
            .iter()
            .map(|p| p.conv.outputs.next_multiple_of(BLOCK));
        let (tiles, block) = self.split(units, 0, widths.clone().sum());
        let blocks = widths.sum::<usize>().div_ceil(block);
        let mut moments: Vec<Vec<f32>> = self
            .convs
            .iter()
            .zip(outputs)
            .map(|(p, o)| match o.then {
                Then::Statistics => vec![0.0; tiles * 3 * p.conv.outputs],
                _ => Vec::new(),
            })
            .collect();
        let shared: Vec<Shared<f32>> = moments.iter_mut().map(|s| Shared::new(s)).collect();
        workers.run(tiles * blocks, |task, scratch| {
            let (t, b) = (task / blocks, task % blocks);
            let first = t * self.tile;
            let count = self.tile.min(units - first);
            let Scratch {
                input: loaded,
                patches: buffers,
                ..
            } = scratch;
            let direct = match input {
                Input::Activations(x, None) => E::as_f32(x),
                _ => None,
            };
            let tile = match direct {
                Some(x) => &x[first * self.unit_pixels() * self.inputs..],
                None => {
                    let size = count * self.bordered_pixels() * self.inputs;
                    let tile = grown(loaded, size);
                    self.load(workers.arch, input, (first, count), 0..self.inputs, tile);
                    tile
                }
            };
            let mut before = 0;
            for ((p, out), moments) in self.convs.iter().zip(outputs).zip(&shared) {
                let all = p.conv.outputs;
                let columns = (b * block).max(before)..((b + 1) * block).min(before + all);
                let columns = columns.start - before..columns.end.saturating_sub(before);
                before += all.next_multiple_of(BLOCK);
                if columns.is_empty() {
                    continue;
                }
                let start = first * p.out_pixels * all;
                let output = out.values.pointer(start, count * p.out_pixels * all);
                let residual = out.residual.map(|r| unsafe { r.add(start) });
                let mut epilogue = match (&out.then, residual) {
                    (Then::Nothing, None) => Epilogue::Store,
                    (Then::Nothing, Some(r)) => Epilogue::Residual(r),
                    (Then::Statistics, residual) => {
                        // SAFETY: tiles are disjoint, and so are the columns of blocks.
                        let of = |i| unsafe { moments.slice((t * 3 + i) * all, all) };
                        Epilogue::Statistics {
                            residual,
                            moments: Moments {
                                around: of(0),
                                sums: of(1),
                                squares: of(2),
                            },
                            empty: true,
                        }
                    }
                    (Then::Activate(n), _) => Epilogue::Activate {
                        scale: &n.scale,
                        shift: &n.shift,
                    },
                };
                if let Some(patches) = &p.patches {
                    let weights = &patches.packed;
                    patches.convolve(
                        workers.arch,
                        buffers,
                        (tile, count),
                        weights,
                        columns,
                        output,
                        epilogue,
                    );
                    continue;
                }
                for part in &p.forward {
                    let pixels = count * part.per_unit;
                    let (from, taps) = &part.from[0];
                    workers.arch.dispatch(Convolve {
                        operands: &[Operand {
                            input: tile.as_ptr(),
                            pixels: &from[..pixels],
                            taps,
                            weights: &p.packed,
                            rows: p.rows(),
                        }],
                        columns: columns.clone(),
                        sink: Sink {
                            output,
                            to: &part.to[..pixels],
                            epilogue: epilogue.reborrow(),
                        },
                    });
                    epilogue.begun();
                }
            }
        });
        let count = |t: usize| self.tile.min(units - t * self.tile);
        self.convs
            .iter()
            .zip(&moments)
            .filter(|(_, m)| !m.is_empty())
            .map(|(p, m)| {
                let counts = (0..tiles).map(|t| count(t) * p.out_pixels);
                merge(m, p.conv.outputs, counts)
            })
            .collect()
    }

    /// Backward of `forward`. Adds weight gradients to `weights` (the whole parameter vector,
    /// where wanted) and writes the gradient of the input. Returns the sums that the backward pass
    /// of the input's norm needs.
    pub fn backward<E: Element>(
        &self,
        workers: &Workers,
        units: usize,
        input: Input<E>,
        upstream: &[Upstream<E>],
        weights: Option<&mut [f32]>,
        downstream: &Downstream<E>,
    ) -> [Vec<f64>; 2] {
        let total: usize = self.convs.iter().map(Planned::gradient_values).sum();
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
                direct = [Upstream::Direct(unit.compute_all(workers.arch, pixels))];
                &direct
            }
            all => all,
        };
        let c = padded(self.inputs);
        let masked = matches!(downstream, Downstream::Norm(..));
        let mut sums = vec![0f32; if masked { tiles * 2 * c } else { 0 }];
        let shared_sums = Shared::new(&mut sums);
        let wanted = weights.is_some();
        let mut partial = vec![0f32; if wanted { chunks * total } else { 0 }];
        let shared = Shared::new(&mut partial);
        workers.run(chunks * blocks, |task, scratch| {
            let (k, b) = (task / blocks, task % blocks);
            let channels = b * block..((b + 1) * block).min(self.inputs);
            for t in k * chunk..((k + 1) * chunk).min(tiles) {
                let tile = (t * self.tile, self.tile.min(units - t * self.tile));
                // SAFETY: tiles are disjoint, and so are the channels of blocks.
                let sums = masked.then(|| unsafe {
                    let s0 = shared_sums.slice(t * 2 * c, c);
                    (s0, shared_sums.slice((t * 2 + 1) * c, c))
                });
                let gradients = wanted.then_some((shared, k * total, t > k * chunk));
                self.backward_tile(
                    workers.arch,
                    scratch,
                    tile,
                    channels.clone(),
                    input,
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
                let out = &mut weights[p.conv.range()];
                if let Some(patches) = &p.patches {
                    let parts: Vec<_> = partial.chunks_exact(total).collect();
                    patches.add_weight_gradient(&parts, out);
                    continue;
                }
                let out = out.par_chunks_mut(64 << 10);
                out.enumerate().for_each(|(i, out)| {
                    let at = start + i * (64 << 10);
                    for chunk in partial.chunks_exact(total) {
                        for (o, g) in out.iter_mut().zip(&chunk[at..]) {
                            *o += g;
                        }
                    }
                });
                start += size;
            }
        }
        fold_sums(&sums, c)
    }

    /// `gradients`: where the partial sums are, their start, and whether they have been begun.
    #[allow(clippy::too_many_arguments)]
    fn backward_tile<E: Element>(
        &self,
        arch: pulp::Arch,
        scratch: &mut Scratch,
        (first, count): (usize, usize),
        channels: Range<usize>,
        input: Input<E>,
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
        } = scratch;
        let mut loads = [up0, up1].into_iter();
        let loaded_upstream: Vec<&[f32]> = self
            .convs
            .iter()
            .zip(upstream)
            .zip(&mut loads)
            .map(|((p, up), buffer)| p.upstream(arch, up, first, count, buffer))
            .collect();
        if let Some((shared, mut start, begun)) = gradients {
            let tile = grown(loaded, count * self.bordered_pixels() * channels.len());
            self.load(arch, input, (first, count), channels.clone(), tile);
            for (p, gradient) in self.convs.iter().zip(&loaded_upstream) {
                if let Some(patches) = &p.patches {
                    let from = (&*tile, channels.clone());
                    let out = (shared, start);
                    patches.weight_gradient(arch, buffers, from, gradient, count, out, begun);
                }
                for tap in &p.weight_taps {
                    let (runs, width) = if self.pixels {
                        (&tap.runs[..1], count)
                    } else {
                        (&tap.runs[..count * tap.per_unit], tap.width)
                    };
                    let row = tap.row + channels.start;
                    let depth = tap.depth - self.inputs + channels.len();
                    let outputs = p.conv.outputs;
                    arch.dispatch(WeightGradient {
                        input: tile.as_ptr(),
                        channels: channels.len(),
                        stride: p.conv.stride,
                        depth,
                        gradient: gradient.as_ptr(),
                        outputs,
                        runs,
                        width,
                        // SAFETY: chunks are disjoint, and so are the rows of blocks.
                        out: unsafe { shared.slice(start + row * outputs, depth * outputs) },
                        accumulate: begun,
                    });
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
                self.input_gradient(
                    arch,
                    buffers,
                    (&loaded_upstream, count),
                    channels,
                    output,
                    epilogue,
                );
            }
            (Downstream::Images(out), _) => {
                let c = padded(self.inputs);
                let down = grown(down, count * self.unit_pixels() * c);
                let output = down.as_mut_ptr();
                let upstream = (&loaded_upstream[..], count);
                self.input_gradient(arch, buffers, upstream, 0..c, output, Epilogue::Store);
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
    fn input_gradient<O: Element>(
        &self,
        arch: pulp::Arch,
        buffers: &mut Buffers,
        (upstream, count): (&[&[f32]], usize),
        channels: Range<usize>,
        output: *mut O,
        mut epilogue: Epilogue<O>,
    ) {
        if let Some(patches) = &self.convs[0].patches {
            let weights = &patches.packed_transposed;
            let tile = (upstream[0], count);
            patches.convolve(arch, buffers, tile, weights, channels, output, epilogue);
            return;
        }
        for part in &self.backward {
            let pixels = count * part.per_unit;
            let operands: Vec<Operand> = self
                .convs
                .iter()
                .zip(upstream)
                .zip(&part.from)
                .map(|((p, up), (from, taps))| Operand {
                    input: up.as_ptr(),
                    pixels: &from[..pixels],
                    taps,
                    weights: &p.packed_transposed,
                    rows: p.rows_transposed(),
                })
                .collect();
            arch.dispatch(Convolve {
                operands: &operands,
                columns: channels.clone(),
                sink: Sink {
                    output,
                    to: &part.to[..pixels],
                    epilogue: epilogue.reborrow(),
                },
            });
        }
    }
}

impl Planned {
    /// The gradient of this convolution's output for a tile: as it lies in memory where it can be,
    /// else in `buffer`.
    fn upstream<'a, E: Element>(
        &self,
        arch: pulp::Arch,
        up: &'a Upstream<'a, E>,
        first: usize,
        count: usize,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let values = self.out_pixels * self.conv.outputs;
        let range = first * values..(first + count) * values;
        let stored = match up {
            Upstream::Direct(g) => &g[range],
            Upstream::Unit(unit) => unit.compute(arch, range),
            Upstream::Norm(g, z, n) => {
                let buffer = grown(buffer, range.len());
                arch.dispatch(NormBackward {
                    gradient: g[range.clone()].as_ptr(),
                    values: &z[range],
                    residual: None,
                    output: buffer.as_mut_ptr(),
                    norm: n.coefficients(),
                });
                return buffer;
            }
        };
        E::as_f32(stored).unwrap_or_else(|| {
            let buffer = grown(buffer, stored.len());
            for (b, g) in buffer.iter_mut().zip(stored) {
                *b = g.widen();
            }
            buffer
        })
    }
}
