//! One run at a time for an output: an operating-system lock on a file beside it. It ends with the
//! process that holds it, on any node; the text in the file is for people only.

use crate::artifact;
use crate::cli;
use crate::error::{Error, Result};
use crate::schema;
use arrow::temporal_conversions::timestamp_s_to_datetime;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time between two checks of a lock that another run has.
const PAUSE: Duration = Duration::from_millis(100);

/// Number of holders that may end, one after the other, while a lock is taken.
const TRIES: usize = 100;

/// Keeps other runs from an output until it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// `None` if the file system has no locks.
    held: Option<File>,
}

impl Lock {
    /// Takes the lock of an output. Warns if the file system has no locks.
    ///
    /// Errors: `Busy` while another run has it; with `wait` only if this one is told to stop before that
    /// ends.
    pub fn of(out: &Path, wait: bool) -> Result<Lock> {
        let mut said = false;
        loop {
            match Lock::now(out) {
                Err(Error::Busy { holder, .. }) if wait && !cli::stop_requested() => {
                    if !std::mem::replace(&mut said, true) {
                        let out = out.display();
                        cli::info(&format!("{out}: waiting for the run that makes it ({holder})"));
                    }
                    std::thread::sleep(PAUSE);
                }
                lock => return lock,
            }
        }
    }

    fn now(out: &Path) -> Result<Lock> {
        // All spellings of an output's path share one lock.
        let path = artifact::beside(&artifact::real_path(out)?, schema::LOCK);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let mut tries = 0;
        let held = loop {
            tries += 1;
            let open =
                File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = match open {
                Err(e) if no_locks(e.kind()) => break Err(e),
                file => file.map_err(Error::io(&path))?,
            };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(busy(out, &path)),
                Err(TryLockError::Error(e)) => break Err(e),
                // A holder that ends removes its file, and a lock on a removed file keeps nobody out. Some
                // file systems give a file another number each time it is opened.
                Ok(()) if is_at(&file, &path) || tries == TRIES => break Ok(file),
                Ok(()) => {}
            }
        };
        if let Err(e) = &held {
            let (path, out) = (path.display(), out.display());
            let words =
                format!("{path}: cannot be locked ({e}); let no other run make {out} meanwhile");
            cli::warn(&words);
        }
        let held = held.ok();
        if let Some(file) = &held {
            // For people only.
            let _ = write_holder(file);
        }
        Ok(Lock { path, held })
    }
}

impl Drop for Lock {
    /// Removes the file, then unlocks it.
    fn drop(&mut self) {
        if self.held.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether an error of opening the lock file is about this file only, so that the output may be written.
fn no_locks(error: ErrorKind) -> bool {
    use ErrorKind::{IsADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(error, IsADirectory | PermissionDenied | ReadOnlyFilesystem)
}

fn busy(out: &Path, lock: &Path) -> Error {
    let holder = std::fs::read_to_string(lock).unwrap_or_default();
    Error::Busy { path: out.to_path_buf(), holder: holder.trim().to_string() }
}

/// Whether the path leads to the open file.
fn is_at(file: &File, path: &Path) -> bool {
    let (open, there) = (file.metadata(), path.metadata());
    open.is_ok_and(|m| there.is_ok_and(|t| (m.dev(), m.ino()) == (t.dev(), t.ino())))
}

fn write_holder(mut file: &File) -> std::io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let since = timestamp_s_to_datetime(now as i64).map_or(String::new(), |t| t.to_string());
    let (host, pid) = (artifact::host(), std::process::id());
    let text = format!("host {host}, pid {pid}, since {since} UTC\n");
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}
