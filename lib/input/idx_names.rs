//! Which IDX files a folder has, by their names: `train-images-idx3-ubyte`, with a dot before `idx3` as
//! some unpackers write it, or `emnist-letters-train-images-idx3-ubyte` of one of EMNIST's sets.

use super::item::SplitName;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Each split with its names in these files.
const SPLITS: [(SplitName, &[&str]); 2] =
    [(SplitName::Train, &["train"]), (SplitName::Test, &["t10k", "test"])];
/// In order of preference: plain, gzip, zstd.
const ENDINGS: [&str; 3] = ["", ".gz", ".zst"];
const EMNIST: &str = "emnist-";
/// Of EMNIST's sets: number of classes.
const EMNIST_CLASSES: [(&str, usize); 6] = [
    ("emnist-balanced-", 47),
    ("emnist-byclass-", 62),
    ("emnist-bymerge-", 47),
    ("emnist-digits-", 10),
    ("emnist-letters-", 26),
    ("emnist-mnist-", 10),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Images,
    Labels,
}

/// The files of one data set: what their names begin with.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Set(String);

/// The sets that a folder has images of.
pub fn sets(root: &Path) -> Vec<Set> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut sets: Vec<Set> =
        names.filter_map(|name| Some(Set(prefix(&name)?.to_string()))).collect();
    sets.sort();
    sets.dedup();
    sets
}

/// What a name of a file of images has before its split.
fn prefix(name: &str) -> Option<&str> {
    let name = ENDINGS.iter().rev().find_map(|ending| name.strip_suffix(ending))?;
    let name = ["-", "."].iter().find_map(|dot| name.strip_suffix(&tail(Kind::Images, dot)))?;
    let splits = SPLITS.iter().flat_map(|(_, names)| *names);
    let prefix = splits.filter_map(|split| name.strip_suffix(split)).next()?;
    (prefix.is_empty() || prefix.ends_with(['-', '_'])).then_some(prefix)
}

fn tail(kind: Kind, dot: &str) -> String {
    match kind {
        Kind::Images => format!("-images{dot}idx3-ubyte"),
        Kind::Labels => format!("-labels{dot}idx1-ubyte"),
    }
}

impl Set {
    /// For people.
    pub fn name(&self) -> &str {
        match self.0.trim_end_matches(['-', '_']) {
            "" => "train-images-idx3-ubyte",
            name => name,
        }
    }

    /// The files of a kind with their splits.
    pub fn files(&self, root: &Path, kind: Kind) -> Vec<(SplitName, PathBuf)> {
        let file = |names: &[&str]| {
            let names = names.iter().flat_map(|split| ["-", "."].map(|dot| (split, dot)));
            let files = names.flat_map(|(split, dot)| {
                ENDINGS.map(|ending| format!("{}{split}{}{ending}", self.0, tail(kind, dot)))
            });
            files.map(|name| root.join(name)).find(|path| path.is_file())
        };
        SPLITS.iter().filter_map(|(split, names)| Some((*split, file(names)?))).collect()
    }

    /// EMNIST stores its images column by column.
    pub fn by_column(&self) -> bool {
        self.0.starts_with(EMNIST)
    }

    /// EMNIST's letters count from 1.
    pub fn first_label(&self) -> u8 {
        u8::from(self.0 == "emnist-letters-")
    }

    /// Names of the classes, the first label (0 or 1), and the file that says so.
    pub fn classes(&self, root: &Path) -> Result<(Vec<String>, u8, Option<PathBuf>)> {
        let mapping = root.join(format!("{}mapping.txt", self.0));
        let first = self.first_label();
        if !self.by_column() || !mapping.is_file() {
            let sets = EMNIST_CLASSES.iter();
            let count = sets.filter(|(set, _)| *set == self.0).map(|(_, n)| *n).next();
            let numbers = usize::from(first)..usize::from(first) + count.unwrap_or(10);
            return Ok((numbers.map(|n| n.to_string()).collect(), first, None));
        }
        let text = std::fs::read_to_string(&mapping).map_err(Error::io(&mapping))?;
        let mut classes = Vec::new();
        for (line, n) in text.lines().zip(usize::from(first)..) {
            let numbers: Vec<u32> = line.split_whitespace().flat_map(str::parse).collect();
            let letter = match numbers[..] {
                [label, letter, ..] if label as usize == n => char::from_u32(letter),
                _ => None,
            };
            let Some(letter) = letter else {
                return Err(Error::bad_data(
                    &mapping,
                    format!("{n} and the code of a letter on each line"),
                    format!("{line:?}"),
                    "copy it again, or remove it: then classes are numbers",
                ));
            };
            classes.push(letter.to_string());
        }
        Ok((classes, first, Some(mapping)))
    }
}
