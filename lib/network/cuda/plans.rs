//! Which plan of cuDNN's computes which convolution: the same one in every run on the same kind of GPU with the
//! same libraries, so nothing is timed.

use super::descriptor::Note;
use super::graph::{Graph, Plan, Target};
use super::runtime::{Convolution, Products};
use super::status;
use crate::error::Result;
use crate::network::engine::Precision;
use cudarc::cudnn::sys::cudnnBackendHeurMode_t as Mode;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// The best engines for a graph first, then those that can do almost anything.
const MODES: [Mode; 2] = [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_FALLBACK];

/// Which engine computes which convolution in this process.
static CHOSEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Which engine of cuDNN's computes which convolution, of those that this process had so far, in the order of their names.
pub fn chosen() -> Vec<String> {
    CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// The plans that were made so far.
pub struct Plans {
    target: Target,
    made: HashMap<(Convolution, Products), Plan>,
}

impl Plans {
    pub fn new(target: Target) -> Plans {
        Plans { target, made: HashMap::new() }
    }

    /// The plan of a convolution. It is made at the first call.
    pub fn get(&mut self, shape: &Convolution, what: Products) -> Result<&Plan> {
        use std::collections::hash_map::Entry;
        match self.made.entry((*shape, what)) {
            Entry::Occupied(made) => Ok(made.into_mut()),
            Entry::Vacant(place) => {
                let plan = choose(&self.target, shape, what)?;
                let name = name(shape, what, &plan);
                CHOSEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                Ok(place.insert(plan))
            }
        }
    }
}

fn name(shape: &Convolution, what: Products, plan: &Plan) -> String {
    let Convolution { n, height, width, channels, outputs, kernel, stride, precision } = shape;
    format!(
        "{what:?} {n}x{height}x{width}x{channels} by {kernel}x{kernel}/{stride} to {outputs}, {precision:?}: {}",
        plan.engine
    )
}

/// The first of the engines that are fit, if it has a plan.
fn choose(target: &Target, shape: &Convolution, what: Products) -> Result<Plan> {
    let graph = Graph::new(target, shape, what)?;
    for mode in MODES {
        for engine in graph.engines(mode)? {
            if !is_fit(&engine.notes()?, shape.precision) {
                continue;
            }
            if let Some(plan) = graph.plan(&engine)? {
                return Ok(plan);
            }
        }
    }
    Err(status::failed(&format!("cuDNN has no plan for {what:?} of {shape:?}")))
}

/// Sums are always in float32 and in the same order. Float32 is not rounded to TF32, which is what tensor cores do.
fn is_fit(notes: &[Note], precision: Precision) -> bool {
    let has = |note| notes.contains(&note);
    let rounds = has(Note::TENSOR_CORE) || has(Note::DOWN_CONVERT_INPUTS);
    let exact = precision == Precision::Bf16 || !rounds;
    exact && !has(Note::NONDETERMINISTIC) && !has(Note::REDUCED_PRECISION_REDUCTION)
}
