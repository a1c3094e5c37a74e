//! Parquet of Hugging Face datasets: a column that is an Image feature (struct of `bytes` and `path`,
//! or plain binary), a column of labels whose ClassLabel names are kept. Shards of `s4l-shard` are
//! such files too.

use super::columns;
use super::item::{
    Class, Fault, Instead, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, Walked,
};
use super::label;
use super::listing::{self, SplitFile};
use crate::cli;
use crate::error::{Error, Result};
use crate::schema;
use crate::tables::contained;
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::ArrowReaderOptions;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Fields, Float64Type, Int64Type};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Rows read at a time: some 1 MB of photographs.
const BATCH: usize = 16;
const IMAGES: [&str; 5] = ["image", "img", "jpg", "png", "pixel_values"];
const LABELS: [&str; 5] = ["label", "labels", "fine_label", "cls", "class"];
const HINT: &str = "name their column with --label-column; ";
const KEYS: [&str; 5] = ["key", "filename", "file_name", "image_id", "__key__"];

/// Whether a file begins as parquet.
pub fn is_start(start: &[u8]) -> bool {
    start.starts_with(b"PAR1")
}

#[derive(Debug)]
pub struct Parquet {
    files: Vec<ImageTable>,
    /// Names of the ClassLabel feature.
    pub classes: Option<Vec<String>>,
}

/// A file, and the columns that are read.
#[derive(Debug)]
struct ImageTable {
    path: PathBuf,
    split: SplitName,
    image: String,
    label: Option<String>,
    key: Option<String>,
}

impl Parquet {
    pub fn open(path: &Path, columns: &columns::Columns) -> Result<Parquet> {
        let mut tables = Vec::new();
        let mut classes: Option<Vec<String>> = None;
        for SplitFile { path, split } in listing::files(path, "Parquet", is_start)? {
            // Beside shards of ours: a list of what is not in them.
            if path.file_name().is_some_and(|n| n == schema::REJECTS) {
                continue;
            }
            let (table, names) = ImageTable::open(path, split, columns)?;
            match (&classes, names) {
                (Some(one), Some(other)) if *one != other => {
                    return Err(Error::bad_data(
                        &table.path,
                        "the class names of the first file",
                        "others",
                        "give each data set shards of its own",
                    ));
                }
                (None, names) => classes = names,
                _ => {}
            }
            tables.push(table);
        }
        let without = tables.iter().find(|table| table.label.is_none());
        if let Some(table) = without.filter(|_| tables.iter().any(|table| table.label.is_some())) {
            let words = no_label(&table.others()?);
            cli::warn(&format!("{}: {words}", table.path.display()));
        }
        Ok(Parquet { files: tables, classes })
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.files.iter().map(|f| f.path.clone())
    }

    /// Each file with its split.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        self.files.iter().map(|f| (f.split, f.path.as_path()))
    }

    /// The unique name of an image: it begins with the name of its file and its row.
    pub fn full_name(&self, item: &Item) -> String {
        let row = row_name(&self.files[item.position.file].path, item.position.at);
        match item.name == row {
            true => row,
            false => format!("{row}/{}", item.name),
        }
    }

    /// Where the labels are, as text for users.
    pub fn label_words(&self) -> String {
        let label = self.files.iter().find_map(|f| f.label.as_ref());
        label.map_or("none".to_string(), |name| format!("column {name:?}"))
    }

    /// What was found instead of labels.
    pub fn instead_of_labels(&self) -> Result<Option<Instead>> {
        let Some(table) = self.files.first() else {
            return Ok(None);
        };
        let others = table.others()?;
        Ok(Some(match &table.label {
            Some(label) => Instead {
                found: format!(
                    "nothing but -1, NaN, null and empty text in column {label:?} of {}",
                    others.join(", ")
                ),
                like_labels: true,
                hint: HINT,
            },
            None => Instead {
                found: no_label(&others),
                like_labels: others.iter().any(|name| label::is_like(name)),
                hint: HINT,
            },
        }))
    }

    pub fn walk(&self, from: Position, read: bool, visit: Visit) -> Walked {
        for (nth, table) in self.files.iter().enumerate().skip(from.file) {
            let mut at = from.start_in(nth);
            let size = table.image_size()?;
            for batch in table.batches(at, read)? {
                let batch = batch?;
                let columns = table.columns(&batch)?;
                for row in 0..batch.num_rows() {
                    let position = Position { file: nth, at };
                    at += 1;
                    let mut item = columns.item(table, row, position);
                    if !read {
                        item.size = size;
                        item.image = Ok(Vec::new());
                    }
                    visit(item)?;
                }
            }
        }
        Ok(())
    }
}

impl ImageTable {
    /// The columns beside that of the images.
    fn others(&self) -> Result<Vec<String>> {
        let builder = builder(&self.path)?;
        let names = builder.schema().fields().iter().map(|field| field.name().clone());
        Ok(names.filter(|name| *name != self.image).collect())
    }

    fn open(
        path: PathBuf,
        split: SplitName,
        said: &columns::Columns,
    ) -> Result<(ImageTable, Option<Vec<String>>)> {
        let builder = builder(&path)?;
        let (metadata, fields) = (builder.metadata(), builder.schema().fields());
        let pairs = metadata.file_metadata().key_value_metadata();
        let features = pairs
            .into_iter()
            .flatten()
            .find(|pair| pair.key == schema::HUGGING_FACE)
            .and_then(|pair| serde_json::from_str::<serde_json::Value>(pair.value.as_ref()?).ok())
            .map(|json| json["info"]["features"].clone())
            .unwrap_or_default();
        let kind = |name: &str| features[name]["_type"].as_str();
        let find = |is: &dyn Fn(&str, &DataType) -> bool| {
            let mut fields = fields.iter();
            fields.find(|f| is(f.name(), f.data_type())).map(|f| f.name().clone())
        };
        let named = |names: &'static [&str]| find(&|name, _| names.contains(&name));
        let image = image_column(fields, &kind);
        let Some(image) = image else {
            let expected = "a column of images: struct<bytes, path> or binary, and not of masks";
            return Err(no_column(&path, fields, expected, "name a file of encoded images"));
        };
        refuse_absent(&path, fields, said)?;
        let label = said.label.clone();
        let label = label
            .or_else(|| find(&|name, _| kind(name) == Some("ClassLabel") && LABELS.contains(&name)))
            .or_else(|| find(&|name, _| kind(name) == Some("ClassLabel")))
            .or_else(|| named(&LABELS));
        refuse_nested(&path, fields, label.as_deref())?;
        let names = label.as_ref().and_then(|label| {
            let names = features[label.as_str()]["names"].as_array()?.iter();
            names.map(|n| Some(n.as_str()?.to_string())).collect()
        });
        let key = said.key.clone().or_else(|| named(&KEYS));
        let table = ImageTable { key, path, split, image, label };
        Ok((table, names))
    }

    /// Bytes of an image on average: a file does not tell the size of each.
    fn image_size(&self) -> Result<u64> {
        let builder = builder(&self.path)?;
        let (mut bytes, mut rows) = (0u64, 0u64);
        for group in builder.metadata().row_groups() {
            rows = rows.saturating_add(group.num_rows().max(0) as u64);
            let images = group.columns().iter();
            for column in images.filter(|c| c.column_path().parts()[0] == self.image) {
                bytes = bytes.saturating_add(column.uncompressed_size().max(0) as u64);
            }
        }
        Ok(bytes.checked_div(rows).unwrap_or(0))
    }

    /// Rows from `at` on. Without `read` the images' bytes are left in the file.
    fn batches(
        &self,
        at: u64,
        read: bool,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>> + '_> {
        let builder = builder(&self.path)?;
        // Whole row groups before `at` are not even opened.
        let (mut groups, mut first, mut skip) = (Vec::new(), 0u64, 0);
        for (i, group) in builder.metadata().row_groups().iter().enumerate() {
            let end = first.saturating_add(group.num_rows().max(0) as u64);
            if end > at {
                if groups.is_empty() {
                    skip = at.saturating_sub(first);
                }
                groups.push(i);
            }
            first = end;
        }
        let schema = builder.parquet_schema();
        let wanted = schema.columns().iter().enumerate().filter(|(_, column)| {
            let parts = column.path().parts();
            let is = |name: &Option<String>| name.as_ref().is_some_and(|n| *n == parts[0]);
            let bytes = parts.len() == 1 || parts[1] == "bytes";
            let is_image = parts[0] == self.image;
            is_image && (!bytes || read) || is(&self.label) || is(&self.key)
        });
        let mut leaves: Vec<usize> = wanted.map(|(i, _)| i).collect();
        if leaves.is_empty() {
            // Rows are still to be counted.
            leaves.push(0);
        }
        let mask = ProjectionMask::leaves(schema, leaves);
        let builder = builder
            .with_projection(mask)
            .with_row_groups(groups)
            .with_offset(skip as usize)
            .with_batch_size(if read { BATCH } else { 4096 });
        let damaged = |found: String| damaged(&self.path, &found);
        let batches = contained::batches(builder).map_err(damaged)?;
        Ok(batches.map(move |batch| batch.map_err(damaged)))
    }

    fn columns(&self, batch: &RecordBatch) -> Result<BatchColumns> {
        let to = |column: &ArrayRef, kind: &DataType| {
            arrow::compute::cast(column, kind).map_err(|e| damaged(&self.path, &e.to_string()))
        };
        let named = |name: &Option<String>| name.as_ref().and_then(|n| batch.column_by_name(n));
        let image = batch.column_by_name(&self.image);
        let (bytes, path) = match image.and_then(|i| i.as_struct_opt()) {
            Some(image) => {
                (image.column_by_name("bytes").cloned(), image.column_by_name("path").cloned())
            }
            None => (image.cloned(), None),
        };
        let label = named(&self.label);
        Ok(BatchColumns {
            bytes: bytes.map(|c| to(&c, &DataType::LargeBinary)).transpose()?,
            path: path.map(|c| to(&c, &DataType::Utf8)).transpose()?,
            key: named(&self.key).map(|c| to(c, &DataType::Utf8)).transpose()?,
            numbers: label
                .filter(|c| c.data_type().is_integer())
                .map(|c| to(c, &DataType::Int64))
                .transpose()?,
            floats: label
                .filter(|c| c.data_type().is_floating())
                .map(|c| to(c, &DataType::Float64))
                .transpose()?,
            names: label
                .filter(|c| !c.data_type().is_integer() && !c.data_type().is_floating())
                .map(|c| to(c, &DataType::Utf8))
                .transpose()?,
        })
    }
}

/// The columns of a batch, cast to the types that are read.
struct BatchColumns {
    bytes: Option<ArrayRef>,
    path: Option<ArrayRef>,
    key: Option<ArrayRef>,
    numbers: Option<ArrayRef>,
    floats: Option<ArrayRef>,
    names: Option<ArrayRef>,
}

impl BatchColumns {
    fn class(&self, row: usize) -> Class {
        let columns = [&self.numbers, &self.floats, &self.names];
        match columns.map(|c| c.as_ref().filter(|c| c.is_valid(row))) {
            [Some(c), ..] => label::of_integer(c.as_primitive::<Int64Type>().value(row)),
            [_, Some(c), _] => label::of_float(c.as_primitive::<Float64Type>().value(row)),
            [.., Some(c)] => label::of_text(c.as_string::<i32>().value(row)),
            _ => Class::Unknown,
        }
    }

    fn item(&self, table: &ImageTable, row: usize, position: Position) -> Item {
        let text = |column: &Option<ArrayRef>| {
            let column = column.as_ref()?.as_string::<i32>();
            column.is_valid(row).then(|| column.value(row).to_string())
        };
        let name = text(&self.key).or(text(&self.path)).filter(|n| !n.is_empty());
        let bytes = self.bytes.as_ref().map(|c| c.as_binary::<i64>());
        let image = match bytes {
            Some(bytes) if bytes.is_valid(row) => match bytes.value(row) {
                bytes if bytes.len() as u64 > MAX_IMAGE_BYTES => {
                    Err(format!("{} bytes, more than {MAX_IMAGE_BYTES}", bytes.len()))
                }
                bytes => Ok(bytes.to_vec()),
            },
            _ => Err("a row without the image's bytes".to_string()),
        };
        Item {
            name: name.unwrap_or_else(|| row_name(&table.path, position.at)),
            position,
            split: table.split,
            class: self.class(row),
            size: 0,
            image: image.map_err(Fault::Image),
        }
    }
}

/// Errors if a column that an option names is missing.
fn refuse_absent(path: &Path, fields: &Fields, said: &columns::Columns) -> Result<()> {
    for (option, name) in [("--key-column", &said.key), ("--label-column", &said.label)] {
        if let Some(name) = name.as_ref().filter(|name| fields.find(name).is_none()) {
            let hint = format!("correct {option}");
            return Err(no_column(path, fields, &format!("a column {name:?}"), &hint));
        }
    }
    Ok(())
}

/// Errors if an image has several labels, or a label has parts.
fn refuse_nested(path: &Path, fields: &Fields, label: Option<&str>) -> Result<()> {
    let nested = label.and_then(|label| Some(fields.find(label)?.1));
    match nested.filter(|field| field.data_type().is_nested()) {
        Some(field) => Err(Error::bad_data(
            path,
            "one label per image",
            format!("column {:?} of {}", field.name(), field.data_type()),
            "write a column of single labels, and name it with --label-column",
        )),
        None => Ok(()),
    }
}

fn no_column(path: &Path, fields: &Fields, expected: &str, hint: &str) -> Error {
    let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
    Error::bad_data(path, expected, format!("columns {}", names.join(", ")), hint)
}

fn builder(path: &Path) -> Result<contained::Builder<File>> {
    let file = File::open(path).map_err(Error::io(path))?;
    // Types as stored: the file may carry an Arrow schema of its own.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    contained::open(file, options).map_err(|e| damaged(path, &e))
}

/// The image column: chosen by its name, else the first column of pictures that are not masks.
fn image_column<'a>(fields: &Fields, kind: &dyn Fn(&str) -> Option<&'a str>) -> Option<String> {
    let is_image = |of: &DataType| match of {
        DataType::Struct(fields) => fields.iter().any(|f| f.name() == "bytes"),
        DataType::Binary | DataType::LargeBinary => true,
        _ => false,
    };
    let find = |is: &dyn Fn(&str, &DataType) -> bool| {
        let field = fields.iter().find(|f| is(f.name(), f.data_type()));
        field.map(|f| f.name().clone())
    };
    let is_picture = |name: &str, of: &DataType| {
        kind(name) == Some("Image") || matches!(of, DataType::Struct(_)) && is_image(of)
    };
    let named = IMAGES.iter().find_map(|image| {
        find(&|name, of| name == *image && (is_image(of) || is_picture(name, of)))
    });
    named
        .or_else(|| find(&|name, _| kind(name) == Some("Image") && !is_mask(name)))
        .or_else(|| find(&|name, of| is_picture(name, of) && !is_mask(name)))
}

/// The list of columns, for an error if none has labels.
fn no_label(others: &[String]) -> String {
    format!("no column of labels among {}", others.join(", "))
}

/// The name of an image that has none.
fn row_name(path: &Path, row: u64) -> String {
    format!("{}-{row:06}", path.file_stem().unwrap_or_default().display())
}

/// Whether a column of pictures holds masks.
fn is_mask(name: &str) -> bool {
    const MASKS: [&str; 3] = ["mask", "segment", "annotation"];
    let name = name.to_lowercase();
    MASKS.iter().any(|mask| name.contains(mask))
}

fn damaged(path: &Path, found: &str) -> Error {
    let found = found.replace('\n', " ");
    let is_codec = ["Disabled feature", "NYI", "not yet implemented", "not supported"];
    match is_codec.iter().any(|words| found.contains(words)) {
        true => Error::bad_data(
            path,
            "parquet that is plain or Snappy, gzip, zstd, brotli or lz4",
            found,
            "write it again with one of these",
        ),
        false => Error::bad_data(path, "a whole parquet file", found, "copy it again"),
    }
}
