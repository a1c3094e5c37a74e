//! The recipes of a plan, as text with comments.

use crate::error::{Error, Result};
use crate::network::layout::Stem;
use crate::settings::Settings;

/// A network and the images that it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Pixels of a side.
    pub side: usize,
    pub stem: Stem,
    pub units: &'static [usize],
    pub width_factor: usize,
}

/// What the recipes are for.
#[derive(Debug, Clone, Copy)]
pub struct Data {
    pub channels: usize,
    /// Whether all images are squares.
    pub squares: bool,
    pub classes: usize,
    /// Images to train on: those with a label, and all.
    pub labelled: usize,
    pub all: usize,
}

/// A recipe: its row of the table, and its text.
pub struct Recipe {
    pub row: &'static str,
    pub text: String,
}

impl Recipe {
    pub fn settings(&self) -> Result<Settings> {
        toml::from_str(&self.text).map_err(|e| Error::Internal(format!("{}: {e}", self.row)))
    }
}

/// As many steps as a trial on five classes of CIFAR-10 had (docs/RESULTS.md), and up to those that the rows
/// of the fashion pipeline have for 2,000 labelled images; of large sets, so many epochs.
fn worthwhile(data: &Data, batch: usize) -> [usize; 4] {
    let epochs = |n: usize, batch: usize| n * data.labelled / batch;
    let supervised = (2 * data.labelled).clamp(1200, 4000).max(epochs(20, batch));
    let step1 = (2 * data.labelled).clamp(600, 3000).max(epochs(20, STEP1_BATCH));
    let step2 = (6 * data.all / STEP2_BATCH).clamp(600, 4000).max(3 * data.all / STEP2_BATCH);
    [supervised, step1, step2, epochs(20, batch).clamp(20, 1000)]
}

/// Labelled images in a step of step 1, as many unlabelled ones beside them; and in a step of step 2.
const STEP1_BATCH: usize = 32;
const STEP2_BATCH: usize = 48;

/// The rows that get fewer steps if the time is short.
pub const SHORTENED: [&str; 2] = ["moam_step1", "moam_step2"];

/// The recipes of a network, with `share` of the worthwhile steps of steps 1 and 2.
pub fn all(shape: &Shape, data: &Data, share: f64) -> [Recipe; 4] {
    let batch = if data.labelled < 128 { 32 } else { 64 };
    let [supervised, step1, step2, step3] = worthwhile(data, batch);
    let [step1, step2] = [step1, step2].map(|steps| ((steps as f64 * share) as usize).max(1));
    let (labelled, every) = (data.labelled, data.all);
    let pipe = pipe(shape.side, data.squares);
    let of = |row, what: &str, body: String| Recipe { row, text: text(shape, what, &body) };
    [
        of(
            "supervised",
            &format!("Supervised on the labelled images alone: {labelled}, {supervised} steps."),
            [
                upright(&pipe, batch),
                rates(
                    0.1,
                    epochs(supervised, labelled, batch),
                    0.02,
                    "2 % of warm-up, three decays",
                ),
            ]
            .concat(),
        ),
        of(
            "moam_step1",
            &format!(
                "MOAM step 1: rotation, VAT and entropy minimization on all {every} images, from the \
                 supervised\n# model. {step1} steps."
            ),
            [
                rotated(&pipe, STEP1_BATCH),
                rates(0.1, epochs(step1, labelled, STEP1_BATCH), 0.02, "as supervised"),
                averages(60, labelled, STEP1_BATCH),
                losses(),
            ]
            .concat(),
        ),
        of(
            "moam_step2",
            &format!(
                "MOAM step 2: retraining with the pseudo labels of step 1 on all {every} images, from step 1.\n\
                 # {step2} steps. Without the losses of step 1, which cost here in a trial."
            ),
            retraining(&pipe, every, step2),
        ),
        of(
            "moam_step3",
            &format!(
                "MOAM step 3: fine-tuning on the labelled images, upright, from step 2. {step3} steps."
            ),
            [
                upright(&pipe, batch),
                rates(0.002, epochs(step3, labelled, batch), 0.0, "at a low rate: step 2 is kept"),
            ]
            .concat(),
        ),
    ]
}

fn retraining(pipe: &str, images: usize, steps: usize) -> String {
    [
        "label_column = \"label\" # the mean of 5 upright crops; known labels are kept\n",
        &upright(pipe, STEP2_BATCH),
        &rates(0.1, epochs(steps, images, STEP2_BATCH), 0.02, "in epochs of all images"),
        &averages(70, images, STEP2_BATCH),
    ]
    .concat()
}

/// Images a little larger than the network takes: it sees a random part, in evaluation the central one.
fn pipe(side: usize, squares: bool) -> String {
    let resized = (side * 9).div_ceil(8);
    match squares {
        true => format!("resize({resized})|crop({side})"),
        // The sides keep their ratio.
        false => format!("resize_small({resized})|crop({side})"),
    }
}

fn text(shape: &Shape, what: &str, body: &str) -> String {
    let Shape { stem, units, width_factor, .. } = shape;
    let stem = match stem {
        Stem::Imagenet => "imagenet",
        Stem::Small => "small",
        Stem::SmallStride2 => "small_stride2",
    };
    format!(
        "# {what}\n# Why this network, these sizes and so many steps: pipeline.mk.\n\n{}\n\
         units = {units:?}\nwidth_factor = {width_factor}\nstem = \"{stem}\"\n\ncheckpoint_every = 200\n\
         log_every = 50\n",
        body.trim_start()
    )
}

fn upright(pipe: &str, batch: usize) -> String {
    pipes("supervised", batch, 0, pipe, "")
}

/// Each image in four orientations, which the network predicts.
fn rotated(pipe: &str, batch: usize) -> String {
    pipes("moam", batch, batch, pipe, "|rotate")
}

fn pipes(method: &str, batch: usize, unlabelled: usize, pipe: &str, end: &str) -> String {
    let training = format!("{pipe}|flip_lr|-1_to_1{end}");
    let unlabelled = match unlabelled {
        0 => String::new(),
        n => format!("unlabelled_batch = {n}\naugment_unlabelled = \"{training}\"\n"),
    };
    format!(
        "method = \"{method}\"\n\nbatch = {batch}\n{unlabelled}\
         # Where left and right differ, as in text, take flip_lr out.\n\
         augment_labelled = \"{training}\"\naugment_eval = \"{pipe}|-1_to_1{end}\"\n\n"
    )
}

/// Of the labelled images.
fn epochs(steps: usize, images: usize, batch: usize) -> f64 {
    steps as f64 / (images / batch).max(1) as f64
}

/// A warm-up of a share of the epochs, and three decays.
fn rates(rate: f64, epochs: f64, warm_up: f64, why: &str) -> String {
    let ends = [warm_up, 0.7, 0.85, 0.95, 1.0].map(|share| format!("{:.4}", epochs * share));
    format!(
        "learning_rate = {rate}\nweight_decay = 1e-3 # few labels are learnt by heart with less\n\
         schedule = [{}] # labelled epochs: {why}\nvalidate_every = {:.4}\n",
        ends.join(", "),
        epochs / 10.0
    )
}

/// Of the weights, over so many steps.
fn averages(steps: usize, images: usize, batch: usize) -> String {
    let epochs = epochs(steps, images, batch);
    format!("polyak_half_life = {epochs:.4} # {steps} steps\nbatch_norm_batches = 50\n")
}

fn losses() -> String {
    "\n# As in the fashion pipeline, where they were chosen.\nweight_supervised = 1.0\n\
     weight_rotation = 0.1\nweight_vat = 0.1\nweight_entmin = 0.05\nvat_eps = 8\n\
     # Most photographs have one right way up: in a trial, labels on turned copies cost ten points.\n\
     upright_classes = true\n"
        .to_string()
}
