//! The keys of images: the base name; if a split has that twice, the path without the split's folder; if
//! it has one of these paths twice, the full name, which begins with the name of the file of many images,
//! and the row if rows have no paths. Only a path that is twice in one archive has the same key twice.

use super::Input;
use super::hash;
use super::item::{Item, SplitName};
use super::names::base_name;
use super::splits::Splits;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Walks through all items of an input.
pub type Scan<'a> = &'a dyn Fn(&mut dyn FnMut(Item) -> Result<()>) -> Result<()>;

/// The base names that are no keys, because several images of a split have them.
#[derive(Debug, Serialize, Deserialize)]
pub struct RepeatedKeys {
    /// Hashes of the base names that a split has in several places, sorted.
    names: Vec<u64>,
    /// Those of them whose images have their full names for keys, sorted.
    full: Vec<u64>,
    /// Hashes of the other paths that are there twice, with the number of the first item of each.
    paths: HashMap<u64, u64>,
}

/// A path: its hash, the number of its item in its split, the place of its base name.
type PathOf = (u64, u64, u32);

impl RepeatedKeys {
    /// `names`: the hashes of all base names. If some are repeated, another pass finds the paths, and if
    /// some of these are, one more the full names.
    pub fn find(
        input: &Input,
        splits: &Splits,
        scan: Scan,
        mut names: Vec<u64>,
    ) -> Result<RepeatedKeys> {
        names.sort_unstable();
        let runs = names.chunk_by(|a, b| a == b);
        let names: Vec<u64> = runs.filter(|run| run.len() > 1).map(|run| run[0]).collect();
        let mut keys = RepeatedKeys { names, full: Vec::new(), paths: HashMap::new() };
        if keys.names.is_empty() {
            return Ok(keys);
        }
        let mut paths: Vec<PathOf> = Vec::new();
        let mut numbers: BTreeMap<SplitName, u64> = BTreeMap::new();
        scan(&mut |item| {
            let number = numbers.entry(item.split).or_default();
            if let Ok(name) = keys.names.binary_search(&of_base_name(&item)) {
                let path = splits.without_split(&item.name);
                paths.push((name_hash(item.split, path), *number, name as u32));
            }
            *number += 1;
            Ok(())
        })?;
        paths.sort_unstable();
        let runs = paths.chunk_by(|a, b| a.0 == b.0);
        let twice: Vec<PathOf> = runs.filter(|run| run.len() > 1).map(|run| run[0]).collect();
        drop(paths);
        let mut full: Vec<u64> = twice.iter().map(|path| keys.names[path.2 as usize]).collect();
        full.sort_unstable();
        full.dedup();
        if !full.is_empty() {
            let again = twice_in_full(input, scan, &full)?;
            full.retain(|name| again.binary_search(name).is_err());
        }
        let others =
            twice.iter().filter(|path| full.binary_search(&keys.names[path.2 as usize]).is_err());
        keys.paths = others.map(|path| (path.0, path.1)).collect();
        keys.full = full;
        Ok(keys)
    }

    /// The key of an item, and the number of the first item of its split that has the same one if
    /// several have.
    pub fn key(&self, input: &Input, splits: &Splits, item: &Item) -> (String, Option<u64>) {
        let name = of_base_name(item);
        if self.names.binary_search(&name).is_err() {
            return (base_name(&item.name).to_string(), None);
        }
        if self.full.binary_search(&name).is_ok() {
            return (input.full_name(item), None);
        }
        let path = splits.without_split(&item.name);
        let first = self.paths.get(&name_hash(item.split, path)).copied();
        (path.to_string(), first)
    }
}

/// Which of these base names have a full name twice, sorted.
fn twice_in_full(input: &Input, scan: Scan, names: &[u64]) -> Result<Vec<u64>> {
    let mut full: Vec<(u64, u64)> = Vec::new();
    scan(&mut |item| {
        let name = of_base_name(&item);
        if names.binary_search(&name).is_ok() {
            full.push((name_hash(item.split, &input.full_name(&item)), name));
        }
        Ok(())
    })?;
    full.sort_unstable();
    let twice = full.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1);
    let mut names: Vec<u64> = twice.map(|run| run[0].1).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Of the base name of an item, in its split.
pub fn of_base_name(item: &Item) -> u64 {
    name_hash(item.split, base_name(&item.name))
}

fn name_hash(split: SplitName, name: &str) -> u64 {
    hash::of_name(&[split.name(), "/", name])
}
