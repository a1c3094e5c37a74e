//! What an output was made from.

use crate::{recipe, schema};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The seed in the lineage of a stage that uses no randomness.
pub const UNSEEDED: u64 = 0;

/// What an output was made from. Written into every parquet footer and safetensors header, so the
/// same inputs give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    pub tool: &'static str,
    pub seed: u64,
    /// `recipe::hash` of the settings.
    pub recipe: String,
    /// Name of the input → hash of its content.
    pub inputs: BTreeMap<String, String>,
    /// Processes that trained together, on which the rounding of sums depends.
    pub ranks: usize,
}

impl Lineage {
    pub fn new(tool: &'static str, seed: u64, recipe: String) -> Lineage {
        Lineage { tool, seed, recipe, inputs: BTreeMap::new(), ranks: 1 }
    }

    /// For a stage without settings and randomness.
    pub fn without_settings(tool: &'static str) -> Lineage {
        Lineage::new(tool, UNSEEDED, recipe::hash(&serde_json::json!({})))
    }

    /// Adds an input by the hash of its content.
    pub fn input(mut self, name: &str, hash: impl Into<String>) -> Lineage {
        self.inputs.insert(name.to_string(), hash.into());
        self
    }

    pub fn of_ranks(mut self, ranks: usize) -> Lineage {
        self.ranks = ranks;
        self
    }

    /// The key-value pairs of a footer or header.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::from([
            (schema::TOOL_KEY.to_string(), self.tool.to_string()),
            (schema::VERSION_KEY.to_string(), env!("CARGO_PKG_VERSION").to_string()),
            (schema::RECIPE_KEY.to_string(), self.recipe.clone()),
            (schema::SEED_KEY.to_string(), self.seed.to_string()),
        ]);
        if self.ranks > 1 {
            map.insert(schema::RANKS_KEY.to_string(), self.ranks.to_string());
        }
        for (name, hash) in &self.inputs {
            map.insert(format!("{}{name}", schema::INPUT_PREFIX), hash.clone());
        }
        map
    }

    /// The lineage that `metadata` holds.
    pub fn of_metadata(tool: &'static str, metadata: &BTreeMap<String, String>) -> Lineage {
        let value = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        let inputs = metadata.iter().filter_map(|(key, hash)| {
            Some((key.strip_prefix(schema::INPUT_PREFIX)?.to_string(), hash.clone()))
        });
        Lineage {
            tool,
            seed: value(schema::SEED_KEY).parse().unwrap_or_default(),
            recipe: value(schema::RECIPE_KEY),
            inputs: inputs.collect(),
            ranks: value(schema::RANKS_KEY).parse().unwrap_or(1),
        }
    }

    /// The keys, without prefix, in which a footer or header differs from this lineage. A new version of
    /// the program or other ranks do not make results stale.
    pub fn difference(&self, found: &HashMap<String, String>) -> Vec<String> {
        let wanted = self.metadata();
        let inputs = found.keys().filter(|key| key.starts_with(schema::INPUT_PREFIX));
        let keys: BTreeSet<&String> = wanted.keys().chain(inputs).collect();
        let differ = keys
            .into_iter()
            .filter(|&key| ![schema::VERSION_KEY, schema::RANKS_KEY].contains(&key.as_str()))
            .filter(|&key| wanted.get(key) != found.get(key));
        let name = |key: &String| {
            let name = key.strip_prefix(schema::INPUT_PREFIX);
            name.or(key.strip_prefix(schema::METADATA_PREFIX)).unwrap_or(key).to_string()
        };
        differ.map(name).collect()
    }
}
