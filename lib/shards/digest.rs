//! Hashes over the rows of shards: one identifies the content of a split, others check its small columns
//! when they are read.

use super::write::ImageRow;
use crate::schema;
use serde::{Deserialize, Serialize};

/// Hash of key, size and image of a row. Labels are not part of it, so the lineage of a training
/// stage does not depend on the labels in the shards.
fn digest(row: &ImageRow) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(row.key.len() as u64).to_le_bytes());
    hasher.update(row.key.as_bytes());
    hasher.update(&row.height.to_le_bytes());
    hasher.update(&row.width.to_le_bytes());
    hasher.update(row.content.as_bytes());
    let mut digest = [0; 16];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// Hash of a sequence of digests, which is the same however the sequence is cut into files: the
/// polynomial hash of Rabin and Karp, modulo 2^128.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Content(u128);

impl Content {
    /// The golden ratio, made odd.
    const BASE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

    pub fn add(&mut self, row: &ImageRow) {
        self.extend(&Content(u128::from_le_bytes(digest(row))), 1);
    }

    /// Appends a sequence of `length` digests.
    pub fn extend(&mut self, next: &Content, length: usize) {
        let moved = self.0.wrapping_mul(Self::BASE.wrapping_pow(length as u32));
        self.0 = moved.wrapping_add(next.0);
    }

    pub fn hex(&self) -> String {
        schema::short_hash(&blake3::hash(&self.0.to_le_bytes()))
    }
}

/// Hash of the small columns of a file but for its labels, row by row. The column `hash` is in it, and
/// an image is checked with that.
#[derive(Debug, Default, Clone)]
pub struct RowsHash(blake3::Hasher);

impl RowsHash {
    pub fn add(&mut self, key: &str, (height, width): (u32, u32), image: u64) {
        self.0.update(&(key.len() as u64).to_le_bytes());
        self.0.update(key.as_bytes());
        self.0.update(&height.to_le_bytes());
        self.0.update(&width.to_le_bytes());
        self.0.update(&image.to_le_bytes());
    }

    pub fn hex(&self) -> String {
        schema::short_hash(&self.0.finalize())
    }
}

/// Hash of the labels of a file, checked only by stages that read labels.
#[derive(Debug, Default, Clone)]
pub struct LabelsHash(blake3::Hasher);

impl LabelsHash {
    pub fn add(&mut self, label: Option<i64>) {
        self.0.update(&[label.is_some().into()]);
        self.0.update(&label.unwrap_or_default().to_le_bytes());
    }

    pub fn hex(&self) -> String {
        schema::short_hash(&self.0.finalize())
    }
}

/// The number that the column `hash` has in hexadecimal digits.
pub fn image_hash(content: &blake3::Hash) -> u64 {
    let (first, _) = content.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}
