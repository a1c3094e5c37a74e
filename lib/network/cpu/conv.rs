//! Convolutions over tiles of whole images (or of pixels, where every convolution is 1x1 stride 1):
//! relu(norm(x)) is computed while a tile is loaded, so it is never stored, and recomputed in the
//! backward pass.
//!
//! Work is split by the problem alone, never by the number of threads, and partial results are
//! added in a fixed order: the same bits for any number of threads.

use super::geometry::{Group, Planned};
use super::kernels::{
    Convolve, MaskedGradient, Moments, NormBackward, NormRelu, WeightGradient, padded,
};
use super::norm::{Affine, BatchStatistics, fold_sums, merge};
use super::workers::{Scratch, Shared, Workers, grown};
use rayon::prelude::*;

/// Parts into which the weight gradient's sum is split.
const CHUNKS: usize = 8;

/// Where a convolution's output goes.
pub struct Output<'a> {
    pub values: Shared,
    /// Added to the output; it may be the output's own old content.
    pub residual: Option<&'a [f32]>,
    pub accumulate: bool,
    pub statistics: bool,
}

/// Gradient with respect to a convolution's output.
pub enum Upstream<'a> {
    Direct(&'a [f32]),
    /// Through the batch norm that follows: masked gradient, the output's values, coefficients.
    Norm(&'a [f32], &'a [f32], &'a Affine),
}

impl Group {
    /// Loads a tile: relu(norm(x)), or x as it is, inside zero padding.
    fn load(
        &self,
        arch: pulp::Arch,
        norm: Option<&Affine>,
        x: &[f32],
        units: usize,
        tile: &mut [f32],
    ) {
        let (h, w) = self.unit();
        let c = self.channels;
        let copy = |from: usize, out: &mut [f32]| {
            let x = &x[from..from + out.len()];
            match norm {
                Some(n) => arch.dispatch(NormRelu {
                    input: x,
                    output: out,
                    scale: &n.scale,
                    shift: &n.shift,
                }),
                None => out.copy_from_slice(x),
            }
        };
        if self.pad == 0 {
            copy(0, &mut tile[..units * h * w * c]);
        } else {
            let outer = (h + 2 * self.pad, w + 2 * self.pad);
            place(tile, units, (h, w), outer, self.pad, c, copy);
        }
    }

    /// Convolves relu(norm(input)) (`norm` absent: the input as it is) with each convolution of the
    /// group. Returns the statistics of the outputs that ask for them, in order.
    pub fn forward(
        &self,
        workers: &Workers,
        images: usize,
        input: &[f32],
        norm: Option<&Affine>,
        outputs: &[Output],
    ) -> Vec<BatchStatistics> {
        let units = self.units(images);
        let tiles = units.div_ceil(self.tile);
        let (h, w) = self.unit();
        let unit_in = h * w * self.channels;
        let mut partial: Vec<Vec<f32>> = self
            .convs
            .iter()
            .zip(outputs)
            .map(|(p, o)| {
                vec![
                    0.0;
                    if o.statistics {
                        tiles * 2 * p.outputs
                    } else {
                        0
                    }
                ]
            })
            .collect();
        let shared: Vec<Shared> = partial.iter_mut().map(|p| Shared::new(p)).collect();
        (0..tiles).into_par_iter().with_max_len(1).for_each(|t| {
            let first = t * self.tile;
            let count = self.tile.min(units - first);
            let mut scratch = workers.scratch();
            let tile = grown(&mut scratch.input, self.tile * self.padded_unit());
            self.load(workers.arch, norm, &input[first * unit_in..], count, tile);
            for ((p, out), statistics) in self.convs.iter().zip(outputs).zip(&shared) {
                let pixels = count * p.out_pixels;
                let start = first * p.out_pixels * p.outputs;
                // SAFETY: tiles are disjoint.
                let values = unsafe { out.values.slice(start, pixels * p.outputs) };
                workers.arch.dispatch(Convolve {
                    input: tile.as_ptr(),
                    input_offsets: &p.input_offsets[..pixels],
                    taps: &p.taps,
                    depth: self.inputs,
                    weights: &p.packed,
                    rows: p.conv.kernel * p.conv.kernel * self.inputs,
                    output: values.as_mut_ptr(),
                    output_offsets: &p.output_offsets[..pixels],
                    outputs: p.outputs,
                    accumulate: out.accumulate,
                });
                workers.arch.dispatch(Moments {
                    residual: out.residual.map(|r| &r[start..start + values.len()]),
                    values,
                    // SAFETY: tiles are disjoint.
                    statistics: out.statistics.then(|| unsafe {
                        statistics
                            .slice(t * 2 * p.outputs, 2 * p.outputs)
                            .split_at_mut(p.outputs)
                    }),
                    channels: p.outputs,
                });
            }
        });
        let counts = |p: &Planned| {
            let out = p.out_pixels;
            (0..tiles).map(move |t| self.tile.min(units - t * self.tile) * out)
        };
        self.convs
            .iter()
            .zip(outputs)
            .zip(&partial)
            .filter(|((_, o), _)| o.statistics)
            .map(|((p, _), partial)| merge(partial, p.outputs, counts(p)))
            .collect()
    }

    /// Backward of `forward`. Adds weight gradients to `weights` (where wanted) and writes the
    /// gradient to `downstream` (where wanted): behind a norm, masked by its ReLU, together with
    /// the sums that the norm's backward pass needs; else with respect to the input itself.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        workers: &Workers,
        images: usize,
        input: &[f32],
        norm: Option<&Affine>,
        upstream: &[Upstream],
        weights: Option<&mut [f32]>,
        downstream: Option<Shared>,
    ) -> [Vec<f64>; 2] {
        let units = self.units(images);
        let tiles = units.div_ceil(self.tile);
        let chunk = tiles.div_ceil(CHUNKS);
        let chunks = tiles.div_ceil(chunk);
        let c = padded(self.inputs);
        let mut sums = vec![0f32; if norm.is_some() { tiles * 2 * c } else { 0 }];
        let shared_sums = Shared::new(&mut sums);
        let wanted = weights.is_some();
        let sizes: Vec<usize> = self
            .convs
            .iter()
            .map(|p| p.conv.kernel * p.conv.kernel * self.inputs * p.outputs)
            .collect();
        let total: usize = if wanted { sizes.iter().sum() } else { 0 };
        let mut partial = vec![0f32; chunks * total];
        let shared_partial = Shared::new(&mut partial);
        (0..chunks).into_par_iter().with_max_len(1).for_each(|k| {
            let mut guard = workers.scratch();
            // SAFETY: chunks are disjoint.
            let gradients = unsafe { shared_partial.slice(k * total, total) };
            for t in k * chunk..((k + 1) * chunk).min(tiles) {
                // SAFETY: tiles are disjoint.
                let sums = norm
                    .is_some()
                    .then(|| unsafe { shared_sums.slice(t * 2 * c, 2 * c) });
                let tile = (t * self.tile, self.tile.min(units - t * self.tile));
                let gradients = wanted.then_some(&mut *gradients);
                self.backward_tile(
                    workers.arch,
                    &mut guard,
                    tile,
                    input,
                    norm,
                    upstream,
                    gradients,
                    downstream,
                    sums,
                );
            }
        });
        if let Some(weights) = weights {
            let mut start = 0;
            for (p, size) in self.convs.iter().zip(&sizes) {
                let out = &mut weights[p.conv.range()];
                for chunk in partial.chunks_exact(total) {
                    let rows = chunk[start..start + size].chunks_exact(p.outputs);
                    for (out, row) in out.chunks_exact_mut(p.conv.outputs).zip(rows) {
                        for (o, r) in out.iter_mut().zip(row) {
                            *o += r;
                        }
                    }
                }
                start += size;
            }
        }
        fold_sums(&sums, c)
    }

    #[allow(clippy::too_many_arguments)]
    fn backward_tile(
        &self,
        arch: pulp::Arch,
        scratch: &mut Scratch,
        (first, count): (usize, usize),
        input: &[f32],
        norm: Option<&Affine>,
        upstream: &[Upstream],
        mut weights: Option<&mut [f32]>,
        downstream: Option<Shared>,
        sums: Option<&mut [f32]>,
    ) {
        let (h, w) = self.unit();
        let x = &input[first * h * w * self.channels..][..count * h * w * self.channels];
        let Scratch {
            input: loaded,
            upstream: gradients,
            downstream: down,
        } = scratch;
        if weights.is_some() {
            let tile = grown(loaded, self.tile * self.padded_unit());
            self.load(arch, norm, x, count, tile);
        }
        let c = padded(self.inputs);
        let down = grown(down, self.tile * h * w * c);
        for (q, (p, up)) in self.convs.iter().zip(upstream).enumerate() {
            let gradient = p.upstream(arch, up, first, count, self.tile, &mut gradients[q]);
            if let Some(all) = weights.take() {
                let size = p.conv.kernel * p.conv.kernel * self.inputs * p.outputs;
                let (mine, rest) = all.split_at_mut(size);
                let (rows, width) = if self.pixels {
                    (&p.rows[..], count)
                } else {
                    (&p.rows[..count * p.unit_rows], p.row_width)
                };
                let per_tap = mine.chunks_exact_mut(self.inputs * p.outputs);
                for (tap, out) in p.taps.iter().zip(per_tap) {
                    arch.dispatch(WeightGradient {
                        input: loaded[tap.offset..].as_ptr(),
                        input_step: p.conv.stride * self.channels,
                        inputs: self.inputs,
                        output: gradient.as_ptr(),
                        outputs: p.outputs,
                        rows,
                        width,
                        gradient: out,
                    });
                }
                weights = Some(rest);
            }
            if downstream.is_some() {
                for part in &p.backward {
                    let pixels = count * part.per_unit;
                    arch.dispatch(Convolve {
                        input: gradient.as_ptr(),
                        input_offsets: &part.gradient_offsets[..pixels],
                        taps: &part.taps,
                        depth: p.conv.outputs,
                        weights: &p.packed_transposed,
                        rows: p.conv.kernel * p.conv.kernel * p.conv.outputs,
                        output: down.as_mut_ptr(),
                        output_offsets: &part.input_offsets[..pixels],
                        outputs: c,
                        accumulate: q > 0,
                    });
                }
            }
        }
        let Some(downstream) = downstream else {
            return;
        };
        // SAFETY: tiles are disjoint.
        let out = unsafe {
            downstream.slice(first * h * w * self.channels, count * h * w * self.channels)
        };
        match (norm, sums) {
            (Some(n), Some(sums)) => arch.dispatch(MaskedGradient {
                upstream: &down[..x.len()],
                x,
                gradient: out,
                scale: &n.scale,
                shift: &n.shift,
                mean: &n.mean,
                sums: sums.split_at_mut(c),
            }),
            // Images: the padding channels are left out.
            _ => {
                for (out, down) in out
                    .chunks_exact_mut(self.channels)
                    .zip(down.chunks_exact(c))
                {
                    out.copy_from_slice(&down[..self.channels]);
                }
            }
        }
    }
}

impl Planned {
    /// The gradient of this convolution's output for a tile, inside the zero rows and columns that
    /// the taps reach: as it lies in memory where there are none, else in `buffer`.
    fn upstream<'a>(
        &self,
        arch: pulp::Arch,
        up: &Upstream<'a>,
        first: usize,
        count: usize,
        tile: usize,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let range = first * self.out_pixels * self.outputs
            ..(first + count) * self.out_pixels * self.outputs;
        let flush = self.gradient_size == self.out_size;
        if let (Upstream::Direct(g), true) = (up, flush) {
            return &g[range];
        }
        let (gh, gw) = self.gradient_size;
        let buffer = grown(buffer, tile * gh * gw * self.outputs);
        match up {
            Upstream::Direct(g) => {
                let g = &g[range];
                let copy = |from: usize, out: &mut [f32]| {
                    out.copy_from_slice(&g[from..from + out.len()]);
                };
                place(
                    buffer,
                    count,
                    self.out_size,
                    (gh, gw),
                    self.before,
                    self.outputs,
                    copy,
                );
            }
            Upstream::Norm(g, z, n) => {
                let (g, z) = (&g[range.clone()], &z[range]);
                let copy = |from: usize, out: &mut [f32]| {
                    arch.dispatch(NormBackward {
                        gradient: &g[from..from + out.len()],
                        values: &z[from..from + out.len()],
                        output: out,
                        residual: None,
                        g: &n.g,
                        x: &n.x,
                        one: &n.one,
                    });
                };
                if flush {
                    copy(0, &mut buffer[..g.len()]);
                } else {
                    place(
                        buffer,
                        count,
                        self.out_size,
                        (gh, gw),
                        self.before,
                        self.outputs,
                        copy,
                    );
                }
            }
        }
        buffer
    }
}

/// Places `units` images of `size` into zeroed images of `outer` size, `before` rows and columns
/// from their corner. `copy` writes a row of the source that starts at the given offset.
fn place(
    tile: &mut [f32],
    units: usize,
    (h, w): (usize, usize),
    (ph, pw): (usize, usize),
    before: usize,
    c: usize,
    copy: impl Fn(usize, &mut [f32]),
) {
    for u in 0..units {
        let image = &mut tile[u * ph * pw * c..(u + 1) * ph * pw * c];
        for (y, row) in image.chunks_exact_mut(pw * c).enumerate() {
            if y < before || y >= before + h {
                row.fill(0.0);
                continue;
            }
            row[..before * c].fill(0.0);
            row[(before + w) * c..].fill(0.0);
            let from = (u * h + y - before) * w * c;
            copy(from, &mut row[before * c..(before + w) * c]);
        }
    }
}
