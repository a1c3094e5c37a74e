//! The names of the classes, read from a file.

use super::names::{nfc, without_bom};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::path::Path;

/// The names of a file of class names, one per line, each once.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::missing(path, "class names", "name a file with one class per line")
        }
        std::io::ErrorKind::InvalidData => Error::bad_data(
            path,
            "one class name per line",
            "bytes that are not UTF-8",
            "write it as UTF-8",
        ),
        _ => Error::io(path)(e),
    })?;
    let names: Vec<String> =
        without_bom(&text).trim_end().lines().map(|l| l.trim().to_string()).collect();
    let mut seen = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || !seen.insert(nfc(name)) {
            return Err(Error::bad_data(
                path,
                "one class name per line, each once",
                format!("{name:?} on line {}", i + 1),
                "correct the line",
            ));
        }
    }
    Ok(names)
}
