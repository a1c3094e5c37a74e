//! Matrix products, and the weight gradient of a convolution.

use super::element::Element;
use super::multiply::Multiply;
use super::registers::{for_rows, next_rows, register_rows};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Matrix products of single values: `output[m * columns.len() + j - columns.start] = sum over k < depth of
/// input[m * depth + k] * weights[k, j]` for m < `rows` and the columns j. Done `count` times, with inputs,
/// weights and outputs that start one step later each time.
pub struct Products<'a, P: Multiply> {
    pub count: usize,
    pub rows: usize,
    pub depth: usize,
    /// Starts at a multiple of two vectors, ends at a multiple of `LANES`.
    pub columns: Range<usize>,
    pub input: &'a [P::Value],
    pub input_step: usize,
    /// Packed panels of `depth` rows.
    pub weights: &'a [P::Value],
    pub weights_step: usize,
    pub output: &'a mut [f32],
    pub output_step: usize,
}

impl<P: Multiply> WithSimd for Products<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (width, columns) = (self.columns.len(), self.columns);
        let last = self.count - 1;
        assert!(self.input.len() >= last * self.input_step + self.rows * self.depth);
        assert!(self.weights.len() >= last * self.weights_step + columns.end * self.depth);
        assert!(self.output.len() >= last * self.output_step + self.rows * width);
        for i in 0..self.count {
            let mut j = columns.start;
            while j < columns.end {
                let two = columns.end - j >= 2 * S::F32_LANES;
                let most = register_rows::<S>(if two { 2 } else { 1 });
                let mut m = 0;
                while m < self.rows {
                    let rows = next_rows(self.rows - m, most);
                    // SAFETY: lengths were checked.
                    unsafe {
                        let a = self.input.as_ptr().add(i * self.input_step + m * self.depth);
                        let b = self.weights.as_ptr().add(i * self.weights_step + j * self.depth);
                        let at = i * self.output_step + m * width + j - columns.start;
                        let c = self.output.as_mut_ptr().add(at);
                        if two {
                            for_rows!(
                                rows,
                                product_rows::<S, P, 2>(simd, a, self.depth, b, c, width)
                            );
                        } else {
                            for_rows!(
                                rows,
                                product_rows::<S, P, 1>(simd, a, self.depth, b, c, width)
                            );
                        }
                    }
                    m += rows;
                }
                j += if two { 2 } else { 1 } * S::F32_LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn product_rows<S: Simd, P: Multiply, const M: usize, const V: usize>(
    simd: S,
    a: *const P::Value,
    depth: usize,
    mut b: *const P::Value,
    c: *mut f32,
    width: usize,
) {
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        for k in 0..depth {
            let mut w = [simd.splat_f32s(0.0); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = P::load::<S>(b.add(v * S::F32_LANES));
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = P::broadcast(simd, a.add(m * depth + k));
                for v in 0..V {
                    acc[v] = P::multiply_add(simd, x, w[v], acc[v]);
                }
            }
            b = b.add(V * S::F32_LANES);
        }
        for (m, acc) in acc.iter().enumerate() {
            for (v, &a) in acc.iter().enumerate() {
                f32::store::<S>(c.add(m * width + v * S::F32_LANES), a);
            }
        }
    }
}

/// Weight gradient of `depth` consecutive rows of a kernel: `out[i, j] (+)= sum over runs r, x < width of
/// input[(runs[r].0 + x * stride) * channels + i] * gradient[(runs[r].1 + x) * outputs + j]`.
pub struct WeightGradient<'a, P: Multiply> {
    pub input: &'a [P::Value],
    /// Values per pixel of `input`.
    pub channels: usize,
    /// Input pixels from one output pixel to the next.
    pub stride: usize,
    pub depth: usize,
    /// Gradient of the convolution's output.
    pub gradient: &'a [P::Value],
    /// A multiple of `LANES`; also the pixel stride of `gradient`.
    pub outputs: usize,
    /// First pixels of matching runs in `input` and `gradient`.
    pub runs: &'a [(u32, u32)],
    /// Pixels per run.
    pub width: usize,
    /// `[depth, outputs]`.
    pub out: &'a mut [f32],
    pub accumulate: bool,
}

impl<P: Multiply> WithSimd for WeightGradient<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        assert!(self.out.len() >= self.depth * self.outputs);
        let mut j = 0;
        while j < self.outputs {
            let two = self.outputs - j >= 2 * S::F32_LANES;
            let most = register_rows::<S>(if two { 2 } else { 1 });
            let mut i = 0;
            while i < self.depth {
                let rows = next_rows(self.depth - i, most);
                // SAFETY: runs lie inside the tiles (see `geometry`).
                unsafe {
                    if two {
                        for_rows!(rows, weight_rows::<S, P, 2>(simd, &mut self, i, j));
                    } else {
                        for_rows!(rows, weight_rows::<S, P, 1>(simd, &mut self, i, j));
                    }
                }
                i += rows;
            }
            j += if two { 2 } else { 1 } * S::F32_LANES;
        }
    }
}

#[inline(always)]
unsafe fn weight_rows<S: Simd, P: Multiply, const M: usize, const V: usize>(
    simd: S,
    k: &mut WeightGradient<P>,
    i: usize,
    j: usize,
) {
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        let step = k.stride * k.channels;
        for &(a, b) in k.runs {
            let mut a = k.input.as_ptr().add(a as usize * k.channels + i);
            let mut b = k.gradient.as_ptr().add(b as usize * k.outputs + j);
            for _ in 0..k.width {
                let mut g = [simd.splat_f32s(0.0); V];
                for (v, g) in g.iter_mut().enumerate() {
                    *g = P::load::<S>(b.add(v * S::F32_LANES));
                }
                for (m, acc) in acc.iter_mut().enumerate() {
                    let x = P::broadcast(simd, a.add(m));
                    for v in 0..V {
                        acc[v] = P::multiply_add(simd, x, g[v], acc[v]);
                    }
                }
                // After the last step the pointers are outside the run; they are not read there.
                a = a.wrapping_add(step);
                b = b.wrapping_add(k.outputs);
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (v, &a) in acc.iter().enumerate() {
                let p = k.out.as_mut_ptr().add((i + m) * k.outputs + j + v * S::F32_LANES);
                let a = if k.accumulate { simd.add_f32s(a, f32::load::<S>(p)) } else { a };
                f32::store::<S>(p, a);
            }
        }
    }
}
