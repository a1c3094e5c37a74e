//! Outputs: committed atomically, with lineage inside and time and host beside.

use crate::cli::{self, Output};
use crate::error::{Error, Result};
use crate::{recipe, schema};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The seed in the lineage of a stage that draws nothing.
pub const UNSEEDED: u64 = 0;

/// What an output was made from. Written into every parquet footer and safetensors header, so the
/// same inputs give the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    pub tool: &'static str,
    pub seed: u64,
    /// `recipe::hash` of the settings in force.
    pub recipe: String,
    /// Name of the input → hash of its content.
    pub inputs: BTreeMap<String, String>,
}

impl Lineage {
    pub fn new(tool: &'static str, seed: u64, recipe: String) -> Lineage {
        Lineage { tool, seed, recipe, inputs: BTreeMap::new() }
    }

    /// Of a stage without settings that draws nothing.
    pub fn without_settings(tool: &'static str) -> Lineage {
        Lineage::new(tool, UNSEEDED, recipe::hash(&serde_json::json!({})))
    }

    /// Adds an input by the hash of its content.
    pub fn input(mut self, name: &str, hash: impl Into<String>) -> Lineage {
        self.inputs.insert(name.to_string(), hash.into());
        self
    }

    /// The key-value pairs of a footer or header.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::from([
            (schema::TOOL_KEY.to_string(), self.tool.to_string()),
            (schema::VERSION_KEY.to_string(), env!("CARGO_PKG_VERSION").to_string()),
            (schema::RECIPE_KEY.to_string(), self.recipe.clone()),
            (schema::SEED_KEY.to_string(), self.seed.to_string()),
        ]);
        for (name, hash) in &self.inputs {
            map.insert(format!("{}{name}", schema::INPUT_PREFIX), hash.clone());
        }
        map
    }

    /// The lineage that `metadata` was made of.
    pub fn of_metadata(tool: &'static str, metadata: &BTreeMap<String, String>) -> Lineage {
        let value = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        let inputs = metadata.iter().filter_map(|(key, hash)| {
            Some((key.strip_prefix(schema::INPUT_PREFIX)?.to_string(), hash.clone()))
        });
        Lineage {
            tool,
            seed: value(schema::SEED_KEY).parse().unwrap_or_default(),
            recipe: value(schema::RECIPE_KEY),
            inputs: inputs.collect(),
        }
    }

    /// Whether a footer or header names exactly this lineage.
    pub fn matches(&self, found: &HashMap<String, String>) -> bool {
        let wanted = self.metadata();
        wanted.iter().all(|(k, v)| found.get(k) == Some(v))
            && found
                .keys()
                .filter(|k| k.starts_with(schema::INPUT_PREFIX))
                .all(|k| wanted.contains_key(k))
    }
}

/// The `short_hash` of a file.
pub fn hash_file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    hasher.update_reader(file).map_err(Error::io(path))?;
    Ok(schema::short_hash(&hasher.finalize()))
}

/// What to do about an output path.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Write,
    UpToDate,
}

/// Decides about an output whose footer or header is `found` (`None`: there is no output).
/// Errors with `Exists` when it is there, differs, and `--force` is absent.
pub fn target(
    output: &Output,
    path: &Path,
    lineage: &Lineage,
    found: Option<HashMap<String, String>>,
) -> Result<Target> {
    match found {
        _ if output.force => Ok(Target::Write),
        None if !path.exists() => Ok(Target::Write),
        Some(found) if lineage.matches(&found) => {
            cli::info(&format!("{}: up to date", path.display()));
            Ok(Target::UpToDate)
        }
        _ => Err(Error::Exists { path: path.to_path_buf() }),
    }
}

/// Writes a file under a temporary name in the same folder, syncs it and renames it: what exists
/// under `path` is complete. Creates missing parent folders.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> Result<()>,
) -> Result<()> {
    let folder = parent(path);
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut file = temporary(0o644).tempfile_in(folder).map_err(Error::io(folder))?;
    write(file.as_file_mut())?;
    file.as_file().sync_all().map_err(Error::io(path))?;
    file.persist(path).map_err(|e| Error::io(path)(e.error)).map(|_| ())
}

/// `write_atomic` for bytes at hand.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |f| std::io::Write::write_all(f, bytes).map_err(Error::io(path)))
}

/// A folder under a temporary name beside `out`. Dropping it removes it.
pub fn temporary_folder(out: &Path) -> Result<tempfile::TempDir> {
    let parent = parent(out);
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    temporary(0o755).tempdir_in(parent).map_err(Error::io(parent))
}

/// Names what is not complete, and opens it to those that `mode` says.
fn temporary(mode: u32) -> tempfile::Builder<'static, 'static> {
    let (prefix, suffix) = schema::TEMPORARY;
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(suffix).permissions(PermissionsExt::from_mode(mode));
    builder
}

/// Renames a folder beside `out`, whose files are synced, to `out`. What was there is moved away first
/// and removed last, so at every moment `out` is the old folder, nothing, or the new one.
pub fn commit_folder(folder: &Path, out: &Path) -> Result<()> {
    let sync =
        |path: &Path| std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(Error::io(path));
    sync(folder)?;
    let old = temporary_folder(out)?;
    let replace = out.exists();
    if replace {
        std::fs::rename(out, old.path()).map_err(Error::io(out))?;
    }
    if let Err(e) = std::fs::rename(folder, out) {
        if replace {
            // Whether or not it can go back, the old folder must not be removed.
            let _ = std::fs::rename(old.keep(), out);
        }
        return Err(Error::io(out)(e));
    }
    sync(parent(out))?;
    old.close().map_err(Error::io(out))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// The path of what lies beside `path` under its name and an ending.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    // Components drop the slash at the end of a folder's name.
    let mut name = path.components().as_path().as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Refuses an output that is an input, lies in it, or contains it.
pub fn refuse_overlap(input: &Path, out: &Path) -> Result<()> {
    let input = real_path(input)?;
    let real = real_path(out)?;
    if real.starts_with(&input) || input.starts_with(&real) {
        return Err(Error::Usage(format!(
            "{}: the output would overwrite or lie in the input {}; name another --out",
            out.display(),
            input.display()
        )));
    }
    Ok(())
}

/// The canonical form of a path of which the last parts may not exist yet.
fn real_path(path: &Path) -> Result<PathBuf> {
    match (path.canonicalize(), path.file_name()) {
        (Err(e), Some(name)) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(real_path(parent(path))?.join(name))
        }
        (result, _) => result.map_err(Error::io(path)),
    }
}

/// Writes `<out>.prov.json`: what varies between runs that give the same bytes (command line, time,
/// host, duration, threads).
pub fn write_provenance(out: &Path, start: Instant) -> Result<()> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let record = serde_json::json!({
        "command": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        schema::COMMIT: option_env!("S4L_COMMIT"),
        "finished_unix": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        "host": host.trim(),
        "seconds": start.elapsed().as_secs_f64(),
        "threads": rayon::current_num_threads(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    write_bytes(&beside(out, schema::PROVENANCE), format!("{record:#}\n").as_bytes())
}
