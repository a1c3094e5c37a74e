//! Parts of a run, each a folder `<out>.part-I-of-N` beside the shards that they become, and joining
//! them.

use super::identity::{Identity, Part};
use super::staging::{self, Staging};
use crate::artifact::beside;
use crate::error::{Error, Result};
use crate::schema::{self, PARTIAL};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The folder of a part of `out`.
pub fn folder(out: &Path, Part(part, parts): Part) -> PathBuf {
    beside(out, &schema::part_ending(part, parts))
}

/// Lineage of the parts of `out`, as `staging::lineage`.
pub fn lineage(out: &Path) -> Option<HashMap<String, String>> {
    staging::lineage(found(out).ok()?.first()?)
}

/// Joins all parts of `out`, whose files are linked, not copied, if the file system can.
///
/// Errors: `Missing` if there is no part or not each, `BadData` if they are not parts of one run.
pub fn merge(out: &Path) -> Result<Staging> {
    let found = found(out)?;
    let first = found.first().ok_or_else(|| missing(&folder(out, Part(1, 2))))?;
    let identity = staging::identity(first)?;
    let Part(_, parts) = identity.part;
    if found.len() > parts {
        return Err(Error::bad_data(
            first,
            format!("{parts} parts"),
            format!("{}", found.len()),
            "remove those of another number of parts",
        ));
    }
    let folders: Vec<PathBuf> = (1..=parts).map(|i| folder(out, Part(i, parts))).collect();
    for (folder, i) in folders.iter().zip(1..) {
        if !folder.is_dir() {
            return Err(missing(folder));
        }
        if staging::identity(folder)? != (Identity { part: Part(i, parts), ..identity.clone() }) {
            return Err(Error::bad_data(
                folder,
                format!("a part of the run that {} is of", first.display()),
                "a part of another one",
                "make all parts from the same input with the same settings",
            ));
        }
    }
    let whole = Identity { part: Part::WHOLE, ..identity };
    let merged = Staging::open(&staging::partial(out), whole)?;
    folders.iter().try_for_each(|folder| merged.link(folder))?;
    Ok(merged)
}

fn missing(folder: &Path) -> Error {
    Error::missing(folder, "part", "run s4l-shard --part I/N for it, with the same --out")
}

/// The folders that are parts of `out`, sorted.
fn found(out: &Path) -> Result<Vec<PathBuf>> {
    let pattern = beside(out, schema::PART);
    let folder = pattern.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let start = pattern.file_name().unwrap_or_default().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let part = name.starts_with(start) && !name.ends_with(PARTIAL.as_bytes());
        if part && staging::is_one(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
