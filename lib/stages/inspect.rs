//! `s4l-inspect`: what is in a file of the project, what was it made from, and is it intact?
//!
//! Reads any parquet, safetensors, ONNX or JSON file, a shard folder or a model folder, and prints schema,
//! statistics and lineage; with `--lineage`, everything that it was made from, back to the images. With
//! `--verify` it prints nothing and exits with 0 if all is good, else with 3, or with 65 if both are given.

use crate::artifact;
use crate::cli::{self, Messages, Output, Stage};
use crate::error::{Error, Result};
use crate::inspect::sheet::{self, Draw};
use crate::inspect::{folder, json, lineage, onnx, parquet, safetensors};
use crate::lock::Lock;
use crate::model;
use crate::page::frame::Page;
use crate::schema;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
EXAMPLES
  s4l-inspect labels.parquet             schema, statistics, what it was made from
  s4l-inspect model                      configuration, metrics, weights
  s4l-inspect --verify shards && echo ok checks all shards against MANIFEST.b3
  s4l-inspect --lineage eval.parquet     commands, recipes and hashes, from there to the images
  s4l-inspect --lineage --verify report  is all that the table was made from still unchanged?
  s4l-inspect shards --sheet sheet.html  images of each class, to spot wrong labels
  s4l-inspect labelled.parquet --in shards --sheet sheet.html";

/// Show the content of any file or folder of the project, or verify it
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-inspect", version, before_help = EXAMPLES)]
pub struct Args {
    /// A parquet, safetensors, ONNX or JSON file, a shard folder, a model folder or an export
    path: PathBuf,
    /// Print which files it was made from, and what those were made from, back to the images; also for a report
    #[arg(long)]
    lineage: bool,
    /// Print nothing; exit 0 if the content is intact, 3 if not; with --lineage 0 if everything that it was
    /// made from is there and unchanged, 65 if not
    #[arg(long, conflicts_with = "out")]
    verify: bool,
    /// Write a page with images of each class, for shards or a table of labels
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "verify"])]
    sheet: Option<PathBuf>,
    /// Shards with the images of the table [default: shards]
    #[arg(long = "in", value_name = "SHARDS", requires = "sheet")]
    shards: Option<PathBuf>,
    /// Images per class
    #[arg(long, value_name = "N", requires = "sheet", value_parser = clap::value_parser!(u32).range(1..))]
    per_class: Option<u32>,
    /// Random seed
    #[arg(long, value_name = "N", requires = "sheet", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    messages: Messages,
}

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn quiet(&self) -> bool {
        self.verify || self.messages.quiet
    }

    fn run(self) -> Result<()> {
        let path = &self.path;
        if let Some(out) = &self.sheet {
            return self.write_sheet(kind(path)?, out);
        }
        let text = if self.lineage {
            there(path)?;
            match (self.output.dry_run, self.verify) {
                (true, _) => format!("lineage of {}\n", path.display()),
                (false, true) => return lineage::verify(path),
                (false, false) => lineage::tree(path)?,
            }
        } else {
            let kind = kind(path)?;
            match (self.output.dry_run, self.verify) {
                (true, true) => format!("verify {} as {kind:?}\n", path.display()),
                (true, false) => format!("describe {} as {kind:?}\n", path.display()),
                (false, true) => return verify(path, kind).map_err(failed),
                (false, false) => describe(path, kind)?,
            }
        };
        match self.output.out.as_ref().filter(|_| !self.output.dry_run) {
            Some(out) => {
                artifact::refuse_overlap(path, out)?;
                let _lock = Lock::of(out, self.output.update)?;
                match artifact::exists(out)? && !self.output.may_replace() {
                    true => Err(Error::Exists { path: out.clone() }),
                    false => artifact::write_bytes(out, text.as_bytes()),
                }
            }
            None => cli::print(&text),
        }
    }
}

impl Args {
    fn write_sheet(&self, kind: Kind, out: &Path) -> Result<()> {
        let path = &self.path;
        let shards = match (kind, &self.shards) {
            (Kind::Shards, None) => None,
            (Kind::Shards, Some(_)) => {
                return Err(Error::Usage("--in: it is for tables; these are shards".to_string()));
            }
            (Kind::Parquet, shards) => Some(shards.as_deref().unwrap_or(Path::new(schema::SHARDS))),
            (kind, _) => {
                let found = format!("--sheet: {} is {kind:?}", path.display());
                return Err(Error::Usage(format!(
                    "{found}; it is for shards and tables of labels"
                )));
            }
        };
        artifact::refuse_inputs(out, [Some(path.as_path()), shards])?;
        if self.output.dry_run {
            return cli::print(&format!("sheet of {} to {}\n", path.display(), out.display()));
        }
        let _lock = Lock::of(out, self.output.update)?;
        let draw = Draw { per_class: self.per_class, seed: self.seed };
        let body = match shards {
            None => sheet::of_shards(path, draw),
            Some(shards) => sheet::of_table(path, shards, draw),
        }?;
        let page = Page {
            generator: "s4l-inspect --sheet",
            title: "Contact sheet",
            width: 1360,
            body: &body,
        };
        page.write(out, &self.output)
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Parquet,
    Safetensors,
    Json,
    Onnx,
    Shards,
    Model,
}

fn there(path: &Path) -> Result<()> {
    match artifact::exists(path)? {
        true => Ok(()),
        false => Err(Error::missing(path, "file or folder", "check the path")),
    }
}

fn kind(path: &Path) -> Result<Kind> {
    there(path)?;
    if artifact::is_folder(path)? {
        let kinds = [
            (schema::DATASET_JSON, Kind::Shards),
            (schema::CONFIG_JSON, Kind::Model),
            (schema::WEIGHTS, Kind::Model),
            (schema::ONNX_MODEL, Kind::Onnx),
        ];
        for (name, kind) in kinds {
            if artifact::exists(&path.join(name))? {
                return Ok(kind);
            }
        }
        return Err(Error::bad_data(
            path,
            format!("{} (shards) or {} (a model)", schema::DATASET_JSON, schema::CONFIG_JSON),
            "neither",
            "name a folder that s4l-shard or a training stage made, or one file",
        ));
    }
    let name = path.extension().unwrap_or_default();
    let mut head = [0; 4];
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let _ = file.take(4).read(&mut head).map_err(Error::io(path))?;
    match (name.to_str(), &head) {
        (Some("parquet"), _) | (_, b"PAR1") => Ok(Kind::Parquet),
        (Some("safetensors"), _) => Ok(Kind::Safetensors),
        (Some("json"), _) => Ok(Kind::Json),
        (Some("onnx"), _) => Ok(Kind::Onnx),
        _ => Err(Error::bad_data(
            path,
            "a parquet, safetensors, ONNX or JSON file",
            "another kind of file",
            "see --help for what can be inspected",
        )),
    }
}

fn describe(path: &Path, kind: Kind) -> Result<String> {
    match kind {
        Kind::Parquet => parquet::describe(path),
        Kind::Safetensors => safetensors::describe(path),
        Kind::Json => json::describe(path),
        Kind::Onnx => onnx::describe(path),
        Kind::Shards => folder::describe_shards(path),
        Kind::Model => folder::describe_model(path),
    }
}

fn verify(path: &Path, kind: Kind) -> Result<()> {
    match kind {
        Kind::Parquet => parquet::verify(path),
        Kind::Safetensors => safetensors::verify(path),
        Kind::Json => json::read(path).map(drop),
        Kind::Onnx => model::onnx::read(path).map(drop),
        Kind::Shards => folder::verify_shards(path),
        Kind::Model => folder::verify_model(path),
    }
}

/// Turns bad content into a failed check, which is what `--verify` looks for.
fn failed(error: Error) -> Error {
    match error {
        Error::BadData { path, expected, found, .. } => {
            Error::Check { path, what: format!("expected {expected}, found {found}") }
        }
        other => other,
    }
}
