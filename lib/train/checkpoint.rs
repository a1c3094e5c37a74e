//! The state that resuming a training stage needs, in one file that is replaced atomically. The last two
//! are kept.

use super::identity::Identity;
use crate::artifact;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::metrics::Metric;
use crate::model::tensors::{check_hash, to_safetensors};
use crate::network::device;
use crate::network::weights::Weights;
use crate::schema;
use crate::train::log::{Mean, RunningMeans};
use crate::usage::Usage;
use safetensors::tensor::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// State of a run after `step` steps, but for the weights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub step: u64,
    /// All that was logged.
    pub metrics: Vec<Metric>,
    /// What is measured but not logged yet.
    pub means: RunningMeans,
    /// What the runs before this one used.
    pub used: Usage,
    /// The instructions that the last of them computed with, and its number of ranks.
    pub instructions: String,
    pub ranks: usize,
}

/// The newest checkpoint of the run whose output is `model`.
pub fn file(model: &Path) -> PathBuf {
    model.join(schema::CHECKPOINT).join(schema::STATE)
}

/// The one before it.
fn previous(model: &Path) -> PathBuf {
    file(model).with_file_name(schema::PREVIOUS_STATE)
}

// Keys of the header.
const IDENTITY: &str = "identity";
const STEP: &str = "step";
const RECORDS: &str = "records";

/// Saves the state of a run, which has used so much, and its weights; what was saved last becomes the
/// previous one.
pub fn save(
    model: &Path,
    identity: &Identity,
    state: &State,
    used: Usage,
    weights: &Weights,
) -> Result<()> {
    let to_json_error = |e: serde_json::Error| Error::Internal(e.to_string());
    let vector = |name: &str, v| -> (String, Vec<usize>, &[f32]) {
        let v: &Vec<f32> = v;
        (name.to_string(), vec![v.len()], v)
    };
    // As bits: JSON numbers need not come back the same.
    let metrics = state.metrics.iter().map(|m| (m.step, &m.name, m.value.to_bits()));
    let means = state.means.0.iter().map(|(name, mean)| (name, mean.sum.to_bits(), mean.count));
    let records = (metrics.collect::<Vec<_>>(), means.collect::<Vec<_>>());
    let records = serde_json::to_string(&records).map_err(to_json_error)?;
    let identity = serde_json::to_string(identity).map_err(to_json_error)?;
    let bytes = to_safetensors(
        &[
            vector("parameters", &weights.parameters),
            vector("velocity", &weights.velocity),
            vector("average", &weights.average),
            vector("moving", &weights.moving),
        ],
        BTreeMap::from([
            (IDENTITY.to_string(), identity),
            (STEP.to_string(), state.step.to_string()),
            (RECORDS.to_string(), records),
            (schema::SECONDS.to_string(), used.seconds.to_string()),
            (schema::CPU_SECONDS.to_string(), used.cpu_seconds.to_string()),
            (schema::PEAK_MEMORY.to_string(), used.peak_memory_mb.to_string()),
            (schema::INSTRUCTIONS.to_string(), device::instructions().to_string()),
            (schema::RANKS.to_string(), state.ranks.to_string()),
        ]),
    )?;
    let newest = file(model);
    match std::fs::rename(&newest, previous(model)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&newest)(e)),
        _ => {}
    }
    artifact::write_bytes(&newest, &bytes)
}

/// Why a checkpoint is not resumed.
enum Unfit {
    Damaged(String),
    /// Whole, and how its run differs.
    Other(String),
}

/// The saved state of the same run, whose weights are as long as those `like`, or `None` if there is
/// none. A damaged checkpoint gives way to the previous one, with a warning. One of another run, or
/// none that is whole, is an error; with `force` it is dropped, with a warning.
pub fn load(
    model: &Path,
    identity: &Identity,
    like: &Weights,
    force: bool,
) -> Result<Option<(State, Weights)>> {
    let mut unfit = Vec::new();
    for path in [file(model), previous(model)] {
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            bytes => bytes.map_err(Error::io(&path))?,
        };
        match parse(&bytes, identity, like) {
            Ok(saved) => {
                say(&unfit, &format!("{} takes its place", path.display()));
                if !unfit.is_empty() {
                    // Else the next save would remove it and keep the unfit one.
                    std::fs::rename(&path, file(model)).map_err(Error::io(&path))?;
                }
                return Ok(Some(saved));
            }
            Err(Unfit::Other(found)) if !force && unfit.is_empty() => {
                return Err(refused(&path, &found));
            }
            Err(Unfit::Damaged(found) | Unfit::Other(found)) => unfit.push((path, found)),
        }
    }
    match unfit.first() {
        Some((path, found)) if !force => Err(refused(path, found)),
        _ => {
            say(&unfit, "it is dropped and training begins anew");
            Ok(None)
        }
    }
}

/// Warns of a checkpoint that is not resumed, and says what is done instead.
fn say(unfit: &[(PathBuf, String)], instead: &str) {
    for (path, found) in unfit {
        cli::warn(&format!("{}: {found}; {instead}", path.display()));
    }
}

fn refused(path: &Path, found: &str) -> Error {
    Error::bad_data(
        path,
        "a checkpoint of this recipe, seed and input",
        found,
        "run the command that wrote it, or pass --force to start again",
    )
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

fn parse(
    bytes: &[u8],
    identity: &Identity,
    like: &Weights,
) -> std::result::Result<(State, Weights), Unfit> {
    let header = header(bytes).map_err(Unfit::Damaged)?;
    let found = entry(&header, IDENTITY)
        .and_then(|json| serde_json::from_str::<Identity>(json).map_err(|e| e.to_string()));
    if let Some(difference) = identity.difference(&found.map_err(Unfit::Damaged)?) {
        let step = header.get(STEP).map_or("", String::as_str);
        return Err(Unfit::Other(format!("one of another run, of step {step}: {difference}")));
    }
    let whole = || Ok((state(&header)?, weights(bytes, like)?));
    whole().map_err(Unfit::Damaged)
}

/// What a damaged checkpoint is in words.
type OrDamage<T> = std::result::Result<T, String>;

/// The key-value pairs of a file whose bytes are those that were written.
fn header(bytes: &[u8]) -> OrDamage<HashMap<String, String>> {
    let whole = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string());
    let header = whole.map_err(|e| format!("a damaged one: {e}"))?.1.metadata().clone();
    check_hash(bytes).map_err(|e| format!("a damaged one: {e}"))?;
    header.ok_or("one without a header".into())
}

fn entry<'a>(header: &'a HashMap<String, String>, key: &str) -> OrDamage<&'a str> {
    header.get(key).map(String::as_str).ok_or(format!("no {key:?} in its header"))
}

fn number<T: FromStr + Default>(header: &HashMap<String, String>, key: &str) -> T {
    header.get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn state(header: &HashMap<String, String>) -> OrDamage<State> {
    let (metrics, means): (Vec<StoredMetric>, Vec<StoredMean>) =
        serde_json::from_str(entry(header, RECORDS)?).map_err(|e| e.to_string())?;
    Ok(State {
        step: entry(header, STEP)?.parse().map_err(|_| "no step in its header")?,
        metrics: metrics.into_iter().map(metric).collect(),
        means: RunningMeans(means.into_iter().map(mean).collect()),
        // Which older ones do not have.
        used: Usage {
            seconds: number(header, schema::SECONDS),
            cpu_seconds: number(header, schema::CPU_SECONDS),
            peak_memory_mb: number(header, schema::PEAK_MEMORY),
        },
        instructions: header.get(schema::INSTRUCTIONS).cloned().unwrap_or_default(),
        ranks: number::<usize>(header, schema::RANKS).max(1),
    })
}

fn weights(bytes: &[u8], like: &Weights) -> OrDamage<Weights> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| format!("a damaged one: {e}"))?;
    let vector = |name: &str, like: &[f32]| -> OrDamage<Vec<f32>> {
        let view = tensors.tensor(name).map_err(|e| e.to_string())?;
        let (values, rest) = view.data().as_chunks::<4>();
        if view.dtype() != Dtype::F32 || values.len() != like.len() || !rest.is_empty() {
            let found = format!("{} bytes of {:?}", view.data().len(), view.dtype());
            return Err(format!("{name} of {found} in place of {} values", like.len()));
        }
        Ok(values.iter().map(|b| f32::from_le_bytes(*b)).collect())
    };
    Ok(Weights {
        parameters: vector("parameters", &like.parameters)?,
        velocity: vector("velocity", &like.velocity)?,
        average: vector("average", &like.average)?,
        moving: vector("moving", &like.moving)?,
    })
}

/// Removes the checkpoints of a finished run.
pub fn remove(model: &Path) -> Result<()> {
    let folder = model.join(schema::CHECKPOINT);
    match std::fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&folder)(e)),
        _ => Ok(()),
    }
}

/// Whether no checkpoint that is there is of another run, as far as they can be read.
pub fn is_of(model: &Path, identity: &Identity) -> bool {
    [file(model), previous(model)].iter().all(|path| {
        let bytes = match std::fs::read(path) {
            Err(e) => return e.kind() == std::io::ErrorKind::NotFound,
            Ok(bytes) => bytes,
        };
        let found = header(&bytes)
            .ok()
            .and_then(|header| serde_json::from_str::<Identity>(header.get(IDENTITY)?).ok());
        found.is_none_or(|found| found == *identity)
    })
}
