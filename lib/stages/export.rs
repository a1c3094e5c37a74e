//! `s4l-export`: a model in the format of another library.

use crate::artifact::{self, Lineage, Target};
use crate::cli::{self, Common, Stage};
use crate::error::{Error, Result};
use crate::model::folder::{self, Model};
use crate::model::timm;
use crate::recipe::{self, NoSettings};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Formats of other libraries.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// timm's ResNetV2, for `timm.create_model("local-dir:DIR", pretrained=True)`
    Timm,
}

/// Write a model for another library
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-export", version, before_help = EXAMPLES)]
pub struct Args {
    /// Model to export
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = "model")]
    model: PathBuf,
    /// Format to write
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
EXAMPLES
  s4l-export --model model --to timm --out timm
  s4l-eval --in shards --model timm --out eval.parquet          and back
  python -c 'import timm; timm.create_model(\"local-dir:timm\", pretrained=True)'
Writes config.json and model.safetensors: the trunk, and the head of the classes. Every stage takes
such a folder as --model or --init. Memory: five times the weights.";

impl Stage for Args {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        recipe::load::<NoSettings>(self.common.recipe.as_deref(), &self.common.set)?;
        let out = self.common.out_or("timm");
        let model = Model::open(&self.model)?;
        artifact::refuse_overlap(&self.model, &out)?;
        let Format::Timm = self.to;
        let config = timm::to_config(&self.model, &model.config)?;
        let tensors = timm::tensors(&model.layout);
        let values: usize = tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum();
        let words = format!(
            "{}: {} tensors, {values} values, {} classes",
            out.display(),
            tensors.len(),
            model.config.classes.len()
        );
        if self.common.dry_run {
            return cli::print(&format!("{words}\n{:#}\n", config["model_args"]));
        }
        let lineage = Lineage::new("s4l-export", self.common.seed, recipe::hash(&NoSettings {}))
            .input("model", model.hash.clone());
        refuse_foreign(&out)?;
        if artifact::target(&self.common, &out, &lineage, folder::header(&out))? == Target::UpToDate
        {
            return Ok(());
        }
        let folder = artifact::temporary_folder(&out)?;
        let mut metadata = lineage.metadata();
        // Says to Hugging Face's loaders that the tensors are PyTorch's.
        metadata.insert("format".into(), "pt".into());
        folder::write_files(folder.path(), &config, &model.weights, &tensors, metadata)?;
        if cli::stop_requested() {
            return Err(Error::Interrupted { path: out });
        }
        artifact::commit_folder(folder.path(), &out)?;
        // It has moved: there is nothing left to remove under its temporary name.
        let _ = folder.keep();
        artifact::write_provenance(&out, &self.common, start)?;
        cli::info(&words);
        Ok(())
    }
}

/// `--force` replaces an export, never a folder of something else.
fn refuse_foreign(out: &Path) -> Result<()> {
    let header = folder::header(out).unwrap_or_default();
    let tool = header.get("s4l.tool").map(String::as_str);
    if !out.exists() || tool == Some("s4l-export") {
        return Ok(());
    }
    Err(Error::NotOurs { path: out.to_path_buf(), what: "an export".to_string() })
}
