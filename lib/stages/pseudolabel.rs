//! `s4l-pseudolabel`: labels every image by a model's mean over many views.

use crate::artifact::{self, Lineage, Target};
use crate::augment::{Mode, Pipe};
use crate::cli::{self, Common, Stage};
use crate::error::Result;
use crate::evaluate::{logits, metrics};
use crate::labelled::rows::labelled_rows;
use crate::model::folder::Model;
use crate::network::device::Device;
use crate::shards::Shards;
use crate::tables::table::{self, fixed_lists};
use crate::{recipe, schema};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, StringArray};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Label all images with a model
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-pseudolabel", version, before_help = EXAMPLES)]
pub struct Args {
    /// Shards, as s4l-shard makes them
    #[arg(long = "in", value_name = "SHARDS", default_value = "shards")]
    input: PathBuf,
    /// Model that labels
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = "model")]
    model: PathBuf,
    /// Keep the known labels of this file
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Split to label
    #[arg(long, value_name = "NAME", default_value = "train")]
    split: String,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
EXAMPLES
  s4l-pseudolabel --in shards --out labels.parquet
  s4l-pseudolabel --in shards --model runs/model --labelled labelled.parquet --out labels.parquet
Settings (--recipe, --set):
  views   the views of an image whose logits are averaged; the first one is the centre view
          [default: 5 crops x 4 rotations, resize_small(S)|multi_crop(H,W)|-1_to_1|rotate]
Memory: the model for 256 images, and 4 bytes x images x classes.";

/// Settings of the stage.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Empty: five crops times four rotations of an image resized to 256/224 of the model's size.
    views: String,
}

impl Stage for Args {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let mut settings: Settings = recipe::load(self.common.recipe.as_deref(), &self.common.set)?;
        let device: Device = self.common.device.parse()?;
        let model = Model::open(&self.model)?;
        let shards = Shards::open(&self.input)?;
        let split = shards.split(&self.split)?;
        model.check_classes(shards.classes(), &self.input)?;
        if settings.views.is_empty() {
            settings.views = default_views(model.config.height, model.config.width);
        }
        let pipe = Pipe::parse(&settings.views, Mode::Eval)?;
        logits::check_size(&model.config, &split, &pipe)?;
        let views = pipe.output(split.channels()?)?.views;
        let recipe = recipe::hash(&settings);
        let mut lineage = Lineage::new("s4l-pseudolabel", self.common.seed, recipe)
            .input("shards", split.content_hash())
            .input("model", model.hash.clone());
        let classes = shards.classes().len();
        let mut known = HashMap::new();
        if let Some(path) = &self.labelled {
            let table = table::read(path, "s4l-subset")?;
            let (rows, labels) = labelled_rows(&table, &split, classes, "label")?;
            known.extend(rows.into_iter().zip(labels));
            lineage = lineage.input("labelled", artifact::hash_file(path)?);
        }
        let out = self.common.out_or("labels.parquet");
        if self.common.dry_run {
            println!(
                "images {}\nviews {views} ({})\nforward passes {}\nknown labels {}",
                split.len(),
                settings.views,
                split.len() * views,
                known.len(),
            );
            return Ok(());
        }
        if artifact::target(&self.common, &out, &lineage, table::footer(&out))? == Target::UpToDate
        {
            return Ok(());
        }
        let rows: Vec<u32> = (0..split.len() as u32).collect();
        let mut network = model.config.network(device, model.weights)?;
        let logits = logits::logits(&mut network, &split, &rows, &pipe, "labelling")?;
        let labels: Vec<Label> = logits
            .chunks_exact(views * classes)
            .zip(&rows)
            .map(|(logits, row)| Label::new(logits, classes, known.get(row).copied()))
            .collect();
        let columns = columns(split.keys(), &labels, classes);
        table::write(&out, schema::labels(classes), columns, &lineage, BTreeMap::new())?;
        artifact::write_provenance(&out, &self.common, start)?;
        cli::info(&format!(
            "{}: {} labels ({} known), mean confidence {:.3}, {:.0} forward passes a second",
            out.display(),
            labels.len(),
            known.len(),
            labels.iter().map(|l| f64::from(l.confidence)).sum::<f64>() / labels.len() as f64,
            (labels.len() * views) as f64 / start.elapsed().as_secs_f64(),
        ));
        Ok(())
    }
}

/// Five crops times four rotations of an image whose smaller side is 256/224 of the model's
/// (reference pseudo_labeling/). A model of images that are not square gets no rotations.
fn default_views(height: usize, width: usize) -> String {
    let small = (height.min(width) * 256).div_ceil(224);
    let rotate = if height == width { "|rotate" } else { "" };
    format!("resize_small({small})|multi_crop({height},{width})|-1_to_1{rotate}")
}

/// One row of `labels.parquet`.
struct Label {
    label: u32,
    known: bool,
    single: u32,
    confidence: f32,
    entropy: f32,
    agreement: f32,
    probs: Vec<f32>,
}

impl Label {
    /// From the logits `[views, classes]` of an image: logits, not probabilities, are averaged.
    fn new(logits: &[f32], classes: usize, known: Option<u32>) -> Label {
        let views = logits.len() / classes;
        let mean = logits::mean_over_views(logits, views, classes);
        let probs = softmax(&mean);
        let label = known.unwrap_or_else(|| metrics::argmax(&mean));
        let agreeing = logits.chunks_exact(classes).filter(|view| metrics::argmax(view) == label);
        Label {
            label,
            known: known.is_some(),
            single: metrics::argmax(&logits[..classes]),
            confidence: probs.iter().copied().fold(0.0, f64::max) as f32,
            entropy: probs.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum::<f64>() as f32,
            agreement: agreeing.count() as f32 / views as f32,
            probs: probs.iter().map(|&p| p as f32).collect(),
        }
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = logits.iter().map(|l| f64::from(l - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

fn columns(keys: &[String], labels: &[Label], classes: usize) -> Vec<ArrayRef> {
    let ints = |f: fn(&Label) -> u32| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(labels.iter().map(|l| i64::from(f(l)))))
    };
    let floats = |f: fn(&Label) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(labels.iter().map(f)))
    };
    let probs = labels.iter().flat_map(|l| l.probs.iter().copied());
    vec![
        Arc::new(StringArray::from_iter_values(keys)),
        ints(|l| l.label),
        Arc::new(BooleanArray::from_iter(labels.iter().map(|l| Some(l.known)))),
        ints(|l| l.single),
        floats(|l| l.confidence),
        floats(|l| l.entropy),
        floats(|l| l.agreement),
        fixed_lists(probs, classes),
    ]
}
