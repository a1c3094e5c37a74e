//! `s4l-shard`: images in any supported form → a shard folder.

use crate::artifact::{self, Target};
use crate::cli::{self, Limits, Messages, Output, Stage};
use crate::decode::encoded::Resized;
use crate::error::{Error, Result};
use crate::input::survey::Survey;
use crate::input::{self, Columns, Format, Input, Options};
use crate::lineage::{Lineage, UNSEEDED};
use crate::lock::Lock;
use crate::part::{self, Part};
use crate::recipe::{self, Keys, Recipe};
use crate::schema;
use crate::shards::Shards;
use crate::shards::identity::Identity;
use crate::shards::job::Job;
use crate::shards::parts;
use crate::shards::staging::{self, Staging};
use crate::shards::survey;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-shard --in photos --out shards                photos/[{train,val,test}/]<class>/*.jpg
  s4l-shard --in photos --labels labels.csv         name,label; empty or -1 means unlabelled
  s4l-shard --in photos --labels l.csv --label-column diagnosis
  s4l-shard --in list.csv                           path,label; paths relative to the list's folder
  s4l-shard --in ILSVRC2012_img_train.tar           one inner tar per class
  s4l-shard --in ILSVRC2012_img_val.tar --labels ILSVRC2012_validation_ground_truth.txt
                                                    with the devkit's meta.mat beside it; split test
  s4l-shard --in webdataset                         *.tar with .jpg, .cls, .json
  s4l-shard --in photos.zip                         also tar.gz, tar.zst
  s4l-shard --in tfrecords                          from slim, tensor2tensor or TensorFlow Datasets
  s4l-shard --in huggingface                        parquet with an image column
  s4l-shard --in pipelines/fashion/data             IDX (MNIST, EMNIST), plain, .gz or .zst
  s4l-shard --in pathmnist.npz                      MedMNIST
  s4l-shard --in cifar-10-batches-bin               also CIFAR-100, STL-10
  s4l-shard --in big.tar --part 3/8                 one of 8 jobs; then:
  s4l-shard --merge --out shards                    joins the parts to the bytes of one run

Images are JPEG, PNG, WebP, GIF or BMP. They are stored byte for byte; height and width are those after the
rotation that EXIF asks for. Folders named train, training, val, valid, validation, test or testing are splits
if all folders beside them are splits too; dev, eval and evaluation mean test, or val if there is a test. A file
of many images belongs to the split whose name is a word of its own name. Images in folders named unlabeled,
unlabelled or unsup have no class. The last lines of output say what is in the shards and where the labels came
from. A bad image is left out, and rejects.parquet lists it with the reason. A run that was stopped or killed
continues with the missing files. Parts share one pass over the input: the first part leaves its result in
SHARDS.survey.
Settings: file_bytes [536870912].
Memory: 45 MB for each file that is written at once (half as many as threads plus one, at most 5), and 8 bytes
per image for its key; the image names too if --in is a folder, a list or an archive.";

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
    /// Format of --in, if it is not recognized
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Labels of images in folders or a tar: CSV, lines of `name label`, or one label per line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Column with the image names, by name or by number from 1
    #[arg(long, value_name = "COLUMN")]
    key_column: Option<String>,
    /// Column with the labels, by name or by number from 1; for WebDataset, the key in .json
    #[arg(long, value_name = "COLUMN")]
    label_column: Option<String>,
    /// One more name for folders of unlabelled images, besides unlabeled, unlabelled and unsup
    #[arg(long, value_name = "NAME")]
    unlabelled: Option<String>,
    /// Class names in order, one per line
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Stop at the first bad image
    #[arg(long)]
    strict: bool,
    /// Largest share of bad images that is accepted [default: 0.01]
    #[arg(long, value_name = "SHARE")]
    allow_rejects: Option<f64>,
    /// Decode every image completely, to find damage inside the compressed data
    #[arg(long)]
    decode: bool,
    /// Shrink larger images until the shorter side has this many pixels, and store them as JPEG
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=65535))]
    resize_small: Option<u32>,
    /// JPEG quality for --resize-small
    #[arg(long, default_value_t = 90, value_name = "1..100", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Make part I of N, counted from 1; auto: the part of this Slurm array task
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
    messages: Messages,
}

/// Settings of the stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ShardSettings {
    /// A file ends before the image that would bring it above this many bytes of image data, and after
    /// 65,536 images.
    file_bytes: u64,
}

impl Keys for ShardSettings {}

impl Default for ShardSettings {
    fn default() -> ShardSettings {
        ShardSettings { file_bytes: 512 << 20 }
    }
}

/// Options that make shards, which `--merge` would ignore.
const OF_MAKING: [&str; 14] = [
    "input",
    "format",
    "labels",
    "key_column",
    "label_column",
    "unlabelled",
    "classes",
    "strict",
    "decode",
    "resize_small",
    "quality",
    "file",
    "set",
    "dry_run",
];

/// The default of `--allow-rejects`.
const ALLOWED_REJECTS: f64 = 0.01;

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn is_part(&self) -> bool {
        self.part.is_some()
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        if !(0.0..=1.0).contains(&self.allowed()) {
            let share = self.allowed();
            return Err(Error::Usage(format!("--allow-rejects {share}: a share is from 0 to 1")));
        }
        let out = self.output.out_or(schema::SHARDS);
        let done = match &self.input {
            Some(input) => self.shard(input, &out, start),
            None => self.join(&out, start),
        };
        done.map_err(|e| match e {
            // Wherever it was, to people it is the output that is not there.
            Error::Interrupted { .. } => Error::Interrupted { path: out },
            e => e,
        })
    }
}

impl Args {
    /// Makes the shards, or a part of them.
    fn shard(&self, path: &Path, out: &Path, start: Instant) -> Result<()> {
        let files = [self.labels.as_deref(), self.classes.as_deref(), self.recipe.file.as_deref()];
        artifact::refuse_inputs(out, files.into_iter().chain([Some(path)]))?;
        let settings = self.settings()?;
        let input = input::open(path, &self.options())?;
        self.refuse_part(&input)?;
        if self.output.dry_run {
            return cli::print(&describe(path, out, &input, &self.survey(&input, &settings)?));
        }

        let resized = self.resize_small.map(|small| Resized { small, quality: self.quality });
        let recipe = self.recipe_hash(&settings, resized);
        let goal = self.part.map_or(out.to_path_buf(), |part| part.path(out));
        let _lock = Lock::of(&goal, self.output.update)?;
        let found = self.found(&goal)?;
        let (hash, survey) = self.read(&input, &settings, &recipe, out)?;
        let lineage =
            Lineage::new("s4l-shard", UNSEEDED, recipe).input(schema::input::IMAGES, hash);
        if self.is_merged(out, &lineage)? {
            cli::up_to_date(out);
            return Ok(());
        }
        if artifact::target(&self.output, &goal, &lineage, found)? == Target::UpToDate {
            let made = lineage.metadata().into_iter().collect();
            staging::remove_left_over(&staging::partial(&goal), &made);
            return Ok(());
        }

        let survey = survey?;
        let part = self.part.unwrap_or(Part::WHOLE);
        let identity = Identity::new(&survey, &lineage, resized, part);
        let staging = Staging::open(&staging::partial(&goal), identity)?;
        let job = Job {
            path,
            input: &input,
            survey: &survey,
            shards: part.of(&survey.spans),
            staging: &staging,
            decode: self.decode,
            allowed: if self.strict { 0.0 } else { self.allowed() },
        };
        let total = job.shards.len();
        if let Err(e) = job.run(self.limits.threads()) {
            return Err(left_behind(e, staging, goal, total));
        }

        let closing = match self.part {
            Some(_) => staging.commit_part(&goal).map(|()| Vec::new())?,
            None => staging.commit(out, self.allowed(), path)?,
        };
        artifact::write_provenance(&goal, start);
        cli::info(&format!("{}: {}", goal.display(), summary(&survey)));
        closing.iter().for_each(|line| cli::info(line));
        Ok(())
    }

    /// What is in the input.
    fn survey(&self, input: &Input, settings: &ShardSettings) -> Result<Survey> {
        Survey::new(input, settings.file_bytes, self.allows_cut())
    }

    /// Whether a file of many images may end in the middle.
    fn allows_cut(&self) -> bool {
        self.allow_rejects.is_some() && !self.strict
    }

    /// The hash and the survey of the input, which all parts share. What is wrong with its images does not
    /// matter to who has no use for the survey.
    fn read(
        &self,
        input: &Input,
        settings: &ShardSettings,
        recipe: &str,
        out: &Path,
    ) -> Result<(String, Result<Survey>)> {
        let read = || rayon::join(|| input.hash(), || self.survey(input, settings));
        if self.part.is_none() {
            let (hash, survey) = read();
            return Ok((hash?, survey));
        }
        let of = (env!("CARGO_PKG_VERSION"), recipe, input.stamp()?, self.allows_cut());
        let (hash, survey) = survey::shared(out, &format!("{of:?}"), || {
            let (hash, survey) = read();
            Ok((hash?, survey?))
        })?;
        Ok((hash, Ok(survey)))
    }

    /// Whether this is a part of shards that are there already.
    fn is_merged(&self, out: &Path, lineage: &Lineage) -> Result<bool> {
        if self.part.is_none() || self.output.force {
            return Ok(false);
        }
        let found = Shards::lineage(out)?;
        Ok(found.is_some_and(|found| lineage.difference(&found).is_empty()))
    }

    /// Errors if each part would read a compressed file from its start.
    fn refuse_part(&self, input: &Input) -> Result<()> {
        match (self.part, input.compressed()?) {
            (Some(_), Some((file, command))) => Err(Error::Usage(format!(
                "--part: {0} is compressed, and every part would read it from its start; unpack it \
                 first: {command} {0}",
                file.display()
            ))),
            _ => Ok(()),
        }
    }

    fn options(&self) -> Options<'_> {
        Options {
            format: self.format,
            labels: self.labels.as_deref(),
            classes: self.classes.as_deref(),
            columns: Columns { key: self.key_column.clone(), label: self.label_column.clone() },
            unlabelled: self.unlabelled.as_deref(),
        }
    }

    /// Of what decides the shards beside the input.
    fn recipe_hash(&self, settings: &ShardSettings, resized: Option<Resized>) -> String {
        let taken = (&self.key_column, &self.label_column, &self.unlabelled);
        match taken {
            (None, None, None) => recipe::hash(&(settings, self.decode, resized)),
            taken => recipe::hash(&(settings, self.decode, resized, taken)),
        }
    }

    /// Joins the parts.
    fn join(&self, out: &Path, start: Instant) -> Result<()> {
        let _lock = Lock::of(out, self.output.update)?;
        Shards::refuse_foreign(out)?;
        artifact::remove_left_over(out);
        // If a killed merge has already removed some parts, `out` cannot be made again from the rest.
        let again = self.output.force && parts::are_there(out);
        if !again && artifact::exists(out)? {
            if let Some(left) = parts::left_of(out)? {
                let made = Shards::lineage(out)?.unwrap_or_default();
                staging::remove_left_over(&staging::partial(out), &made);
                part::joined(out, start, &left, true, artifact::remove_folder);
                survey::remove(out);
                cli::up_to_date(out);
                return Ok(());
            }
            if !self.output.may_replace() {
                return Err(Error::Exists { path: out.to_path_buf() });
            }
        }
        let (merged, parts) = parts::merge(out)?;
        let closing = merged.commit(out, self.allowed(), out)?;
        part::joined(out, start, &parts, false, artifact::remove_folder);
        survey::remove(out);
        closing.iter().for_each(|line| cli::info(line));
        Ok(())
    }

    fn settings(&self) -> Result<ShardSettings> {
        let settings: ShardSettings = self.recipe.load()?;
        match settings.file_bytes {
            0 => Err(Error::Recipe {
                recipe: "file_bytes".to_string(),
                what: "0 bytes per file".to_string(),
                hint: "give at least 1".to_string(),
            }),
            _ => Ok(settings),
        }
    }

    /// Largest share of bad images with which a run continues.
    fn allowed(&self) -> f64 {
        self.allow_rejects.unwrap_or(ALLOWED_REJECTS)
    }

    /// The lineage of what is there already.
    fn found(&self, goal: &Path) -> Result<Option<HashMap<String, String>>> {
        if self.part.is_some() {
            if artifact::exists(goal)? {
                staging::refuse_foreign(goal)?;
            }
            return staging::lineage(goal);
        }
        Shards::refuse_foreign(goal)?;
        Shards::lineage(goal)
    }
}

/// Leaves the finished files for a later run, which is what to say if this one was stopped.
fn left_behind(error: Error, staging: Staging, goal: PathBuf, total: usize) -> Error {
    match (error, staging.leave()) {
        (Error::Interrupted { .. }, done @ 1..) => {
            Error::Paused { path: goal, done, total, what: "files" }
        }
        (error, _) => error,
    }
}

fn describe(path: &Path, out: &Path, input: &Input, survey: &Survey) -> String {
    format!(
        "in   {} ({})\nout  {} ({} files)\n     {}\n",
        path.display(),
        input.format(),
        out.display(),
        survey.spans.len(),
        summary(survey)
    )
}

fn summary(survey: &Survey) -> String {
    let splits = survey.splits().into_iter();
    let splits: Vec<_> = splits.map(|(split, n)| format!("{} {n}", split.name())).collect();
    let form = survey.shape.map_or("encoded".to_string(), |[h, w, c]| format!("{h}x{w}x{c}"));
    format!("{} images, {form}, {} classes", splits.join(" + "), survey.classes.len())
}
