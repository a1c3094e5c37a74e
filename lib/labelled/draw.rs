//! Choosing the labelled images: those of a list, or a class-balanced draw; and a validation set.

use super::duplicates::copies_of;
use crate::rng::{Stream, permutation, rng};
use std::collections::HashSet;

/// What is chosen from.
pub struct Pool<'a> {
    /// Of each row; `None` if unknown.
    pub labels: &'a [Option<u32>],
    /// Content hash of each row: copies of an image count as that image.
    pub hashes: &'a [String],
    pub classes: usize,
}

/// How the labelled images are chosen.
pub enum Choice {
    /// These rows.
    Listed(Vec<usize>),
    /// So many of each class, or all where it has fewer, from the rows of `within` only if there are some.
    Drawn { per_class: usize, within: Option<Vec<usize>> },
}

/// The size of a validation set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Validation {
    /// Of each class that has images.
    PerClass(usize),
    /// This share of each class, rounded; one image of a class is left over.
    Fraction(f64),
}

/// Rows, sorted. No image is in both, nor is a copy of one.
pub struct Chosen {
    pub labelled: Vec<usize>,
    pub validation: Vec<usize>,
}

/// Chooses the labelled images, and those to validate on. The validation set is drawn first and from
/// outside of what is listed or drawn within, so it does not depend on the size of the subset.
///
/// Errors: `TooFew` if a class has images, but fewer than are to be validated on.
pub fn choose(
    pool: &Pool,
    choice: Choice,
    validation: Validation,
    seed: u64,
) -> Result<Chosen, TooFew> {
    let Pool { labels, hashes, classes } = *pool;
    let kept_out = match &choice {
        Choice::Listed(rows) | Choice::Drawn { within: Some(rows), .. } => copies_of(rows, hashes),
        Choice::Drawn { within: None, .. } => Vec::new(),
    };
    let (wanted, enough) = sizes(validation, &count(labels, classes, 0..labels.len()));
    let validation = draw(labels, &wanted, seed, Stream::Validation, &kept_out);
    let found = count(labels, classes, validation.iter().copied());
    if let Some(class) = (0..classes).find(|&c| !enough && found[c] < wanted[c]) {
        return Err(TooFew { class, asked: wanted[class], found: found[class] });
    }
    let labelled = match choice {
        Choice::Listed(rows) => rows,
        Choice::Drawn { per_class, within } => {
            let mut taken = copies_of(&validation, hashes);
            if let Some(within) = within {
                let within: HashSet<usize> = within.into_iter().collect();
                taken.extend((0..labels.len()).filter(|row| !within.contains(row)));
            }
            draw(labels, &vec![per_class; classes], seed, Stream::Subset, &taken)
        }
    };
    Ok(Chosen { labelled, validation })
}

/// How many of each class are to be validated on, and whether fewer will do. `images`: of each class.
pub fn sizes(validation: Validation, images: &[usize]) -> (Vec<usize>, bool) {
    let of_class = |&images: &usize| match validation {
        Validation::PerClass(n) if images > 0 => n,
        Validation::PerClass(_) => 0,
        Validation::Fraction(f) => {
            ((f * images as f64).round() as usize).min(images.saturating_sub(1))
        }
    };
    (images.iter().map(of_class).collect(), matches!(validation, Validation::Fraction(_)))
}

/// A class with fewer free images than asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct TooFew {
    pub class: usize,
    pub asked: usize,
    pub found: usize,
}

/// Images of each class among some rows.
pub fn count(
    labels: &[Option<u32>],
    classes: usize,
    rows: impl IntoIterator<Item = usize>,
) -> Vec<usize> {
    let mut images = vec![0; classes];
    for label in rows.into_iter().filter_map(|row| labels[row]) {
        images[label as usize] += 1;
    }
    images
}

/// As many rows of each class as `wanted` says, or all where there are fewer, none of them in `taken`,
/// sorted. The rows of a class are put in an order by (seed, stream, class) and the first free ones are
/// drawn: a smaller draw lies within a larger one.
pub fn draw(
    labels: &[Option<u32>],
    wanted: &[usize],
    seed: u64,
    stream: Stream,
    taken: &[usize],
) -> Vec<usize> {
    let mut free = vec![true; labels.len()];
    for &row in taken {
        free[row] = false;
    }
    let mut members = vec![Vec::new(); wanted.len()];
    for (row, label) in labels.iter().enumerate() {
        if let Some(label) = label {
            members[*label as usize].push(row);
        }
    }
    let mut rows = Vec::new();
    for ((class, members), &wanted) in members.iter().enumerate().zip(wanted) {
        let order = permutation(&mut rng(seed, stream, 0, class as u64), members.len());
        let candidates = order.into_iter().map(|i| members[i as usize]);
        rows.extend(candidates.filter(|&row| free[row]).take(wanted));
    }
    rows.sort_unstable();
    rows
}
