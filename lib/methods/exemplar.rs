//! S4L-Exemplar (reference exemplar.py): patches of one image should be closer to each other than to any
//! patch of another image. Batch-hard triplet loss with a soft margin of 0.

use super::main_pass::{MainPass, Term};
use super::views::Views;
use crate::error::{Error, Result};
use crate::schema::{head, metric};
use crate::settings::{Checked, Fault, Settings};
use candle_core::{D, Tensor};

pub fn heads(s: &Settings) -> Vec<(String, usize)> {
    vec![(head::EMBEDDINGS.into(), s.embedding_dim)]
}

pub fn check(s: &Settings) -> Checked {
    for (key, value) in [("batch", s.batch), ("unlabelled_batch", s.unlabelled_batch)] {
        if value == 1 {
            let hint = "the exemplar loss compares two images or more";
            return Err(Fault::new(format!("{key} is 1"), hint));
        }
    }
    Ok(())
}

/// Every image gives at least two patches.
pub fn check_views(s: &Settings, views: &Views) -> Checked {
    views.check_alike(s)?;
    match views.labelled.count() {
        0 | 1 => Err(Fault::new(
            "the exemplar loss needs several patches of an image",
            "begin augment_labelled with crop_inception_patches(n,size)",
        )),
        _ => Ok(()),
    }
}

pub fn term(pass: &MainPass) -> Result<Term> {
    let embeddings = pass.outputs.head(head::EMBEDDINGS)?;
    let rows = &pass.batch.rows;
    Ok(Term {
        name: metric::LOSS_EXEMPLAR,
        weight: pass.settings.weight_exemplar,
        value: exemplar_loss(&embeddings, rows.unlabelled.rows(), rows.labelled.views)?,
    })
}

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
