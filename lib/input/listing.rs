//! Which files a path holds.

use super::item::SplitName;
use super::{names, splits};
use crate::error::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of many images, all of one split.
#[derive(Debug)]
pub struct SplitFile {
    pub path: PathBuf,
    pub split: SplitName,
}

/// Whether a file of a format may begin with these bytes, its first 512 or all that it has.
pub type IsStart = fn(&[u8]) -> bool;

/// The entries of a folder sorted by name, hidden ones and those of systems left out.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(folder)
        .map_err(Error::io(folder))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(Error::io(folder))?;
    let is_hidden = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default();
        names::is_hidden(&name.to_string_lossy())
    };
    paths.retain(|p| !is_hidden(p));
    paths.sort();
    Ok(paths)
}

/// The first 512 bytes of a file, or all of a smaller one.
pub fn start(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(512).read_to_end(&mut start))
        .map_err(Error::io(path))?;
    Ok(start)
}

/// The path itself if it is a file, else the files in it that begin as those of a format do.
///
/// Errors: `BadData` if there is none.
pub fn files(path: &Path, format: &str, is_start: IsStart) -> Result<Vec<SplitFile>> {
    let mut found = Vec::new();
    let candidates = match path.is_dir() {
        true => entries(path)?,
        false => vec![path.to_path_buf()],
    };
    for file in candidates {
        if file.is_file() && (!path.is_dir() || is_start(&start(&file)?)) {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(Error::bad_data(
            path,
            format!("{format} files"),
            "none",
            "name the folder that holds them, or another --format",
        ));
    }
    let splits = splits::of_files(found.iter().map(PathBuf::as_path));
    let files = found.into_iter().zip(splits);
    Ok(files.map(|(path, split)| SplitFile { path, split }).collect())
}
