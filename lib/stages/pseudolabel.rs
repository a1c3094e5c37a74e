//! `s4l-pseudolabel`: labels every image by a model's mean over many views.

use crate::artifact::{self, Lineage, Target};
use crate::augment::Pipe;
use crate::cli::{self, Computing, InputShards, Limits, Output, Stage, Words, quoted};
use crate::error::Result;
use crate::evaluate::{logits, metrics};
use crate::labelled::collapse;
use crate::labelled::rows::labelled_rows;
use crate::lock::Lock;
use crate::model::folder::Model;
use crate::network::device::Device;
use crate::recipe::{self, Recipe};
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::table::{self, fixed_lists};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, StringArray};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "\
EXAMPLES
  s4l-pseudolabel --in shards --out labels.parquet
  s4l-pseudolabel --in shards --model runs/model --labelled labelled.parquet --out labels.parquet
Settings (--recipe, --set):
  views   the views of an image whose logits are averaged; the first one is the centre view
          [default: 5 crops x 4 rotations, resize_small(S)|multi_crop(H,W)|-1_to_1|rotate]
A warning says so if a class has more than three times its share of the known labels (or of equal shares),
or more than halfway from its share to all, or none though five would be its share.
Memory: the model for 256 images, and 4 bytes x images x classes.";

/// Label all images with a model
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    shards: InputShards,
    /// Model that labels
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = schema::MODEL)]
    model: PathBuf,
    /// Keep the known labels of this file
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Split to label
    #[arg(long, value_name = "NAME", default_value = "train")]
    split: String,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    computing: Computing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    words: Words,
}

const TOOL: &str = "s4l-pseudolabel";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PseudolabelSettings {
    /// Empty: five crops times four rotations of an image resized to 256/224 of the model's size.
    views: String,
}

impl Stage for Args {
    fn words(&self) -> &Words {
        &self.words
    }

    fn limits(&self) -> Limits {
        self.computing.limits
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let out = self.output.out_or(schema::LABELS);
        let inputs = [Some(self.shards.path.as_path()), Some(&self.model)];
        let files = [self.labelled.as_deref(), self.recipe.file.as_deref()];
        artifact::refuse_inputs(&out, inputs.into_iter().chain(files))?;
        let labelling = self.open()?;
        if self.output.dry_run {
            return cli::print(&labelling.describe());
        }
        let _lock = Lock::of(&out, self.output.update)?;
        let found = table::output(&out, TOOL)?;
        if artifact::target(&self.output, &out, &labelling.lineage, found)? == Target::UpToDate {
            return Ok(());
        }
        let labels = labelling.labels()?;
        labelling.write(&out, &labels)?;
        artifact::write_provenance(&out, start);
        cli::info(&labelling.words(&out, &labels, start.elapsed()));
        if let Some(collapse) = labelling.collapse(&labels) {
            let out = out.display();
            cli::warn(&format!(
                "{out}: {collapse}; see s4l-report --audit {}",
                quoted(&out.to_string())
            ));
        }
        Ok(())
    }
}

/// What is labelled: a split, by the mean of a model over the views of each image.
struct Labelling {
    device: Device,
    model: Model,
    split: Split,
    settings: PseudolabelSettings,
    pipe: Pipe,
    /// Views of an image.
    views: usize,
    /// Row → label.
    known: HashMap<u32, u32>,
    lineage: Lineage,
}

impl Args {
    /// Opens and checks all inputs.
    fn open(&self) -> Result<Labelling> {
        let mut settings: PseudolabelSettings = self.recipe.load()?;
        let device: Device = self.computing.device.parse()?;
        let model = Model::open(&self.model)?;
        let shards = Shards::open(&self.shards.path)?;
        let split = shards.split(&self.split)?;
        model.check_classes(shards.classes(), &self.shards.path)?;
        if settings.views.is_empty() {
            settings.views = default_views(model.config.height, model.config.width);
        }
        let pipe = Pipe::for_evaluation(&settings.views)?;
        logits::check_size(&model.config, &split, &pipe)?;
        let views = pipe.output(split.channels())?.views;
        let seed = self.computing.seed.value;
        let mut lineage = Lineage::new(TOOL, seed, recipe::hash(&settings))
            .input(schema::input::SHARDS, split.content_hash())
            .input(schema::input::MODEL, model.hash.clone());
        let mut known = HashMap::new();
        if let Some(path) = &self.labelled {
            let table = table::read(path, "s4l-subset")?;
            let classes = shards.classes().len();
            let (rows, labels) = labelled_rows(&table, &split, classes, schema::LABEL)?;
            known.extend(rows.into_iter().zip(labels));
            lineage = lineage.input(schema::input::LABELLED, table.hash);
        }
        Ok(Labelling { device, model, split, settings, pipe, views, known, lineage })
    }
}

impl Labelling {
    fn describe(&self) -> String {
        format!(
            "images {}\nviews {} ({})\nforward passes {}\nknown labels {}\n",
            self.split.len(),
            self.views,
            self.settings.views,
            self.split.len() * self.views,
            self.known.len(),
        )
    }

    /// One of each row of the split.
    fn labels(&self) -> Result<Vec<PseudoLabel>> {
        let classes = self.model.config.classes.len();
        let rows: Vec<u32> = (0..self.split.len() as u32).collect();
        let mut network = self.model.network(self.device)?;
        let logits = logits::logits(&mut network, &self.split, &rows, &self.pipe, "labelling")?;
        let of_rows = logits.chunks_exact(self.views * classes).zip(&rows);
        Ok(of_rows
            .map(|(logits, row)| PseudoLabel::new(logits, classes, self.known.get(row).copied()))
            .collect())
    }

    fn write(&self, out: &Path, labels: &[PseudoLabel]) -> Result<()> {
        let classes = self.model.config.classes.len();
        let columns = columns(&self.split, labels, classes);
        table::write(out, schema::labels(classes), columns, &self.lineage, BTreeMap::new())
    }

    fn words(&self, out: &Path, labels: &[PseudoLabel], time: Duration) -> String {
        format!(
            "{}: {} labels ({} known), mean confidence {:.3}, {:.0} forward passes a second",
            out.display(),
            labels.len(),
            self.known.len(),
            labels.iter().map(|l| f64::from(l.confidence)).sum::<f64>() / labels.len() as f64,
            (labels.len() * self.views) as f64 / time.as_secs_f64(),
        )
    }

    /// Whether the labels that are not known collapse, in words.
    fn collapse(&self, labels: &[PseudoLabel]) -> Option<String> {
        let classes = &self.model.config.classes;
        let (mut pseudo, mut labelled) = (vec![0; classes.len()], vec![0; classes.len()]);
        for label in labels {
            let counts = if label.known { &mut labelled } else { &mut pseudo };
            counts[label.label as usize] += 1;
        }
        collapse::words(classes, &pseudo, &labelled)
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
struct PseudoLabel {
    label: u32,
    known: bool,
    single: u32,
    confidence: f32,
    entropy: f32,
    agreement: f32,
    probs: Vec<f32>,
}

impl PseudoLabel {
    /// From the logits `[views, classes]` of an image: logits, not probabilities, are averaged.
    fn new(logits: &[f32], classes: usize, known: Option<u32>) -> PseudoLabel {
        let views = logits.len() / classes;
        let mean = logits::mean_over_views(logits, views, classes);
        let probs = softmax(&mean);
        let label = known.unwrap_or_else(|| metrics::argmax(&mean));
        let agreeing = logits.chunks_exact(classes).filter(|view| metrics::argmax(view) == label);
        PseudoLabel {
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

/// The columns of `schema::labels`.
fn columns(split: &Split, labels: &[PseudoLabel], classes: usize) -> Vec<ArrayRef> {
    let ints = |f: fn(&PseudoLabel) -> u32| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(labels.iter().map(|l| i64::from(f(l)))))
    };
    let floats = |f: fn(&PseudoLabel) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(labels.iter().map(f)))
    };
    let probs = labels.iter().flat_map(|l| l.probs.iter().copied());
    vec![
        Arc::new(StringArray::from_iter_values(split.keys())),
        ints(|l| l.label),
        Arc::new(BooleanArray::from_iter(labels.iter().map(|l| Some(l.known)))),
        ints(|l| l.single),
        floats(|l| l.confidence),
        floats(|l| l.entropy),
        floats(|l| l.agreement),
        fixed_lists(probs, classes),
    ]
}
