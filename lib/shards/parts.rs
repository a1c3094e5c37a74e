//! Joining the parts of a run. Each part is a folder `<out>.part-I-of-N` beside the shards that are made
//! from them.

use super::Shards;
use super::identity::Identity;
use super::staging::{self, Staging};
use crate::error::Result;
use crate::part::{self, Part};
use std::path::{Path, PathBuf};

/// The remaining parts of the undamaged shards `out`: `None` if the shards were not joined from them, or do
/// not exist.
///
/// Errors: those of opening shards of which parts remain.
pub fn left_of(out: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(made) = Shards::lineage(out)? else {
        return Ok(None);
    };
    let left: Vec<PathBuf> = part::found(out, staging::is_one)?.into_iter().map(|p| p.0).collect();
    for part in &left {
        if staging::lineage(part)?.as_ref() != Some(&made) {
            return Ok(None);
        }
    }
    if !left.is_empty() {
        let shards = Shards::open(out)?;
        shards.splits().into_iter().try_for_each(|name| shards.split(&name).map(drop))?;
    }
    Ok(Some(left))
}

/// As `part::all`.
fn all(out: &Path) -> Result<Vec<(PathBuf, Part)>> {
    part::all(out, "s4l-shard", staging::is_one)
}

/// Whether all parts of `out` exist.
pub fn are_there(out: &Path) -> bool {
    all(out).is_ok()
}

/// Joins all parts of `out` and returns their paths. Files are linked, not copied, if the file system can.
///
/// Errors: as `part::all`, and `BadData` if the parts are not of one run.
pub fn merge(out: &Path) -> Result<(Staging, Vec<PathBuf>)> {
    let parts = all(out)?;
    let first = &parts[0].0;
    let identity = staging::identity(first)?;
    for (folder, part) in &parts {
        if staging::identity(folder)? != (Identity { part: *part, ..identity.clone() }) {
            return Err(part::another(folder, first));
        }
    }
    let whole = Identity { part: Part::WHOLE, ..identity };
    let merged = Staging::open(&staging::partial(out), whole)?;
    parts.iter().try_for_each(|(folder, _)| merged.link(folder))?;
    Ok((merged, parts.into_iter().map(|(folder, _)| folder).collect()))
}
