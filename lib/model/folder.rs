//! A model folder: `config.json`, `model.safetensors` (written last), and what describes the run.

use super::config::Config;
use super::tensors::{Tensor, can_hold, tensors, to_safetensors};
use super::timm;
use crate::artifact::{self, Lineage};
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use crate::network::Network;
use crate::network::engine::Precision;
use crate::network::layout::Layout;
use crate::schema;
use candle_core::Device;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A model on disk, its weights mapped into a network.
pub struct Model {
    pub path: PathBuf,
    pub config: Config,
    pub network: Network,
    /// Hash of `model.safetensors`.
    pub hash: String,
}

impl Model {
    /// Reads a model folder, or one in timm's format. Errors: `Missing`, or `BadData` where config
    /// and weights do not fit.
    pub fn open(path: &Path, device: &Device) -> Result<Model> {
        let hint = "s4l-pretrain or s4l-moam makes a model";
        let weights = path.join(schema::WEIGHTS);
        if !weights.is_file() {
            return Err(Error::missing(&weights, "model", hint));
        }
        let config_path = path.join(schema::CONFIG_JSON);
        let text = std::fs::read(&config_path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::missing(&config_path, "model", hint),
            _ => Error::io(&config_path)(e),
        })?;
        let config_error =
            |found: String| Error::bad_data(&config_path, "a model configuration", found, hint);
        let json: Value = serde_json::from_slice(&text).map_err(|e| config_error(e.to_string()))?;
        let bytes = std::fs::read(&weights).map_err(Error::io(&weights))?;
        let bad = |found: String| {
            Error::bad_data(&weights, "weights of config.json's network", found, hint)
        };
        let found = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let foreign = timm::is_config(&json);
        let config: Config = if foreign {
            timm::config(&config_path, json, &found)?
        } else {
            serde_json::from_value(json).map_err(|e| config_error(e.to_string()))?
        };
        if !can_hold(&found, &config.architecture) {
            return Err(bad("those of a smaller one".to_string()));
        }
        let (height, width) = (config.height, config.width);
        if !(1..=MAX_PIXELS).contains(&height.saturating_mul(width)) {
            return Err(config_error(format!("images of {height}x{width}")));
        }
        let layout = Layout::new(&config.architecture);
        let tensors = match foreign {
            true => timm::tensors(&layout),
            false => tensors(&layout),
        };
        // Checked before there is a network, which is as large as the configuration says.
        let mut views = Vec::with_capacity(tensors.len());
        for Tensor { name, shape, .. } in &tensors {
            let view = found.tensor(name).map_err(|e| bad(e.to_string()))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                return Err(bad(format!("{name} of {:?} {:?}", view.dtype(), view.shape())));
            }
            views.push(view);
        }
        let mut network = Network::new(
            &config.architecture,
            (height, width),
            device,
            Precision::F32,
            config.seed,
        );
        for (tensor, view) in tensors.iter().zip(views) {
            let (values, _) = view.data().as_chunks::<4>();
            let values = values.iter().map(|b| f32::from_le_bytes(*b));
            tensor.place.set(&mut network, values);
        }
        Ok(Model {
            hash: artifact::hash_file(&weights)?,
            path: path.to_path_buf(),
            config,
            network,
        })
    }

    /// Errors unless the model's classes are those of the data set.
    pub fn check_classes(&self, classes: &[String], data: &Path) -> Result<()> {
        if self.config.classes == classes {
            return Ok(());
        }
        Err(Error::bad_data(
            &self.path,
            format!("a model of the {} classes of {}", classes.len(), data.display()),
            format!(
                "{} classes ({}..)",
                self.config.classes.len(),
                self.config.classes.first().map_or("", |c| c)
            ),
            "name the model that was trained on these shards",
        ))
    }
}

/// Writes `config.json`, then `model.safetensors`.
pub fn write(path: &Path, config: &Config, network: &Network, lineage: &Lineage) -> Result<()> {
    let tensors = tensors(&network.layout);
    write_files(path, config, network, &tensors, lineage.metadata())
}

/// `write` with the configuration and the tensors of any format.
pub fn write_files(
    path: &Path,
    config: &impl Serialize,
    network: &Network,
    tensors: &[Tensor],
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    let json = serde_json::to_string_pretty(config).map_err(|e| Error::Internal(e.to_string()))?;
    artifact::write_bytes(&path.join(schema::CONFIG_JSON), format!("{json}\n").as_bytes())?;
    let values: Vec<Cow<[f32]>> = tensors.iter().map(|t| t.place.get(network)).collect();
    let tensors: Vec<(String, Vec<usize>, &[f32])> = tensors
        .iter()
        .zip(&values)
        .map(|(t, values)| (t.name.clone(), t.shape.clone(), &values[..]))
        .collect();
    let bytes = to_safetensors(&tensors, metadata)?;
    artifact::write_bytes(&path.join(schema::WEIGHTS), &bytes)
}

/// The header's key-value pairs of a model folder's weights, or `None` where there are none.
pub fn header(path: &Path) -> Option<HashMap<String, String>> {
    let bytes = std::fs::read(path.join(schema::WEIGHTS)).ok()?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).ok()?;
    metadata.metadata().clone()
}
