//! A model folder: `config.json`, `model.safetensors` (written last), and what describes the run.

use crate::artifact::{self, Lineage};
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use crate::network::Network;
use crate::network::layout::{Architecture, Layout, largest_kernel};
use crate::plan::{Precision, Settings};
use crate::{schema, timm};
use candle_core::Device;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
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

/// Whether a file has as many tensors and values as the layers of a network need at least. Where it
/// has, no number in the network's layout overflows.
pub fn can_hold(tensors: &SafeTensors, a: &Architecture) -> bool {
    let values: usize = tensors.iter().map(|(_, view)| view.data().len() / 4).sum();
    let total = |numbers: &[usize]| numbers.iter().fold(0usize, |sum, n| sum.saturating_add(*n));
    let outputs: Vec<usize> = a.heads.iter().map(|(_, outputs)| *outputs).collect();
    let largest = largest_kernel(a.units.len(), a.width_factor);
    a.units.iter().min().is_some_and(|&least| least > 0)
        && total(&a.units).max(outputs.len()) <= tensors.len()
        && largest.is_some_and(|n| (1..=values).contains(&n))
        && (1..=values).contains(&a.channels)
        && total(&outputs) <= values
}

/// A tensor of a weights file.
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub place: Place,
}

/// Where a tensor lies in a network, and how it is written down.
pub enum Place {
    /// As it lies in the parameter vector.
    Parameters(Range<usize>),
    /// As it lies in the moving statistics.
    Moving(Range<usize>),
    /// A kernel `[height, width, inputs, outputs]` of the parameter vector, written as `[outputs,
    /// inputs, height, width]`.
    Transposed(Range<usize>, [usize; 4]),
    /// A moving variance, written with this added.
    Variance(Range<usize>, f64),
}

impl Place {
    pub fn get<'a>(&self, network: &'a Network) -> Cow<'a, [f32]> {
        match self {
            Place::Parameters(r) => Cow::Borrowed(&network.parameters[r.clone()]),
            Place::Moving(r) => Cow::Borrowed(&network.moving[r.clone()]),
            Place::Transposed(r, shape) => {
                let kernel = &network.parameters[r.clone()];
                transposed(*shape).map(|i| kernel[i]).collect()
            }
            Place::Variance(r, added) => {
                let variance = network.moving[r.clone()].iter();
                variance.map(|v| (f64::from(*v) + added) as f32).collect()
            }
        }
    }

    pub fn set(&self, network: &mut Network, values: impl Iterator<Item = f32>) {
        let vector = match self {
            Place::Parameters(r) | Place::Transposed(r, _) => &mut network.parameters[r.clone()],
            Place::Moving(r) | Place::Variance(r, _) => &mut network.moving[r.clone()],
        };
        match self {
            Place::Parameters(_) | Place::Moving(_) => {
                vector.iter_mut().zip(values).for_each(|(w, v)| *w = v);
            }
            Place::Transposed(_, shape) => {
                transposed(*shape).zip(values).for_each(|(i, v)| vector[i] = v);
            }
            Place::Variance(_, added) => {
                let values = values.map(|v| (f64::from(v) - added) as f32);
                vector.iter_mut().zip(values).for_each(|(w, v)| *w = v);
            }
        }
    }
}

/// Indices into a kernel `[height, width, inputs, outputs]`, in the order `[outputs, inputs, height,
/// width]`.
fn transposed([h, w, i, o]: [usize; 4]) -> impl Iterator<Item = usize> {
    let planes = (0..o).flat_map(move |out| (0..i).map(move |input| input * o + out));
    planes.flat_map(move |plane| (0..h * w).map(move |pixel| pixel * i * o + plane))
}

/// Every tensor of a model file of this project.
fn tensors(layout: &Layout) -> Vec<Tensor> {
    let parameters = layout.tensors().into_iter().map(|(name, shape, r)| Tensor {
        name,
        shape,
        place: Place::Parameters(r),
    });
    let moving = layout.moving_tensors().into_iter();
    parameters
        .chain(moving.map(|(name, len, r)| Tensor {
            name,
            shape: vec![len],
            place: Place::Moving(r),
        }))
        .collect()
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

/// A safetensors file of float32 tensors whose header has its keys in a fixed order (the library's
/// own order of metadata varies from run to run).
pub fn to_safetensors(
    tensors: &[(String, Vec<usize>, &[f32])],
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let internal = |e: String| Error::Internal(format!("safetensors: {e}"));
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|(.., v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
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
