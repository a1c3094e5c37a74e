//! `s4l-shard`: images of any form → a shard folder.

use crate::artifact::{self, Lineage, Target, UNSEEDED};
use crate::cli::{self, Limits, Output, Stage, Words};
use crate::decode::encoded::Resized;
use crate::error::{Error, Result};
use crate::input::{self, Format, Input, Plan};
use crate::recipe::{self, Recipe};
use crate::schema;
use crate::shards::Shards;
use crate::shards::job::Job;
use crate::shards::staging::{self, Head, Staging};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-shard --in photos --out shards                photos/[{train,val,test}/]<class>/*.jpg
  s4l-shard --in photos --labels labels.csv         name,label; an empty label: unlabelled
  s4l-shard --in list.csv                           path,label; paths from the folder of the list
  s4l-shard --in ILSVRC2012_img_train.tar           one class an inner tar
  s4l-shard --in ILSVRC2012_img_val.tar --labels ILSVRC2012_validation_ground_truth.txt
                                                    meta.mat of the devkit beside it; split test
  s4l-shard --in webdataset                         *.tar with .jpg, .cls, .json
  s4l-shard --in tfrecords                          image/encoded, image/class/label from 1
  s4l-shard --in huggingface/data                   parquet with an image column
  s4l-shard --in pipelines/fashion/data             IDX, plain, .gz or .zst
  s4l-shard --in cifar-10-batches-bin               also CIFAR-100, STL-10
  s4l-shard --in big.tar --part 3/8                 one of 8 jobs; then:
  s4l-shard --merge --out shards                    the same bytes as one run

Images are JPEG, PNG or WebP and stay as they are, byte for byte; height and width are those after
the rotation that EXIF asks for. Files of many images belong to the split that their name has as a
word (train, val, validation, test; dev is test). A bad image is left out and listed with the reason
in rejects.parquet. A run that was stopped or killed goes on with the files that are missing.
Settings: file_bytes [536870912].
Memory: 45 MB for each of at most 5 files written at once (one more than half the threads), and 8 bytes
an image of the input for its key; the names too where --in is a folder or a list.";

/// Turn images into shards: parquet files that every stage maps into memory
#[derive(Debug, clap::Parser)]
#[command(
    name = "s4l-shard",
    version,
    before_help = EXAMPLES,
    after_help = "The format is found by content."
)]
pub struct Args {
    /// Folder or file of images
    #[arg(long = "in", value_name = "PATH", required_unless_present = "merge")]
    input: Option<PathBuf>,
    /// What --in is, where it is not found by itself
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Labels of images that have none by themselves: CSV, `name label`, or one label a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Class names in order, one a line
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Stop at the first bad image
    #[arg(long)]
    strict: bool,
    /// Share of bad images up to which the run goes on [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    allow_rejects: Option<f64>,
    /// Decode every image whole, to find damage that its structure does not show
    #[arg(long)]
    decode: bool,
    /// Make larger images smaller, to this many pixels on the smaller side, as JPEG
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=65535))]
    resize_small: Option<u32>,
    /// Quality of --resize-small's JPEG
    #[arg(long, default_value_t = 90, value_name = "1..100", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Make part I of N, from 1
    #[arg(long, value_name = "I/N", conflicts_with = "merge")]
    part: Option<Part>,
    /// Join the parts of --out
    #[arg(long, conflicts_with_all = OF_MAKING)]
    merge: bool,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    words: Words,
}

/// Options of making shards, which `--merge` would not obey.
const OF_MAKING: [&str; 11] = [
    "input",
    "format",
    "labels",
    "classes",
    "strict",
    "decode",
    "resize_small",
    "quality",
    "file",
    "set",
    "dry_run",
];

/// Share of bad images that is passed over.
const ALLOWED_REJECTS: f64 = 0.01;

#[derive(Debug, Clone, Copy)]
struct Part {
    part: usize,
    parts: usize,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Part, String> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) => Ok(Part { part, parts }),
            _ => Err("expected I/N with I from 1 to N, as 3/8".to_string()),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShardSettings {
    /// A file ends before the image that would bring it above this many bytes of image data, and after
    /// 65,536 images.
    pub file_bytes: u64,
}

impl Default for ShardSettings {
    fn default() -> ShardSettings {
        ShardSettings { file_bytes: 512 << 20 }
    }
}

impl Stage for Args {
    fn words(&self) -> &Words {
        &self.words
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let allowed = self.allow_rejects.unwrap_or(ALLOWED_REJECTS);
        if !(0.0..=1.0).contains(&allowed) {
            return Err(Error::Usage(format!("--allow-rejects {allowed}: a share is from 0 to 1")));
        }
        let out = self.output.out_or(schema::SHARDS);
        let done = match &self.input {
            Some(input) => self.shard(input, &out, allowed, start),
            None => self.join(&out, allowed, start),
        };
        done.map_err(|e| match e {
            // Wherever it was, to people it is the output that is not there.
            Error::Interrupted { .. } => Error::Interrupted { path: out },
            e => e,
        })
    }
}

impl Args {
    fn shard(&self, input: &Path, out: &Path, allowed: f64, start: Instant) -> Result<()> {
        let settings: ShardSettings = self.recipe.load()?;
        if settings.file_bytes == 0 {
            return Err(Error::Recipe {
                recipe: "file_bytes".to_string(),
                what: "0 bytes a file".to_string(),
                hint: "give at least 1".to_string(),
            });
        }
        let source =
            input::open(input, self.format, self.labels.as_deref(), self.classes.as_deref())?;
        artifact::refuse_overlap(input, out)?;
        let allow_cut = self.allow_rejects.is_some() && !self.strict;
        if self.output.dry_run {
            let plan = Plan::new(&source, settings.file_bytes, allow_cut)?;
            return cli::print(&describe(input, out, &source, &plan));
        }
        let resized = self.resize_small.map(|small| Resized { small, quality: self.quality });
        let recipe = recipe::hash(&(&settings, self.decode, resized));
        let (hash, plan) =
            rayon::join(|| source.hash(), || Plan::new(&source, settings.file_bytes, allow_cut));
        let lineage =
            Lineage::new("s4l-shard", UNSEEDED, recipe).input(schema::input::IMAGES, hash?);
        let (goal, found) = match self.part {
            Some(Part { part, parts }) => {
                let name = staging::part_name(out, (part, parts));
                let found = staging::lineage_of_part(&name);
                (name, found)
            }
            None => {
                refuse_foreign(out)?;
                (out.to_path_buf(), Shards::lineage(out))
            }
        };
        if artifact::target(&self.output, &goal, &lineage, found)? == Target::UpToDate {
            return Ok(());
        }

        let plan = plan?;
        let (part, parts) = self.part.map_or((1, 1), |p| (p.part, p.parts));
        let mut splits = std::collections::BTreeMap::new();
        for shard in &plan.shards {
            splits.insert(shard.split.name().to_string(), shard.files);
        }
        let head = Head {
            classes: plan.classes.clone(),
            shape: plan.shape,
            splits,
            items: plan.items(),
            lineage: lineage.metadata(),
            resized,
            part: (part, parts),
        };
        let folder = match self.part {
            Some(_) => staging::partial(&goal),
            None => staging::partial(out),
        };
        let staging = Staging::open(&folder, head)?;
        let of_part = |i: usize| i * plan.shards.len() / parts;
        let job = Job {
            input,
            source: &source,
            plan: &plan,
            shards: &plan.shards[of_part(part - 1)..of_part(part)],
            staging: &staging,
            lineage: &lineage,
            decode: self.decode,
            resized,
            allowed: if self.strict { 0.0 } else { allowed },
            rejects: AtomicU64::new(0),
            bar: cli::progress(plan.items(), "images"),
        };
        let done = job.run(self.limits.threads());
        job.bar.finish_and_clear();
        let total = job.shards.len();
        if let Err(e) = done {
            return Err(match (e, staging.leave()) {
                (Error::Interrupted { .. }, done @ 1..) => {
                    Error::Paused { path: goal, done, total }
                }
                (e, _) => e,
            });
        }
        if self.part.is_some() {
            staging.commit_part(out)?;
        } else {
            staging.commit(out, allowed, input)?;
        }
        artifact::write_provenance(&goal, start)?;
        cli::info(&format!("{}: {}", goal.display(), summary(&plan)));
        Ok(())
    }

    /// Joins the parts.
    fn join(&self, out: &Path, allowed: f64, start: Instant) -> Result<()> {
        refuse_foreign(out)?;
        let found = Shards::lineage(out);
        if !self.output.force && out.exists() {
            if found != staging::lineage_of_parts(out) {
                let path = out.to_path_buf();
                return Err(Error::Exists { path });
            }
            cli::info(&format!("{}: up to date", out.display()));
            return Ok(());
        }
        Staging::merge(out)?.commit(out, allowed, out)?;
        artifact::write_provenance(out, start)
    }
}

/// `--force` replaces shards, never a folder of something else.
fn refuse_foreign(out: &Path) -> Result<()> {
    if !out.exists() || out.join(schema::DATASET_JSON).is_file() {
        return Ok(());
    }
    Err(Error::NotOurs { path: out.to_path_buf(), what: "a shard folder".to_string() })
}

fn describe(input: &Path, out: &Path, source: &Input, plan: &Plan) -> String {
    format!(
        "in   {} ({})\nout  {} ({} files)\n     {}\n",
        input.display(),
        source.format(),
        out.display(),
        plan.shards.len(),
        summary(plan)
    )
}

fn summary(plan: &Plan) -> String {
    let splits = plan.splits().into_iter();
    let splits: Vec<_> = splits.map(|(split, n)| format!("{} {n}", split.name())).collect();
    let form = plan.shape.map_or("encoded".to_string(), |[h, w, c]| format!("{h}x{w}x{c}"));
    format!("{} images, {form}, {} classes", splits.join(" + "), plan.classes.len())
}
