//! Warnings about files in archives that are not images, or that no image belongs to.

use super::item::Instead;
use super::samples::Label;
use crate::cli;
use crate::error::{Error, Result};
use std::path::Path;

/// Counts, each with the first of what it counts.
#[derive(Debug, Default)]
pub struct Notes {
    pub images: usize,
    /// By label files.
    pub labelled: usize,
    /// Whether an archive is cut.
    pub cut: bool,
    /// Samples with more than one image.
    pub several: u64,
    others: u64,
    first_other: String,
    dead_links: u64,
    first_link: String,
    without_image: u64,
    first_labels: Vec<String>,
    no_label: u64,
    first_keys: String,
    like_labels: bool,
}

impl Notes {
    pub fn other(&mut self, name: &str) {
        count(&mut self.others, &mut self.first_other, name);
    }

    pub fn dead_link(&mut self, words: &str) {
        count(&mut self.dead_links, &mut self.first_link, words);
    }

    /// JSON without a label.
    pub fn no_label(&mut self, keys: String, like_labels: bool) {
        count(&mut self.no_label, &mut self.first_keys, &keys);
        self.like_labels |= like_labels;
    }

    /// Labels of a sample without an image.
    pub fn without_image(&mut self, labels: &[Label]) {
        for label in labels.iter().filter(|label| !label.is_damaged) {
            self.without_image += 1;
            // The smallest: they come in no order.
            self.first_labels.push(label.name.clone());
            self.first_labels.sort();
            self.first_labels.truncate(3);
        }
    }

    /// What was found instead of labels.
    pub fn instead_of_labels(&self) -> Option<Instead> {
        let (found, like_labels) = match (self.labelled, self.no_label) {
            (0, 0) => return None,
            (0, n) => {
                let keys = &self.first_keys;
                let found =
                    format!("{n} JSON files without label, cls or class, the first has {keys}");
                (found, self.like_labels)
            }
            (n, _) => (format!("{n} label files that say -1, null or nothing"), true),
        };
        let hint = "correct them, or name the key of JSON with --label-column; ";
        Some(Instead { found, like_labels, hint })
    }

    /// Warns of what was skipped.
    ///
    /// Errors: `BadData` if there is no image, or if there are labels and no image has one.
    pub fn say(&self, root: &Path, labels_elsewhere: bool) -> Result<()> {
        let others = match self.others {
            0 => "none".to_string(),
            n => format!("none among {n} files, the first is {:?}", self.first_other),
        };
        if self.images == 0 && !self.cut {
            let hint = "unpack archives that are in it, and name what holds the images";
            return Err(Error::bad_data(root, "images", others, hint));
        }
        let no_labels = self.labelled == 0 && !labels_elsewhere;
        if self.without_image > 0 {
            let names = self.first_labels.join(", ");
            let found = format!("{} label files without an image, as {names}", self.without_image);
            if no_labels {
                let hint =
                    "name image and label alike but for the ending, as 0001.jpg and 0001.cls";
                return Err(Error::bad_data(root, "a label for each image", found, hint));
            }
            self.warn(root, &found);
        }
        if self.several > 0 {
            let n = self.several;
            self.warn(root, &format!("{n} samples have more than one image; the first was taken"));
        }
        if self.dead_links > 0 {
            let (n, first) = (self.dead_links, &self.first_link);
            self.warn(root, &format!(
                "{n} links lead to no file in the archive and were passed over, the first is {first}"
            ));
        }
        if self.others > 0 && self.labelled == 0 && !self.cut {
            let (n, first) = (self.others, &self.first_other);
            self.warn(
                root,
                &format!(
                    "{n} files are not images by name and were passed over, the first is {first}"
                ),
            );
        }
        Ok(())
    }

    fn warn(&self, root: &Path, words: &str) {
        cli::warn(&format!("{}: {words}", root.display()));
    }
}

fn count(number: &mut u64, first: &mut String, words: &str) {
    if *number == 0 {
        *first = words.to_string();
    }
    *number += 1;
}
