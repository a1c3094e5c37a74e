//! Labels in a file of their own: CSV (`name,label`, with or without a header; an empty label means
//! unlabelled), lines of `name label`, or one label per line for images that are numbered by name, as
//! the ground truth of ILSVRC-2012's validation images.

use super::item::Class;
use super::names::{base_name, is_image_name};
use super::{hash, meta_mat};
use crate::cli;
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const NO_LABEL: u32 = u32::MAX >> 1;
const NOT_A_CLASS: u32 = NO_LABEL - 1;
/// Set once an image has asked for the label.
const ASKED: u32 = 1 << 31;

/// A file of labels, read.
#[derive(Debug)]
pub struct LabelList {
    path: PathBuf,
    /// The file that says what the ground truth of ILSVRC-2012 means.
    meta: Option<PathBuf>,
    classes: Vec<String>,
    /// Hash of a name, or number of a line, to a class. 16 bytes per line.
    lines: HashMap<u64, AtomicU32>,
    by_number: bool,
}

/// One line of a file of labels.
pub struct ListLine<'a> {
    /// Counted from 1.
    pub line: u64,
    /// Empty if the file has only labels.
    pub name: &'a str,
    pub label: &'a str,
}

/// The classes of a list, and which of them each label means.
struct Numbering {
    classes: Vec<String>,
    labels: HashMap<String, u32>,
    meta: Option<PathBuf>,
}

impl LabelList {
    /// `given`: the class names, if they are known: a label is one of them, or its number from 0.
    ///
    /// Errors: as `for_each_line`, and `BadData` if two lines give an image different labels.
    pub fn open(path: &Path, given: Option<&[String]>) -> Result<LabelList> {
        let texts = distinct_labels(path)?;
        let numbers = texts.iter().all(|t| t.parse::<u64>().is_ok());
        let name = path.file_name().unwrap_or_default();
        let Numbering { classes, labels, meta } = match given {
            _ if name == "ILSVRC2012_validation_ground_truth.txt" && numbers => {
                Numbering::of_ilsvrc(path)?
            }
            Some(given) => Numbering::of_given(given, numbers),
            None => Numbering::of_labels(texts, numbers),
        };
        let mut list = LabelList {
            path: path.to_path_buf(),
            meta,
            classes,
            lines: HashMap::new(),
            by_number: false,
        };
        for_each_line(path, &mut |line| list.add(&line, &labels))?;
        Ok(list)
    }

    fn add(&mut self, line: &ListLine, labels: &HashMap<String, u32>) -> Result<()> {
        let class = match line.label {
            "" => NO_LABEL,
            label => labels.get(label).copied().unwrap_or(NOT_A_CLASS),
        };
        self.by_number = line.name.is_empty();
        let before = self.lines.insert(self.key(line), AtomicU32::new(class));
        match before.map(AtomicU32::into_inner) {
            Some(before) if before != class => Err(Error::bad_data(
                &self.path,
                "one label for each image",
                format!("a second one for {:?} on line {}", line.name, line.line),
                "remove one of the lines",
            )),
            _ => Ok(()),
        }
    }

    fn key(&self, line: &ListLine) -> u64 {
        if self.by_number { line.line } else { hash::of_name(&[line.name]) }
    }

    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        std::iter::once(self.path.clone()).chain(self.meta.clone())
    }

    fn line(&self, name: &str) -> Option<&AtomicU32> {
        match self.by_number {
            true => self.lines.get(&number(name)?),
            false => {
                let line = self.lines.get(&hash::of_name(&[name]));
                line.or_else(|| self.lines.get(&hash::of_name(&[base_name(name)])))
            }
        }
    }

    /// Whether there is a line for an image.
    pub fn lists(&self, name: &str) -> bool {
        self.line(name).is_some()
    }

    /// The class of an image by its path, else by its base name.
    pub fn class(&self, name: &str) -> Class {
        match self.line(name).map(|line| line.fetch_or(ASKED, Ordering::Relaxed) & !ASKED) {
            None if self.by_number => {
                Class::Bad(format!("no line for it in {}", self.path.display()))
            }
            None | Some(NO_LABEL) => Class::Unknown,
            Some(NOT_A_CLASS) => Class::Bad("a label outside of the class list".to_string()),
            Some(class) => Class::Index(class.into(), None),
        }
    }

    /// Says which lines no image has asked for, after all images have, and that `unlisted` images
    /// have no line.
    pub fn warn_of_rest(&self, unlisted: u64) -> Result<()> {
        if unlisted > 0 {
            cli::warn(&format!("{}: {unlisted} images are not in it", self.path.display()));
        }
        let (mut rest, mut first) = (0u64, None);
        for_each_line(&self.path, &mut |line| {
            let asked = |class: &AtomicU32| class.load(Ordering::Relaxed) & ASKED != 0;
            if !self.lines.get(&self.key(&line)).is_some_and(asked) {
                rest += 1;
                first.get_or_insert(line.line);
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

impl Numbering {
    /// The ground truth of ILSVRC-2012's validation images: its numbers are the devkit's, not those of
    /// the sorted names.
    fn of_ilsvrc(ground_truth: &Path) -> Result<Numbering> {
        let meta = ground_truth.with_file_name("meta.mat");
        let synsets = meta_mat::read(&meta)?;
        let sorted: BTreeSet<&String> = synsets.values().collect();
        let classes: Vec<String> = sorted.into_iter().cloned().collect();
        let place = |synset| classes.binary_search(synset).unwrap_or_default() as u32;
        let labels = synsets.iter().map(|(id, synset)| (id.to_string(), place(synset))).collect();
        Ok(Numbering { classes, labels, meta: Some(meta) })
    }

    /// Labels are class names, or numbers of them if all are numbers.
    fn of_given(classes: &[String], numbers: bool) -> Numbering {
        let mut labels = HashMap::new();
        if numbers {
            labels.extend((0..classes.len()).map(|i| (i.to_string(), i as u32)));
        }
        labels.extend(by_name(classes));
        Numbering { classes: classes.to_vec(), labels, meta: None }
    }

    /// The labels themselves are the classes, in the order of numbers if all are numbers.
    fn of_labels(labels: BTreeSet<String>, numbers: bool) -> Numbering {
        let mut classes: Vec<String> = labels.into_iter().collect();
        if numbers {
            classes.sort_by_key(|t| t.parse::<u64>().unwrap_or_default());
        }
        Numbering { labels: by_name(&classes).collect(), classes, meta: None }
    }
}

fn by_name(classes: &[String]) -> impl Iterator<Item = (String, u32)> {
    classes.iter().enumerate().map(|(i, name)| (name.clone(), i as u32))
}

fn distinct_labels(path: &Path) -> Result<BTreeSet<String>> {
    let mut labels = BTreeSet::new();
    for_each_line(path, &mut |line| {
        if !line.label.is_empty() && !labels.contains(line.label) {
            labels.insert(line.label.to_string());
        }
        Ok(())
    })?;
    Ok(labels)
}

/// Reads all lines.
///
/// Errors: `Missing`, or `BadData` with the line that cannot be read.
pub fn for_each_line(path: &Path, visit: &mut dyn FnMut(ListLine) -> Result<()>) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter(&first_line(path)?))
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|e| bad(path, &e))?;
    let mut columns = ListColumns { name: Some(0), label: Some(1) };
    for (nth, fields) in reader.records().enumerate() {
        let fields = fields.map_err(|e| bad(path, &e))?;
        if nth == 0 {
            let header;
            (columns, header) = ListColumns::of_first(&fields);
            if header {
                continue;
            }
        }
        let field = |at: Option<usize>| at.and_then(|at| fields.get(at)).unwrap_or_default();
        let name = field(columns.name).trim_start_matches("./");
        if columns.name.is_some() && name.is_empty() {
            return Err(Error::bad_data(
                path,
                "the name of an image in each row",
                format!("none on line {}", nth + 1),
                "correct the line",
            ));
        }
        visit(ListLine { line: nth as u64 + 1, name, label: field(columns.label) })?;
    }
    Ok(())
}

/// Where a list has names and labels.
struct ListColumns {
    name: Option<usize>,
    label: Option<usize>,
}

impl ListColumns {
    /// By the first line, and whether that is a header.
    fn of_first(fields: &csv::StringRecord) -> (ListColumns, bool) {
        const NAMES: [&str; 9] =
            ["name", "key", "file", "filename", "file_name", "image", "path", "image_id", "id"];
        const LABELS: [&str; 6] = ["label", "class", "category", "target", "class_name", "synset"];
        let find = |names: &[&str]| {
            let is = |field: &str| names.contains(&field.to_ascii_lowercase().as_str());
            fields.iter().position(is)
        };
        let (name, label) = (find(&NAMES), find(&LABELS));
        if name.is_some() {
            return (ListColumns { name, label }, true);
        }
        match fields.len() {
            1 if is_image_name(&fields[0]) => (ListColumns { name: Some(0), label: None }, false),
            1 => (ListColumns { name: None, label: Some(0) }, label.is_some()),
            _ => (ListColumns { name: Some(0), label: Some(1) }, false),
        }
    }
}

/// What separates the fields of a list.
fn delimiter(line: &str) -> u8 {
    match () {
        () if line.contains(',') => b',',
        () if line.contains('\t') => b'\t',
        () if line.contains(' ') => b' ',
        () => b',',
    }
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
