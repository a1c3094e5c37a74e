//! Images as people have them: finds out by content what a path holds and streams its records.

mod folder;
mod idx;

use crate::error::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// One image on its way into a shard.
#[derive(Debug)]
pub struct Record {
    /// Unique within its split.
    pub key: String,
    /// Index into `Source::classes`; `None` where the input has no label.
    pub label: Option<u32>,
    pub height: u32,
    pub width: u32,
    pub image: Image,
}

#[derive(Debug)]
pub enum Image {
    /// Row-major HWC uint8.
    Pixels(Vec<u8>),
    /// The file as it was, byte for byte, and its base name.
    Encoded { bytes: Vec<u8>, name: String },
}

/// The records of one split, in an order that depends on the input alone.
pub type Records<'a> = Box<dyn Iterator<Item = Result<Record>> + 'a>;

#[derive(Debug)]
pub enum Source {
    Idx(idx::Idx),
    Folder(folder::Folder),
}

/// Finds out what `path` holds.
///
/// Errors: `Missing` where there is nothing, `BadData` where it is not a set of images.
pub fn open(path: &Path) -> Result<Source> {
    if !path.exists() {
        return Err(Error::missing(
            path,
            "input",
            "name a folder of images or of IDX files",
        ));
    }
    if !path.is_dir() {
        return Err(Error::bad_data(
            path,
            "a folder of images or of IDX files",
            "a file",
            "name the folder that holds it",
        ));
    }
    match idx::open(path)? {
        Some(idx) => Ok(Source::Idx(idx)),
        None => Ok(Source::Folder(folder::open(path)?)),
    }
}

impl Source {
    /// What was found, for people.
    pub fn format(&self) -> &'static str {
        match self {
            Source::Idx(_) => "IDX",
            Source::Folder(_) => "image folder",
        }
    }

    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        match self {
            Source::Idx(s) => &s.classes,
            Source::Folder(s) => &s.classes,
        }
    }

    /// Height, width and channels where the input holds pixels; `None` for encoded images.
    pub fn shape(&self) -> Option<[usize; 3]> {
        match self {
            Source::Idx(s) => Some(s.shape),
            Source::Folder(_) => None,
        }
    }

    /// Names of the splits and their numbers of images.
    pub fn splits(&self) -> Vec<(&str, usize)> {
        match self {
            Source::Idx(s) => s.splits.iter().map(|s| (s.name, s.count)).collect(),
            Source::Folder(s) => {
                let splits = s.splits.iter();
                splits.map(|s| (s.name.as_str(), s.files.len())).collect()
            }
        }
    }

    /// The records of split number `split` of `splits`.
    pub fn records(&self, split: usize) -> Result<Records<'_>> {
        match self {
            Source::Idx(s) => s.records(split),
            Source::Folder(s) => Ok(s.records(split)),
        }
    }

    /// Hash of the names and contents of all files read, independent of where the folder lies.
    pub fn hash(&self) -> Result<String> {
        let (root, files) = match self {
            Source::Idx(s) => (&s.root, s.files()),
            Source::Folder(s) => (&s.root, s.files()),
        };
        let digests = files
            .par_iter()
            .map(|file| {
                let mut hasher = blake3::Hasher::new();
                let handle = std::fs::File::open(file).map_err(Error::io(file))?;
                hasher.update_reader(handle).map_err(Error::io(file))?;
                Ok(*hasher.finalize().as_bytes())
            })
            .collect::<Result<Vec<_>>>()?;
        let mut hasher = blake3::Hasher::new();
        for (file, digest) in files.iter().zip(digests) {
            let name = file.strip_prefix(root).unwrap_or(file);
            let name = name.as_os_str().as_encoded_bytes();
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name);
            hasher.update(&digest);
        }
        Ok(hasher.finalize().to_hex()[..16].to_string())
    }
}

/// The entries of a folder sorted by name, hidden ones left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(folder)
        .map_err(Error::io(folder))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Error::io(folder))?;
    paths.retain(|p| {
        p.file_name()
            .is_some_and(|n| !n.as_encoded_bytes().starts_with(b"."))
    });
    paths.sort();
    Ok(paths)
}

/// The base name as text, which keys and class names are made of.
fn base_name(path: &Path) -> Result<&str> {
    path.file_name()
        .and_then(|n| n.to_str())
        .ok_or_else(|| Error::bad_data(path, "a name in UTF-8", "other bytes", "rename it"))
}
