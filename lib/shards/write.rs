//! Writing a shard folder: the same records give the same bytes.

use super::{ContentHash, Dataset, FORMAT, SplitInfo, file_name};
use crate::artifact::{self, Lineage};
use crate::error::{Error, Result};
use crate::input::{Image, Record};
use crate::schema;
use arrow::array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, StringArray,
    StructArray,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows a page of `pixels`. Any number from 64 to 1,024 reads at the same speed; an encoded image
/// has a page of its own.
const PIXEL_PAGE_ROWS: usize = 256;
const PIXEL_GROUP_ROWS: usize = 8192;
const ENCODED_GROUP_ROWS: usize = 1000;
/// A row group ends before its rows where large images would fill the memory with it.
const GROUP_BYTES: usize = 128 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A file ends before the image that would bring it above this many bytes of image data.
    pub file_bytes: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            file_bytes: 512 << 20,
        }
    }
}

/// A shard folder in the making. It appears under its name on `commit`; dropped before, it leaves
/// nothing behind.
pub struct Writer {
    folder: tempfile::TempDir,
    out: PathBuf,
    file_bytes: u64,
    properties: WriterProperties,
    dataset: Dataset,
}

impl Writer {
    /// `shape`: height, width and channels of pixels, `None` for encoded images.
    pub fn create(
        out: &Path,
        classes: &[String],
        shape: Option<[usize; 3]>,
        settings: &Settings,
        lineage: &Lineage,
    ) -> Result<Writer> {
        Ok(Writer {
            folder: artifact::temporary_folder(out)?,
            out: out.to_path_buf(),
            file_bytes: settings.file_bytes,
            properties: properties(shape.is_some(), lineage)?,
            dataset: Dataset {
                format: FORMAT,
                classes: classes.to_vec(),
                shape,
                splits: BTreeMap::new(),
                lineage: lineage.metadata(),
            },
        })
    }

    /// Begins a split; `SplitWriter::finish` ends it.
    pub fn split<'a>(&'a mut self, name: &'a str) -> SplitWriter<'a> {
        SplitWriter {
            rows: Rows::default(),
            content: ContentHash::new(),
            keys: HashSet::new(),
            files: 0,
            file: None,
            file_bytes: 0,
            name,
            folder: self,
        }
    }

    /// Writes `dataset.json` and `MANIFEST.b3` and gives the folder its name.
    pub fn commit(self) -> Result<()> {
        let mut json = serde_json::to_string_pretty(&self.dataset)
            .map_err(|e| Error::Internal(e.to_string()))?;
        json.push('\n');
        let folder = self.folder.path();
        artifact::write_bytes(&folder.join(schema::DATASET_JSON), json.as_bytes())?;
        let mut names = vec![schema::DATASET_JSON.to_string()];
        for (split, info) in &self.dataset.splits {
            names.extend((0..info.files).map(|i| file_name(split, i, info.files)));
        }
        let mut manifest = String::new();
        for name in names {
            let path = folder.join(&name);
            let mut hasher = blake3::Hasher::new();
            let file = File::open(&path).map_err(Error::io(&path))?;
            hasher.update_reader(file).map_err(Error::io(&path))?;
            manifest += &format!("{}  {name}\n", hasher.finalize().to_hex());
        }
        artifact::write_bytes(&folder.join(schema::MANIFEST), manifest.as_bytes())?;
        artifact::commit_folder(self.folder, &self.out)
    }
}

/// The files of one split, row group by row group.
pub struct SplitWriter<'a> {
    folder: &'a mut Writer,
    name: &'a str,
    content: ContentHash,
    keys: HashSet<String>,
    /// Files begun so far.
    files: usize,
    file: Option<ArrowWriter<File>>,
    /// Image bytes of the file, with those in `rows`.
    file_bytes: u64,
    rows: Rows,
}

impl SplitWriter<'_> {
    /// Adds a row.
    ///
    /// Errors: `BadData` for a key seen before or pixels of another size than the folder's.
    pub fn push(&mut self, record: Record) -> Result<()> {
        let shape = self.folder.dataset.shape;
        let (bytes, name) = match (record.image, shape) {
            (Image::Encoded { bytes, name }, None) => (bytes, name),
            (Image::Pixels(p), Some([h, w, c]))
                if p.len() == h * w * c
                    && (h, w) == (record.height as usize, record.width as usize) =>
            {
                (p, String::new())
            }
            (_, shape) => {
                return Err(Error::bad_data(
                    &self.folder.out,
                    shape.map_or("encoded images only".to_string(), |s| {
                        format!("only pixels of shape {s:?}")
                    }),
                    format!("{}x{} in {:?}", record.height, record.width, record.key),
                    "give each kind and size a data set of its own",
                ));
            }
        };
        if !self.keys.insert(record.key.clone()) {
            return Err(Error::bad_data(
                &self.folder.out,
                format!("each key once in split {:?}", self.name),
                format!("{:?} twice", record.key),
                "rename one of the two images",
            ));
        }
        let size = bytes.len() as u64;
        if self.file_bytes > 0 && self.file_bytes + size > self.folder.file_bytes {
            self.end_file()?;
        }
        self.file_bytes += size;
        self.content
            .row(&record.key, record.height, record.width, &bytes);
        self.rows.hashes.push(schema::content_hash(&bytes));
        self.rows.bytes += bytes.len();
        self.rows.images.push(bytes);
        self.rows.names.push(name);
        self.rows.keys.push(record.key);
        self.rows.labels.push(record.label.map(i64::from));
        self.rows.heights.push(record.height as i32);
        self.rows.widths.push(record.width as i32);
        let full = match shape {
            Some(_) => PIXEL_GROUP_ROWS,
            None => ENCODED_GROUP_ROWS,
        };
        if self.rows.keys.len() == full || self.rows.bytes >= GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    /// Ends the last file and gives all their final names, which have the number of files in them.
    pub fn finish(mut self) -> Result<()> {
        self.end_file()?;
        let folder = self.folder.folder.path();
        for i in 0..self.files {
            let from = folder.join(part_name(self.name, i));
            let to = folder.join(file_name(self.name, i, self.files));
            std::fs::rename(&from, to).map_err(Error::io(&from))?;
        }
        let info = SplitInfo {
            images: self.keys.len(),
            files: self.files,
            content: self.content.finish(),
        };
        self.folder
            .dataset
            .splits
            .insert(self.name.to_string(), info);
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.keys.is_empty() {
            return Ok(());
        }
        let path = self.folder.folder.path();
        let writer = match &mut self.file {
            Some(writer) => writer,
            none => {
                let path = path.join(part_name(self.name, self.files));
                let file = File::create(&path).map_err(Error::io(&path))?;
                let size = self.folder.dataset.shape.map(|s| s.iter().product());
                // Without an Arrow schema in the footer, which would repeat what parquet's says.
                let options = ArrowWriterOptions::new()
                    .with_properties(self.folder.properties.clone())
                    .with_skip_arrow_metadata(true);
                self.files += 1;
                none.insert(
                    ArrowWriter::try_new_with_options(file, schema::shards(size), options)
                        .map_err(failed(&path))?,
                )
            }
        };
        let batch = rows.batch(self.folder.dataset.shape)?;
        writer
            .write(&batch)
            .and_then(|()| writer.flush())
            .map_err(failed(path))
    }

    fn end_file(&mut self) -> Result<()> {
        self.end_group()?;
        self.file_bytes = 0;
        if let Some(writer) = self.file.take() {
            let path = self.folder.folder.path();
            let file = writer.into_inner().map_err(failed(path))?;
            file.sync_all().map_err(Error::io(path))?;
        }
        Ok(())
    }
}

/// Rows of a row group that is not written yet.
#[derive(Default)]
struct Rows {
    keys: Vec<String>,
    images: Vec<Vec<u8>>,
    names: Vec<String>,
    labels: Vec<Option<i64>>,
    heights: Vec<i32>,
    widths: Vec<i32>,
    hashes: Vec<String>,
    bytes: usize,
}

impl Rows {
    fn batch(self, shape: Option<[usize; 3]>) -> Result<RecordBatch> {
        let internal = |e: arrow::error::ArrowError| Error::Internal(e.to_string());
        let images: ArrayRef = match shape {
            Some(_) => {
                let rows = self.images.into_iter();
                Arc::new(FixedSizeBinaryArray::try_from_iter(rows).map_err(internal)?)
            }
            None => Arc::new(StructArray::new(
                schema::image_fields(),
                vec![
                    Arc::new(BinaryArray::from_iter_values(self.images)),
                    Arc::new(StringArray::from_iter_values(self.names)),
                ],
                None,
            )),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(self.keys)),
            images,
            Arc::new(Int64Array::from(self.labels)),
            Arc::new(Int32Array::from(self.heights)),
            Arc::new(Int32Array::from(self.widths)),
            Arc::new(StringArray::from_iter_values(self.hashes)),
        ];
        let size = shape.map(|s| s.iter().product());
        RecordBatch::try_new(schema::shards(size), columns).map_err(internal)
    }
}

/// Name of a file while the number of files is not known.
fn part_name(split: &str, file: usize) -> String {
    format!("{split}-{file:05}.part")
}

fn failed(path: &Path) -> impl FnOnce(ParquetError) -> Error + '_ {
    move |e| Error::io(path)(std::io::Error::other(e))
}

/// The layout that makes a row a slice of the file: image bytes PLAIN, neither compressed nor in a
/// dictionary, in pages that the offset index finds.
fn properties(pixels: bool, lineage: &Lineage) -> Result<WriterProperties> {
    let (image, page_rows) = match pixels {
        true => (schema::PIXELS, PIXEL_PAGE_ROWS),
        false => (schema::IMAGE_BYTES, 1),
    };
    let image = ColumnPath::new(image.split('.').map(str::to_string).collect());
    let level = ZstdLevel::try_new(3).map_err(|e| Error::Internal(e.to_string()))?;
    let footer = lineage.metadata().into_iter();
    Ok(WriterProperties::builder()
        .set_created_by(format!("s4l {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(footer.map(|(k, v)| KeyValue::new(k, v)).collect()))
        .set_compression(Compression::ZSTD(level))
        // `end_group` ends row groups.
        .set_max_row_group_row_count(None)
        // The writer looks at the limit of rows a page only after each batch.
        .set_write_batch_size(page_rows)
        .set_column_data_page_row_count_limit(image.clone(), page_rows)
        .set_column_compression(image.clone(), Compression::UNCOMPRESSED)
        .set_column_encoding(image.clone(), Encoding::PLAIN)
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_statistics_enabled(image, EnabledStatistics::None)
        // Keys and hashes are unique: a dictionary of them would only be written and given up.
        .set_column_dictionary_enabled(ColumnPath::from(schema::KEY), false)
        .set_column_dictionary_enabled(ColumnPath::from(schema::HASH), false)
        .build())
}
