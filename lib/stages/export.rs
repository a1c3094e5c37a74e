//! `s4l-export`: a model in the format of another library.

use crate::artifact::{self, Lineage, Target, TemporaryFolder};
use crate::cli::{self, Output, Stage, Words};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::model::folder::{self, Model};
use crate::model::tensors::Tensor;
use crate::model::timm;
use crate::schema;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-export --model model --to timm --out timm
  s4l-eval --in shards --model timm --out eval.parquet          and back
  python -c 'import timm; timm.create_model(\"local-dir:timm\", pretrained=True)'
Writes config.json and model.safetensors: the trunk, and the head of the classes. Every stage takes
such a folder as --model or --init. Memory: five times the weights.";

/// Write a model for another library
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    /// Model to export
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = schema::MODEL)]
    model: PathBuf,
    /// Format to write
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    words: Words,
}

const TOOL: &str = "s4l-export";

/// Formats of other libraries.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// timm's ResNetV2, for `timm.create_model("local-dir:DIR", pretrained=True)`
    Timm,
}

impl Stage for Args {
    fn words(&self) -> &Words {
        &self.words
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let out = self.output.out_or(schema::TIMM);
        let model = Model::open(&self.model)?;
        artifact::refuse_overlap(&self.model, &out)?;
        let Format::Timm = self.to;
        let config = timm::to_config(&self.model, &model.config)?;
        let tensors = timm::tensors(&model.layout);
        let words = words(&out, &tensors, &model);
        if self.output.dry_run {
            return cli::print(&format!("{words}\n{:#}\n", config["model_args"]));
        }
        let lineage =
            Lineage::without_settings(TOOL).input(schema::input::MODEL, model.hash.clone());
        let _lock = Lock::of(&out, self.output.update)?;
        refuse_foreign(&out)?;
        let found = folder::header(&out);
        if artifact::target(&self.output, &out, &lineage, found)? == Target::UpToDate {
            return Ok(());
        }
        write(&out, &config, &model, &tensors, &lineage)?;
        artifact::write_provenance(&out, start);
        cli::info(&words);
        Ok(())
    }
}

/// `--force` replaces an export, never a folder of something else.
fn refuse_foreign(out: &Path) -> Result<()> {
    let header = folder::header(out).unwrap_or_default();
    let tool = header.get(schema::TOOL_KEY).map(String::as_str);
    let not_ours = |what: String| Error::NotOurs { path: out.to_path_buf(), what };
    if !out.exists() {
        return Ok(());
    }
    if tool != Some(TOOL) {
        return Err(not_ours("an export".to_string()));
    }
    for entry in std::fs::read_dir(out).map_err(Error::io(out))? {
        let name = entry.map_err(Error::io(out))?.file_name();
        if name != schema::CONFIG_JSON && name != schema::WEIGHTS {
            return Err(not_ours(format!("an export alone, as {name:?} is in it")));
        }
    }
    Ok(())
}

/// Writes the folder under a temporary name, and gives it its own when all is in it.
fn write(
    out: &Path,
    config: &Value,
    model: &Model,
    tensors: &[Tensor],
    lineage: &Lineage,
) -> Result<()> {
    let folder = TemporaryFolder::beside(out)?;
    let mut metadata = lineage.metadata();
    let (key, value) = schema::PYTORCH;
    metadata.insert(key.into(), value.into());
    let config = folder::to_json(config)?;
    folder::write_files(folder.path(), &config, &model.weights, tensors, metadata)?;
    if cli::stop_requested() {
        return Err(Error::Interrupted { path: out.to_path_buf() });
    }
    folder.commit(out)
}

fn words(out: &Path, tensors: &[Tensor], model: &Model) -> String {
    let values: usize = tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum();
    format!(
        "{}: {} tensors, {values} values, {} classes",
        out.display(),
        tensors.len(),
        model.config.classes.len()
    )
}
