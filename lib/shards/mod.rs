//! The only module that knows the content of a shard folder. It knows no stage and no network.
//!
//! A shard folder has `<split>-00000-of-00004.parquet`, `dataset.json` and `MANIFEST.b3`. It is mapped into
//! memory, and is valid parquet for every other reader. The image bytes are uncompressed and PLAIN, and the
//! offset index has the place of every page, so a row is a slice of the map.
//!
//! - reading: `dataset`; `read`, a split; `column`, one file; `pages`, its images in the map; `keys`
//! - `digest`: hashes over rows, written when shards are made and checked when they are read
//! - making: `identity`, what is made; `write`, one file; `record`, the record of a finished file;
//!   `staging`, the folder; `parts` of a run, joining them, and the `survey` that they share; `job`, the
//!   loop over the files; `closing`, the contents as a table for people

mod closing;
mod column;
mod dataset;
mod digest;
pub mod identity;
pub mod job;
mod keys;
mod pages;
pub mod parts;
mod read;
mod record;
pub mod staging;
pub mod survey;
mod write;

pub use read::{Decoded, Split, Stored};

use crate::artifact;
use crate::error::{Error, Result};
use crate::schema;
use dataset::Dataset;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// An open shard folder. Splits are opened one by one, on demand.
#[derive(Debug)]
pub struct Shards {
    folder: PathBuf,
    dataset: Dataset,
}

impl Shards {
    /// Errors: `Missing` if there is no shard folder, `BadData` if `dataset.json` is damaged.
    pub fn open(folder: &Path) -> Result<Shards> {
        let dataset = Dataset::read(folder)?;
        Ok(Shards { folder: folder.to_path_buf(), dataset })
    }

    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.dataset.classes
    }

    /// Names of the splits, sorted.
    pub fn splits(&self) -> Vec<String> {
        self.dataset.splits.keys().cloned().collect()
    }

    /// Hash of the content of each split, by name.
    pub fn contents(&self) -> BTreeMap<&str, &str> {
        let splits = self.dataset.splits.iter();
        splits.map(|(name, info)| (name.as_str(), info.content.as_str())).collect()
    }

    /// Opens all files of a split as one range of rows.
    ///
    /// Errors: `Missing` for an unknown split or an absent file, `BadData` if the files do not have the
    /// content that `dataset.json` states, `Io` if the shards were replaced meanwhile.
    pub fn split(&self, name: &str) -> Result<Split> {
        let info = self.dataset.splits.get(name).ok_or_else(|| {
            Error::missing(
                &self.folder,
                format!("split {name:?}"),
                format!("there are {}", self.splits().join(", ")),
            )
        })?;
        let split = Split::open(&self.folder, name, info, &self.dataset);
        // The files were opened by name.
        match Dataset::read(&self.folder) {
            Ok(now) if now == self.dataset => split,
            Err(e @ Error::Io { .. }) => Err(e),
            _ => Err(Error::replaced(&self.folder)),
        }
    }

    /// The lineage of the folder, as `artifact::target` needs it; `None` if there are no shards.
    pub fn lineage(folder: &Path) -> Result<Option<HashMap<String, String>>> {
        let dataset = Error::unless_unreadable(Dataset::read(folder))?;
        Ok(dataset.map(|dataset| dataset.lineage.into_iter().collect()))
    }

    /// Errors if the folder is not a shard folder, or has other files too: `--force` never replaces those.
    pub fn refuse_foreign(folder: &Path) -> Result<()> {
        if !artifact::exists(folder)? {
            return Ok(());
        }
        let not_ours = |what: String| Error::NotOurs { path: folder.to_path_buf(), what };
        let dataset = folder.join(schema::DATASET_JSON);
        if !artifact::is_file(&dataset)? {
            return Err(not_ours("a shard folder".to_string()));
        }
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let name = entry.map_err(Error::io(folder))?.file_name();
            let name = name.to_string_lossy();
            if ![schema::DATASET_JSON, schema::MANIFEST].contains(&&*name)
                && !name.ends_with(".parquet")
                && !name.starts_with(schema::TEMPORARY.0)
            {
                return Err(not_ours(format!("a folder with only shards: {name:?} is in it")));
            }
        }
        Ok(())
    }
}
