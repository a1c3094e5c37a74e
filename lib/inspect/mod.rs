//! How `s4l-inspect` describes and verifies a file or folder: one source file per kind, and the layout of
//! the text. Nothing here knows how to make such a file.

pub mod folder;
pub mod json;
pub mod lineage;
pub mod onnx;
pub mod parquet;
pub mod safetensors;
pub mod sheet;

use crate::error::Result;
use indicatif::{DecimalBytes, HumanCount};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The first line of a description: `labels.parquet: parquet, 3.10 kB`.
fn title(path: &Path, kind: &str, more: &str) -> Result<String> {
    let size = DecimalBytes(size(path)?);
    Ok(format!("{}: {kind}, {size}{more}\n", path.display()))
}

/// `1 file`, `1,152 files`
fn count(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(n))
}

fn size(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).map_err(crate::error::Error::io(path))?;
    Ok(metadata.len())
}

/// Names and values, in columns under a heading; empty if there are none.
fn section(heading: &str, lines: &[Vec<String>]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            let cells = lines.iter().filter_map(|line| line.get(c));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = format!("{heading}\n");
    for line in lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(row, "  {cell:<width$}");
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// The key-value pairs of a footer or header: the lineage, then the rest.
fn made_from(pairs: &BTreeMap<String, String>) -> String {
    let lines: Vec<Vec<String>> =
        pairs.iter().map(|(key, value)| vec![key.clone(), value.clone()]).collect();
    section("lineage", &lines)
}
