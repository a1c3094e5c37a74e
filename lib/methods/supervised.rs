//! Cross-entropy with hard labels (reference supervised.py), and with soft ones for distillation.

use crate::error::Result;
use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

/// Mean over rows of -log softmax(logits)\[label\]. `logits` `[n, classes]`, `labels` `[n]` of u32.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let log_p = log_softmax(logits, D::Minus1)?;
    let picked = log_p.gather(&labels.unsqueeze(1)?, 1)?;
    Ok(picked.mean_all()?.neg()?)
}

/// Mean over rows of -sum_k q_k log softmax(logits)_k. `targets` q: `[n, classes]`, rows sum to 1.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_p = log_softmax(logits, D::Minus1)?;
    Ok((log_p * targets)?.sum(D::Minus1)?.mean_all()?.neg()?)
}
