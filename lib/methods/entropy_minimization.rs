//! Entropy minimization: be sure of unlabelled images.

use crate::error::Result;
use candle_core::{D, Tensor};
use candle_nn::ops::{log_softmax, softmax};

/// Mean over rows of -sum_k p_k log p_k; the gradient flows through both factors. `logits`
/// `[n, classes]`.
pub fn entropy(logits: &Tensor) -> Result<Tensor> {
    let p = softmax(logits, D::Minus1)?;
    let log_p = log_softmax(logits, D::Minus1)?;
    Ok((p * log_p)?.sum(D::Minus1)?.mean_all()?.neg()?)
}
