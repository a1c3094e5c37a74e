//! A model folder: `config.json`, `model.safetensors` (written last), and the files that describe the run.

use super::config::Config;
use super::tensors::{Tensor, can_hold, check_hash, tensors, with_counters};
use super::timm;
use crate::artifact;
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::network::Network;
use crate::network::cpu;
use crate::network::device::Device;
use crate::network::engine::Precision;
use crate::network::layout::Layout;
use crate::network::weights::Weights;
use crate::schema;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A model on disk.
pub struct Model {
    pub path: PathBuf,
    pub config: Config,
    pub layout: Layout,
    pub weights: Weights,
    /// `short_hash` of the bytes read from `model.safetensors`.
    pub hash: String,
}

/// The hint for a model that cannot be read.
const HINT: &str = "s4l-pretrain or s4l-moam makes a model";
const SAVE_AS_SAFETENSORS: &str = "beside it are weights as PyTorch pickles them: save the model again with safe_serialization=True";

impl Model {
    /// Reads a model folder, in our format or timm's. Errors: `Missing`, or `BadData` if config and weights
    /// do not fit.
    pub fn open(path: &Path) -> Result<Model> {
        let weights = path.join(schema::WEIGHTS);
        if !artifact::is_file(&weights)? {
            let of_pytorch = artifact::exists(&path.join(schema::PYTORCH_WEIGHTS))?;
            let hint = if of_pytorch { SAVE_AS_SAFETENSORS } else { HINT };
            return Err(Error::missing(&weights, "model", hint));
        }
        let (bytes, config) = read(path)?;
        let found = SafeTensors::deserialize(&bytes).map_err(|e| bad_weights(path, e))?;
        let json = serde_json::from_slice(&config).map_err(|e| bad_config(path, e))?;
        let foreign = timm::is_config(&json);
        let config = match foreign {
            true => timm::config(&path.join(schema::CONFIG_JSON), json, &found)?,
            false => serde_json::from_value(json).map_err(|e| bad_config(path, e))?,
        };
        check_size(path, &config, &found)?;
        let layout = Layout::new(&config.architecture);
        let size = (config.height, config.width);
        if !cpu::is_addressable(&layout, size) {
            let found = format!("images of {}x{}, too large for its width", size.0, size.1);
            return Err(bad_config(path, found));
        }
        let tensors = match foreign {
            true => timm::tensors(&layout),
            false => tensors(&layout),
        };
        // Checked before the weights are allocated: their size comes from the configuration.
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

    /// The network of this model, for inference. Errors: as `Network::new`.
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
    Error::bad_data(&path, "weights that fit the network of config.json", found.to_string(), HINT)
}

/// The bytes of the weights of a model folder, and of its configuration. Errors unless both are undamaged
/// and of one model.
fn read(path: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let weights = path.join(schema::WEIGHTS);
    let mut file = std::fs::File::open(&weights).map_err(Error::io(&weights))?;
    let opened = file.metadata().map_err(Error::io(&weights))?;
    let mut bytes = Vec::with_capacity(opened.len() as usize);
    file.read_to_end(&mut bytes).map_err(Error::io(&weights))?;
    check_hash(&bytes).map_err(|e| bad_weights(path, e))?;
    SafeTensors::deserialize(&bytes).map_err(|e| bad_weights(path, e))?;
    let config = read_config(path, &metadata(&bytes))?;
    // Not all weights name their configuration. It is theirs if the weights file is still the same one.
    let file = |found: &Metadata| (found.dev(), found.ino());
    match artifact::look(&weights)?.is_some_and(|now| file(&now) == file(&opened)) {
        true => Ok((bytes, config)),
        false => Err(Error::replaced(path)),
    }
}

/// `config.json` of a model folder, in any format. Errors unless it belongs to the weights, which have this
/// metadata.
fn read_config(model: &Path, weights: &HashMap<String, String>) -> Result<Vec<u8>> {
    let path = model.join(schema::CONFIG_JSON);
    let bytes = std::fs::read(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::missing(&path, "model", HINT),
        _ => Error::io(&path)(e),
    })?;
    let found = schema::short_hash(&blake3::hash(&bytes));
    match weights.get(schema::CONFIG_KEY) {
        Some(expected) if *expected != found => {
            let expected =
                format!("the configuration of {}, with hash {expected}", schema::WEIGHTS);
            Err(Error::bad_data(&path, expected, format!("one with hash {found}"), HINT))
        }
        _ => Ok(bytes),
    }
}

/// Errors if the weights are too small for the network, or the size of its images is out of range.
fn check_size(model: &Path, config: &Config, found: &SafeTensors) -> Result<()> {
    if !can_hold(found, &config.architecture) {
        return Err(bad_weights(model, "weights of a smaller network"));
    }
    let (height, width) = (config.height, config.width);
    if !(1..=MAX_PIXELS).contains(&height.saturating_mul(width)) {
        return Err(bad_config(model, format!("images of {height}x{width}")));
    }
    Ok(())
}

/// The entries of a weights file for `tensors`, in order.
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

/// Writes `config.json` and `model.safetensors`, whose header has the hash of `config.json`.
pub fn write(path: &Path, config: &Config, weights: &Weights, lineage: &Lineage) -> Result<()> {
    let tensors = tensors(&Layout::new(&config.architecture));
    let json = to_json(config)?;
    let mut metadata = lineage.metadata();
    let hash = schema::short_hash(&blake3::hash(json.as_bytes()));
    metadata.insert(schema::CONFIG_KEY.to_string(), hash);
    write_files(path, &json, weights, (&tensors, &[]), metadata)
}

/// A configuration as the bytes to write.
pub fn to_json(config: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string_pretty(config).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(format!("{json}\n"))
}

/// Writes the configuration, the tensors and the counters, in any format.
pub fn write_files(
    path: &Path,
    config: &str,
    weights: &Weights,
    (tensors, counters): (&[Tensor], &[String]),
    metadata: BTreeMap<String, String>,
) -> Result<()> {
    artifact::write_bytes(&path.join(schema::CONFIG_JSON), config.as_bytes())?;
    let values: Vec<Cow<[f32]>> = tensors.iter().map(|t| t.place.get(weights)).collect();
    let tensors: Vec<(String, Vec<usize>, &[f32])> = tensors
        .iter()
        .zip(&values)
        .map(|(t, values)| (t.name.clone(), t.shape.clone(), &values[..]))
        .collect();
    let bytes = with_counters(&tensors, counters, metadata)?;
    artifact::write_bytes(&path.join(schema::WEIGHTS), &bytes)
}

/// The files of a model except the weights.
const FILES: [&str; 4] = [schema::METRICS, schema::EVENTS, schema::MODEL_CARD, schema::CONFIG_JSON];

/// Errors: `NotOurs` if training into this folder would replace files that no training stage has made.
pub fn refuse_others(model: &Path) -> Result<()> {
    let not_ours =
        |what: &str| Err(Error::NotOurs { path: model.to_path_buf(), what: what.to_string() });
    match artifact::look(model)? {
        Some(found) if found.is_dir() => {}
        None if !model.is_symlink() => return Ok(()),
        _ => return not_ours("a folder"),
    }
    let there = |names: &[&str]| -> Result<bool> {
        let found = names.iter().map(|name| artifact::exists(&model.join(name)));
        Ok(found.collect::<Result<Vec<_>>>()?.contains(&true))
    };
    let begun = there(&[schema::CHECKPOINT, schema::METRICS_JSONL])?;
    if begun || !there(&FILES)? && !there(&[schema::WEIGHTS])? {
        return Ok(());
    }
    let read = |name: &str| -> Result<Vec<u8>> {
        let path = model.join(name);
        let read = Error::unless_unreadable(std::fs::read(&path).map_err(Error::io(&path)));
        Ok(read?.unwrap_or_default())
    };
    // Weights of ours count even if some bytes are damaged.
    let (key, weights) = (schema::METADATA_PREFIX.as_bytes(), read(schema::WEIGHTS)?);
    let ours = serde_json::from_slice::<Config>(&read(schema::CONFIG_JSON)?).is_ok()
        || weights.windows(key.len()).take(MOST_HEADER).any(|bytes| bytes == key);
    match ours {
        true => Ok(()),
        false => not_ours("a model of s4l-pretrain or s4l-moam"),
    }
}

/// Bytes of the weights file that are searched for our header keys.
const MOST_HEADER: usize = 1 << 20;

/// Moves the files of a model from a staging folder into the model folder, which may hold an old model. The
/// old weights are removed first and the new ones come last: weights are never beside the files of another
/// model.
pub fn commit(staged: &Path, model: &Path) -> Result<()> {
    let sync = || std::fs::File::open(model).and_then(|f| f.sync_all()).map_err(Error::io(model));
    let weights = model.join(schema::WEIGHTS);
    match std::fs::remove_file(&weights) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&weights)(e)),
        _ => sync()?,
    }
    let rename = |name: &str| {
        let to = model.join(name);
        std::fs::rename(staged.join(name), &to).map_err(Error::io(&to))
    };
    FILES.into_iter().try_for_each(rename)?;
    sync()?;
    rename(schema::WEIGHTS)?;
    sync()
}

/// The description of a model by its folder.
pub struct Described {
    /// `short_hash` of the weights.
    pub hash: String,
    /// The metadata in the header of the weights.
    pub metadata: HashMap<String, String>,
    /// The bytes of `config.json`.
    pub config: Vec<u8>,
}

/// Describes a model folder. Errors: `BadData` unless weights and configuration are as they were written.
pub fn describe(path: &Path) -> Result<Described> {
    let (bytes, config) = read(path)?;
    let hash = schema::short_hash(&blake3::hash(&bytes));
    Ok(Described { hash, metadata: metadata(&bytes), config })
}

/// The key-value pairs in the header of a model folder's weights, or `None` if no weights can be described.
/// Errors: existing files cannot be read.
pub fn header(path: &Path) -> Result<Option<HashMap<String, String>>> {
    Ok(Error::unless_unreadable(describe(path))?.map(|described| described.metadata))
}

/// The key-value pairs in the header of weights.
fn metadata(weights: &[u8]) -> HashMap<String, String> {
    let header = SafeTensors::read_metadata(weights).ok();
    header.and_then(|(_, header)| header.metadata().clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tensors::to_safetensors;
    use super::*;

    #[test]
    fn the_header_of_a_file_that_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(schema::CONFIG_JSON), "{}").unwrap();
        let of = |bytes: &[u8]| {
            std::fs::write(folder.path().join(schema::WEIGHTS), bytes).unwrap();
            header(folder.path()).unwrap()
        };
        let config = schema::short_hash(&blake3::hash(b"{}"));
        let metadata = BTreeMap::from([(schema::CONFIG_KEY.to_string(), config.clone())]);
        let bytes = to_safetensors(&[("w".into(), vec![3], &[1.0, 2.0, 3.0])], metadata).unwrap();
        assert_eq!(of(&bytes).unwrap()[schema::CONFIG_KEY], config);
        assert_eq!(of(&bytes[..bytes.len() - 1]), None);
        assert_eq!(of(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(of(&bytes[..20]), None);
        assert_eq!(of(&[&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat()), None);
        assert_eq!(of(b""), None);
        assert_eq!(header(&folder.path().join("absent")).unwrap(), None);
        std::fs::write(folder.path().join(schema::CONFIG_JSON), "[]").unwrap();
        assert_eq!(of(&bytes), None);
    }
}
