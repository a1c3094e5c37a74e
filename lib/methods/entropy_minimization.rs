//! Entropy minimization: confident predictions on unlabelled images.

use super::main_pass::{MainPass, Term};
use crate::error::Result;
use crate::schema::metric;
use candle_core::{D, Tensor};
use candle_nn::ops::{log_softmax, softmax};

/// The term of these class logits; its weight rises along the ramp.
pub fn term(pass: &MainPass, logits: &Tensor) -> Result<Term> {
    Ok(Term {
        name: metric::LOSS_ENTMIN,
        weight: pass.settings.weight_entmin * pass.at.ramp,
        value: entropy(logits)?,
    })
}

/// Mean over rows of -sum_k p_k log p_k; the gradient flows through both factors. `logits`
/// `[n, classes]`.
pub fn entropy(logits: &Tensor) -> Result<Tensor> {
    let p = softmax(logits, D::Minus1)?;
    let log_p = log_softmax(logits, D::Minus1)?;
    Ok((p * log_p)?.sum(D::Minus1)?.mean_all()?.neg()?)
}
