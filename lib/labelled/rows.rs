//! The rows of a split that a table of labels names.

use crate::error::{Error, Result};
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::table::Table;
use std::collections::HashSet;

/// Hash of the labels of all images of a split.
pub fn labels_hash(split: &Split) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for label in split.labels()? {
        hasher.update(&label.map_or(-1, i64::from).to_le_bytes());
    }
    Ok(schema::short_hash(&hasher.finalize()))
}

/// The split whose images a table has labels of, by its footer; `train` if that does not say.
pub fn split_of(table: &Table, shards: &Shards) -> Result<(String, Split)> {
    let made_from = table.metadata.get(&images_key());
    let splits = shards.contents();
    let found = splits.iter().find(|(_, content)| Some(**content) == made_from.map(String::as_str));
    // Labels of other images than those of any split are refused by `labelled_rows`.
    let name = found.map_or("train", |(name, _)| name);
    Ok((name.to_string(), shards.split(name)?))
}

/// Of the footer: the hash of the images.
fn images_key() -> String {
    format!("{}{}", schema::INPUT_PREFIX, schema::input::SHARDS)
}

/// Rows of the split and labels that a table names in `schema::KEY` and a label column.
///
/// Errors: `BadData` if the table was made from other images, if there are no rows, if a key is not in the split or there twice, or if a label is
/// outside of the classes.
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

/// Errors if the table says that it was made from other images than those of the split, which may well
/// have the same keys.
fn refuse_other_images(table: &Table, split: &Split) -> Result<()> {
    let (images, shards) = (split.content_hash(), split.path().display());
    match table.metadata.get(&images_key()) {
        Some(found) if found != images => Err(Error::bad_data(
            &table.path,
            format!("labels of the images of {shards}, with hash {images}"),
            format!("labels of others, with hash {found}"),
            "make it again from these shards, or name the split that it is of",
        )),
        _ => Ok(()),
    }
}
