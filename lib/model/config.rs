//! `config.json`.

use crate::error::Result;
use crate::network::Network;
use crate::network::device::Device;
use crate::network::engine::Precision;
use crate::network::layout::Architecture;
use crate::network::weights::Weights;
use crate::settings::Settings;
use serde::{Deserialize, Serialize};

/// `config.json`: what is needed to use the weights, and how they were made.
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

impl Config {
    /// The network of this configuration, to infer with. Errors: as `Network::new`.
    pub fn network(&self, device: Device, weights: Weights) -> Result<Network> {
        let size = (self.height, self.width);
        Network::new(&self.architecture, size, device, Precision::F32, weights)
    }
}
