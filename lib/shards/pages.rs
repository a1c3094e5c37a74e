//! The pages of a file's image column: their places in the map, and the places of rows in the pages.

use crate::tables::contained;
use parquet::basic::{Compression, Encoding, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use std::ops::Range;

/// The pages of a column whose rows are plain bytes in the map.
#[derive(Debug)]
pub struct ImagePages {
    pages: Vec<Page>,
    rows: usize,
    /// Bytes per row of a fixed-size column, `None` for variable sizes.
    pub width: Option<usize>,
}

/// Place of a page in the map, and its first row in the file. Each encoded image has its own page.
#[derive(Debug, Clone, Copy)]
struct Page {
    start: usize,
    size: u32,
    first_row: u32,
}

impl Page {
    fn place(self) -> Range<usize> {
        self.start..self.start + self.size as usize
    }

    fn first_row(self) -> usize {
        self.first_row as usize
    }
}

const BROKEN_INDEX: &str = "a broken offset index";

impl ImagePages {
    /// The pages of the leaf column `image`, or `None` if its rows are not plain bytes in the file.
    ///
    /// Errors: what is wrong with the file.
    pub fn find(
        map: &[u8],
        metadata: &ParquetMetaData,
        image: &str,
    ) -> Result<Option<ImagePages>, String> {
        let columns = metadata.file_metadata().schema_descr().columns();
        let Some(column) = columns.iter().position(|c| c.path().string() == image) else {
            return Err(format!("no column {image:?}"));
        };
        let description = &columns[column];
        if description.max_def_level() > 2 || description.max_rep_level() > 0 {
            return Ok(None);
        }
        // In a nullable column, pages of several rows have no fixed places for values; for pages of one
        // row, see `value`.
        let nullable = description.max_def_level() > 0;
        let width = match description.physical_type() {
            Type::FIXED_LEN_BYTE_ARRAY => Some(description.type_length().max(0) as usize),
            Type::BYTE_ARRAY => None,
            other => return Err(format!("column {image:?} of {other}")),
        };
        let mut found = ImagePages { pages: Vec::new(), rows: 0, width };
        for group in metadata.row_groups() {
            let Some(index) = offset_index(map, group.column(column))? else {
                return Ok(None);
            };
            let locations = contained::page_locations(index)?;
            let rows = usize::try_from(group.num_rows()).unwrap_or(0);
            found.add_group(&locations, rows, map.len()).ok_or(BROKEN_INDEX)?;
            if nullable && locations.len() < rows {
                return Ok(None);
            }
            if rows > 0 && locations.is_empty() {
                return Err(BROKEN_INDEX.to_string());
            }
        }
        if found.rows as i64 != metadata.file_metadata().num_rows() {
            return Err("row groups that do not add up".to_string());
        }
        Ok(Some(found))
    }

    /// Adds the pages of the next row group; `None` if they are not within the map and in order.
    fn add_group(&mut self, locations: &[PageLocation], rows: usize, map: usize) -> Option<()> {
        for (nth, location) in locations.iter().enumerate() {
            let start = usize::try_from(location.offset).ok()?;
            let size = u32::try_from(location.compressed_page_size).ok()?;
            let row = usize::try_from(location.first_row_index).ok()?;
            let end = start.saturating_add(size as usize);
            let first_row = u32::try_from(self.rows.saturating_add(row)).ok()?;
            let after = match (nth, self.pages.last()) {
                (0, _) => row == 0,
                (_, last) => last.is_some_and(|last| last.first_row < first_row),
            };
            if end > map || row >= rows || !after {
                return None;
            }
            self.pages.push(Page { start, size, first_row });
        }
        self.rows = self.rows.saturating_add(rows);
        Some(())
    }

    /// The bytes of a row below the number of rows; `None` if the page is damaged.
    pub fn image<'a>(&self, map: &'a [u8], row: usize) -> Option<&'a [u8]> {
        let (page, rows) = self.page(row);
        value(payload(&map[page.place()])?, row - page.first_row(), rows, self.width)
    }

    /// The place of a row in the map; with the start of its page, if sizes vary.
    pub fn place(&self, row: usize) -> Range<usize> {
        let (page, rows) = self.page(row);
        let place = page.place();
        // A page ends with its values.
        match self.width {
            Some(width) => {
                let after = (page.first_row() + rows - 1 - row).saturating_mul(width);
                let end = place.end.saturating_sub(after).max(place.start);
                end.saturating_sub(width).max(place.start)..end
            }
            None => place,
        }
    }

    /// The page of a row, and the number of rows on the page.
    fn page(&self, row: usize) -> (Page, usize) {
        // The first page starts at row 0, so every row has a page that starts at or before it.
        let nth = self.pages.partition_point(|p| p.first_row() <= row) - 1;
        let end = self.pages.get(nth + 1).map_or(self.rows, |p| p.first_row());
        (self.pages[nth], end - self.pages[nth].first_row())
    }
}

/// The offset index of a chunk of plain, uncompressed pages; `None` for any other chunk.
fn offset_index<'a>(
    map: &'a [u8],
    chunk: &ColumnChunkMetaData,
) -> Result<Option<&'a [u8]>, String> {
    let plain = chunk.encodings().all(|e| matches!(e, Encoding::PLAIN | Encoding::RLE));
    let (true, Compression::UNCOMPRESSED, Some(start), Some(length)) =
        (plain, chunk.compression(), chunk.offset_index_offset(), chunk.offset_index_length())
    else {
        return Ok(None);
    };
    let index = usize::try_from(start).ok().zip(usize::try_from(length).ok());
    let index = index.and_then(|(start, length)| map.get(start..start.checked_add(length)?));
    index.map(Some).ok_or_else(|| "an offset index beyond its end".to_string())
}

/// The values of an uncompressed data page. They follow its thrift header; the third field of the header is
/// their size, and they end the page.
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

/// Reads one field of thrift's compact protocol: type i32, number one above the previous field, not
/// negative.
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
            // A page with one value of a nullable field in a nullable struct begins with the level of the
            // value, 2. A page with only a value of two bytes is shorter than that.
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

/// Splits off a length-prefixed value.
fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}
