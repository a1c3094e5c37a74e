//! `s4l-eval`: one pass of a model over a split whose labels are known.

use crate::artifact::{self, Lineage, Target};
use crate::augment::{Mode, Pipe};
use crate::cli::{self, Common, Stage};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::evaluate::metrics::{self, EvalSummary, summarize};
use crate::labelled::rows::labelled_rows;
use crate::model::folder::Model;
use crate::network::device::Device;
use crate::schema;
use crate::settings::method_name;
use crate::shards::Shards;
use crate::tables::table::{self, fixed_lists};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, StringArray};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Evaluate a model on labelled images
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-eval", version, before_help = EXAMPLES)]
pub struct Args {
    /// Shards, as s4l-shard makes them
    #[arg(long = "in", value_name = "SHARDS", default_value = "shards")]
    input: PathBuf,
    /// Split to evaluate on
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Evaluate on the images of this file (key, label) of the split only
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Model to evaluate
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = "model")]
    model: PathBuf,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
EXAMPLES
  s4l-eval --in shards --split test --model model --out eval.parquet
  s4l-eval --in shards --split train --labelled val.parquet --model model --out val-eval.parquet
Prints a JSON summary: top-1 with a 95% bootstrap interval, top-5, NLL, ECE, accuracy by class.
Memory: the model for 256 images, and 4 bytes x images x views x classes.";

impl Stage for Args {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let device: Device = self.common.device.parse()?;
        let model = Model::open(&self.model)?;
        let shards = Shards::open(&self.input)?;
        let split = shards.split(&self.split)?;
        let classes = shards.classes();
        model.check_classes(classes, &self.input)?;
        let settings =
            crate::recipe::load::<Pipes>(self.common.recipe.as_deref(), &self.common.set)?;
        let pipe = settings.augment_eval.unwrap_or(model.config.settings.augment_eval.clone());
        let mut lineage = Lineage::new("s4l-eval", self.common.seed, crate::recipe::hash(&pipe))
            .input("shards", split.content_hash())
            .input("model", model.hash.clone());
        let pipe = Pipe::parse(&pipe, Mode::Eval)?;
        logits::check_size(&model.config, &split, &pipe)?;
        let (rows, labels) = match &self.labelled {
            Some(path) => {
                let table = table::read(path, "s4l-subset")?;
                lineage = lineage.input("labelled", artifact::hash_file(path)?);
                labelled_rows(&table, &split, classes.len(), "label")?
            }
            None => all_rows(&split, &self.input)?,
        };
        let out = self.common.out_or("eval.parquet");
        if self.common.dry_run {
            println!("images {}\nviews {}", rows.len(), pipe.output(split.channels()?)?.views);
            return Ok(());
        }
        let found = table::footer(&out);
        if artifact::target(&self.common, &out, &lineage, found)? == Target::UpToDate {
            let footer = table::footer(&out).unwrap_or_default();
            println!("{}", footer.get("s4l.summary").map_or("", String::as_str));
            return Ok(());
        }
        let output = pipe.output(split.channels()?)?;
        let mut network = model.config.network(device, model.weights)?;
        let logits = logits::logits(&mut network, &split, &rows, &pipe, "evaluating")?;
        let c = classes.len();
        let first: Vec<f32> =
            logits.chunks_exact(output.views * c).flat_map(|l| &l[..c]).copied().collect();
        let config = &model.config;
        let summary = EvalSummary {
            row: row_name(&out),
            method: method_name(config.settings.method),
            seed: config.seed,
            split: self.split.clone(),
            unrotated: summarize(&first, classes, &labels, self.common.seed),
            rotation_averaged: output.rotated.then(|| {
                let mean = logits::mean_over_views(&logits, output.views, c);
                summarize(&mean, classes, &labels, self.common.seed)
            }),
        };
        let json = serde_json::to_string(&summary).map_err(|e| Error::Internal(e.to_string()))?;
        let keys = rows.iter().map(|&r| split.key(r as usize));
        table::write(
            &out,
            schema::eval(c),
            columns(keys, &labels, &first, c),
            &lineage,
            BTreeMap::from([("s4l.summary".to_string(), json.clone())]),
        )?;
        artifact::write_provenance(&out, &self.common, start)?;
        println!("{json}");
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
}

/// Settings of the stage.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Pipes {
    /// Absent: the model's own.
    augment_eval: Option<String>,
}

/// The name of the folder that the evaluation lies in: the row of the table.
fn row_name(out: &Path) -> String {
    std::path::absolute(out)
        .ok()
        .and_then(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

fn all_rows(split: &crate::shards::Split, path: &Path) -> Result<(Vec<u32>, Vec<u32>)> {
    let labels = split.labels()?.iter().enumerate().map(|(row, label)| {
        label.ok_or_else(|| {
            let key = split.key(row);
            let hint = "name a split with labels, or --labelled";
            Error::bad_data(path, "a label of every image", format!("none of {key:?}"), hint)
        })
    });
    Ok(((0..split.len() as u32).collect(), labels.collect::<Result<_>>()?))
}

fn columns<'a>(
    keys: impl Iterator<Item = &'a str>,
    labels: &[u32],
    logits: &[f32],
    classes: usize,
) -> Vec<ArrayRef> {
    let rows: Vec<metrics::Row> = logits
        .chunks_exact(classes)
        .zip(labels)
        .map(|(l, &label)| metrics::row(l, label))
        .collect();
    vec![
        Arc::new(StringArray::from_iter_values(keys)),
        Arc::new(Int64Array::from_iter_values(labels.iter().map(|&l| i64::from(l)))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| i64::from(r.prediction)))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.top5)))),
        Arc::new(Float32Array::from_iter_values(rows.iter().map(|r| r.nll as f32))),
        fixed_lists(logits.iter().copied(), classes),
    ]
}
