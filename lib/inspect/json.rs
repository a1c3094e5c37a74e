//! JSON files: `dataset.json`, `config.json`, provenance.

use super::title;
use crate::error::{Error, Result};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// Longer lists are counted, not shown.
const MOST_ENTRIES: usize = 12;

/// The whole file as an outline.
pub fn describe(path: &Path) -> Result<String> {
    let value = read(path)?;
    Ok(title(path, "JSON", "")? + &outline(&value))
}

/// Reads a file. Errors: `Io`, `BadData` if it is not JSON.
pub fn read(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::bad_data(path, "JSON", e.to_string(), "make it again"))
}

/// Indented `key: value` lines; lists of scalars on one line.
pub fn outline(value: &Value) -> String {
    let mut text = String::new();
    write_outline(&mut text, value, 1);
    text
}

fn write_outline(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    let mut entry = |key: &str, value: &Value| match scalar(value) {
        Some(scalar) => {
            let _ = writeln!(text, "{indent}{key}: {scalar}");
        }
        None => {
            let _ = writeln!(text, "{indent}{key}:");
            write_outline(text, value, depth + 1);
        }
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| entry(key, value)),
        Value::Array(list) => {
            for (i, value) in list.iter().enumerate().take(MOST_ENTRIES) {
                entry(&i.to_string(), value);
            }
            if list.len() > MOST_ENTRIES {
                let _ = writeln!(text, "{indent}... {} in all", list.len());
            }
        }
        _ => entry("value", value),
    }
}

/// A value that fits on one line.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Array(list) => {
            let shown = list.iter().take(MOST_ENTRIES);
            let mut shown: Vec<String> = shown
                .map(|v| (!v.is_array() && !v.is_object()).then(|| scalar(v))?)
                .collect::<Option<_>>()?;
            if list.len() > MOST_ENTRIES {
                shown.push(format!("... {} in all", list.len()));
            }
            Some(shown.join(", "))
        }
        Value::Object(map) => map.is_empty().then(String::new),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_by_hand() {
        let value = serde_json::json!({
            "classes": ["cat", "dog"],
            "many": (0..20).collect::<Vec<_>>(),
            "splits": {"test": {"images": 4}},
        });
        assert_eq!(
            outline(&value),
            "  classes: cat, dog\n  many: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... 20 in all\n  \
             splits:\n    test:\n      images: 4\n"
        );
    }
}
