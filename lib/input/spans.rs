//! Which items of an input make which file of the shards.

use super::item::{Item, Position, SplitName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most images per file, however small: the writer keeps the position of each until the file ends.
const FILE_IMAGES: u64 = 1 << 16;

/// Consecutive items of one split that make one file of the shards.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileSpan {
    pub split: SplitName,
    /// Number of the file in its split, and how many the split has.
    pub file: usize,
    pub files: usize,
    /// Items, including bad ones.
    pub items: u64,
    /// Number of the first item in its split.
    pub(super) first: u64,
    pub(super) start: Position,
    /// Items of the split that a walk from `start` meets before the first.
    pub(super) skip: u64,
}

/// Spans in the making, item by item.
#[derive(Debug)]
pub struct Spans {
    file_bytes: u64,
    spans: Vec<FileSpan>,
    splits: BTreeMap<SplitName, SplitSoFar>,
}

#[derive(Debug, Default)]
struct SplitSoFar {
    items: u64,
    files: usize,
    /// The span begun last: its index, and its bytes.
    span: usize,
    bytes: u64,
    /// Position of the item before, and items so far at that position but the first.
    last: Option<Position>,
    at_last: u64,
}

impl Spans {
    /// A file ends before the image that would bring it above `file_bytes`.
    pub fn new(file_bytes: u64) -> Spans {
        Spans { file_bytes, spans: Vec::new(), splits: BTreeMap::new() }
    }

    pub fn add(&mut self, item: &Item) {
        let split = self.splits.entry(item.split).or_default();
        match split.last == Some(item.position) {
            true => split.at_last += 1,
            false => split.at_last = 0,
        }
        split.last = Some(item.position);
        if split.files == 0
            || self.spans[split.span].items == FILE_IMAGES
            || split.bytes > 0 && split.bytes.saturating_add(item.size) > self.file_bytes
        {
            split.span = self.spans.len();
            split.bytes = 0;
            self.spans.push(FileSpan {
                split: item.split,
                file: split.files,
                files: 0,
                items: 0,
                first: split.items,
                start: item.position,
                skip: split.at_last,
            });
            split.files += 1;
        }
        split.bytes = split.bytes.saturating_add(item.size);
        self.spans[split.span].items += 1;
        split.items += 1;
    }

    /// All spans, split by split.
    pub fn finish(mut self) -> Vec<FileSpan> {
        for span in &mut self.spans {
            span.files = self.splits[&span.split].files;
        }
        self.spans.sort_by_key(|s| (s.split, s.file));
        self.spans
    }
}
