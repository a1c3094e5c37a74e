//! The content of a shard folder, as a table for people, so that wrong labels are noticed at once.

use super::identity::Identity;
use std::collections::BTreeMap;

/// The content of a split.
#[derive(Debug, Default)]
pub struct Counts {
    pub images: u64,
    pub rejects: u64,
    /// Number of images per class, without empty classes.
    pub classes: BTreeMap<u32, u64>,
}

const HEAD: [&str; 9] = [
    "split",
    "images",
    "labelled",
    "unlabelled",
    "classes",
    "smallest",
    "largest",
    "rejects",
    "from",
];

/// The lines of the table, and the source of the labels.
pub fn lines(identity: &Identity, splits: &BTreeMap<String, Counts>) -> Vec<String> {
    let mut rows = vec![HEAD.map(str::to_string)];
    rows.extend(splits.iter().map(|(split, counts)| row(identity, split, counts)));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEAD.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
        })
        .collect();
    lines.push(format!("labels: {}", identity.taken.labels));
    lines
}

fn row(identity: &Identity, split: &str, counts: &Counts) -> [String; 9] {
    let labelled: u64 = counts.classes.values().sum();
    let class = |found: Option<(&u32, &u64)>| match found {
        Some((&class, images)) => {
            format!("{images} {}", identity.classes[class as usize].escape_debug())
        }
        None => "-".to_string(),
    };
    // Of equal ones, the first.
    let smallest = counts.classes.iter().min_by_key(|(class, images)| (**images, **class));
    let largest = counts.classes.iter().rev().max_by_key(|(_, images)| **images);
    [
        split.to_string(),
        counts.images.to_string(),
        labelled.to_string(),
        (counts.images - labelled).to_string(),
        counts.classes.len().to_string(),
        class(smallest),
        class(largest),
        counts.rejects.to_string(),
        identity.taken.splits.get(split).cloned().unwrap_or_default(),
    ]
}
