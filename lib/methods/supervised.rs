//! Cross-entropy with hard labels (reference supervised.py), and with soft labels for distillation.

use super::batch::Labels;
use super::main_pass::{MainPass, Record, Term, Value};
use crate::error::Result;
use crate::schema::metric;
use candle_core::{D, Device, Tensor};
use candle_nn::ops::log_softmax;

/// The term of every method. All views of a labelled image have its label, unless `upright_classes` is set.
/// With hard labels, `record` also gets the training accuracy.
pub fn term(pass: &MainPass, record: &mut Record) -> Result<Term> {
    let rows = &pass.batch.rows;
    let (logits, views) = pass.class_logits(rows.unlabelled.rows(), rows.labelled)?;
    let value = match &pass.batch.labels {
        Labels::Hard(labels) => {
            let labels: Vec<u32> =
                labels.iter().flat_map(|&l| std::iter::repeat_n(l, views)).collect();
            record.push(Value { name: metric::TRAIN_TOP1, value: accuracy(&logits, &labels)? });
            cross_entropy(&logits, &Tensor::new(labels, &Device::Cpu)?)?
        }
        Labels::Soft { probabilities, classes } => {
            let images = probabilities.chunks_exact(*classes);
            let targets: Vec<f32> = images.flat_map(|p| p.repeat(views)).collect();
            let targets = Tensor::from_vec(targets, logits.shape(), &Device::Cpu)?;
            soft_cross_entropy(&logits, &targets)?
        }
    };
    Ok(Term { name: metric::LOSS_SUPERVISED, weight: pass.settings.weight_supervised, value })
}

/// Mean over rows of -log softmax(logits)\[label\]. `logits` `[n, classes]`, `labels` `[n]` of u32.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let log_p = log_softmax(logits, D::Minus1)?;
    let picked = log_p.gather(&labels.unsqueeze(1)?, 1)?;
    Ok(picked.mean_all()?.neg()?)
}

/// Mean over rows of -sum_k q_k log softmax(logits)_k. `targets` q: `[n, classes]`, rows sum to 1.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let log_p = log_softmax(logits, D::Minus1)?;
    Ok((log_p * targets)?.sum(D::Minus1)?.mean_all()?.neg()?)
}

/// Share of rows whose largest logit is at the label.
fn accuracy(logits: &Tensor, labels: &[u32]) -> Result<f64> {
    let predicted = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let right = predicted.iter().zip(labels).filter(|(p, l)| p == l).count();
    Ok(right as f64 / labels.len() as f64)
}
