//! The formats of an input, and how each is told by the content of a path.

use super::listing::{self, IsStart};
use super::{binary, idx, parquet, tar, tfrecord};
use crate::error::{Error, Result};
use std::path::Path;

/// What `--format` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Images in class folders, or flat with --labels
    Folder,
    /// A CSV list of image files
    Csv,
    /// tar: class folders, ILSVRC's tar of tars, WebDataset
    Tar,
    /// TFRecord of slim or tensor2tensor
    Tfrecord,
    /// Parquet of Hugging Face datasets, or of s4l-shard
    Parquet,
    /// IDX files of MNIST
    Idx,
    /// Binary files of CIFAR-10 and CIFAR-100
    Cifar,
    /// Binary files of STL-10
    Stl10,
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
    (Format::Tfrecord, tfrecord::is_start),
];

/// The format of what a path holds.
pub fn detect(path: &Path) -> Result<Format> {
    match path.is_dir() {
        true => of_folder(path),
        false => of_file(path)?.map_or_else(|| of_file_name(path), Ok),
    }
}

fn of_folder(path: &Path) -> Result<Format> {
    if let Some((format, _)) = BY_NAMES.iter().find(|(_, has_files)| has_files(path)) {
        return Ok(*format);
    }
    for file in listing::entries(path)?.iter().filter(|p| p.is_file()) {
        if let Some(format) = of_file(file)? {
            return Ok(format);
        }
    }
    Ok(Format::Folder)
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
    Err(Error::bad_data(
        path,
        "a tar, TFRecord, parquet or CSV file, or a folder",
        "a file of another kind",
        "say what it is with --format, or name the folder that holds it",
    ))
}

impl Format {
    /// What it is called in words to people, and in the hash of an input.
    pub fn name(self) -> &'static str {
        match self {
            Format::Folder => "image folder",
            Format::Csv => "CSV list",
            Format::Tar => "tar",
            Format::Tfrecord => "TFRecord",
            Format::Parquet => "parquet",
            Format::Idx => "IDX",
            Format::Cifar => "CIFAR binary",
            Format::Stl10 => "STL-10 binary",
        }
    }
}
