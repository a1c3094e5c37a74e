//! The rows of a split in a table of labels.

use crate::error::{Error, Result};
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::table::{self, Table};
use std::collections::HashSet;
use std::path::Path;

/// Hash of the labels of all images of a split.
pub fn labels_hash(split: &Split) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for label in split.labels()? {
        hasher.update(&label.map_or(-1, i64::from).to_le_bytes());
    }
    Ok(schema::short_hash(&hasher.finalize()))
}

/// The split whose images a table labels, by the table's footer; `train` if the footer has none.
pub fn split_of(table: &Table, shards: &Shards) -> Result<(String, Split)> {
    let made_from = table.metadata.get(&images_key());
    let splits = shards.contents();
    let found = splits.iter().find(|(_, content)| Some(**content) == made_from.map(String::as_str));
    // `labelled_rows` refuses labels of images that are in no split.
    let name = found.map_or("train", |(name, _)| name);
    Ok((name.to_string(), shards.split(name)?))
}

/// Key of the footer: the hash of the images.
fn images_key() -> String {
    format!("{}{}", schema::INPUT_PREFIX, schema::input::SHARDS)
}

/// Rows of the split and labels in the columns `schema::KEY` and `column` of a table.
///
/// Errors: `BadData` if the table was made from other images, has no rows, has a key twice or one that is
/// not in the split, or has a label outside the classes.
pub fn labelled_rows(
    table: &Table,
    split: &Split,
    classes: usize,
    column: &str,
) -> Result<(Vec<u32>, Vec<u32>)> {
    refuse_other_images(table, split)?;
    let keys = table.strings(schema::KEY)?;
    let labels = table.ints(column)?;
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(keys.len());
    for (key, &label) in keys.iter().zip(&labels) {
        let row = split.row(key).ok_or_else(|| {
            Error::bad_data(
                &table.path,
                format!("keys of {}", split.path().display()),
                format!("unknown key {key:?}"),
                "make it again from these shards",
            )
        })?;
        if !(0..classes as i64).contains(&label) {
            return Err(Error::bad_data(
                &table.path,
                format!("labels 0 to {}", classes - 1),
                format!("{column} {label} of {key:?}"),
                "make it again from these shards",
            ));
        }
        if !seen.insert(row) {
            return Err(Error::bad_data(
                &table.path,
                "each key once",
                format!("{key:?} twice"),
                "remove one of the rows",
            ));
        }
        rows.push(row as u32);
    }
    if rows.is_empty() {
        return Err(Error::bad_data(
            &table.path,
            "labelled images",
            "no rows",
            "label some images",
        ));
    }
    Ok((rows, labels.iter().map(|&l| l as u32).collect()))
}

/// The label of each row of a split, if a table has one. Errors: as `labelled_rows`.
pub fn by_row(table: &Table, split: &Split, classes: usize) -> Result<Vec<Option<u32>>> {
    let (rows, labels) = labelled_rows(table, split, classes, schema::LABEL)?;
    let mut all = vec![None; split.len()];
    rows.into_iter().zip(labels).for_each(|(row, label)| all[row as usize] = Some(label));
    Ok(all)
}

/// The true label of each row of a split, if known, only for callers that ask for it: from a table, or from
/// a folder of shards with the same images.
pub fn truth(path: &Path, split: &Split, classes: &[String]) -> Result<Vec<Option<u32>>> {
    if !path.is_dir() {
        return by_row(&table::read(path, "s4l-subset")?, split, classes.len());
    }
    let shards = Shards::open(path)?;
    let contents = shards.contents();
    let same = contents.iter().find(|(_, content)| **content == split.content_hash());
    match same.filter(|_| shards.classes() == classes) {
        Some((name, _)) => Ok(shards.split(name)?.labels()?.to_vec()),
        None => Err(Error::bad_data(
            path,
            format!("the images and classes of {}", split.path().display()),
            "others",
            "name the shards that these were made from, or a table of keys and labels",
        )),
    }
}

/// Errors if the table was made from other images than those of the split, which may have the same keys.
fn refuse_other_images(table: &Table, split: &Split) -> Result<()> {
    let (images, shards) = (split.content_hash(), split.path().display());
    match table.metadata.get(&images_key()) {
        Some(found) if found != images => Err(Error::bad_data(
            &table.path,
            format!("labels of the images of {shards}, with hash {images}"),
            format!("labels of other images, with hash {found}"),
            "make it again from these shards, or name the split that it is of",
        )),
        _ => Ok(()),
    }
}
