//! Joining the parts of a run, each a folder `<out>.part-I-of-N` beside the shards that they become.

use super::identity::Identity;
use super::staging::{self, Staging};
use crate::error::Result;
use crate::part::{self, Part};
use std::collections::HashMap;
use std::path::Path;

/// Lineage of the parts of `out`, as `staging::lineage`.
pub fn lineage(out: &Path) -> Option<HashMap<String, String>> {
    let found = part::found(out, staging::is_one).ok()?;
    staging::lineage(&found.first()?.0)
}

/// Joins all parts of `out`, whose files are linked, not copied, if the file system can.
///
/// Errors: as `part::all`, and `BadData` if they are not parts of one run.
pub fn merge(out: &Path) -> Result<Staging> {
    let parts = part::all(out, "s4l-shard", staging::is_one)?;
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
    Ok(merged)
}
