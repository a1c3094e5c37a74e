//! The labels to train on: known ones, or pseudo labels.

use crate::cli;
use crate::error::{Error, Result};
use crate::labelled::rows::labelled_rows;
use crate::methods::batch::Labels;
use crate::schema;
use crate::settings::Settings;
use crate::shards::Split;
use crate::tables::table::{self, Table};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Where the labels come from.
pub enum LabelFile {
    /// `labelled.parquet`.
    Known(PathBuf),
    /// `labels.parquet` of `s4l-pseudolabel`: its labels, or its class probabilities.
    Pseudo { path: PathBuf, soft: bool },
}

impl LabelFile {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            LabelFile::Known(path) | LabelFile::Pseudo { path, .. } => path,
        }
    }

    /// How the labels of the file are read.
    pub fn kind(&self) -> &'static str {
        match self {
            LabelFile::Known(_) => "known",
            LabelFile::Pseudo { soft: false, .. } => "pseudo",
            LabelFile::Pseudo { soft: true, .. } => "soft",
        }
    }
}

/// The rows of the split to train on, their labels, and the hash of the file that has them. Images of
/// `held_out` are not among them.
///
/// With `balance_classes` rows come several times.
///
/// Errors: `BadData` for known labels of held-out images, for labels that do not fit the split, and
/// if no image is left.
pub fn training_labels(
    file: &LabelFile,
    settings: &Settings,
    split: &Split,
    classes: usize,
    held_out: &HashSet<u32>,
) -> Result<(Vec<u32>, Labels, String)> {
    let (rows, labels, hash) = labels_of(file, settings, split, classes, held_out)?;
    Ok(match labels {
        Labels::Hard(labels) if settings.balance_classes => {
            let (rows, labels) = balanced(&rows, &labels);
            (rows, Labels::Hard(labels), hash)
        }
        labels => (rows, labels, hash),
    })
}

/// Each class as often as the largest: the images of the others come several times.
fn balanced(rows: &[u32], labels: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut of_class = BTreeMap::<u32, Vec<u32>>::new();
    for (&row, &label) in rows.iter().zip(labels) {
        of_class.entry(label).or_default().push(row);
    }
    let largest = of_class.values().map(Vec::len).max().unwrap_or(0);
    let again = |(label, rows): (u32, Vec<u32>)| {
        rows.into_iter().cycle().take(largest).map(move |row| (row, label))
    };
    of_class.into_iter().flat_map(again).unzip()
}

fn labels_of(
    file: &LabelFile,
    settings: &Settings,
    split: &Split,
    classes: usize,
    held_out: &HashSet<u32>,
) -> Result<(Vec<u32>, Labels, String)> {
    match file {
        LabelFile::Known(path) => {
            let table = table::read(path, "s4l-subset")?;
            let (rows, labels) = labelled_rows(&table, split, classes, schema::LABEL)?;
            none_is_held_out(path, split, &rows, held_out)?;
            Ok((rows, Labels::Hard(labels), table.hash))
        }
        LabelFile::Pseudo { path, soft } => {
            let table = table::read(path, "s4l-pseudolabel")?;
            let pseudo = pseudo_labels(&table, settings, split, classes)?;
            let keep = pseudo.confident(settings.min_confidence, held_out);
            if keep.is_empty() {
                return Err(Error::bad_data(
                    path,
                    format!("labels with a confidence of at least {}", settings.min_confidence),
                    "none",
                    "lower min_confidence",
                ));
            }
            if settings.min_confidence > 0.0 {
                say_kept(path, &pseudo, &keep, settings.min_confidence, classes);
            }
            let labels = match soft {
                true => probabilities(&table, classes)?,
                false => Labels::Hard(pseudo.labels),
            };
            let rows = keep.iter().map(|&i| pseudo.rows[i]).collect();
            Ok((rows, labels.pick(keep.into_iter()), table.hash))
        }
    }
}

fn none_is_held_out(
    path: &Path,
    split: &Split,
    rows: &[u32],
    held_out: &HashSet<u32>,
) -> Result<()> {
    match rows.iter().find(|row| held_out.contains(row)) {
        None => Ok(()),
        Some(&row) => Err(Error::bad_data(
            path,
            "images that are not in the validation set",
            format!("{:?}", split.key(row as usize)),
            "draw both sets in one call of s4l-subset",
        )),
    }
}

/// The labels in a table of pseudo labels, one of each of its rows.
struct PseudoLabels {
    /// Rows of the split.
    rows: Vec<u32>,
    labels: Vec<u32>,
    /// 1 of a known label.
    confidence: Vec<f32>,
    known: Vec<bool>,
}

impl PseudoLabels {
    /// Those that are confident enough and not held out.
    fn confident(&self, threshold: f64, held_out: &HashSet<u32>) -> Vec<usize> {
        let confident = |i: usize| f64::from(self.confidence[i]) >= threshold;
        let keep = |&i: &usize| !held_out.contains(&self.rows[i]) && confident(i);
        (0..self.rows.len()).filter(keep).collect()
    }
}

/// How many pseudo labels are confident enough, and in how many classes.
fn say_kept(path: &Path, pseudo: &PseudoLabels, keep: &[usize], threshold: f64, classes: usize) {
    let all = pseudo.known.iter().filter(|&&known| !known).count();
    let mut of_class = vec![0; classes];
    for &i in keep.iter().filter(|&&i| !pseudo.known[i]) {
        of_class[pseudo.labels[i] as usize] += 1;
    }
    let (kept, none) =
        (of_class.iter().sum::<usize>(), of_class.iter().filter(|&&n| n == 0).count());
    let words = format!(
        "{}: {kept} of {all} pseudo labels have a confidence of at least {threshold}, at most {} in a \
         class; {none} of {classes} classes have none",
        path.display(),
        of_class.iter().max().unwrap_or(&0)
    );
    match none {
        0 => cli::info(&words),
        _ => cli::warn(&words),
    }
}

/// A known label is kept, whatever the model predicts for its image.
fn pseudo_labels(
    table: &Table,
    settings: &Settings,
    split: &Split,
    classes: usize,
) -> Result<PseudoLabels> {
    let (rows, mut labels) = labelled_rows(table, split, classes, schema::LABEL)?;
    let mut confidence = table.floats(schema::CONFIDENCE)?;
    let (_, pseudo) = labelled_rows(table, split, classes, &settings.label_column)?;
    let known = table.bools(schema::KNOWN)?;
    for (i, known) in known.iter().enumerate() {
        match known {
            true => confidence[i] = 1.0,
            false => labels[i] = pseudo[i],
        }
    }
    Ok(PseudoLabels { rows, labels, confidence, known })
}

/// The class probabilities in a table of pseudo labels.
fn probabilities(table: &Table, classes: usize) -> Result<Labels> {
    let (probabilities, width) = table.float_lists(schema::PROBS)?;
    if width != classes {
        return Err(Error::bad_data(
            &table.path,
            format!("probs of {classes} classes"),
            format!("{width}"),
            "make it again from these shards",
        ));
    }
    Ok(Labels::Soft { probabilities, classes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_classes_come_as_often_as_the_largest() {
        let (rows, labels) = balanced(&[4, 7, 1, 9, 8, 2], &[2, 0, 2, 0, 2, 5]);
        assert_eq!(rows, [7, 9, 7, 4, 1, 8, 2, 2, 2]);
        assert_eq!(labels, [0, 0, 0, 2, 2, 2, 5, 5, 5]);
    }
}
