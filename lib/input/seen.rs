//! The classes of an input, collected from its images.

use super::Input;
use super::item::Class;
use super::label;
use super::names::nfc;
use crate::cli;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// More classes than this are a mistake about what the classes are.
const MAX_CLASSES: usize = 100_000;

/// What the images of an input say about their classes.
#[derive(Debug, Default)]
pub struct SeenClasses {
    folders: BTreeSet<String>,
    names: BTreeSet<String>,
    /// The highest number.
    last: Option<u64>,
    number_names: BTreeMap<u64, String>,
    /// The lowest of the numbers that count from 0 or from 1.
    first_counted: Option<u64>,
}

impl SeenClasses {
    pub fn add(&mut self, class: Class) {
        if let Class::Counted(number, _) = class {
            self.first_counted = Some(self.first_counted.unwrap_or(number).min(number));
        }
        let insert = |set: &mut BTreeSet<String>, name| {
            if !set.contains(&name) && set.len() <= MAX_CLASSES {
                set.insert(name);
            }
        };
        match class {
            Class::Folder(name) => insert(&mut self.folders, name),
            Class::Name(name) => insert(&mut self.names, name),
            Class::Index(number, name) | Class::Counted(number, name)
                if number <= MAX_CLASSES as u64 =>
            {
                self.last = self.last.max(Some(number));
                if let Some(name) = name {
                    self.number_names.entry(number).or_insert(name);
                }
            }
            _ => {}
        }
    }

    /// What numbers count from, if the input leaves it open.
    pub fn first(&self) -> u64 {
        u64::from(self.first_counted.is_some_and(|first| first > 0))
    }

    /// Whether all names of classes are numbers.
    pub fn are_numbers(&self) -> bool {
        label::are_numbers(self.names.iter())
    }

    /// Whether an image lies in a folder that may be a class.
    pub fn has_folders(&self) -> bool {
        !self.folders.is_empty()
    }

    /// Whether no image has the name or the number of a class.
    pub fn are_nothing_else(&self) -> bool {
        self.names.is_empty() && self.last.is_none()
    }

    /// Whether the folders of the images are their classes: not if images have names or numbers of
    /// classes, nor, in a tar, if all lie in one folder. Beside a list of labels only images that are
    /// not in it are seen by their folders, and those are classes if the list has one of their names.
    ///
    /// Errors: `BadData` if folders and a list have no class in common and no option names the classes.
    pub fn are_folders(&self, input: &Input) -> Result<bool> {
        let Some(labels) = &input.labels else {
            let one_folder = input.is_archive() && self.folders.len() == 1;
            return Ok(self.are_nothing_else() && !one_folder);
        };
        let known: HashSet<_> = match &input.classes {
            Some(given) => given.iter().map(|n| nfc(n)).collect(),
            None => self.names.iter().map(|n| nfc(n)).collect(),
        };
        let common = self.folders.iter().any(|folder| known.contains(&nfc(folder)));
        if common || self.folders.len() < 2 || input.classes.is_some() {
            return Ok(common);
        }
        let first = |names: &BTreeSet<String>| names.first().cloned().unwrap_or_default();
        Err(Error::bad_data(
            labels.path(),
            "labels named like the folders of the images without a line",
            format!("label {:?}, folder {:?}", first(&self.names), first(&self.folders)),
            "name the classes with --classes, or give all images a line",
        ))
    }

    /// The names in order: as numbers if the input numbers its classes, else sorted, folders as text
    /// and other names as numbers if all are.
    ///
    /// Errors: `BadData` of the input `root` if they are not one list of distinct names.
    pub fn list(self, root: &Path, are_folders: bool) -> Result<Vec<String>> {
        let bad = |expected: &str, found: String| {
            let hint = "name the classes with --classes, one per line";
            Err(Error::bad_data(root, expected, found, hint))
        };
        let first = self.first();
        let list: Vec<String> = match (self.last, are_folders) {
            (Some(number), _) if !self.names.is_empty() => {
                let name = self.names.first().map_or("", |n| n);
                return bad(
                    "names of classes or numbers",
                    format!("both, as {name:?} and {number}"),
                );
            }
            (Some(last), _) => (first..=last)
                .map(|n| {
                    self.number_names.get(&n).cloned().unwrap_or_else(|| (n - first).to_string())
                })
                .collect(),
            (None, true) => {
                distinct(root, self.folders.into_iter().chain(self.names)).into_iter().collect()
            }
            (None, false) => label::in_order(distinct(root, self.names.into_iter())),
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

/// Names without those that differ only in how they are composed.
fn distinct(root: &Path, names: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut by_form: BTreeMap<String, String> = BTreeMap::new();
    for name in names {
        let form = nfc(&name).into_owned();
        let kept = by_form.entry(form.clone()).or_insert_with(|| name.clone());
        if *kept != name {
            cli::warn(&format!(
                "{}: two ways to write {form:?}, which differ in Unicode alone, are one class",
                root.display()
            ));
            *kept = form;
        }
    }
    by_form.into_values().collect()
}
