//! The passes over patches and weights.

// Transforms read as formulas by row and column.
#![allow(clippy::needless_range_loop)]

use super::form::{Form, OUTSIDE};
use super::transforms::Transforms;
use crate::network::cpu::convolve::{Sink, channel, finish};
use crate::network::cpu::element::Element;
use crate::network::cpu::packing::Way;
use crate::network::cpu::registers::LANES;
use crate::network::cpu::shared::Shared;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Pointers to pixels of `channels` values; pixels outside the image point to zeros.
#[inline(always)]
fn pointers<E, const N: usize>(
    values: &[E],
    channels: usize,
    pixels: &[[u32; N]; N],
    zeros: &[E],
) -> [[*const E; N]; N] {
    let mut all = [[zeros.as_ptr(); N]; N];
    for (to, &p) in all.as_flattened_mut().iter_mut().zip(pixels.as_flattened()) {
        if p != OUTSIDE {
            *to = values[p as usize * channels..][..channels].as_ptr();
        }
    }
    all
}

/// A transform along one side of the pixels of an image.
pub trait Side<const FROM: usize, const IN: usize> {
    fn side<S: Simd>(&self, simd: S, values: [S::f32s; FROM]) -> [S::f32s; IN];
}

/// B' d.
pub struct OfInput<const OUT: usize>;

impl<const IN: usize, const OUT: usize> Side<IN, IN> for OfInput<OUT>
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    #[inline(always)]
    fn side<S: Simd>(&self, simd: S, d: [S::f32s; IN]) -> [S::f32s; IN] {
        Form::<IN, OUT>::input(simd, d)
    }
}

/// A g.
pub struct OfGradient;

impl<const IN: usize, const OUT: usize> Side<OUT, IN> for OfGradient
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    #[inline(always)]
    fn side<S: Simd>(&self, simd: S, g: [S::f32s; OUT]) -> [S::f32s; IN] {
        Form::<IN, OUT>::gradient(simd, g)
    }
}

/// The transform `T` of patches, along both sides.
pub struct Transform<'a, T, E, const FROM: usize, const IN: usize> {
    pub of: T,
    pub pixels: &'a [[[u32; FROM]; FROM]],
    pub values: &'a [E],
    pub channels: usize,
    pub out: &'a mut [f32],
    /// Values from one position to the next.
    pub position: usize,
}

// Loops, not closures: a closure is compiled without the instruction set of the function around it.
impl<T: Side<FROM, IN>, E: Element, const FROM: usize, const IN: usize> WithSimd
    for Transform<'_, T, E, FROM, IN>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zeros = vec![E::default(); c];
        assert!(self.out.len() >= (IN * IN - 1) * self.position + self.pixels.len() * c);
        for (m, pixels) in self.pixels.iter().enumerate() {
            let from = pointers(self.values, c, pixels, &zeros);
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: j + lanes <= c, the length of each pixel; the length of out was checked.
                unsafe {
                    let out = self.out.as_mut_ptr().add(m * c + j);
                    let mut rows = [[simd.splat_f32s(0.0); FROM]; IN];
                    for x in 0..FROM {
                        let mut column = [simd.splat_f32s(0.0); FROM];
                        for y in 0..FROM {
                            column[y] = E::load::<S>(from[y][x].add(j));
                        }
                        let column = self.of.side(simd, column);
                        for y in 0..IN {
                            rows[y][x] = column[y];
                        }
                    }
                    for y in 0..IN {
                        let row = self.of.side(simd, rows[y]);
                        for x in 0..IN {
                            f32::store::<S>(out.add((y * IN + x) * self.position), row[x]);
                        }
                    }
                }
            }
        }
    }
}

/// A' m A of the products m, and the epilogue of the outputs.
pub struct TransformOutput<'a, E, const IN: usize, const OUT: usize> {
    pub products: &'a [f32],
    pub position: usize,
    pub pixels: &'a [[[u32; OUT]; OUT]],
    /// The first output of each patch in the sink.
    pub first: &'a [u32],
    pub columns: Range<usize>,
    pub sink: Sink<'a, E>,
}

impl<E: Element, const IN: usize, const OUT: usize> WithSimd for TransformOutput<'_, E, IN, OUT>
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let c = self.columns.len();
        let zero = simd.splat_f32s(0.0);
        assert!(self.products.len() >= (IN * IN - 1) * self.position + self.pixels.len() * c);
        for j in (0..c).step_by(S::F32_LANES) {
            for (m, (pixels, &first)) in self.pixels.iter().zip(self.first).enumerate() {
                // SAFETY: j + lanes <= c; the length of products was checked; the offsets of the sink are
                // inside the tile.
                unsafe {
                    let products = self.products.as_ptr().add(m * c + j);
                    let mut columns = [[zero; IN]; OUT];
                    for x in 0..IN {
                        let mut d = [zero; IN];
                        for y in 0..IN {
                            d[y] = f32::load::<S>(products.add((y * IN + x) * self.position));
                        }
                        let d = Form::<IN, OUT>::output(simd, d);
                        for y in 0..OUT {
                            columns[y][x] = d[y];
                        }
                    }
                    let mut out = [[zero; OUT]; OUT];
                    for y in 0..OUT {
                        out[y] = Form::<IN, OUT>::output(simd, columns[y]);
                    }
                    let (sink, first) = (&mut self.sink, first as usize);
                    let column = self.columns.start + j;
                    if pixels[OUT - 1][OUT - 1] != OUTSIDE {
                        finish(simd, sink, out.as_flattened(), first, column);
                        continue;
                    }
                    // At the edge of the image, only the outputs inside it.
                    let mut inside = [[zero; OUT]; OUT];
                    let inside = inside.as_flattened_mut();
                    let mut n = 0;
                    for (&y, &p) in out.as_flattened().iter().zip(pixels.as_flattened()) {
                        if p != OUTSIDE {
                            inside[n] = y;
                            n += 1;
                        }
                    }
                    finish(simd, sink, &inside[..n], first, column);
                }
            }
        }
    }
}

/// G' s G of the sums s over all parts, added to the weight gradient.
pub struct FoldGradient<'a, const IN: usize, const OUT: usize> {
    pub transformed: &'a [&'a [f32]],
    /// Weights per position, and the range to add.
    pub size: usize,
    pub range: Range<usize>,
    pub out: Shared<f32>,
}

impl<const IN: usize, const OUT: usize> WithSimd for FoldGradient<'_, IN, OUT>
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let zero = simd.splat_f32s(0.0);
        for i in self.range.step_by(S::F32_LANES) {
            let mut sums = [[zero; IN]; IN];
            for part in self.transformed {
                for (p, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                    let v = &part[p * self.size + i..][..S::F32_LANES];
                    // SAFETY: a vector of values.
                    *sum = simd.add_f32s(*sum, unsafe { f32::load::<S>(v.as_ptr()) });
                }
            }
            let mut rows = [[zero; IN]; 3];
            for x in 0..IN {
                let mut column = [zero; IN];
                for y in 0..IN {
                    column[y] = sums[y][x];
                }
                let folded = Form::<IN, OUT>::fold(simd, column);
                for y in 0..3 {
                    rows[y][x] = folded[y];
                }
            }
            for y in 0..3 {
                let row = Form::<IN, OUT>::fold(simd, rows[y]);
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

/// G w G' of 3x3 kernels w, packed.
pub struct TransformWeights<'a, const IN: usize, const OUT: usize> {
    pub weights: &'a [f32],
    pub channels: usize,
    /// Some rows of one panel.
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub way: Way,
    pub packed: Shared<f32>,
    /// Values from one position to the next.
    pub position: usize,
}

/// Some kernels: by position, row and column of the packed matrix.
type Kernels = [[[f32; LANES]; LANES]; 9];

impl<const IN: usize, const OUT: usize> TransformWeights<'_, IN, OUT> {
    /// Reads the kernels of `LANES` rows from `row` on, and of `n` columns from `column` on.
    // A call to copy so few values would take longer than the copy.
    #[allow(clippy::manual_memcpy)]
    #[inline(always)]
    fn read(&self, row: usize, column: usize, n: usize, kernels: &mut Kernels) {
        let c = self.channels;
        let position = self.weights.chunks_exact(c * c);
        match self.way {
            Way::Forward => {
                for (w, to) in position.zip(kernels) {
                    for (r, to) in to.iter_mut().enumerate() {
                        let w = &w[(row + r) * c + column..][..n];
                        for k in 0..n {
                            to[k] = w[k];
                        }
                    }
                }
            }
            // The kernel rotated by 180 degrees.
            Way::Backward => {
                for (w, to) in position.rev().zip(kernels) {
                    for k in 0..n {
                        let w = &w[(column + k) * c + row..][..LANES];
                        for r in 0..LANES {
                            to[r][k] = w[r];
                        }
                    }
                }
            }
        }
    }
}

impl<const IN: usize, const OUT: usize> WithSimd for TransformWeights<'_, IN, OUT>
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (c, width) = (self.channels, self.columns.len());
        let (position, panel) = (self.position, self.columns.start * c);
        let packed = self.packed.pointer(panel, (IN * IN - 1) * position + width * c);
        let mut kernels = [[[0f32; LANES]; LANES]; 9];
        for column in (0..width).step_by(LANES) {
            let n = LANES.min(width - column);
            for row in self.rows.clone().step_by(LANES) {
                self.read(row, self.columns.start + column, n, &mut kernels);
                for r in 0..LANES {
                    for j in (0..n).step_by(S::F32_LANES) {
                        let all = transformed::<S, IN, OUT>(simd, &kernels, r, j);
                        for (p, &v) in all.as_flattened().iter().enumerate() {
                            // SAFETY: rows of panels are disjoint; column + j + lanes <= width.
                            unsafe {
                                let out = packed.add(p * position + (row + r) * width);
                                f32::store::<S>(out.add(column + j), v);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// G w G' of a vector of kernels.
#[inline(always)]
fn transformed<S: Simd, const IN: usize, const OUT: usize>(
    simd: S,
    kernels: &Kernels,
    row: usize,
    column: usize,
) -> [[S::f32s; IN]; IN]
where
    Form<IN, OUT>: Transforms<IN, OUT>,
{
    let zero = simd.splat_f32s(0.0);
    let mut rows = [[zero; 3]; IN];
    for x in 0..3 {
        let mut w = [zero; 3];
        for y in 0..3 {
            // SAFETY: column + lanes <= `LANES`.
            w[y] = unsafe { channel::<S>(&kernels[y * 3 + x][row], column) };
        }
        let w = Form::<IN, OUT>::weights(simd, w);
        for y in 0..IN {
            rows[y][x] = w[y];
        }
    }
    let mut out = [[zero; IN]; IN];
    for y in 0..IN {
        out[y] = Form::<IN, OUT>::weights(simd, rows[y]);
    }
    out
}
