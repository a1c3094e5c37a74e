//! `s4l-eval`: one pass of a model over a split whose labels are known.

use crate::artifact;
use crate::augment::Pipe;
use crate::cli::{self, Computing, InputShards, Limits, Messages, Output, Stage};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::evaluate::metrics::{EvalSummary, Prediction, summarize};
use crate::labelled::rows::{labelled_rows, labels_hash};
use crate::lineage::Lineage;
use crate::model::folder::Model;
use crate::network::device::Device;
use crate::part;
use crate::recipe::{self, Keys, Recipe};
use crate::schema;
use crate::settings::method_name;
use crate::shards::{Shards, Split};
use crate::tables::pieces::{Begun, Making, Parts, Pieces};
use crate::tables::table::{self, Pairs, fixed_lists};
use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Float32Type, Int64Type};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-eval --in shards --split test --model model --out eval.parquet
  s4l-eval --in shards --split train --labelled val.parquet --model model --out val-eval.parquet
  s4l-eval --in shards --model model --out eval.parquet --part 3/8
                                                    one of 8 jobs; then:
  s4l-eval --merge --out eval.parquet               joins the parts to the bytes of one run
Prints a JSON summary: top-1 with a 95% bootstrap interval, top-5, NLL, ECE, accuracy per class. For a part there is
no summary. A run that was stopped or killed continues after the last finished piece of 256 images.
Memory: the model for 256 images, and at most 300 MB to join pieces; with --merge also the file of one part.";

/// Evaluate a model on labelled images
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    shards: InputShards,
    /// Split to evaluate on
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Evaluate only the images of the split that this file (key, label) lists
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Model to evaluate
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = schema::MODEL)]
    model: PathBuf,
    #[command(flatten)]
    parts: part::Options,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    computing: Computing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    messages: Messages,
}

const TOOL: &str = "s4l-eval";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EvalSettings {
    /// Absent: the setting of the model.
    augment_eval: Option<String>,
}

impl Keys for EvalSettings {}

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn limits(&self) -> Limits {
        self.computing.limits
    }

    fn is_part(&self) -> bool {
        self.parts.part.is_some()
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let out = self.output.out_or(schema::EVAL);
        match self.parts.merge {
            true => self.join(&out, start),
            false => self.evaluate(&out, start),
        }
    }
}

/// The work: a model, and the rows of a split to evaluate.
struct Evaluation {
    device: Device,
    model: Model,
    about: About,
    split: Split,
    rows: Vec<u32>,
    /// Per row.
    labels: Vec<u32>,
    pipe: Pipe,
    /// Views per image, and whether they are its four rotations, over which there is a mean.
    views: usize,
    rotated: bool,
    lineage: Lineage,
}

/// The part of the summary that does not come from the rows.
#[derive(Serialize, Deserialize)]
struct About {
    method: String,
    /// The seed of the model.
    seed: u64,
    split: String,
    classes: Vec<String>,
}

impl Args {
    /// Evaluates all images, or a part of them.
    fn evaluate(&self, out: &Path, start: Instant) -> Result<()> {
        let inputs = [Some(self.shards.path.as_path()), Some(&self.model)];
        let files = [self.labelled.as_deref(), self.recipe.file.as_deref()];
        artifact::refuse_inputs(out, inputs.into_iter().chain(files))?;
        let evaluation = self.open()?;
        let (classes, rows) = (evaluation.about.classes.len(), evaluation.rows.len());
        let columns = schema::eval_piece(classes, evaluation.rotated);
        let making = Making::new(out, columns.clone(), &evaluation.lineage, rows, self.parts.part);
        let images = making.rows();
        if self.output.dry_run {
            return cli::print(&format!("images {images}\nviews {}\n", evaluation.views));
        }
        let mut pieces = match making.begin(&self.output)? {
            Begun::UpToDate(footer) => return self.print_again(&footer),
            Begun::Open(pieces) => pieces,
        };
        evaluation.make_missing(&mut pieces)?;
        if self.parts.part.is_some() {
            let goal = pieces.goal().display().to_string();
            let about = json(&evaluation.about)?;
            pieces.commit(columns, Some((schema::ABOUT_KEY, about)), start)?;
            cli::info(&format!("{goal}: {images} of {rows} images"));
            return Ok(());
        }
        let mut results = Results::default();
        pieces.each(|rows| results.add(rows))?;
        let summary = results.summary(evaluation.about, row_name(out), evaluation.lineage.seed);
        let footer = (schema::SUMMARY_KEY, json(&summary)?);
        pieces.commit(schema::eval(classes), Some(footer), start)?;
        say(out, &summary)
    }

    /// Joins the parts.
    fn join(&self, out: &Path, start: Instant) -> Result<()> {
        let parts = match Parts::begin(out, TOOL, &self.output, start)? {
            Begun::UpToDate(footer) => return self.print_again(&footer),
            Begun::Open(parts) => parts,
        };
        let about: About = serde_json::from_str(&parts.about).map_err(|e| {
            let hint = "make its parts again with s4l-eval --part";
            Error::bad_data(out, "parts of an evaluation", e.to_string(), hint)
        })?;
        let mut results = Results::default();
        parts.each(|rows| results.add(rows))?;
        let columns = schema::eval(about.classes.len());
        let summary = results.summary(about, row_name(out), parts.lineage.seed);
        parts.join(columns, Some((schema::SUMMARY_KEY, json(&summary)?)), start)?;
        say(out, &summary)
    }

    /// Prints the summary of an existing evaluation. A part has none.
    fn print_again(&self, footer: &Pairs) -> Result<()> {
        match footer.get(schema::SUMMARY_KEY) {
            Some(summary) if self.parts.part.is_none() => cli::print(&format!("{summary}\n")),
            _ => Ok(()),
        }
    }

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
                // The hash of the shards does not cover the labels.
                lineage = lineage.input(schema::input::LABELS, labels_hash(&split)?);
                all_rows(&split, &self.shards.path)?
            }
        };
        let output = pipe.output(split.channels())?;
        let config = &model.config;
        // A model of upright classes knows no class of a rotated image.
        let rotated = output.rotated && !config.settings.upright_classes;
        Ok(Evaluation {
            device,
            about: About {
                method: method_name(config.settings.method),
                seed: config.seed,
                split: self.split.clone(),
                classes: config.classes.clone(),
            },
            model,
            split,
            rows,
            labels,
            pipe,
            views: output.views,
            rotated,
            lineage,
        })
    }
}

impl Evaluation {
    /// Evaluates the images of the missing pieces.
    fn make_missing(&self, pieces: &mut Pieces) -> Result<()> {
        let images = pieces.missing_rows();
        if images == 0 {
            return Ok(());
        }
        let mut network = self.model.network(self.device)?;
        let bar = cli::progress(images as u64, "evaluating");
        pieces.make(|piece| {
            let rows = &self.rows[piece.clone()];
            let mut logits = Vec::new();
            logits::visit(&mut network, &self.split, rows, &self.pipe, &bar, |_, of_rows| {
                logits.extend_from_slice(of_rows);
            })?;
            Ok(self.columns(piece, &logits))
        })?;
        bar.finish_and_clear();
        Ok(())
    }

    /// The columns of `schema::eval_piece`, from the logits `[rows, views, classes]` of some rows.
    /// Predictions are of the first view of each image.
    fn columns(&self, piece: Range<usize>, logits: &[f32]) -> Vec<ArrayRef> {
        let classes = self.about.classes.len();
        let (rows, labels) = (&self.rows[piece.clone()], &self.labels[piece]);
        let keys = rows.iter().map(|&row| self.split.key(row as usize));
        let of_rows = logits.chunks_exact(self.views * classes);
        let first: Vec<f32> =
            of_rows.clone().flat_map(|views| &views[..classes]).copied().collect();
        let pairs = first.chunks_exact(classes).zip(labels);
        let predictions: Vec<_> = pairs.map(|(logits, &l)| Prediction::new(logits, l)).collect();
        let p = predictions.iter();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(keys)),
            Arc::new(Int64Array::from_iter_values(labels.iter().map(|&l| i64::from(l)))),
            Arc::new(Int64Array::from_iter_values(p.clone().map(|p| i64::from(p.class)))),
            Arc::new(BooleanArray::from_iter(p.clone().map(|p| Some(p.top5)))),
            Arc::new(Float32Array::from_iter_values(p.map(|p| p.nll as f32))),
            fixed_lists(first, classes),
        ];
        if self.rotated {
            let means = of_rows.flat_map(|views| logits::mean_over_views(views, classes));
            columns.push(fixed_lists(means.collect(), classes));
        }
        columns
    }
}

/// The predictions of the model.
#[derive(Default)]
struct Results {
    labels: Vec<u32>,
    /// Of the first view of each image.
    predictions: Vec<Prediction>,
    /// Of the mean over the four rotations of each image, if these are the views.
    averaged: Vec<Prediction>,
}

impl Results {
    /// Adds a batch of rows of a piece or part.
    fn add(&mut self, rows: &RecordBatch) {
        let of = |column: &ArrayRef, labels: &[u32]| -> Vec<Prediction> {
            let lists = column.as_fixed_size_list().iter().flatten().zip(labels);
            let of_list = |(list, &label): (ArrayRef, _)| {
                Prediction::new(list.as_primitive::<Float32Type>().values(), label)
            };
            lists.map(of_list).collect()
        };
        let [labels, logits, averaged] = [schema::LABEL, schema::LOGITS, schema::AVERAGED_LOGITS]
            .map(|name| rows.column_by_name(name));
        let labels = labels.map_or(&[][..], |labels| labels.as_primitive::<Int64Type>().values());
        let labels: Vec<u32> = labels.iter().map(|&label| label as u32).collect();
        self.predictions.extend(logits.into_iter().flat_map(|logits| of(logits, &labels)));
        self.averaged.extend(averaged.into_iter().flat_map(|logits| of(logits, &labels)));
        self.labels.extend(labels);
    }

    /// `seed` is the seed of the bootstrap.
    fn summary(&self, about: About, row: String, seed: u64) -> EvalSummary {
        let About { method, split, classes, .. } = about;
        let summarize = |predictions| summarize(predictions, &classes, &self.labels, seed);
        let (unrotated, averaged) = (summarize(&self.predictions), &self.averaged);
        EvalSummary {
            row,
            method,
            seed: about.seed,
            split,
            unrotated,
            rotation_averaged: (!averaged.is_empty()).then(|| summarize(averaged)),
        }
    }
}

fn json(of: &impl Serialize) -> Result<String> {
    serde_json::to_string(of).map_err(|e| Error::Internal(e.to_string()))
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

/// The name of the folder of the evaluation: the name of the row in the table.
fn row_name(out: &Path) -> String {
    std::path::absolute(out)
        .ok()
        .and_then(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

/// Prints the result of an evaluation: as JSON on stdout, and for people on stderr.
fn say(out: &Path, summary: &EvalSummary) -> Result<()> {
    cli::print(&format!("{}\n", json(summary)?))?;
    let s = &summary.unrotated;
    cli::info(&format!(
        "{}: top-1 {:.2}% (95% interval {:.2} to {:.2}) on {} images",
        out.display(),
        100.0 * s.top1,
        100.0 * s.top1_low,
        100.0 * s.top1_high,
        s.images
    ));
    Ok(())
}
