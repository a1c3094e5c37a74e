//! Shards: memory-mapped parquet, valid for every other reader, with zero-copy rows for ours.
//!
//! A shard folder holds `<split>-00000-of-00004.parquet`, `dataset.json` and `MANIFEST.b3`. The
//! image bytes lie uncompressed and PLAIN, and the offset index gives the place of every page, so a
//! row is a slice of the map. All parquet calls of shards stay in this module.

mod column;
pub mod job;
mod read;
pub mod staging;
pub mod write;

pub use read::{Decoded, Split, Stored};

use crate::decode::encoded::Resized;
use crate::error::{Error, Result};
use crate::schema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `dataset.json`: what the parquet files of the folder hold together.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Dataset {
    format: u32,
    classes: Vec<String>,
    /// Height, width and channels of `pixels`; null for encoded images.
    shape: Option<[usize; 3]>,
    splits: BTreeMap<String, SplitInfo>,
    /// Present where the images are not those of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resized: Option<Resized>,
    lineage: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SplitInfo {
    images: usize,
    files: usize,
    /// Hash over `write::digest` of each row, in row order.
    content: String,
}

const FORMAT: u32 = 1;

/// An open shard folder. Splits are opened one by one, on demand.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    dataset: Dataset,
}

impl Shards {
    /// Errors: `Missing` where there is no shard folder, `BadData` where `dataset.json` is damaged.
    pub fn open(dir: &Path) -> Result<Shards> {
        let path = dir.join(schema::DATASET_JSON);
        let text = std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::missing(&path, "shards", "s4l-shard --in IMAGES --out DIR makes them")
            }
            std::io::ErrorKind::NotADirectory => Error::bad_data(
                dir,
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
        Ok(Shards { folder: dir.to_path_buf(), dataset })
    }

    pub fn classes(&self) -> &[String] {
        &self.dataset.classes
    }

    /// Names of the splits, sorted.
    pub fn splits(&self) -> Vec<String> {
        self.dataset.splits.keys().cloned().collect()
    }

    /// Opens all files of a split as one row space.
    ///
    /// Errors: `Missing` for an unknown split or an absent file, `BadData` where the files do not
    /// hold what `dataset.json` says.
    pub fn split(&self, name: &str) -> Result<Split> {
        let info = self.dataset.splits.get(name).ok_or_else(|| {
            Error::missing(
                &self.folder,
                format!("split {name:?}"),
                format!("there are {}", self.splits().join(", ")),
            )
        })?;
        Split::open(&self.folder, name, info, &self.dataset)
    }

    /// What the folder was made from, as `artifact::target` wants it; `None` where there is none.
    pub fn lineage(dir: &Path) -> Option<std::collections::HashMap<String, String>> {
        let shards = Shards::open(dir).ok()?;
        Some(shards.dataset.lineage.into_iter().collect())
    }
}
