//! `s4l-pretrain`: trains a classifier from few labels by one of the paper's methods.

use crate::cli::{Limits, Messages, Stage};
use crate::error::{Error, Result};
use crate::methods;
use crate::ranks::Ranks;
use crate::schema;
use crate::settings::{Method, method_name};
use crate::train::join;
use crate::train::labels::LabelFile;
use crate::train::options::TrainingOptions;
use crate::train::prepare::Inputs;
use crate::train::{dry_run_without_data, train};
use std::path::PathBuf;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-pretrain --in shards --labelled labelled.parquet --recipe pipelines/fashion/moam_step1.toml --out model
  s4l-pretrain --in shards --labelled labelled.parquet --recipe R.toml --set learning_rate=0.05 --dry-run
  s4l-pretrain --recipe pipelines/imagenet/moam_step1.toml --dry-run
  s4l-pretrain --settings
A run that is stopped by a signal or --max-seconds exits with 75; start it again and it continues.
Memory: --dry-run prints how much.";

/// Train a classifier from few labels and many images
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-pretrain", version, before_help = EXAMPLES)]
pub struct Args {
    /// Labelled images; training sees no other labels
    #[arg(long, value_name = "FILE", required_unless_present_any = ["labels", "dry_run"])]
    labelled: Option<PathBuf>,
    /// Train on pseudo labels (a labels.parquet of s4l-pseudolabel) instead of --labelled
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Method; overrides the recipe
    #[arg(long, value_name = "METHOD")]
    method: Option<Method>,
    #[command(flatten)]
    options: TrainingOptions,
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
        let mut settings = self.options.settings()?;
        settings.method = self.method.unwrap_or(settings.method);
        if methods::needs_soft_labels(settings.method) {
            let name = method_name(settings.method);
            let what = format!("method {name} needs soft labels: see s4l-moam --step distill");
            return Err(Error::Usage(what));
        }
        let names_labels = self.labels.is_some() || self.labelled.is_some();
        if dry_run_without_data(&self.options, &settings, names_labels)? {
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
        let out = self.options.output.out_or(schema::MODEL);
        train(&self.options, settings, Inputs { tool: "s4l-pretrain", labels, out }, ranks)
    }
}
