//! The one error type of the library: every variant names what was expected, what was found and
//! what to do, prints as one line, and maps to one exit code.

use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command line that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A verification found a difference.
    #[error("{}: {what}", path.display())]
    Check { path: PathBuf, what: String },
    /// Input that exists and is not valid.
    #[error("{}: expected {expected}, found {found}; {hint}", path.display())]
    BadData { path: PathBuf, expected: String, found: String, hint: String },
    /// Missing input.
    #[error("{}: {what} not found; {hint}", path.display())]
    Missing { path: PathBuf, what: String, hint: String },
    /// An existing output that was not made from the same inputs.
    #[error("{}: output exists and was made from other inputs or settings; pass --force to replace it", path.display())]
    Exists { path: PathBuf },
    /// An existing model that was trained with another schedule.
    #[error("{}: output exists and was trained by another schedule; to train it on, start from its weights with --init {} and name another --out, or pass --force to replace it", path.display(), model.display())]
    Trained { path: PathBuf, model: PathBuf },
    /// An existing output of another kind, which is never replaced.
    #[error("{}: exists and is not {what}; name another --out", path.display())]
    NotOurs { path: PathBuf, what: String },
    /// Another run has the output's lock; `holder` says which.
    #[error("{}: another run is making it ({holder}); wait for its end, then run the same command again", path.display())]
    Busy { path: PathBuf, holder: String },
    /// A stage without checkpoints was told to stop.
    #[error("{}: stopped before it was complete, nothing was written; run the same command again", path.display())]
    Interrupted { path: PathBuf },
    /// A stage was told to stop; its finished files or images are kept.
    #[error("{}: stopped with {done} of {total} {what}; run the same command again to go on", path.display())]
    Paused { path: PathBuf, done: usize, total: usize, what: &'static str },
    /// A stage that prints as it goes was told to stop.
    #[error("{}: stopped before it, after {done} images; run the same command again", path.display())]
    Unfinished { path: PathBuf, done: usize },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A training stage ended early; its checkpoint is on disk.
    #[error("{}: stopped at step {step} of {total} with a checkpoint; run the same command again to go on", path.display())]
    Stopped { path: PathBuf, step: u64, total: u64 },
    /// A loss or weight became infinite or NaN.
    #[error("{}: {what} at step {step} (images: {keys}); {checkpoint}; lower the learning rate", path.display())]
    Diverged { path: PathBuf, what: String, step: u64, keys: String, checkpoint: String },
    /// A recipe that does not parse, has an unknown key or an impossible value.
    #[error("{recipe}: {what}; {hint}")]
    Recipe { recipe: String, what: String, hint: String },
    /// Too little memory; `preparing` before the first step of training.
    #[error("{what}; {hint}")]
    Memory { what: String, hint: String, preparing: bool },
    /// A GPU, or a library that works on it, failed in the middle.
    #[error("the GPU failed: {what}; {hint}")]
    Device { what: String, hint: String },
    /// Another rank of this training ended with this exit code; it says why.
    #[error("rank {rank} ended with exit code {code}, so this one ends too")]
    Rank { rank: usize, code: u8 },
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl Error {
    /// The process exit code, as documented in docs/RUNNING.md.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::Check { .. } | Error::Diverged { .. } => 3,
            Error::BadData { .. } => 65,
            Error::Missing { .. } => 66,
            Error::Exists { .. } | Error::Trained { .. } | Error::NotOurs { .. } => 73,
            Error::Io { .. } => 74,
            Error::Busy { .. }
            | Error::Stopped { .. }
            | Error::Interrupted { .. }
            | Error::Unfinished { .. }
            | Error::Paused { .. } => 75,
            Error::Device { .. } | Error::Memory { preparing: false, .. } => 74,
            Error::Recipe { .. } | Error::Memory { preparing: true, .. } => 78,
            Error::Rank { code, .. } => *code,
            Error::Internal(_) => 1,
        }
    }

    /// For `map_err`: an I/O error with its file.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }

    /// The value that was read, or `None` if it is absent or invalid. An I/O error stays an error, because
    /// the file may well exist.
    pub fn unless_unreadable<T>(read: Result<T>) -> Result<Option<T>> {
        use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
        let other = |kind| matches!(kind, NotFound | NotADirectory | IsADirectory);
        match read {
            Err(Error::Io { path, source }) if !other(source.kind()) => {
                Err(Error::Io { path, source })
            }
            read => Ok(read.ok()),
        }
    }

    /// The error for a folder that was replaced while its files were opened one by one.
    pub fn replaced(path: &Path) -> Error {
        let what = "another was put in its place while it was opened; run the same command again";
        Error::io(path)(std::io::Error::other(what))
    }

    pub fn bad_data(
        path: &Path,
        expected: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        Error::BadData {
            path: path.to_path_buf(),
            expected: expected.into(),
            found: found.into(),
            hint: hint.into(),
        }
    }

    pub fn missing(path: &Path, what: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Missing { path: path.to_path_buf(), what: what.into(), hint: hint.into() }
    }
}

impl From<candle_core::Error> for Error {
    fn from(e: candle_core::Error) -> Error {
        Error::Internal(e.to_string())
    }
}
