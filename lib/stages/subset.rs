//! `s4l-subset`: which images a training stage may know the labels of.

use crate::artifact::{self, Lineage, Target};
use crate::cli::{self, InputShards, Limits, Output, Seed, Stage, Words};
use crate::error::{Error, Result};
use crate::labelled::draw::{TooFew, draw};
use crate::labelled::duplicates::{self, Set};
use crate::labelled::list;
use crate::labelled::rows::labelled_rows;
use crate::recipe;
use crate::rng::Stream;
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::table;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-subset --in shards --fraction 0.1 --out labelled.parquet
  s4l-subset --in shards --per-class 13 --seed 1 --out labelled.parquet
  s4l-subset --in shards --list 10percent.json --out labelled.parquet
  s4l-subset --in shards --per-class 13 --nested-in labelled_10p.parquet --out labelled_1p.parquet
  s4l-subset --in shards --fraction 0.1 --out labelled.parquet --val-per-class 100 --val-out val.parquet

For one seed a smaller subset lies within every larger one, and the validation set is the same
whatever the fraction. A list may give names with folders before them, and with or without the ending
of an image file. No image is drawn into both whose bytes are equal, and a labelled image that is also in
another split is an error. Memory: some 250 bytes an image.";

/// Choose the labelled images: class-balanced and seeded, or by a list of names
#[derive(Debug, clap::Parser)]
#[command(
    name = "s4l-subset",
    version,
    before_help = EXAMPLES,
    group = clap::ArgGroup::new("choice").required(true).args(["fraction", "per_class", "list"])
)]
pub struct Args {
    #[command(flatten)]
    shards: InputShards,
    /// Share of the labelled images of the split, the same number of each class
    #[arg(long, value_name = "F")]
    fraction: Option<f64>,
    /// Number of images of each class
    #[arg(long, value_name = "N")]
    per_class: Option<usize>,
    /// Names of the images: a label map ({"values": [...]}) or text, one a line
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Choose from the images of this subset only
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    nested_in: Option<PathBuf>,
    /// Split to choose from
    #[arg(long, default_value = "train", value_name = "NAME")]
    split: String,
    /// Size a class of a validation set that shares no image with the subset
    #[arg(long, value_name = "N", requires = "val_out")]
    val_per_class: Option<usize>,
    /// Where the validation set goes
    #[arg(long, value_name = "PATH", requires = "val_per_class")]
    val_out: Option<PathBuf>,
    /// Go on where an image of another split has the bytes of a labelled one
    #[arg(long)]
    allow_duplicates: bool,
    #[command(flatten)]
    seed: Seed,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    words: Words,
}

/// What decides the rows of an output, for its lineage. The validation set does not depend on the
/// size of the subset, so neither does this.
#[derive(Serialize)]
struct Choice<'a> {
    split: &'a str,
    fraction: Option<f64>,
    per_class: Option<usize>,
    val_per_class: Option<usize>,
    validation: bool,
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
        let out = self.output.out_or(schema::LABELLED);
        self.refuse_overlaps(&out)?;
        let shards = Shards::open(&self.shards.path)?;
        let split = shards.split(&self.split)?;
        let labels = split.labels()?;

        let listed = self.list.as_deref().map(|l| list::rows(l, &split));
        let listed = listed.transpose()?;
        let outer = self.outer(&split, shards.classes().len())?;
        let per_class = self.per_class(labels, shards.classes().len())?;
        let draw = |n, stream, taken: &[usize]| {
            draw(labels, shards.classes().len(), n, self.seed.value, stream, taken)
                .map_err(|few| self.too_few(few, &shards))
        };
        // Copies of an image count as that image.
        let hashes = split.hashes()?;
        let copies = |rows: &[usize]| duplicates::copies_of(rows, &hashes);
        let kept_out = listed.as_ref().or(outer.as_ref());
        let kept_out = copies(kept_out.map_or(&[][..], |rows| rows));
        let validation = match self.val_per_class {
            Some(n) => draw(n, Stream::Validation, &kept_out)?,
            None => Vec::new(),
        };
        let labelled = match listed {
            Some(rows) => rows,
            None => {
                let mut taken = copies(&validation);
                if let Some(outer) = outer {
                    let outer: HashSet<usize> = outer.into_iter().collect();
                    taken.extend((0..split.len()).filter(|row| !outer.contains(row)));
                }
                draw(per_class, Stream::Subset, &taken)?
            }
        };
        let others = self.other_splits(&shards)?;
        let known = Set { name: "the subset".to_string(), split: &split, rows: labelled.clone() };
        let mut tests: Vec<Set> = others.iter().map(|(n, s)| Set::whole(n, s)).collect();
        self.refuse_leaks(&known, &tests)?;

        let mut outputs = vec![(&out, &labelled, false)];
        if let Some(val_out) = &self.val_out {
            outputs.insert(0, (val_out, &validation, true));
        }
        let words = |path: &Path, rows: usize| {
            let names = (path.display(), &self.split, shards.classes().len());
            format!("{}: {rows} images of {}, {} classes", names.0, names.1, names.2)
        };
        if self.output.dry_run {
            let plan = outputs.iter().map(|(path, rows, _)| words(path, rows.len()) + "\n");
            return cli::print(&plan.collect::<String>());
        }
        let mut todo = Vec::new();
        for (path, rows, validation) in outputs {
            let lineage = self.lineage(&split, labels, validation)?;
            if artifact::target(&self.output, path, &lineage, table::footer(path))? == Target::Write
            {
                todo.push((path, rows, lineage));
            }
        }
        if !todo.is_empty() {
            tests.push(Set {
                name: "the validation set".to_string(),
                split: &split,
                rows: validation.clone(),
            });
            tests.retain(|set| !set.rows.is_empty());
            for (set, near) in tests.iter().zip(duplicates::near(&known, &tests)?) {
                let of = (set.rows.len(), &set.name);
                cli::info(&format!(
                    "{near} of {} images of {} nearly equal a labelled one",
                    of.0, of.1
                ));
            }
        }
        for (path, rows, lineage) in todo {
            write(path, &split, labels, rows, &lineage)?;
            artifact::write_provenance(path, start)?;
            cli::info(&words(path, rows.len()));
        }
        Ok(())
    }
}

impl Args {
    fn refuse_overlaps(&self, out: &Path) -> Result<()> {
        let outputs = [Some(out), self.val_out.as_deref()];
        let inputs =
            [Some(self.shards.path.as_path()), self.list.as_deref(), self.nested_in.as_deref()];
        for out in outputs.into_iter().flatten() {
            for input in inputs.into_iter().flatten().filter(|i| i.exists()) {
                artifact::refuse_overlap(input, out)?;
            }
        }
        match &self.val_out {
            Some(val_out) => artifact::refuse_overlap(out, val_out),
            None => Ok(()),
        }
    }

    /// The rows of `--nested-in`.
    fn outer(&self, split: &Split, classes: usize) -> Result<Option<Vec<usize>>> {
        let Some(path) = &self.nested_in else {
            return Ok(None);
        };
        let table = table::read(path, "s4l-subset")?;
        let (rows, _) = labelled_rows(&table, split, classes, schema::LABEL)?;
        Ok(Some(rows.into_iter().map(|row| row as usize).collect()))
    }

    /// The splits that are not chosen from, with their names.
    fn other_splits(&self, shards: &Shards) -> Result<Vec<(String, Split)>> {
        let names = shards.splits().into_iter().filter(|n| *n != self.split);
        names.map(|name| shards.split(&name).map(|split| (name, split))).collect()
    }

    /// Errors where an image to test on has the bytes of a labelled one.
    fn refuse_leaks(&self, labelled: &Set, tests: &[Set]) -> Result<()> {
        for set in tests {
            let Some((count, key, known)) = duplicates::leaks(labelled, set)? else {
                continue;
            };
            let found = format!("{count} of {}, the first is {key:?} = {known:?}", set.name);
            if self.allow_duplicates {
                cli::warn(&format!("labelled images with the bytes of {found}"));
                continue;
            }
            return Err(Error::bad_data(
                &self.shards.path,
                "no labelled image with the bytes of one to test on",
                found,
                "remove the copies from the input of s4l-shard, or pass --allow-duplicates",
            ));
        }
        Ok(())
    }

    /// Images a class that `--fraction` or `--per-class` asks for; 0 with `--list`.
    fn per_class(&self, labels: &[Option<u32>], classes: usize) -> Result<usize> {
        let known = labels.iter().flatten().count();
        if known == 0 || classes == 0 {
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
            (None, Some(n)) => n,
            (None, None) => return Ok(0),
        };
        if per_class == 0 {
            return Err(Error::Usage(format!(
                "this is less than one image a class ({known} images, {classes} classes); ask for more"
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
            match (&self.nested_in, self.val_per_class) {
                (Some(outer), _) => format!("{} of them in {}", few.found, outer.display()),
                (None, Some(_)) => format!("{} that are not taken already", few.found),
                (None, None) => few.found.to_string(),
            },
            "ask for fewer",
        )
    }

    fn lineage(&self, split: &Split, labels: &[Option<u32>], validation: bool) -> Result<Lineage> {
        let choice = Choice {
            split: &self.split,
            fraction: self.fraction.filter(|_| !validation),
            per_class: self.per_class.filter(|_| !validation),
            val_per_class: self.val_per_class,
            validation,
        };
        let mut hasher = blake3::Hasher::new();
        for label in labels {
            hasher.update(&label.map_or(-1, i64::from).to_le_bytes());
        }
        let labels = schema::short_hash(&hasher.finalize());
        let lineage = Lineage::new("s4l-subset", self.seed.value, recipe::hash(&choice))
            .input(schema::input::SHARDS, split.content_hash())
            .input(schema::input::LABELS, labels);
        let lineage = match &self.list {
            Some(list) => lineage.input(schema::input::LIST, artifact::hash_file(list)?),
            None => lineage,
        };
        Ok(match &self.nested_in {
            Some(outer) => lineage.input(schema::input::NESTED_IN, artifact::hash_file(outer)?),
            None => lineage,
        })
    }
}

fn write(
    path: &Path,
    split: &Split,
    labels: &[Option<u32>],
    rows: &[usize],
    lineage: &Lineage,
) -> Result<()> {
    let keys = StringArray::from_iter_values(rows.iter().map(|&row| split.key(row)));
    // Only rows with a label are drawn or pass `list::rows`.
    let labels: Int64Array = rows.iter().map(|&row| labels[row].map(i64::from)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(labels)];
    table::write(path, schema::labelled(), columns, lineage, BTreeMap::new())
}
