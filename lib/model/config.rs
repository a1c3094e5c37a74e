//! `config.json`.

use crate::network::layout::Architecture;
use crate::settings::Settings;
use serde::{Deserialize, Serialize};

/// `config.json`: all that is needed to use the weights, and how they were made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub architecture: Architecture,
    pub height: usize,
    pub width: usize,
    /// Names of the classes, in the order of the `classes` head.
    pub classes: Vec<String>,
    pub seed: u64,
    pub settings: Settings,
}
