//! Folders: shards of a data set, and models.

use super::{count, json, parquet, safetensors, section, size};
use crate::artifact;
use crate::error::{Error, Result};
use crate::model;
use crate::schema::{CONFIG_JSON, DATASET_JSON, MANIFEST, METRICS, REJECTS, WEIGHTS, split_of};
use indicatif::DecimalBytes;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Images, files and bytes of each split, and `dataset.json`.
pub fn describe_shards(folder: &Path) -> Result<String> {
    let mut splits: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for path in parquet_files(folder)? {
        let (files, rows, bytes) = splits.entry(split_of(&path)).or_default();
        *files += 1;
        *rows += parquet::rows(&path)?;
        *bytes += size(&path)?;
    }
    let rejected = splits.remove(&split_of(Path::new(REJECTS)));
    let mut lines: Vec<Vec<String>> = splits
        .into_iter()
        .map(|(split, (files, rows, bytes))| {
            let (images, files) = (count(rows, "image"), count(files, "file"));
            vec![split, images, files, DecimalBytes(bytes).to_string()]
        })
        .collect();
    if let Some((_, rows, _)) = rejected {
        let line = ["rejected", &count(rows, "image"), REJECTS];
        lines.push(line.map(str::to_string).to_vec());
    }
    let dataset = json::outline(&json::read(&folder.join(DATASET_JSON))?);
    Ok(format!(
        "{}: shard folder\n{}{DATASET_JSON}\n{dataset}",
        folder.display(),
        section("splits", &lines)
    ))
}

/// `dataset.json` parses, every line of the manifest is right as for `b3sum -c`, and the manifest names
/// every shard.
pub fn verify_shards(folder: &Path) -> Result<()> {
    json::read(&folder.join(DATASET_JSON))?;
    let path = folder.join(MANIFEST);
    let hint = "write the shards again with s4l-shard";
    let bad = |expected: &str, found: String| Error::bad_data(&path, expected, found, hint);
    let text = std::fs::read_to_string(&path).map_err(|e| bad("a manifest", e.to_string()))?;
    let mut listed: Vec<(&str, PathBuf)> = Vec::new();
    for line in text.lines() {
        let (hash, name) = line
            .split_once("  ")
            .filter(|(_, name)| !name.contains('/'))
            .ok_or_else(|| bad("lines `<hash>  <name>`", format!("{line:?}")))?;
        listed.push((hash, folder.join(name)));
    }
    for shard in parquet_files(folder)? {
        if !listed.iter().any(|(_, path)| *path == shard) {
            return Err(bad("every shard", format!("none for {}", shard.display())));
        }
    }
    let checked: Vec<Result<()>> = listed
        .par_iter()
        .map(|(expected, path)| {
            let found = hash(path)?;
            if found == *expected {
                return Ok(());
            }
            let expected = format!("hash {expected} as in {MANIFEST}");
            Err(Error::bad_data(path, expected, found, hint))
        })
        .collect();
    checked.into_iter().collect()
}

/// The whole BLAKE3 hash, as `b3sum` prints it.
fn hash(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path)
        .map_err(|e| Error::bad_data(path, "a file", e.to_string(), "write it again"))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).map_err(Error::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.extension().is_some_and(|e| e == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Configuration, metrics and weights, each described as a single file.
pub fn describe_model(folder: &Path) -> Result<String> {
    let mut text = format!("{}: model folder\n", folder.display());
    let config = folder.join(CONFIG_JSON);
    if artifact::exists(&config)? {
        text += &json::describe(&config)?;
    }
    let metrics = folder.join(METRICS);
    if artifact::exists(&metrics)? {
        text += &parquet::describe(&metrics)?;
    }
    let weights = folder.join(WEIGHTS);
    if artifact::exists(&weights)? {
        text += &safetensors::describe(&weights)?;
    } else {
        text += &format!("no {WEIGHTS}: training has not ended\n");
    }
    Ok(text)
}

/// Configuration, metrics and weights exist, are undamaged, and belong to one model. Errors: `BadData`,
/// also while training is not finished.
pub fn verify_model(folder: &Path) -> Result<()> {
    json::read(&folder.join(CONFIG_JSON))?;
    let metrics = folder.join(METRICS);
    if artifact::exists(&metrics)? {
        parquet::verify(&metrics)?;
    }
    let weights = folder.join(WEIGHTS);
    if !artifact::exists(&weights)? {
        let hint = "run the training stage again, it goes on";
        return Err(Error::bad_data(folder, WEIGHTS, "none", hint));
    }
    safetensors::verify(&weights)?;
    model::folder::describe(folder).map(drop)
}
