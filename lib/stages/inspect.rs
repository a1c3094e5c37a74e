//! `s4l-inspect`: what is in a file of the project, what was it made from, and is it whole?
//!
//! Reads any parquet, safetensors or JSON file, a shard folder or a model folder, and prints schema,
//! statistics and lineage. With `--verify` it says nothing and exits 0 when all is good, 3 when not.

use crate::artifact;
use crate::cli::{self, Output, Stage, Words};
use crate::error::{Error, Result};
use crate::inspect::{folder, json, parquet, safetensors};
use crate::lock::Lock;
use crate::schema;
use std::io::Read;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
EXAMPLES
  s4l-inspect labels.parquet             schema, statistics, what it was made from
  s4l-inspect model                      configuration, metrics, weights
  s4l-inspect --verify shards && echo ok hashes of all shards against MANIFEST.b3";

/// Show what is in any file or folder of the project, or verify it
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-inspect", version, before_help = EXAMPLES)]
pub struct Args {
    /// A parquet, safetensors or JSON file, a shard folder or a model folder
    path: PathBuf,
    /// Print nothing; exit 0 when the content is whole, 3 when it is not
    #[arg(long, conflicts_with = "out")]
    verify: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    words: Words,
}

impl Stage for Args {
    fn words(&self) -> &Words {
        &self.words
    }

    fn quiet(&self) -> bool {
        self.verify || self.words.quiet
    }

    fn run(self) -> Result<()> {
        let path = &self.path;
        let kind = kind(path)?;
        if self.output.dry_run {
            let what = if self.verify { "verify" } else { "describe" };
            return cli::print(&format!("{what} {} as {kind:?}\n", path.display()));
        }
        if self.verify {
            return verify(path, kind).map_err(failed);
        }
        let text = match kind {
            Kind::Parquet => parquet::describe(path),
            Kind::Safetensors => safetensors::describe(path),
            Kind::Json => json::describe(path),
            Kind::Shards => folder::describe_shards(path),
            Kind::Model => folder::describe_model(path),
        }?;
        match self.output.out {
            Some(out) => {
                artifact::refuse_overlap(path, &out)?;
                let _lock = Lock::of(&out)?;
                match out.exists() && !self.output.force {
                    true => Err(Error::Exists { path: out }),
                    false => artifact::write_bytes(&out, text.as_bytes()),
                }
            }
            None => cli::print(&text),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Parquet,
    Safetensors,
    Json,
    Shards,
    Model,
}

fn kind(path: &Path) -> Result<Kind> {
    if !path.exists() {
        return Err(Error::missing(path, "file or folder", "check the path"));
    }
    if path.is_dir() {
        if path.join(schema::DATASET_JSON).exists() {
            return Ok(Kind::Shards);
        }
        if path.join(schema::CONFIG_JSON).exists() || path.join(schema::WEIGHTS).exists() {
            return Ok(Kind::Model);
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
        _ => Err(Error::bad_data(
            path,
            "a parquet, safetensors or JSON file",
            "another kind",
            "see --help for what can be inspected",
        )),
    }
}

fn verify(path: &Path, kind: Kind) -> Result<()> {
    match kind {
        Kind::Parquet => parquet::verify(path),
        Kind::Safetensors => safetensors::verify(path),
        Kind::Json => json::read(path).map(drop),
        Kind::Shards => folder::verify_shards(path),
        Kind::Model => folder::verify_model(path),
    }
}

/// Bad content of a known kind of file is what `--verify` looks for.
fn failed(error: Error) -> Error {
    match error {
        Error::BadData { path, expected, found, .. } => {
            Error::Check { path, what: format!("expected {expected}, found {found}") }
        }
        other => other,
    }
}
