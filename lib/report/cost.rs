//! What the stages of each run used, as their provenance files say. It varies between runs that give the same
//! bytes, so it is in files of its own.

use super::rows::TableRow;
use super::runs::{Run, model_of};
use super::table::csv_field;
use crate::artifact;
use crate::error::{Error, Result};
use crate::page::frame::{Page, escape};
use crate::schema;
use crate::usage::Usage;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

/// Columns of `cost.csv`.
const COLUMNS: [&str; 10] = [
    "row",
    "seed",
    "output",
    "stage",
    schema::SECONDS,
    schema::CPU_SECONDS,
    schema::PEAK_MEMORY,
    schema::THREADS,
    schema::INSTRUCTIONS,
    schema::HOST,
];

/// Their names on the page.
const HEADS: [&str; 10] = [
    "Row",
    "Seed",
    "Output",
    "Stage",
    "Seconds",
    "CPU seconds",
    "Peak MB",
    "Threads",
    "Instructions",
    "Machine",
];

const NOTE: &str = "From the provenance files beside the outputs; outputs without one are not listed. Training \
    counts all its runs up to the end, other stages the last run, parts of an output together. Times of stages \
    that ran side by side, or beside other work, do not compare; nor do those of other machines.";

/// Writes `cost.csv` and `cost.html`, unless they say the same already.
pub fn write(out: &Path, rows: &[TableRow]) -> Result<()> {
    let lines: Vec<[String; 10]> = rows.iter().flat_map(lines).collect();
    for (name, text) in [(schema::COST_CSV, csv(&lines)), (schema::COST_PAGE, page(&lines))] {
        let path = out.join(name);
        let there = artifact::is_file(&path)?;
        if !there || std::fs::read(&path).map_err(Error::io(&path))? != text.as_bytes() {
            artifact::write_bytes(&path, text.as_bytes())?;
        }
    }
    Ok(())
}

fn csv(lines: &[[String; 10]]) -> String {
    let line = |cells: &[String; 10]| cells.each_ref().map(|cell| csv_field(cell)).join(",");
    let lines = std::iter::once(COLUMNS.join(",")).chain(lines.iter().map(line));
    lines.map(|line| line + "\n").collect()
}

fn page(lines: &[[String; 10]]) -> String {
    let mut body = format!(
        "<p>{NOTE}</p>\n<section>\n<div class=wide><table>\n<thead><tr><th scope=col>{}</thead>\n<tbody>\n",
        HEADS.join("<th scope=col>")
    );
    for cells in lines {
        let [row, rest @ ..] = cells.each_ref().map(|cell| escape(cell));
        let _ = writeln!(body, "<tr><th scope=row>{row}<td>{}", rest.join("<td>"));
    }
    body += "</tbody>\n</table></div>\n</section>";
    Page { generator: "s4l-report", title: "Cost of the stages", width: 1160, body: &body }.html()
}

/// A line per output of each run of the row.
fn lines(row: &TableRow) -> Vec<[String; 10]> {
    row.runs.iter().flat_map(|run| of_run(row.name, run)).collect()
}

fn of_run(row: &str, run: &Run) -> Vec<[String; 10]> {
    let outputs = [model_of(&run.path), run.path.with_file_name(schema::LABELS), run.path.clone()];
    let place = |output: &Path| {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let folder = run.place.strip_suffix(schema::EVAL).unwrap_or_default();
        format!("{folder}{name}")
    };
    let line = |output: &Path| {
        let record = artifact::provenance_of(output)?;
        let Usage { seconds, cpu_seconds, peak_memory_mb } = used(&record);
        let known = |key: &str, text: String| match record.get(key) {
            Some(_) => text,
            None => String::new(),
        };
        let program = record.pointer(&format!("/{}/0", schema::COMMAND)).and_then(Value::as_str);
        let program = program.and_then(|path| Path::new(path).file_name());
        Some([
            row.to_string(),
            run.summary.seed.to_string(),
            place(output),
            program.unwrap_or_default().to_string_lossy().into_owned(),
            known(schema::SECONDS, format!("{seconds:.1}")),
            known(schema::CPU_SECONDS, format!("{cpu_seconds:.1}")),
            known(schema::PEAK_MEMORY, peak_memory_mb.to_string()),
            each(&record, schema::THREADS),
            each(&record, schema::INSTRUCTIONS),
            each(&record, schema::HOST),
        ])
    };
    outputs.iter().filter_map(|output| line(output)).collect()
}

/// A record, and those of the parts from which the output was joined.
fn records(record: &Value) -> impl Iterator<Item = &Value> {
    let parts = record.get(schema::PARTS).and_then(Value::as_array);
    std::iter::once(record).chain(parts.into_iter().flatten())
}

fn used(record: &Value) -> Usage {
    let number = |record: &Value, key: &str| record[key].as_f64().unwrap_or_default();
    let of = |record| Usage {
        seconds: number(record, schema::SECONDS),
        cpu_seconds: number(record, schema::CPU_SECONDS),
        peak_memory_mb: number(record, schema::PEAK_MEMORY) as u64,
    };
    records(record).map(of).fold(Usage::default(), Usage::and)
}

/// The different values of a key.
fn each(record: &Value, key: &str) -> String {
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_string);
    let values = records(record).filter_map(|record| record.get(key).map(text));
    values.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}
