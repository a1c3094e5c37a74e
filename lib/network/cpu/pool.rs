//! Pooling: the max pool behind the ImageNet stem, and the mean over pixels that gives the pre-logits.

use super::convolve::channel;
use super::element::Element;
use super::isa::Isa;
use super::norm::{Affine, BatchStatistics, fold_sums, merge};
use crate::tasks;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// The max pool behind the ImageNet stem: 3x3, stride 2, with zero padding of 1. The zeros take part in the
/// maximum (reference models/resnet.py).
pub struct Pool {
    /// Height and width.
    input: (usize, usize),
    pub output: (usize, usize),
}

impl Pool {
    /// For images of (height, width).
    pub fn new(input: (usize, usize)) -> Pool {
        let halved = |size: usize| (size - 1) / 2 + 1;
        Pool { input, output: (halved(input.0), halved(input.1)) }
    }

    /// Pools images of `c` channels on all threads. Returns the statistics.
    pub fn forward<E: Element>(
        &self,
        isa: Isa,
        values: &[E],
        out: &mut [E],
        c: usize,
    ) -> BatchStatistics {
        let ((h, w), (oh, ow)) = (self.input, self.output);
        let n = values.len() / (h * w * c);
        let mut moments = vec![0f32; n * 3 * c];
        let images = out
            .par_chunks_mut(oh * ow * c)
            .zip(values.par_chunks(h * w * c))
            .zip(moments.par_chunks_mut(3 * c));
        tasks::each(images, |((out, values), moments)| self.image(isa, values, out, moments));
        merge(&moments, c, std::iter::repeat_n(oh * ow, n))
    }

    /// Pools one image. `moments`: see `norm::merge`.
    pub fn image<E: Element>(&self, isa: Isa, values: &[E], out: &mut [E], moments: &mut [f32]) {
        E::dispatch(isa, MaxPool { pool: self, values, out, channels: moments.len() / 3, moments });
    }

    /// `pooled`: what `forward` wrote.
    pub fn backward<E: Element>(
        &self,
        isa: Isa,
        values: &[E],
        (pooled, gradient): (&[E], &[E]),
        out: &mut [E],
        c: usize,
    ) {
        let ((h, w), (oh, ow)) = (self.input, self.output);
        let images = out
            .par_chunks_mut(h * w * c)
            .zip(values.par_chunks(h * w * c))
            .zip(pooled.par_chunks(oh * ow * c))
            .zip(gradient.par_chunks(oh * ow * c));
        tasks::each(images, |(((out, values), pooled), gradient)| {
            out.fill(E::default());
            E::dispatch(
                isa,
                MaxPoolBackward { pool: self, values, pooled, gradient, out, channels: c },
            );
        });
    }

    /// `out`: for each value that `forward` wrote, the tangent of the value that it came from, 0 for padding.
    pub fn tangent<E: Element>(
        &self,
        isa: Isa,
        (values, tangent): (&[E], &[E]),
        pooled: &[E],
        out: &mut [E],
        c: usize,
    ) {
        let ((h, w), (oh, ow)) = (self.input, self.output);
        let images = out
            .par_chunks_mut(oh * ow * c)
            .zip(values.par_chunks(h * w * c))
            .zip(pooled.par_chunks(oh * ow * c))
            .zip(tangent.par_chunks(h * w * c));
        tasks::each(images, |(((out, values), pooled), tangent)| {
            let kernel = MaxPoolTangent { pool: self, values, pooled, tangent, out, channels: c };
            E::dispatch(isa, kernel);
        });
    }

    /// The window of an output pixel: its input pixels, `None` for padding.
    fn window(&self, p: usize) -> impl DoubleEndedIterator<Item = Option<usize>> {
        let ((h, w), (_, ow)) = (self.input, self.output);
        (0..9).map(move |t| {
            let (y, x) = ((p / ow) * 2 + t / 3, (p % ow) * 2 + t % 3);
            let inside = (1..=h).contains(&y) && (1..=w).contains(&x);
            inside.then(|| (y - 1) * w + x - 1)
        })
    }
}

struct MaxPool<'a, E> {
    pool: &'a Pool,
    values: &'a [E],
    out: &'a mut [E],
    channels: usize,
    /// Moments of `out`: see `norm::merge`.
    moments: &'a mut [f32],
}

impl<E: Element> WithSimd for MaxPool<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zero = simd.splat_f32s(0.0);
        for p in 0..self.out.len() / c {
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: j + lanes <= c; window pixels lie inside the image.
                unsafe {
                    let mut best = simd.splat_f32s(f32::NEG_INFINITY);
                    for from in self.pool.window(p) {
                        let v = match from {
                            Some(q) => E::load::<S>(self.values.as_ptr().add(q * c + j)),
                            None => zero,
                        };
                        best = simd.max_f32s(best, v);
                    }
                    E::store::<S>(self.out.as_mut_ptr().add(p * c + j), best);
                    let around = self.moments.as_mut_ptr().add(j);
                    if p == 0 {
                        f32::store::<S>(around, best);
                    }
                    let d = simd.sub_f32s(best, f32::load::<S>(around));
                    let (s0, s1) = (around.add(c), around.add(2 * c));
                    f32::store::<S>(s0, simd.add_f32s(f32::load::<S>(s0), d));
                    f32::store::<S>(s1, simd.mul_add_f32s(d, d, f32::load::<S>(s1)));
                }
            }
        }
    }
}

struct MaxPoolBackward<'a, E> {
    pool: &'a Pool,
    values: &'a [E],
    pooled: &'a [E],
    gradient: &'a [E],
    /// The gradients are added to this.
    out: &'a mut [E],
    channels: usize,
}

impl<E: Element> WithSimd for MaxPoolBackward<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zero = simd.splat_f32s(0.0);
        for p in 0..self.pooled.len() / c {
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: as in `MaxPool`.
                unsafe {
                    let best = E::load::<S>(self.pooled.as_ptr().add(p * c + j));
                    // The gradient still to pass on: the first maximum of the window takes all of it.
                    let mut left = E::load::<S>(self.gradient.as_ptr().add(p * c + j));
                    for from in self.pool.window(p) {
                        let v = match from {
                            Some(q) => E::load::<S>(self.values.as_ptr().add(q * c + j)),
                            None => zero,
                        };
                        let is_best = simd.equal_f32s(v, best);
                        if let Some(q) = from {
                            let out = self.out.as_mut_ptr().add(q * c + j);
                            let taken = simd.select_f32s(is_best, left, zero);
                            E::store::<S>(out, simd.add_f32s(E::load::<S>(out), taken));
                        }
                        left = simd.select_f32s(is_best, zero, left);
                    }
                }
            }
        }
    }
}

struct MaxPoolTangent<'a, E> {
    pool: &'a Pool,
    values: &'a [E],
    pooled: &'a [E],
    tangent: &'a [E],
    out: &'a mut [E],
    channels: usize,
}

impl<E: Element> WithSimd for MaxPoolTangent<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zero = simd.splat_f32s(0.0);
        for p in 0..self.pooled.len() / c {
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: as in `MaxPool`.
                unsafe {
                    let best = E::load::<S>(self.pooled.as_ptr().add(p * c + j));
                    // As on the way back, the first maximum counts. It is the last one from the end.
                    let mut of_best = zero;
                    for from in self.pool.window(p).rev() {
                        let (v, tangent) = match from {
                            Some(q) => (
                                E::load::<S>(self.values.as_ptr().add(q * c + j)),
                                E::load::<S>(self.tangent.as_ptr().add(q * c + j)),
                            ),
                            None => (zero, zero),
                        };
                        let is_best = simd.equal_f32s(v, best);
                        of_best = simd.select_f32s(is_best, tangent, of_best);
                    }
                    E::store::<S>(self.out.as_mut_ptr().add(p * c + j), of_best);
                }
            }
        }
    }
}

/// Mean over the pixels of one image of relu(norm(y)).
pub fn pooled_features<E: Element>(isa: Isa, norm: &Affine, y: &[E], out: &mut [f32]) {
    E::dispatch(isa, MeanRelu { norm, y, out });
}

struct MeanRelu<'a, E> {
    norm: &'a Affine,
    y: &'a [E],
    out: &'a mut [f32],
}

impl<E: Element> WithSimd for MeanRelu<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.out.len();
        let pixels = self.y.len() / c;
        let zero = simd.splat_f32s(0.0);
        for j in (0..c).step_by(S::F32_LANES) {
            // SAFETY: j + lanes <= c, the channels of each pixel and the length of the norm.
            unsafe {
                let scale = f32::load::<S>(self.norm.scale.as_ptr().add(j));
                let shift = f32::load::<S>(self.norm.shift.as_ptr().add(j));
                let mut sum = zero;
                for p in 0..pixels {
                    let y = E::load::<S>(self.y.as_ptr().add(p * c + j));
                    let y = simd.max_f32s(simd.mul_add_f32s(y, scale, shift), zero);
                    sum = simd.add_f32s(sum, y);
                }
                let share = simd.splat_f32s(1.0 / pixels as f32);
                f32::store::<S>(self.out.as_mut_ptr().add(j), simd.mul_f32s(sum, share));
            }
        }
    }
}

/// Backward of `pooled_features`: the masked gradient and its sums.
pub fn spread_features<E: Element>(
    isa: Isa,
    norm: &Affine,
    features: &[f32],
    y: &[E],
    gradient: &mut [E],
    pixels: usize,
) -> [Vec<f64>; 2] {
    let c = norm.scale.len();
    let mut sums = vec![0f32; features.len() * 2];
    let images = gradient
        .par_chunks_mut(pixels * c)
        .zip(y.par_chunks(pixels * c))
        .zip(sums.par_chunks_mut(2 * c))
        .zip(features.par_chunks(c));
    tasks::each(images, |(((gradient, y), sums), feature)| {
        E::dispatch(isa, Spread { norm, feature, y, gradient, sums });
    });
    fold_sums(&sums, c)
}

struct Spread<'a, E> {
    norm: &'a Affine,
    feature: &'a [f32],
    y: &'a [E],
    gradient: &'a mut [E],
    sums: &'a mut [f32],
}

impl<E: Element> WithSimd for Spread<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.feature.len();
        let pixels = self.y.len() / c;
        let zero = simd.splat_f32s(0.0);
        for j in (0..c).step_by(S::F32_LANES) {
            // SAFETY: as in `MeanRelu`; the gradient has the layout of y.
            unsafe {
                let scale = channel::<S>(&self.norm.scale, j);
                let shift = channel::<S>(&self.norm.shift, j);
                let mean = channel::<S>(&self.norm.mean, j);
                let share = simd.splat_f32s(1.0 / pixels as f32);
                let up = simd.mul_f32s(channel::<S>(self.feature, j), share);
                let (mut s0, mut s1) = (zero, zero);
                for p in 0..pixels {
                    let y = E::load::<S>(self.y.as_ptr().add(p * c + j));
                    let on = simd.greater_than_f32s(simd.mul_add_f32s(y, scale, shift), zero);
                    let g = simd.select_f32s(on, up, zero);
                    E::store::<S>(self.gradient.as_mut_ptr().add(p * c + j), g);
                    s0 = simd.add_f32s(s0, g);
                    s1 = simd.mul_add_f32s(g, simd.sub_f32s(y, mean), s1);
                }
                f32::store::<S>(self.sums.as_mut_ptr().add(j), s0);
                f32::store::<S>(self.sums.as_mut_ptr().add(c + j), s1);
            }
        }
    }
}
