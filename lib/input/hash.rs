//! Hashes of the files of an input and of names in it.

use crate::cli;
use crate::error::{Error, Result};
use crate::schema;
use indicatif::ProgressBar;
use rayon::prelude::*;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// 16 hexadecimal digits over the format and over names and contents of the files, in their order.
/// Names are those below `root`, so the hash does not depend on the location of the input.
pub fn of_input(
    format: &str,
    root: &Path,
    mut paths: impl Iterator<Item = PathBuf>,
) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format.as_bytes());
    let bar = cli::progress_bytes("reading the input once");
    loop {
        let some: Vec<PathBuf> = paths.by_ref().take(256).collect();
        if some.is_empty() {
            return Ok(schema::short_hash(&hasher.finalize()));
        }
        let digests = some.par_iter().map(|p| of_file(p, &bar)).collect::<Result<Vec<_>>>()?;
        for (path, digest) in some.iter().zip(digests) {
            add_name(&mut hasher, root, path);
            hasher.update(digest.as_bytes());
        }
    }
}

/// Adds the name of a file below `root`.
fn add_name(hasher: &mut blake3::Hasher, root: &Path, path: &Path) {
    let name = path.strip_prefix(root).ok();
    let name = name.filter(|n| !n.as_os_str().is_empty());
    let name = name.map_or(path.file_name().unwrap_or_default(), |n| n.as_os_str());
    let name = name.as_encoded_bytes();
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name);
}

/// As `of_input`, over the sizes and times of the files in place of their contents.
pub fn of_times(format: &str, root: &Path, paths: impl Iterator<Item = PathBuf>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format.as_bytes());
    for path in paths {
        let file = path.metadata().map_err(Error::io(&path))?;
        add_name(&mut hasher, root, &path);
        hasher.update(&file.size().to_le_bytes());
        for time in [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()] {
            hasher.update(&time.to_le_bytes());
        }
    }
    Ok(schema::short_hash(&hasher.finalize()))
}

/// BLAKE3 of the BLAKE3 hashes of a file's pieces, which are hashed on all threads, in their caches.
fn of_file(path: &Path, bar: &ProgressBar) -> Result<blake3::Hash> {
    const PIECE: u64 = 256 << 10;
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    let hash = |piece: &mut Vec<u8>, number: &u64| {
        let start = number * PIECE;
        piece.resize((size - start).min(PIECE) as usize, 0);
        file.read_exact_at(piece, start)?;
        bar.inc(piece.len() as u64);
        Ok(blake3::hash(piece))
    };
    let mut hasher = blake3::Hasher::new();
    let mut pieces = (0..size.div_ceil(PIECE)).peekable();
    while pieces.peek().is_some() {
        if cli::stop_requested() {
            let path = path.to_path_buf();
            return Err(Error::Interrupted { path });
        }
        let some: Vec<u64> = pieces.by_ref().take(1024).collect();
        let hashes = some.par_iter().map_init(Vec::new, hash);
        let hashes: std::io::Result<Vec<_>> = hashes.collect();
        for hash in hashes.map_err(Error::io(path))? {
            hasher.update(hash.as_bytes());
        }
    }
    Ok(hasher.finalize())
}

/// A 64-bit hash of the parts of a name. Among a million names, two share a hash in one of 40 million
/// inputs.
pub fn of_name(parts: &[&str]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
