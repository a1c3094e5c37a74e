//! The stock parquet reader, on files that nobody vouches for. It panics on some damaged files, and
//! makes room for, or walks through, whatever others claim. Here both are errors as any other.

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::page_index::index_reader::decode_offset_index;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use std::cell::Cell;
use std::fmt::Display;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// Runs calls into the reader; whatever a panic leaves behind in them must not be used again.
///
/// Errors: what is wrong with the file, one line.
pub fn contained<T, E: Display>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
    // Nothing is said of a panic that becomes an error.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                others(info);
            }
        }));
    });
    INSIDE.set(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    INSIDE.set(false);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(e.to_string().replace('\n', " ")),
        Err(_) => Err("bytes that the parquet reader stumbles over".to_string()),
    }
}

pub type Builder<R> = ParquetRecordBatchReaderBuilder<Pages<R>>;

/// Errors: as `contained`.
pub fn open<R: ChunkReader + 'static>(
    file: R,
    options: ArrowReaderOptions,
) -> Result<Builder<R>, String> {
    check_footer(&file).map_err(|e| e.to_string())?;
    let metadata = contained(|| ArrowReaderMetadata::load(&file, options))?;
    Ok(Builder::new_with_metadata(Pages(file), metadata))
}

/// Errors: as `contained`, after which there is nothing more to read.
pub fn batches<R: ChunkReader + 'static>(
    builder: Builder<R>,
) -> Result<impl Iterator<Item = Result<RecordBatch, String>>, String> {
    let mut reader = contained(|| builder.build())?;
    Ok(std::iter::from_fn(move || {
        contained(|| reader.next().transpose()).transpose()
    }))
}

/// The pages of a column chunk, by its offset index.
///
/// Errors: as `contained`.
pub fn page_locations(index: &[u8]) -> Result<Vec<PageLocation>, String> {
    check(index).map_err(|e| e.to_string())?;
    let index = contained(|| decode_offset_index(index))?;
    Ok(index.page_locations)
}

/// A file whose page headers are looked at before the reader parses them.
pub struct Pages<R>(R);

impl<R: ChunkReader> Length for Pages<R> {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl<R: ChunkReader> ChunkReader for Pages<R> {
    type T = R::T;

    /// The reader asks for this where a page header begins, and for bytes everywhere else.
    fn get_read(&self, start: u64) -> Result<R::T, ParquetError> {
        let mut header = Walk::default();
        header.fields(&mut self.0.get_read(start)?, 0, MAX_DEPTH)?;
        // The reader makes room for all that is claimed before it looks for the first of it.
        let most = MOST_TIMES.saturating_mul(header.compressed);
        if header.uncompressed > FREE_BYTES.saturating_add(most) {
            return Err(broken("a page of more bytes than it can have"));
        }
        if header.dictionary > MOST_VALUES_A_BYTE.saturating_mul(header.compressed) {
            return Err(broken("a dictionary of more values than bytes for them"));
        }
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// Looks at a footer before the reader parses it. Where there is none, it is the reader's to say so.
fn check_footer(file: &impl ChunkReader) -> Result<(), ParquetError> {
    const TAIL: u64 = 8;
    const MAGIC: &[u8] = b"PAR1";
    let Some(end) = file.len().checked_sub(TAIL) else {
        return Ok(());
    };
    let tail = file.get_bytes(end, TAIL as usize)?;
    if !tail.ends_with(MAGIC) {
        return Ok(());
    }
    let length = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    let Some(start) = end.checked_sub(length.into()) else {
        return Ok(());
    };
    check(&file.get_bytes(start, length as usize)?)
}

/// Finds that a struct has all that it claims.
fn check(bytes: &[u8]) -> Result<(), ParquetError> {
    let mut walk = Walk {
        elements: bytes.len() as u64,
        ..Walk::default()
    };
    walk.fields(&mut &bytes[..], 0, MAX_DEPTH)
}

/// Structs in structs: there are some ten in a footer.
const MAX_DEPTH: usize = 16;

/// In the place of a field's number.
const OF_A_LIST: i16 = -1;

/// Distinct values of a dictionary for each of its bytes in the file. A million numbers in order have
/// 1.6 under zstd 22.
const MOST_VALUES_A_BYTE: i64 = 256;

/// A page is no larger than so many times its bytes in the file beyond so many bytes.
const MOST_TIMES: i64 = 1000;
const FREE_BYTES: i64 = 64 << 20;

/// A walk through a struct of thrift's compact protocol, which finds that all is there which it claims
/// to have.
#[derive(Default)]
struct Walk {
    /// Elements that its lists may have together. Page headers have no lists.
    elements: u64,
    /// Of a page header (parquet.thrift): bytes of the page, and of it in the file; values of a
    /// dictionary.
    uncompressed: i64,
    compressed: i64,
    dictionary: i64,
}

impl Walk {
    /// Reads the fields of a struct that is field number `parent` of another.
    fn fields(
        &mut self,
        bytes: &mut impl Read,
        parent: i16,
        depth: usize,
    ) -> Result<(), ParquetError> {
        let mut number = 0i16;
        loop {
            let head = byte(bytes)?;
            if head == 0 {
                return Ok(());
            }
            number = match i16::from(head >> 4) {
                0 => int(bytes)? as i16,
                more => number.wrapping_add(more),
            };
            if number < 1 {
                return Err(broken("a field without a number"));
            }
            match head & 0xf {
                // A truth value, which is all in its type.
                1 | 2 => {}
                kind => self.value(bytes, kind, (parent, number), depth)?,
            }
        }
    }

    /// `place`: the numbers of the field and of the one that its struct is.
    fn value(
        &mut self,
        bytes: &mut impl Read,
        kind: u8,
        place: (i16, i16),
        depth: usize,
    ) -> Result<(), ParquetError> {
        match kind {
            3 => {
                byte(bytes)?;
            }
            4..=6 => {
                // As the reader, which takes of a number what fits.
                let value = i64::from(int(bytes)? as i32);
                match place {
                    (0, 2) => self.uncompressed = value,
                    (0, 3) => self.compressed = value,
                    (7, 1) => self.dictionary = value,
                    _ => {}
                }
            }
            7 => skip(bytes, 8)?,
            8 => {
                let length = varint(bytes)?;
                skip(bytes, length)?;
            }
            9 | 10 if depth > 1 => {
                let head = byte(bytes)?;
                let size = match head >> 4 {
                    15 => varint(bytes)?,
                    size => size.into(),
                };
                let left = self.elements.checked_sub(size);
                self.elements = left.ok_or_else(|| broken("a list of more than there is"))?;
                // Truth values in a list are none of what is read, and the reader does not agree with
                // the protocol on their size.
                for _ in 0..size {
                    self.value(bytes, head & 0xf, (place.1, OF_A_LIST), depth - 1)?;
                }
            }
            12 if depth > 1 => self.fields(bytes, place.1, depth - 1)?,
            other => return Err(broken(&format!("a field of type {other}"))),
        }
        Ok(())
    }
}

fn skip(bytes: &mut impl Read, length: u64) -> Result<(), ParquetError> {
    let found = std::io::copy(&mut bytes.take(length), &mut std::io::sink())?;
    match found < length {
        true => Err(broken("a text beyond the end")),
        false => Ok(()),
    }
}

fn broken(found: &str) -> ParquetError {
    ParquetError::General(format!("{found} in a header"))
}

/// A number in zigzag: 0, -1, 1, -2 and on.
fn int(bytes: &mut impl Read) -> std::io::Result<i64> {
    let value = varint(bytes)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn byte(bytes: &mut impl Read) -> std::io::Result<u8> {
    let mut byte = [0];
    bytes.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn varint(bytes: &mut impl Read) -> std::io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(std::io::ErrorKind::InvalidData.into())
}
