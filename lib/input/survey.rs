//! A pass over an input without its images: the classes, the keys that occur twice, and which
//! items make which shard. After it, each shard is a pure function of the input and its place, so
//! shards can be written in any order, by any thread, in any process.

use super::{Class, Fault, Files, Input, Item, Position, SplitName, base_name};
use crate::cli;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;

/// More classes than this are a mistake about what the classes are.
const MAX_CLASSES: usize = 100_000;
/// A file ends after so many images, however small: the writer keeps the place of each until then.
const FILE_IMAGES: u64 = 1 << 16;

#[derive(Debug)]
pub struct Plan {
    /// Class names; a label is an index into them.
    pub classes: Vec<String>,
    /// Height, width and channels of pixels; `None` for encoded images.
    pub shape: Option<[usize; 3]>,
    pub shards: Vec<Shard>,
    class_numbers: HashMap<String, u32>,
    /// Whether the folders of the images are their classes.
    by_folder: bool,
    /// Hashes of the base names that a split has in several places, sorted.
    repeated: Vec<u64>,
    /// Hashes of the paths that a split has twice, with the number of the first item of each.
    firsts: HashMap<u64, u64>,
}

/// Consecutive items of one split that make one file.
#[derive(Debug, Clone)]
pub struct Shard {
    pub split: SplitName,
    /// Number of the file in its split, and how many the split has.
    pub file: usize,
    pub files: usize,
    /// Items, bad ones with them.
    pub items: u64,
    /// Number of the first item in its split.
    first: u64,
    start: Position,
    /// Items of the split that a walk from `start` meets before the first.
    skip: u64,
}

/// An item with its key and label. `image`: its bytes, or why it is rejected.
#[derive(Debug)]
pub struct Record {
    /// Unique within its split: the base name, or the path where the split has the base name twice.
    pub key: String,
    /// Where it is in the input.
    pub path: String,
    /// Index into `Plan::classes`; `None` where the input has no label.
    pub label: Option<u32>,
    pub image: std::result::Result<Vec<u8>, String>,
}

/// What the scan knows of a split so far.
#[derive(Debug, Default)]
struct Progress {
    items: u64,
    shards: usize,
    /// Number of the shard begun last, and its bytes.
    shard: usize,
    bytes: u64,
    last: Option<Position>,
    /// Items so far at the position `last`.
    at_last: u64,
}

#[derive(Debug, Default)]
struct Classes {
    folders: BTreeSet<String>,
    names: BTreeSet<String>,
    numbers: Option<u64>,
    number_names: BTreeMap<u64, String>,
}

impl Plan {
    /// Scans the input. A file of the shards ends before the image that would bring it above
    /// `file_bytes`. Memory: 8 bytes an image, and 16 more where the base name is not its alone.
    ///
    /// Errors: `BadData` where there is no image, and, unless `cut` is allowed, where a file of many
    /// images ends in the middle.
    pub fn new(source: &Input, file_bytes: u64, allow_cut: bool) -> Result<Plan> {
        let mut shards: Vec<Shard> = Vec::new();
        let mut splits: BTreeMap<SplitName, Progress> = BTreeMap::new();
        let mut classes = Classes::default();
        let mut names = Vec::new();
        let mut unlisted = 0u64;
        source.scan(&mut |item| {
            if let (Err(Fault::Cut(found)), false) = (&item.image, allow_cut) {
                return Err(Error::bad_data(
                    &source.root,
                    "complete files",
                    format!("{:?}: {found}", item.name),
                    "copy it again, or keep what is before with --allow-rejects 1",
                ));
            }
            let progress = splits.entry(item.split).or_default();
            match progress.last == Some(item.position) {
                true => progress.at_last += 1,
                false => progress.at_last = 0,
            }
            progress.last = Some(item.position);
            if progress.shards == 0
                || shards[progress.shard].items == FILE_IMAGES
                || progress.bytes > 0 && progress.bytes.saturating_add(item.size) > file_bytes
            {
                progress.shard = shards.len();
                shards.push(Shard {
                    split: item.split,
                    file: progress.shards,
                    files: 0,
                    items: 0,
                    first: progress.items,
                    start: item.position,
                    skip: progress.at_last,
                });
                progress.shards += 1;
                progress.bytes = 0;
            }
            progress.bytes = progress.bytes.saturating_add(item.size);
            shards[progress.shard].items += 1;
            progress.items += 1;
            names.push(hash(item.split, base_name(&item.name)));
            let listed = source.labels.as_ref().is_none_or(|l| l.lists(&item.name));
            unlisted += u64::from(!listed);
            classes.add(source.class(&item));
            Ok(())
        })?;
        if shards.is_empty() {
            return Err(Error::bad_data(
                &source.root,
                "images",
                "none",
                "name a folder or file that holds images",
            ));
        }
        if let Some(labels) = &source.labels {
            labels.warn_of_rest(unlisted)?;
        }
        let repeated = several(names);
        let firsts = source.firsts(&repeated)?;
        for shard in &mut shards {
            shard.files = splits[&shard.split].shards;
        }
        shards.sort_by_key(|s| (s.split, s.file));
        let one_folder = matches!(source.files, Files::Tar(_)) && classes.folders.len() == 1;
        let by_folder = classes.names.is_empty() && classes.numbers.is_none() && !one_folder;
        let classes = match &source.classes {
            Some(classes) => classes.clone(),
            None => classes.list(source, by_folder)?,
        };
        let numbers = classes.iter().enumerate();
        Ok(Plan {
            class_numbers: numbers.map(|(i, c)| (c.clone(), i as u32)).collect(),
            classes,
            shape: source.shape(),
            shards,
            by_folder,
            repeated,
            firsts,
        })
    }

    /// Splits that have images, with their numbers of items.
    pub fn splits(&self) -> BTreeMap<SplitName, u64> {
        let mut splits = BTreeMap::new();
        for shard in &self.shards {
            *splits.entry(shard.split).or_default() += shard.items;
        }
        splits
    }

    /// Number of all items.
    pub fn items(&self) -> u64 {
        self.shards.iter().map(|s| s.items).sum()
    }

    /// Reads the items of a shard in order.
    pub fn read(
        &self,
        source: &Input,
        shard: &Shard,
        visit: &mut dyn FnMut(Record) -> Result<()>,
    ) -> Result<()> {
        let (mut skip, mut nth) = (shard.skip, shard.first);
        let end = shard.first + shard.items;
        source.walk(shard.start, true, &mut |item| {
            if item.split != shard.split {
                return Ok(ControlFlow::Continue(()));
            }
            if skip > 0 {
                skip -= 1;
                return Ok(ControlFlow::Continue(()));
            }
            visit(self.record(source, item, nth))?;
            nth += 1;
            Ok(match nth == end {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        if nth < end {
            return Err(Error::bad_data(
                &source.root,
                format!("{} images as a moment ago", shard.items),
                format!("{}", nth - shard.first),
                "let nothing change the input while it is read",
            ));
        }
        Ok(())
    }

    fn record(&self, source: &Input, item: Item, nth: u64) -> Record {
        let class = source.class(&item);
        let name = base_name(&item.name);
        let (key, first) = match self.repeated.binary_search(&hash(item.split, name)) {
            Ok(_) => {
                let path = key_path(&item.name);
                (path, self.firsts.get(&hash(item.split, path)))
            }
            Err(_) => (name, None),
        };
        let mut image = item.image.map_err(|fault| match fault {
            Fault::Image(what) | Fault::Cut(what) => what,
        });
        let label = match self.label(class) {
            Ok(label) => label,
            Err(what) => {
                image = image.and(Err(what));
                None
            }
        };
        if first.is_some_and(|first| *first < nth) {
            image = image.and(Err("a key that an earlier image has".to_string()));
        }
        Record { key: key.to_string(), path: item.name, label, image }
    }

    fn label(&self, class: Class) -> std::result::Result<Option<u32>, String> {
        let numbered = |name: String| match self.class_numbers.get(&name) {
            Some(&number) => Ok(Some(number)),
            None => Err(format!("class {name:?}, which is not in the class list")),
        };
        match class {
            Class::Unknown => Ok(None),
            Class::Folder(_) if !self.by_folder => Ok(None),
            Class::Folder(name) | Class::Name(name) => numbered(name),
            Class::Index(number, _) if number < self.classes.len() as u64 => {
                Ok(Some(number as u32))
            }
            Class::Index(number, _) => {
                Err(format!("label {number}, outside of {} classes", self.classes.len()))
            }
            Class::Bad(found) => Err(found),
        }
    }
}

impl Input {
    /// The class of an item, by the list of labels where there is one.
    fn class(&self, item: &Item) -> Class {
        match &self.labels {
            Some(labels) => labels.class(&item.name),
            None => item.class.clone(),
        }
    }

    /// Visits all items, without their images.
    fn scan(&self, visit: &mut dyn FnMut(Item) -> Result<()>) -> Result<()> {
        self.walk(Position::default(), false, &mut |item| {
            if cli::stop_requested() {
                let path = self.root.clone();
                return Err(Error::Interrupted { path });
            }
            visit(item).map(ControlFlow::Continue)
        })
    }

    /// `Plan::firsts`, by a second pass where base names are `repeated`.
    fn firsts(&self, repeated: &[u64]) -> Result<HashMap<u64, u64>> {
        let mut paths = Vec::new();
        if !repeated.is_empty() {
            let mut numbers: BTreeMap<SplitName, u64> = BTreeMap::new();
            self.scan(&mut |item| {
                let number = numbers.entry(item.split).or_default();
                let name = hash(item.split, base_name(&item.name));
                if repeated.binary_search(&name).is_ok() {
                    paths.push((hash(item.split, key_path(&item.name)), *number));
                }
                *number += 1;
                Ok(())
            })?;
        }
        paths.sort_unstable();
        let runs = paths.chunk_by(|a, b| a.0 == b.0);
        Ok(runs.filter(|run| run.len() > 1).map(|run| run[0]).collect())
    }
}

/// Those that are there more than once, sorted.
fn several(mut hashes: Vec<u64>) -> Vec<u64> {
    hashes.sort_unstable();
    let runs = hashes.chunk_by(|a, b| a == b);
    runs.filter(|run| run.len() > 1).map(|run| run[0]).collect()
}

impl Classes {
    fn add(&mut self, class: Class) {
        let insert = |set: &mut BTreeSet<String>, name| {
            if !set.contains(&name) && set.len() <= MAX_CLASSES {
                set.insert(name);
            }
        };
        match class {
            Class::Folder(name) => insert(&mut self.folders, name),
            Class::Name(name) => insert(&mut self.names, name),
            Class::Index(number, name) if number < MAX_CLASSES as u64 => {
                self.numbers = self.numbers.max(Some(number));
                if let Some(name) = name {
                    self.number_names.entry(number).or_insert(name);
                }
            }
            _ => {}
        }
    }

    /// The names in order: as numbers where the input numbers its classes, else sorted.
    fn list(self, source: &Input, by_folder: bool) -> Result<Vec<String>> {
        let bad = |expected: &str, found: String| {
            let hint = "name the classes with --classes, one a line";
            Err(Error::bad_data(&source.root, expected, found, hint))
        };
        let list: Vec<String> = match (self.numbers, by_folder) {
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

/// The path that tells images of one base name apart: without the folder of the split.
fn key_path(name: &str) -> &str {
    match name.split_once('/') {
        Some((folder, rest)) if SplitName::of_folder(folder).is_some() => rest,
        _ => name,
    }
}

/// 64 bits: among a million names two share a hash in one of 40 million inputs.
fn hash(split: SplitName, name: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(split.name().as_bytes()).update(b"/").update(name.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
