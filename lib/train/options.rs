//! The options that all training stages take.

use crate::cli::{self, Computing, InputShards, Messages, Output};
use crate::error::Result;
use crate::network::engine::Precision;
use crate::recipe::{Recipe, SETTINGS};
use crate::settings::{self, Settings};
use std::path::PathBuf;
use std::time::Duration;

/// The options that all training stages take: files, precision, and the groups of `cli` and `recipe`.
#[derive(Debug, clap::Args)]
pub struct TrainingOptions {
    #[command(flatten)]
    pub shards: InputShards,
    /// Validation set: labelled images that are evaluated during training and never trained on
    #[arg(long, value_name = "FILE")]
    pub val: Option<PathBuf>,
    /// Start from the weights of this model folder or timm folder; the head is new if the classes differ
    #[arg(long, value_name = "MODEL")]
    pub init: Option<PathBuf>,
    /// Precision of the activations; overrides the recipe
    #[arg(long, value_name = "PRECISION")]
    precision: Option<Precision>,
    /// Write wall-clock times to the TensorBoard event file, which then differs from run to run
    /// [default: the step number]
    #[arg(long)]
    pub wall_times: bool,
    /// Also write a checkpoint whenever the last one is N minutes old
    #[arg(long, value_name = "N", value_parser = minutes)]
    pub checkpoint_minutes: Option<Duration>,
    /// End if the other ranks give nothing for N seconds
    #[cfg(feature = "mpi")]
    #[arg(long, value_name = "N", default_value_t = 300)]
    rank_timeout: u64,
    #[command(flatten)]
    pub recipe: Recipe,
    /// Print all settings with type, range and default, and stop
    #[arg(long = "settings", exclusive = true, help_heading = SETTINGS)]
    list: bool,
    #[command(flatten)]
    pub computing: Computing,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub messages: Messages,
}

/// A time in minutes, as 10 or 0.5.
fn minutes(text: &str) -> std::result::Result<Duration, String> {
    let minutes = text.parse().ok().filter(|&minutes: &f64| minutes > 0.0);
    let time = minutes.and_then(|minutes| Duration::try_from_secs_f64(60.0 * minutes).ok());
    time.ok_or("expected minutes above 0, as 10".to_string())
}

impl TrainingOptions {
    /// Prints the keys of a recipe, if that is asked for.
    pub fn lists_settings(&self) -> Result<bool> {
        if self.list {
            cli::print(&settings::listing()?)?;
        }
        Ok(self.list)
    }

    /// The longest time that a rank waits for the others.
    pub fn patience(&self) -> Duration {
        #[cfg(feature = "mpi")]
        return Duration::from_secs(self.rank_timeout);
        #[cfg(not(feature = "mpi"))]
        Duration::MAX
    }

    /// The recipe with what these options say in its place.
    pub fn settings(&self) -> Result<Settings> {
        let mut settings: Settings = self.recipe.load()?;
        settings.precision = self.precision.unwrap_or(settings.precision);
        Ok(settings)
    }
}
