//! S4L-Rotation (reference rotation.py): predict by which multiple of 90 degrees an image is
//! turned, on labelled and unlabelled images alike.

use super::supervised::cross_entropy;
use crate::error::Result;
use candle_core::{Device, Tensor};

/// Orientations of each image, in this order in a batch: 0, 90, 180, 270 degrees counter-clockwise.
pub const ORIENTATIONS: usize = 4;

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
