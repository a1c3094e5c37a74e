//! FixMatch (arXiv 2001.07685; google-research/fixmatch, fixmatch.py): if the network is confident about a weak
//! view of an unlabelled image, it should predict the same class for a strong view of it.

use super::main_pass::{MainPass, Term};
use super::views::{Pipes, Views};
use crate::error::Result;
use crate::schema::metric;
use crate::settings::{Checked, Fault, Settings};
use candle_core::{D, Tensor};
use candle_nn::ops::{log_softmax, softmax};

pub fn check(s: &Settings) -> Checked {
    match s.unlabelled_batch {
        0 => Err(Fault::new("unlabelled_batch is 0", "fixmatch trains on unlabelled images")),
        _ => Ok(()),
    }
}

/// Of each unlabelled image a weak view, then a strong one.
pub fn pipes(s: &Settings) -> Pipes<'_> {
    Pipes {
        labelled: vec![&s.augment_labelled],
        unlabelled: vec![&s.augment_unlabelled, &s.augment_strong],
    }
}

pub fn check_views(_: &Settings, views: &Views) -> Checked {
    match views.unlabelled.count() {
        2 => Ok(()),
        _ => Err(Fault::new(
            "fixmatch compares one weak with one strong view",
            "let augment_unlabelled and augment_strong give one view each",
        )),
    }
}

pub fn term(pass: &MainPass) -> Result<Term> {
    let half = pass.batch.rows.unlabelled;
    let logits = pass.logits.narrow(0, 0, half.rows())?.reshape((half.images, half.views, ()))?;
    let view = |nth| logits.narrow(1, nth, 1)?.squeeze(1)?.contiguous();
    Ok(Term {
        name: metric::LOSS_FIXMATCH,
        weight: pass.settings.weight_fixmatch,
        value: consistency(&view(0)?, &view(1)?, pass.settings.fixmatch_threshold)?,
    })
}

/// Mean over images of -log softmax(strong)\[argmax weak\], or of 0 where max softmax(weak) < `threshold`.
/// Logits `[images, classes]`; no gradient flows into `weak`.
pub fn consistency(weak: &Tensor, strong: &Tensor, threshold: f64) -> Result<Tensor> {
    let weak = weak.detach();
    let sure = softmax(&weak, D::Minus1)?.max(D::Minus1)?.ge(threshold)?;
    let label = weak.argmax(D::Minus1)?.unsqueeze(1)?;
    let log_p = log_softmax(strong, D::Minus1)?.gather(&label, 1)?.squeeze(1)?;
    Ok((log_p * sure.to_dtype(strong.dtype())?)?.mean_all()?.neg()?)
}
