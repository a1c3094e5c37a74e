//! Pooling: the max pool behind the ImageNet stem, and the mean over pixels that makes the pre-logits.

use super::kernels::{MaskedGradient, Moments};
use super::norm::{Affine, BatchStatistics, fold_sums, merge};
use rayon::prelude::*;

/// The max pool behind the ImageNet stem.
pub struct Pool {
    pub input: (usize, usize),
    pub output: (usize, usize),
    /// The stem's output, and for each pooled value the window position of its maximum (9: the
    /// zero padding).
    pub values: Vec<f32>,
    pub argmax: Vec<u8>,
}

impl Pool {
    /// 3x3 stride-2 max over zero padding of 1: the zeros compete (reference models/resnet.py).
    pub fn forward(
        &mut self,
        arch: pulp::Arch,
        out: &mut [f32],
        c: usize,
        n: usize,
        statistics: bool,
    ) -> Option<BatchStatistics> {
        let ((h, w), (oh, ow)) = (self.input, self.output);
        let mut partial = vec![0f32; n * 2 * c];
        out.par_chunks_mut(oh * ow * c)
            .zip(self.argmax.par_chunks_mut(oh * ow * c))
            .zip(self.values.par_chunks(h * w * c))
            .zip(partial.par_chunks_mut(2 * c))
            .take(n)
            .for_each(|(((out, argmax), values), partial)| {
                for p in 0..oh * ow {
                    let best = &mut out[p * c..(p + 1) * c];
                    let from = &mut argmax[p * c..(p + 1) * c];
                    best.fill(f32::NEG_INFINITY);
                    for t in 0..9 {
                        let (y, x) = ((p / ow) * 2 + t / 3, (p % ow) * 2 + t % 3);
                        let inside = (1..=h).contains(&y) && (1..=w).contains(&x);
                        for j in 0..c {
                            let (v, t) = if inside {
                                (values[((y - 1) * w + x - 1) * c + j], t as u8)
                            } else {
                                (0.0, 9)
                            };
                            if v > best[j] {
                                (best[j], from[j]) = (v, t);
                            }
                        }
                    }
                }
                arch.dispatch(Moments {
                    values: out,
                    residual: None,
                    statistics: statistics.then(|| partial.split_at_mut(c)),
                    channels: c,
                });
            });
        statistics.then(|| merge(&partial, c, std::iter::repeat_n(oh * ow, n)))
    }

    pub fn backward(&self, gradient: &[f32], out: &mut [f32], c: usize, n: usize) {
        let ((h, w), (oh, ow)) = (self.input, self.output);
        out.par_chunks_mut(h * w * c)
            .zip(self.argmax.par_chunks(oh * ow * c))
            .zip(gradient.par_chunks(oh * ow * c))
            .take(n)
            .for_each(|((out, argmax), gradient)| {
                out.fill(0.0);
                for (i, (&t, &g)) in argmax.iter().zip(gradient).enumerate() {
                    if t < 9 {
                        let (p, j) = (i / c, i % c);
                        let y = (p / ow) * 2 + t as usize / 3 - 1;
                        let x = (p % ow) * 2 + t as usize % 3 - 1;
                        out[(y * w + x) * c + j] += g;
                    }
                }
            });
    }
}

/// Mean over an image's pixels of relu(norm(y)): `[n, features]`.
pub fn pooled_features(
    norm: &Affine,
    y: &[f32],
    n: usize,
    pixels: usize,
    features: usize,
) -> Vec<f32> {
    let c = norm.scale.len();
    let mut out = vec![0f32; n * features];
    out.par_chunks_mut(features)
        .zip(y.par_chunks(pixels * c))
        .for_each(|(out, y)| {
            let mut sum = vec![0f32; c];
            for p in y.chunks_exact(c) {
                for ((s, &x), (&a, &b)) in sum
                    .iter_mut()
                    .zip(p)
                    .zip(norm.scale.iter().zip(&norm.shift))
                {
                    *s += (x * a + b).max(0.0);
                }
            }
            for (o, s) in out.iter_mut().zip(&sum) {
                *o = s / pixels as f32;
            }
        });
    out
}

/// Backward of `pooled_features`: the masked gradient and its sums.
pub fn spread_features(
    arch: pulp::Arch,
    norm: &Affine,
    features: &[f32],
    y: &[f32],
    gradient: &mut [f32],
    n: usize,
    pixels: usize,
) -> [Vec<f64>; 2] {
    let c = norm.scale.len();
    let width = features.len() / n;
    let mut sums = vec![0f32; n * 2 * c];
    gradient
        .par_chunks_mut(pixels * c)
        .zip(y.par_chunks(pixels * c))
        .zip(sums.par_chunks_mut(2 * c))
        .zip(features.par_chunks(width))
        .for_each(|(((gradient, y), sums), feature)| {
            let mut up = vec![0f32; pixels * c];
            for p in up.chunks_exact_mut(c) {
                for (u, f) in p.iter_mut().zip(feature) {
                    *u = f / pixels as f32;
                }
            }
            arch.dispatch(MaskedGradient {
                upstream: &up,
                x: y,
                gradient,
                scale: &norm.scale,
                shift: &norm.shift,
                mean: &norm.mean,
                sums: sums.split_at_mut(c),
            });
        });
    fold_sums(&sums, c)
}
