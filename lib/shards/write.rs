//! Writing one shard file: the same rows give the same bytes. Images go directly from the rows to the file,
//! page by page, so only one row group is held in memory.

use super::identity::Identity;
use crate::error::{Error, Result};
use crate::schema;
use parquet::arrow::ArrowSchemaConverter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::data_type::{FixedLenByteArray, FixedLenByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows per page of `pixels`. Any number from 64 to 1,024 reads at the same speed; an encoded image
/// has a page of its own.
const PIXEL_PAGE_ROWS: usize = 256;
const PIXEL_GROUP_ROWS: usize = 8192;
const ENCODED_GROUP_ROWS: usize = 1000;
/// A row group ends early if large images would fill the memory and leave the cache.
pub const GROUP_BYTES: usize = 16 << 20;
/// Bytes hashed and written at once: whole subtrees of BLAKE3 and whole pages of the file, and few enough
/// for the second-level cache.
const BLOCK: usize = 256 << 10;

/// Rows of a full row group.
pub fn group_rows(pixels: bool) -> usize {
    match pixels {
        true => PIXEL_GROUP_ROWS,
        false => ENCODED_GROUP_ROWS,
    }
}

/// One image of a shard.
#[derive(Debug)]
pub struct ImageRow {
    pub key: String,
    /// Base name of the image file; unused for pixels.
    pub name: String,
    pub label: Option<u32>,
    pub height: u32,
    pub width: u32,
    /// Row-major HWC uint8 if the shards have a shape, else the unchanged file.
    pub image: Vec<u8>,
    /// BLAKE3 of `image`.
    pub content: blake3::Hash,
}

/// An unfinished shard file.
pub struct ShardWriter {
    path: PathBuf,
    pixels: bool,
    writer: SerializedFileWriter<Hashing>,
}

impl ShardWriter {
    /// Begins a file of shards with this identity.
    pub fn create(path: &Path, identity: &Identity) -> Result<ShardWriter> {
        let size = identity.shape.map(|shape| shape.iter().product());
        let schema = schema::shards(size);
        let schema = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(|e| Error::Internal(e.to_string()))?;
        let properties = properties(identity)?;
        let file = Hashing {
            file: File::create(path).map_err(Error::io(path))?,
            hasher: blake3::Hasher::new(),
            block: Vec::with_capacity(BLOCK),
        };
        Ok(ShardWriter {
            writer: SerializedFileWriter::new(file, schema.root_schema_ptr(), Arc::new(properties))
                .map_err(failed(path))?,
            pixels: size.is_some(),
            path: path.to_path_buf(),
        })
    }

    /// Writes a row group; nothing if there are no rows.
    pub fn group(&mut self, rows: Vec<ImageRow>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let write = || {
            let mut group = self.writer.next_row_group()?;
            let text = |text: &str| ByteArray::from(text);
            let keys: Vec<ByteArray> = rows.iter().map(|r| text(&r.key)).collect();
            column::<ByteArrayType>(&mut group, &keys, None)?;
            let labels: Vec<i16> = rows.iter().map(|r| r.label.is_some().into()).collect();
            let known: Vec<i64> = rows.iter().filter_map(|r| r.label.map(i64::from)).collect();
            let heights: Vec<i32> = rows.iter().map(|r| r.height as i32).collect();
            let widths: Vec<i32> = rows.iter().map(|r| r.width as i32).collect();
            let hashes: Vec<ByteArray> =
                rows.iter().map(|r| text(&schema::short_hash(&r.content))).collect();
            if self.pixels {
                let rows = rows.into_iter();
                let images: Vec<_> =
                    rows.map(|r| FixedLenByteArray::from(ByteArray::from(r.image))).collect();
                column::<FixedLenByteArrayType>(&mut group, &images, None)?;
            } else {
                let names: Vec<ByteArray> = rows.iter().map(|r| text(&r.name)).collect();
                let images: Vec<_> = rows.into_iter().map(|r| ByteArray::from(r.image)).collect();
                // Neither the struct nor its field is null.
                let levels = vec![2; names.len()];
                column::<ByteArrayType>(&mut group, &images, Some(&levels))?;
                drop(images);
                column::<ByteArrayType>(&mut group, &names, Some(&levels))?;
            }
            column::<Int64Type>(&mut group, &known, Some(&labels))?;
            column::<Int32Type>(&mut group, &heights, None)?;
            column::<Int32Type>(&mut group, &widths, None)?;
            column::<ByteArrayType>(&mut group, &hashes, None)?;
            group.close()?;
            Ok(())
        };
        write().map_err(failed(&self.path))?;
        self.writer.inner().start_writeback();
        Ok(())
    }

    /// Ends the file and syncs it; returns its BLAKE3 hash.
    pub fn finish(self) -> Result<blake3::Hash> {
        let mut file = self.writer.into_inner().map_err(failed(&self.path))?;
        let done = file.write_block().and_then(|()| file.file.sync_all());
        done.map_err(Error::io(&self.path))?;
        Ok(file.hasher.finalize())
    }
}

/// Writes the next column of a row group. `levels`: the definition level per row of a nullable column.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Hashing>,
    values: &[T::T],
    levels: Option<&[i16]>,
) -> std::result::Result<(), ParquetError> {
    let missing = || ParquetError::General("a column too many".to_string());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// A file that is hashed while it is written, in blocks.
struct Hashing {
    file: File,
    hasher: blake3::Hasher,
    block: Vec<u8>,
}

impl Hashing {
    fn write_block(&mut self) -> std::io::Result<()> {
        self.hasher.update(&self.block);
        self.file.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Lets the disk start writing, so that `finish` waits less.
    fn start_writeback(&self) {
        // SAFETY: a system call on an open file that changes no bytes. If it fails, nothing is lost.
        #[cfg(target_os = "linux")]
        unsafe {
            let file = std::os::fd::AsRawFd::as_raw_fd(&self.file);
            libc::sync_file_range(file, 0, 0, libc::SYNC_FILE_RANGE_WRITE);
        }
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.block.len() == BLOCK {
            self.write_block()?;
        }
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Does nothing. parquet calls this after each column, but only `finish` syncs.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn failed(path: &Path) -> impl FnOnce(ParquetError) -> Error + '_ {
    move |e| Error::io(path)(std::io::Error::other(e))
}

/// The layout that makes a row a slice of the file: image bytes are PLAIN, without compression or
/// dictionary, in pages that the offset index finds.
fn properties(identity: &Identity) -> Result<WriterProperties> {
    let (image, page_rows) = match identity.shape {
        Some(_) => (schema::PIXELS, PIXEL_PAGE_ROWS),
        None => (schema::IMAGE_BYTES, 1),
    };
    let image = ColumnPath::new(image.split('.').map(str::to_string).collect());
    let level = ZstdLevel::try_new(3).map_err(|e| Error::Internal(e.to_string()))?;
    let features = schema::features(identity.shape.is_some(), &identity.classes);
    let resized = identity.resized.map(|r| {
        let what = format!("JPEG of quality {}, smaller side {}", r.quality, r.small);
        (schema::RESIZED_KEY.to_string(), what)
    });
    let footer = identity.lineage.clone().into_iter();
    let footer = footer.chain([(schema::HUGGING_FACE.to_string(), features)]).chain(resized);
    Ok(WriterProperties::builder()
        .set_created_by(format!("s4l {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(footer.map(|(k, v)| KeyValue::new(k, v)).collect()))
        .set_compression(Compression::ZSTD(level))
        // `group` ends row groups.
        .set_max_row_group_row_count(None)
        // The writer checks the limit of rows per page only after each batch.
        .set_write_batch_size(page_rows)
        .set_column_data_page_row_count_limit(image.clone(), page_rows)
        .set_column_compression(image.clone(), Compression::UNCOMPRESSED)
        .set_column_encoding(image.clone(), Encoding::PLAIN)
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_statistics_enabled(image, EnabledStatistics::None)
        // Keys and hashes are unique: a dictionary for them would be written and then abandoned.
        .set_column_dictionary_enabled(ColumnPath::from(schema::KEY), false)
        .set_column_dictionary_enabled(ColumnPath::from(schema::HASH), false)
        .build())
}
