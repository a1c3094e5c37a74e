//! The names of the classes: read from a file, or collected from the images.

use super::item::Class;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// More classes than this are a mistake about what the classes are.
const MAX_CLASSES: usize = 100_000;

/// The names of a file of class names, one per line, each once.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::missing(path, "class names", "name a file of one class a line")
        }
        std::io::ErrorKind::InvalidData => Error::bad_data(
            path,
            "one class name a line",
            "bytes that are not UTF-8",
            "write it as UTF-8",
        ),
        _ => Error::io(path)(e),
    })?;
    let names: Vec<String> = text.trim_end().lines().map(|l| l.trim().to_string()).collect();
    let mut seen = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || !seen.insert(name) {
            return Err(Error::bad_data(
                path,
                "one class name a line, each once",
                format!("{name:?} on line {}", i + 1),
                "correct the line",
            ));
        }
    }
    Ok(names)
}

/// What the images of an input say about their classes.
#[derive(Debug, Default)]
pub struct SeenClasses {
    folders: BTreeSet<String>,
    names: BTreeSet<String>,
    /// The highest number.
    last: Option<u64>,
    number_names: BTreeMap<u64, String>,
}

impl SeenClasses {
    pub fn add(&mut self, class: Class) {
        let insert = |set: &mut BTreeSet<String>, name| {
            if !set.contains(&name) && set.len() <= MAX_CLASSES {
                set.insert(name);
            }
        };
        match class {
            Class::Folder(name) => insert(&mut self.folders, name),
            Class::Name(name) => insert(&mut self.names, name),
            Class::Index(number, name) if number < MAX_CLASSES as u64 => {
                self.last = self.last.max(Some(number));
                if let Some(name) = name {
                    self.number_names.entry(number).or_insert(name);
                }
            }
            _ => {}
        }
    }

    /// Whether the folders of the images are their classes: not if images have names or numbers of
    /// classes, nor, in a tar, if all lie in one folder.
    pub fn are_folders(&self, in_tar: bool) -> bool {
        let one_folder = in_tar && self.folders.len() == 1;
        self.names.is_empty() && self.last.is_none() && !one_folder
    }

    /// The names in order: as numbers if the input numbers its classes, else sorted.
    ///
    /// Errors: `BadData` of the input `root` if they are not one list of distinct names.
    pub fn list(self, root: &Path, are_folders: bool) -> Result<Vec<String>> {
        let bad = |expected: &str, found: String| {
            let hint = "name the classes with --classes, one a line";
            Err(Error::bad_data(root, expected, found, hint))
        };
        let list: Vec<String> = match (self.last, are_folders) {
            (Some(number), _) if !self.names.is_empty() => {
                let name = self.names.first().map_or("", |n| n);
                return bad(
                    "names of classes or numbers",
                    format!("both, as {name:?} and {number}"),
                );
            }
            (Some(last), _) => (0..=last)
                .map(|n| self.number_names.get(&n).cloned().unwrap_or(n.to_string()))
                .collect(),
            (None, true) => self.folders.into_iter().collect(),
            (None, false) => self.names.into_iter().collect(),
        };
        if list.len() > MAX_CLASSES {
            return bad(&format!("at most {MAX_CLASSES} classes"), "more".to_string());
        }
        let distinct: HashSet<&String> = list.iter().collect();
        if distinct.len() < list.len() {
            return bad("a name of its own for each class", "one name twice".to_string());
        }
        Ok(list)
    }
}
