//! Evaluation: logits of whole sets of images, and what is measured on them. No file is written here.

pub mod logits;
pub mod metrics;
pub mod pictures;
