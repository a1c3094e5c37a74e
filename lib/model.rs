//! A model folder: `config.json`, `model.safetensors` (written last), and what describes the run.

use crate::artifact::{self, Lineage};
use crate::error::{Error, Result};
use crate::network::Network;
use crate::network::layout::{Architecture, Layout};
use crate::plan::{Precision, Settings};
use crate::schema;
use candle_core::Device;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

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

/// A model on disk, its weights mapped into a network.
pub struct Model {
    pub path: PathBuf,
    pub config: Config,
    pub network: Network,
    /// Hash of `model.safetensors`.
    pub hash: String,
}

impl Model {
    /// Reads a model folder. Errors: `Missing`, or `BadData` where config and weights do not fit.
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
        let config: Config = serde_json::from_slice(&text).map_err(|e| {
            Error::bad_data(&config_path, "a model configuration", e.to_string(), hint)
        })?;
        let mut network = Network::new(
            &config.architecture,
            (config.height, config.width),
            device,
            Precision::F32,
            config.seed,
        );
        let bytes = std::fs::read(&weights).map_err(Error::io(&weights))?;
        let bad = |found: String| {
            Error::bad_data(&weights, "weights of config.json's network", found, hint)
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let layout = network.layout.clone();
        for (name, shape, range) in named(&layout) {
            let view = tensors.tensor(&name).map_err(|e| bad(e.to_string()))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                return Err(bad(format!(
                    "{name} of {:?} {:?}",
                    view.dtype(),
                    view.shape()
                )));
            }
            let (vector, range) = match range {
                Place::Parameters(r) => (&mut network.parameters, r),
                Place::Moving(r) => (&mut network.moving, r),
            };
            for (w, b) in vector[range].iter_mut().zip(view.data().chunks_exact(4)) {
                *w = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
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
            format!(
                "a model of the {} classes of {}",
                classes.len(),
                data.display()
            ),
            format!(
                "{} classes ({}..)",
                self.config.classes.len(),
                self.config.classes.first().map_or("", |c| c)
            ),
            "name the model that was trained on these shards",
        ))
    }
}

enum Place {
    Parameters(std::ops::Range<usize>),
    Moving(std::ops::Range<usize>),
}

/// Name, shape and place of every tensor of a model file.
fn named(layout: &Layout) -> Vec<(String, Vec<usize>, Place)> {
    let parameters = layout.tensors().into_iter();
    let moving = layout.moving_tensors().into_iter();
    parameters
        .map(|(n, s, r)| (n, s, Place::Parameters(r)))
        .chain(moving.map(|(n, len, r)| (n, vec![len], Place::Moving(r))))
        .collect()
}

/// Writes `config.json`, then `model.safetensors`.
pub fn write(path: &Path, config: &Config, network: &Network, lineage: &Lineage) -> Result<()> {
    let json = serde_json::to_string_pretty(config).map_err(|e| Error::Internal(e.to_string()))?;
    artifact::write_bytes(
        &path.join(schema::CONFIG_JSON),
        format!("{json}\n").as_bytes(),
    )?;
    let tensors: Vec<(String, Vec<usize>, &[f32])> = named(&network.layout)
        .into_iter()
        .map(|(name, shape, place)| match place {
            Place::Parameters(r) => (name, shape, &network.parameters[r]),
            Place::Moving(r) => (name, shape, &network.moving[r]),
        })
        .collect();
    let bytes = to_safetensors(&tensors, lineage.metadata())?;
    artifact::write_bytes(&path.join(schema::WEIGHTS), &bytes)
}

/// The header's key-value pairs of a model folder's weights, or `None` where there are none.
pub fn header(path: &Path) -> Option<HashMap<String, String>> {
    let bytes = std::fs::read(path.join(schema::WEIGHTS)).ok()?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).ok()?;
    metadata.metadata().clone()
}

/// A safetensors file of float32 tensors whose header has its keys in a fixed order (the library's
/// own order of metadata varies from run to run).
pub fn to_safetensors(
    tensors: &[(String, Vec<usize>, &[f32])],
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let internal = |e: String| Error::Internal(format!("safetensors: {e}"));
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., v)| v.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape, _), bytes)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
            Ok((name.clone(), view.map_err(|e| internal(e.to_string()))?))
        })
        .collect::<Result<Vec<_>>>()?;
    let bytes = safetensors::serialize(views, None).map_err(|e| internal(e.to_string()))?;
    let (n, _) = SafeTensors::read_metadata(&bytes).map_err(|e| internal(e.to_string()))?;
    let (header, body) = bytes[8..].split_at(n);
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|e| internal(e.to_string()))?;
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut header = serde_json::to_vec(&header).map_err(|e| internal(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([&(header.len() as u64).to_le_bytes()[..], &header, body].concat())
}
