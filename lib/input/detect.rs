//! The formats of an input, and how each is recognized by the content of a path.

use super::listing::{self, IsStart};
use super::names::{is_hidden, is_image_name};
use super::{binary, idx, npz, parquet, tar, tfrecord, zip};
use crate::decode::kind;
use crate::error::{Error, Result};
use std::path::Path;

/// What `--format` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Images in class folders, or flat with --labels
    Folder,
    /// A CSV list of image files
    Csv,
    /// tar, plain, .gz or .zst: class folders, ILSVRC's tar of tars, WebDataset
    Tar,
    /// zip: class folders, WebDataset
    Zip,
    /// TFRecord of slim, tensor2tensor or TensorFlow Datasets
    Tfrecord,
    /// Parquet of Hugging Face datasets, or of s4l-shard
    Parquet,
    /// IDX files of MNIST and EMNIST
    Idx,
    /// Binary files of CIFAR-10 and CIFAR-100
    Cifar,
    /// Binary files of STL-10
    Stl10,
    /// .npz of MedMNIST
    Npz,
}

/// Whether a folder has files of a format.
type HasFiles = fn(&Path) -> bool;

/// Formats of a folder, by the names of files that they prescribe. The first that fits is taken.
const BY_NAMES: &[(Format, HasFiles)] = &[
    (Format::Idx, idx::has_images),
    (Format::Stl10, binary::has_stl10),
    (Format::Cifar, binary::has_cifar),
];

/// Formats of a file, or of the first such file of a folder, by its first bytes. The first that fits
/// is taken.
const BY_START: &[(Format, IsStart)] = &[
    (Format::Parquet, parquet::is_start),
    (Format::Tar, tar::is_start),
    (Format::Npz, npz::is_start),
    (Format::Zip, zip::is_start),
    (Format::Tfrecord, tfrecord::is_start),
];

/// The format of the content of a path.
pub fn detect(path: &Path) -> Result<Format> {
    match path.is_dir() {
        true => of_folder(path),
        false => of_file(path)?.map_or_else(|| of_file_name(path), Ok),
    }
}

/// Files of a known data set go before folders of images, these before files of many images beside them.
///
/// Errors: `BadData` for two kinds of equal weight.
fn of_folder(path: &Path) -> Result<Format> {
    binary::refuse_pickles(path)?;
    let named = BY_NAMES.iter().filter(|(_, has_files)| has_files(path));
    let named: Vec<_> = named.map(|(format, _)| (*format, format.name().to_string())).collect();
    if let Some(format) = one(path, &named)? {
        return Ok(format);
    }
    let entries = listing::entries(path)?;
    let mut kinds: Vec<(Format, String)> = Vec::new();
    for file in entries.iter().filter(|p| p.is_file()) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let format = match is_image_name(&name) {
            true => Some(Format::Folder),
            false => of_file(file)?,
        };
        let Some(format) = format.filter(|f| kinds.iter().all(|(kind, _)| kind != f)) else {
            continue;
        };
        kinds.push((format, format!("{} ({name})", format.name())));
    }
    if kinds.is_empty() && !has_images(path, 2) {
        return Ok(below(path)?.unwrap_or(Format::Folder));
    }
    if kinds.iter().all(|(kind, _)| *kind == Format::Folder) {
        return Ok(Format::Folder);
    }
    let folders: Vec<_> = entries.iter().filter(|p| p.is_dir() && has_images(p, 1)).collect();
    match folders.as_slice() {
        [] => Ok(one(path, &kinds)?.unwrap_or(Format::Folder)),
        [only] if kinds.iter().all(|(kind, _)| *kind != Format::Folder) => {
            let name = only.file_name().unwrap_or_default().display();
            kinds.push((Format::Folder, format!("a folder of images ({name})")));
            Ok(one(path, &kinds)?.unwrap_or(Format::Folder))
        }
        _ => Ok(Format::Folder),
    }
}

/// The format of the files in the subfolders of a folder that has none itself, as data sets on hubs have
/// them (`data/`, `train/`).
fn below(path: &Path) -> Result<Option<Format>> {
    for levels in 1..=listing::MOST_LEVELS {
        for file in listing::below(path, levels)? {
            if let Some(format) = of_file(&file)? {
                return Ok(Some(format));
            }
        }
    }
    Ok(None)
}

/// The only one of the kinds that a folder holds.
fn one(path: &Path, kinds: &[(Format, String)]) -> Result<Option<Format>> {
    match kinds {
        [] => Ok(None),
        [(format, _)] => Ok(Some(*format)),
        [(_, one), (_, other), ..] => Err(Error::bad_data(
            path,
            "one kind of images",
            format!("{one} and {other}"),
            "move one of them elsewhere, or say with --format which it is",
        )),
    }
}

/// Whether a folder, or one so many levels below, has a file that is an image by name.
fn has_images(folder: &Path, levels: usize) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let below = || levels > 0 && entry.path().is_dir() && has_images(&entry.path(), levels - 1);
        !is_hidden(&name) && (is_image_name(&name) || below())
    })
}

fn of_file(path: &Path) -> Result<Option<Format>> {
    let start = listing::start(path)?;
    let found = BY_START.iter().find(|(_, is_start)| is_start(&start));
    Ok(found.map(|(format, _)| *format))
}

fn of_file_name(path: &Path) -> Result<Format> {
    if path.extension().is_some_and(|e| e == "csv") {
        return Ok(Format::Csv);
    }
    let (found, hint) = match kind::of_other(&listing::start(path)?) {
        Some(kind) => (kind, "unpack it, or name a folder of images"),
        None => (
            "a file of another kind",
            "say what it is with --format, or name the folder that holds it",
        ),
    };
    let expected = "a tar, zip, TFRecord, parquet, npz or CSV file, or a folder";
    Err(Error::bad_data(path, expected, found, hint))
}

impl Format {
    /// What it is called in words to people, and in the hash of an input.
    pub fn name(self) -> &'static str {
        match self {
            Format::Folder => "image folder",
            Format::Csv => "CSV list",
            Format::Tar => "tar",
            Format::Zip => "zip",
            Format::Tfrecord => "TFRecord",
            Format::Parquet => "parquet",
            Format::Idx => "IDX",
            Format::Cifar => "CIFAR binary",
            Format::Stl10 => "STL-10 binary",
            Format::Npz => "npz",
        }
    }
}
