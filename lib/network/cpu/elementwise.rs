//! Passes over a tile: batch norm in both directions.

use super::convolve::channel;
use super::element::{Element, Native};
use super::multiply::pair;
use super::registers::LANES;
use pulp::{Simd, WithSimd};

/// `output = max(0, scale * input + shift)` over pixels, or `input` itself if there is no norm. Reads
/// `scale.len()` channels per pixel of `stride` values and writes them without gaps.
pub struct NormRelu<'a, E> {
    /// From the first channel of the first pixel on.
    pub input: &'a [E],
    pub stride: usize,
    pub output: &'a mut [E],
    /// Channels to read.
    pub channels: usize,
    /// Scale and shift of these channels.
    pub norm: Option<(&'a [f32], &'a [f32])>,
}

impl<E: Element> WithSimd for NormRelu<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zero = simd.splat_f32s(0.0);
        let input = self.input.chunks(self.stride);
        let pixels = input.zip(self.output.chunks_exact_mut(c));
        match self.norm {
            Some((scale, shift)) => {
                assert!(scale.len() == c && shift.len() == c && c.is_multiple_of(LANES));
                for (x, y) in pixels {
                    assert!(x.len() >= c);
                    for j in (0..c).step_by(S::F32_LANES) {
                        // SAFETY: j + lanes <= c, the length of scale, shift and y, at most x's.
                        unsafe {
                            let (a, b) = (scale.as_ptr().add(j), shift.as_ptr().add(j));
                            let x = E::load::<S>(x.as_ptr().add(j));
                            let x = simd.mul_add_f32s(x, f32::load::<S>(a), f32::load::<S>(b));
                            E::store::<S>(y.as_mut_ptr().add(j), simd.max_f32s(x, zero));
                        }
                    }
                }
            }
            None => {
                for (x, y) in pixels {
                    y.copy_from_slice(&x[..c]);
                }
            }
        }
    }
}

/// Residual, coefficients of a batch norm's backward pass. See `NormBackward`.
#[derive(Clone, Copy)]
pub struct Coefficients<'a> {
    pub g: &'a [f32],
    pub x: &'a [f32],
    pub one: &'a [f32],
}

/// Backward of a batch norm with its sums folded into three coefficients per channel:
/// `output = g * gradient + x * values + one (+ residual)`.
pub struct NormBackward<'a, E> {
    pub gradient: *const E,
    pub values: &'a [E],
    pub residual: Option<&'a [E]>,
    /// May be the same memory as `gradient`.
    pub output: *mut E,
    pub norm: Coefficients<'a>,
}

impl<E: Element> WithSimd for NormBackward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.norm.g.len();
        assert!(self.norm.x.len() == c && self.norm.one.len() == c && c.is_multiple_of(LANES));
        assert!(self.residual.is_none_or(|r| r.len() == self.values.len()));
        for p in (0..self.values.len() / c * c).step_by(c) {
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: j + lanes <= c; all tensors have values.len() values.
                unsafe {
                    let z = E::load::<S>(self.values.as_ptr().add(p + j));
                    let d = E::load::<S>(self.gradient.add(p + j));
                    let (scale, one) =
                        (channel::<S>(self.norm.x, j), channel::<S>(self.norm.one, j));
                    let constant = simd.mul_add_f32s(z, scale, one);
                    let mut out = simd.mul_add_f32s(d, channel::<S>(self.norm.g, j), constant);
                    if let Some(residual) = self.residual {
                        out = simd.add_f32s(out, E::load::<S>(residual.as_ptr().add(p + j)));
                    }
                    E::store::<S>(self.output.add(p + j), out);
                }
            }
        }
    }
}

/// A norm and the ReLU behind it, as a tangent passes them: the norm's own coefficients, and those for its tangent.
#[derive(Clone, Copy)]
pub struct TangentNorm<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub coefficients: Coefficients<'a>,
}

/// The tangent of relu(norm(x)) at `j` values of a pixel, from that of x.
///
/// # Safety
/// There are as many values as a vector has from `x` and `tangent` on, and channels from `j` on.
#[inline(always)]
pub unsafe fn tangent_at<E: Element, S: Simd>(
    simd: S,
    norm: TangentNorm,
    (x, tangent): (*const E, *const E),
    j: usize,
) -> S::f32s {
    let TangentNorm { scale, shift, coefficients: of } = norm;
    let zero = simd.splat_f32s(0.0);
    unsafe {
        let (x, t) = (E::load::<S>(x), E::load::<S>(tangent));
        let y = simd.mul_add_f32s(x, channel::<S>(scale, j), channel::<S>(shift, j));
        let constant = simd.mul_add_f32s(x, channel::<S>(of.x, j), channel::<S>(of.one, j));
        let out = simd.mul_add_f32s(t, channel::<S>(of.g, j), constant);
        simd.select_f32s(simd.greater_than_f32s(y, zero), out, zero)
    }
}

/// The tangent of relu(norm(x)) over pixels, from that of x.
pub struct NormTangent<'a, E> {
    pub tangent: &'a [E],
    /// At least as many values.
    pub x: &'a [E],
    pub norm: TangentNorm<'a>,
    pub output: &'a mut [E],
}

impl<E: Element> WithSimd for NormTangent<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.norm.scale.len();
        let values = self.tangent.len();
        assert!(c.is_multiple_of(LANES) && values.is_multiple_of(c));
        assert!(self.x.len() >= values && self.output.len() >= values);
        for p in (0..values).step_by(c) {
            for j in (0..c).step_by(S::F32_LANES) {
                let i = p + j;
                // SAFETY: j + lanes <= c, and all have `values` values.
                unsafe {
                    let from = (self.x.as_ptr().add(i), self.tangent.as_ptr().add(i));
                    E::store::<S>(
                        self.output.as_mut_ptr().add(i),
                        tangent_at(simd, self.norm, from, j),
                    );
                }
            }
        }
    }
}

/// The pixels of runs in pairs, for `multiply::Words`: word `[m, i]` holds channel i of the pixels 2 m and
/// 2 m + 1 of all runs, one run after the other; 0 after the last pixel.
pub struct PairPixels<'a, R> {
    /// For `channels` values per pixel.
    pub input: &'a [Native],
    pub channels: usize,
    /// First pixels of the runs.
    pub runs: R,
    /// Pixels per run, and pixels from one to the next.
    pub width: usize,
    pub step: usize,
    pub output: &'a mut [f32],
}

impl<R: Iterator<Item = u32>> WithSimd for PairPixels<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let c = self.channels;
        let mut first: Option<&[Native]> = None;
        let mut out = self.output.chunks_exact_mut(c);
        for run in self.runs {
            for x in 0..self.width {
                let pixel = &self.input[(run as usize + x * self.step) * c..][..c];
                let Some(before) = first.take() else {
                    first = Some(pixel);
                    continue;
                };
                let out = out.next().expect("a word for each pair");
                for i in 0..c {
                    out[i] = pair(before[i], pixel[i]);
                }
            }
        }
        if let Some(last) = first {
            let out = out.next().expect("a word for each pair");
            for i in 0..c {
                out[i] = pair(last[i], Native::default());
            }
        }
    }
}

/// Adds the values of all parts, from `start` on, to `out`, in order.
pub struct AddAll<'a> {
    pub parts: &'a [&'a [f32]],
    pub start: usize,
    pub out: &'a mut [f32],
}

impl WithSimd for AddAll<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for part in self.parts {
            for (o, g) in self.out.iter_mut().zip(&part[self.start..]) {
                *o += g;
            }
        }
    }
}
