//! Parquet tables (labels, evaluations, metrics): written in one go or joined from several, read whole.

use super::contained::{self, contained};
use super::hash::{self, Hashing};
use crate::artifact;
use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::schema::{self, FORMAT_KEY, HASH_KEY, NO_HASH};
use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::ChunkReader;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A table in memory has at most this many times the bytes of its file, plus this many bytes: a few bytes
/// of a damaged file may claim billions of values.
const MOST_TIMES: usize = 100;
const FREE_BYTES: usize = 256 << 20;

/// A row group has at most this many rows, and this many values of lists: it is held in memory until it is
/// written.
const GROUP_ROWS: usize = 1 << 16;
const GROUP_VALUES: usize = 1 << 23;

/// Writes one table, zstd-compressed. The footer has the lineage, the `extra` key-value pairs and a hash of
/// the file.
pub fn write(
    path: &Path,
    schema: Arc<Schema>,
    columns: Vec<ArrayRef>,
    lineage: &Lineage,
    extra: BTreeMap<String, String>,
) -> Result<()> {
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| internal(path, &e))?;
    let (all, most) = (batch.num_rows(), group_rows(&schema));
    let groups = (0..all).step_by(most).map(|at| Ok(batch.slice(at, most.min(all - at))));
    let pairs = lineage.metadata().into_iter().chain(extra);
    write_groups(path, schema.clone(), pairs, groups)
}

/// Writes the rows of several tables, one after the other, as one table with `pairs` in its footer. It has
/// the columns of `schema`, which are the first columns of the inputs. The bytes are the same however the
/// rows are split into tables, and the same as `write` gives for all rows.
///
/// Errors: `BadData` if a table is damaged or has other columns.
pub fn join(
    path: &Path,
    schema: Arc<Schema>,
    pairs: Vec<(String, String)>,
    tables: &[PathBuf],
    made_by: &str,
) -> Result<()> {
    type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch>> + 'a>;
    let mut batches = tables.iter().flat_map(|table| match batches(table, made_by) {
        Ok(batches) => {
            Box::new(batches.map(|batch| first(&batch?, &schema, table, made_by))) as Batches
        }
        Err(e) => Box::new(std::iter::once(Err(e))),
    });
    let mut groups = BatchCoalescer::new(schema.clone(), group_rows(&schema));
    let groups = std::iter::from_fn(|| {
        while !groups.has_completed_batch() {
            let taken = match batches.next() {
                Some(Err(e)) => return Some(Err(e)),
                Some(Ok(batch)) => groups.push_batch(batch),
                None if groups.is_empty() => return None,
                None => groups.finish_buffered_batch(),
            };
            if let Err(e) = taken {
                return Some(Err(internal(path, &e)));
            }
        }
        groups.next_completed_batch().map(Ok)
    });
    write_groups(path, schema.clone(), pairs.into_iter(), groups)
}

/// The first columns of a batch of rows.
fn first(
    rows: &RecordBatch,
    schema: &Arc<Schema>,
    table: &Path,
    made_by: &str,
) -> Result<RecordBatch> {
    let columns = rows.columns().iter().take(schema.fields().len()).cloned().collect();
    let first = RecordBatch::try_new(schema.clone(), columns);
    first.map_err(|e| not_parquet(table, &e.to_string(), made_by))
}

/// Calls `look` with the rows of the tables, one table after the other. Only the file of one table is held
/// in memory.
///
/// Errors: `BadData` if a table is damaged.
pub fn each(tables: &[PathBuf], made_by: &str, mut look: impl FnMut(&RecordBatch)) -> Result<()> {
    for table in tables {
        for rows in batches(table, made_by)? {
            look(&rows?);
        }
    }
    Ok(())
}

/// Rows of a full row group.
fn group_rows(schema: &Schema) -> usize {
    let values = schema.fields().iter().map(|field| match field.data_type() {
        DataType::FixedSizeList(_, len) => *len as usize,
        _ => 1,
    });
    (GROUP_VALUES / values.max().unwrap_or(1).max(1)).clamp(1, GROUP_ROWS)
}

/// Writes a table row group by row group.
fn write_groups(
    path: &Path,
    schema: Arc<Schema>,
    pairs: impl Iterator<Item = (String, String)>,
    groups: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<()> {
    let own = [(FORMAT_KEY, hash::FORMAT), (HASH_KEY, NO_HASH)];
    let own = own.map(|(key, value)| (key.to_string(), value.to_string()));
    let footer = pairs.chain(own).map(|(k, v)| KeyValue::new(k, v));
    let level = ZstdLevel::try_new(3).map_err(|e| internal(path, &e))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(format!("s4l {}", env!("CARGO_PKG_VERSION")))
        .set_key_value_metadata(Some(footer.collect()))
        .build();
    artifact::write_atomic(path, |file| {
        let io = |e: parquet::errors::ParquetError| Error::io(path)(std::io::Error::other(e));
        let mut hashing = Hashing::new(file);
        let mut writer =
            ArrowWriter::try_new(&mut hashing, schema, Some(properties)).map_err(io)?;
        for group in groups {
            writer.write(&group?).and_then(|()| writer.flush()).map_err(io)?;
        }
        writer.close().map_err(io)?;
        hashing.seal().map_err(Error::io(path))
    })
}

fn internal(path: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::Internal(format!("{}: {e}", path.display()))
}

/// A table in memory with the path it came from, for messages.
pub struct Table {
    pub path: PathBuf,
    pub batch: RecordBatch,
    pub metadata: Pairs,
    /// `artifact::hash_file` of the bytes that were read.
    pub hash: String,
}

/// Reads a whole table. `made_by` names the command that makes such a file, for the hint.
///
/// Errors: `Missing` if there is no file, `BadData` if it is damaged.
pub fn read(path: &Path, made_by: &str) -> Result<Table> {
    let (bytes, builder, metadata) = whole(path, made_by, as_stored())?;
    let bad = |found: String| not_parquet(path, &found, made_by);
    let schema = builder.schema().clone();
    let most = FREE_BYTES + MOST_TIMES * bytes.len();
    let (mut batches, mut size) = (Vec::new(), 0);
    for batch in contained::batches(builder).map_err(bad)? {
        let batch = batch.map_err(bad)?;
        size += batch.get_array_memory_size();
        if size > most {
            let found = format!("more than {} MB of values in {} bytes", most >> 20, bytes.len());
            return Err(bad(found));
        }
        batches.push(batch);
    }
    let batch = contained(|| arrow::compute::concat_batches(&schema, &batches)).map_err(bad)?;
    let hash = schema::short_hash(&blake3::hash(&bytes));
    Ok(Table { path: path.to_path_buf(), batch, metadata, hash })
}

/// The rows of one of our tables, batch by batch: only its file is held in memory.
///
/// Errors: as `read`.
fn batches(path: &Path, made_by: &str) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let (_, builder, _) = whole(path, made_by, ArrowReaderOptions::new())?;
    let bad = move |found: String| not_parquet(path, &found, made_by);
    let batches = contained::batches(builder).map_err(bad)?;
    Ok(batches.map(move |batch| batch.map_err(bad)))
}

/// The footer's key-value pairs of an undamaged file. `made_by` and errors as in `read`.
pub fn metadata(path: &Path, made_by: &str) -> Result<Pairs> {
    Ok(whole(path, made_by, as_stored())?.2)
}

/// The columns of one of our tables, as written, and the key-value pairs of its footer. `made_by` and
/// errors as in `read`.
pub fn footer(path: &Path, made_by: &str) -> Result<(Arc<Schema>, Pairs)> {
    let (_, builder, pairs) = whole(path, made_by, ArrowReaderOptions::new())?;
    Ok((Arc::new(Schema::new(builder.schema().fields().clone())), pairs))
}

/// The claims of a file's footer, without reading the rest: key-value pairs, names of the columns, number
/// of rows. `None` if it is no parquet file.
pub fn claims(path: &Path) -> Option<(Pairs, Vec<String>, u64)> {
    let (builder, pairs) = open(File::open(path).ok()?, as_stored()).ok()?;
    let columns = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    Some((pairs, columns, builder.metadata().file_metadata().num_rows().unsigned_abs()))
}

/// The footer's key-value pairs of an output of `tool`, or `None` if there is no undamaged output.
///
/// Errors: `NotOurs` if there is a file that `tool` has not made.
pub fn output(path: &Path, tool: &str) -> Result<Option<Pairs>> {
    let not_ours =
        || Error::NotOurs { path: path.to_path_buf(), what: format!("an output of {tool}") };
    match path.metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path)(e)),
        Ok(file) if !file.is_file() => return Err(not_ours()),
        // An empty file is nobody's work.
        Ok(file) if file.len() == 0 => return Ok(None),
        Ok(_) => {}
    }
    let bytes = Bytes::from(std::fs::read(path).map_err(Error::io(path))?);
    match open(bytes.clone(), as_stored()) {
        Ok((_, metadata)) if metadata.get(schema::TOOL_KEY).is_none_or(|t| t != tool) => {
            Err(not_ours())
        }
        Ok((_, metadata)) => Ok(hash::check(&bytes, &metadata).is_ok().then_some(metadata)),
        // The file may have been ours before it was damaged.
        Err(_) if bytes.starts_with(MAGIC) => Ok(None),
        Err(_) => Err(not_ours()),
    }
}

/// The first bytes of a parquet file.
const MAGIC: &[u8] = b"PAR1";

fn bytes(path: &Path, made_by: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::missing(path, "file", format!("{made_by} makes it")),
        _ => Error::io(path)(e),
    })
}

/// The bytes of an undamaged table, a reader of it, and the key-value pairs of its footer.
fn whole(
    path: &Path,
    made_by: &str,
    options: ArrowReaderOptions,
) -> Result<(Bytes, contained::Builder<Bytes>, Pairs)> {
    let bytes = Bytes::from(bytes(path, made_by)?);
    let opened = open(bytes.clone(), options);
    let (builder, pairs) = opened.map_err(|found| not_parquet(path, &found, made_by))?;
    hash::check(&bytes, &pairs).map_err(|found| changed(path, found, made_by))?;
    Ok((bytes, builder, pairs))
}

/// Errors: what is wrong with the file.
fn open<R: ChunkReader + 'static>(
    file: R,
    options: ArrowReaderOptions,
) -> std::result::Result<(contained::Builder<R>, Pairs), String> {
    let builder = contained::open(file, options)?;
    let pairs = builder.metadata().file_metadata().key_value_metadata();
    let pairs = pairs.into_iter().flatten();
    let pairs = pairs.filter_map(|kv| Some((kv.key.clone(), kv.value.clone()?))).collect();
    Ok((builder, pairs))
}

/// Types as stored: a file of another tool may have an Arrow schema of its own.
fn as_stored() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

/// Key-value pairs of a footer.
pub type Pairs = HashMap<String, String>;

fn not_parquet(path: &Path, found: &str, made_by: &str) -> Error {
    Error::bad_data(path, "a parquet file", found, format!("make it again with {made_by}"))
}

fn changed(path: &Path, found: String, made_by: &str) -> Error {
    let hint = format!("make it again with {made_by}, or drop its s4l metadata if you changed it");
    Error::bad_data(path, "a table as it was written", found, hint)
}

impl Table {
    fn column(&self, name: &str, kind: &str) -> Result<&ArrayRef> {
        self.batch.column_by_name(name).ok_or_else(|| {
            let schema = self.batch.schema();
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            Error::bad_data(
                &self.path,
                format!("a column {name:?} ({kind})"),
                format!("columns {}", names.join(", ")),
                "check that this is the right file",
            )
        })
    }

    fn wrong_type(&self, name: &str, kind: &str) -> Error {
        Error::bad_data(
            &self.path,
            format!("column {name:?} to be {kind} without nulls"),
            self.batch.column_by_name(name).map_or("nothing".into(), |c| {
                format!("{} with {} nulls", c.data_type(), c.null_count())
            }),
            "write it with that type",
        )
    }

    /// A column of strings without nulls.
    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        let column = self.column(name, "utf8")?;
        let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Utf8)
            .map_err(|_| self.wrong_type(name, "utf8"))?;
        if column.null_count() > 0 {
            return Err(self.wrong_type(name, "utf8"));
        }
        let strings = column.as_string::<i32>();
        Ok(strings.iter().flatten().map(str::to_string).collect())
    }

    /// A column of int64 without nulls.
    pub fn ints(&self, name: &str) -> Result<Vec<i64>> {
        let column = self.column(name, "int64")?;
        match column.as_primitive_opt::<Int64Type>() {
            Some(a) if a.null_count() == 0 => Ok(a.values().to_vec()),
            _ => Err(self.wrong_type(name, "int64")),
        }
    }

    /// A column of float32 without nulls.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let column = self.column(name, "float32")?;
        match column.as_primitive_opt::<Float32Type>() {
            Some(a) if a.null_count() == 0 => Ok(a.values().to_vec()),
            _ => Err(self.wrong_type(name, "float32")),
        }
    }

    /// A column of float64 without nulls.
    pub fn doubles(&self, name: &str) -> Result<Vec<f64>> {
        let column = self.column(name, "float64")?;
        match column.as_primitive_opt::<Float64Type>() {
            Some(a) if a.null_count() == 0 => Ok(a.values().to_vec()),
            _ => Err(self.wrong_type(name, "float64")),
        }
    }

    /// A column of booleans without nulls.
    pub fn bools(&self, name: &str) -> Result<Vec<bool>> {
        let column = self.column(name, "bool")?;
        match column.as_boolean_opt() {
            Some(a) if a.null_count() == 0 => Ok(a.values().iter().collect()),
            _ => Err(self.wrong_type(name, "bool")),
        }
    }

    /// A column of fixed-size lists of float32: all values in row order and the list length.
    pub fn float_lists(&self, name: &str) -> Result<(Vec<f32>, usize)> {
        let column = self.column(name, "fixed-size list of float32")?;
        let wrong = || self.wrong_type(name, "a list of float32 of one length");
        let (values, len): (ArrayRef, usize) = if let Some(l) = column.as_fixed_size_list_opt() {
            (l.values().clone(), l.value_length() as usize)
        } else if let Some(l) = column.as_list_opt::<i32>() {
            let len = l.iter().flatten().next().map_or(0, |first| first.len());
            if l.offsets().windows(2).any(|w| (w[1] - w[0]) as usize != len) {
                return Err(wrong());
            }
            (l.values().clone(), len)
        } else {
            return Err(wrong());
        };
        let values = values.as_primitive_opt::<Float32Type>().ok_or_else(wrong)?;
        Ok((values.values().to_vec(), len))
    }
}

/// A column of lists of `len` floats, as `schema` declares them.
pub fn fixed_lists(values: Vec<f32>, len: usize) -> ArrayRef {
    let field = arrow::datatypes::Field::new_list_field(DataType::Float32, false);
    let values = Arc::new(Float32Array::from(values));
    Arc::new(FixedSizeListArray::new(Arc::new(field), len as i32, values, None))
}
