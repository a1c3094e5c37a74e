//! The bytes of a file, plain or decompressed: gzip and zstd are recognized by the first bytes, not
//! by the name.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Error as IoError, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The most bytes that a file may expand to: this many times its size, plus an allowance. A file that
/// exceeds it was made to fill a disk.
const MOST_TIMES: u64 = 1000;
const FREE_BYTES: u64 = 64 << 20;

/// How a whole file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// Errors: `Io` if the file cannot be read.
    pub fn of(path: &Path) -> Result<Option<Compression>> {
        let mut start = Vec::new();
        let file = File::open(path).map_err(Error::io(path))?;
        file.take(4).read_to_end(&mut start).map_err(Error::io(path))?;
        Ok(match start[..] {
            [0x1f, 0x8b, 8, _] => Some(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd] => Some(Compression::Zstd),
            _ => None,
        })
    }

    /// The command that unpacks such a file.
    pub fn unpacked_by(self) -> &'static str {
        match self {
            Compression::Gzip => "gunzip",
            Compression::Zstd => "unzstd",
        }
    }
}

/// How many bytes `stored` ones may hold.
pub fn most_bytes(stored: u64) -> u64 {
    stored.saturating_mul(MOST_TIMES).saturating_add(FREE_BYTES)
}

/// A file from its start. What a decompressor says of a damaged file is an error without an OS code.
///
/// Errors: `Io` if the file cannot be opened.
pub fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let compression = Compression::of(path)?;
    let file = File::open(path).map_err(Error::io(path))?;
    let stored = file.metadata().map_err(Error::io(path))?.len();
    let file = BufReader::with_capacity(1 << 20, file);
    let bounded = |inner: Box<dyn Read + Send>| Bounded { inner, left: most_bytes(stored) };
    Ok(match compression {
        None => Box::new(file),
        Some(Compression::Gzip) => {
            let decoder = Box::new(flate2::bufread::MultiGzDecoder::new(file));
            Box::new(BufReader::new(bounded(decoder)))
        }
        Some(Compression::Zstd) => {
            let decoder = zstd::Decoder::with_buffer(file).map_err(Error::io(path))?;
            Box::new(BufReader::new(bounded(Box::new(decoder))))
        }
    })
}

/// A decompressor that ends with an error if its output exceeds any file of images.
struct Bounded {
    inner: Box<dyn Read + Send>,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => {
                let found = format!("more than {MOST_TIMES} times its bytes");
                return Err(IoError::new(ErrorKind::InvalidData, found));
            }
        }
        Ok(read)
    }
}

/// A part of a file as a file of its own.
#[derive(Debug, Clone)]
pub struct Section {
    file: Arc<File>,
    start: u64,
    at: u64,
    size: u64,
}

impl Section {
    /// From `start` to `end`, or to the end of the file if that is before.
    pub fn open(path: &Path, start: u64, end: u64) -> Result<Section> {
        let file = File::open(path).map_err(Error::io(path))?;
        let size = file.metadata().map_err(Error::io(path))?.len();
        let start = start.min(size);
        let file = Arc::new(file);
        Ok(Section { file, start, at: 0, size: end.min(size).saturating_sub(start) })
    }

    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.size.saturating_sub(self.at).min(buffer.len() as u64) as usize;
        // As in a file, there may be places beyond the end, with nothing to read.
        if left == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..left], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// A buffer for as many bytes as a file claims, capped so that a false claim takes no memory.
pub fn room_for(size: u64) -> Vec<u8> {
    Vec::with_capacity(size.min(1 << 20) as usize)
}
