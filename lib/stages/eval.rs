//! `s4l-eval`: one pass of a model over a split whose labels are known.

use crate::artifact::{self, Lineage, Target};
use crate::augment::Pipe;
use crate::cli::{self, Computing, InputShards, Limits, Output, Stage, Words};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::evaluate::metrics::{EvalSummary, Prediction, summarize};
use crate::labelled::rows::{labelled_rows, labels_hash};
use crate::lock::Lock;
use crate::model::folder::Model;
use crate::network::device::Device;
use crate::recipe::{self, Keys, Recipe};
use crate::schema;
use crate::settings::method_name;
use crate::shards::{Shards, Split};
use crate::tables::table::{self, fixed_lists};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, StringArray};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-eval --in shards --split test --model model --out eval.parquet
  s4l-eval --in shards --split train --labelled val.parquet --model model --out val-eval.parquet
Prints a JSON summary: top-1 with a 95% bootstrap interval, top-5, NLL, ECE, accuracy by class.
Memory: the model for 256 images, and 4 bytes x images x classes.";

/// Evaluate a model on labelled images
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    shards: InputShards,
    /// Split to evaluate on
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Evaluate on the images of this file (key, label) of the split only
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Model to evaluate
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = schema::MODEL)]
    model: PathBuf,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    computing: Computing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    words: Words,
}

const TOOL: &str = "s4l-eval";

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EvalSettings {
    /// Absent: the model's own.
    augment_eval: Option<String>,
}

impl Keys for EvalSettings {}

impl Stage for Args {
    fn words(&self) -> &Words {
        &self.words
    }

    fn limits(&self) -> Limits {
        self.computing.limits
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let out = self.output.out_or(schema::EVAL);
        let inputs = [Some(self.shards.path.as_path()), Some(&self.model)];
        let files = [self.labelled.as_deref(), self.recipe.file.as_deref()];
        artifact::refuse_inputs(&out, inputs.into_iter().chain(files))?;
        let evaluation = self.open()?;
        if self.output.dry_run {
            return cli::print(&evaluation.describe());
        }
        let _lock = Lock::of(&out, self.output.update)?;
        let found = table::output(&out, TOOL)?;
        let done = found.as_ref().and_then(|footer| footer.get(schema::SUMMARY_KEY).cloned());
        if artifact::target(&self.output, &out, &evaluation.lineage, found)? == Target::UpToDate {
            return cli::print(&format!("{}\n", done.unwrap_or_default()));
        }
        let results = evaluation.results().map_err(|e| match e {
            Error::Interrupted { .. } => Error::Interrupted { path: out.clone() },
            e => e,
        })?;
        let summary = evaluation.summarize(&results, row_name(&out), self.computing.seed.value);
        let json = serde_json::to_string(&summary).map_err(|e| Error::Internal(e.to_string()))?;
        evaluation.write(&out, results, &json)?;
        artifact::write_provenance(&out, start);
        cli::print(&format!("{json}\n"))?;
        cli::info(&words(&out, &summary));
        Ok(())
    }
}

/// What is evaluated: a model on some rows of a split.
struct Evaluation {
    device: Device,
    model: Model,
    split: Split,
    split_name: String,
    rows: Vec<u32>,
    /// Of each row.
    labels: Vec<u32>,
    pipe: Pipe,
    /// Views of an image, and whether they are its four rotations.
    views: usize,
    rotated: bool,
    lineage: Lineage,
}

/// What the model makes of the images.
#[derive(Default)]
struct Results {
    /// Logits `[rows, classes]` of the first view of each image.
    logits: Vec<f32>,
    /// Of the first view of each image.
    predictions: Vec<Prediction>,
    /// Of the mean over the four rotations of each image, if the views are these.
    averaged: Vec<Prediction>,
}

impl Args {
    /// Opens and checks all inputs.
    fn open(&self) -> Result<Evaluation> {
        let device: Device = self.computing.device.parse()?;
        let model = Model::open(&self.model)?;
        let shards = Shards::open(&self.shards.path)?;
        let split = shards.split(&self.split)?;
        model.check_classes(shards.classes(), &self.shards.path)?;
        let settings: EvalSettings = self.recipe.load()?;
        let own = &model.config.settings.augment_eval;
        let pipe = settings.augment_eval.unwrap_or_else(|| own.clone());
        let seed = self.computing.seed.value;
        let mut lineage = Lineage::new(TOOL, seed, recipe::hash(&pipe))
            .input(schema::input::SHARDS, split.content_hash())
            .input(schema::input::MODEL, model.hash.clone());
        let pipe = Pipe::for_evaluation(&pipe)?;
        logits::check_size(&model.config, split.channels(), split.path(), &pipe)?;
        let (rows, labels) = match &self.labelled {
            Some(path) => {
                let table = table::read(path, "s4l-subset")?;
                lineage = lineage.input(schema::input::LABELLED, table.hash.clone());
                labelled_rows(&table, &split, shards.classes().len(), schema::LABEL)?
            }
            None => {
                // Which the hash of the shards does not cover.
                lineage = lineage.input(schema::input::LABELS, labels_hash(&split)?);
                all_rows(&split, &self.shards.path)?
            }
        };
        let output = pipe.output(split.channels())?;
        Ok(Evaluation {
            device,
            model,
            split,
            split_name: self.split.clone(),
            rows,
            labels,
            pipe,
            views: output.views,
            rotated: output.rotated,
            lineage,
        })
    }
}

impl Evaluation {
    fn describe(&self) -> String {
        format!("images {}\nviews {}\n", self.rows.len(), self.views)
    }

    fn results(&self) -> Result<Results> {
        let mut network = self.model.network(self.device)?;
        let classes = self.model.config.classes.len();
        let (rows, mut labels) = (&self.rows, self.labels.iter());
        let mut results = Results::default();
        results.logits.reserve_exact(rows.len() * classes);
        let bar = cli::progress(rows.len() as u64, "evaluating");
        logits::visit(&mut network, &self.split, rows, &self.pipe, &bar, |_, logits| {
            for (views, &label) in logits.chunks_exact(self.views * classes).zip(&mut labels) {
                let first = &views[..classes];
                results.logits.extend_from_slice(first);
                results.predictions.push(Prediction::new(first, label));
                if self.rotated {
                    let mean = logits::mean_over_views(views, classes);
                    results.averaged.push(Prediction::new(&mean, label));
                }
            }
        })?;
        bar.finish_and_clear();
        Ok(results)
    }

    /// `seed` draws the bootstrap's resamples.
    fn summarize(&self, results: &Results, row: String, seed: u64) -> EvalSummary {
        let config = &self.model.config;
        let summarize = |predictions| summarize(predictions, &config.classes, &self.labels, seed);
        EvalSummary {
            row,
            method: method_name(config.settings.method),
            seed: config.seed,
            split: self.split_name.clone(),
            unrotated: summarize(&results.predictions),
            rotation_averaged: self.rotated.then(|| summarize(&results.averaged)),
        }
    }

    /// Writes `eval.parquet`, of the first view of each image.
    fn write(&self, out: &Path, results: Results, summary: &str) -> Result<()> {
        let classes = self.model.config.classes.len();
        let keys = self.rows.iter().map(|&row| self.split.key(row as usize));
        let columns = columns(keys, &self.labels, results, classes);
        let extra = BTreeMap::from([(schema::SUMMARY_KEY.to_string(), summary.to_string())]);
        table::write(out, schema::eval(classes), columns, &self.lineage, extra)
    }
}

/// All rows of a split, with their labels.
fn all_rows(split: &Split, path: &Path) -> Result<(Vec<u32>, Vec<u32>)> {
    let labels = split.labels()?.iter().enumerate().map(|(row, label)| {
        label.ok_or_else(|| {
            let key = split.key(row);
            let hint = "name a split with labels, or --labelled";
            Error::bad_data(path, "a label of every image", format!("none of {key:?}"), hint)
        })
    });
    Ok(((0..split.len() as u32).collect(), labels.collect::<Result<_>>()?))
}

/// The columns of `schema::eval`.
fn columns<'a>(
    keys: impl Iterator<Item = &'a str>,
    labels: &[u32],
    results: Results,
    classes: usize,
) -> Vec<ArrayRef> {
    let predictions = &results.predictions;
    vec![
        Arc::new(StringArray::from_iter_values(keys)),
        Arc::new(Int64Array::from_iter_values(labels.iter().map(|&l| i64::from(l)))),
        Arc::new(Int64Array::from_iter_values(predictions.iter().map(|p| i64::from(p.class)))),
        Arc::new(BooleanArray::from_iter(predictions.iter().map(|p| Some(p.top5)))),
        Arc::new(Float32Array::from_iter_values(predictions.iter().map(|p| p.nll as f32))),
        fixed_lists(results.logits, classes),
    ]
}

/// The name of the folder that the evaluation lies in: the row of the table.
fn row_name(out: &Path) -> String {
    std::path::absolute(out)
        .ok()
        .and_then(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

fn words(out: &Path, summary: &EvalSummary) -> String {
    let s = &summary.unrotated;
    format!(
        "{}: top-1 {:.2}% (95% interval {:.2} to {:.2}) on {} images",
        out.display(),
        100.0 * s.top1,
        100.0 * s.top1_low,
        100.0 * s.top1_high,
        s.images
    )
}
