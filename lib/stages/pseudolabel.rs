//! `s4l-pseudolabel`: labels every image by a model's mean over many views.

use crate::artifact;
use crate::augment::{Mode, Pipe};
use crate::cli::{self, Computing, InputShards, Limits, Messages, Output, Stage, quoted};
use crate::error::Result;
use crate::evaluate::{logits, metrics};
use crate::labelled::collapse;
use crate::labelled::rows::labelled_rows;
use crate::lineage::Lineage;
use crate::model::config::Config;
use crate::model::folder::Model;
use crate::network::device::Device;
use crate::part::{self, Part};
use crate::recipe::{self, Keys, Recipe};
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::pieces::{Begun, Making, Parts, Pieces};
use crate::tables::table::{self, fixed_lists};
use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Float32Type, Int64Type, Schema};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-pseudolabel --in shards --out labels.parquet
  s4l-pseudolabel --in shards --model runs/model --labelled labelled.parquet --out labels.parquet
  s4l-pseudolabel --in shards --model runs/model --out labels.parquet --part 3/8
                                                    one of 8 jobs; then:
  s4l-pseudolabel --merge --out labels.parquet      joins the parts to the bytes of one run

A run that was stopped or killed continues after the last finished piece of 256 images.
Settings (--recipe, --set):
  views   the views of each image whose logits are averaged; the first one is the centre view
          [default: 5 crops, resize_small(S)|multi_crop(H,W)|-1_to_1; times 4 rotations, |rotate, if the
          model learnt its classes on rotated images]
Warns if a class gets more than three times its share (of the known labels, or an equal share without known
labels), or more than halfway from its share to all labels, or none although its share is five or more.
Memory: the model for 256 images, and at most 300 MB to join pieces; with --merge also the file of one part.";

/// Label all images with a model
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    shards: InputShards,
    /// Model to label with
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = schema::MODEL)]
    model: PathBuf,
    /// Keep the known labels of this file
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Split to label
    #[arg(long, value_name = "NAME", default_value = "train")]
    split: String,
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

const TOOL: &str = "s4l-pseudolabel";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PseudolabelSettings {
    /// Empty: five crops times four rotations of an image resized to 256/224 of the model's size.
    views: String,
}

impl Keys for PseudolabelSettings {}

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
        let out = self.output.out_or(schema::LABELS);
        match self.parts.merge {
            true => self.join(&out, start),
            false => self.label(&out, start),
        }
    }
}

/// The work: a split, and the model and views to label it with.
struct Labelling {
    device: Device,
    model: Model,
    split: Split,
    settings: PseudolabelSettings,
    pipe: Pipe,
    /// Views per image.
    views: usize,
    /// Row → label.
    known: HashMap<u32, u32>,
    lineage: Lineage,
}

impl Args {
    /// Labels all images, or a part of them.
    fn label(&self, out: &Path, start: Instant) -> Result<()> {
        let inputs = [Some(self.shards.path.as_path()), Some(&self.model)];
        let files = [self.labelled.as_deref(), self.recipe.file.as_deref()];
        artifact::refuse_inputs(out, inputs.into_iter().chain(files))?;
        let labelling = self.open()?;
        let making = labelling.making(out, self.parts.part);
        if self.output.dry_run {
            return cli::print(&labelling.describe(&making));
        }
        let Begun::Open(mut pieces) = making.begin(&self.output)? else {
            return Ok(());
        };
        let goal = pieces.goal().to_path_buf();
        let passes = labelling.make_missing(&mut pieces)?;
        let speed = passes as f64 / start.elapsed().as_secs_f64();
        let mut labels = Labels::default();
        pieces.each(|rows| labels.add(rows))?;
        pieces.commit(labelling.schema(), None, start)?;
        let words = labels.words();
        cli::info(&format!("{}: {words}, {speed:.0} forward passes a second", goal.display()));
        if self.parts.part.is_none() {
            labels.warn(&goal, &labelling.model.config.classes);
        }
        Ok(())
    }

    /// Joins the parts.
    fn join(&self, out: &Path, start: Instant) -> Result<()> {
        let Begun::Open(parts) = Parts::begin(out, TOOL, &self.output, start)? else {
            return Ok(());
        };
        let mut labels = Labels::default();
        parts.each(|rows| labels.add(rows))?;
        let schema = parts.schema.clone();
        parts.join(schema, None, start)?;
        cli::info(&format!("{}: {}", out.display(), labels.words()));
        // Numbers: the names of the classes are in the shards.
        let classes: Vec<String> = (0..labels.len).map(|class| class.to_string()).collect();
        labels.warn(out, &classes);
        Ok(())
    }

    /// Opens and checks all inputs.
    fn open(&self) -> Result<Labelling> {
        let mut settings: PseudolabelSettings = self.recipe.load()?;
        let device: Device = self.computing.device.parse()?;
        let model = Model::open(&self.model)?;
        let shards = Shards::open(&self.shards.path)?;
        let split = shards.split(&self.split)?;
        model.check_classes(shards.classes(), &self.shards.path)?;
        if settings.views.is_empty() {
            settings.views = default_views(&model.config)?;
        }
        let pipe = Pipe::for_evaluation(&settings.views)?;
        logits::check_size(&model.config, split.channels(), split.path(), &pipe)?;
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
    fn schema(&self) -> Arc<Schema> {
        schema::labels(self.model.config.classes.len())
    }

    /// The table of the split, or a part of the table.
    fn making(&self, out: &Path, part: Option<Part>) -> Making {
        Making::new(out, self.schema(), &self.lineage, self.split.len(), part)
    }

    fn describe(&self, making: &Making) -> String {
        format!(
            "images {}\nviews {} ({})\nforward passes {}\nknown labels {}\n",
            making.rows(),
            self.views,
            self.settings.views,
            making.rows() * self.views,
            self.known.len(),
        )
    }

    /// Labels the images of the missing pieces. Returns how many views went through the network.
    fn make_missing(&self, pieces: &mut Pieces) -> Result<usize> {
        let images = pieces.missing_rows();
        if images == 0 {
            return Ok(0);
        }
        let classes = self.model.config.classes.len();
        let mut network = self.model.network(self.device)?;
        let bar = cli::progress(images as u64, "labelling");
        pieces.make(|rows| {
            let rows: Vec<u32> = rows.map(|row| row as u32).collect();
            let mut labels = Vec::with_capacity(rows.len());
            logits::visit(&mut network, &self.split, &rows, &self.pipe, &bar, |rows, logits| {
                let of_rows = logits.chunks_exact(self.views * classes).zip(rows);
                labels.extend(of_rows.map(|(logits, row)| {
                    PseudoLabel::new(logits, classes, self.known.get(row).copied())
                }));
            })?;
            let keys = rows.iter().map(|&row| self.split.key(row as usize));
            Ok(columns(keys, &labels, classes))
        })?;
        bar.finish_and_clear();
        Ok(images * self.views)
    }
}

/// What the messages say about a table of labels.
#[derive(Default)]
struct Labels {
    images: usize,
    known: usize,
    /// Sum over the images.
    confidence: f64,
    /// Number of classes; counts of known and of pseudo labels per class.
    len: i32,
    classes: BTreeMap<i64, [u64; 2]>,
}

impl Labels {
    fn add(&mut self, rows: &RecordBatch) {
        self.images += rows.num_rows();
        let columns = [schema::KNOWN, schema::LABEL].map(|name| rows.column_by_name(name));
        if let [Some(known), Some(labels)] = columns {
            self.known += known.as_boolean().true_count();
            let labels = labels.as_primitive::<Int64Type>().values();
            for (is_known, &label) in known.as_boolean().values().iter().zip(labels) {
                self.classes.entry(label).or_default()[usize::from(!is_known)] += 1;
            }
        }
        if let Some(probs) = rows.column_by_name(schema::PROBS) {
            self.len = probs.as_fixed_size_list().value_length();
        }
        if let Some(confidence) = rows.column_by_name(schema::CONFIDENCE) {
            let confidence = confidence.as_primitive::<Float32Type>().values();
            self.confidence += confidence.iter().map(|&c| f64::from(c)).sum::<f64>();
        }
    }

    /// Warns if the pseudo labels collapse.
    fn warn(&self, out: &Path, classes: &[String]) {
        let counts = |which: usize| -> Vec<u64> {
            let of_class = |class| self.classes.get(&class).map_or(0, |counts| counts[which]);
            (0..classes.len() as i64).map(of_class).collect()
        };
        if let Some(collapse) = collapse::words(classes, &counts(1), &counts(0)) {
            let out = out.display().to_string();
            cli::warn(&format!("{out}: {collapse}; see s4l-report --audit {}", quoted(&out)));
        }
    }

    fn words(&self) -> String {
        let Labels { images, known, confidence, .. } = self;
        let mean = confidence / (*images).max(1) as f64;
        format!("{images} labels ({known} known), mean confidence {mean:.3}")
    }
}

/// Five crops of an image whose smaller side is 256/224 of the model's, times four rotations (reference
/// pseudo_labeling/) if the model learnt its classes on rotated images: on rotated images any other model
/// is wrong, and sure of it.
fn default_views(config: &Config) -> Result<String> {
    let Config { height, width, settings, architecture, .. } = config;
    let small = (height.min(width) * 256).div_ceil(224);
    let trained = Pipe::parse(&settings.augment_labelled, Mode::Train)?;
    let rotated = trained.output(architecture.channels)?.rotated && !settings.upright_classes;
    let rotate = if rotated { "|rotate" } else { "" };
    Ok(format!("resize_small({small})|multi_crop({height},{width})|-1_to_1{rotate}"))
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
    /// From the logits `[views, classes]` of an image. Logits are averaged, not probabilities.
    fn new(logits: &[f32], classes: usize, known: Option<u32>) -> PseudoLabel {
        let views = logits.len() / classes;
        let mean = logits::mean_over_views(logits, classes);
        let probs = metrics::softmax(&mean);
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

/// The columns of `schema::labels`.
fn columns<'a>(
    keys: impl Iterator<Item = &'a str>,
    labels: &[PseudoLabel],
    classes: usize,
) -> Vec<ArrayRef> {
    let ints = |f: fn(&PseudoLabel) -> u32| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(labels.iter().map(|l| i64::from(f(l)))))
    };
    let floats = |f: fn(&PseudoLabel) -> f32| -> ArrayRef {
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
        fixed_lists(probs.collect(), classes),
    ]
}
