//! MOAM, the mix of all models (reference rotation_vat.py): rotation, VAT and entropy minimization in one
//! loss.

use super::batch::{Rows, Stride};
use super::main_pass::{MainPass, Term};
use super::{entropy_minimization, rotation};
use crate::error::Result;
use crate::settings::{Checked, Fault, Settings};

pub fn check(s: &Settings) -> Checked {
    match s.unlabelled_batch {
        0 => Err(Fault::new("unlabelled_batch is 0", "moam trains on unlabelled images")),
        _ => Ok(()),
    }
}

/// Rows of VAT and entropy minimization: the unlabelled ones only, as in the reference.
pub fn perturbed(s: &Settings, rows: &Rows) -> Stride {
    rows.unlabelled.classes(s)
}

pub fn terms(pass: &MainPass) -> Result<Vec<Term>> {
    let (unlabelled, _) = pass.class_logits(0, pass.batch.rows.unlabelled)?;
    Ok(vec![rotation::term(pass)?, entropy_minimization::term(pass, &unlabelled)?])
}
