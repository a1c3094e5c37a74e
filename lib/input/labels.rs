//! Labels in a file of their own: CSV (`name,label`, with or without a header; an empty label means
//! unlabelled), lines of `name label`, or one label a line for images that are numbered by name, as
//! the ground truth of ILSVRC-2012's validation images.

use super::{Class, base_name, meta_mat};
use crate::cli;
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const NO_LABEL: u32 = u32::MAX >> 1;
const NOT_A_CLASS: u32 = NO_LABEL - 1;
/// Set once an image has asked for the label.
const ASKED: u32 = 1 << 31;

#[derive(Debug)]
pub struct Labels {
    path: PathBuf,
    /// Where the ground truth of ILSVRC-2012 counts its classes.
    meta: Option<PathBuf>,
    classes: Vec<String>,
    /// Hash of a name, or number of a line, to a class. 16 bytes a row.
    rows: HashMap<u64, AtomicU32>,
    by_number: bool,
}

/// One row of a file of labels.
pub struct Row<'a> {
    /// Line, from 1.
    pub line: u64,
    /// Empty where the file has only labels.
    pub name: &'a str,
    pub label: &'a str,
}

impl Labels {
    /// `given`: the class names, where they are known: a label is one of them, or its number from 0.
    pub fn open(path: &Path, given: Option<&[String]>) -> Result<Labels> {
        let mut texts = BTreeSet::new();
        for_each_row(path, &mut |row| {
            if !row.label.is_empty() && !texts.contains(row.label) {
                texts.insert(row.label.to_string());
            }
            Ok(())
        })?;
        let numbers = texts.iter().all(|t| t.parse::<u64>().is_ok());
        let mut labels = Labels {
            path: path.to_path_buf(),
            meta: None,
            classes: Vec::new(),
            rows: HashMap::new(),
            by_number: false,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut number: HashMap<String, u32> = HashMap::new();
        if name == "ILSVRC2012_validation_ground_truth.txt" && numbers {
            // Its numbers are the devkit's, not those of the sorted names.
            let meta = path.with_file_name("meta.mat");
            let synsets = meta_mat::read(&meta)?;
            let sorted: BTreeSet<&String> = synsets.values().collect();
            labels.classes = sorted.into_iter().cloned().collect();
            for (id, synset) in &synsets {
                let place = labels.classes.binary_search(synset);
                number.insert(id.to_string(), place.unwrap_or_default() as u32);
            }
            labels.meta = Some(meta);
        } else {
            labels.classes = match given {
                Some(given) => given.to_vec(),
                None => {
                    let mut texts: Vec<String> = texts.into_iter().collect();
                    if numbers {
                        texts.sort_by_key(|t| t.parse::<u64>().unwrap_or_default());
                    }
                    texts
                }
            };
            if given.is_some() && numbers {
                number.extend((0..labels.classes.len()).map(|i| (i.to_string(), i as u32)));
            }
            let names = labels.classes.iter().enumerate();
            number.extend(names.map(|(i, name)| (name.clone(), i as u32)));
        }

        let (rows, by_number) = (&mut labels.rows, &mut labels.by_number);
        for_each_row(path, &mut |row| {
            let class = match row.label {
                "" => NO_LABEL,
                label => number.get(label).copied().unwrap_or(NOT_A_CLASS),
            };
            *by_number = row.name.is_empty();
            let key = match row.name {
                "" => row.line,
                name => hash(name),
            };
            let before = rows.insert(key, AtomicU32::new(class));
            match before.map(AtomicU32::into_inner) {
                Some(before) if before != class => Err(Error::bad_data(
                    path,
                    "one label for each image",
                    format!("a second one for {:?} on line {}", row.name, row.line),
                    "remove one of the lines",
                )),
                _ => Ok(()),
            }
        })?;
        Ok(labels)
    }

    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        std::iter::once(self.path.clone()).chain(self.meta.clone())
    }

    fn row(&self, name: &str) -> Option<&AtomicU32> {
        match self.by_number {
            true => self.rows.get(&number(name)?),
            false => {
                let row = self.rows.get(&hash(name));
                row.or_else(|| self.rows.get(&hash(base_name(name))))
            }
        }
    }

    /// Whether there is a row for an image.
    pub fn lists(&self, name: &str) -> bool {
        self.row(name).is_some()
    }

    /// The class of an image by its path, else by its base name.
    pub fn class(&self, name: &str) -> Class {
        match self.row(name).map(|row| row.fetch_or(ASKED, Ordering::Relaxed) & !ASKED) {
            None if self.by_number => {
                Class::Bad(format!("no line for it in {}", self.path.display()))
            }
            None | Some(NO_LABEL) => Class::Unknown,
            Some(NOT_A_CLASS) => Class::Bad("a label outside of the class list".to_string()),
            Some(class) => Class::Index(class.into(), None),
        }
    }

    /// Says which rows no image has asked for, after all images have, and that `unlisted` images
    /// have no row.
    pub fn warn_of_rest(&self, unlisted: u64) -> Result<()> {
        if unlisted > 0 {
            cli::warn(&format!("{}: {unlisted} images are not in it", self.path.display()));
        }
        let (mut rest, mut first) = (0u64, None);
        for_each_row(&self.path, &mut |row| {
            let key = if self.by_number { row.line } else { hash(row.name) };
            let asked = |r: &AtomicU32| r.load(Ordering::Relaxed) & ASKED != 0;
            if !self.rows.get(&key).is_some_and(asked) {
                rest += 1;
                first.get_or_insert(row.line);
            }
            Ok(())
        })?;
        if let Some(line) = first {
            cli::warn(&format!(
                "{}: {rest} lines name no image, the first is line {line}",
                self.path.display()
            ));
        }
        Ok(())
    }
}

/// Reads all rows.
///
/// Errors: `Missing`, or `BadData` with the line that cannot be read.
pub fn for_each_row(path: &Path, visit: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
    let first = first_line(path)?;
    let delimiter = match () {
        () if first.contains(',') => b',',
        () if first.contains('\t') => b'\t',
        () if first.contains(' ') => b' ',
        () => b',',
    };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|e| bad(path, &e))?;
    let (mut name_at, mut label_at) = (Some(0), Some(1));
    for (nth, row) in reader.records().enumerate() {
        let row = row.map_err(|e| bad(path, &e))?;
        let find = |names: &[&str]| {
            let is = |field: &str| names.contains(&field.to_ascii_lowercase().as_str());
            row.iter().position(is)
        };
        if nth == 0 {
            const NAMES: [&str; 9] =
                ["name", "key", "file", "filename", "file_name", "image", "path", "image_id", "id"];
            let name = find(&NAMES);
            let label = find(&["label", "class", "category", "target", "class_name", "synset"]);
            if name.is_some() {
                (name_at, label_at) = (name, label);
                continue;
            }
            if row.len() == 1 {
                (name_at, label_at) = match super::is_image_name(&row[0]) {
                    true => (Some(0), None),
                    false => (None, Some(0)),
                };
                if label.is_some() {
                    continue;
                }
            }
        }
        let field = |at: Option<usize>| at.and_then(|at| row.get(at)).unwrap_or_default();
        let name = field(name_at).trim_start_matches("./");
        if name_at.is_some() && name.is_empty() {
            return Err(Error::bad_data(
                path,
                "the name of an image in each row",
                format!("none on line {}", nth + 1),
                "correct the line",
            ));
        }
        visit(Row { line: nth as u64 + 1, name, label: field(label_at) })?;
    }
    Ok(())
}

fn first_line(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::missing(path, "labels", "name a file of labels"),
        _ => Error::io(path)(e),
    })?;
    // A longer line is none of names and labels.
    let mut start = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 16), &mut start)
        .map_err(Error::io(path))?;
    let line = start.split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).trim().to_string())
}

fn bad(path: &Path, e: &csv::Error) -> Error {
    Error::bad_data(path, "rows of names and labels", e.to_string(), "write it as CSV in UTF-8")
}

/// The number that a name ends in: 7 of `ILSVRC2012_val_00000007.JPEG`.
fn number(name: &str) -> Option<u64> {
    let stem = base_name(name).split('.').next().unwrap_or_default();
    let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem[digits..].parse().ok()
}

fn hash(name: &str) -> u64 {
    let mut bytes = [0; 8];
    let mut hasher = blake3::Hasher::new();
    hasher.update(name.as_bytes()).finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
