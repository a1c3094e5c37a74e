//! The table as Markdown for people, and as CSV and parquet for programs.

use super::rows::{Difference, Estimate, TableRow, uneven};
use super::runs::Budget;
use crate::error::Result;
use crate::lineage::Lineage;
use crate::markdown::escape;
use crate::schema;
use crate::tables::table;
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use indicatif::HumanCount;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Note on the ImageNet column.
pub const PUBLISHED_NOTE: &str = "The ImageNet column is the paper's (arXiv 1905.03670), of ResNet-50v2 on the \
    1.28 million images of ILSVRC-2012 (MOAM: a network 4x as wide): another task and another network, so \
    the order of the rows compares, the absolute values do not. Other published figures: table.csv.";

/// Note on the column with the head "4 rotations".
pub const ROTATIONS_NOTE: &str =
    "4 rotations: top-1 of the mean of the logits over four rotations of each image.";

/// Note on the columns of differences.
pub const COMPARED_NOTE: &str = "To supervised: how many points top-1 is above that of the supervised row with \
    as many labels, by the same seeds; 95% bootstrap interval over seeds and images together, paired.";

/// Note on the columns of budgets.
pub const BUDGETS_NOTE: &str = "Labels seen, images seen: in the steps of training, with those of the models \
    that it began with; labels known or pseudo, each view an image, VAT's further passes not counted.";

/// Note on balanced accuracy, or on its absence.
pub fn balanced_note(uneven: bool) -> &'static str {
    match uneven {
        true => "Balanced: mean of the accuracies of the classes.",
        false => "All classes have as many images: balanced accuracy is top-1.",
    }
}

/// Note on the mark on a row.
pub const MIXED_NOTE: &str = "Runs that do not belong together; their figures do not compare:";

const SPREAD_NOTE: &str = "[low, high]: 95% bootstrap interval over images, one seed. \u{b1}: sample standard deviation \
     over seeds.";

/// `82.9`: a fraction as percent.
pub fn percent(fraction: f64) -> String {
    format!("{:.1}", fraction * 100.0)
}

/// `82.9 ± 0.4` for several runs, `82.9 [82.1, 83.6]` for one.
pub fn top1(row: &TableRow) -> String {
    match row.bootstrap() {
        Some((low, high)) => {
            let mean = row.estimate(|s| s.top1).mean;
            format!("{} [{}, {}]", percent(mean), percent(low), percent(high))
        }
        None => spread(row.estimate(|s| s.top1), 100.0, 1),
    }
}

/// `82.9 ± 0.4`, or `82.9` for one run.
pub fn spread(estimate: Estimate, scale: f64, decimals: usize) -> String {
    let mean = estimate.mean * scale;
    match estimate.sd {
        Some(sd) => format!("{mean:.decimals$} \u{b1} {:.decimals$}", sd * scale),
        None => format!("{mean:.decimals$}"),
    }
}

/// `+0.6 [0.2, 1.1]`; empty if there is no difference.
pub fn difference(row: &TableRow) -> String {
    let points = |fraction: f64| fraction * 100.0;
    row.difference.map_or(String::new(), |Difference { mean, low, high }| {
        format!("{:+.1} [{:.1}, {:.1}]", points(mean), points(low), points(high))
    })
}

/// `246 k`; empty if unknown.
pub fn budget(row: &TableRow, count: impl Fn(&Budget) -> u64) -> String {
    row.budget(count).map_or(String::new(), |count| match count {
        1e7.. => format!("{:.0} M", count / 1e6),
        1e4.. => format!("{:.0} k", count / 1e3),
        _ => format!("{:.1} k", count / 1e3),
    })
}

/// A published figure with the digits published; empty if there is none.
pub fn published(figure: Option<f64>) -> String {
    figure.map_or(String::new(), |f| format!("{f:.2}"))
}

/// A sentence on what was evaluated.
pub fn subject(rows: &[TableRow]) -> String {
    let summary = &rows[0].runs[0].summary;
    let runs: usize = rows.iter().map(|r| r.runs.len()).sum();
    format!(
        "{} images of the {} split, {} classes, {} {}",
        HumanCount(summary.unrotated.images),
        summary.split,
        summary.unrotated.per_class.len(),
        runs,
        if runs == 1 { "run" } else { "runs" }
    )
}

/// The optional columns of a table: only those with values.
#[derive(Clone, Copy)]
pub struct Shown {
    pub compared: bool,
    pub balanced: bool,
    pub averaged: bool,
    pub budgets: bool,
}

impl Shown {
    pub fn of(rows: &[TableRow]) -> Shown {
        Shown {
            compared: rows.iter().any(|row| row.difference.is_some()),
            balanced: uneven(rows),
            averaged: rows.iter().any(|row| row.rotation_averaged_top1().is_some()),
            budgets: rows.iter().any(|row| row.budget(|b| b.seen).is_some()),
        }
    }

    /// Notes on the columns whose heads do not explain them.
    pub fn notes(self) -> String {
        let notes = [
            (self.compared, COMPARED_NOTE),
            (true, balanced_note(self.balanced)),
            (self.averaged, ROTATIONS_NOTE),
            (self.budgets, BUDGETS_NOTE),
        ];
        let notes = notes.into_iter().filter_map(|(shown, note)| shown.then_some(note));
        notes.collect::<Vec<_>>().join(" ")
    }
}

/// A Markdown table, padded so that it is also readable in a terminal.
pub fn markdown(rows: &[TableRow]) -> String {
    let shown = Shown::of(rows);
    let mut cells = vec![header(shown)];
    cells.extend(rows.iter().map(|row| line(row, shown)));
    let widths: Vec<usize> = (0..cells[0].len())
        .map(|c| cells.iter().map(|line| line[c].chars().count()).max().unwrap_or(0))
        .collect();
    let rule = widths.iter().enumerate().map(|(c, &w)| match c {
        0 => "-".repeat(w),
        _ => format!("{}:", "-".repeat(w - 1)),
    });
    cells.insert(1, rule.collect());
    let mut text = String::new();
    for line in cells {
        for (c, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            let _ = match c {
                0 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
    }
    let (subject, mixed, notes) = (escape(&subject(rows)), mixed(rows), shown.notes());
    format!("{text}\n{mixed}{subject}. {SPREAD_NOTE} {notes}\n\n{PUBLISHED_NOTE}\n")
}

fn header(shown: Shown) -> Vec<String> {
    let cells = [
        Some("Row"),
        Some("Top-1 %"),
        shown.compared.then_some("To supervised"),
        shown.balanced.then_some("Balanced %"),
        shown.averaged.then_some("4 rotations"),
        Some("Top-5 %"),
        Some("NLL"),
        Some("ECE %"),
        shown.budgets.then_some("Labels seen"),
        shown.budgets.then_some("Images seen"),
        Some("Seeds"),
        Some("ImageNet paper top-5"),
    ];
    cells.into_iter().flatten().map(String::from).collect()
}

/// The cells of a row, in the order of `header`.
fn line(row: &TableRow, shown: Shown) -> Vec<String> {
    let rotations = row.rotation_averaged_top1().map(|e| spread(e, 100.0, 1));
    let cells = [
        Some(escape(row.title) + row.mark()),
        Some(top1(row)),
        shown.compared.then(|| difference(row)),
        shown.balanced.then(|| spread(row.balanced_accuracy(), 100.0, 1)),
        shown.averaged.then(|| rotations.unwrap_or_default()),
        Some(spread(row.estimate(|s| s.top5), 100.0, 1)),
        Some(spread(row.estimate(|s| s.nll), 1.0, 3)),
        Some(spread(row.estimate(|s| s.ece), 100.0, 1)),
        shown.budgets.then(|| budget(row, |b| b.labelled)),
        shown.budgets.then(|| budget(row, |b| b.seen)),
        Some(row.runs.len().to_string()),
        Some(published(row.published.paper_top5)),
    ];
    cells.into_iter().flatten().collect()
}

/// The list of what does not belong together; empty if there is nothing to list.
fn mixed(rows: &[TableRow]) -> String {
    let notes = rows.iter().flat_map(|row| row.notes.iter().map(move |note| (row, note)));
    let items: String =
        notes.map(|(row, note)| format!("- {}: {}\n", escape(row.title), escape(note))).collect();
    if items.is_empty() { items } else { format!("\\* {MIXED_NOTE}\n\n{items}\n") }
}

enum Column {
    Text(Vec<String>),
    Count(Vec<i64>),
    Figure(Vec<Option<f64>>),
}

/// The columns of `schema::report`.
fn columns(rows: &[TableRow]) -> Vec<Column> {
    let text = |f: &dyn Fn(&TableRow) -> String| Column::Text(rows.iter().map(f).collect());
    let count = |f: &dyn Fn(&TableRow) -> i64| Column::Count(rows.iter().map(f).collect());
    let figure =
        |f: &dyn Fn(&TableRow) -> Option<f64>| Column::Figure(rows.iter().map(f).collect());
    let percent = |f: &dyn Fn(&TableRow) -> Option<f64>| figure(&|r| Some(f(r)? * 100.0));
    vec![
        text(&|r| r.name.to_string()),
        text(&|r| r.title.to_string()),
        text(&|r| r.runs[0].summary.method.clone()),
        text(&|r| r.runs[0].summary.split.clone()),
        count(&|r| r.runs[0].summary.unrotated.images as i64),
        count(&|r| r.runs.len() as i64),
        percent(&|r| Some(r.estimate(|s| s.top1).mean)),
        percent(&|r| r.estimate(|s| s.top1).sd),
        percent(&|r| Some(r.bootstrap()?.0)),
        percent(&|r| Some(r.bootstrap()?.1)),
        percent(&|r| Some(r.difference?.mean)),
        percent(&|r| Some(r.difference?.low)),
        percent(&|r| Some(r.difference?.high)),
        percent(&|r| Some(r.rotation_averaged_top1()?.mean)),
        percent(&|r| Some(r.balanced_accuracy().mean)),
        percent(&|r| r.balanced_accuracy().sd),
        percent(&|r| Some(r.estimate(|s| s.top5).mean)),
        percent(&|r| r.estimate(|s| s.top5).sd),
        figure(&|r| Some(r.estimate(|s| s.nll).mean)),
        figure(&|r| r.estimate(|s| s.nll).sd),
        percent(&|r| Some(r.estimate(|s| s.ece).mean)),
        percent(&|r| r.estimate(|s| s.ece).sd),
        figure(&|r| r.budget(|b| b.labelled)),
        figure(&|r| r.budget(|b| b.seen)),
        figure(&|r| r.published.paper_top5),
        figure(&|r| r.published.rerun_top5),
        figure(&|r| r.published.paper_top1),
        figure(&|r| r.published.rerun_top1),
        text(&|r| r.notes.join("; ")),
    ]
}

/// Text as RFC 4180 has it. If a spreadsheet would read it as a formula, an apostrophe comes first.
pub fn csv_field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_string() };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// RFC 4180, with a header; an unknown figure is an empty field.
pub fn csv(rows: &[TableRow]) -> String {
    let columns = columns(rows);
    let schema = schema::report();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut text = names.join(",") + "\n";
    for i in 0..rows.len() {
        let fields: Vec<String> = columns
            .iter()
            .map(|column| match column {
                Column::Text(v) => csv_field(&v[i]),
                Column::Count(v) => v[i].to_string(),
                Column::Figure(v) => v[i].map_or(String::new(), |f| format!("{f:.4}")),
            })
            .collect();
        text += &fields.join(",");
        text.push('\n');
    }
    text
}

/// The same columns as parquet; an unknown figure is null.
pub fn parquet(path: &Path, rows: &[TableRow], lineage: &Lineage) -> Result<()> {
    let arrays = columns(rows).into_iter().map(|column| -> ArrayRef {
        match column {
            Column::Text(v) => Arc::new(StringArray::from(v)),
            Column::Count(v) => Arc::new(Int64Array::from(v)),
            Column::Figure(v) => Arc::new(Float64Array::from(v)),
        }
    });
    table::write(path, schema::report(), arrays.collect(), lineage, BTreeMap::new())
}
