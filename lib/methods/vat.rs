//! Virtual adversarial training (reference vat.py, vat_utils.py): the prediction should not change
//! in the direction in which it changes fastest.

use super::batch::{Rows, Stride};
use super::entropy_minimization;
use super::main_pass::{At, MainPass, Term, Value};
use crate::error::Result;
use crate::network::engine::Pass;
use crate::network::{Network, Outputs};
use crate::ranks::Parts;
use crate::rng::{Stream, rng};
use crate::schema::{head, metric};
use crate::settings::{Checked, Fault, Settings};
use crate::tasks;
use candle_core::{D, DType, Tensor};
use candle_nn::ops::{log_softmax, softmax};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Root mean square per value of the step of the power iteration. The reference's norm of 1e-6 is below
/// float32 round-off. With this step the direction is closest to the limit of small steps: smaller steps
/// are lost in round-off, larger ones leave the linear range (tests/training/methods.rs).
const XI: f32 = 1e-4;
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
    /// `[n, classes]` of the images that are moved, in the main pass.
    pub logits: Tensor,
    /// From the first image of the step on, each `every`-th is moved.
    pub every: usize,
    /// How many in each half of the batch.
    pub parts: Parts,
}

/// VAT's unweighted term; the engine accumulates its weighted gradient.
pub fn term(network: &mut Network, s: &Settings, mut clean: Clean, at: At) -> Result<Value> {
    let radius = radius(s.vat_eps, network.image_values);
    if clean.every > 1 {
        clean.logits = unmoved(network, &clean)?;
    }
    perturb(network, &clean, radius, s.vat_power_iterations, (at.seed, at.step))?;
    let mut value = 0.0;
    network.differentiate(Pass::Perturbed, true, clean.parts, |outputs| {
        let divergence = divergence(&outputs.head(head::CLASSES)?, &clean.logits)?;
        value = f64::from(divergence.to_scalar::<f32>()?);
        Ok((divergence * weight(s, at))?)
    })?;
    Ok(Value { name: metric::LOSS_VAT, value })
}

/// The logits `[n, classes]` of each `every`-th image with the batch statistics of only these images, as in
/// the perturbed passes. The main pass includes other views in its statistics, so its logits would give a
/// large divergence even without a perturbation.
fn unmoved(network: &mut Network, clean: &Clean) -> Result<Tensor> {
    let images = network.ranks().share().rows(clean.parts).count();
    network.engine.direction(vec![0.0; images * network.image_values], clean.every);
    network.engine.along(0.0);
    Ok(network.forward(Pass::Perturbed, clean.parts)?.head(head::CLASSES)?.detach())
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
/// divergence per iteration, starting from a normal direction keyed by (seed, step, image).
pub fn perturb(
    network: &mut Network,
    clean: &Clean,
    radius: f64,
    iterations: usize,
    key: (u64, u64),
) -> Result<()> {
    let values = network.image_values;
    let images = network.ranks().share().rows(clean.parts).collect::<Vec<_>>();
    network.engine.direction(noise(&images, values, key), clean.every);
    let xi = f64::from(XI) * (values as f64).sqrt();
    for _ in 0..iterations {
        network.engine.along(xi);
        let loss = |outputs: &Outputs| divergence(&outputs.head(head::CLASSES)?, &clean.logits);
        network.differentiate(Pass::Direction, false, clean.parts, loss)?;
    }
    network.engine.along(radius);
    Ok(())
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
