//! S4L-Rotation (reference rotation.py): predict by which multiple of 90 degrees an image is
//! turned, on labelled and unlabelled images alike.

use super::main_pass::{MainPass, Term};
use super::supervised::cross_entropy;
use super::views::Views;
use crate::error::Result;
use crate::schema::{head, metric};
use crate::settings::{Checked, Fault, Settings};
use candle_core::{Device, Tensor};

/// Orientations of each image, in this order in a batch: 0, 90, 180, 270 degrees counter-clockwise.
pub const ORIENTATIONS: usize = 4;

pub fn heads(_: &Settings) -> Vec<(String, usize)> {
    vec![(head::ROTATIONS.into(), ORIENTATIONS)]
}

/// Every image gives its four orientations.
pub fn check_views(s: &Settings, views: &Views) -> Checked {
    views.check_alike(s)?;
    let first = views.labelled.first();
    match first.rotated && first.views == ORIENTATIONS && views.labelled.count() == ORIENTATIONS {
        true => Ok(()),
        false => Err(Fault::new(
            "this method predicts rotations",
            "end augment_labelled and augment_unlabelled in |rotate",
        )),
    }
}

pub fn term(pass: &MainPass) -> Result<Term> {
    let logits = pass.outputs.head(head::ROTATIONS)?;
    Ok(Term {
        name: metric::LOSS_ROTATION,
        weight: pass.settings.weight_rotation,
        value: rotation_loss(&logits, pass.batch.rows.unlabelled.rows())?,
    })
}

/// Average of the unlabelled and the labelled mean cross-entropy of the orientation. `logits`
/// `[unlabelled + labelled, 4]`, unlabelled first; each image's four orientations are consecutive.
pub fn rotation_loss(logits: &Tensor, unlabelled: usize) -> Result<Tensor> {
    let rows = logits.dim(0)?;
    let part = |from: usize, to: usize| -> Result<Tensor> {
        let turns: Vec<u32> = (from..to).map(|i| (i % ORIENTATIONS) as u32).collect();
        let turns = Tensor::new(turns, &Device::Cpu)?;
        cross_entropy(&logits.narrow(0, from, to - from)?, &turns)
    };
    if unlabelled == 0 || unlabelled == rows {
        return part(0, rows);
    }
    Ok(((part(0, unlabelled)? + part(unlabelled, rows)?)? * 0.5)?)
}
