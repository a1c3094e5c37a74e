//! Which files a path holds.

use super::item::SplitName;
use super::stream;
use super::{names, splits};
use crate::artifact;
use crate::error::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of many images, all of one split.
#[derive(Debug)]
pub struct SplitFile {
    pub path: PathBuf,
    pub split: SplitName,
}

/// Whether a file of a format may begin with these bytes, the first 512 or the whole file.
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

/// Folders, and all else that is there.
pub fn parted(paths: Vec<PathBuf>) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut others) = (Vec::new(), Vec::new());
    for path in paths {
        match artifact::is_folder(&path)? {
            true => folders.push(path),
            false => others.push(path),
        }
    }
    Ok((folders, others))
}

/// Files of many images are looked for so many levels below a folder that has none.
pub const MOST_LEVELS: usize = 2;

/// The files that lie so many levels below a folder, in order.
pub fn below(folder: &Path, levels: usize) -> Result<Vec<PathBuf>> {
    let (folders, others) = parted(entries(folder)?)?;
    if levels == 0 {
        return Ok(others.into_iter().filter(|p| p.is_file()).collect());
    }
    let folders = folders.iter().map(|folder| below(folder, levels - 1));
    let files = folders.collect::<Result<Vec<_>>>()?;
    Ok(files.concat())
}

/// The first 512 bytes of a file, or all of a smaller one; decompressed if they are gzip or zstd.
pub fn start(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    match stream::open(path)?.take(512).read_to_end(&mut start) {
        Err(e) if e.raw_os_error().is_some() => Err(Error::io(path)(e)),
        // Later reads report the damage.
        _ => Ok(start),
    }
}

/// The path itself if it is a file, else the files in it that begin as those of a format do, or those in
/// its folders if it has none itself.
///
/// Errors: `BadData` if there is none.
pub fn files(path: &Path, format: &str, is_start: IsStart) -> Result<Vec<SplitFile>> {
    let mut found = Vec::new();
    if path.is_dir() {
        for levels in 0..=MOST_LEVELS {
            for file in below(path, levels)? {
                if is_start(&start(&file)?) {
                    found.push(file);
                }
            }
            if !found.is_empty() {
                break;
            }
        }
    } else {
        found.push(path.to_path_buf());
    }
    if found.is_empty() {
        return Err(Error::bad_data(
            path,
            format!("{format} files"),
            "none",
            "name the folder that holds them, or another --format",
        ));
    }
    // The folders below are words of the name, too.
    let names: Vec<PathBuf> = found
        .iter()
        .map(|file| match file.strip_prefix(path) {
            Ok(below) if below.components().count() > 1 => {
                below.to_string_lossy().replace('/', "-").into()
            }
            _ => file.clone(),
        })
        .collect();
    let splits = splits::of_files(names.iter().map(PathBuf::as_path));
    let files = found.into_iter().zip(splits);
    Ok(files.map(|(path, split)| SplitFile { path, split }).collect())
}
