//! All that resuming a training stage needs, in one file that is replaced atomically.

use crate::artifact;
use crate::error::{Error, Result};
use crate::model::metrics::Metric;
use crate::model::tensors::to_safetensors;
use crate::network::weights::Weights;
use crate::schema;
use crate::train::log::{Mean, RunningMeans};
use safetensors::tensor::SafeTensors;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// State of a run after `step` steps, but for the weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub step: u64,
    /// All that was logged.
    pub metrics: Vec<Metric>,
    /// What is measured but not logged yet.
    pub means: RunningMeans,
}

/// The checkpoint of the run whose output is `model`.
pub fn file(model: &Path) -> PathBuf {
    model.join(schema::CHECKPOINT).join(schema::STATE)
}

/// The header's key for the identity of the run, named so in the files of runs that may still go on.
const IDENTITY: &str = "plan";

/// Saves the state of a run and its weights. Its `identity` is one string for all that it depends on.
pub fn save(model: &Path, identity: &str, state: &State, weights: &Weights) -> Result<()> {
    let vector = |name: &str, v| -> (String, Vec<usize>, &[f32]) {
        let v: &Vec<f32> = v;
        (name.to_string(), vec![v.len()], v)
    };
    // As bits: JSON numbers need not come back the same.
    let metrics = state.metrics.iter().map(|m| (m.step, &m.name, m.value.to_bits()));
    let means = state.means.0.iter().map(|(name, mean)| (name, mean.sum.to_bits(), mean.count));
    let records = (metrics.collect::<Vec<_>>(), means.collect::<Vec<_>>());
    let records = serde_json::to_string(&records).map_err(|e| Error::Internal(e.to_string()))?;
    let bytes = to_safetensors(
        &[
            vector("parameters", &weights.parameters),
            vector("velocity", &weights.velocity),
            vector("average", &weights.average),
            vector("moving", &weights.moving),
        ],
        BTreeMap::from([
            (IDENTITY.to_string(), identity.to_string()),
            ("step".to_string(), state.step.to_string()),
            ("records".to_string(), records),
        ]),
    )?;
    artifact::write_bytes(&file(model), &bytes)
}

/// The saved state of the same run, or `None` if there is none. A checkpoint of another run, or a
/// damaged one, is an error unless `force`: hours of work are not thrown away in silence.
pub fn load(model: &Path, identity: &str, force: bool) -> Result<Option<(State, Weights)>> {
    let path = file(model);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    match parse(&bytes, identity) {
        Ok(saved) => Ok(Some(saved)),
        Err(_) if force => Ok(None),
        Err(found) => Err(Error::bad_data(
            &path,
            "a checkpoint of this recipe, seed and input",
            found,
            "run the command that began it, or pass --force to start anew",
        )),
    }
}

/// A metric, and a mean that still runs, as they are stored: values as bits.
type StoredMetric = (u64, String, u64);
type StoredMean = (String, u64, u64);

fn metric((step, name, bits): StoredMetric) -> Metric {
    Metric { step, name, value: f64::from_bits(bits) }
}

fn mean((name, bits, count): StoredMean) -> (String, Mean) {
    (name, Mean { sum: f64::from_bits(bits), count })
}

fn parse(bytes: &[u8], identity: &str) -> std::result::Result<(State, Weights), String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
    let header = header.metadata().clone().unwrap_or_default();
    let entry = |key: &str| header.get(key).ok_or(format!("no {key:?} in its header"));
    if entry(IDENTITY)? != identity {
        return Err("one of another".into());
    }
    let vector = |name: &str| -> std::result::Result<Vec<f32>, String> {
        let view = tensors.tensor(name).map_err(|e| e.to_string())?;
        let values = view.data().chunks_exact(4);
        Ok(values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let (metrics, means): (Vec<StoredMetric>, Vec<StoredMean>) =
        serde_json::from_str(entry("records")?).map_err(|e| e.to_string())?;
    let weights = Weights {
        parameters: vector("parameters")?,
        velocity: vector("velocity")?,
        average: vector("average")?,
        moving: vector("moving")?,
    };
    let state = State {
        step: entry("step")?.parse().map_err(|_| "no step in its header")?,
        metrics: metrics.into_iter().map(metric).collect(),
        means: RunningMeans(means.into_iter().map(mean).collect()),
    };
    Ok((state, weights))
}

/// Removes the checkpoint of a finished run.
pub fn remove(model: &Path) -> Result<()> {
    let folder = model.join(schema::CHECKPOINT);
    match std::fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&folder)(e)),
        _ => Ok(()),
    }
}
