//! A model folder: `config.json`, `model.safetensors` (written last), and what describes the run.

use super::config::Config;
use super::tensors::{Tensor, can_hold, tensors, to_safetensors};
use super::timm;
use crate::artifact::{self, Lineage};
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use crate::network::layout::Layout;
use crate::network::weights::Weights;
use crate::schema;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A model on disk.
pub struct Model {
    pub path: PathBuf,
    pub config: Config,
    pub layout: Layout,
    pub weights: Weights,
    /// Hash of `model.safetensors`.
    pub hash: String,
}

/// Who makes what was not found.
const HINT: &str = "s4l-pretrain or s4l-moam makes a model";

impl Model {
    /// Reads a model folder, or one in timm's format. Errors: `Missing`, or `BadData` where config
    /// and weights do not fit.
    pub fn open(path: &Path) -> Result<Model> {
        let file = path.join(schema::WEIGHTS);
        if !file.is_file() {
            return Err(Error::missing(&file, "model", HINT));
        }
        let config_path = path.join(schema::CONFIG_JSON);
        let json = read_json(&config_path)?;
        let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
        let bad = |found: String| bad_weights(&file, found);
        let found = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let foreign = timm::is_config(&json);
        let config: Config = if foreign {
            timm::config(&config_path, json, &found)?
        } else {
            serde_json::from_value(json).map_err(|e| bad_config(&config_path, e.to_string()))?
        };
        if !can_hold(&found, &config.architecture) {
            return Err(bad("those of a smaller one".to_string()));
        }
        let (height, width) = (config.height, config.width);
        if !(1..=MAX_PIXELS).contains(&height.saturating_mul(width)) {
            return Err(bad_config(&config_path, format!("images of {height}x{width}")));
        }
        let layout = Layout::new(&config.architecture);
        let tensors = match foreign {
            true => timm::tensors(&layout),
            false => tensors(&layout),
        };
        Ok(Model {
            weights: read_weights(&file, &found, &layout, &tensors)?,
            hash: artifact::hash_file(&file)?,
            path: path.to_path_buf(),
            config,
            layout,
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

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::missing(path, "model", HINT),
        _ => Error::io(path)(e),
    })?;
    serde_json::from_slice(&text).map_err(|e| bad_config(path, e.to_string()))
}

/// The weights of a layout from the tensors that hold them.
fn read_weights(
    file: &Path,
    found: &SafeTensors,
    layout: &Layout,
    tensors: &[Tensor],
) -> Result<Weights> {
    // Checked before there is room for the weights, which takes as much as the configuration says.
    let mut views = Vec::with_capacity(tensors.len());
    for Tensor { name, shape, .. } in tensors {
        let view = found.tensor(name).map_err(|e| bad_weights(file, e.to_string()))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            let found = format!("{name} of {:?} {:?}", view.dtype(), view.shape());
            return Err(bad_weights(file, found));
        }
        views.push(view);
    }
    let mut weights = Weights::zeros(layout);
    for (tensor, view) in tensors.iter().zip(views) {
        let (values, _) = view.data().as_chunks::<4>();
        let values = values.iter().map(|b| f32::from_le_bytes(*b));
        tensor.place.set(&mut weights, values);
    }
    Ok(weights)
}

fn bad_config(path: &Path, found: String) -> Error {
    Error::bad_data(path, "a model configuration", found, HINT)
}

fn bad_weights(path: &Path, found: String) -> Error {
    Error::bad_data(path, "weights of config.json's network", found, HINT)
}

/// Writes `config.json`, then `model.safetensors`.
pub fn write(path: &Path, config: &Config, weights: &Weights, lineage: &Lineage) -> Result<()> {
    let tensors = tensors(&Layout::new(&config.architecture));
    write_files(path, config, weights, &tensors, lineage.metadata())
}

/// `write` with the configuration and the tensors of any format.
pub fn write_files(
    path: &Path,
    config: &impl Serialize,
    weights: &Weights,
    tensors: &[Tensor],
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    let json = serde_json::to_string_pretty(config).map_err(|e| Error::Internal(e.to_string()))?;
    artifact::write_bytes(&path.join(schema::CONFIG_JSON), format!("{json}\n").as_bytes())?;
    let values: Vec<Cow<[f32]>> = tensors.iter().map(|t| t.place.get(weights)).collect();
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
