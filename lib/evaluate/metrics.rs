//! Figures of merit of a classifier over one split, and the summary that `eval.parquet` carries.
//!
//! All accuracies, intervals and errors are fractions in 0..1. Sums are in float64. Logits must be
//! finite: a network that has diverged has no accuracy to speak of, so the caller rejects it.

use crate::rng::{self, RngExt, Stream};
use serde::{Deserialize, Serialize};

pub const CALIBRATION_BINS: usize = 15;
/// Of each bootstrap.
pub const RESAMPLES: u64 = 1000;

/// What `eval.parquet` says about itself. The headline figure is `unrotated`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalSummary {
    /// Name of the run, a row of the report's table.
    pub row: String,
    pub method: String,
    /// Seed of the model.
    pub seed: u64,
    pub split: String,
    pub unrotated: Summary,
    /// Figures of the mean of the logits over four rotations, for models trained on rotations.
    pub rotation_averaged: Option<Summary>,
}

/// Figures over one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub images: u64,
    pub top1: f64,
    /// 95% percentile bootstrap interval of `top1` over images.
    pub top1_low: f64,
    pub top1_high: f64,
    pub top5: f64,
    /// Mean over the classes with images of their accuracies. 0 in evaluations of earlier versions:
    /// `balanced_accuracy` of `per_class` says it of all.
    #[serde(default)]
    pub balanced_accuracy: f64,
    /// Mean negative log likelihood (natural logarithm) of the true class.
    pub nll: f64,
    /// Expected calibration error: mean over images of |accuracy - confidence| of the image's bin,
    /// with 15 bins of equal width, each open below and closed above (arXiv 1706.04599, eq. 3).
    pub ece: f64,
    pub per_class: Vec<ClassAccuracy>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassAccuracy {
    pub name: String,
    pub images: u64,
    /// `None` for a class without images.
    pub top1: Option<f64>,
}

/// A classifier's prediction for one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The class with the largest logit; of equal ones the lowest index. `top1` counts these, so
    /// that it can be recomputed from the `prediction` column.
    pub class: u32,
    /// Softmax probability of `class`.
    pub confidence: f64,
    /// True if fewer than min(5, classes) logits are strictly larger than the true class's, which
    /// is how `tf.math.in_top_k` treats ties.
    pub top5: bool,
    pub nll: f64,
}

/// The class with the largest logit; of equal ones the lowest index.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (class, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = class;
        }
    }
    best as u32
}

/// The probabilities of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|l| f64::from(l - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

impl Prediction {
    /// From the logits of an image (one per class) and its true class.
    pub fn new(logits: &[f32], label: u32) -> Prediction {
        let target = logits[label as usize];
        let class = argmax(logits);
        let larger = logits.iter().filter(|&&l| l > target).count();
        let max = f64::from(logits[class as usize]);
        let sum: f64 = logits.iter().map(|&l| (f64::from(l) - max).exp()).sum();
        Prediction {
            class,
            confidence: 1.0 / sum,
            top5: larger < logits.len().min(5),
            nll: sum.ln() + max - f64::from(target),
        }
    }
}

/// Figures over a split, of what a classifier made of each image and its label, which indexes `classes`.
/// `seed` draws the bootstrap's resamples. At least one image is needed.
pub fn summarize(
    predictions: &[Prediction],
    classes: &[String],
    labels: &[u32],
    seed: u64,
) -> Summary {
    assert_eq!(predictions.len(), labels.len(), "one prediction per image");
    assert!(!labels.is_empty(), "an accuracy needs an image");
    let correct: Vec<bool> =
        predictions.iter().zip(labels).map(|(p, &label)| p.class == label).collect();
    let images = labels.len() as f64;
    let (top1_low, top1_high) = bootstrap(&correct, seed);
    let per_class = per_class(classes, labels, &correct);
    Summary {
        images: labels.len() as u64,
        top1: count(&correct) as f64 / images,
        top1_low,
        top1_high,
        top5: predictions.iter().filter(|p| p.top5).count() as f64 / images,
        nll: predictions.iter().map(|p| p.nll).sum::<f64>() / images,
        ece: calibration_error(predictions, &correct),
        balanced_accuracy: balanced_accuracy(&per_class),
        per_class,
    }
}

fn count(correct: &[bool]) -> usize {
    correct.iter().filter(|&&c| c).count()
}

/// The 25th and 975th of 1,000 accuracies, each over as many images drawn with replacement.
fn bootstrap(correct: &[bool], seed: u64) -> (f64, f64) {
    let images = correct.len();
    let mut hits: Vec<usize> = (0..RESAMPLES)
        .map(|resample| {
            let mut rng = rng::rng(seed, Stream::Bootstrap, 0, resample);
            (0..images).filter(|_| correct[rng.random_range(0..images as u32) as usize]).count()
        })
        .collect();
    hits.sort_unstable();
    let at = |rank: usize| hits[rank - 1] as f64 / images as f64;
    (at(25), at(975))
}

/// The bin of a confidence, from 0. Each is open below and closed above.
pub fn calibration_bin(confidence: f64) -> usize {
    let bin = (confidence * CALIBRATION_BINS as f64).ceil() as usize;
    bin.clamp(1, CALIBRATION_BINS) - 1
}

fn calibration_error(predictions: &[Prediction], correct: &[bool]) -> f64 {
    let mut gaps = [0f64; CALIBRATION_BINS];
    for (Prediction { confidence, .. }, &correct) in predictions.iter().zip(correct) {
        gaps[calibration_bin(*confidence)] += f64::from(u8::from(correct)) - confidence;
    }
    gaps.iter().map(|gap| gap.abs()).sum::<f64>() / predictions.len() as f64
}

/// Mean accuracy of the classes that have images: each counts alike, however many it has.
pub fn balanced_accuracy(per_class: &[ClassAccuracy]) -> f64 {
    let known: Vec<f64> = per_class.iter().filter_map(|class| class.top1).collect();
    known.iter().sum::<f64>() / known.len() as f64
}

fn per_class(classes: &[String], labels: &[u32], correct: &[bool]) -> Vec<ClassAccuracy> {
    let mut images = vec![0u64; classes.len()];
    let mut hits = vec![0u64; classes.len()];
    for (&label, &correct) in labels.iter().zip(correct) {
        images[label as usize] += 1;
        hits[label as usize] += u64::from(correct);
    }
    classes
        .iter()
        .zip(images.into_iter().zip(hits))
        .map(|(name, (images, hits))| ClassAccuracy {
            name: name.clone(),
            images,
            top1: (images > 0).then(|| hits as f64 / images as f64),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn a_row_by_hand() {
        // Logits ln 1, ln 2, ln 5: the softmax is 1/8, 2/8, 5/8.
        let r = Prediction::new(&[0.0, 2f32.ln(), 5f32.ln()], 1);
        assert_eq!(r.class, 2);
        assert!((r.confidence - 0.625).abs() < 1e-7);
        assert!((r.nll - 4f64.ln()).abs() < 1e-7);
    }

    #[test]
    fn ties_favour_the_lowest_class_and_the_target() {
        let level = [1.0; 7];
        assert_eq!(Prediction::new(&level, 6).class, 0);
        assert!(Prediction::new(&level, 6).top5);
        close(Prediction::new(&level, 6).nll, 7f64.ln());
        // Five are strictly larger than class 0.
        assert!(!Prediction::new(&[0.0, 1.0, 1.0, 1.0, 1.0, 1.0], 0).top5);
        assert!(Prediction::new(&[0.0, 0.0, 1.0, 1.0, 1.0, 1.0], 0).top5);
    }

    #[test]
    fn fewer_than_five_classes_are_always_in_the_top() {
        assert!(Prediction::new(&[3.0, 2.0, 1.0], 2).top5);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let r = Prediction::new(&[1e30, -1e30], 0);
        close(r.nll, 0.0);
        close(r.confidence, 1.0);
    }

    #[test]
    fn a_summary_by_hand() {
        // Softmax 3/4, 1/4 in each row; the first three rows are of class 0, the last of class 1,
        // and class 2 has no image. A logit of -1e9 is a probability of 0.
        let (three, never) = (3f32.ln(), -1e9);
        let logits =
            [[three, 0.0, never], [three, 0.0, never], [0.0, three, never], [three, 0.0, never]];
        let (classes, labels) = (["cat", "dog", "owl"].map(String::from), [0, 0, 0, 1]);
        let of_rows = logits.iter().zip(labels);
        let predictions: Vec<_> = of_rows.map(|(l, label)| Prediction::new(l, label)).collect();
        let s = summarize(&predictions, &classes, &labels, 7);
        assert_eq!(s.images, 4);
        close(s.top1, 0.5);
        close(s.top5, 1.0);
        // Classes of 2/3 and 0; the one without images does not count.
        close(s.balanced_accuracy, 1.0 / 3.0);
        // Two right (nll ln 4/3), two wrong (ln 4).
        assert!((s.nll - (4f64.ln() * 2.0 + (4f64 / 3.0).ln() * 2.0) / 4.0).abs() < 1e-7);
        // One bin: accuracy 1/2, confidence 3/4.
        assert!((s.ece - 0.25).abs() < 1e-7);
        let accuracy: Vec<_> = s.per_class.iter().map(|c| (c.images, c.top1)).collect();
        assert_eq!(accuracy, [(3, Some(2.0 / 3.0)), (1, Some(0.0)), (0, None)]);
    }

    #[test]
    fn the_bins_are_closed_above() {
        let at = |confidence| Prediction { class: 0, confidence, top5: true, nll: 0.0 };
        // 0.2 is the upper end of bin 3, 0.21 lies in bin 4: the gaps 0.8 and -0.21 do not cancel.
        close(calibration_error(&[at(0.2), at(0.21)], &[true, false]), (0.8 + 0.21) / 2.0);
        // Both in bin 4: they do.
        close(calibration_error(&[at(0.22), at(0.21)], &[true, false]), (0.78 - 0.21) / 2.0);
    }

    #[test]
    fn the_interval_is_that_of_a_binomial_and_repeats() {
        let correct: Vec<bool> = (0..2000).map(|i| i % 5 != 0).collect();
        let (low, high) = bootstrap(&correct, 3);
        // 1.96 standard errors of p = 0.8, n = 2,000 are 0.0175.
        assert!((low - (0.8 - 0.0175)).abs() < 0.002, "{low}");
        assert!((high - (0.8 + 0.0175)).abs() < 0.002, "{high}");
        assert_eq!((low, high), bootstrap(&correct, 3));
        assert_eq!(bootstrap(&[true; 10], 0), (1.0, 1.0));
    }
}
