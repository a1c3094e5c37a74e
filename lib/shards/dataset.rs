//! `dataset.json`: what the files of a shard folder hold together, and what they are called.

use crate::decode::encoded::Resized;
use crate::error::{Error, Result};
use crate::input::taken::Taken;
use crate::schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The contents of `dataset.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dataset {
    pub format: u32,
    pub classes: Vec<String>,
    /// Height, width and channels of `pixels`; null for encoded images.
    pub shape: Option<[usize; 3]>,
    pub splits: BTreeMap<String, SplitInfo>,
    /// Present if the images are not those of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resized: Option<Resized>,
    /// Where labels and splits came from, in words. Absent in older folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    pub lineage: BTreeMap<String, String>,
}

/// What `dataset.json` says of a split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SplitInfo {
    pub images: usize,
    pub files: usize,
    /// Hash over `write::digest` of each row, in row order.
    pub content: String,
}

/// The format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

impl Dataset {
    /// Errors: `Missing` if there is no shard folder, `BadData` if `dataset.json` is damaged.
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
        let dataset: Dataset = serde_json::from_slice(&text)
            .map_err(|e| bad("the description of a shard folder", e.to_string()))?;
        if dataset.format != FORMAT {
            return Err(bad(&format!("format {FORMAT}"), format!("format {}", dataset.format)));
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
