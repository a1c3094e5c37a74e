//! `README.md` of an export: a Hugging Face model card.

use super::config::Config;
use crate::evaluate::metrics::EvalSummary;
use crate::markdown::escape;
use crate::schema::{head, onnx};
use crate::settings::method_name;
use serde_json::{Value, json};
use std::fmt::Write;

/// The facts about the model that a card states.
pub struct Card<'a> {
    pub config: &'a Config,
    /// Hash of the exported weights.
    pub hash: &'a str,
    pub evaluation: Option<&'a Evaluation>,
    /// The differences of the preparation from that of `s4l-eval`.
    pub notes: &'a [String],
}

/// An evaluation of the model.
pub struct Evaluation {
    pub summary: EvalSummary,
    /// Hash of the images.
    pub shards: String,
}

const TIMM: &str = "\
```python
import timm
model = timm.create_model(\"local-dir:FOLDER\", pretrained=True).eval()
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(prepare(picture)[None])

from transformers import pipeline
classify = pipeline(\"image-classification\", model=\"FOLDER\")
```
`FOLDER` is this folder, and begins with `./` for transformers. Every stage of s4l takes it as `--model`.
";

impl Card<'_> {
    pub fn huggingface(&self) -> String {
        let mut text = self.start("timm", &["timm", "transformers"]) + TIMM + "\n";
        if !self.notes.is_empty() {
            text += "Preparation by `config.json`, beside that of s4l-eval:\n\n";
            self.notes.iter().for_each(|note| text += &format!("- {}.\n", escape(note)));
            text += "\n";
        }
        text + &self.end()
    }

    pub fn onnx(&self) -> String {
        let usage = format!(
            "```python\n\
             import numpy, onnxruntime\n\
             session = onnxruntime.InferenceSession(\"FOLDER/model.onnx\")\n\
             images = numpy.asarray(picture)[None]  # bytes [batch, height, width, {}]\n\
             logits, representation = session.run([\"{}\", \"{}\"], {{\"{}\": images}})\n\
             ```\n\
             The preparation is inside: images of any size, those of a batch of one. `{}` in the graph is what \
             the network is given; the names of the classes are in the metadata, `s4l.classes`.\n\n",
            self.config.architecture.channels,
            head::CLASSES,
            onnx::REPRESENTATION,
            onnx::IMAGES,
            onnx::PREPARED,
        );
        let mut text = self.start("onnx", &["onnx"]) + &usage;
        self.notes.iter().for_each(|note| text += &format!("{}.\n\n", escape(note)));
        text + &self.end()
    }

    /// The front matter in YAML (JSON is valid YAML), and the first lines.
    fn start(&self, library: &str, tags: &[&str]) -> String {
        let mut text =
            format!("---\nlibrary_name: {library}\npipeline_tag: image-classification\n");
        let tags: Vec<&str> = ["image-classification"].into_iter().chain(tags.to_vec()).collect();
        let _ = writeln!(text, "tags: {}", json!(tags));
        if let Some(evaluation) = self.evaluation {
            let _ = writeln!(text, "model-index: {}", self.index(evaluation));
        }
        let (c, s) = (self.config, &self.config.settings);
        let _ = write!(
            text,
            "---\n\n# {} classifier\n\n\
             ResNet-v2, {:?} units, width factor {}, for {}x{}x{} images; {} classes: {}.\n\n",
            method_name(s.method),
            s.units,
            s.width_factor,
            c.height,
            c.width,
            c.architecture.channels,
            c.classes.len(),
            escape(&c.classes.join(", "))
        );
        text
    }

    fn index(&self, Evaluation { summary, shards }: &Evaluation) -> Value {
        let s = &summary.unrotated;
        let metric = |kind: &str, name: &str, value: f64| json!({"type": kind, "name": name, "value": value});
        json!([{
            "name": method_name(self.config.settings.method),
            "results": [{
                "task": {"type": "image-classification"},
                "dataset": {
                    "type": "images",
                    "name": format!("{} images of {}, shards {shards}", s.images, summary.split),
                    "split": summary.split,
                },
                "metrics": [
                    metric("accuracy", "top-1", s.top1),
                    metric("accuracy", "top-5", s.top5),
                    metric("balanced_accuracy", "balanced accuracy", s.balanced_accuracy),
                    metric("nll", "negative log likelihood", s.nll),
                    metric("expected_calibration_error", "ECE", s.ece),
                ],
            }],
        }])
    }

    fn end(&self) -> String {
        let c = self.config;
        let mut text = String::new();
        if let Some(Evaluation { summary, .. }) = self.evaluation {
            let s = &summary.unrotated;
            let _ = write!(
                text,
                "Top-1 {:.2} % (95 % interval {:.2} to {:.2}) on {} images of `{}`.\n\n",
                100.0 * s.top1,
                100.0 * s.top1_low,
                100.0 * s.top1_high,
                s.images,
                escape(&summary.split)
            );
        }
        let _ = writeln!(
            text,
            "Trained by s4l with method `{}`, seed {}; weights `{}`. Images are prepared by `{}`.",
            method_name(c.settings.method),
            c.seed,
            self.hash,
            c.settings.augment_eval
        );
        text
    }
}
