//! One shard file: its image column, mapped and sliced without a copy, and its small columns.

use crate::error::{Error, Result};
use crate::tables::contained;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::basic::{Compression, Encoding, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The images of one file.
#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
    pub rows: usize,
    map: Bytes,
    images: Images,
}

#[derive(Debug)]
enum Images {
    /// Slices of the map. `width`: bytes a row of a fixed-size column, `None` for variable sizes.
    Mapped { pages: Vec<Page>, width: Option<usize> },
    /// Another tool rewrote the file (compressed, dictionary, nullable): its rows decoded into
    /// memory, row `i` at `ends[i - 1]..ends[i]`.
    Memory { bytes: Vec<u8>, ends: Vec<usize> },
}

/// Place of a page in the map and its first row in the file.
#[derive(Debug, Clone, Copy)]
struct Page {
    start: usize,
    end: usize,
    first_row: usize,
}

impl File {
    /// Opens a file whose images are in the leaf column `image`.
    pub fn open(path: &Path, image: &str) -> Result<File> {
        let file = std::fs::File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::missing(
                path,
                "shard file",
                "the folder is incomplete, make it again with s4l-shard --force",
            ),
            _ => Error::io(path)(e),
        })?;
        // SAFETY: shard files are committed by rename and never written in place, so the bytes
        // under the map do not change while it lives.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        let map = Bytes::from_owner(map);
        let builder = builder(path, &map)?;
        let metadata = builder.metadata();
        let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let images = match mapped(path, &map, metadata, image)? {
            Some(images) => images,
            None => in_memory(path, &map, image, rows)?,
        };
        // Large rows are asked for. The system would read their neighbours too, which are the whole file
        // where it reads far ahead.
        if matches!(images, Images::Mapped { width, .. } if width.is_none_or(|w| w >= PREFETCH_BYTES))
        {
            advise(&map, libc::MADV_RANDOM);
        }
        Ok(File { path: path.to_path_buf(), rows, map, images })
    }

    /// The image bytes of a row below `rows`.
    pub fn image(&self, row: usize) -> Result<&[u8]> {
        let slice = match &self.images {
            Images::Mapped { pages, width } => {
                let (page, rows) = self.page(pages, row);
                payload(&self.map[page.start..page.end])
                    .and_then(|p| value(p, row - page.first_row, rows, *width))
            }
            Images::Memory { bytes, ends } => {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                bytes.get(start..ends[row])
            }
        };
        slice.ok_or_else(|| damaged(&self.path, &format!("a broken page at row {row}")))
    }

    /// Asks the system to have a row below `rows` in memory soon, without waiting for it.
    pub fn prefetch(&self, row: usize) {
        if let Some(place) = self.place(row)
            && place.len() >= PREFETCH_BYTES
        {
            advise(&self.map[place], libc::MADV_WILLNEED);
        }
    }

    /// Asks the processor to have a small row below `rows` in its cache soon.
    pub fn touch(&self, row: usize) {
        if let Some(place) = self.place(row)
            && place.len() < PREFETCH_BYTES
        {
            touch(&self.map[place]);
        }
    }

    /// Where a row is in the map; with the head of its page, where sizes vary.
    fn place(&self, row: usize) -> Option<Range<usize>> {
        let Images::Mapped { pages, width } = &self.images else {
            return None;
        };
        let (page, rows) = self.page(pages, row);
        // A page ends with its values.
        Some(match width {
            Some(width) => {
                let after = (page.first_row + rows - 1 - row).saturating_mul(*width);
                let end = page.end.saturating_sub(after).max(page.start);
                end.saturating_sub(*width).max(page.start)..end
            }
            None => page.start..page.end,
        })
    }

    /// The page that a row is on, and the number of rows on it.
    fn page(&self, pages: &[Page], row: usize) -> (Page, usize) {
        // The first page starts at row 0, so at least one is before any row.
        let nth = pages.partition_point(|p| p.first_row <= row) - 1;
        let end = pages.get(nth + 1).map_or(self.rows, |p| p.first_row);
        (pages[nth], end - pages[nth].first_row)
    }

    /// All values of a column of text, none of which is null.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        self.read(name, &DataType::Utf8, |column| {
            texts.extend(column.as_string::<i32>().iter().map(|text| text.map(str::to_string)));
        })?;
        let texts: Option<Vec<String>> = texts.into_iter().collect();
        texts.ok_or_else(|| damaged(&self.path, &format!("a null {name}")))
    }

    /// All values of a column of integers.
    pub fn ints(&self, name: &str) -> Result<Vec<Option<i64>>> {
        let mut values = Vec::new();
        self.read(name, &DataType::Int64, |column| {
            values.extend(column.as_primitive::<arrow::datatypes::Int64Type>().iter());
        })?;
        Ok(values)
    }

    /// Hands a column of a row each, cast to `kind`, to `take`, piece by piece.
    fn read(&self, name: &str, kind: &DataType, mut take: impl FnMut(&ArrayRef)) -> Result<()> {
        let mut rows = 0;
        for batch in batches(&self.path, &self.map, name)? {
            let batch = batch?;
            let column = arrow::compute::cast(batch.column(0), kind)
                .map_err(|e| damaged(&self.path, &format!("column {name:?}: {e}")))?;
            rows += column.len();
            take(&column);
        }
        if rows != self.rows {
            let found = format!("{rows} rows in column {name:?}");
            return Err(damaged(&self.path, &found));
        }
        Ok(())
    }
}

/// Smaller rows come with their neighbours; asking for each would cost more than it brings.
const PREFETCH_BYTES: usize = 4096;

#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Tells the system how a part of the map will be read.
fn advise(part: &[u8], advice: libc::c_int) {
    // SAFETY: the range is inside a map, and no advice of this file changes its contents. Where it
    // fails, the bytes are read when they are used.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let start = part.as_ptr().map_addr(|a| a & !(page - 1));
        let length = part.as_ptr().addr() - start.addr() + part.len();
        libc::madvise(start as *mut libc::c_void, length, advice);
    }
}

/// Starts to load a part of the map, where a processor has an instruction for it.
fn touch(part: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in part.chunks(CACHE_LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint without effect on any value.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = part;
}

fn damaged(path: &Path, found: &str) -> Error {
    Error::bad_data(
        path,
        "a shard file",
        found.replace('\n', " "),
        "make the shards again with s4l-shard --force",
    )
}

fn builder(path: &Path, map: &Bytes) -> Result<contained::Builder<Bytes>> {
    // Types as stored: a file that another tool wrote may carry an Arrow schema of its own.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    contained::open(map.clone(), options).map_err(|e| damaged(path, &e))
}

/// The pages of the image column, or `None` where its rows are not plain bytes in the file.
fn mapped(
    path: &Path,
    map: &Bytes,
    metadata: &ParquetMetaData,
    image: &str,
) -> Result<Option<Images>> {
    let schema = metadata.file_metadata().schema_descr();
    let columns = schema.columns();
    let Some(column) = columns.iter().position(|c| c.path().string() == image) else {
        return Err(damaged(path, &format!("no column {image:?}")));
    };
    let description = &columns[column];
    // A nullable column of pages of several rows has its values at no fixed place; of one, see `value`.
    let nullable = description.max_def_level() > 0;
    if description.max_def_level() > 2 || description.max_rep_level() > 0 {
        return Ok(None);
    }
    let width = match description.physical_type() {
        Type::FIXED_LEN_BYTE_ARRAY => Some(description.type_length().max(0) as usize),
        Type::BYTE_ARRAY => None,
        other => return Err(damaged(path, &format!("column {image:?} of {other}"))),
    };

    let mut pages: Vec<Page> = Vec::new();
    let mut first_row = 0usize;
    for group in metadata.row_groups() {
        let chunk = group.column(column);
        let plain = chunk.encodings().all(|e| matches!(e, Encoding::PLAIN | Encoding::RLE));
        let (true, Compression::UNCOMPRESSED, Some(start), Some(length)) =
            (plain, chunk.compression(), chunk.offset_index_offset(), chunk.offset_index_length())
        else {
            return Ok(None);
        };
        let index = usize::try_from(start).ok().zip(usize::try_from(length).ok());
        let index = index.and_then(|(start, length)| map.get(start..start.checked_add(length)?));
        let index = index.ok_or_else(|| damaged(path, "an offset index beyond its end"))?;
        let locations = contained::page_locations(index).map_err(|e| damaged(path, &e))?;
        let rows = usize::try_from(group.num_rows()).unwrap_or(0);
        for (nth, location) in locations.iter().enumerate() {
            let (Ok(start), Ok(size), Ok(row)) = (
                usize::try_from(location.offset),
                usize::try_from(location.compressed_page_size),
                usize::try_from(location.first_row_index),
            ) else {
                return Err(damaged(path, "a broken offset index"));
            };
            let page = Page {
                start,
                end: start.saturating_add(size),
                first_row: first_row.saturating_add(row),
            };
            let after = match (nth, pages.last()) {
                (0, _) => row == 0,
                (_, last) => last.is_some_and(|last| last.first_row < page.first_row),
            };
            if page.end > map.len() || row >= rows || !after {
                return Err(damaged(path, "a broken offset index"));
            }
            pages.push(page);
        }
        if nullable && locations.len() < rows {
            return Ok(None);
        }
        if rows > 0 && locations.is_empty() {
            return Err(damaged(path, "a broken offset index"));
        }
        first_row = first_row.saturating_add(rows);
    }
    if first_row as i64 != metadata.file_metadata().num_rows() {
        return Err(damaged(path, "row groups that do not add up"));
    }
    Ok(Some(Images::Mapped { pages, width }))
}

/// Decodes the image column through the stock reader.
fn in_memory(path: &Path, map: &Bytes, image: &str, rows: usize) -> Result<Images> {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for batch in batches(path, map, image)? {
        let batch = batch?;
        let column = match batch.column(0).as_struct_opt() {
            // A null struct counts as null bytes.
            Some(image) if image.null_count() == 0 => image.column(0),
            _ => batch.column(0),
        };
        let column = arrow::compute::cast(column, &DataType::LargeBinary)
            .map_err(|e| damaged(path, &format!("column {image:?}: {e}")))?;
        for value in column.as_binary::<i64>() {
            let value = value.ok_or_else(|| damaged(path, "a row without an image"))?;
            bytes.extend_from_slice(value);
            ends.push(bytes.len());
        }
    }
    if ends.len() != rows {
        return Err(damaged(path, &format!("{} images in {rows} rows", ends.len())));
    }
    Ok(Images::Memory { bytes, ends })
}

/// One column, named by its leaf, through the stock reader.
fn batches(
    path: &Path,
    map: &Bytes,
    leaf: &str,
) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let builder = builder(path, map)?;
    let schema = builder.parquet_schema();
    let mask = ProjectionMask::columns(schema, [leaf]);
    if !(0..schema.num_columns()).any(|c| mask.leaf_included(c)) {
        return Err(damaged(path, &format!("no column {leaf:?}")));
    }
    for group in builder.metadata().row_groups() {
        let columns = group.columns().iter().enumerate();
        let asked = columns.filter(|(nth, _)| mask.leaf_included(*nth));
        let parts = asked.filter_map(|(_, chunk)| map.get(chunk_range(chunk)?));
        parts.for_each(|part| advise(part, libc::MADV_WILLNEED));
    }
    let damaged = |found: String| damaged(path, &found);
    let batches = contained::batches(builder.with_projection(mask)).map_err(damaged)?;
    Ok(batches.map(move |batch| batch.map_err(damaged)))
}

/// Where a footer says that the pages of a column chunk are.
fn chunk_range(chunk: &ColumnChunkMetaData) -> Option<Range<usize>> {
    let dictionary = chunk.dictionary_page_offset();
    let start = dictionary.unwrap_or(chunk.data_page_offset());
    let end = start.checked_add(chunk.compressed_size())?;
    Some(start.try_into().ok()?..end.try_into().ok()?)
}

/// The values of an uncompressed data page: what follows its thrift header, whose length is what
/// the header's third field, the payload's size, leaves of the page.
fn payload(page: &[u8]) -> Option<&[u8]> {
    const DATA_PAGE: u64 = 0;
    const DATA_PAGE_V2: u64 = 3;
    let mut rest = page;
    let kind = i32_field(&mut rest)?;
    let uncompressed = i32_field(&mut rest)?;
    let stored = i32_field(&mut rest)?;
    if !matches!(kind, DATA_PAGE | DATA_PAGE_V2) || uncompressed != stored {
        return None;
    }
    let start = page.len().checked_sub(usize::try_from(stored).ok()?)?;
    page.get(start..)
}

/// Reads one field of thrift's compact protocol: type i32, number one above the last, not negative.
fn i32_field(bytes: &mut &[u8]) -> Option<u64> {
    const NEXT_FIELD_I32: u8 = 0x15;
    let (&head, mut rest) = bytes.split_first()?;
    if head != NEXT_FIELD_I32 {
        return None;
    }
    let mut zigzag = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            *bytes = rest;
            return (zigzag & 1 == 0).then_some(zigzag >> 1);
        }
    }
    None
}

/// Value number `nth` of a PLAIN page of `rows` values.
fn value(payload: &[u8], nth: usize, rows: usize, width: Option<usize>) -> Option<&[u8]> {
    match width {
        Some(width) if payload.len() == rows.checked_mul(width)? => {
            payload.get(nth * width..(nth + 1) * width)
        }
        Some(_) => None,
        None => {
            let mut rest = payload;
            // A page with one value of a nullable struct's nullable field begins with its level, 2.
            // A page that is nothing but a value of two bytes is shorter.
            const ONE_PRESENT: [u8; 6] = [2, 0, 0, 0, 2, 2];
            if rows == 1 && payload.len() > ONE_PRESENT.len() {
                rest = payload.strip_prefix(&ONE_PRESENT).unwrap_or(payload);
            }
            for _ in 0..nth {
                rest = split_value(rest)?.1;
            }
            Some(split_value(rest)?.0)
        }
    }
}

/// Splits a length-prefixed value off.
fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}
