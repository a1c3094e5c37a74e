//! What the weights of a run depend on: a run resumes a checkpoint of the same identity.

use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::settings::Settings;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Value by the name of a setting, an input and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(BTreeMap<String, Value>);

/// Settings that change no weight: when to write and to validate and on which views, and for which
/// data a recipe was written.
const NO_MATTER: [&str; 7] = [
    "augment_eval",
    "checkpoint_every",
    "classes",
    "labelled_images",
    "log_every",
    "unlabelled_images",
    "validate_every",
];

/// Differences that a message names.
const NAMED: usize = 4;

impl Identity {
    /// For a run with these settings. `labels` says how the labels are read.
    pub fn new(settings: &Settings, lineage: &Lineage, labels: &str) -> Result<Identity> {
        let internal = |e: serde_json::Error| Error::Internal(e.to_string());
        let settings = serde_json::to_value(settings).map_err(internal)?;
        let mut all: BTreeMap<String, Value> =
            serde_json::from_value(settings).map_err(internal)?;
        all.retain(|key, _| !NO_MATTER.contains(&key.as_str()));
        all.insert("seed".into(), lineage.seed.into());
        all.insert("labels are".into(), labels.into());
        let inputs = lineage.inputs.iter();
        all.extend(inputs.map(|(name, hash)| (format!("input {name}"), hash.clone().into())));
        Ok(Identity(all))
    }

    /// In words, how another identity differs from this one.
    pub fn difference(&self, other: &Identity) -> Option<String> {
        let keys: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let differ: Vec<_> =
            keys.into_iter().filter(|key| self.0.get(*key) != other.0.get(*key)).collect();
        let value =
            |of: &Identity, key: &str| of.0.get(key).map_or("none".into(), Value::to_string);
        let mut words: Vec<String> = differ
            .iter()
            .take(NAMED)
            .map(|key| format!("{key} {} in place of {}", value(other, key), value(self, key)))
            .collect();
        if differ.len() > NAMED {
            words.push(format!("and {} more", differ.len() - NAMED));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}
