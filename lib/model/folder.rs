//! A model folder: `config.json`, `model.safetensors` (written last), and what describes the run.

use super::config::Config;
use super::tensors::{Tensor, can_hold, tensors, to_safetensors};
use super::timm;
use crate::artifact::{self, Lineage};
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use crate::network::Network;
use crate::network::device::Device;
use crate::network::engine::Precision;
use crate::network::layout::Layout;
use crate::network::weights::Weights;
use crate::schema;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorView};
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io::Read;
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

/// What to do about a model that cannot be read.
const HINT: &str = "s4l-pretrain or s4l-moam makes a model";

/// Bytes that the header of a weights file has at most, as in the library.
const MAX_HEADER: u64 = 100_000_000;

impl Model {
    /// Reads a model folder, or one in timm's format. Errors: `Missing`, or `BadData` when config
    /// and weights do not fit.
    pub fn open(path: &Path) -> Result<Model> {
        let weights = path.join(schema::WEIGHTS);
        if !weights.is_file() {
            return Err(Error::missing(&weights, "model", HINT));
        }
        let json = read_json(path)?;
        let bytes = std::fs::read(&weights).map_err(Error::io(&weights))?;
        let found = SafeTensors::deserialize(&bytes).map_err(|e| bad_weights(path, e))?;
        let foreign = timm::is_config(&json);
        let config = match foreign {
            true => timm::config(&path.join(schema::CONFIG_JSON), json, &found)?,
            false => serde_json::from_value(json).map_err(|e| bad_config(path, e))?,
        };
        check_size(path, &config, &found)?;
        let layout = Layout::new(&config.architecture);
        let tensors = match foreign {
            true => timm::tensors(&layout),
            false => tensors(&layout),
        };
        // Checked before there is room for the weights, which takes as much as the configuration says.
        let views = views(path, &tensors, &found)?;
        let mut weights = Weights::zeros(&layout);
        for (tensor, view) in tensors.iter().zip(views) {
            let (values, _) = view.data().as_chunks::<4>();
            let values = values.iter().map(|b| f32::from_le_bytes(*b));
            tensor.place.set(&mut weights, values);
        }
        let mut all = weights.parameters.iter().chain(&weights.moving);
        if let Some(weight) = all.find(|weight| !weight.is_finite()) {
            return Err(bad_weights(path, format!("a weight that is {weight}")));
        }
        let hash = schema::short_hash(&blake3::hash(&bytes));
        Ok(Model { hash, path: path.to_path_buf(), config, layout, weights })
    }

    /// The network of this model, to infer with. Errors: as `Network::new`.
    pub fn network(&self, device: Device) -> Result<Network> {
        let Config { architecture, height, width, .. } = &self.config;
        let size = (*height, *width);
        Network::new(architecture, size, device, Precision::F32, self.weights.clone())
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

fn bad_config(model: &Path, found: impl Display) -> Error {
    let path = model.join(schema::CONFIG_JSON);
    Error::bad_data(&path, "a model configuration", found.to_string(), HINT)
}

fn bad_weights(model: &Path, found: impl Display) -> Error {
    let path = model.join(schema::WEIGHTS);
    Error::bad_data(&path, "weights of config.json's network", found.to_string(), HINT)
}

/// `config.json` of a model folder, in whichever format.
fn read_json(model: &Path) -> Result<Value> {
    let path = model.join(schema::CONFIG_JSON);
    let text = std::fs::read(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::missing(&path, "model", HINT),
        _ => Error::io(&path)(e),
    })?;
    serde_json::from_slice(&text).map_err(|e| bad_config(model, e))
}

/// Errors unless the weights are as large as the network needs, and its images of a size.
fn check_size(model: &Path, config: &Config, found: &SafeTensors) -> Result<()> {
    if !can_hold(found, &config.architecture) {
        return Err(bad_weights(model, "those of a smaller one"));
    }
    let (height, width) = (config.height, config.width);
    if !(1..=MAX_PIXELS).contains(&height.saturating_mul(width)) {
        return Err(bad_config(model, format!("images of {height}x{width}")));
    }
    Ok(())
}

/// What a weights file has for each of `tensors`, in their order.
fn views<'a>(
    model: &Path,
    tensors: &[Tensor],
    found: &SafeTensors<'a>,
) -> Result<Vec<TensorView<'a>>> {
    let view = |Tensor { name, shape, .. }: &Tensor| {
        let view = found.tensor(name).map_err(|e| bad_weights(model, e))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            let found = format!("{name} of {:?} {:?}", view.dtype(), view.shape());
            return Err(bad_weights(model, found));
        }
        Ok(view)
    };
    tensors.iter().map(view).collect()
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

/// The header's key-value pairs of a model folder's weights, or `None` when there are none, or not
/// all of the weights. The weights themselves are not read.
pub fn header(path: &Path) -> Option<HashMap<String, String>> {
    let mut file = std::fs::File::open(path.join(schema::WEIGHTS)).ok()?;
    let size = file.metadata().ok()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER.min(size) {
        return None;
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).ok()?;
    let header: Metadata = serde_json::from_slice(&header).ok()?;
    let whole = 8 + length + header.data_len() as u64 == size;
    header.metadata().clone().filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_file_that_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let of = |bytes: &[u8]| {
            std::fs::write(folder.path().join(schema::WEIGHTS), bytes).unwrap();
            header(folder.path())
        };
        let metadata = BTreeMap::from([("s4l.tool".to_string(), "s4l-pretrain".to_string())]);
        let bytes = to_safetensors(&[("w".into(), vec![3], &[1.0, 2.0, 3.0])], metadata).unwrap();
        assert_eq!(of(&bytes).unwrap()["s4l.tool"], "s4l-pretrain");
        assert_eq!(of(&bytes[..bytes.len() - 1]), None);
        assert_eq!(of(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(of(&bytes[..20]), None);
        assert_eq!(of(&[&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat()), None);
        assert_eq!(of(b""), None);
        assert_eq!(header(&folder.path().join("absent")), None);
    }
}
