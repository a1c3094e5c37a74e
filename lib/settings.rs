//! Every key of a training recipe, in one table: type, default, range, meaning.

use crate::augment;
use crate::error::{Error, Result};
use crate::network::engine::Precision;
use crate::network::layout::Stem;
use crate::recipe::Keys;
use crate::schema;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

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
    /// Confident predictions for weak views as labels of strong views.
    Fixmatch,
    /// Cross-entropy against the soft labels of a teacher.
    Distill,
}

/// A key of a recipe.
pub struct Setting {
    pub key: &'static str,
    /// In a sentence or two.
    pub meaning: &'static str,
    pub range: Range,
}

/// Which values a key may have, independent of other keys.
pub enum Range {
    /// Numbers: the range in words, after "give", and whether the numbers of a value lie in it.
    Numbers(&'static str, fn(&[f64]) -> bool),
    /// One of these names.
    Names(fn() -> Vec<String>),
    /// A pipe of image steps.
    Pipe,
    /// True or false.
    Either,
}

/// The struct of all settings, its defaults, and the table of keys.
macro_rules! settings {
    ($($(#[doc = $line:literal])+ $key:ident: $kind:ty = $default:expr, $range:expr;)+) => {
        /// Every key of a training recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $($(#[doc = $line])+ pub $key: $kind,)+
        }

        impl Default for Settings {
            fn default() -> Settings {
                Settings { $($key: $default,)+ }
            }
        }

        /// Every key of a training recipe, in order.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { key: stringify!($key), meaning: concat!($($line),+).trim_ascii(), range: $range },)+
        ];
    };
}

const FROM_0: Range = Range::Numbers("0 or more", |all| all.iter().all(|&n| is_from_0(n)));
const FROM_1: Range =
    Range::Numbers("1 or more", |all| !all.is_empty() && all.iter().all(|&n| n >= 1.0));
const ABOVE_0: Range =
    Range::Numbers("a number above 0", |all| all.iter().all(|&n| n > 0.0 && n.is_finite()));
const BELOW_1: Range =
    Range::Numbers("a number from 0 to below 1", |all| all.iter().all(|n| (0.0..1.0).contains(n)));
const SHRINKING: Range =
    Range::Numbers("a number above 0, up to 1", |all| all.iter().all(|&n| n > 0.0 && n <= 1.0));
const PROBABILITY: Range =
    Range::Numbers("a probability from 0 to 1", |all| all.iter().all(|n| (0.0..=1.0).contains(n)));
/// The bound is above any epoch in practice.
const SCHEDULE: Range = Range::Numbers("two or more ascending epochs from 0 to 1e9", |all| {
    let ascending = all.windows(2).all(|pair| pair[0] < pair[1]);
    all.len() >= 2 && ascending && all.iter().all(|epoch| (0.0..=1e9).contains(epoch))
});
const LABEL_COLUMNS: Range =
    Range::Names(|| [schema::LABEL, schema::LABEL_SINGLE].map(str::to_string).to_vec());

fn is_from_0(number: f64) -> bool {
    number >= 0.0 && number.is_finite()
}

fn names<E: ValueEnum>() -> Vec<String> {
    let names = E::value_variants().iter().filter_map(E::to_possible_value);
    names.map(|name| name.get_name().to_string()).collect()
}

settings! {
    /// Which losses are optimized.
    method: Method = Method::Supervised, Range::Names(names::<Method>);

    /// Bottleneck units in each block: [3, 4, 6, 3] is ResNet-50.
    units: Vec<usize> = vec![3, 4, 6, 3], FROM_1;
    /// The base width is 16 times this factor: 4 is the standard ResNet, 16 is "4x wider".
    width_factor: usize = 4, FROM_1;
    /// First layers: imagenet for 224 x 224 pixels, small (stride 1) and small_stride2 for small images.
    stem: Stem = Stem::Imagenet, Range::Names(names::<Stem>);
    /// Dimensions of the exemplar embedding.
    embedding_dim: usize = 1000, FROM_1;
    /// Number format of stored and multiplied activations; bf16 halves their memory.
    precision: Precision = Precision::F32, Range::Names(names::<Precision>);

    /// Labelled images per step.
    batch: usize = 256, FROM_1;
    /// Unlabelled images per step, drawn from all images that are not held out.
    unlabelled_batch: usize = 0, FROM_0;
    /// Preparation and augmentation of labelled images.
    augment_labelled: String = "inception_crop|resize(224)|flip_lr|-1_to_1".into(), Range::Pipe;
    /// Preparation and augmentation of unlabelled images.
    augment_unlabelled: String = "inception_crop|resize(224)|flip_lr|-1_to_1".into(), Range::Pipe;
    /// Preparation and augmentation of the strong view of unlabelled images (`fixmatch`).
    augment_strong: String =
        "inception_crop|resize(224)|flip_lr|randaugment(2)|cutout(112)|-1_to_1".into(), Range::Pipe;
    /// Preparation of images for evaluation.
    augment_eval: String = "resize_small(256)|crop(224)|-1_to_1".into(), Range::Pipe;

    /// Learning rate between the warm-up and the first decay.
    learning_rate: f64 = 0.1, ABOVE_0;
    /// Batch that `learning_rate` is given for; it is scaled linearly to `batch`. 0: not scaled.
    learning_rate_batch: usize = 0, FROM_0;
    /// Momentum of the gradient, without Nesterov.
    momentum: f64 = 0.9, BELOW_1;
    /// Coefficient of sum(w^2)/2 over the kernels of convolutions and heads.
    weight_decay: f64 = 1e-3, FROM_0;
    /// In epochs of the labelled images: the end of the linear warm-up, each decay of the learning rate,
    /// the end of training.
    schedule: Vec<f64> = vec![5.0, 140.0, 160.0, 180.0, 200.0], SCHEDULE;
    /// Factor by which each decay multiplies the learning rate.
    decay_factor: f64 = 0.1, SHRINKING;
    /// Half-life of the Polyak average of the weights, in epochs; 0: no averaging.
    polyak_half_life: f64 = 0.0, FROM_0;
    /// Batches of training images from which the batch-norm statistics of the averaged weights are
    /// recomputed at the end; 0: keep the moving statistics of the raw weights, as the reference does.
    batch_norm_batches: usize = 0, FROM_0;
    /// Batch norms have the statistics of the images of all ranks, if several processes train together; false: each
    /// rank has those of its own images.
    sync_batch_norm: bool = true, Range::Either;

    /// Weight of the cross-entropy on labelled images.
    weight_supervised: f64 = 1.0, FROM_0;
    /// Weight of the rotation loss: the network predicts by how many quarter turns an image is rotated.
    weight_rotation: f64 = 0.0, FROM_0;
    /// Weight of the exemplar loss: the network recognizes patches of the same image.
    weight_exemplar: f64 = 0.0, FROM_0;
    /// Weight of virtual adversarial training.
    weight_vat: f64 = 0.0, FROM_0;
    /// Weight of entropy minimization.
    weight_entmin: f64 = 0.0, FROM_0;
    /// Epochs over which the weights of VAT and entropy minimization rise linearly from 0.
    ramp: f64 = 0.0, FROM_0;
    /// Norm of the adversarial perturbation of a 224 x 224 x 3 image in [-1, 1]; images of other
    /// sizes get the same root mean square per value.
    vat_eps: f64 = 40.0, ABOVE_0;
    /// Power iterations that search for the adversarial direction.
    vat_power_iterations: usize = 1, FROM_0;
    /// Apply VAT and entropy minimization to labelled images too (not in `moam`, as in the reference).
    vat_labelled: bool = true, Range::Either;

    /// Weight of FixMatch: the class predicted for a weak view is the label of a strong view of the same image.
    weight_fixmatch: f64 = 0.0, FROM_0;
    /// Predictions for weak views with a lower probability are no labels (`fixmatch`).
    fixmatch_threshold: f64 = 0.95, PROBABILITY;

    /// Class labels, VAT and entropy minimization use the upright view only, for images that have one right
    /// way up, like most photographs; false: all four rotations, as in the paper (`rotation`, `moam`).
    upright_classes: bool = false, Range::Either;

    /// Number of classes that the recipe was written for, so that `--dry-run` needs no data; 0: unknown.
    classes: usize = 0, FROM_0;
    /// Number of labelled images that the recipe was written for, for `--dry-run`.
    labelled_images: usize = 0, FROM_0;
    /// Number of all images that the recipe was written for, for `--dry-run`.
    unlabelled_images: usize = 0, FROM_0;

    /// Pseudo labels to train on: `label` (mean of all views) or `label_single` (centre view). Known
    /// labels are used in either case.
    label_column: String = "label".into(), LABEL_COLUMNS;
    /// Pseudo labels with a lower confidence are left out; 0: all are used. Known labels are always used.
    min_confidence: f64 = 0.0, PROBABILITY;
    /// Train on each class equally often: an epoch repeats the images of a smaller class until it has as
    /// many as the largest class. Not for distillation.
    balance_classes: bool = false, Range::Either;

    /// Steps between checkpoints.
    checkpoint_every: u64 = 5000, FROM_1;
    /// Steps between points of the learning curves; a point is the mean since the last point.
    log_every: u64 = 100, FROM_1;
    /// Epochs between validations on the images of `--val`.
    validate_every: f64 = 1.0, ABOVE_0;
}

/// What other programs call a setting, and what it is here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("arch", "units and width_factor"),
    ("batch_size", "batch"),
    ("balanced", "balance_classes"),
    ("bs", "batch"),
    ("class_weights", "balance_classes"),
    ("depth", "units"),
    ("device", "the option --device"),
    ("dtype", "precision"),
    ("ema", "polyak_half_life, in epochs"),
    ("ema_decay", "polyak_half_life, in epochs"),
    ("epochs", "schedule, whose last number is the epochs of training"),
    ("eps", "vat_eps"),
    ("gamma", "decay_factor"),
    ("image_size", "resize(N) in augment_labelled, augment_unlabelled and augment_eval"),
    ("img_size", "resize(N) in augment_labelled, augment_unlabelled and augment_eval"),
    ("init", "the option --init"),
    ("l2", "weight_decay"),
    ("lambda_u", "weight_fixmatch"),
    ("layers", "units"),
    ("lr", "learning_rate"),
    ("lr_decay", "decay_factor"),
    ("max_epochs", "schedule, whose last number is the epochs of training"),
    ("max_steps", "schedule, in epochs of the labelled images"),
    ("milestones", "schedule, between its first and its last number"),
    ("model", "units and width_factor"),
    ("mu", "unlabelled_batch, in images"),
    ("num_classes", "nothing: the data says so"),
    ("num_epochs", "schedule, whose last number is the epochs of training"),
    ("num_workers", "the option --threads"),
    ("seed", "the option --seed"),
    ("steps", "schedule, in epochs of the labelled images"),
    ("threads", "the option --threads"),
    ("threshold", "fixmatch_threshold, or min_confidence for pseudo labels"),
    ("uratio", "unlabelled_batch, in images"),
    ("warmup", "schedule, whose first number is the epochs of warm-up"),
    ("warmup_epochs", "schedule, whose first number is the epochs of warm-up"),
    ("wd", "weight_decay"),
    ("width", "width_factor"),
    ("workers", "the option --threads"),
];

impl Keys for Settings {
    const ELSEWHERE: &'static [(&'static str, &'static str)] = ELSEWHERE;
    const LISTED_BY: &'static str = "--settings";
}

impl Setting {
    /// The type of its values, of which this is one.
    pub fn kind(&self, value: &Value) -> &'static str {
        match value {
            Value::Boolean(_) => "boolean",
            Value::Integer(_) => "integer",
            Value::Float(_) => "number",
            Value::Array(all) if all.iter().all(Value::is_integer) => "list of integers",
            Value::Array(_) => "list of numbers",
            _ if matches!(self.range, Range::Names(_)) => "name",
            _ => "text",
        }
    }

    /// The range in words, behind "give".
    pub fn range(&self) -> String {
        match &self.range {
            Range::Numbers(words, _) => words.to_string(),
            Range::Names(names) => format!("one of {}", names().join(", ")),
            Range::Pipe => "steps joined by |".to_string(),
            Range::Either => "true or false".to_string(),
        }
    }

    /// Whether a value lies in the range. Pipes are parsed where they are used.
    fn holds(&self, value: &Value) -> bool {
        match &self.range {
            Range::Numbers(_, holds) => holds(&numbers(value)),
            Range::Names(names) => names().iter().any(|name| value.as_str() == Some(&name[..])),
            Range::Pipe | Range::Either => true,
        }
    }
}

/// All numbers of a value.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Integer(number) => vec![*number as f64],
        Value::Float(number) => vec![*number],
        Value::Array(all) => all.iter().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

impl Settings {
    /// As a recipe has them.
    pub fn table(&self) -> Result<Table> {
        Table::try_from(self).map_err(|e| Error::Internal(e.to_string()))
    }

    /// The first key whose value is out of its range, and what is wrong.
    pub fn out_of_range(&self) -> Result<Option<(&'static str, Fault)>> {
        let table = self.table()?;
        let outside = SETTINGS.iter().find(|setting| !setting.holds(&table[setting.key]));
        Ok(outside.map(|setting| {
            let what = format!("{} is {}", setting.key, table[setting.key]);
            (setting.key, Fault::new(what, format!("give {}", setting.range())))
        }))
    }
}

/// Every key with its meaning, type, range and default, as a recipe: what `--settings` prints.
pub fn listing() -> Result<String> {
    let defaults = Settings::default().table()?;
    let entry = |setting: &Setting| {
        let Setting { key, meaning, .. } = setting;
        let value = &defaults[*key];
        format!("# {meaning} ({}, {})\n{key} = {value}\n", setting.kind(value), setting.range())
    };
    let head =
        "# All keys of a recipe with their defaults; a recipe names those that it changes.\n\n";
    let entries: Vec<String> = SETTINGS.iter().map(entry).collect();
    let steps = format!("\n# Steps of images: {}.\n", augment::STEPS);
    Ok(format!("{head}{}{steps}", entries.join("\n")))
}

/// Settings that make no sense: what is wrong, and what to do about it.
#[derive(Debug)]
pub struct Fault {
    pub what: String,
    pub hint: String,
}

impl Fault {
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Fault {
        Fault { what: what.into(), hint: hint.into() }
    }
}

/// The result of a check of settings.
pub type Checked = std::result::Result<(), Fault>;

/// The name of a method as recipes spell it.
pub fn method_name(method: Method) -> String {
    serde_json::to_value(method)
        .ok()
        .and_then(|v| v.as_str().map(str::to_string))
        .unwrap_or_default()
}
