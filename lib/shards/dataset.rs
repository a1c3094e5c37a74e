//! `dataset.json`: the common contents of the files of a shard folder, and the names.

use crate::decode::encoded::Resized;
use crate::error::{Error, Result};
use crate::input::taken::Taken;
use crate::schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The contents of `dataset.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    pub format: u32,
    pub classes: Vec<String>,
    /// Height, width and channels of `pixels`; null for encoded images.
    pub shape: Option<[usize; 3]>,
    pub splits: BTreeMap<String, SplitInfo>,
    /// Present if the images were changed on the way from the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resized: Option<Resized>,
    /// The source of labels and splits, as text. Absent in older folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    pub lineage: BTreeMap<String, String>,
}

/// The entry of a split in `dataset.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitInfo {
    pub images: usize,
    pub files: usize,
    /// Hash over keys, sizes and images in row order.
    pub content: String,
    /// `RowsHash` and `LabelsHash` of each file.
    #[serde(default)]
    pub rows: Vec<String>,
    #[serde(default)]
    pub labels: Vec<String>,
}

/// The format that is written.
pub const FORMAT: u32 = 2;
/// An older format without hashes of rows and labels; these are not checked.
const WITHOUT_HASHES: u32 = 1;

/// The hint for a folder in which a file is missing.
pub const INCOMPLETE: &str = "the folder is incomplete, make it again with s4l-shard --force";

/// A line of `MANIFEST.b3`, as `b3sum` prints it.
pub fn manifest_line(name: &str, hash: &str) -> String {
    format!("{hash}  {name}\n")
}

impl Dataset {
    /// Errors: `Missing` if there is no shard folder, `BadData` if `dataset.json` is damaged or is not the
    /// one in the manifest.
    pub fn read(folder: &Path) -> Result<Dataset> {
        let path = folder.join(schema::DATASET_JSON);
        let text = std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::missing(&path, "shards", "s4l-shard --in IMAGES --out DIR makes them")
            }
            std::io::ErrorKind::NotADirectory => Error::bad_data(
                folder,
                "a folder of shards",
                "a file",
                "s4l-shard --in IMAGES --out DIR makes one",
            ),
            _ => Error::io(&path)(e),
        })?;
        let bad = |expected: &str, found: String| {
            Error::bad_data(&path, expected, found, "make the shards again with s4l-shard")
        };
        let manifest = folder.join(schema::MANIFEST);
        let listed = std::fs::read(&manifest).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::missing(&manifest, "file", INCOMPLETE),
            _ => Error::io(&manifest)(e),
        })?;
        let hash = blake3::hash(&text).to_hex();
        let listed = String::from_utf8_lossy(&listed);
        if !listed.contains(&manifest_line(schema::DATASET_JSON, hash.as_str())) {
            let found = format!("hash {hash}");
            return Err(bad(&format!("the file of the line in {}", schema::MANIFEST), found));
        }
        let dataset: Dataset = serde_json::from_slice(&text)
            .map_err(|e| bad("the description of a shard folder", e.to_string()))?;
        if ![WITHOUT_HASHES, FORMAT].contains(&dataset.format) {
            return Err(bad(&format!("format {FORMAT}"), format!("format {}", dataset.format)));
        }
        for (name, split) in &dataset.splits {
            schema::check_split(name).map_err(|found| bad("names of splits", found))?;
            let hashes = if dataset.format == FORMAT { split.files } else { 0 };
            if split.rows.len() != hashes || split.labels.len() != hashes {
                let found = format!("{} and {}", split.rows.len(), split.labels.len());
                return Err(bad(&format!("hashes of {hashes} files of {name:?}"), found));
            }
        }
        if let Some(shape @ [height, width, channels]) = dataset.shape {
            let size = height.saturating_mul(width).saturating_mul(channels);
            if size == 0 || size > i32::MAX as usize || ![1, 3].contains(&channels) {
                return Err(bad("the shape of grey or RGB images", format!("{shape:?}")));
            }
        }
        Ok(dataset)
    }
}
