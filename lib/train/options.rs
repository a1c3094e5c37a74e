//! The options that all training stages take.

use crate::cli::{Computing, InputShards, Output, Words};
use crate::error::Result;
use crate::network::engine::Precision;
use crate::recipe::Recipe;
use crate::settings::Settings;
use std::path::PathBuf;

/// The options that all training stages take: files, precision, and the groups of `cli` and `recipe`.
#[derive(Debug, clap::Args)]
pub struct TrainingOptions {
    #[command(flatten)]
    pub shards: InputShards,
    /// Held-out images with labels: never trained on, evaluated while training
    #[arg(long, value_name = "FILE")]
    pub val: Option<PathBuf>,
    /// Start from the weights of this model, or of a timm folder; of other classes, with a new head for them
    #[arg(long, value_name = "MODEL")]
    pub init: Option<PathBuf>,
    /// Store and multiply activations so, whatever the recipe says
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
    #[command(flatten)]
    pub recipe: Recipe,
    #[command(flatten)]
    pub computing: Computing,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub words: Words,
}

impl TrainingOptions {
    /// The recipe with what these options say in its place.
    pub fn settings(&self) -> Result<Settings> {
        let mut settings: Settings = self.recipe.load()?;
        settings.precision = self.precision.unwrap_or(settings.precision);
        Ok(settings)
    }
}
