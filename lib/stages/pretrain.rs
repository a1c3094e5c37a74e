//! `s4l-pretrain`: trains a classifier from few labels by one of the paper's methods.

use crate::cli::{Common, Stage};
use crate::error::{Error, Result};
use crate::methods;
use crate::network::engine::Precision;
use crate::recipe;
use crate::settings::{Method, Settings, method_name};
use crate::train::labels::LabelFile;
use crate::train::prepare::Inputs;
use crate::train::{dry_run_without_data, train};
use std::path::PathBuf;

/// Train a classifier from few labels and many images
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-pretrain", version, before_help = EXAMPLES)]
pub struct Args {
    /// Shards, as s4l-shard makes them
    #[arg(long = "in", value_name = "SHARDS", default_value = "shards")]
    input: PathBuf,
    /// Labelled images: the only labels that are trained on
    #[arg(long, value_name = "FILE", required_unless_present_any = ["labels", "dry_run"])]
    labelled: Option<PathBuf>,
    /// Train on pseudo labels (labels.parquet of s4l-pseudolabel) in place of --labelled
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Held-out images with labels: never trained on, evaluated while training
    #[arg(long, value_name = "FILE")]
    val: Option<PathBuf>,
    /// Start from the weights of this model, or of a timm folder as s4l-export writes it
    #[arg(long, value_name = "MODEL")]
    init: Option<PathBuf>,
    /// Train by this method, whatever the recipe says
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    /// Store and multiply activations so, whatever the recipe says
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
EXAMPLES
  s4l-pretrain --in shards --labelled labelled.parquet --recipe pipelines/fashion/moam_step1.toml --out model
  s4l-pretrain --in shards --labelled labelled.parquet --recipe R.toml --set learning_rate=0.05 --dry-run
  s4l-pretrain --recipe pipelines/imagenet/moam_step1.toml --dry-run
A run that is stopped (signal, --max-seconds) exits with 75 and goes on when started again.
Memory: see --dry-run.";

impl Stage for Args {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self) -> Result<()> {
        let mut settings: Settings = recipe::load(self.common.recipe.as_deref(), &self.common.set)?;
        settings.method = self.method.unwrap_or(settings.method);
        settings.precision = self.precision.unwrap_or(settings.precision);
        if methods::needs_soft_labels(settings.method) {
            let name = method_name(settings.method);
            let what = format!("method {name} needs soft labels: see s4l-moam --step distill");
            return Err(Error::Usage(what));
        }
        if dry_run_without_data(&self.common, &settings, &self.input)? {
            return Ok(());
        }
        let labels = match (self.labels, self.labelled) {
            (Some(path), _) => LabelFile::Pseudo { path, soft: false },
            (None, Some(path)) => LabelFile::Known(path),
            (None, None) => {
                let what = "name the labelled images: --labelled labelled.parquet";
                return Err(Error::Usage(what.into()));
            }
        };
        train(
            &self.common,
            settings,
            Inputs {
                tool: "s4l-pretrain",
                shards: self.input,
                labels,
                validation: self.val,
                init: self.init,
                out: self.common.out_or("model"),
            },
        )
    }
}
