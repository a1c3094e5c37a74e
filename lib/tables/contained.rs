//! The stock parquet reader for files that may be damaged. For some damaged files the reader panics; for
//! others it allocates, or walks through, whatever the file claims. Here both are ordinary errors.

use crate::tables::thrift;
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
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// Runs calls into the reader. After a panic, the state of these calls must not be used again.
///
/// Errors: one line on what is wrong with the file.
pub fn contained<T, E: Display>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
    // A panic that becomes an error prints nothing.
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
        Err(_) => Err("bytes that the parquet reader cannot read".to_string()),
    }
}

/// A builder of a reader that checks page headers before parsing them.
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

/// Errors: as `contained`; after an error there is nothing more to read.
pub fn batches<R: ChunkReader + 'static>(
    builder: Builder<R>,
) -> Result<impl Iterator<Item = Result<RecordBatch, String>>, String> {
    let mut reader = contained(|| builder.build())?;
    Ok(std::iter::from_fn(move || {
        let batch = contained(|| reader.next().transpose()).transpose()?;
        // If no column is read, there would be as many rows as a footer claims.
        let nothing = batch.as_ref().is_ok_and(|b| b.num_columns() == 0);
        (!nothing).then_some(batch)
    }))
}

/// The pages of a column chunk, by its offset index.
///
/// Errors: as `contained`.
pub fn page_locations(index: &[u8]) -> Result<Vec<PageLocation>, String> {
    thrift::offset_index(index).map_err(|e| e.to_string())?;
    let index = contained(|| decode_offset_index(index))?;
    Ok(index.page_locations)
}

/// A file whose page headers are checked before the reader parses them.
pub struct Pages<R>(R);

impl<R: ChunkReader> Length for Pages<R> {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl<R: ChunkReader> ChunkReader for Pages<R> {
    type T = PageHeader<R::T>;

    /// The reader calls this for page headers. It also calls this for the bytes after a header that it has
    /// already parsed, but then reads nothing.
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let rest = self.0.get_read(start)?;
        Ok(PageHeader { seen: None, rest })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// A page header and the bytes that follow.
pub struct PageHeader<R> {
    /// The header, once checked.
    seen: Option<Cursor<Vec<u8>>>,
    rest: R,
}

impl<R: Read> PageHeader<R> {
    fn look(&mut self) -> std::io::Result<Cursor<Vec<u8>>> {
        let mut seen = Vec::new();
        let rest = (&mut self.rest).take(MOST_HEADER);
        let page =
            thrift::page_header(&mut Kept(rest, &mut seen)).map_err(std::io::Error::other)?;
        // The reader allocates what the header claims before it reads the first byte.
        let most = MOST_TIMES.saturating_mul(page.compressed);
        if page.uncompressed > FREE_BYTES.saturating_add(most) {
            let found = "a page with more bytes than it can have";
            return Err(std::io::Error::other(found));
        }
        if page.dictionary > MOST_VALUES_A_BYTE.saturating_mul(page.compressed) {
            let found = "a dictionary with more values than its bytes can hold";
            return Err(std::io::Error::other(found));
        }
        Ok(Cursor::new(seen))
    }
}

impl<R: Read> Read for PageHeader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let seen = match &mut self.seen {
            Some(seen) => seen,
            None => {
                let seen = self.look()?;
                self.seen.insert(seen)
            }
        };
        match seen.read(buffer)? {
            0 => self.rest.read(buffer),
            some => Ok(some),
        }
    }
}

/// Keeps the bytes that are read.
struct Kept<'a, R>(R, &'a mut Vec<u8>);

impl<R: Read> Read for Kept<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// Checks a footer before the reader parses it. If there is no footer, the reader reports it.
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
    thrift::footer(&file.get_bytes(start, length as usize)?)
}

/// Most bytes of a page header: its statistics may have values as large as those of the column.
const MOST_HEADER: u64 = 64 << 20;

/// Most distinct values of a dictionary per byte in the file. A million numbers in order have 1.6 under
/// zstd 22.
const MOST_VALUES_A_BYTE: i64 = 256;

/// A page has at most this many times its bytes in the file, plus this many bytes.
const MOST_TIMES: i64 = 1000;
const FREE_BYTES: i64 = 64 << 20;
