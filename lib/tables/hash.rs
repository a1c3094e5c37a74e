//! The hash of the whole file in the footer of each of our tables. For the hash, its own digits count as
//! zeros. Any changed byte is an error when the file is read.

use crate::schema::{self, FORMAT_KEY, HASH_KEY, NO_HASH};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The format of tables.
pub const FORMAT: &str = "1";

/// The last bytes of a parquet file: the length of its footer, and the magic.
const TAIL: usize = 8;

/// A writer that hashes what is written to a file.
pub struct Hashing<'a> {
    file: &'a mut File,
    hasher: blake3::Hasher,
}

impl Hashing<'_> {
    pub fn new(file: &mut File) -> Hashing<'_> {
        Hashing { file, hasher: blake3::Hasher::new() }
    }

    /// Writes the hash to its place, after everything else.
    pub fn seal(self) -> std::io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut tail = [0; TAIL];
        self.file.read_exact_at(&mut tail, length.saturating_sub(TAIL as u64))?;
        let start = length.saturating_sub(footer_length(&tail));
        let mut footer = vec![0; (length - start) as usize];
        self.file.read_exact_at(&mut footer, start)?;
        let digits = digits(&footer, NO_HASH).ok_or(std::io::ErrorKind::InvalidData)?;
        let hash = schema::short_hash(&self.hasher.finalize());
        self.file.write_all_at(hash.as_bytes(), start + digits.start as u64)
    }
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Errors with what is wrong with a file whose footer has these pairs. A file of another program, or from
/// before hashes existed, has neither of the two keys and passes. The keys are searched as bytes: a changed
/// byte may hide all pairs from a parser.
pub fn check(bytes: &[u8], pairs: &HashMap<String, String>) -> Result<(), String> {
    let start = bytes.last_chunk::<TAIL>().map_or(0, footer_length);
    let start = bytes.len().saturating_sub(start as usize);
    let footer = &bytes[start..];
    let has = |key: &str| footer.windows(key.len()).any(|window| window == key.as_bytes());
    if !has(FORMAT_KEY) && !has(HASH_KEY) {
        return Ok(());
    }
    if let Some(format) = pairs.get(FORMAT_KEY)
        && format != FORMAT
    {
        return Err(format!("format {format}, where {FORMAT} is known"));
    }
    let hash = pairs.get(HASH_KEY).ok_or(format!("no {HASH_KEY}"))?;
    let place = digits(footer, hash).ok_or(format!("no place of {HASH_KEY}"))?;
    let found = schema::hash_around(bytes, &(start + place.start..start + place.end));
    match found == *hash {
        true => Ok(()),
        false => Err(format!("changed bytes ({HASH_KEY} is {hash}, theirs {found})")),
    }
}

/// Bytes of the footer and of its length.
fn footer_length(&[a, b, c, d, ..]: &[u8; TAIL]) -> u64 {
    u64::from(u32::from_le_bytes([a, b, c, d])) + TAIL as u64
}

/// The place of the hash's digits in a footer. In thrift's compact protocol the value comes after the key,
/// as the next field of the struct: a text and its length.
fn digits(footer: &[u8], hash: &str) -> Option<Range<usize>> {
    const NEXT_FIELD_TEXT: u8 = 0x18;
    let head = [HASH_KEY.as_bytes(), &[NEXT_FIELD_TEXT, NO_HASH.len() as u8]].concat();
    let pair = [&head, hash.as_bytes()].concat();
    let at = footer.windows(pair.len()).position(|window| window == pair)?;
    Some(at + head.len()..at + pair.len())
}
