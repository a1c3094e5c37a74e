//! Virtual adversarial training (reference vat.py, vat_utils.py): the prediction should not change
//! in the direction in which it changes fastest.

use super::batch::{Rows, Stride};
use super::entropy_minimization;
use super::main_pass::{At, MainPass, Term, Value};
use crate::error::Result;
use crate::network::Network;
use crate::network::engine::Pass;
use crate::ranks::Parts;
use crate::rng::{Stream, rng};
use crate::schema::{head, metric};
use crate::settings::{Checked, Fault, Settings};
use crate::tasks;
use candle_core::{D, DType, Tensor};
use candle_nn::ops::{log_softmax, softmax};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Norm of the step of the power iteration, as in the reference. The logits go this far along their tangent, in
/// float64.
const XI: f64 = 1e-6;
/// Values of the image for which `vat_eps` is given: 224 x 224 x 3.
const REFERENCE_VALUES: f64 = 150_528.0;

pub fn check(s: &Settings) -> Checked {
    match s.vat_labelled || s.unlabelled_batch > 0 {
        true => Ok(()),
        false => Err(Fault::new(
            "vat has no images: vat_labelled is false and unlabelled_batch is 0",
            "set one of them",
        )),
    }
}

/// Rows for VAT and entropy minimization.
pub fn perturbed(s: &Settings, rows: &Rows) -> Stride {
    let rows = match s.vat_labelled {
        true => rows.all(),
        false => rows.unlabelled.rows(),
    };
    Stride { rows, every: 1 }
}

/// Terms of the main pass: entropy minimization. VAT's term has a pass of its own.
pub fn terms(pass: &MainPass) -> Result<Vec<Term>> {
    let rows = perturbed(pass.settings, &pass.batch.rows);
    Ok(vec![entropy_minimization::term(pass, &rows.pick(&pass.logits)?)?])
}

/// The weight of VAT's term, which rises along the ramp.
pub fn weight(s: &Settings, at: At) -> f64 {
    s.weight_vat * at.ramp
}

/// The predictions that should not change.
pub struct Clean {
    /// `[n, classes]` of the images that are moved, in the main pass; `None`: with the batch statistics of only
    /// these images, as in the perturbed passes.
    pub logits: Option<Tensor>,
    /// From the first image of the step on, each `every`-th is moved.
    pub every: usize,
    /// How many in each half of the batch.
    pub parts: Parts,
}

impl Clean {
    /// For the rows that are moved. As in the reference, their logits in the main pass if all views of the
    /// unlabelled images are moved, although that normalizes with other images too. If only one view of each
    /// image is, these logits would give a large divergence without any move.
    pub fn new(pass: &MainPass, rows: Stride) -> Result<Clean> {
        let all = &pass.batch.rows;
        let in_main_pass = rows.every == 1 && rows.rows < all.all();
        let logits = in_main_pass.then(|| rows.pick(&pass.logits)).transpose()?;
        let logits = logits.map(|logits| logits.detach());
        Ok(Clean { logits, every: rows.every, parts: all.parts_of(rows) })
    }
}

/// VAT's unweighted term; the engine accumulates its weighted gradient.
pub fn term(network: &mut Network, s: &Settings, clean: Clean, at: At) -> Result<Value> {
    let radius = radius(s.vat_eps, network.image_values);
    let logits = perturb(network, &clean, radius, s.vat_power_iterations, (at.seed, at.step))?;
    let mut value = 0.0;
    network.differentiate(Pass::Perturbed, true, clean.parts, |outputs| {
        let divergence = divergence(&outputs.head(head::CLASSES)?, &logits)?;
        value = f64::from(divergence.to_scalar::<f32>()?);
        Ok((divergence * weight(s, at))?)
    })?;
    Ok(Value { name: metric::LOSS_VAT, value })
}

/// Norm of the perturbation for an image of `values` values: the same root mean square per value as norm
/// `eps` on a 224 x 224 x 3 image.
pub fn radius(eps: f64, values: usize) -> f64 {
    eps * (values as f64 / REFERENCE_VALUES).sqrt()
}

/// Mean over rows of KL(p_adversarial || p_clean), in this direction as in the reference. No gradient flows
/// into `clean`. Logits `[n, classes]`. Computed in float64, because the terms of the sum, and of the
/// gradient of a small step, are far larger than the sum.
pub fn divergence(adversarial: &Tensor, clean: &Tensor) -> Result<Tensor> {
    let double = |logits: &Tensor| logits.to_dtype(DType::F64);
    let p = softmax(&double(adversarial)?, D::Minus1)?;
    let log_p = log_softmax(&double(adversarial)?, D::Minus1)?;
    let log_q = log_softmax(&double(&clean.detach())?, D::Minus1)?;
    let mean = (p * (log_p - log_q)?)?.sum(D::Minus1)?.mean_all()?;
    Ok(mean.to_dtype(adversarial.dtype())?)
}

/// Moves each `every`-th image of the step by `radius` in its adversarial direction: one gradient of the
/// divergence per iteration, starting from a normal direction keyed by (seed, step, image). Returns the logits
/// that should not change.
pub fn perturb(
    network: &mut Network,
    clean: &Clean,
    radius: f64,
    iterations: usize,
    key: (u64, u64),
) -> Result<Tensor> {
    let images = network.ranks().share().rows(clean.parts).collect::<Vec<_>>();
    network.engine.direction(noise(&images, network.image_values, key), clean.every);
    network.engine.along(0.0);
    let mut logits = clean.logits.clone();
    for _ in 0..iterations {
        network.differentiate(Pass::Direction, false, clean.parts, |outputs| {
            let own = outputs.head(head::CLASSES)?;
            let clean = logits.get_or_insert_with(|| own.detach());
            let step = (outputs.tangent(head::CLASSES)?.to_dtype(DType::F64)? * XI)?;
            // A gradient of the order of 1.
            let divergence = divergence(&(own.to_dtype(DType::F64)? + step)?, clean)?;
            Ok((divergence / XI)?.to_dtype(DType::F32)?)
        })?;
    }
    let logits = match logits {
        Some(logits) => logits,
        None => network.forward(Pass::Perturbed, clean.parts)?.head(head::CLASSES)?.detach(),
    };
    network.engine.along(radius);
    Ok(logits)
}

/// A normal direction `[images, values]` of images by their place among the moved ones, made by all threads.
fn noise(images: &[usize], values: usize, (seed, step): (u64, u64)) -> Vec<f32> {
    let mut noise = vec![0f32; images.len() * values];
    tasks::each(noise.par_chunks_exact_mut(values).zip(images), |(noise, &image)| {
        let mut rng = rng(seed, Stream::VatDirection, step, image as u64);
        noise.fill_with(|| StandardNormal.sample(&mut rng));
    });
    noise
}
