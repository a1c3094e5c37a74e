//! The learning rate of each step (reference trainer.py).

use crate::settings::Settings;

/// Learning rate per step: linear warm-up from 0, then constant, then decays.
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

    /// The learning rate after warm-up and before decay.
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
}
