//! One shard file, opened: its image column, mapped and sliced without a copy, and its small columns.

use super::dataset::INCOMPLETE;
use super::pages::ImagePages;
use crate::error::{Error, Result};
use crate::mapped;
use crate::schema;
use crate::tables::contained;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::file::metadata::ColumnChunkMetaData;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An open shard file.
#[derive(Debug)]
pub struct ShardFile {
    pub path: PathBuf,
    pub rows: usize,
    map: Bytes,
    images: Images,
}

#[derive(Debug)]
enum Images {
    /// Slices of the map.
    Mapped(ImagePages),
    /// Another tool rewrote the file (compressed, dictionary, nullable), so its rows are decoded into
    /// memory: row `i` is at `ends[i - 1]..ends[i]`.
    Memory { bytes: Vec<u8>, ends: Vec<usize> },
}

impl ShardFile {
    /// Opens a file whose images are in the leaf column `image`.
    ///
    /// Errors: `Missing` if there is no file, `BadData` if it is damaged.
    pub fn open(path: &Path, image: &str) -> Result<ShardFile> {
        let file = std::fs::File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::missing(path, "shard file", INCOMPLETE),
            _ => Error::io(path)(e),
        })?;
        let map = mapped::map(&file, path)?;
        let builder = builder(path, &map)?;
        let metadata = builder.metadata();
        let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let pages = ImagePages::find(&map, metadata, image).map_err(|e| damaged(path, &e))?;
        let images = match pages {
            Some(pages) => {
                // Large rows are requested one by one. Otherwise the system would read their neighbours
                // too, or with far read-ahead the whole file.
                if pages.width.is_none_or(|width| width >= PREFETCH_BYTES) {
                    advise(&map, libc::MADV_RANDOM);
                }
                Images::Mapped(pages)
            }
            None => in_memory(path, &map, image, rows)?,
        };
        let file = ShardFile { path: path.to_path_buf(), rows, map, images };
        file.let_go();
        Ok(file)
    }

    /// Unmaps the pages that were read, with their neighbours. They stay in the page cache. Otherwise the
    /// small columns of millions of images, with the images around them, would count as memory of the
    /// process.
    fn let_go(&self) {
        advise(&self.map, libc::MADV_DONTNEED);
    }

    /// The image bytes of a row below `rows`.
    ///
    /// Errors: `BadData` if its page is damaged.
    pub fn image(&self, row: usize) -> Result<&[u8]> {
        let slice = match &self.images {
            Images::Mapped(pages) => pages.image(&self.map, row),
            Images::Memory { bytes, ends } => {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                bytes.get(start..ends[row])
            }
        };
        slice.ok_or_else(|| damaged(&self.path, &format!("a broken page at row {row}")))
    }

    /// Asks the system to load a row below `rows` into memory, without waiting for it.
    pub fn prefetch(&self, row: usize) {
        if let Some(place) = self.place(row)
            && place.len() >= PREFETCH_BYTES
        {
            advise(&self.map[place], libc::MADV_WILLNEED);
        }
    }

    /// Asks the processor to load a small row below `rows` into its cache.
    pub fn touch(&self, row: usize) {
        if let Some(place) = self.place(row)
            && place.len() < PREFETCH_BYTES
        {
            touch(&self.map[place]);
        }
    }

    /// The place of a row in the map.
    fn place(&self, row: usize) -> Option<Range<usize>> {
        match &self.images {
            Images::Mapped(pages) => Some(pages.place(row)),
            Images::Memory { .. } => None,
        }
    }

    /// All values of a text column without nulls.
    ///
    /// Errors: `BadData` if the column is absent, damaged, or has a null.
    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        self.read(name, &DataType::Utf8, |column| {
            texts.extend(column.as_string::<i32>().iter().map(|text| text.map(str::to_string)));
        })?;
        let texts: Option<Vec<String>> = texts.into_iter().collect();
        texts.ok_or_else(|| damaged(&self.path, &format!("a null {name}")))
    }

    /// All values of a column of integers.
    ///
    /// Errors: `BadData` if the column is absent or damaged.
    pub fn ints(&self, name: &str) -> Result<Vec<Option<i64>>> {
        let mut values = Vec::new();
        self.read(name, &DataType::Int64, |column| {
            values.extend(column.as_primitive::<arrow::datatypes::Int64Type>().iter());
        })?;
        Ok(values)
    }

    /// The hashes of all images, as numbers.
    ///
    /// Errors: `BadData` if the column is absent, damaged, or has other values.
    pub fn hashes(&self) -> Result<Vec<u64>> {
        let mut hashes = Vec::new();
        self.read(schema::HASH, &DataType::Utf8, |column| {
            let texts = column.as_string::<i32>().iter();
            hashes.extend(texts.map(|text| u64::from_str_radix(text?, 16).ok()));
        })?;
        let hashes: Option<Vec<u64>> = hashes.into_iter().collect();
        hashes.ok_or_else(|| damaged(&self.path, "a hash that is none"))
    }

    /// Passes a column with one value per row, cast to `kind`, to `take`, batch by batch.
    fn read(&self, name: &str, kind: &DataType, mut take: impl FnMut(&ArrayRef)) -> Result<()> {
        let mut rows = 0;
        for batch in batches(&self.path, &self.map, name)? {
            let batch = batch?;
            let column = arrow::compute::cast(batch.column(0), kind)
                .map_err(|e| damaged(&self.path, &format!("column {name:?}: {e}")))?;
            rows += column.len();
            take(&column);
        }
        self.let_go();
        if rows != self.rows {
            let found = format!("{rows} rows in column {name:?}");
            return Err(damaged(&self.path, &found));
        }
        Ok(())
    }
}

/// Smaller rows are read together with their neighbours; requesting each would cost more than it gains.
const PREFETCH_BYTES: usize = 4096;

#[cfg(target_arch = "x86_64")]
const CACHE_LINE: usize = 64;

/// Tells the system how a range of the map will be read.
fn advise(part: &[u8], advice: libc::c_int) {
    // SAFETY: the range is inside a map, and no advice of this file changes its contents. If it
    // fails, the bytes are read when they are used.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let start = part.as_ptr().map_addr(|a| a & !(page - 1));
        let length = part.as_ptr().addr() - start.addr() + part.len();
        libc::madvise(start as *mut libc::c_void, length, advice);
    }
}

/// Starts to load a range of the map, if the processor has an instruction for it.
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

/// The place of a column chunk's pages, according to the footer.
fn chunk_range(chunk: &ColumnChunkMetaData) -> Option<Range<usize>> {
    let dictionary = chunk.dictionary_page_offset();
    let start = dictionary.unwrap_or(chunk.data_page_offset());
    let end = start.checked_add(chunk.compressed_size())?;
    Some(start.try_into().ok()?..end.try_into().ok()?)
}
