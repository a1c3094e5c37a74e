//! Where the labels and each split of an input come from, in words.

use super::Input;
use super::item::SplitName;
use super::splits::{Splits, Tree};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Names that a message shows.
const SHOWN: usize = 3;

/// The sources of labels and splits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub labels: String,
    /// Folders or files of each split.
    pub splits: BTreeMap<String, String>,
}

impl Taken {
    /// `found`: the splits that have images; `classes`: whether there are any; `by_folder`: whether
    /// they are folders.
    pub fn of(
        input: &Input,
        found: &BTreeSet<SplitName>,
        splits: &Splits,
        tree: &Tree,
        classes: bool,
        by_folder: bool,
    ) -> Taken {
        let labels = match (&input.labels, by_folder) {
            (Some(list), true) => format!("{}, and class folders", list.words()),
            (Some(list), false) => list.words().to_string(),
            (None, _) if !classes => "none".to_string(),
            (None, true) if input.has_folders() => "class folders".to_string(),
            (None, _) => input.files.label_words(),
        };
        let mut from: BTreeMap<SplitName, BTreeSet<String>> = BTreeMap::new();
        for (split, folder) in splits.folders(tree) {
            from.entry(split).or_default().insert(format!("folder {folder}"));
        }
        let by_folder: BTreeSet<SplitName> = from.keys().copied().collect();
        for (split, path) in input.files.splits() {
            if !by_folder.contains(&split) {
                from.entry(split).or_default().insert(name(path));
            }
        }
        let words = found.iter().map(|split| {
            let from = from.get(split).map_or_else(|| name(&input.root), shown);
            (split.name().to_string(), from)
        });
        Taken { labels, splits: words.collect() }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The first of several names.
fn shown(names: &BTreeSet<String>) -> String {
    let first: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", first.join(", ")),
        _ => first.join(", "),
    }
}
