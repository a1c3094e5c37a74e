//! Pseudo labels, each with what it is compared with.

use crate::error::Result;
use crate::labelled::rows::{by_row, labelled_rows, split_of, truth};
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::table::{self, Table};
use std::path::Path;

/// The files of an audit.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    pub labels: &'a Path,
    pub shards: &'a Path,
    /// The labelled set, if it is not the known labels.
    pub labelled: Option<&'a Path>,
    /// Labels of the same images by an earlier model.
    pub before: Option<&'a Path>,
    /// The right labels: a table, or shards.
    pub truth: Option<&'a Path>,
}

/// A label that is not known, but a model's.
#[derive(Debug, Clone, Copy)]
pub struct Pseudo {
    pub row: u32,
    pub label: u32,
    pub confidence: f64,
    pub agreement: f64,
    /// The label of the earlier model.
    pub before: Option<u32>,
    pub truth: Option<u32>,
}

impl Pseudo {
    pub fn changed(&self) -> bool {
        self.before.is_some_and(|before| before != self.label)
    }

    /// Whether the label is right, if the true label is known.
    pub fn right(&self) -> Option<bool> {
        Some(self.truth? == self.label)
    }
}

/// All that an audit looks at.
pub struct Labels {
    pub classes: Vec<String>,
    pub split: Split,
    pub split_name: String,
    /// In the order of their rows.
    pub pseudo: Vec<Pseudo>,
    /// Number of known labels.
    pub known: usize,
    /// Images of each class in the labelled set.
    pub labelled: Vec<u64>,
    /// Whether there are labels of an earlier model, and right labels.
    pub before: bool,
    pub truth: bool,
}

/// Reads and joins the files.
///
/// Errors: `BadData` if one is of other images than the labels.
pub fn read(sources: Sources) -> Result<Labels> {
    let shards = Shards::open(sources.shards)?;
    let classes = shards.classes().to_vec();
    let table = table::read(sources.labels, "s4l-pseudolabel")?;
    let (split_name, split) = split_of(&table, &shards)?;
    let column = |table: &Table| labelled_rows(table, &split, classes.len(), schema::LABEL);
    let before = sources.before.map(|path| {
        let table = table::read(path, "s4l-pseudolabel")?;
        by_row(&table, &split, classes.len())
    });
    let before = before.transpose()?;
    let truth = sources.truth.map(|path| truth(path, &split, &classes)).transpose()?;
    let (rows, labels) = column(&table)?;
    let known = table.bools(schema::KNOWN)?;
    let mut labelled = vec![0; classes.len()];
    match sources.labelled {
        Some(path) => {
            let (_, labels) = column(&table::read(path, "s4l-subset")?)?;
            labels.iter().for_each(|&label| labelled[label as usize] += 1);
        }
        None => {
            let known = labels.iter().zip(&known).filter(|(_, known)| **known);
            known.for_each(|(&label, _)| labelled[label as usize] += 1);
        }
    }
    let of =
        |all: &Option<Vec<Option<u32>>>, row: u32| all.as_ref().and_then(|all| all[row as usize]);
    let confidence = table.floats(schema::CONFIDENCE)?;
    let agreement = table.floats(schema::AGREEMENT)?;
    let pseudo = (0..rows.len()).filter(|&nth| !known[nth]).map(|nth| Pseudo {
        row: rows[nth],
        label: labels[nth],
        confidence: confidence[nth].into(),
        agreement: agreement[nth].into(),
        before: of(&before, rows[nth]),
        truth: of(&truth, rows[nth]),
    });
    let mut pseudo: Vec<Pseudo> = pseudo.collect();
    pseudo.sort_unstable_by_key(|pseudo| pseudo.row);
    Ok(Labels {
        known: rows.len() - pseudo.len(),
        pseudo,
        labelled,
        before: before.is_some(),
        truth: truth.is_some(),
        split_name,
        classes,
        split,
    })
}
