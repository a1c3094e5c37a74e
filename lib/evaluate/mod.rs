//! Evaluation: logits of whole sets of images, and what is measured on them.

pub mod logits;
pub mod metrics;
