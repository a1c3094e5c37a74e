//! Parquet files: schema, statistics of the small columns, lineage.

use super::{count, made_from, section, title};
use crate::error::{Error, Result};
use crate::evaluate::metrics::{EvalSummary, Summary};
use crate::schema::SUMMARY_KEY;
use crate::tables::{contained, table};
use ::parquet::arrow::arrow_reader::ArrowReaderOptions;
use ::parquet::arrow::{ARROW_SCHEMA_META_KEY, ProjectionMask};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use indicatif::HumanCount;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Most different values of a column that are counted one by one.
const MOST_VALUES: usize = 20;

/// Rows, statistics of each column, the evaluation summary in the footer, lineage.
pub fn describe(path: &Path) -> Result<String> {
    let builder = open(path)?;
    let metadata = builder.metadata().clone();
    let fields = builder.schema().fields().clone();
    let mut columns: Vec<Column> = fields.iter().map(|f| Column::of(f.data_type())).collect();
    let wanted: Vec<usize> =
        (0..columns.len()).filter(|&c| !matches!(columns[c], Column::Skipped)).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.iter().copied());
    for batch in batches(path, builder.with_projection(mask))? {
        let batch = batch?;
        for (array, &c) in batch.columns().iter().zip(&wanted) {
            columns[c].add(array);
        }
    }
    let lines: Vec<Vec<String>> = fields
        .iter()
        .zip(&columns)
        .map(|(field, column)| {
            let kind = match field.data_type() {
                DataType::Struct(_) => "Struct".to_string(),
                other => other.to_string(),
            };
            vec![field.name().clone(), kind, column.describe()]
        })
        .collect();
    let rows = metadata.file_metadata().num_rows().unsigned_abs();
    let groups = count(metadata.num_row_groups() as u64, "row group");
    let more = format!(", {} in {groups}", count(rows, "row"));
    let mut pairs: BTreeMap<String, String> = metadata
        .file_metadata()
        .key_value_metadata()
        .into_iter()
        .flatten()
        // The Arrow schema is what "columns" shows.
        .filter(|pair| pair.key != ARROW_SCHEMA_META_KEY)
        .filter_map(|pair| Some((pair.key.clone(), pair.value.clone()?)))
        .collect();
    let summary = pairs.remove(SUMMARY_KEY).map_or(Ok(String::new()), |json| {
        serde_json::from_str(&json).map(|summary| evaluation(&summary)).map_err(|e| bad(path, &e))
    })?;
    Ok(title(path, "parquet", &more)? + &section("columns", &lines) + &summary + &made_from(&pairs))
}

/// The bytes are as written, and every page of every column can be read.
pub fn verify(path: &Path) -> Result<()> {
    table::metadata(path, "the stage that made it")?;
    for batch in batches(path, open(path)?)? {
        batch?;
    }
    Ok(())
}

/// Number of rows according to the footer.
pub fn rows(path: &Path) -> Result<u64> {
    let builder = open(path)?;
    Ok(builder.metadata().file_metadata().num_rows().unsigned_abs())
}

fn open(path: &Path) -> Result<contained::Builder<File>> {
    let file = File::open(path).map_err(Error::io(path))?;
    contained::open(file, ArrowReaderOptions::new()).map_err(|e| bad(path, &e))
}

fn batches(
    path: &Path,
    builder: contained::Builder<File>,
) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let batches = contained::batches(builder).map_err(|e| bad(path, &e))?;
    Ok(batches.map(|batch| batch.map_err(|e| bad(path, &e))))
}

fn bad(path: &Path, e: &dyn std::fmt::Display) -> Error {
    Error::bad_data(path, "a parquet file", e.to_string(), "make it again")
}

fn evaluation(summary: &EvalSummary) -> String {
    let line = |name: &str, s: &Summary| {
        let percent = |f: f64| format!("{:.2}%", f * 100.0);
        let interval = format!("[{}, {}]", percent(s.top1_low), percent(s.top1_high));
        vec![
            name.to_string(),
            format!("top-1 {} {interval}", percent(s.top1)),
            format!("top-5 {}", percent(s.top5)),
            format!("NLL {:.4}", s.nll),
            format!("ECE {}", percent(s.ece)),
        ]
    };
    let mut lines = vec![line("unrotated", &summary.unrotated)];
    lines.extend(summary.rotation_averaged.iter().map(|s| line("mean of 4 rotations", s)));
    let EvalSummary { row, method, seed, split, .. } = summary;
    let heading = format!("evaluation of {row} ({method}, seed {seed}) on {split}");
    section(&heading, &lines)
}

/// Statistics of one column.
enum Column {
    Ints(Tally<i64>),
    Strings(Tally<String>),
    Bools(Tally<bool>),
    Floats(Spread),
    /// Images and other large or nested values.
    Skipped,
}

impl Column {
    fn of(kind: &DataType) -> Column {
        match kind {
            DataType::Int64 => Column::Ints(Tally::default()),
            DataType::Utf8 => Column::Strings(Tally::default()),
            DataType::Boolean => Column::Bools(Tally::default()),
            DataType::Float32 | DataType::Float64 => Column::Floats(Spread::default()),
            DataType::List(item) | DataType::FixedSizeList(item, _) => {
                match Column::of(item.data_type()) {
                    Column::Floats(spread) => Column::Floats(spread),
                    _ => Column::Skipped,
                }
            }
            _ => Column::Skipped,
        }
    }

    fn add(&mut self, array: &ArrayRef) {
        match self {
            Column::Ints(tally) => tally.add(array.as_primitive::<Int64Type>().iter()),
            Column::Strings(tally) => {
                tally.add(array.as_string::<i32>().iter().map(|s| s.map(String::from)));
            }
            Column::Bools(tally) => tally.add(array.as_boolean().iter()),
            Column::Floats(spread) => spread.add(array),
            Column::Skipped => {}
        }
    }

    fn describe(&self) -> String {
        match self {
            Column::Ints(tally) => tally.describe(),
            Column::Strings(tally) => tally.describe(),
            Column::Bools(tally) => tally.describe(),
            Column::Floats(spread) => spread.describe(),
            Column::Skipped => String::new(),
        }
    }
}

/// Counts per value while there are few values; the range if there are many.
#[derive(Default)]
struct Tally<T> {
    counts: BTreeMap<T, u64>,
    many: bool,
    nulls: u64,
}

impl<T: Ord + std::fmt::Display> Tally<T> {
    fn add(&mut self, values: impl Iterator<Item = Option<T>>) {
        for value in values {
            let Some(value) = value else {
                self.nulls += 1;
                continue;
            };
            *self.counts.entry(value).or_default() += 1;
            if self.counts.len() > MOST_VALUES {
                // From now on only the range counts.
                self.many = true;
                let ends = [self.counts.pop_first(), self.counts.pop_last()];
                self.counts.clear();
                self.counts.extend(ends.into_iter().flatten());
            }
        }
    }

    fn describe(&self) -> String {
        let mut text = match (self.counts.first_key_value(), self.counts.last_key_value()) {
            (Some((low, _)), Some((high, _))) if self.many => format!("{low} to {high}"),
            (Some((_, first)), _)
                if self.counts.len() > 1 && self.counts.values().all(|n| n == first) =>
            {
                let values: Vec<String> = self.counts.keys().map(T::to_string).collect();
                format!("{} each of {}", HumanCount(*first), values.join(", "))
            }
            _ => {
                let counts = self.counts.iter();
                let counts = counts.map(|(value, n)| format!("{} of {value}", HumanCount(*n)));
                counts.collect::<Vec<_>>().join(", ")
            }
        };
        if self.nulls > 0 {
            let separator = if text.is_empty() { "" } else { "; " };
            text += &format!("{separator}{} null", HumanCount(self.nulls));
        }
        text
    }
}

/// Range and mean of numbers.
struct Spread {
    low: f64,
    high: f64,
    sum: f64,
    finite: u64,
    not_finite: u64,
    nulls: u64,
}

impl Default for Spread {
    fn default() -> Spread {
        Spread {
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            sum: 0.0,
            finite: 0,
            not_finite: 0,
            nulls: 0,
        }
    }
}

impl Spread {
    /// Adds the numbers of a column, or of the lists in it.
    fn add(&mut self, array: &ArrayRef) {
        self.nulls += array.null_count() as u64;
        if let Some(list) = array.as_fixed_size_list_opt() {
            self.add(list.values());
        } else if let Some(list) = array.as_list_opt::<i32>() {
            self.add(list.values());
        } else if let Some(floats) = array.as_primitive_opt::<Float32Type>() {
            floats.iter().flatten().for_each(|f| self.add_one(f.into()));
        } else if let Some(floats) = array.as_primitive_opt::<Float64Type>() {
            floats.iter().flatten().for_each(|f| self.add_one(f));
        }
    }

    fn add_one(&mut self, value: f64) {
        if value.is_finite() {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
            self.sum += value;
            self.finite += 1;
        } else {
            self.not_finite += 1;
        }
    }

    fn describe(&self) -> String {
        let mut parts = Vec::new();
        if self.finite > 0 {
            let mean = self.sum / self.finite as f64;
            parts.push(format!("{:.4} to {:.4}, mean {mean:.4}", self.low, self.high));
        }
        if self.not_finite > 0 {
            parts.push(format!("{} not finite", HumanCount(self.not_finite)));
        }
        if self.nulls > 0 {
            parts.push(format!("{} null", HumanCount(self.nulls)));
        }
        parts.join("; ")
    }
}
