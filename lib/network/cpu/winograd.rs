//! 3x3 convolutions with stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin & Gray,
//! arXiv 1509.09308): 16 multiplications where the definition has 36, for 2x2 outputs of a 4x4
//! patch. Forward and input gradient are the algorithm itself, the weight gradient its adjoint.

// Transforms read as formulas by row and column.
#![allow(clippy::needless_range_loop)]

use super::convolve::{Epilogue, Sink, finish};
use super::element::Element;
use super::geometry::Direction;
use super::isa::Isa;
use super::multiply::Single;
use super::products::{Products, WeightGradient};
use super::registers::{LANES, panel_width};
use super::workers::{Shared, grown};
use crate::network::layout::Conv;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::ops::Range;

/// Positions of a transformed patch.
pub const POSITIONS: usize = 16;
/// Values of the transformed patches of a block, on one side.
const BLOCK_VALUES: usize = 64 << 10;
/// Patches of a block: enough for the matrix product of each position.
const BLOCK_PATCHES: Range<usize> = 56..256;
/// A pixel outside the image.
const OUTSIDE: u32 = u32::MAX;

/// The patches of a tile of whole images.
pub struct Patches {
    /// Pixels of the 4x4 inputs of each patch.
    inputs: Vec<[u32; POSITIONS]>,
    /// Pixels of its 2x2 outputs.
    outputs: Vec<[u32; 4]>,
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

impl Patches {
    /// For tiles of `tile` images, where the algorithm fits the convolution.
    pub fn new(conv: &Conv, (h, w): (usize, usize), tile: usize) -> Option<Patches> {
        let channels = conv.inputs;
        if (conv.kernel, conv.stride, conv.outputs) != (3, 1, channels) || h < 4 || w < 4 {
            return None;
        }
        let (ph, pw) = (h.div_ceil(2), w.div_ceil(2));
        let pixel = |u: usize, y: usize, x: usize| match y < h && x < w {
            true => ((u * h + y) * w + x) as u32,
            false => OUTSIDE,
        };
        let all = (0..tile).flat_map(|u| (0..ph * pw).map(move |p| (u, p / pw * 2, p % pw * 2)));
        let outputs: Vec<_> = all
            .clone()
            .map(|(u, y, x)| [0, 1, 2, 3].map(|i| pixel(u, y + i / 2, x + i % 2)))
            .collect();
        let mut to = Vec::new();
        let mut first = Vec::new();
        for patch in &outputs {
            first.push(to.len() as u32);
            let inside = patch.iter().filter(|&&p| p != OUTSIDE);
            to.extend(inside.map(|p| p * channels as u32));
        }
        // A row or column before the first wraps round and is outside.
        let inputs = all.map(|(u, y, x)| {
            std::array::from_fn(|i| {
                pixel(u, (y + i / 4).wrapping_sub(1), (x + i % 4).wrapping_sub(1))
            })
        });
        let block = BLOCK_VALUES / (POSITIONS * channels);
        Some(Patches {
            inputs: inputs.collect(),
            outputs,
            to,
            first,
            per_image: ph * pw,
            channels,
            block: block.clamp(BLOCK_PATCHES.start, BLOCK_PATCHES.end),
        })
    }

    /// Transforms the weights `[3, 3, channels, channels]` and packs them: `[channels, channels]`
    /// in panels for each position.
    pub fn pack(&self, isa: Isa, weights: &[f32], direction: Direction, packed: &mut [f32]) {
        let (c, width) = (self.channels, panel_width(isa));
        let packed = Shared::new(packed);
        (0..c.div_ceil(width)).into_par_iter().for_each(|panel| {
            let start = panel * width;
            isa.dispatch(TransformWeights {
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

    /// Blocks of the patches of `images` images.
    fn blocks(&self, images: usize) -> impl Iterator<Item = Range<usize>> {
        let (all, block) = (images * self.per_image, self.block);
        (0..all)
            .step_by(block)
            .map(move |p| p..(p + block).min(all))
    }

    /// Convolves a tile of `images` images. `columns`: of the output.
    #[allow(clippy::too_many_arguments)]
    pub fn convolve<E: Element, O: Element>(
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
        let inputs = grown(inputs, POSITIONS * self.position(c));
        let outputs = grown(outputs, POSITIONS * self.position(width));
        for patches in self.blocks(images) {
            isa.dispatch(TransformInput {
                pixels: &self.inputs[patches.clone()],
                tile,
                channels: c,
                out: inputs,
                position: self.position(c),
            });
            isa.dispatch(Products::<Single<f32>> {
                count: POSITIONS,
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
            let sink = Sink {
                output,
                to: &self.to,
                epilogue: epilogue.reborrow(),
            };
            isa.dispatch(TransformOutput {
                products: outputs,
                position: self.position(width),
                pixels: &self.outputs[patches.clone()],
                first: &self.first[patches],
                columns: columns.clone(),
                sink,
            });
        }
    }

    /// Weight gradient, transformed: for each position `[channels, channels]`, the rows of the
    /// `channels` that the tile holds. `begun`: `out` holds sums to add to.
    #[allow(clippy::too_many_arguments)]
    pub fn weight_gradient<E: Element>(
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
        let inputs = grown(inputs, POSITIONS * self.position(channels));
        let gradients = grown(gradients, POSITIONS * self.position(c));
        for patches in self.blocks(images) {
            isa.dispatch(TransformInput {
                pixels: &self.inputs[patches.clone()],
                tile,
                channels,
                out: inputs,
                position: self.position(channels),
            });
            isa.dispatch(TransformGradient {
                pixels: &self.outputs[patches.clone()],
                gradient,
                channels: c,
                out: gradients,
                position: self.position(c),
            });
            for p in 0..POSITIONS {
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

    /// Adds the weight gradient `[3, 3, channels, channels]` of transformed ones to `out`.
    pub fn add_weight_gradient(&self, isa: Isa, transformed: &[&[f32]], out: &mut [f32]) {
        let size = self.channels * self.channels;
        let out = Shared::new(out);
        let task = 4 << 10;
        (0..size.div_ceil(task)).into_par_iter().for_each(|t| {
            isa.dispatch(FoldGradient {
                transformed,
                size,
                range: t * task..((t + 1) * task).min(size),
                out,
            });
        });
    }
}

/// G' s G of the sums s over all parts, added to the weight gradient.
struct FoldGradient<'a> {
    transformed: &'a [&'a [f32]],
    /// Weights of a position, and which of them.
    size: usize,
    range: Range<usize>,
    out: Shared<f32>,
}

impl WithSimd for FoldGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let half = simd.splat_f32s(0.5);
        for i in self.range.step_by(S::F32_LANES) {
            let mut sums = [simd.splat_f32s(0.0); POSITIONS];
            for part in self.transformed {
                for (p, sum) in sums.iter_mut().enumerate() {
                    let v = &part[p * self.size + i..][..S::F32_LANES];
                    // SAFETY: a vector of values.
                    *sum = simd.add_f32s(*sum, unsafe { f32::load::<S>(v.as_ptr()) });
                }
            }
            let mut rows = [[simd.splat_f32s(0.0); 4]; 3];
            for x in 0..4 {
                let column = [sums[x], sums[4 + x], sums[8 + x], sums[12 + x]];
                let folded = fold(simd, half, column);
                for y in 0..3 {
                    rows[y][x] = folded[y];
                }
            }
            for y in 0..3 {
                let row = fold(simd, half, rows[y]);
                for x in 0..3 {
                    // SAFETY: the ranges of tasks are disjoint.
                    unsafe {
                        let out = self.out.slice((y * 3 + x) * self.size + i, S::F32_LANES);
                        let out = out.as_mut_ptr();
                        f32::store::<S>(out, simd.add_f32s(f32::load::<S>(out), row[x]));
                    }
                }
            }
        }
    }
}

/// G' v of four values v.
#[inline(always)]
fn fold<S: Simd>(simd: S, half: S::f32s, v: [S::f32s; 4]) -> [S::f32s; 3] {
    let plus = simd.mul_f32s(simd.add_f32s(v[1], v[2]), half);
    let minus = simd.mul_f32s(simd.sub_f32s(v[1], v[2]), half);
    [simd.add_f32s(v[0], plus), minus, simd.add_f32s(plus, v[3])]
}

/// G w G' of 3x3 kernels w, packed.
struct TransformWeights<'a> {
    weights: &'a [f32],
    channels: usize,
    /// Of one panel.
    columns: Range<usize>,
    direction: Direction,
    packed: Shared<f32>,
}

impl WithSimd for TransformWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (c, width) = (self.channels, self.columns.len());
        let size = c * c;
        let panel = self.columns.start * c;
        match self.direction {
            Direction::Forward => {
                for i in 0..c {
                    for j in (0..width).step_by(LANES) {
                        let n = LANES.min(width - j);
                        let at = i * c + self.columns.start + j;
                        let all = transformed(self.weights, size, at, n);
                        for (p, v) in all.iter().enumerate() {
                            // SAFETY: panels are disjoint.
                            let out =
                                unsafe { self.packed.slice(p * size + panel + i * width + j, n) };
                            out.copy_from_slice(&v[..n]);
                        }
                    }
                }
            }
            Direction::Backward => {
                for (column, i) in self.columns.enumerate() {
                    for o in (0..c).step_by(LANES) {
                        let all = transformed(self.weights, size, i * c + o, LANES);
                        for (p, v) in all.iter().enumerate() {
                            // The kernel turned by half a turn: its transform has the outer rows
                            // and columns swapped.
                            let turned = |i: usize| [3, 1, 2, 0][i];
                            let p = turned(p / 4) * 4 + turned(p % 4);
                            let start = p * size + panel + o * width;
                            // SAFETY: panels are disjoint.
                            let out = unsafe { self.packed.slice(start, LANES * width) };
                            for (k, &v) in v.iter().enumerate() {
                                out[k * width + column] = v;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// G w G' of the `n` kernels from `at` on, whose taps lie `size` apart.
#[inline(always)]
fn transformed(weights: &[f32], size: usize, at: usize, n: usize) -> [[f32; LANES]; POSITIONS] {
    let mut w = [[0f32; LANES]; 9];
    for (t, w) in w.iter_mut().enumerate() {
        w[..n].copy_from_slice(&weights[t * size + at..][..n]);
    }
    let mut rows = [[[0f32; LANES]; 3]; 4];
    for x in 0..3 {
        for l in 0..LANES {
            let (a, b, c) = (w[x][l], w[3 + x][l], w[6 + x][l]);
            rows[0][x][l] = a;
            rows[1][x][l] = (a + b + c) * 0.5;
            rows[2][x][l] = (a - b + c) * 0.5;
            rows[3][x][l] = c;
        }
    }
    let mut out = [[0f32; LANES]; POSITIONS];
    for y in 0..4 {
        for l in 0..LANES {
            let (a, b, c) = (rows[y][0][l], rows[y][1][l], rows[y][2][l]);
            out[y * 4][l] = a;
            out[y * 4 + 1][l] = (a + b + c) * 0.5;
            out[y * 4 + 2][l] = (a - b + c) * 0.5;
            out[y * 4 + 3][l] = c;
        }
    }
    out
}

/// B' d of four values d.
#[inline(always)]
fn input_transform<S: Simd>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
    [
        simd.sub_f32s(d[0], d[2]),
        simd.add_f32s(d[1], d[2]),
        simd.sub_f32s(d[2], d[1]),
        simd.sub_f32s(d[1], d[3]),
    ]
}

/// A' m of four products m.
#[inline(always)]
fn output_transform<S: Simd>(simd: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
    let (plus, minus) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    [simd.add_f32s(m[0], plus), simd.sub_f32s(minus, m[3])]
}

/// A g of two gradients g.
#[inline(always)]
fn gradient_transform<S: Simd>(simd: S, g: [S::f32s; 2]) -> [S::f32s; 4] {
    let zero = simd.splat_f32s(0.0);
    [
        g[0],
        simd.add_f32s(g[0], g[1]),
        simd.sub_f32s(g[0], g[1]),
        simd.sub_f32s(zero, g[1]),
    ]
}

/// Pointers to pixels of `channels` values, to zeros for those outside the image.
#[inline(always)]
fn pointers<E, const N: usize>(
    values: &[E],
    channels: usize,
    pixels: &[u32; N],
    zeros: &[E],
) -> [*const E; N] {
    let mut all = [zeros.as_ptr(); N];
    for (to, &p) in all.iter_mut().zip(pixels) {
        if p != OUTSIDE {
            *to = values[p as usize * channels..][..channels].as_ptr();
        }
    }
    all
}

/// B' d B of 4x4 patches d.
struct TransformInput<'a, E> {
    pixels: &'a [[u32; POSITIONS]],
    tile: &'a [E],
    channels: usize,
    out: &'a mut [f32],
    position: usize,
}

// Kernels use loops where closures would read better: a closure is compiled without the
// instruction set of the function around it.
impl<E: Element> WithSimd for TransformInput<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zeros = vec![E::default(); c];
        assert!(self.out.len() >= 15 * self.position + self.pixels.len() * c);
        for (m, pixels) in self.pixels.iter().enumerate() {
            let from = pointers(self.tile, c, pixels, &zeros);
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: j + lanes <= c, the length of each pixel; out's was checked.
                unsafe {
                    let out = self.out.as_mut_ptr().add(m * c + j);
                    let mut rows = [[simd.splat_f32s(0.0); 4]; 4];
                    for x in 0..4 {
                        let mut d = [simd.splat_f32s(0.0); 4];
                        for y in 0..4 {
                            d[y] = E::load::<S>(from[y * 4 + x].add(j));
                        }
                        let d = input_transform(simd, d);
                        for y in 0..4 {
                            rows[y][x] = d[y];
                        }
                    }
                    for y in 0..4 {
                        let row = input_transform(simd, rows[y]);
                        for x in 0..4 {
                            f32::store::<S>(out.add((y * 4 + x) * self.position), row[x]);
                        }
                    }
                }
            }
        }
    }
}

/// A g A' of 2x2 gradients g.
struct TransformGradient<'a, E> {
    pixels: &'a [[u32; 4]],
    gradient: &'a [E],
    channels: usize,
    out: &'a mut [f32],
    position: usize,
}

impl<E: Element> WithSimd for TransformGradient<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zeros = vec![E::default(); c];
        assert!(self.out.len() >= 15 * self.position + self.pixels.len() * c);
        for (m, pixels) in self.pixels.iter().enumerate() {
            let from = pointers(self.gradient, c, pixels, &zeros);
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: j + lanes <= c, the length of each pixel; out's was checked.
                unsafe {
                    let out = self.out.as_mut_ptr().add(m * c + j);
                    let mut g = [simd.splat_f32s(0.0); 4];
                    for i in 0..4 {
                        g[i] = E::load::<S>(from[i].add(j));
                    }
                    let left = gradient_transform(simd, [g[0], g[2]]);
                    let right = gradient_transform(simd, [g[1], g[3]]);
                    for y in 0..4 {
                        let row = gradient_transform(simd, [left[y], right[y]]);
                        for x in 0..4 {
                            f32::store::<S>(out.add((y * 4 + x) * self.position), row[x]);
                        }
                    }
                }
            }
        }
    }
}

/// A' m A of the products m, and what becomes of the 2x2 outputs.
struct TransformOutput<'a, E> {
    products: &'a [f32],
    position: usize,
    pixels: &'a [[u32; 4]],
    /// Each patch's first output in the sink.
    first: &'a [u32],
    columns: Range<usize>,
    sink: Sink<'a, E>,
}

impl<E: Element> WithSimd for TransformOutput<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let c = self.columns.len();
        let zero = simd.splat_f32s(0.0);
        assert!(self.products.len() >= 15 * self.position + self.pixels.len() * c);
        for j in (0..c).step_by(S::F32_LANES) {
            for (m, (pixels, &first)) in self.pixels.iter().zip(self.first).enumerate() {
                // SAFETY: j + lanes <= c; products' length was checked; the sink's offsets lie
                // inside the tile.
                unsafe {
                    let products = self.products.as_ptr().add(m * c + j);
                    let mut columns = [[zero; 4]; 2];
                    for x in 0..4 {
                        let mut d = [zero; 4];
                        for y in 0..4 {
                            d[y] = f32::load::<S>(products.add((y * 4 + x) * self.position));
                        }
                        let d = output_transform(simd, d);
                        columns[0][x] = d[0];
                        columns[1][x] = d[1];
                    }
                    let top = output_transform(simd, columns[0]);
                    let bottom = output_transform(simd, columns[1]);
                    let (sink, first) = (&mut self.sink, first as usize);
                    let column = self.columns.start + j;
                    match (pixels[1] != OUTSIDE, pixels[2] != OUTSIDE) {
                        (true, true) => {
                            let all = [top[0], top[1], bottom[0], bottom[1]];
                            finish(simd, sink, &all, first, column);
                        }
                        (true, false) => finish(simd, sink, &top, first, column),
                        (false, true) => {
                            finish(simd, sink, &[top[0], bottom[0]], first, column);
                        }
                        (false, false) => finish(simd, sink, &[top[0]], first, column),
                    }
                }
            }
        }
    }
}
