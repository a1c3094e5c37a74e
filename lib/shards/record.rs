//! The record of a finished file while a shard folder is made.

use super::digest::{Content, LabelsHash, RowsHash, image_hash};
use super::write::ImageRow;
use crate::artifact;
use crate::cli;
use crate::error::{Error, Result};
use crate::schema::{self, FILES, RECORD, RECORDS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An image that is not in the shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reject {
    pub key: String,
    /// Where it is in the input.
    pub path: String,
    pub reason: String,
}

/// The record of a finished file.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct FileRecord {
    pub images: usize,
    /// Images of each class.
    pub classes: BTreeMap<u32, u64>,
    /// Bytes of the file, and their BLAKE3.
    length: u64,
    pub hash: String,
    pub content: Content,
    pub rows: String,
    pub labels: String,
    pub rejects: Vec<Reject>,
    #[serde(skip)]
    hashes: (RowsHash, LabelsHash),
}

/// A record on disk, with its hash: a changed record would make the shards wrong.
#[derive(Serialize, Deserialize)]
struct Sealed {
    record: FileRecord,
    /// Hash of the record.
    seal: String,
}

impl FileRecord {
    /// Counts the next row of the file.
    pub fn add(&mut self, row: &ImageRow) {
        self.images += 1;
        if let Some(label) = row.label {
            *self.classes.entry(label).or_default() += 1;
        }
        self.content.add(row);
        let (rows, labels) = &mut self.hashes;
        rows.add(&row.key, (row.height, row.width), image_hash(&row.content));
        labels.add(row.label.map(i64::from));
    }

    /// Of a file that is complete: its length and its hash.
    pub fn finish(&mut self, length: u64, hash: blake3::Hash) {
        self.length = length;
        self.hash = hash.to_hex().to_string();
        self.rows = self.hashes.0.hex();
        self.labels = self.hashes.1.hex();
    }

    /// The record of a file in a staging folder, if the file is there as the record has it.
    pub fn read(root: &Path, name: &str) -> Result<Option<FileRecord>> {
        let record = path(root, name);
        let text = std::fs::read(&record).map_err(Error::io(&record));
        let Some(text) = Error::unless_unreadable(text)? else {
            return Ok(None);
        };
        let Ok(Sealed { record, seal }) = serde_json::from_slice(&text) else {
            return Ok(None);
        };
        if record.seal()? != seal {
            return Ok(None);
        }
        let file = root.join(FILES).join(name);
        let length = std::fs::metadata(&file).map(|file| file.len()).map_err(Error::io(&file));
        if Error::unless_unreadable(length)? != Some(record.length) {
            return Ok(None);
        }
        Ok((hash(&file)? == record.hash).then_some(record))
    }

    /// Writes it, after its file is in its place.
    pub fn write(&self, root: &Path, name: &str) -> Result<()> {
        let sealed = Sealed { record: self.clone(), seal: self.seal()? };
        artifact::write_bytes(&path(root, name), &json(&sealed)?)
    }

    fn seal(&self) -> Result<String> {
        Ok(schema::short_hash(&blake3::hash(&json(self)?)))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::Internal(e.to_string()))
}

/// Where the record of a file is in a staging folder.
pub fn path(root: &Path, name: &str) -> PathBuf {
    root.join(RECORDS).join(format!("{name}{RECORD}"))
}

/// BLAKE3 of a file.
fn hash(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 20];
    loop {
        if cli::stop_requested() {
            return Err(Error::Interrupted { path: path.to_path_buf() });
        }
        match file.read(&mut block).map_err(Error::io(path))? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            read => hasher.update(&block[..read]),
        };
    }
}
