//! `s4l-export`: a model in the format of another library.

use crate::artifact::{self, Target, TemporaryFolder};
use crate::augment::Act;
use crate::cli::{self, Messages, Output, Stage};
use crate::error::{Error, Result};
use crate::evaluate::metrics::EvalSummary;
use crate::lineage::{Lineage, UNSEEDED};
use crate::lock::Lock;
use crate::model::export_card::{Card, Evaluation};
use crate::model::folder::{self, Model};
use crate::model::tensors::Tensor;
use crate::model::{onnx, timm};
use crate::recipe;
use crate::schema;
use crate::tables::table;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-export --model model --to huggingface --out share --eval eval.parquet
  python -c 'import timm; timm.create_model(\"local-dir:share\", pretrained=True)'
  python -c 'from transformers import pipeline; pipeline(\"image-classification\", model=\"./share\")'
  s4l-eval --in shards --model share --out back.parquet          reads it back
  s4l-export --model model --to onnx --out onnx                 onnx/model.onnx
huggingface writes a folder for timm and transformers: config.json, model.safetensors, README.md. Every stage takes
the folder as --model or --init. Its config.json describes the preparation in timm's terms. timm resizes with
Pillow, s4l as TensorFlow does; for the same pixels, logits are equal within 1e-4. A stem other than imagenet, or a
preparation that timm cannot express, is an error (78). onnx takes every stem and includes the preparation. Input:
bytes [batch, height, width, channels]; outputs: classes (logits) and representation.
Memory: five times the weights.";

/// Write a model for other libraries
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    /// Model to export
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = schema::MODEL)]
    model: PathBuf,
    /// Format to write
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// Evaluation of this model, for the figures in README.md
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    messages: Messages,
}

const TOOL: &str = "s4l-export";

/// Formats of other libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Folder for timm and Hugging Face's transformers; timm is another name
    #[value(alias = "timm")]
    Huggingface,
    /// Folder with an ONNX file of opset 17
    Onnx,
}

impl Format {
    /// The output path without `--out`.
    fn out(self) -> &'static str {
        match self {
            Format::Huggingface => schema::HUGGINGFACE,
            Format::Onnx => schema::ONNX,
        }
    }

    /// The files of an export.
    fn files(self) -> &'static [&'static str] {
        match self {
            Format::Huggingface => &[schema::CONFIG_JSON, schema::WEIGHTS, schema::MODEL_CARD],
            Format::Onnx => &[schema::ONNX_MODEL, schema::MODEL_CARD],
        }
    }

    /// The lineage of an export, or `None` if there is no undamaged one.
    fn header(self, out: &Path) -> Result<Option<HashMap<String, String>>> {
        match self {
            Format::Huggingface => folder::header(out),
            Format::Onnx => {
                Ok(Error::unless_unreadable(onnx::read(out))?.map(|read| read.metadata))
            }
        }
    }
}

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let out = self.output.out_or(self.to.out());
        let model = Model::open(&self.model)?;
        artifact::refuse_inputs(&out, [Some(self.model.as_path()), self.eval.as_deref()])?;
        let content = Content::of(self.to, &model)?;
        let mut lineage = Lineage::new(TOOL, UNSEEDED, content.recipe())
            .input(schema::input::MODEL, model.hash.clone());
        let mut evaluation = None;
        if let Some(path) = &self.eval {
            let (found, hash) = read_evaluation(path, &model)?;
            evaluation = Some(found);
            lineage = lineage.input(schema::input::EVALUATION, hash);
        }
        let words = content.words(&out, &model);
        if self.output.dry_run {
            return cli::print(&format!("{words}\n{}\n", content.plan(&model)));
        }
        let _lock = Lock::of(&out, self.output.update)?;
        refuse_foreign(&out, self.to)?;
        let found = self.to.header(&out)?;
        if artifact::target(&self.output, &out, &lineage, found)? == Target::UpToDate {
            return Ok(());
        }
        let card = Card {
            config: &model.config,
            hash: &model.hash,
            evaluation: evaluation.as_ref(),
            notes: content.notes(),
        };
        content.write(&out, &model, &card, &lineage)?;
        artifact::write_provenance(&out, start);
        cli::info(&words);
        content.notes().iter().for_each(|note| cli::info(note));
        Ok(())
    }
}

/// The figures of an evaluation, and the hash of its file. Errors: `BadData` unless it is of this model,
/// with the model's own preparation of images.
fn read_evaluation(path: &Path, model: &Model) -> Result<(Evaluation, String)> {
    let table = table::read(path, "s4l-eval")?;
    let value = |key: &str| table.metadata.get(key).map_or("", String::as_str);
    let input = |name: &str| value(&format!("{}{name}", schema::INPUT_PREFIX)).to_string();
    let hint = "s4l-eval --model makes one";
    let bad = |expected: String, found: String| Error::bad_data(path, expected, found, hint);
    let (found, name) = (input(schema::input::MODEL), model.path.display());
    if found != model.hash {
        let expected = format!("an evaluation of {name}, whose weights are {}", model.hash);
        return Err(bad(expected, format!("one of {found}")));
    }
    if value(schema::RECIPE_KEY) != recipe::hash(&model.config.settings.augment_eval) {
        let expected = format!("an evaluation by {name}'s own augment_eval");
        return Err(bad(expected, "one by another".to_string()));
    }
    let summary: EvalSummary = serde_json::from_str(value(schema::SUMMARY_KEY))
        .map_err(|e| bad("the summary of an evaluation".to_string(), e.to_string()))?;
    Ok((Evaluation { summary, shards: input(schema::input::SHARDS) }, table.hash.clone()))
}

/// `--force` replaces an export in the same format, never a folder with other files.
fn refuse_foreign(out: &Path, format: Format) -> Result<()> {
    let not_ours = |what: String| Error::NotOurs { path: out.to_path_buf(), what };
    if !artifact::exists(out)? {
        return Ok(());
    }
    let header = format.header(out)?.unwrap_or_default();
    if header.get(schema::TOOL_KEY).map(String::as_str) != Some(TOOL) {
        return Err(not_ours("an export in this format".to_string()));
    }
    for entry in std::fs::read_dir(out).map_err(Error::io(out))? {
        let name = entry.map_err(Error::io(out))?.file_name();
        if !format.files().iter().any(|file| name == *file) {
            return Err(not_ours(format!("a folder with only an export: {name:?} is in it")));
        }
    }
    Ok(())
}

/// The content to write in a format.
enum Content {
    Huggingface { config: Value, tensors: Vec<Tensor>, notes: Vec<String> },
    Onnx { notes: Vec<String> },
}

impl Content {
    /// Errors: `Recipe` if the format cannot express the model.
    fn of(format: Format, model: &Model) -> Result<Content> {
        Ok(match format {
            Format::Huggingface => {
                let (config, notes) = timm::to_config(&model.path, &model.config)?;
                Content::Huggingface { config, tensors: timm::tensors(&model.layout), notes }
            }
            Format::Onnx => {
                let acts = onnx::acts(&model.config.settings.augment_eval)?;
                let reduced =
                    acts.iter().any(|act| matches!(act, Act::Resize { reduced: true, .. }));
                let note = "Pixels are taken as they come, where dct_scaling decodes large JPEG files smaller";
                Content::Onnx { notes: reduced.then(|| note.to_string()).into_iter().collect() }
            }
        })
    }

    /// Together with the model, this determines the files.
    fn recipe(&self) -> String {
        match self {
            Content::Huggingface { config, .. } => recipe::hash(config),
            Content::Onnx { .. } => recipe::hash(&onnx::OPSET),
        }
    }

    fn notes(&self) -> &[String] {
        match self {
            Content::Huggingface { notes, .. } | Content::Onnx { notes } => notes,
        }
    }

    fn plan(&self, model: &Model) -> String {
        match self {
            Content::Huggingface { config, .. } => format!("{:#}", config["model_args"]),
            Content::Onnx { .. } => format!("prepared by {}", model.config.settings.augment_eval),
        }
    }

    fn words(&self, out: &Path, model: &Model) -> String {
        let what = match self {
            Content::Huggingface { tensors, .. } => {
                let values = |t: &Tensor| t.shape.iter().product::<usize>();
                let values: usize = tensors.iter().map(values).sum();
                format!("{} tensors, {values} values", tensors.len())
            }
            Content::Onnx { .. } => format!("opset {}", onnx::OPSET),
        };
        format!("{}: {what}, {} classes", out.display(), model.config.classes.len())
    }

    /// Writes the folder under a temporary name, then renames it.
    fn write(&self, out: &Path, model: &Model, card: &Card, lineage: &Lineage) -> Result<()> {
        let folder = TemporaryFolder::beside(out)?;
        let mut metadata = lineage.metadata();
        let card = match self {
            Content::Huggingface { config, tensors, .. } => {
                let (key, value) = schema::PYTORCH;
                metadata.insert(key.into(), value.into());
                let config = folder::to_json(config)?;
                let tensors = (&tensors[..], &timm::counters(&model.layout)[..]);
                folder::write_files(folder.path(), &config, &model.weights, tensors, metadata)?;
                card.huggingface()
            }
            Content::Onnx { .. } => {
                let path = folder.path().join(schema::ONNX_MODEL);
                artifact::write_bytes(&path, &onnx::bytes(model, metadata)?)?;
                card.onnx()
            }
        };
        artifact::write_bytes(&folder.path().join(schema::MODEL_CARD), card.as_bytes())?;
        if cli::stop_requested() {
            return Err(Error::Interrupted { path: out.to_path_buf() });
        }
        folder.commit(out)
    }
}
