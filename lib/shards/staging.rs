//! A shard folder in the making, `<out>.partial`: finished files with a record of each. A run that was
//! stopped or killed goes on with the files that are missing; a part of a run is such a folder under a
//! name of its own, and merging joins parts.
//!
//! ```text
//! plan.json               what is being made: a folder of another plan is begun anew
//! files/                  the future shard folder
//! records/<file>.json     hashes and rejects of a finished file
//! ```

use super::write::{Row, digest};
use super::{Dataset, FORMAT, Resized, SplitInfo};
use crate::artifact::{self, Lineage};
use crate::cli;
use crate::error::{Error, Result};
use crate::schema::{self, FILES, PARTIAL, PLAN, RECORDS, shard_file};
use crate::tables::table;
use arrow::array::{ArrayRef, StringArray};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub classes: Vec<String>,
    pub shape: Option<[usize; 3]>,
    /// Number of files of each split.
    pub splits: BTreeMap<String, usize>,
    /// Images of the input, rejects with them.
    pub items: u64,
    pub lineage: BTreeMap<String, String>,
    pub resized: Option<Resized>,
    /// Which part of how many, from 1.
    pub part: (usize, usize),
}

/// An image that is not in the shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reject {
    pub key: String,
    /// Where it is in the input.
    pub path: String,
    pub reason: String,
}

/// Hash of a sequence of digests, which is the same however the sequence is cut into files: the
/// polynomial hash of Rabin and Karp, modulo 2^128.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content(u128);

impl Content {
    /// The golden ratio, made odd.
    const BASE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

    fn add(&mut self, digest: [u8; 16]) {
        self.extend(&Content(u128::from_le_bytes(digest)), 1);
    }

    /// Appends a sequence of `length` digests.
    fn extend(&mut self, next: &Content, length: usize) {
        let moved = self.0.wrapping_mul(Self::BASE.wrapping_pow(length as u32));
        self.0 = moved.wrapping_add(next.0);
    }

    fn hex(&self) -> String {
        schema::short_hash(&blake3::hash(&self.0.to_le_bytes()))
    }
}

/// What is kept of a finished file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FileRecord {
    pub images: usize,
    /// BLAKE3 of the file.
    hash: String,
    content: Content,
    pub rejects: Vec<Reject>,
}

impl FileRecord {
    pub fn add(&mut self, row: &Row) {
        self.images += 1;
        self.content.add(digest(row));
    }
}

/// An open staging folder. While it is open no other process may write it.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    pub head: Head,
    _lock: File,
}

impl Staging {
    /// Opens the folder `root`, keeping the finished files in it if they are of the same plan.
    ///
    /// Errors: `NotOurs` for a folder of something else, `Io` where another process writes it.
    pub fn open(root: &Path, head: Head) -> Result<Staging> {
        std::fs::create_dir_all(root).map_err(Error::io(root))?;
        let found = std::fs::read_dir(root).map_err(Error::io(root))?.count();
        let plan = root.join(PLAN);
        if found > 0 && !plan.is_file() {
            return Err(Error::NotOurs {
                path: root.to_path_buf(),
                what: "a folder that s4l-shard left behind".to_string(),
            });
        }
        let lock =
            File::options().create(true).append(true).open(&plan).map_err(Error::io(&plan))?;
        if lock.try_lock().is_err() {
            let busy = std::io::Error::other("another s4l-shard writes it; wait for its end");
            return Err(Error::io(root)(busy));
        }
        let staging = Staging { root: root.to_path_buf(), head, _lock: lock };
        if read_head(root).ok().as_ref() != Some(&staging.head) {
            for folder in [FILES, RECORDS] {
                let folder = root.join(folder);
                if folder.exists() {
                    std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
                }
                std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
            }
            // In place: the lock is on this file.
            std::fs::write(&plan, to_json(&staging.head)?).map_err(Error::io(&plan))?;
        }
        Ok(staging)
    }

    /// Where a file is written before it is `finished`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(RECORDS).join(format!("{name}.tmp"))
    }

    /// Takes a complete file over.
    pub fn finished(&self, name: &str, mut record: FileRecord, hash: blake3::Hash) -> Result<()> {
        record.hash = hash.to_hex().to_string();
        let from = self.path(name);
        let to = self.root.join(FILES).join(name);
        std::fs::rename(&from, to).map_err(Error::io(&from))?;
        artifact::write_bytes(&self.record_path(name), &to_json(&record)?)
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.root.join(RECORDS).join(format!("{name}.json"))
    }

    /// The record of a finished file, `None` where it is still to be written.
    pub fn record(&self, name: &str) -> Option<FileRecord> {
        let text = std::fs::read(self.record_path(name)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Leaves the folder for a later run and returns how many files are finished. Without any, it is
    /// removed.
    pub fn leave(self) -> usize {
        let files = std::fs::read_dir(self.root.join(FILES));
        let finished = files.map_or(0, Iterator::count);
        if finished == 0 {
            // What cannot be removed does no harm: the next run begins with it.
            let _ = std::fs::remove_dir_all(&self.root);
        }
        finished
    }

    /// Makes the folder part I of N of `out`.
    pub fn commit_part(self, out: &Path) -> Result<()> {
        let name = part_name(out, self.head.part);
        if name.exists() {
            std::fs::remove_dir_all(&name).map_err(Error::io(&name))?;
        }
        std::fs::rename(&self.root, &name).map_err(Error::io(&name))
    }

    /// Makes the finished files the shard folder `out`. More rejects than the share `allowed` of all
    /// images are an error.
    pub fn commit(self, out: &Path, allowed: f64, input: &Path) -> Result<()> {
        let files = self.root.join(FILES);
        let mut splits = BTreeMap::new();
        let mut manifest = Vec::new();
        let (mut rejects, mut of_split) = (Vec::new(), Vec::new());
        for (split, &count) in &self.head.splits {
            let mut content = Content::default();
            let mut images = 0;
            for i in 0..count {
                let name = shard_file(split, i, count);
                let record = self.record(&name).ok_or_else(|| {
                    Error::missing(&self.record_path(&name), "file", "run the same command again")
                })?;
                images += record.images;
                content.extend(&record.content, record.images);
                of_split.extend(record.rejects.iter().map(|_| split.as_str()));
                rejects.extend(record.rejects);
                manifest.push((name, record.hash));
            }
            let info = SplitInfo { images, files: count, content: content.hex() };
            splits.insert(split.clone(), info);
        }
        check_rejects(input, rejects.len() as u64, rejects.first(), self.head.items, allowed)?;
        let dataset = Dataset {
            format: FORMAT,
            classes: self.head.classes.clone(),
            shape: self.head.shape,
            splits,
            resized: self.head.resized,
            lineage: self.head.lineage.clone(),
        };
        let path = files.join(schema::DATASET_JSON);
        let json = to_json(&dataset)?;
        artifact::write_bytes(&path, &json)?;
        let hash = blake3::hash(&json).to_hex().to_string();
        manifest.insert(0, (schema::DATASET_JSON.to_string(), hash));
        let path = files.join(schema::REJECTS);
        if !rejects.is_empty() {
            let lineage = Lineage::of_metadata("s4l-shard", &self.head.lineage);
            write_rejects(&path, &rejects, &of_split, &lineage)?;
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            let hash = blake3::hash(&bytes).to_hex().to_string();
            manifest.push((schema::REJECTS.to_string(), hash));
            cli::warn(&format!(
                "{}: {} of {} images are not in the shards: see {}",
                input.display(),
                rejects.len(),
                self.head.items,
                out.join(schema::REJECTS).display()
            ));
        }
        let manifest: String =
            manifest.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        artifact::write_bytes(&files.join(schema::MANIFEST), manifest.as_bytes())?;
        artifact::commit_folder(&files, out)?;
        std::fs::remove_dir_all(&self.root).map_err(Error::io(&self.root))
    }

    /// Joins all parts of `out`, whose files are linked, not copied, where the file system can.
    ///
    /// Errors: `Missing` where there is no part or not each, `BadData` where they are not parts of
    /// one run.
    pub fn merge(out: &Path) -> Result<Staging> {
        let parts = parts(out)?;
        let hint = "run s4l-shard --part I/N for it, with the same --out";
        let Some(first) = parts.first() else {
            let path = part_name(out, (1, 2));
            return Err(Error::missing(&path, "part", hint));
        };
        let head = read_head(first)?;
        let all = head.part.1;
        if parts.len() > all {
            return Err(Error::bad_data(
                first,
                format!("{all} parts"),
                format!("{}", parts.len()),
                "remove those of another number of parts",
            ));
        }
        let mut paths = Vec::new();
        for part in 1..=all {
            let path = part_name(out, (part, all));
            if !path.is_dir() {
                return Err(Error::missing(&path, "part", hint));
            }
            let of_part = read_head(&path)?;
            if of_part != (Head { part: (part, all), ..head.clone() }) {
                return Err(Error::bad_data(
                    &path,
                    format!("a part of the run that {} is of", first.display()),
                    "a part of another one",
                    "make all parts from the same input with the same settings",
                ));
            }
            paths.push(path);
        }
        let merged = Staging::open(&partial(out), Head { part: (1, 1), ..head })?;
        for folder in paths.iter().flat_map(|p| [p.join(FILES), p.join(RECORDS)]) {
            for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
                let from = entry.map_err(Error::io(&folder))?.path();
                let kind = folder.file_name().unwrap_or_default();
                let to = merged.root.join(kind).join(from.file_name().unwrap_or_default());
                if to.exists() {
                    continue;
                }
                std::fs::hard_link(&from, &to)
                    .or_else(|_| std::fs::copy(&from, &to).map(|_| ()))
                    .map_err(Error::io(&from))?;
            }
        }
        Ok(merged)
    }
}

/// The folder in which `out` is made.
pub fn partial(out: &Path) -> PathBuf {
    beside(out, PARTIAL)
}

/// The folder of a part of `out`.
pub fn part_name(out: &Path, (part, parts): (usize, usize)) -> PathBuf {
    beside(out, &schema::part_ending(part, parts))
}

/// Lineage of the parts of `out`, as `lineage_of_part`.
pub fn lineage_of_parts(out: &Path) -> Option<std::collections::HashMap<String, String>> {
    lineage_of_part(parts(out).ok()?.first()?)
}

/// Lineage of a finished part, as `artifact::target` wants it.
pub fn lineage_of_part(path: &Path) -> Option<std::collections::HashMap<String, String>> {
    Some(read_head(path).ok()?.lineage.into_iter().collect())
}

fn beside(out: &Path, ending: &str) -> PathBuf {
    // Components drop the slash at the end of a folder's name.
    let mut name = out.components().as_path().as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// The folders that are parts of `out`.
fn parts(out: &Path) -> Result<Vec<PathBuf>> {
    let pattern = beside(out, schema::PART);
    let folder = pattern.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let start = pattern.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default();
        let name = name.as_encoded_bytes();
        let part = name.starts_with(start) && !name.ends_with(PARTIAL.as_bytes());
        if part && path.join(PLAN).is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read_head(root: &Path) -> Result<Head> {
    let path = root.join(PLAN);
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&text).map_err(|e| {
        Error::bad_data(&path, "a plan of s4l-shard", e.to_string(), "make the part again")
    })
}

/// An error where `rejects` are more than the share `allowed` of all images.
pub fn check_rejects(
    input: &Path,
    rejects: u64,
    first: Option<&Reject>,
    items: u64,
    allowed: f64,
) -> Result<()> {
    match first {
        Some(first) if rejects as f64 > allowed * items as f64 => Err(Error::bad_data(
            input,
            format!("at most a share of {allowed} of {items} images to be bad"),
            format!("{rejects}, as {:?}: {}", first.path, first.reason),
            "repair or remove them, or allow a larger share with --allow-rejects",
        )),
        _ => Ok(()),
    }
}

fn write_rejects(
    path: &Path,
    rejects: &[Reject],
    splits: &[&str],
    lineage: &Lineage,
) -> Result<()> {
    let keys = rejects.iter().map(|r| r.key.as_str());
    let paths = rejects.iter().map(|r| r.path.as_str());
    let reasons = rejects.iter().map(|r| r.reason.as_str());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(keys)),
        Arc::new(StringArray::from_iter_values(splits)),
        Arc::new(StringArray::from_iter_values(paths)),
        Arc::new(StringArray::from_iter_values(reasons)),
    ];
    table::write(path, schema::rejects(), columns, lineage, BTreeMap::new())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::Internal(e.to_string()))?;
    json.push(b'\n');
    Ok(json)
}
