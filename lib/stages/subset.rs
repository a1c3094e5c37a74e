//! `s4l-subset`: chooses the images whose labels a training stage may know.

use crate::artifact::{self, Target};
use crate::cli::{self, InputShards, Limits, Messages, Output, Seed, Stage};
use crate::error::{Error, Result};
use crate::labelled::draw::{self, Choice, Chosen, Pool, TooFew, Validation};
use crate::labelled::duplicates::{self, Leak, NamedRows};
use crate::labelled::list;
use crate::labelled::rows::{labelled_rows, labels_hash};
use crate::lineage::Lineage;
use crate::lock::Lock;
use crate::recipe;
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::table;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-subset --in shards --fraction 0.1 --out labelled.parquet
  s4l-subset --in shards --per-class 13 --seed 1 --out labelled.parquet
  s4l-subset --in shards --list 10percent.json --out labelled.parquet
  s4l-subset --in shards --all --out labelled.parquet --val-fraction 0.2 --val-out val.parquet
  s4l-subset --in shards --per-class 13 --nested-in labelled_10p.parquet --out labelled_1p.parquet
  s4l-subset --in shards --fraction 0.1 --out labelled.parquet --val-per-class 100 --val-out val.parquet

With the same seed, a smaller subset lies within every larger one, and the validation set does not depend on
the size of the subset. A class with fewer images than asked for gives all it has, with a warning. Names in a
list may have folders in front, and need no file ending. The subset and the validation set share no image
bytes. A labelled image whose bytes are also in another split is an error.
Memory: about 250 bytes per image.";

/// Choose the labelled images: a class-balanced random sample, all of them, or a list of names
#[derive(Debug, clap::Parser)]
#[command(
    name = TOOL,
    version,
    before_help = EXAMPLES,
    group = clap::ArgGroup::new("choice").required(true).args(["fraction", "per_class", "all", "list"]),
    group = clap::ArgGroup::new("validation").args(["val_per_class", "val_fraction"])
)]
pub struct Args {
    #[command(flatten)]
    shards: InputShards,
    /// Share of the split's labelled images, the same number for each class
    #[arg(long, value_name = "F")]
    fraction: Option<f64>,
    /// Images per class
    #[arg(long, value_name = "N")]
    per_class: Option<usize>,
    /// All labelled images of the split
    #[arg(long)]
    all: bool,
    /// Names of the images: a label map ({"values": [...]}) or text with one name per line
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Choose only from the images of this subset
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    nested_in: Option<PathBuf>,
    /// Split to choose from
    #[arg(long, default_value = "train", value_name = "NAME")]
    split: String,
    /// Images per class in a validation set that shares no image with the subset
    #[arg(long, value_name = "N", requires = "val_out")]
    val_per_class: Option<usize>,
    /// Share of each class in a validation set that shares no image with the subset
    #[arg(long, value_name = "F", requires = "val_out")]
    val_fraction: Option<f64>,
    /// Write the validation set to this file
    #[arg(long, value_name = "PATH", requires = "validation")]
    val_out: Option<PathBuf>,
    /// Accept labelled images whose bytes are also in another split
    #[arg(long)]
    allow_duplicates: bool,
    #[command(flatten)]
    seed: Seed,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    messages: Messages,
}

const TOOL: &str = "s4l-subset";

/// What decides the rows of an output, for its lineage. The validation set does not depend on the
/// size of the subset, so neither do its settings.
#[derive(Serialize)]
struct SubsetSettings<'a> {
    split: &'a str,
    fraction: Option<f64>,
    per_class: Option<usize>,
    val_per_class: Option<usize>,
    validation: bool,
    /// Left out if not given, like the next one, so that older outputs keep their hash.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    val_fraction: Option<f64>,
}

/// Class names that a message shows.
const SHOWN: usize = 8;

/// Name of an input, and its hash.
type InputHash = (&'static str, String);

/// A file to make: the subset or the validation set.
struct SubsetFile<'a> {
    path: &'a Path,
    rows: &'a [usize],
    validation: bool,
}

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let out = self.output.out_or(schema::LABELLED);
        self.refuse_overlaps(&out)?;
        let shards = Shards::open(&self.shards.path)?;
        let split = shards.split(&self.split)?;

        let (chosen, asked, input) = self.choose(&shards, &split)?;
        let named = |name: &str, rows: &[usize]| {
            let (name, rows) = (name.to_string(), rows.to_vec());
            NamedRows { name, split: &split, rows }
        };
        let labelled = named("the subset", &chosen.labelled);
        let others = self.other_splits(&shards)?;
        let mut tests: Vec<_> = others.iter().map(|(n, s)| NamedRows::whole(n, s)).collect();
        self.refuse_leaks(&labelled, &tests)?;
        self.say_classes(&shards, split.labels()?, &chosen, asked)?;
        let files = self.files(&out, &chosen);
        let labels = split.labels()?;
        let words = |file: &SubsetFile| self.closing_words(file, labels, shards.classes().len());
        if self.output.dry_run {
            let plan = files.iter().map(|file| words(file) + "\n");
            return cli::print(&plan.collect::<String>());
        }

        let locks = files.iter().map(|file| Lock::of(file.path, self.output.update));
        let _locks = locks.collect::<Result<Vec<_>>>()?;
        let mut todo = Vec::new();
        for file in files {
            let lineage = self.lineage(&split, input.as_ref(), file.validation)?;
            let found = table::output(file.path, TOOL)?;
            if artifact::target(&self.output, file.path, &lineage, found)? == Target::Write {
                todo.push((file, lineage));
            }
        }
        if todo.is_empty() {
            return Ok(());
        }
        tests.push(named("the validation set", &chosen.validation));
        tests.retain(|set| !set.rows.is_empty());
        say_near(&labelled, &tests)?;
        for (file, lineage) in todo {
            write(&file, &split, &lineage)?;
            artifact::write_provenance(file.path, start);
            cli::info(&words(&file));
        }
        Ok(())
    }
}

impl Args {
    fn refuse_overlaps(&self, out: &Path) -> Result<()> {
        for out in [Some(out), self.val_out.as_deref()].into_iter().flatten() {
            let files = [self.list.as_deref(), self.nested_in.as_deref()];
            let inputs = files.into_iter().chain([Some(self.shards.path.as_path())]);
            artifact::refuse_inputs(out, inputs)?;
        }
        match &self.val_out {
            Some(val_out) => artifact::refuse_overlap(out, val_out),
            None => Ok(()),
        }
    }

    /// The rows of both outputs, how many of each class were asked for, and the file that has a part in
    /// them.
    fn choose(&self, shards: &Shards, split: &Split) -> Result<(Chosen, usize, Option<InputHash>)> {
        let (labels, classes) = (split.labels()?, shards.classes().len());
        let (choice, asked, input) = match (&self.list, &self.nested_in) {
            (Some(list), _) => {
                let (rows, hash) = list::rows(list, split)?;
                (Choice::Listed(rows), 1, Some((schema::input::LIST, hash)))
            }
            (None, outer) => {
                let outer = outer.as_ref().map(|path| table::read(path, TOOL)).transpose()?;
                let rows = outer.as_ref().map(|t| labelled_rows(t, split, classes, schema::LABEL));
                let within = rows.transpose()?;
                let within = within.map(|(rows, _)| rows.iter().map(|&r| r as usize).collect());
                let per_class = self.per_class(labels, classes)?;
                let asked = if self.all { 1 } else { per_class };
                let input = outer.map(|table| (schema::input::NESTED_IN, table.hash));
                (Choice::Drawn { within, per_class }, asked, input)
            }
        };
        let pool = Pool { labels, hashes: &split.hashes()?, classes };
        let chosen = draw::choose(&pool, choice, self.validation()?, self.seed.value)
            .map_err(|few| self.too_few(few, shards))?;
        Ok((chosen, asked, input))
    }

    fn validation(&self) -> Result<Validation> {
        match self.val_fraction {
            Some(f) if !(f > 0.0 && f < 1.0) => Err(Error::Usage(format!(
                "--val-fraction {f}: expected a number above 0 and below 1"
            ))),
            Some(f) => Ok(Validation::Fraction(f)),
            None => Ok(Validation::PerClass(self.val_per_class.unwrap_or(0))),
        }
    }

    /// Says which classes the subset has no image of, or fewer than were asked for.
    ///
    /// Errors: `BadData` if it has none at all, or there are none to validate on.
    fn say_classes(
        &self,
        shards: &Shards,
        labels: &[Option<u32>],
        chosen: &Chosen,
        asked: usize,
    ) -> Result<()> {
        let count =
            |rows: &[usize]| draw::count(labels, shards.classes().len(), rows.iter().copied());
        let there = draw::count(labels, shards.classes().len(), 0..labels.len());
        let labelled = count(&chosen.labelled);
        let named = |fits: &dyn Fn(usize) -> bool, words: &dyn Fn(usize) -> String| {
            let fitting: Vec<usize> = (0..there.len()).filter(|&class| fits(class)).collect();
            let shown: Vec<String> =
                fitting.iter().take(SHOWN).map(|&class| words(class)).collect();
            let more = if fitting.len() > SHOWN { ", .." } else { "" };
            (!fitting.is_empty()).then(|| shown.join(", ") + more)
        };
        let name = |class: usize| format!("{:?}", shards.classes()[class]);
        let split = &self.split;
        if let Some(names) = named(&|c| there[c] == 0, &name) {
            cli::warn(&format!("no image of {split} has the label {names}: left out"));
        }
        let few = |class: usize| there[class] > 0 && labelled[class] < asked;
        let with_count = |class: usize| format!("{} {}", name(class), labelled[class]);
        let words: &dyn Fn(usize) -> String = if asked > 1 { &with_count } else { &name };
        if let Some(names) = named(&few, words) {
            cli::warn(&match asked {
                1 => format!("the subset has no image of {names}"),
                _ => format!("classes with fewer than {asked} images give all they have: {names}"),
            });
        }
        match labelled.iter().filter(|&&images| images > 0).count() {
            0 => return Err(self.none("to label", "validate on fewer")),
            1 => cli::warn("all images of the subset are of one class: no model learns from that"),
            _ => {}
        }
        match self.val_out.is_some() && chosen.validation.is_empty() {
            true => Err(self.none("to validate on", "raise --val-fraction, or label more images")),
            false => Ok(()),
        }
    }

    fn none(&self, what: &str, hint: &str) -> Error {
        let expected = format!("images of split {:?} {what}", self.split);
        Error::bad_data(&self.shards.path, expected, "none", hint)
    }

    /// The size of a file, and how many of the classes it has images of.
    fn closing_words(&self, file: &SubsetFile, labels: &[Option<u32>], classes: usize) -> String {
        let images = draw::count(labels, classes, file.rows.iter().copied());
        let found = images.iter().filter(|&&images| images > 0).count();
        let of_all = if found < classes { format!("of {classes} ") } else { String::new() };
        let (path, rows, split) = (file.path.display(), file.rows.len(), &self.split);
        format!("{path}: {rows} images of {split}, {found} {of_all}classes")
    }

    /// The validation set comes first: a subset that is there has what it is validated on.
    fn files<'a>(&'a self, out: &'a Path, chosen: &'a Chosen) -> Vec<SubsetFile<'a>> {
        let validation = self.val_out.as_deref().map(|path| SubsetFile {
            path,
            rows: &chosen.validation,
            validation: true,
        });
        let labelled = SubsetFile { path: out, rows: &chosen.labelled, validation: false };
        validation.into_iter().chain([labelled]).collect()
    }

    /// The splits that are not chosen from, with their names.
    fn other_splits(&self, shards: &Shards) -> Result<Vec<(String, Split)>> {
        let names = shards.splits().into_iter().filter(|n| *n != self.split);
        names.map(|name| shards.split(&name).map(|split| (name, split))).collect()
    }

    /// Errors if an image to test on has the bytes of a labelled one.
    fn refuse_leaks(&self, labelled: &NamedRows, tests: &[NamedRows]) -> Result<()> {
        for set in tests {
            let Some(Leak { count, key, labelled }) = duplicates::leak(labelled, set)? else {
                continue;
            };
            let found = format!("{count} of {}, the first is {key:?} = {labelled:?}", set.name);
            if self.allow_duplicates {
                cli::warn(&format!("labelled images with the bytes of {found}"));
                continue;
            }
            return Err(Error::bad_data(
                &self.shards.path,
                "no labelled image with the same bytes as a test image",
                found,
                "remove the copies from the input of s4l-shard, or pass --allow-duplicates",
            ));
        }
        Ok(())
    }

    /// Images per class that `--fraction`, `--per-class` or `--all` asks for.
    fn per_class(&self, labels: &[Option<u32>], classes: usize) -> Result<usize> {
        let images = draw::count(labels, classes, 0..labels.len());
        let known: usize = images.iter().sum();
        let classes = images.into_iter().filter(|&images| images > 0).count();
        if known == 0 {
            return Err(Error::bad_data(
                &self.shards.path,
                format!("labels in split {:?}", self.split),
                "none",
                "make shards from images in class folders or with a label file",
            ));
        }
        let per_class = match (self.fraction, self.per_class) {
            (Some(f), _) if !(f > 0.0 && f <= 1.0) => {
                return Err(Error::Usage(format!(
                    "--fraction {f}: expected a number above 0 and up to 1"
                )));
            }
            (Some(f), _) => (f * known as f64 / classes as f64).round() as usize,
            (None, _) if self.all => known,
            (None, n) => n.unwrap_or(0),
        };
        if per_class == 0 {
            return Err(Error::Usage(format!(
                "this is less than one image per class ({known} images, {classes} classes); ask for more"
            )));
        }
        Ok(per_class)
    }

    fn too_few(&self, few: TooFew, shards: &Shards) -> Error {
        Error::bad_data(
            &self.shards.path,
            format!(
                "{} images of class {:?} in split {:?}",
                few.asked,
                shards.classes()[few.class],
                self.split
            ),
            format!("{} to validate on", few.found),
            "ask for fewer, or for a share with --val-fraction",
        )
    }

    fn lineage(
        &self,
        split: &Split,
        input: Option<&InputHash>,
        validation: bool,
    ) -> Result<Lineage> {
        let settings = SubsetSettings {
            split: &self.split,
            fraction: self.fraction.filter(|_| !validation),
            per_class: self.per_class.filter(|_| !validation),
            val_per_class: self.val_per_class,
            validation,
            all: self.all && !validation,
            val_fraction: self.val_fraction,
        };
        let lineage = Lineage::new(TOOL, self.seed.value, recipe::hash(&settings))
            .input(schema::input::SHARDS, split.content_hash())
            .input(schema::input::LABELS, labels_hash(split)?);
        Ok(match input {
            Some((name, hash)) => lineage.input(name, hash),
            None => lineage,
        })
    }
}

/// Says how many images of each set nearly equal a labelled one.
fn say_near(labelled: &NamedRows, tests: &[NamedRows]) -> Result<()> {
    for (set, near) in tests.iter().zip(duplicates::near(labelled, tests)?) {
        let (all, name) = (set.rows.len(), &set.name);
        cli::info(&format!("{near} of {all} images of {name} nearly equal a labelled one"));
    }
    Ok(())
}

fn write(file: &SubsetFile, split: &Split, lineage: &Lineage) -> Result<()> {
    let (labels, rows) = (split.labels()?, file.rows.iter());
    let keys = StringArray::from_iter_values(rows.clone().map(|&row| split.key(row)));
    // Only rows with a label are drawn or pass `list::rows`.
    let labels: Int64Array = rows.map(|&row| labels[row].map(i64::from)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(labels)];
    table::write(file.path, schema::labelled(), columns, lineage, BTreeMap::new())
}
