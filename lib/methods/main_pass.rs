//! The inputs of a loss's terms: the main pass of a step, in which all images of the batch go through the
//! network together.

use super::batch::{Batch, Half};
use crate::error::Result;
use crate::network::Outputs;
use crate::settings::Settings;
use candle_core::Tensor;

/// Position of a step in its run.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub seed: u64,
    pub step: u64,
    /// Factor of the weights of VAT and entropy minimization, 0 to 1.
    pub ramp: f64,
}

/// The main pass of a step.
pub struct MainPass<'a> {
    pub settings: &'a Settings,
    pub batch: &'a Batch,
    pub at: At,
    /// The other heads' outputs, `[rows, outputs]`.
    pub outputs: &'a Outputs,
    /// Output of the head `classes`, `[rows, classes]`.
    pub logits: Tensor,
}

impl MainPass<'_> {
    /// The class logits `[rows, classes]` of the rows with a class, in a half that begins at row `first`,
    /// and the number of rows per image.
    pub fn class_logits(&self, first: usize, half: Half) -> Result<(Tensor, usize)> {
        let logits = self.logits.narrow(0, first, half.rows())?;
        let rows = half.classes(self.settings);
        Ok((rows.pick(&logits)?, half.views / rows.every))
    }
}

/// One term of a loss.
pub struct Term {
    /// Name of its curve, `loss/...`.
    pub name: &'static str,
    pub weight: f64,
    /// A scalar, unweighted.
    pub value: Tensor,
}

/// A number measured in a step, under the name of its curve.
#[derive(Debug, Clone, Copy)]
pub struct Value {
    pub name: &'static str,
    pub value: f64,
}

/// The measurements of a step: the accuracy on hard labels, the unweighted terms, the loss.
pub type Record = Vec<Value>;
