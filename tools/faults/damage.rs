//! Files with a changed bit, or cut short.

use std::fs::OpenOptions;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Changes bit `bit` of byte `at`.
pub fn flip(path: &Path, at: u64, bit: u8) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1 << bit], at)
}

/// Cuts a file to its first `at` bytes.
pub fn cut(path: &Path, at: u64) -> Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if at >= file.metadata()?.len() {
        return Err(Error::other(format!("{}: ends before byte {at}", path.display())));
    }
    file.set_len(at)
}
