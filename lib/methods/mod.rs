//! The methods of the table: which terms make the loss of a step, over which images.

pub mod entropy_minimization;
pub mod exemplar;
pub mod rotation;
pub mod supervised;
pub mod vat;

use crate::error::Result;
use crate::network::Network;
use crate::network::engine::{BATCH_NORM_MOMENTUM, Pass};
use crate::settings::{Method, Settings};
use candle_core::{D, Device, Tensor};
use entropy_minimization::entropy;
use exemplar::exemplar_loss;
use rotation::rotation_loss;
use supervised::{cross_entropy, soft_cross_entropy};

/// The images of one step, augmented: `[images * views, height, width, channels]`, an image's
/// views consecutive.
#[derive(Debug, Default)]
pub struct Batch {
    pub unlabelled: Vec<f32>,
    pub labelled: Vec<f32>,
    /// One of each labelled image.
    pub labels: Labels,
    /// Views of an image, the same for both parts.
    pub views: usize,
}

#[derive(Debug)]
pub enum Labels {
    Hard(Vec<u32>),
    /// Class probabilities of a teacher, row-major.
    Soft(Vec<f32>),
}

impl Default for Labels {
    fn default() -> Labels {
        Labels::Hard(Vec::new())
    }
}

/// Heads of the network that a method trains, with their outputs.
pub fn heads(method: Method, classes: usize, embedding: usize) -> Vec<(String, usize)> {
    let mut heads = vec![("classes".to_string(), classes)];
    match method {
        Method::Rotation | Method::Moam => {
            heads.push(("rotations".into(), rotation::ORIENTATIONS));
        }
        Method::Exemplar => heads.push(("embeddings".into(), embedding)),
        Method::Supervised | Method::Vat | Method::Distill => {}
    }
    heads
}

/// Position of a step in its run.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub seed: u64,
    pub step: u64,
    /// Factor of the weights of VAT and entropy minimization, 0 to 1.
    pub ramp: f64,
}

/// Named values of a step: the loss, its unweighted terms, the training accuracy.
pub type Record = Vec<(&'static str, f64)>;

/// Computes the loss of one step; the engine adds its gradient up.
///
/// Unlabelled and labelled images go through the network as one batch, in this order, and share
/// its batch statistics (reference semi_supervised/utils.py). VAT's perturbed passes have
/// statistics of their own and leave the moving ones alone.
pub fn step(network: &mut Network, settings: &Settings, batch: &Batch, at: At) -> Result<Record> {
    let s = settings;
    let mut images = [&batch.unlabelled[..], &batch.labelled[..]].concat();
    let labelled = match &batch.labels {
        Labels::Hard(l) => l.len() * batch.views,
        Labels::Soft(p) => p.len() / classes(network) * batch.views,
    };
    let rows = images.len() / network.image_values;
    let unlabelled = rows - labelled;
    // Rows of VAT and entropy minimization.
    let consistent = match s.method {
        Method::Vat if s.vat_labelled => rows,
        Method::Vat | Method::Moam => unlabelled,
        _ => 0,
    };
    let mut record = Record::new();
    let mut clean = None;
    let main_loss = |out: &crate::network::Outputs| -> Result<Tensor> {
        let logits = out.head("classes")?;
        let labelled_logits = logits.narrow(0, unlabelled, labelled)?;
        let class_term = match &batch.labels {
            Labels::Hard(labels) => {
                let repeated: Vec<u32> =
                    labels.iter().flat_map(|&l| std::iter::repeat_n(l, batch.views)).collect();
                record.push(("train/top1", accuracy(&labelled_logits, &repeated)?));
                let labels = Tensor::new(repeated, &Device::Cpu)?;
                cross_entropy(&labelled_logits, &labels)?
            }
            Labels::Soft(p) => {
                let shape = labelled_logits.dims2()?;
                let rows = p.chunks_exact(shape.1);
                let repeated: Vec<f32> = rows.flat_map(|row| row.repeat(batch.views)).collect();
                let targets = Tensor::from_vec(repeated, shape, &Device::Cpu)?;
                soft_cross_entropy(&labelled_logits, &targets)?
            }
        };
        let mut terms = vec![("loss/supervised", s.weight_supervised, class_term)];
        match s.method {
            Method::Rotation | Method::Moam => {
                let term = rotation_loss(&out.head("rotations")?, unlabelled)?;
                terms.push(("loss/rotation", s.weight_rotation, term));
            }
            Method::Exemplar => {
                let term = exemplar_loss(&out.head("embeddings")?, unlabelled, batch.views)?;
                terms.push(("loss/exemplar", s.weight_exemplar, term));
            }
            Method::Supervised | Method::Vat | Method::Distill => {}
        }
        if consistent > 0 {
            let logits = logits.narrow(0, 0, consistent)?;
            let term = entropy(&logits)?;
            terms.push(("loss/entmin", s.weight_entmin * at.ramp, term));
            clean = Some(logits.detach());
        }
        let mut total = (&terms[0].2 * terms[0].1)?;
        for (_, weight, term) in &terms[1..] {
            total = (total + (term * *weight)?)?;
        }
        for (name, _, term) in &terms {
            record.push((name, f64::from(term.to_scalar::<f32>()?)));
        }
        Ok(total)
    };
    network.engine.images(&mut images);
    let pass = Pass::Train { keep: BATCH_NORM_MOMENTUM };
    let mut loss = f64::from(network.differentiate(pass, main_loss)?);
    let weight = s.weight_vat * at.ramp;
    // A weight of 0, as at the start of a ramp, leaves nothing to differentiate.
    if let Some(clean) = clean.filter(|_| weight != 0.0) {
        let term = vat_term(network, s, &clean, at)?;
        record.push(("loss/vat", term));
        loss += weight * term;
    }
    record.push(("loss", loss));
    Ok(record)
}

/// The VAT loss on the images of the `clean` logits, unweighted; the engine adds its weighted gradient.
fn vat_term(network: &mut Network, s: &Settings, clean: &Tensor, at: At) -> Result<f64> {
    let radius = vat::radius(s.vat_eps, network.image_values);
    vat::perturb(network, clean, radius, s.vat_power_iterations, (at.seed, at.step))?;
    let mut term = 0.0;
    let weight = s.weight_vat * at.ramp;
    network.differentiate(Pass::Perturbed, |out| {
        let divergence = vat::divergence(&out.head("classes")?, clean)?;
        term = f64::from(divergence.to_scalar::<f32>()?);
        Ok((divergence * weight)?)
    })?;
    Ok(term)
}

fn classes(network: &Network) -> usize {
    network.layout.head("classes").map_or(1, |h| h.outputs)
}

/// Share of rows whose largest logit is that of the label.
fn accuracy(logits: &Tensor, labels: &[u32]) -> Result<f64> {
    let predicted = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let right = predicted.iter().zip(labels).filter(|(p, l)| p == l).count();
    Ok(right as f64 / labels.len() as f64)
}
