//! Virtual adversarial training (reference vat.py, vat_utils.py): the prediction should not change
//! in the direction in which it changes fastest.

use super::batch::Rows;
use super::entropy_minimization;
use super::main_pass::{At, MainPass, Term, Value};
use crate::error::Result;
use crate::network::Network;
use crate::network::engine::{Gradients, Pass};
use crate::rng::{Stream, rng};
use crate::schema::{head, metric};
use crate::settings::{Checked, Fault, Settings};
use candle_core::{D, DType, Tensor};
use candle_nn::ops::{log_softmax, softmax};
use rand_distr::{Distribution, StandardNormal};

/// Root mean square a value of the step of the power iteration. The reference's 1e-6 of norm lies
/// below float32 round-off. This is where the direction comes closest to that limit: smaller steps
/// drown in round-off, larger ones leave the linear range (tests/methods.rs).
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

/// For the methods without VAT.
pub fn check_off(s: &Settings) -> Checked {
    match s.weight_vat == 0.0 && s.weight_entmin == 0.0 {
        true => Ok(()),
        false => Err(Fault::new(
            format!("weight_vat and weight_entmin have no effect in {:?}", s.method),
            "set them to 0, or method to vat or moam",
        )),
    }
}

/// Rows of VAT and entropy minimization: so many of the first.
pub fn perturbed(s: &Settings, rows: &Rows) -> usize {
    match s.vat_labelled {
        true => rows.all(),
        false => rows.unlabelled.rows(),
    }
}

/// Terms of the main pass: entropy minimization. VAT's term has a pass of its own.
pub fn terms(pass: &MainPass) -> Result<Vec<Term>> {
    let rows = perturbed(pass.settings, &pass.batch.rows);
    Ok(vec![entropy_minimization::term(pass, rows)?])
}

/// The weight of VAT's term, which rises along the ramp.
pub fn weight(s: &Settings, at: At) -> f64 {
    s.weight_vat * at.ramp
}

/// VAT's unweighted term; adds its weighted gradients to `gradients`. `clean` are the logits
/// `[n, classes]` of the `images` in the main pass.
pub fn term(
    network: &mut Network,
    s: &Settings,
    images: &[f32],
    clean: &Tensor,
    at: At,
    gradients: &mut [f32],
) -> Result<Value> {
    let values = images.len() / clean.dim(0)?;
    let radius = radius(s.vat_eps, values);
    let iterations = s.vat_power_iterations;
    let key = (at.seed, at.step);
    let moved = perturb(network, images, values, clean, radius, iterations, key)?;
    let mut value = 0.0;
    network.differentiate(
        &moved,
        Pass::Perturbed,
        |outputs| {
            let divergence = divergence(&outputs.head(head::CLASSES)?, clean)?;
            value = f64::from(divergence.to_scalar::<f32>()?);
            Ok((divergence * weight(s, at))?)
        },
        Gradients { parameters: Some(gradients), images: None },
    )?;
    Ok(Value { name: metric::LOSS_VAT, value })
}

/// Norm of the perturbation of an image of `values` values: the root mean square a value of norm
/// `eps` on a 224 x 224 x 3 image.
pub fn radius(eps: f64, values: usize) -> f64 {
    eps * (values as f64 / REFERENCE_VALUES).sqrt()
}

/// Mean over rows of KL(p_adversarial || p_clean), in this direction as the reference has it. No
/// gradient flows into `clean`. Logits `[n, classes]`. Computed in float64: the terms of a sum, and
/// those of a small step's gradient, are far larger than the sum.
pub fn divergence(adversarial: &Tensor, clean: &Tensor) -> Result<Tensor> {
    let double = |logits: &Tensor| logits.to_dtype(DType::F64);
    let p = softmax(&double(adversarial)?, D::Minus1)?;
    let log_p = log_softmax(&double(adversarial)?, D::Minus1)?;
    let log_q = log_softmax(&double(&clean.detach())?, D::Minus1)?;
    let mean = (p * (log_p - log_q)?)?.sum(D::Minus1)?.mean_all()?;
    Ok(mean.to_dtype(adversarial.dtype())?)
}

/// The images, each moved by `radius` in its adversarial direction: one gradient of the divergence
/// an iteration, from a normal direction keyed by (seed, step, image). `images` is
/// `[n, values]`, `clean` the logits `[n, classes]` of the same images in the main pass.
pub fn perturb(
    network: &mut Network,
    images: &[f32],
    values: usize,
    clean: &Tensor,
    radius: f64,
    iterations: usize,
    (seed, step): (u64, u64),
) -> Result<Vec<f32>> {
    let mut direction = Vec::with_capacity(images.len());
    for image in 0..images.len() / values {
        let mut rng = rng(seed, Stream::VatDirection, step, image as u64);
        direction.extend((0..values).map(|_| -> f32 { StandardNormal.sample(&mut rng) }));
    }
    let xi = f64::from(XI) * (values as f64).sqrt();
    for _ in 0..iterations {
        let moved = along(images, &direction, values, xi);
        network.differentiate(
            &moved,
            Pass::Perturbed,
            |out| divergence(&out.head(head::CLASSES)?, clean),
            Gradients { parameters: None, images: Some(&mut direction) },
        )?;
    }
    Ok(along(images, &direction, values, radius))
}

/// images + length * direction / |direction|, image by image. An image without a direction (its
/// gradient is zero) stays where it is.
fn along(images: &[f32], direction: &[f32], values: usize, length: f64) -> Vec<f32> {
    let mut out = images.to_vec();
    for (x, d) in out.chunks_exact_mut(values).zip(direction.chunks_exact(values)) {
        // Scaled by the largest value first, so that tiny gradients do not underflow when squared.
        let largest = d.iter().fold(0f32, |m, v| m.max(v.abs()));
        if largest == 0.0 {
            continue;
        }
        let norm: f64 = d.iter().map(|&v| f64::from(v / largest).powi(2)).sum::<f64>().sqrt();
        let factor = length / norm;
        for (x, &d) in x.iter_mut().zip(d) {
            *x += (factor * f64::from(d / largest)) as f32;
        }
    }
    out
}
