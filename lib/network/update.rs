//! The optimizer: momentum SGD with L2 regularization, and Polyak averaging (reference trainer.py).

use super::weights::Weights;
use crate::tasks;
use rayon::prelude::*;
use std::ops::Range;

/// Parameters that one task updates: few enough that its parts of the vectors stay in the cache.
const TASK: usize = 16 << 10;

/// How a step changes the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    pub learning_rate: f64,
    pub momentum: f64,
    /// Coefficient of sum(w^2)/2 over the parameters under weight decay.
    pub weight_decay: f64,
    /// Half-life of the averaged parameters, in steps; 0: no averaging.
    pub half_life: f64,
}

/// Takes one step along the gradient and sets the gradient to 0. Weight decay applies only to the `decayed`
/// ranges, in ascending order: convolution and head kernels.
pub fn update(
    weights: &mut Weights,
    gradient: &mut [f32],
    decayed: &[Range<usize>],
    update: &Update,
) {
    momentum_sgd(weights, gradient, decayed, update);
    if update.half_life > 0.0 {
        polyak(&mut weights.average, &weights.parameters, update.half_life);
    }
}

/// v <- momentum * v + g + weight_decay * w; w <- w - learning_rate * v; g <- 0. The weight decay is part
/// of the velocity.
fn momentum_sgd(
    weights: &mut Weights,
    gradient: &mut [f32],
    decayed: &[Range<usize>],
    update: &Update,
) {
    let weight_decay = update.weight_decay as f32;
    let (momentum, rate) = (update.momentum as f32, update.learning_rate as f32);
    let parts = weights
        .parameters
        .par_chunks_mut(TASK)
        .zip(weights.velocity.par_chunks_mut(TASK))
        .zip(gradient.par_chunks_mut(TASK));
    tasks::each(parts.enumerate(), |(i, ((w, v), g))| {
        let start = i * TASK;
        let end = start + w.len();
        let first = decayed.partition_point(|r| r.end <= start);
        for r in decayed[first..].iter().take_while(|r| r.start < end) {
            let r = r.start.max(start) - start..r.end.min(end) - start;
            for (g, w) in g[r.clone()].iter_mut().zip(&w[r]) {
                *g += weight_decay * w;
            }
        }
        for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
            *v = momentum * *v + *g;
            *w -= rate * *v;
            *g = 0.0;
        }
    });
}

/// average <- decay * average + (1 - decay) * parameters, with decay = 0.5^(1 / half_life).
fn polyak(average: &mut [f32], parameters: &[f32], half_life: f64) {
    let decay = 0.5f64.powf(1.0 / half_life);
    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
    let parts = average.par_chunks_mut(TASK).zip(parameters.par_chunks(TASK));
    tasks::each(parts, |(average, parameters)| {
        for (a, &w) in average.iter_mut().zip(parameters) {
            *a = keep * *a + take * w;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Update =
        Update { learning_rate: 0.0, momentum: 0.9, weight_decay: 0.0, half_life: 0.0 };

    #[test]
    fn weights_halve_over_a_half_life() {
        let mut weights = Weights {
            parameters: vec![0.0],
            velocity: vec![0.0],
            average: vec![1.0],
            moving: Vec::new(),
        };
        for _ in 0..1000 {
            update(&mut weights, &mut [0.0], &[], &Update { half_life: 1000.0, ..STILL });
        }
        assert!((weights.average[0] - 0.5).abs() < 1e-4, "{weights:?}");
    }

    #[test]
    fn decay_enters_the_velocity_and_spares_other_parameters() {
        let mut weights =
            Weights { parameters: vec![1.0, 1.0], velocity: vec![1.0, 1.0], ..Weights::default() };
        let mut gradient = [0.5, 0.5];
        let by = Update { learning_rate: 0.01, weight_decay: 0.1, ..STILL };
        update(&mut weights, &mut gradient, std::slice::from_ref(&(0..1)), &by);
        // v = 0.9 + 0.5 + 0.1 * 1; w = 1 - 0.01 v
        let (w, v) = (&weights.parameters, &weights.velocity);
        assert!((v[0] - 1.5).abs() < 1e-6 && (v[1] - 1.4).abs() < 1e-6);
        assert!((w[0] - 0.985).abs() < 1e-6 && (w[1] - 0.986).abs() < 1e-6);
        assert_eq!(gradient, [0.0, 0.0]);
    }
}
