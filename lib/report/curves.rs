//! Learning curves: over the seeds of a row, thinned for a small chart, and drawn.

use super::rows::TableRow;
use crate::page::chart::{self, Line, Point};
use crate::page::frame::escape;
use crate::schema::metric;
use std::collections::BTreeMap;
use std::fmt::Write;

/// In a chart of about 300 pixels, more points than this are indistinguishable.
const MOST_POINTS: usize = 100;

/// A curve over the seeds of a row; empty if no run has it. Values that are not finite, as of a diverging
/// loss, are left out.
fn curve(row: &TableRow, name: &str) -> Vec<Point> {
    let mut by_step: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for (step, value) in row.runs.iter().filter_map(|r| r.curves.get(name)).flatten() {
        if value.is_finite() {
            by_step.entry(*step).or_default().push(*value);
        }
    }
    let points: Vec<Point> = by_step
        .into_iter()
        .map(|(step, values)| Point {
            step: step as f64,
            mean: mean(values.iter().copied()),
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
        .collect();
    let together = points.len().div_ceil(MOST_POINTS).max(1);
    points
        .chunks(together)
        .map(|chunk| Point {
            step: mean(chunk.iter().map(|p| p.step)),
            mean: mean(chunk.iter().map(|p| p.mean)),
            low: mean(chunk.iter().map(|p| p.low)),
            high: mean(chunk.iter().map(|p| p.high)),
        })
        .collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// The loss terms with their colour classes.
const LOSSES: [(&str, &str, &str); 7] = [
    (metric::LOSS, "total", "total"),
    (metric::LOSS_SUPERVISED, "supervised", "supervised"),
    (metric::LOSS_ROTATION, "rotation", "rotation"),
    (metric::LOSS_EXEMPLAR, "exemplar", "exemplar"),
    (metric::LOSS_VAT, "VAT", "vat"),
    (metric::LOSS_FIXMATCH, "FixMatch", "vat"),
    (metric::LOSS_ENTMIN, "EntMin", "entmin"),
];
const ACCURACIES: [(&str, &str, &str); 2] = [
    (metric::TRAIN_TOP1, "training", "total"),
    (metric::VALIDATION_TOP1, "validation", "supervised"),
];

/// The charts of all rows, two per row.
pub fn charts(rows: &[TableRow]) -> String {
    let accuracies: Vec<Vec<Line>> = rows.iter().map(|r| lines(r, &ACCURACIES)).collect();
    // The same range for all rows, so that they are comparable.
    let range: Vec<f64> = accuracies
        .iter()
        .flatten()
        .flat_map(|line| &line.points)
        .flat_map(|p| [p.low, p.high])
        .collect();
    let mut figures = String::new();
    for (row, accuracy) in rows.iter().zip(&accuracies) {
        let losses = loss_lines(row);
        if losses.is_empty() && accuracy.is_empty() {
            continue;
        }
        let _ = write!(figures, "<h3>{}</h3>\n<div class=pair>", escape(row.title));
        let _ = write!(figures, "<div><p>Training loss</p>");
        if !losses.is_empty() {
            let label = format!("Training loss of {}", row.title);
            figures += &chart::line_chart(&label, &losses, &[0.0], false);
        }
        let _ = write!(figures, "</div><div><p>Top-1 accuracy</p>");
        if !accuracy.is_empty() {
            let label = format!("Top-1 accuracy of {} while training", row.title);
            figures += &chart::line_chart(&label, accuracy, &range, true);
        }
        figures += "</div></div>\n";
    }
    if figures.is_empty() {
        figures = "<p>No run has a model/metrics.parquet beside it.</p>".into();
    }
    figures
}

/// The losses of a row. Losses that only its method has come last.
fn loss_lines<'a>(row: &TableRow<'a>) -> Vec<Line<'a>> {
    let named = row.runs.iter().flat_map(|run| run.curves.keys());
    let own = named.filter(|name| LOSSES.iter().all(|(known, ..)| known != name));
    let own = own.filter_map(|name| Some((&**name, name.strip_prefix(metric::LOSS_TERM)?)));
    let own = own.collect::<BTreeMap<&str, &str>>().into_iter();
    let own: Vec<_> = own.map(|(key, name)| (key, name, "exemplar")).collect();
    let mut all = lines(row, &LOSSES);
    all.extend(lines(row, &own));
    all
}

fn lines<'a>(row: &TableRow, known: &[(&str, &'a str, &'static str)]) -> Vec<Line<'a>> {
    known
        .iter()
        .map(|(key, name, class)| Line { class, name, points: curve(row, key) })
        .filter(|line| !line.points.is_empty())
        .collect()
}
