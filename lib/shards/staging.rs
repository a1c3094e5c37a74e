//! A shard folder in the making, `<out>.partial`: finished files with a record of each. A run that was
//! stopped or killed continues with the missing files; a part of a run is such a folder under its own name.
//!
//! ```text
//! plan.json               the identity of the run: a folder of another run is started again
//! files/                  the future shard folder
//! records/<file>.json     hashes and rejects of a finished file
//! ```

use super::closing::{self, Counts};
use super::dataset::{Dataset, FORMAT, SplitInfo, manifest_line};
use super::digest::Content;
use super::identity::Identity;
use super::record::{self, FileRecord, Reject};
use crate::artifact;
use crate::cli;
use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::schema::{self, FILES, PARTIAL, PLAN, RECORD, RECORDS, shard_file};
use crate::tables::table;
use arrow::array::{ArrayRef, StringArray};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An open staging folder. The opener holds the lock of the output.
#[derive(Debug)]
pub struct Staging {
    root: PathBuf,
    pub identity: Identity,
    /// Records whose files are known to be there.
    counted: Mutex<BTreeMap<String, FileRecord>>,
}

impl Staging {
    /// Opens the folder `root`, keeping the finished files in it if they are of the same identity.
    ///
    /// Errors: `NotOurs` for a folder of something else.
    pub fn open(root: &Path, identity: Identity) -> Result<Staging> {
        std::fs::create_dir_all(root).map_err(Error::io(root))?;
        refuse_foreign(root)?;
        let staging = Staging { root: root.to_path_buf(), identity, counted: Mutex::default() };
        let found = Error::unless_unreadable(self::identity(root))?;
        match found.as_ref() == Some(&staging.identity) {
            true => staging.go_on()?,
            false => staging.begin()?,
        }
        Ok(staging)
    }

    /// Removes the content and writes the plan.
    fn begin(&self) -> Result<()> {
        // There is no plan until everything of another plan is gone.
        let path = self.root.join(PLAN);
        let write = |text: &[u8]| {
            std::fs::write(&path, text)?;
            File::open(&path)?.sync_all()
        };
        write(b"").map_err(Error::io(&path))?;
        for folder in [FILES, RECORDS] {
            let folder = self.root.join(folder);
            remove_if_there(&folder)?;
            std::fs::create_dir(&folder).map_err(Error::io(&folder))?;
        }
        write(&to_json(&self.identity)?).map_err(Error::io(&path))
    }

    /// Removes everything but the files of this run and their records.
    fn go_on(&self) -> Result<()> {
        let splits = self.identity.splits.iter();
        let files = splits.flat_map(|(split, &n)| (0..n).map(move |i| shard_file(split, i, n)));
        let files: HashSet<String> = files.collect();
        for (folder, ending) in [(FILES, ""), (RECORDS, RECORD)] {
            let folder = self.root.join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
                let entry = entry.map_err(Error::io(&folder))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if !name.strip_suffix(ending).is_some_and(|name| files.contains(name)) {
                    remove_if_there(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Where a file is written before it is `finished`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(RECORDS).join(format!("{name}.tmp"))
    }

    /// Takes a complete file over.
    pub fn finished(&self, name: &str, mut record: FileRecord, hash: blake3::Hash) -> Result<()> {
        let from = self.path(name);
        let length = std::fs::metadata(&from).map_err(Error::io(&from))?.len();
        record.finish(length, hash);
        self.put(name, &from, record)
    }

    /// Renames a file to its place among the finished ones, and keeps its record.
    fn put(&self, name: &str, from: &Path, record: FileRecord) -> Result<()> {
        std::fs::rename(from, self.root.join(FILES).join(name)).map_err(Error::io(from))?;
        record.write(&self.root, name)?;
        self.counted().insert(name.to_string(), record);
        Ok(())
    }

    fn counted(&self) -> MutexGuard<'_, BTreeMap<String, FileRecord>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of a finished file, `None` if it is still to be written. A record counts only with its
    /// file, which is read once.
    pub fn record(&self, name: &str) -> Result<Option<FileRecord>> {
        if let Some(record) = self.counted().get(name) {
            return Ok(Some(record.clone()));
        }
        let record = FileRecord::read(&self.root, name)?;
        if let Some(record) = &record {
            self.counted().insert(name.to_string(), record.clone());
        }
        Ok(record)
    }

    /// Leaves the folder for a later run and returns how many files are finished. Without any, it is
    /// removed.
    pub fn leave(self) -> usize {
        let files = std::fs::read_dir(self.root.join(FILES));
        let finished = files.map_or(0, Iterator::count);
        if finished == 0 {
            // What cannot be removed does no harm: the next run begins with it.
            let _ = remove(&self.root);
        }
        finished
    }

    /// Takes over the finished files of a part, linked if the file system can, else copied.
    ///
    /// Errors: `BadData` for a file that is not the one of its record.
    pub fn link(&self, part: &Path) -> Result<()> {
        let folder = part.join(RECORDS);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let name = entry.map_err(Error::io(&folder))?.file_name();
            names.extend(name.to_string_lossy().strip_suffix(RECORD).map(str::to_string));
        }
        names.par_iter().try_for_each(|name| match self.record(name)? {
            Some(_) => Ok(()),
            None => self.take(part, name),
        })
    }

    /// Takes over one file of a part.
    fn take(&self, part: &Path, name: &str) -> Result<()> {
        let from = part.join(FILES).join(name);
        let Some(record) = FileRecord::read(part, name)? else {
            return Err(Error::bad_data(
                &from,
                format!("the file of {}", record::path(part, name).display()),
                "no file with its length and hash",
                "make the part again with s4l-shard --part and --force",
            ));
        };
        let temporary = self.path(name);
        remove_if_there(&temporary)?;
        if std::fs::hard_link(&from, &temporary).is_err() {
            let copy = || {
                std::fs::copy(&from, &temporary)?;
                File::open(&temporary)?.sync_all()
            };
            copy().map_err(Error::io(&from))?;
        }
        self.put(name, &temporary, record)
    }

    /// Makes this the folder of a part.
    pub fn commit_part(self, folder: &Path) -> Result<()> {
        artifact::put_folder(&self.root, folder)?;
        self.clean_up()
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
        self.clean_up()?;
        Ok(closing)
    }

    /// Removes the folder, or what another one left under its name.
    fn clean_up(self) -> Result<()> {
        if artifact::exists(&self.root)?
            && let Err(e) = remove(&self.root)
        {
            cli::warn(&format!("{e}; the next run removes it"));
        }
        Ok(())
    }

    /// Errors: `Missing` if a file of the identity is not finished.
    fn all_finished(&self) -> Result<Finished> {
        let mut all = Finished::default();
        for (split, &files) in &self.identity.splits {
            let mut content = Content::default();
            let (mut images, mut rows, mut labels) = (0, Vec::new(), Vec::new());
            let mut counts = Counts::default();
            for file in 0..files {
                let name = shard_file(split, file, files);
                let record = self.record(&name)?.ok_or_else(|| {
                    let hint = "run the same command again (for a part, the command of the part)";
                    Error::missing(&record::path(&self.root, &name), "file", hint)
                })?;
                images += record.images;
                content.extend(&record.content, record.images);
                rows.push(record.rows);
                labels.push(record.labels);
                all.manifest += &manifest_line(&name, &record.hash);
                counts.rejects += record.rejects.len() as u64;
                for (class, images) in record.classes {
                    *counts.classes.entry(class).or_default() += images;
                }
                all.rejects.extend(record.rejects.into_iter().map(|r| (split.clone(), r)));
            }
            let content = content.hex();
            let info = SplitInfo { images, files, content, rows, labels };
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

/// Removes a staging folder; the plan last, by which it is known.
fn remove(root: &Path) -> Result<()> {
    [RECORDS, FILES, PLAN].iter().try_for_each(|name| remove_if_there(&root.join(name)))?;
    std::fs::remove_dir(root).map_err(Error::io(root))
}

/// Removes a staging folder that is left of making what has this lineage, or that has nothing in it, as
/// far as it can be.
pub fn remove_left_over(root: &Path, made: &HashMap<String, String>) {
    let _ = std::fs::remove_dir(root);
    if is_one(root).is_ok_and(|is_one| is_one)
        && matches!(lineage(root), Ok(Some(found)) if found == *made)
    {
        let _ = remove(root);
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    let removed = match path.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    };
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// The folder in which `out` is made.
pub fn partial(out: &Path) -> PathBuf {
    artifact::beside(out, PARTIAL)
}

/// Whether a folder is one that `Staging::open` made, and nothing else is in it.
pub fn is_one(folder: &Path) -> Result<bool> {
    if !artifact::is_file(&folder.join(PLAN))? {
        return Ok(false);
    }
    let known = |name: &OsStr| [PLAN, FILES, RECORDS].iter().any(|known| name == *known);
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        if !known(&entry.map_err(Error::io(folder))?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Errors if a folder has something in it and is not one that `Staging::open` made.
pub fn refuse_foreign(folder: &Path) -> Result<()> {
    let is_one = is_one(folder)?;
    let found = std::fs::read_dir(folder).map_err(Error::io(folder))?.count();
    match found > 0 && !is_one {
        true => Err(Error::NotOurs {
            path: folder.to_path_buf(),
            what: "a folder that s4l-shard left behind".to_string(),
        }),
        false => Ok(()),
    }
}

/// The identity of what a folder holds or will hold.
pub fn identity(folder: &Path) -> Result<Identity> {
    let path = folder.join(PLAN);
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    let bad = |found| Error::bad_data(&path, "a plan of s4l-shard", found, "make the part again");
    let identity: Identity = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    identity.splits.keys().try_for_each(|name| schema::check_split(name).map_err(bad))?;
    Ok(identity)
}

/// What a folder is made from, as `artifact::target` wants it; `None` if there is none.
pub fn lineage(folder: &Path) -> Result<Option<HashMap<String, String>>> {
    let identity = Error::unless_unreadable(identity(folder))?;
    Ok(identity.map(|identity| identity.lineage.into_iter().collect()))
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
