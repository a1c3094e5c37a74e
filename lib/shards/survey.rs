//! `<out>.survey`: what all parts of a run need from the input, its hash and its survey. The part that
//! starts first writes it while the others wait, and the merge removes it. So an input is read once, for
//! any number of parts.

use crate::artifact::{self, beside};
use crate::error::{Error, Result};
use crate::input::survey::Survey;
use crate::lock::Lock;
use crate::schema;
use std::io::ErrorKind;
use std::path::Path;

/// How the file begins; the hash of what follows the first line is behind it.
const START: &str = "s4l-shard survey ";

/// The hash and the survey of the input whose shards `out` will be. `of`: what they depend on.
///
/// Errors: `NotOurs` if there is something else, and those of `make`.
pub fn shared(
    out: &Path,
    of: &str,
    make: impl FnOnce() -> Result<(String, Survey)>,
) -> Result<(String, Survey)> {
    let path = beside(out, schema::SURVEY);
    let _lock = Lock::of(&path, true)?;
    artifact::remove_left_over(&path);
    if let Some((found, hash, survey)) = read(&path)?
        && found == of
    {
        return Ok((hash, survey));
    }
    let (hash, survey) = make()?;
    let json = serde_json::to_string(&(of, &hash, &survey));
    let json = json.map_err(|e| Error::Internal(e.to_string()))?;
    let text = format!("{START}{}\n{json}", blake3::hash(json.as_bytes()).to_hex());
    artifact::write_bytes(&path, text.as_bytes())?;
    Ok((hash, survey))
}

/// Removes the file of `out`, as far as it is one and can be.
pub fn remove(out: &Path) {
    let path = beside(out, schema::SURVEY);
    if matches!(read(&path), Ok(Some(_))) {
        let _ = std::fs::remove_file(path);
    }
}

/// What it depends on, hash and survey; `None` if there is no file, or a damaged one.
fn read(path: &Path) -> Result<Option<(String, String, Survey)>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::io(path))?,
    };
    let not_ours = || Error::NotOurs {
        path: path.to_path_buf(),
        what: "what s4l-shard --part keeps for the other parts".to_string(),
    };
    let (hash, json) =
        text.strip_prefix(START).and_then(|rest| rest.split_once('\n')).ok_or_else(not_ours)?;
    let whole = blake3::hash(json.as_bytes()).to_hex().as_str() == hash;
    Ok(if whole { serde_json::from_str(json).ok() } else { None })
}
