//! Inputs without a single label. If the input has a place for labels, such as label files or a column,
//! that is an error: labels were meant, and are all empty or have another name. It is no error if folders
//! or files are named as unlabelled.

use super::Input;
use super::item::Instead;
use super::splits::Splits;
use crate::cli;
use crate::error::{Error, Result};

/// Called if no image has a label. `apart`: whether all lie in folders of images without a class.
///
/// Errors: `BadData` that says what was found instead of labels.
pub fn check(input: &Input, splits: &Splits, apart: bool) -> Result<()> {
    if input.labels.is_some() || apart {
        return Ok(());
    }
    let Some(Instead { found, like_labels, hint }) = input.files.instead_of_labels()? else {
        return Ok(());
    };
    let root = &input.root;
    let mut names = input.file_names();
    match like_labels {
        false => cli::warn(&format!(
            "{}: {found}, so the images are unlabelled; {}",
            root.display(),
            hint.trim_end_matches("; ")
        )),
        true if names.all(|name| splits.is_unlabelled_file(&name)) => {}
        true => {
            let name = input.file_names().next().unwrap_or_default();
            let name = name.split(['/', '.']).next().unwrap_or_default();
            let hint = format!("{hint}if there are none, say so: --unlabelled {name}");
            return Err(Error::bad_data(root, "labels of images", found, hint));
        }
    }
    Ok(())
}
