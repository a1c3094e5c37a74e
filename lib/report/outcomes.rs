//! Outcomes over the rows of evaluations: which class was predicted for which, and how often predictions of
//! each confidence were correct.

use crate::error::{Error, Result};
use crate::evaluate::metrics::{CALIBRATION_BINS, Prediction, Summary, calibration_bin};
use crate::page::matrix::Counts;
use crate::schema;
use crate::tables::table::Table;

/// Images with a confidence in one range.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bin {
    pub images: u64,
    pub correct: u64,
    /// Sum over the images.
    pub confidence: f64,
}

/// Outcomes of one evaluation, or of several.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// By label and prediction.
    pub confusion: Counts,
    pub bins: [Bin; CALIBRATION_BINS],
}

impl Outcomes {
    /// Outcomes of the rows of an `eval.parquet`, and per row whether it is classified correctly.
    ///
    /// Errors: `BadData` if the rows do not fit the summary.
    pub fn read(table: &Table, summary: &Summary) -> Result<(Outcomes, Vec<bool>)> {
        let classes = summary.per_class.len();
        let bad = |expected: String, found: String| {
            Error::bad_data(&table.path, expected, found, "make it again with s4l-eval")
        };
        let class = |index: i64| match u32::try_from(index) {
            Ok(class) if (class as usize) < classes => Ok(class),
            _ => Err(bad(format!("classes below {classes}"), index.to_string())),
        };
        let (labels, predictions) = (table.ints(schema::LABEL)?, table.ints(schema::PREDICTION)?);
        let (logits, each) = table.float_lists(schema::LOGITS)?;
        if each != classes || labels.len() as u64 != summary.images {
            let of = |images: u64, classes: usize| {
                format!("logits of {images} images and {classes} classes")
            };
            return Err(bad(of(summary.images, classes), of(labels.len() as u64, each)));
        }
        let (mut outcomes, mut right) = (Outcomes::default(), Vec::with_capacity(labels.len()));
        for ((label, predicted), logits) in
            labels.into_iter().zip(predictions).zip(logits.chunks_exact(classes))
        {
            let (label, predicted) = (class(label)?, class(predicted)?);
            *outcomes.confusion.entry((label, predicted)).or_default() += 1;
            let confidence = Prediction::new(logits, label).confidence;
            let bin = &mut outcomes.bins[calibration_bin(confidence)];
            bin.images += 1;
            right.push(label == predicted);
            bin.correct += u64::from(label == predicted);
            bin.confidence += confidence;
        }
        Ok((outcomes, right))
    }

    pub fn add(&mut self, other: &Outcomes) {
        for (pair, images) in &other.confusion {
            *self.confusion.entry(*pair).or_default() += images;
        }
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.images += other.images;
            bin.correct += other.correct;
            bin.confidence += other.confidence;
        }
    }
}
