//! Evaluation: logits of sets of images, and their metrics. No file is written here.

pub mod logits;
pub mod metrics;
pub mod pictures;
