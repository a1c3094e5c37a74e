//! S4L-Exemplar (reference exemplar.py): patches of one image lie closer to each other than to any
//! patch of another image. Batch-hard triplet loss with a soft margin of 0.

use crate::error::{Error, Result};
use candle_core::{D, Tensor};

/// Average of the losses of the unlabelled and the labelled part. `embeddings` `[unlabelled +
/// labelled, dimensions]`, unlabelled first; the `patches` of an image are consecutive.
pub fn exemplar_loss(embeddings: &Tensor, unlabelled: usize, patches: usize) -> Result<Tensor> {
    let rows = embeddings.dim(0)?;
    let part = |from: usize, to: usize| -> Result<Tensor> {
        batch_hard_soft_margin(&embeddings.narrow(0, from, to - from)?, patches)
    };
    if unlabelled == 0 || unlabelled == rows {
        return part(0, rows);
    }
    Ok(((part(0, unlabelled)? + part(unlabelled, rows)?)? * 0.5)?)
}

/// Mean over anchors of softplus(farthest patch of the same image - nearest patch of another),
/// Euclidean distances sqrt(max(d^2, 1e-12)) between vectors normalized to
/// e / sqrt(max(|e|^2, 1e-12)).
fn batch_hard_soft_margin(embeddings: &Tensor, patches: usize) -> Result<Tensor> {
    let rows = embeddings.dim(0)?;
    if rows <= patches {
        return Err(Error::Internal("the exemplar loss needs two images".into()));
    }
    let norm = embeddings.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-12)?.sqrt()?;
    let e = embeddings.broadcast_div(&norm)?;
    let squared = e.sqr()?.sum_keepdim(D::Minus1)?;
    let squared = squared.broadcast_add(&squared.t()?)?.sub(&(e.matmul(&e.t()?)? * 2.0)?)?;
    let distance = squared.maximum(1e-12)?.sqrt()?;
    let same: Vec<u8> =
        (0..rows * rows).map(|i| u8::from(i / rows / patches == i % rows / patches)).collect();
    let same = Tensor::from_vec(same, (rows, rows), e.device())?;
    // Distances of unit vectors are at most 2.
    let far = distance.ones_like()?.affine(4.0, 0.0)?;
    let positive = same.where_cond(&distance, &far.neg()?)?.max(D::Minus1)?;
    let negative = same.where_cond(&far, &distance)?.min(D::Minus1)?;
    softplus(&(positive - negative)?)?.mean_all().map_err(Into::into)
}

/// log(1 + e^x), without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let small = x.abs()?.neg()?.exp()?;
    Ok((x.relu()? + (small + 1.0)?.log()?)?)
}
