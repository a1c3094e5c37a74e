//! Momentum SGD with L2 regularization, the learning-rate schedule, and Polyak averaging, over the
//! flat parameter vector (reference trainer.py).

use crate::settings::Settings;
use rayon::prelude::*;
use std::ops::Range;

/// Parameters that one task updates: its parts of the vectors stay in the cache.
const TASK: usize = 16 << 10;

/// v <- momentum * v + g + weight_decay * w; w <- w - learning_rate * v. Weight decay enters the
/// velocity and applies to the `decayed` ranges only, in ascending order: convolution and head
/// kernels. Leaves the gradients at 0 for the next step.
pub fn momentum_sgd(
    parameters: &mut [f32],
    velocity: &mut [f32],
    gradients: &mut [f32],
    decayed: &[Range<usize>],
    settings: &Settings,
    learning_rate: f64,
) {
    let weight_decay = settings.weight_decay as f32;
    let (momentum, rate) = (settings.momentum as f32, learning_rate as f32);
    parameters
        .par_chunks_mut(TASK)
        .zip(velocity.par_chunks_mut(TASK))
        .zip(gradients.par_chunks_mut(TASK))
        .enumerate()
        .for_each(|(i, ((w, v), g))| {
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

/// Learning rate by step: linear warm-up from 0, then constant, then decays.
#[derive(Debug, Clone)]
pub struct Schedule {
    base: f64,
    warm_up: f64,
    decays: Vec<f64>,
    decay_factor: f64,
    pub steps_per_epoch: u64,
    pub total_steps: u64,
}

impl Schedule {
    /// For `images` labelled images. An epoch has floor(images / batch) steps, at least one.
    pub fn new(settings: &Settings, images: usize) -> Schedule {
        let steps_per_epoch = (images / settings.batch).max(1) as u64;
        let at = |epochs: f64| epochs * steps_per_epoch as f64;
        let schedule = &settings.schedule;
        let (first, last) = (schedule[0], schedule[schedule.len() - 1]);
        let base = match settings.learning_rate_batch {
            0 => settings.learning_rate,
            b => settings.learning_rate * settings.batch as f64 / b as f64,
        };
        Schedule {
            base,
            warm_up: at(first),
            decays: schedule[1..schedule.len() - 1].iter().map(|&e| at(e)).collect(),
            decay_factor: settings.decay_factor,
            steps_per_epoch,
            total_steps: at(last).ceil() as u64,
        }
    }

    /// The learning rate behind warm-up and before decay.
    pub fn base(&self) -> f64 {
        self.base
    }

    pub fn learning_rate(&self, step: u64) -> f64 {
        let step = step as f64;
        if step < self.warm_up {
            return self.base * step / self.warm_up;
        }
        let decays = self.decays.iter().filter(|&&d| step > d).count();
        self.base * self.decay_factor.powi(decays as i32)
    }
}

/// average <- decay * average + (1 - decay) * parameters, with decay = 0.5^(1 / half_life).
/// `half_life` in steps.
pub fn polyak(average: &mut [f32], parameters: &[f32], half_life: f64) {
    let decay = 0.5f64.powf(1.0 / half_life);
    let (keep, take) = (decay as f32, (1.0 - decay) as f32);
    let tasks = average.par_chunks_mut(TASK).zip(parameters.par_chunks(TASK));
    tasks.for_each(|(average, parameters)| {
        for (a, &w) in average.iter_mut().zip(parameters) {
            *a = keep * *a + take * w;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(
        batch: usize,
        learning_rate_batch: usize,
        epochs: &[f64],
        images: usize,
    ) -> Schedule {
        let settings = Settings {
            batch,
            learning_rate: 0.2,
            learning_rate_batch,
            schedule: epochs.to_vec(),
            ..Settings::default()
        };
        Schedule::new(&settings, images)
    }

    #[test]
    fn moam_step_1_follows_the_reference() {
        let s = schedule(128, 256, &[10., 100., 150., 190., 200.], 128_000);
        assert_eq!((s.steps_per_epoch, s.total_steps), (1000, 200_000));
        let rate = |step| (s.learning_rate(step) * 1e9).round() / 1e9;
        assert_eq!(rate(0), 0.0);
        assert_eq!(rate(5_000), 0.05);
        assert_eq!(rate(10_000), 0.1);
        assert_eq!(rate(100_000), 0.1);
        assert_eq!(rate(100_001), 0.01);
        assert_eq!(rate(150_001), 0.001);
        assert_eq!(rate(199_999), 0.0001);
    }

    #[test]
    fn an_epoch_is_a_floor_and_the_end_a_ceiling() {
        let s = schedule(256, 0, &[0.5, 2.5], 1000);
        assert_eq!((s.steps_per_epoch, s.total_steps), (3, 8));
        assert_eq!(s.learning_rate(2), 0.2);
    }

    #[test]
    fn weights_halve_over_a_half_life() {
        let mut average = vec![1.0f32];
        for _ in 0..1000 {
            polyak(&mut average, &[0.0], 1000.0);
        }
        assert!((average[0] - 0.5).abs() < 1e-4, "{average:?}");
    }

    #[test]
    fn decay_enters_the_velocity_and_spares_other_parameters() {
        let settings = Settings { weight_decay: 0.1, ..Settings::default() };
        let (mut w, mut v) = (vec![1.0f32, 1.0], vec![1.0f32, 1.0]);
        momentum_sgd(
            &mut w,
            &mut v,
            &mut [0.5, 0.5],
            std::slice::from_ref(&(0..1)),
            &settings,
            0.01,
        );
        // v = 0.9 + 0.5 + 0.1 * 1; w = 1 - 0.01 v
        assert!((v[0] - 1.5).abs() < 1e-6 && (v[1] - 1.4).abs() < 1e-6);
        assert!((w[0] - 0.985).abs() < 1e-6 && (w[1] - 0.986).abs() < 1e-6);
    }
}
