//! Every key of a training recipe.

use crate::network::engine::Precision;
use crate::network::layout::Stem;
use serde::{Deserialize, Serialize};

/// Which losses a training stage optimizes (methods of the paper's table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Method {
    Supervised,
    Rotation,
    Exemplar,
    /// VAT; with `weight_entmin` above 0 also entropy minimization.
    Vat,
    /// Rotation + VAT + entropy minimization (MOAM step 1).
    Moam,
    /// Cross-entropy against the soft labels of a teacher.
    Distill,
}

/// Every key of a training recipe. Epochs are epochs of the labelled set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub method: Method,

    /// Bottleneck units of each of the blocks: [3, 4, 6, 3] is ResNet-50.
    pub units: Vec<usize>,
    /// Base width is 16 times this: 4 is the standard ResNet, 16 is "4x wider".
    pub width_factor: usize,
    pub stem: Stem,
    /// Dimensions of the exemplar embedding.
    pub embedding_dim: usize,
    pub precision: Precision,

    /// Labelled images a step.
    pub batch: usize,
    /// Unlabelled images a step; drawn from all images that are not held out.
    pub unlabelled_batch: usize,
    /// Augmentation of labelled, unlabelled and evaluated images.
    pub augment_labelled: String,
    pub augment_unlabelled: String,
    pub augment_eval: String,

    pub learning_rate: f64,
    /// The learning rate is given for this batch and scaled linearly to `batch`; 0: not scaled.
    pub learning_rate_batch: usize,
    pub momentum: f64,
    /// Coefficient of sum(w^2)/2 over convolution and head kernels.
    pub weight_decay: f64,
    /// Epochs: end of the linear warm-up, the decays, the end of training.
    pub schedule: Vec<f64>,
    /// Factor of each decay.
    pub decay_factor: f64,
    /// Half-life in epochs of the averaged weights; 0: no averaging.
    pub polyak_half_life: f64,
    /// Batches of training images over which the batch-norm statistics of the averaged weights are
    /// recomputed at the end; 0: the moving statistics of the raw weights, as the reference does.
    pub batch_norm_batches: usize,

    pub weight_supervised: f64,
    pub weight_rotation: f64,
    pub weight_exemplar: f64,
    pub weight_vat: f64,
    pub weight_entmin: f64,
    /// Epochs over which the weights of VAT and entropy minimization rise linearly from 0.
    pub ramp: f64,
    /// Norm of the adversarial perturbation of a 224 x 224 x 3 image in [-1, 1]; images of other
    /// sizes get the same root mean square a value.
    pub vat_eps: f64,
    pub vat_power_iterations: usize,
    /// VAT and entropy minimization on labelled images too (not in `moam`, as in the reference).
    pub vat_labelled: bool,

    /// The data that the recipe was written for, so that `--dry-run` needs none: classes, labelled and
    /// all images; 0: not said. Training goes by the data.
    pub classes: usize,
    pub labelled_images: usize,
    pub unlabelled_images: usize,

    /// Pseudo labels: the column to train on, `label` (mean of all views) or `label_single` (centre
    /// view). Known labels are trained on in either case.
    pub label_column: String,
    /// Pseudo labels less confident than this are not trained on; 0: all are. Known ones always are.
    pub min_confidence: f64,

    /// Steps between checkpoints, records of the metrics; epochs between validations.
    pub checkpoint_every: u64,
    pub log_every: u64,
    pub validate_every: f64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            method: Method::Supervised,
            units: vec![3, 4, 6, 3],
            width_factor: 4,
            stem: Stem::Imagenet,
            embedding_dim: 1000,
            precision: Precision::F32,
            batch: 256,
            unlabelled_batch: 0,
            augment_labelled: "inception_crop|resize(224)|flip_lr|-1_to_1".into(),
            augment_unlabelled: "inception_crop|resize(224)|flip_lr|-1_to_1".into(),
            augment_eval: "resize_small(256)|crop(224)|-1_to_1".into(),
            learning_rate: 0.1,
            learning_rate_batch: 0,
            momentum: 0.9,
            weight_decay: 1e-3,
            schedule: vec![5.0, 140.0, 160.0, 180.0, 200.0],
            decay_factor: 0.1,
            polyak_half_life: 0.0,
            batch_norm_batches: 0,
            weight_supervised: 1.0,
            weight_rotation: 0.0,
            weight_exemplar: 0.0,
            weight_vat: 0.0,
            weight_entmin: 0.0,
            ramp: 0.0,
            vat_eps: 40.0,
            vat_power_iterations: 1,
            vat_labelled: true,
            classes: 0,
            labelled_images: 0,
            unlabelled_images: 0,
            label_column: "label".into(),
            min_confidence: 0.0,
            checkpoint_every: 5000,
            log_every: 100,
            validate_every: 1.0,
        }
    }
}

/// Settings that cannot be meant: what is wrong, and what to do about it.
#[derive(Debug)]
pub struct Fault {
    pub what: String,
    pub hint: &'static str,
}

impl Fault {
    pub fn new(what: impl Into<String>, hint: &'static str) -> Fault {
        Fault { what: what.into(), hint }
    }
}

/// What a check of settings comes to.
pub type Checked = std::result::Result<(), Fault>;

/// The name of a method as recipes spell it.
pub fn method_name(method: Method) -> String {
    serde_json::to_value(method)
        .ok()
        .and_then(|v| v.as_str().map(str::to_string))
        .unwrap_or_default()
}
