//! `s4l-moam`: steps 2 and 3 of MOAM ("mix of all models"), and distillation into a student.

use crate::cli::{Limits, Messages, Stage};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::settings::Method;
use crate::train::join;
use crate::train::labels::LabelFile;
use crate::train::options::TrainingOptions;
use crate::train::prepare::Inputs;
use crate::train::{dry_run_without_data, train};
use std::path::PathBuf;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-moam --step retrain --in shards --labels labels.parquet --init model --recipe R.toml --out model2
  s4l-moam --step finetune --in shards --labelled labelled.parquet --init model2 --recipe R.toml --out model3
  s4l-moam --step distill --in shards --labels labels.parquet --recipe student.toml --out student
  s4l-moam --settings
A run that is stopped by a signal or --max-seconds exits with 75; start it again and it continues.
Memory: --dry-run prints how much.";

/// Retrain on pseudo labels, fine-tune on known labels, or distill
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-moam", version, before_help = EXAMPLES)]
pub struct Args {
    /// Step to run
    #[arg(long, value_name = "STEP", required = true)]
    step: Option<Step>,
    /// Pseudo labels of all images, for retrain and distill
    #[arg(long, value_name = "FILE", conflicts_with = "labelled")]
    labels: Option<PathBuf>,
    /// Labelled images, for finetune
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    #[command(flatten)]
    options: TrainingOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// MOAM step 2: train on a known or pseudo label of every image, from the weights of step 1
    Retrain,
    /// MOAM step 3: train on the labelled images only, from the weights of step 2
    Finetune,
    /// Train a network of any size on the soft labels of another network
    Distill,
}

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.options.messages
    }

    fn limits(&self) -> Limits {
        self.options.computing.limits
    }

    fn is_part(&self) -> bool {
        join::ARE_POSSIBLE
    }

    fn tells_usage() -> bool {
        join::is_first()
    }

    fn run(self) -> Result<()> {
        join::together(self.options.patience(), |ranks| self.train(ranks))
    }
}

impl Args {
    fn train(self, ranks: &Ranks) -> Result<()> {
        if self.options.lists_settings()? {
            return Ok(());
        }
        let step = self.step.ok_or_else(|| usage("--step: retrain, finetune or distill"))?;
        let mut settings = self.options.settings()?;
        if step == Step::Distill {
            settings.method = Method::Distill;
        }
        let names_labels = self.labels.is_some() || self.labelled.is_some();
        if dry_run_without_data(&self.options, &settings, names_labels)? {
            return Ok(());
        }
        let labels = self.labels(step)?;
        if step != Step::Distill && self.options.init.is_none() {
            return Err(usage("this step needs --init MODEL, the model of the step before"));
        }
        let Some(out) = self.options.output.out.clone() else {
            return Err(usage("--out MODEL: name the folder of the new model"));
        };
        train(&self.options, settings, Inputs { tool: "s4l-moam", labels, out }, ranks)
    }

    /// The labels that the step trains on.
    fn labels(&self, step: Step) -> Result<LabelFile> {
        match (step, &self.labelled, &self.labels) {
            (Step::Finetune, Some(path), _) => Ok(LabelFile::Known(path.clone())),
            (Step::Finetune, None, _) => {
                Err(usage("--step finetune needs --labelled labelled.parquet"))
            }
            (step, _, Some(path)) => {
                Ok(LabelFile::Pseudo { path: path.clone(), soft: step == Step::Distill })
            }
            (_, _, None) => {
                Err(usage("this step needs --labels labels.parquet, see s4l-pseudolabel"))
            }
        }
    }
}

fn usage(what: &str) -> Error {
    Error::Usage(what.into())
}
