//! Learning curves of a row: over its seeds, and thinned to what a small chart can show.

use super::rows::TableRow;
use std::collections::BTreeMap;

/// More points than this cannot be told apart in a chart of some 300 pixels.
const MOST_POINTS: usize = 100;

/// Means over some neighbouring steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub step: f64,
    /// Mean, lowest and highest over the seeds.
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// A curve over the seeds of a row; empty when no run has it. Values that are not finite, as a
/// diverging loss leaves them, are left out.
pub fn curve(row: &TableRow, name: &str) -> Vec<Point> {
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
