//! A shard folder in the making, `<out>.partial`: finished files with a record of each. A run that was
//! stopped or killed goes on with the files that are missing; a part of a run is such a folder under a
//! name of its own.
//!
//! ```text
//! plan.json               the identity of what is made: a folder of another one is begun anew
//! files/                  the future shard folder
//! records/<file>.json     hashes and rejects of a finished file
//! ```

use super::closing::{self, Counts};
use super::dataset::{Dataset, FORMAT, SplitInfo};
use super::identity::Identity;
use super::write::{ImageRow, digest};
use crate::artifact::{self, Lineage};
use crate::cli;
use crate::error::{Error, Result};
use crate::schema::{self, FILES, PARTIAL, PLAN, RECORDS, shard_file};
use crate::tables::table;
use arrow::array::{ArrayRef, StringArray};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    images: usize,
    /// Images of each class.
    classes: BTreeMap<u32, u64>,
    /// BLAKE3 of the file.
    hash: String,
    content: Content,
    pub rejects: Vec<Reject>,
}

impl FileRecord {
    /// Counts the next row of the file.
    pub fn add(&mut self, row: &ImageRow) {
        self.images += 1;
        if let Some(label) = row.label {
            *self.classes.entry(label).or_default() += 1;
        }
        self.content.add(digest(row));
    }
}

/// An open staging folder. While it is open no other process may write it.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    pub identity: Identity,
    _lock: File,
}

impl Staging {
    /// Opens the folder `root`, keeping the finished files in it if they are of the same identity.
    ///
    /// Errors: `NotOurs` for a folder of something else, `Io` if another process writes it.
    pub fn open(root: &Path, identity: Identity) -> Result<Staging> {
        std::fs::create_dir_all(root).map_err(Error::io(root))?;
        let found = std::fs::read_dir(root).map_err(Error::io(root))?.count();
        if found > 0 && !is_one(root) {
            return Err(Error::NotOurs {
                path: root.to_path_buf(),
                what: "a folder that s4l-shard left behind".to_string(),
            });
        }
        let path = root.join(PLAN);
        let lock =
            File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        if lock.try_lock().is_err() {
            let busy = std::io::Error::other("another s4l-shard writes it; wait for its end");
            return Err(Error::io(root)(busy));
        }
        let staging = Staging { root: root.to_path_buf(), identity, _lock: lock };
        if self::identity(root).ok().as_ref() != Some(&staging.identity) {
            staging.begin()?;
        }
        Ok(staging)
    }

    /// Removes what is there and says what will be.
    fn begin(&self) -> Result<()> {
        for folder in [FILES, RECORDS] {
            let folder = self.root.join(folder);
            if folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
            }
            std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
        }
        let path = self.root.join(PLAN);
        // In place: the lock is on this file.
        std::fs::write(&path, to_json(&self.identity)?).map_err(Error::io(&path))
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

    /// The record of a finished file, `None` if it is still to be written.
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

    /// Takes over the finished files of a part, linked if the file system can, else copied.
    pub fn link(&self, part: &Path) -> Result<()> {
        for kind in [FILES, RECORDS] {
            let folder = part.join(kind);
            for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
                let entry = entry.map_err(Error::io(&folder))?;
                let (from, to) = (entry.path(), self.root.join(kind).join(entry.file_name()));
                if !to.exists() {
                    std::fs::hard_link(&from, &to)
                        .or_else(|_| std::fs::copy(&from, &to).map(|_| ()))
                        .map_err(Error::io(&from))?;
                }
            }
        }
        Ok(())
    }

    /// Makes this the folder of a part.
    pub fn commit_part(self, folder: &Path) -> Result<()> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(Error::io(folder))?;
        }
        std::fs::rename(&self.root, folder).map_err(Error::io(folder))
    }

    /// Makes the finished files the shard folder `out`, and returns what is in them, for people.
    /// `input` is for messages.
    ///
    /// Errors: `BadData` if more than the share `allowed` of all images are rejects, `Missing` if a file
    /// is not finished.
    pub fn commit(self, out: &Path, allowed: f64, input: &Path) -> Result<Vec<String>> {
        let finished = self.all_finished()?;
        let (rejects, items) = (&finished.rejects, self.identity.items);
        let first = rejects.first().map(|(_, reject)| reject);
        check_rejects(input, rejects.len() as u64, first, items, allowed)?;
        let closing = closing::lines(&self.identity, &finished.counts);
        let mut manifest = self.write_dataset(finished.splits)? + &finished.manifest;
        if !rejects.is_empty() {
            manifest += &self.write_rejects(rejects)?;
            cli::warn(&format!(
                "{}: {} of {items} images are not in the shards: see {}",
                input.display(),
                rejects.len(),
                out.join(schema::REJECTS).display()
            ));
        }
        let files = self.root.join(FILES);
        artifact::write_bytes(&files.join(schema::MANIFEST), manifest.as_bytes())?;
        artifact::commit_folder(&files, out)?;
        std::fs::remove_dir_all(&self.root).map_err(Error::io(&self.root))?;
        Ok(closing)
    }

    /// Errors: `Missing` if a file of the identity is not finished.
    fn all_finished(&self) -> Result<Finished> {
        let mut all = Finished::default();
        for (split, &files) in &self.identity.splits {
            let (mut content, mut images) = (Content::default(), 0);
            let mut counts = Counts::default();
            for file in 0..files {
                let name = shard_file(split, file, files);
                let record = self.record(&name).ok_or_else(|| {
                    Error::missing(&self.record_path(&name), "file", "run the same command again")
                })?;
                images += record.images;
                content.extend(&record.content, record.images);
                all.manifest += &manifest_line(&name, &record.hash);
                counts.rejects += record.rejects.len() as u64;
                for (class, images) in record.classes {
                    *counts.classes.entry(class).or_default() += images;
                }
                all.rejects.extend(record.rejects.into_iter().map(|r| (split.clone(), r)));
            }
            let info = SplitInfo { images, files, content: content.hex() };
            counts.images = images as u64;
            all.counts.insert(split.clone(), counts);
            all.splits.insert(split.clone(), info);
        }
        Ok(all)
    }

    /// Writes `dataset.json` and returns its line of the manifest.
    fn write_dataset(&self, splits: BTreeMap<String, SplitInfo>) -> Result<String> {
        let identity = self.identity.clone();
        let json = to_json(&Dataset {
            format: FORMAT,
            classes: identity.classes,
            shape: identity.shape,
            splits,
            resized: identity.resized,
            taken: Some(identity.taken),
            lineage: identity.lineage,
        })?;
        let name = schema::DATASET_JSON;
        artifact::write_bytes(&self.root.join(FILES).join(name), &json)?;
        Ok(manifest_line(name, blake3::hash(&json).to_hex().as_str()))
    }

    /// Writes `rejects.parquet` and returns its line of the manifest.
    fn write_rejects(&self, rejects: &[(String, Reject)]) -> Result<String> {
        let text = |of: fn(&(String, Reject)) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rejects.iter().map(of)))
        };
        let columns = vec![
            text(|(_, reject)| &reject.key),
            text(|(split, _)| split),
            text(|(_, reject)| &reject.path),
            text(|(_, reject)| &reject.reason),
        ];
        let path = self.root.join(FILES).join(schema::REJECTS);
        let lineage = Lineage::of_metadata("s4l-shard", &self.identity.lineage);
        table::write(&path, schema::rejects(), columns, &lineage, BTreeMap::new())?;
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Ok(manifest_line(schema::REJECTS, blake3::hash(&bytes).to_hex().as_str()))
    }
}

/// What the records of all files say together.
#[derive(Default)]
struct Finished {
    splits: BTreeMap<String, SplitInfo>,
    counts: BTreeMap<String, Counts>,
    /// A line of each file.
    manifest: String,
    /// With the split of each.
    rejects: Vec<(String, Reject)>,
}

/// As `b3sum` prints it.
fn manifest_line(name: &str, hash: &str) -> String {
    format!("{hash}  {name}\n")
}

/// The folder in which `out` is made.
pub fn partial(out: &Path) -> PathBuf {
    artifact::beside(out, PARTIAL)
}

/// Whether a folder is one that `Staging::open` made.
pub fn is_one(folder: &Path) -> bool {
    folder.join(PLAN).is_file()
}

/// The identity of what a folder holds or will hold.
pub fn identity(folder: &Path) -> Result<Identity> {
    let path = folder.join(PLAN);
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&text).map_err(|e| {
        Error::bad_data(&path, "a plan of s4l-shard", e.to_string(), "make the part again")
    })
}

/// What a folder is made from, as `artifact::target` wants it; `None` if there is none.
pub fn lineage(folder: &Path) -> Option<HashMap<String, String>> {
    Some(identity(folder).ok()?.lineage.into_iter().collect())
}

/// An error if `rejects` are more than the share `allowed` of all images.
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

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|e| Error::Internal(e.to_string()))?;
    json.push(b'\n');
    Ok(json)
}
