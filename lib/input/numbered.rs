//! Lists of one label per line, for images that are numbered by name, as the ground truth of ILSVRC-2012's
//! validation images.

use super::columns;
use super::item::{Class, SplitName};
use super::label;
use super::list::List;
use super::matching::Images;
use super::names::base_name;
use super::splits::{Splits, Tree};
use crate::error::{Error, Result};
use std::path::Path;

/// The ground truth of ILSVRC-2012, which uses the devkit's numbers, not those of the sorted names; and
/// the prefix of its image names.
const ILSVRC: (&str, &str) = ("ILSVRC2012_validation_ground_truth.txt", "ILSVRC2012_val_");

/// A list of one label per line, read.
pub struct Numbered {
    pub is_ilsvrc: bool,
    pub lines: Vec<NumberedLine>,
}

/// A line and its image.
pub struct NumberedLine {
    /// Of the line, from 1.
    pub number: u64,
    pub label: String,
    pub image: usize,
}

/// Labels and images, by their numbers.
struct Numbers<'a> {
    path: &'a Path,
    labels: Vec<String>,
    /// Each image with the number that its name ends in.
    images: Vec<(u64, usize)>,
}

impl Numbered {
    /// Errors: `BadData` if lines and images do not match one to one.
    pub fn read(list: &List, images: &Images, splits: &Splits) -> Result<Numbered> {
        let path = list.path();
        let mut numbers = Numbers { path, labels: list.lines()?, images: Vec::new() };
        let header = usize::from(numbers.has_header());
        numbers.labels.drain(..header);
        numbers.number(images, splits)?;
        let is_ilsvrc = path.file_name().is_some_and(|name| name == ILSVRC.0)
            && label::are_numbers(numbers.labels.iter());
        let certain = |(_, nth): &(u64, usize)| base_name(&images.name(*nth)).starts_with(ILSVRC.1);
        let first = match is_ilsvrc && numbers.images.iter().all(certain) {
            true => 1,
            false => numbers.fit(images)?,
        };
        let mut lines = Vec::with_capacity(numbers.images.len());
        for &(number, image) in &numbers.images {
            let at = number.wrapping_sub(first) as usize;
            let label = match numbers.labels.get(at) {
                Some(label) => label.clone(),
                None => return Err(numbers.misfit(&images.name(image))),
            };
            lines.push(NumberedLine { number: (at + header + 1) as u64, label, image });
        }
        Ok(Numbered { is_ilsvrc, lines })
    }
}

impl Numbers<'_> {
    /// Whether the first line is no label: it has the name of a column of labels, or is the only one
    /// that is not a number.
    fn has_header(&self) -> bool {
        let Some((first, others)) = self.labels.split_first() else {
            return false;
        };
        let is_name = |text: &str| matches!(label::counted(text), Class::Name(_));
        let only = !others.is_empty() && !others.iter().any(|text| is_name(text));
        columns::is_label(first) || is_name(first) && only
    }

    /// Numbers the images: those in no class folder, or all if each is in one.
    fn number(&mut self, images: &Images, splits: &Splits) -> Result<()> {
        let mut tree = Tree::default();
        (0..images.len()).for_each(|nth| tree.add(&images.name(nth)));
        let splits = splits.decide(&tree);
        let class = |nth: &usize| splits.place(&images.name(*nth), SplitName::Train).class;
        let mut without: Vec<usize> =
            (0..images.len()).filter(|nth| class(nth) == Class::Unknown).collect();
        if without.is_empty() {
            without = (0..images.len()).collect();
        }
        for nth in without {
            let name = images.name(nth);
            let number = number(&name).ok_or_else(|| self.misfit(&name))?;
            self.images.push((number, nth));
        }
        self.images.sort_unstable();
        Ok(())
    }

    /// The number of the first line, if lines and images match one to one. Empty lines at the end may be
    /// missing labels, or nothing.
    fn fit(&self, images: &Images) -> Result<u64> {
        let first = self.images.first().map_or(0, |(number, _)| *number);
        let in_a_row = (first..).zip(&self.images).all(|(a, (b, _))| a == *b);
        let end = self.labels.iter().rposition(|l| !l.is_empty()).map_or(0, |at| at + 1);
        let fits = (end..=self.labels.len()).contains(&self.images.len());
        match first <= 1 && in_a_row && fits {
            true => Ok(first),
            false => {
                let first = self.images.first().map(|(_, nth)| images.name(*nth));
                Err(self.misfit(&first.unwrap_or_default()))
            }
        }
    }

    fn misfit(&self, name: &str) -> Error {
        let numbers = match (self.images.first(), self.images.last()) {
            (Some((first, _)), Some((last, _))) => format!(" numbered from {first} to {last}"),
            _ => String::new(),
        };
        Error::bad_data(
            self.path,
            "names and labels, or a label for each image, these numbered from 0 or from 1",
            format!(
                "{} lines of one label and {} images{numbers}, as {name:?}",
                self.labels.len(),
                self.images.len()
            ),
            "write lines of name,label",
        )
    }
}

/// The number that a name ends in: 7 of `ILSVRC2012_val_00000007.JPEG`.
fn number(name: &str) -> Option<u64> {
    let stem = base_name(name).split('.').next().unwrap_or_default();
    let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem[digits..].parse().ok()
}
