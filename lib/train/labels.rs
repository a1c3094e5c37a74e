//! The labels to train on: known ones, or pseudo labels.

use crate::error::{Error, Result};
use crate::labelled::rows::labelled_rows;
use crate::methods::batch::Labels;
use crate::schema;
use crate::settings::Settings;
use crate::shards::Split;
use crate::tables::table::{self, Table};
use std::collections::HashSet;
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
/// Errors: `BadData` for known labels of held-out images, for labels that do not fit the split, and
/// if no image is left.
pub fn training_labels(
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
            "draw both with one call of s4l-subset",
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
}

impl PseudoLabels {
    /// Those that are confident enough and not held out.
    fn confident(&self, threshold: f64, held_out: &HashSet<u32>) -> Vec<usize> {
        let confident = |i: usize| f64::from(self.confidence[i]) >= threshold;
        let keep = |&i: &usize| !held_out.contains(&self.rows[i]) && confident(i);
        (0..self.rows.len()).filter(keep).collect()
    }
}

/// A known label is kept, whatever the model makes of its image.
fn pseudo_labels(
    table: &Table,
    settings: &Settings,
    split: &Split,
    classes: usize,
) -> Result<PseudoLabels> {
    let (rows, mut labels) = labelled_rows(table, split, classes, schema::LABEL)?;
    let mut confidence = table.floats(schema::CONFIDENCE)?;
    let (_, pseudo) = labelled_rows(table, split, classes, &settings.label_column)?;
    for (i, known) in table.bools(schema::KNOWN)?.into_iter().enumerate() {
        match known {
            true => confidence[i] = 1.0,
            false => labels[i] = pseudo[i],
        }
    }
    Ok(PseudoLabels { rows, labels, confidence })
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
