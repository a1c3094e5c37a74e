//! Batch-norm statistics and coefficients, per channel. Sums of several tiles are in float64.

use super::elementwise::{Coefficients, TangentNorm};
use crate::error::Result;
use crate::network::engine::BATCH_NORM_EPSILON;
use crate::network::layout::Norm;
use crate::ranks::Communicator;

/// One batch norm as the kernels use it. All vectors have one value per channel.
#[derive(Debug, Default, Clone)]
pub struct Affine {
    /// Batch mean and 1 / sqrt(variance + epsilon).
    pub mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
    /// norm(x) = scale * x + shift.
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    /// Backward: dx = g * gradient + x * values + one (see `elementwise::NormBackward`).
    g: Vec<f32>,
    x: Vec<f32>,
    one: Vec<f32>,
}

/// Mean and biased variance of each channel over a batch.
pub struct BatchStatistics {
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
    pub count: usize,
}

/// Merges the moments of tiles in order (Chan et al.). `moments` has per tile: `channels` values around
/// which the moments are computed, then the sums, then the squares. `counts`: pixels per tile.
pub fn merge(
    moments: &[f32],
    channels: usize,
    counts: impl Iterator<Item = usize>,
) -> BatchStatistics {
    let mut mean = vec![0f64; channels];
    let mut squares = vec![0f64; channels];
    let mut total = 0usize;
    for (tile, count) in moments.chunks_exact(3 * channels).zip(counts) {
        let (around, sums) = tile.split_at(channels);
        let (old, new) = (total as f64, count as f64);
        total += count;
        let share = new / total as f64;
        for c in 0..channels {
            let off = f64::from(sums[c]) / new;
            let delta = f64::from(around[c]) + off - mean[c];
            mean[c] += delta * share;
            squares[c] += f64::from(sums[channels + c]) - off * off * new;
            squares[c] += delta * delta * old * share;
        }
    }
    for q in &mut squares {
        *q = (*q / total as f64).max(0.0);
    }
    BatchStatistics { mean, variance: squares, count: total }
}

impl BatchStatistics {
    /// Those of the batches of all ranks, merged in their order. Every rank has as many pixels.
    pub fn of_all(self, ranks: &dyn Communicator) -> Result<BatchStatistics> {
        if ranks.size() == 1 {
            return Ok(self);
        }
        let channels = self.mean.len();
        let own = [self.mean, self.variance].concat();
        let mut all = BatchStatistics {
            mean: vec![0.0; channels],
            variance: vec![0.0; channels],
            count: self.count * ranks.size(),
        };
        for (rank, of_rank) in ranks.gathered(&own)?.chunks_exact(2 * channels).enumerate() {
            // Equal counts: the ranks so far have `old` of the weight.
            let (old, share) = (rank as f64, 1.0 / (rank + 1) as f64);
            for c in 0..channels {
                let delta = of_rank[c] - all.mean[c];
                all.mean[c] += delta * share;
                let within = of_rank[channels + c] - all.variance[c];
                all.variance[c] += (within + delta * delta * old * share) * share;
            }
        }
        Ok(all)
    }
}

/// The two sums per channel over all ranks, added in their order.
fn sums_of_all(sums: &[Vec<f64>; 2], ranks: &dyn Communicator) -> Result<[Vec<f64>; 2]> {
    if ranks.size() == 1 {
        return Ok(sums.clone());
    }
    let own = sums.concat();
    let mut all = vec![0.0; own.len()];
    for of_rank in ranks.gathered(&own)?.chunks_exact(own.len()) {
        all.iter_mut().zip(of_rank).for_each(|(sum, of_rank)| *sum += of_rank);
    }
    let second = all.split_off(sums[0].len());
    Ok([all, second])
}

/// Adds the two sums per channel of all tiles (`channels` values each, one after the other) in order.
pub fn fold_sums(partial: &[f32], channels: usize) -> [Vec<f64>; 2] {
    let mut folded = [vec![0f64; channels], vec![0f64; channels]];
    for tile in partial.chunks_exact(2 * channels) {
        for (sum, part) in folded.iter_mut().zip(tile.chunks_exact(channels)) {
            for (s, &p) in sum.iter_mut().zip(part) {
                *s += f64::from(p);
            }
        }
    }
    folded
}

impl Affine {
    pub fn new(channels: usize) -> Affine {
        let zeros = vec![0f32; channels];
        Affine {
            mean: zeros.clone(),
            inverse_deviation: zeros.clone(),
            scale: zeros.clone(),
            shift: zeros.clone(),
            g: zeros.clone(),
            x: zeros.clone(),
            one: zeros,
        }
    }

    fn set(&mut self, norm: &Norm, parameters: &[f32], at: impl Fn(usize) -> (f64, f64)) {
        let gamma = &parameters[norm.gamma()];
        let beta = &parameters[norm.beta()];
        for c in 0..norm.channels {
            let (mean, variance) = at(c);
            let inverse = 1.0 / (variance + BATCH_NORM_EPSILON).sqrt();
            self.mean[c] = mean as f32;
            self.inverse_deviation[c] = inverse as f32;
            self.scale[c] = (f64::from(gamma[c]) * inverse) as f32;
            self.shift[c] = (f64::from(beta[c]) - mean * inverse * f64::from(gamma[c])) as f32;
        }
    }

    /// The coefficients of the last `set_backward`.
    pub fn coefficients(&self) -> Coefficients<'_> {
        Coefficients { g: &self.g, x: &self.x, one: &self.one }
    }

    /// For tangents, after `set_backward` with their sums.
    pub fn tangent(&self) -> TangentNorm<'_> {
        let (scale, shift) = (&self.scale, &self.shift);
        TangentNorm { scale, shift, coefficients: self.coefficients() }
    }

    /// Normalizes with the statistics of the batch.
    pub fn set_batch(&mut self, norm: &Norm, parameters: &[f32], batch: &BatchStatistics) {
        self.set(norm, parameters, |c| (batch.mean[c], batch.variance[c]));
    }

    /// Normalizes with the moving statistics.
    pub fn set_moving(&mut self, norm: &Norm, parameters: &[f32], moving: &[f32]) {
        let (mean, variance) = (&moving[norm.mean()], &moving[norm.variance()]);
        self.set(norm, parameters, |c| (f64::from(mean[c]), f64::from(variance[c])));
    }

    /// Backward coefficients from the sums over the batch of the gradient and of gradient * (x - mean). `own`
    /// and `count` are those of this rank. Adds its gradients of gamma and beta if wanted.
    #[allow(clippy::needless_range_loop)] // a channel indexes many vectors
    pub fn set_backward(
        &mut self,
        norm: &Norm,
        own: &[Vec<f64>; 2],
        count: usize,
        gradients: Option<&mut [f32]>,
        ranks: &dyn Communicator,
    ) -> Result<()> {
        let sums = sums_of_all(own, ranks)?;
        let n = (count * ranks.size()) as f64;
        for c in 0..norm.channels {
            let inverse = f64::from(self.inverse_deviation[c]);
            let scale = f64::from(self.scale[c]);
            // Sum of gradient * normalized x.
            let projected = sums[1][c] * inverse;
            self.g[c] = scale as f32;
            self.x[c] = (-scale * inverse * projected / n) as f32;
            self.one[c] =
                (scale * (inverse * projected * f64::from(self.mean[c]) - sums[0][c]) / n) as f32;
        }
        if let Some(gradients) = gradients {
            for c in 0..norm.channels {
                let inverse = f64::from(self.inverse_deviation[c]);
                gradients[norm.gamma()][c] += (own[1][c] * inverse) as f32;
                gradients[norm.beta()][c] += own[0][c] as f32;
            }
        }
        Ok(())
    }
}

/// moving <- keep * moving + (1 - keep) * batch; the variance is the unbiased one, as
/// TensorFlow's fused batch norm keeps it.
#[allow(clippy::needless_range_loop)] // a channel indexes many vectors
pub fn move_statistics(norm: &Norm, moving: &mut [f32], batch: &BatchStatistics, keep: f32) {
    let unbiased = batch.count as f64 / (batch.count as f64 - 1.0).max(1.0);
    for c in 0..norm.channels {
        let mean = &mut moving[norm.mean()][c];
        *mean = keep * *mean + (1.0 - keep) * batch.mean[c] as f32;
        let variance = &mut moving[norm.variance()][c];
        *variance = keep * *variance + (1.0 - keep) * (batch.variance[c] * unbiased) as f32;
    }
}
