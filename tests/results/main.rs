//! What is made of a model: pseudo labels, evaluations, predictions, reports, exports.

#[path = "../common/mod.rs"]
mod common;

mod audit;
mod eval;
mod export;
mod inspect;
mod pieces;
mod predict;
mod pseudolabel;
mod report;
