//! Label lists: the names of the labelled images, as S4L publishes them (JSON) and SimCLR (text).

use crate::error::{Error, Result};
use crate::input::names::{nfc, stem, without_bom};
use crate::schema;
use crate::shards::Split;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

/// Names without an image that a message shows.
const SHOWN: usize = 3;

/// No path is longer, and trying all ends of something that is would take long.
const MAX_NAME: usize = 4096;

/// The rows that a list names, sorted, and the `short_hash` of the list. A name is a key; or a path that
/// ends in one; or either of them but for the ending of its file, composed in any way and with slashes of
/// any kind.
///
/// Errors: `BadData` if a name belongs to no image or to several, to one without a label, or to the
/// image of another name.
pub fn rows(list: &Path, split: &Split) -> Result<(Vec<usize>, String)> {
    let text = read(list)?;
    let names = names(list, &text)?;
    let bad = |expected: &str, found: String| {
        let hint = "correct the list, or name the --split it is of";
        Error::bad_data(list, expected, found, hint)
    };
    if names.is_empty() {
        return Err(bad("names of images", "none".to_string()));
    }
    let stems = stems(split);
    let mut rows = Vec::with_capacity(names.len());
    let mut unknown = Vec::new();
    for name in &names {
        if name.len() > MAX_NAME {
            let found = format!("one of {} bytes", name.len());
            return Err(bad("names of images", found));
        }
        let by_stem = |n: &str| stems.get(&nfc(stem(n))).copied().flatten();
        let find = |name: &str| {
            tails(name).find_map(|n| split.row(n)).or_else(|| tails(name).find_map(by_stem))
        };
        match find(name).or_else(|| find(&name.replace('\\', "/"))) {
            Some(row) => rows.push(row),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        let more = if unknown.len() > SHOWN { ", .." } else { "" };
        let shown: Vec<_> = unknown.iter().take(SHOWN).map(|n| format!("{n:?}")).collect();
        let found = format!(
            "{} of {} names that have none: {}{more}",
            unknown.len(),
            names.len(),
            shown.join(", ")
        );
        return Err(bad("one image of the split for each name", found));
    }
    rows.sort_unstable();
    if let Some(twice) = rows.windows(2).find(|w| w[0] == w[1]) {
        let found = format!("{:?} twice", split.key(twice[0]));
        return Err(bad("each image once", found));
    }
    let labels = split.labels()?;
    if let Some(&row) = rows.iter().find(|&&row| labels[row].is_none()) {
        let found = format!("{:?} without", split.key(row));
        return Err(bad("images with labels", found));
    }
    Ok((rows, schema::short_hash(&blake3::hash(text.as_bytes()))))
}

/// `a/b/c`, `b/c`, `c`.
fn tails(name: &str) -> impl Iterator<Item = &str> {
    let parts = name.match_indices('/').map(|(slash, _)| &name[slash + 1..]);
    std::iter::once(name).chain(parts)
}

/// The row of each key, composed and without its ending, `None` if several have the same.
fn stems(split: &Split) -> HashMap<Cow<'_, str>, Option<usize>> {
    let mut stems = HashMap::with_capacity(split.len());
    for (row, key) in split.keys().enumerate() {
        let only = stems.entry(nfc(stem(key))).or_insert(Some(row));
        *only = only.filter(|first| *first == row);
    }
    stems
}

fn read(list: &Path) -> Result<String> {
    std::fs::read_to_string(list).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::missing(list, "list", "name a file of image names"),
        _ => Error::io(list)(e),
    })
}

/// The names in a list: JSON if it begins with a brace, else text.
fn names(list: &Path, text: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct LabelMap {
        values: Vec<String>,
    }
    let text = without_bom(text);
    if text.trim_start().starts_with('{') {
        let map: LabelMap = serde_json::from_str(text).map_err(|e| {
            let hint = "write it like {\"values\": [\"a.png\", \"b.png\"]}";
            Error::bad_data(list, "a label map", e.to_string(), hint)
        })?;
        return Ok(map.values);
    }
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    Ok(lines.map(str::to_string).collect())
}
