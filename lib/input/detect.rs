//! Which files a path holds, and of what format.

use super::{Format, SplitName, binary, idx, tfrecord};
use crate::error::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The format of a path, by the first bytes of its files and the names that a format prescribes.
pub fn detect(path: &Path) -> Result<Format> {
    if !path.is_dir() {
        return match format_of_file(path)? {
            Some(format) => Ok(format),
            None if path.extension().is_some_and(|e| e == "csv") => Ok(Format::Csv),
            None => Err(Error::bad_data(
                path,
                "a tar, TFRecord, parquet or CSV file, or a folder",
                "a file of another kind",
                "say what it is with --format, or name the folder that holds it",
            )),
        };
    }
    if idx::Idx::is_in(path) {
        return Ok(Format::Idx);
    }
    if let Some(format) = binary::format(path) {
        return Ok(format);
    }
    for file in entries(path)?.iter().filter(|p| p.is_file()) {
        if let Some(format) = format_of_file(file)? {
            return Ok(format);
        }
    }
    Ok(Format::Folder)
}

fn format_of_file(path: &Path) -> Result<Option<Format>> {
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(512).read_to_end(&mut start))
        .map_err(Error::io(path))?;
    Ok(if start.starts_with(b"PAR1") {
        Some(Format::Parquet)
    } else if start.get(257..262) == Some(b"ustar") {
        Some(Format::Tar)
    } else if tfrecord::is_start(&start) {
        Some(Format::Tfrecord)
    } else {
        None
    })
}

/// The entries of a folder sorted by name, hidden ones left out.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(folder)
        .map_err(Error::io(folder))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Error::io(folder))?;
    paths.retain(|p| p.file_name().is_some_and(|n| !n.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    Ok(paths)
}

/// The path itself where it is a file, else the files in it that `is` of a format.
pub fn files(path: &Path, is: Format) -> Result<Vec<(PathBuf, SplitName)>> {
    let mut found = Vec::new();
    let candidates = match path.is_dir() {
        true => entries(path)?,
        false => vec![path.to_path_buf()],
    };
    for file in candidates {
        if file.is_file() && (!path.is_dir() || format_of_file(&file)? == Some(is)) {
            let split = SplitName::of_file(&file);
            found.push((file, split));
        }
    }
    if found.is_empty() {
        return Err(Error::bad_data(
            path,
            format!("{is:?} files"),
            "none",
            "name the folder that holds them, or another --format",
        ));
    }
    Ok(found)
}
