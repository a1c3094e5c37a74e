//! Outputs: committed atomically, with the lineage inside the file and time and host in a file beside it.

use crate::cli::{self, Output};
use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::network::device;
use crate::schema;
use crate::usage::Usage;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
/// Errors with `Exists` if it exists, differs, and neither `--force` nor `--update` is given. Removes
/// what killed runs left behind.
pub fn target(
    output: &Output,
    path: &Path,
    lineage: &Lineage,
    found: Option<HashMap<String, String>>,
) -> Result<Target> {
    remove_left_over(path);
    if output.force {
        return Ok(Target::Write);
    }
    let is_there = exists(path)?;
    let why = match found.map(|found| lineage.difference(&found)) {
        Some(differ) if differ.is_empty() => {
            cli::up_to_date(path);
            return Ok(Target::UpToDate);
        }
        Some(differ) => format!("anew: other {}", differ.join(", ")),
        None if is_there => "anew: what is there is damaged".to_string(),
        None => "now".to_string(),
    };
    if !output.update && is_there {
        return Err(Error::Exists { path: path.to_path_buf() });
    }
    if output.update {
        cli::info(&format!("{}: making it {why}", path.display()));
    }
    Ok(Target::Write)
}

/// What exists at a path, if something does. An error is not taken for absence: shared storage can fail to
/// report files that exist.
pub fn look(path: &Path) -> Result<Option<std::fs::Metadata>> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    match path.metadata() {
        Err(e) if matches!(e.kind(), NotFound | NotADirectory) => Ok(None),
        found => found.map(Some).map_err(Error::io(path)),
    }
}

/// Whether something exists, as `look`.
pub fn exists(path: &Path) -> Result<bool> {
    Ok(look(path)?.is_some())
}

/// Whether a regular file is there, as `look`.
pub fn is_file(path: &Path) -> Result<bool> {
    Ok(look(path)?.is_some_and(|found| found.is_file()))
}

/// Whether a folder is there, as `look`.
pub fn is_folder(path: &Path) -> Result<bool> {
    Ok(look(path)?.is_some_and(|found| found.is_dir()))
}

/// Writes a file under a temporary name in the same folder, syncs it and renames it, so a file at `path`
/// is always complete. Creates missing parent folders.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> Result<()>,
) -> Result<()> {
    let folder = parent(path);
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let make = |name: &tempfile::Builder| name.tempfile_in(folder);
    let mut file = temporary(path, 0o666, make).map_err(Error::io(folder))?;
    hold(file.as_file());
    write(file.as_file_mut())?;
    file.as_file().sync_all().map_err(Error::io(path))?;
    file.persist(path).map_err(|e| Error::io(path)(e.error))?;
    sync_folder(folder)
}

/// `write_atomic` for bytes in memory.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |f| std::io::Write::write_all(f, bytes).map_err(Error::io(path)))
}

/// A folder under a temporary name. Dropping it removes it.
pub struct TemporaryFolder {
    folder: tempfile::TempDir,
    /// Held while the folder is in use.
    _lock: std::fs::File,
}

impl TemporaryFolder {
    /// Makes one beside `out`.
    pub fn beside(out: &Path) -> Result<TemporaryFolder> {
        let parent = parent(out);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let make = |name: &tempfile::Builder| name.tempdir_in(parent);
        let folder = temporary(out, 0o777, make).map_err(Error::io(parent))?;
        let lock = std::fs::File::open(folder.path()).map_err(Error::io(folder.path()))?;
        hold(&lock);
        Ok(TemporaryFolder { folder, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Renames it to `out`, as `commit_folder`.
    pub fn commit(self, out: &Path) -> Result<()> {
        commit_folder(self.path(), out)
    }
}

/// Makes a temporary file or folder for `path`, with the permissions of `mode` and the umask.
fn temporary<T>(
    path: &Path,
    mode: u32,
    make: impl FnOnce(&tempfile::Builder) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let mut prefix = temporary_prefix(path);
    prefix.push("-");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(schema::TEMPORARY.1);
    make(builder.permissions(PermissionsExt::from_mode(mode)))
}

/// The prefix of temporary names for `path` and for the files beside it that share its name.
fn temporary_prefix(path: &Path) -> OsString {
    // Names have at most 255 bytes.
    const MOST: usize = 200;
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut prefix = OsString::from(schema::TEMPORARY.0);
    prefix.push(OsStr::from_bytes(&name[..name.len().min(MOST)]));
    prefix
}

/// Marks a temporary file as in use until it is closed or its process ends. If the file system has no
/// locks, use cannot be detected, and `remove_left_over` leaves the file alone.
fn hold(file: &std::fs::File) {
    let _ = file.try_lock();
}

/// Removes the temporary files that killed runs left beside `out` and in it. Those that cannot be removed
/// do no harm.
pub fn remove_left_over(out: &Path) {
    let inside = OsString::from(schema::TEMPORARY.0);
    for (folder, prefix) in [(parent(out), temporary_prefix(out)), (out, inside)] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_bytes();
            let temporary = name.starts_with(prefix.as_bytes())
                && name.ends_with(schema::TEMPORARY.1.as_bytes());
            if temporary && let Ok(kind) = entry.file_type() {
                let _ = remove_dead(&entry.path(), kind.is_dir());
            }
        }
    }
}

/// Removes a file or a folder that no process holds.
fn remove_dead(path: &Path, folder: bool) -> std::io::Result<()> {
    std::fs::File::open(path)?.try_lock()?;
    match folder {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    }
}

/// `put_folder`, and removes what was there.
pub fn commit_folder(folder: &Path, out: &Path) -> Result<()> {
    put_folder(folder, out)?;
    // The new folder is in place, so remains of the old one do no harm.
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            cli::warn(&format!("{}: the old output is still there: {e}", folder.display()));
        }
        _ => {}
    }
    Ok(())
}

/// Removes a folder: at every moment its name has the whole folder or nothing.
pub fn remove_folder(folder: &Path) -> Result<()> {
    let gone = TemporaryFolder::beside(folder)?;
    std::fs::rename(folder, gone.path()).map_err(Error::io(folder))
}

/// Renames a folder beside `out`, whose files are synced, to `out`. The old folder then has the
/// name of the new one: at every moment `out` is the old folder or the new one. (If a file system cannot
/// exchange two folders, the old one is removed first, and for a moment there is none.)
pub fn put_folder(folder: &Path, out: &Path) -> Result<()> {
    sync_folder(folder)?;
    if !exists(out)? {
        std::fs::rename(folder, out).map_err(Error::io(out))?;
    } else if exchange(folder, out).is_err() {
        let old = TemporaryFolder::beside(out)?;
        std::fs::rename(out, old.path()).map_err(Error::io(out))?;
        if let Err(e) = std::fs::rename(folder, out) {
            // The old folder must not be removed, even if it cannot be renamed back.
            let _ = std::fs::rename(old.folder.keep(), out);
            return Err(Error::io(out)(e));
        }
    }
    sync_folder(parent(out))
}

#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Syncs the names in a folder. Some file systems neither support this nor need it.
fn sync_folder(path: &Path) -> Result<()> {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    match std::fs::File::open(path).and_then(|folder| folder.sync_all()) {
        Err(e) if !matches!(e.kind(), InvalidInput | Unsupported) => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// The path beside `path` with an ending added to its name.
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

/// Refuses an output that is one of the existing inputs, lies in it, or contains it.
pub fn refuse_inputs<'a>(
    out: &Path,
    inputs: impl IntoIterator<Item = Option<&'a Path>>,
) -> Result<()> {
    for input in inputs.into_iter().flatten() {
        if exists(input)? {
            refuse_overlap(input, out)?;
        }
    }
    Ok(())
}

/// The canonical form of a path whose last parts may not exist yet.
pub fn real_path(path: &Path) -> Result<PathBuf> {
    match (path.canonicalize(), path.file_name()) {
        (Err(e), Some(name)) if e.kind() == std::io::ErrorKind::NotFound => {
            Ok(real_path(parent(path))?.join(name))
        }
        (result, _) => result.map_err(Error::io(path)),
    }
}

/// The name of this machine.
pub fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_string()
}

/// Writes `<out>.prov.json`: what varies between runs that give the same bytes (command line and
/// directory, time, host, seconds, memory, threads, instructions, the job of Slurm). The output is there
/// already: if this fails, a warning says so.
pub fn write_provenance(out: &Path, start: Instant) {
    write_provenance_of_runs(out, Usage::since(start));
}

/// `write_provenance` for an output that took several runs.
pub fn write_provenance_of_runs(out: &Path, used: Usage) {
    write_record(out, provenance(used));
}

/// `write_provenance` for an output joined from parts, with the provenance of each part.
pub fn write_provenance_of_parts(out: &Path, start: Instant, parts: &[PathBuf]) {
    let mut record = provenance(Usage::since(start));
    record[schema::PARTS] = parts.iter().map(|part| provenance_of(part)).collect();
    write_record(out, record);
}

/// The instruction sets that outputs were computed with, as far as their provenance files say.
pub fn instructions<'a>(outputs: impl IntoIterator<Item = &'a PathBuf>) -> BTreeSet<String> {
    let of = |out: &PathBuf| Some(provenance_of(out)?[schema::INSTRUCTIONS].as_str()?.to_string());
    outputs.into_iter().filter_map(of).collect()
}

/// What `<out>.prov.json` says, if it is there and whole.
pub fn provenance_of(out: &Path) -> Option<serde_json::Value> {
    let bytes = std::fs::read(beside(out, schema::PROVENANCE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn write_record(out: &Path, record: serde_json::Value) {
    cli::made();
    let written = write_bytes(&beside(out, schema::PROVENANCE), format!("{record:#}\n").as_bytes());
    if let Err(e) = written {
        cli::warn(&e.to_string());
    }
}

/// What `<out>.prov.json` says of this run.
fn provenance(used: Usage) -> serde_json::Value {
    let command: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let directory = std::env::current_dir().ok();
    let slurm = |name: &str| std::env::var(name).ok();
    serde_json::json!({
        schema::COMMAND: command,
        schema::DIRECTORY: directory.map(|path| path.to_string_lossy().into_owned()),
        schema::COMMIT: option_env!("S4L_COMMIT"),
        "finished_unix": SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        schema::HOST: host(),
        schema::INSTRUCTIONS: device::instructions(),
        "engines": device::engines(),
        "job": slurm("SLURM_JOB_ID"),
        "nodes": slurm("SLURM_JOB_NODELIST"),
        "restarts": slurm("SLURM_RESTART_COUNT"),
        schema::SECONDS: used.seconds,
        schema::CPU_SECONDS: used.cpu_seconds,
        schema::PEAK_MEMORY: used.peak_memory_mb,
        schema::THREADS: rayon::current_num_threads(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}
