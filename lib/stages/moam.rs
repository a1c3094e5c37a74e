//! `s4l-moam`: steps 2 and 3 of MOAM ("mix of all models"), and distillation into a student.

use crate::cli::{Common, Stage};
use crate::error::{Error, Result};
use crate::network::engine::Precision;
use crate::recipe;
use crate::settings::{Method, Settings};
use crate::train::labels::LabelFile;
use crate::train::prepare::Inputs;
use crate::train::{dry_run_without_data, train};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// MOAM step 2: every image has a (pseudo) label; starts from step 1's weights
    Retrain,
    /// MOAM step 3: the labelled images only; starts from step 2's weights
    Finetune,
    /// Train a network of any size on the soft labels of another
    Distill,
}

/// Retrain on pseudo labels, fine-tune on known ones, or distill
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-moam", version, before_help = EXAMPLES)]
pub struct Args {
    /// What to do
    #[arg(long, value_name = "STEP")]
    step: Step,
    /// Shards, as s4l-shard makes them
    #[arg(long = "in", value_name = "SHARDS", default_value = "shards")]
    input: PathBuf,
    /// Pseudo labels of all images, for retrain and distill
    #[arg(long, value_name = "FILE", conflicts_with = "labelled")]
    labels: Option<PathBuf>,
    /// Labelled images, for finetune
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Held-out images with labels: never trained on, evaluated while training
    #[arg(long, value_name = "FILE")]
    val: Option<PathBuf>,
    /// Start from the weights of this model, or of a timm folder as s4l-export writes it
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// Store and multiply activations so, whatever the recipe says
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
EXAMPLES
  s4l-moam --step retrain --in shards --labels labels.parquet --init model --recipe R.toml --out model2
  s4l-moam --step finetune --in shards --labelled labelled.parquet --init model2 --recipe R.toml --out model3
  s4l-moam --step distill --in shards --labels labels.parquet --recipe student.toml --out student
A run that is stopped (signal, --max-seconds) exits with 75 and goes on when started again.
Memory: see --dry-run.";

impl Stage for Args {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self) -> Result<()> {
        let mut settings: Settings = recipe::load(self.common.recipe.as_deref(), &self.common.set)?;
        settings.precision = self.precision.unwrap_or(settings.precision);
        if self.step == Step::Distill {
            settings.method = Method::Distill;
        }
        if dry_run_without_data(&self.common, &settings, &self.input)? {
            return Ok(());
        }
        let usage = |what: &str| Error::Usage(what.into());
        let labels = match self.step {
            Step::Finetune => LabelFile::Known(
                self.labelled
                    .ok_or_else(|| usage("--step finetune needs --labelled labelled.parquet"))?,
            ),
            Step::Retrain | Step::Distill => LabelFile::Pseudo {
                path: self.labels.ok_or_else(|| {
                    usage("this step needs --labels labels.parquet, see s4l-pseudolabel")
                })?,
                soft: self.step == Step::Distill,
            },
        };
        if self.step != Step::Distill && self.init.is_none() {
            return Err(usage("this step needs --init MODEL, the model of the step before"));
        }
        let Some(out) = self.common.out.clone() else {
            return Err(usage("--out MODEL: name the folder of the new model"));
        };
        train(
            &self.common,
            settings,
            Inputs {
                tool: "s4l-moam",
                shards: self.input,
                labels,
                validation: self.val,
                init: self.init,
                out,
            },
        )
    }
}
