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
    /// The same number of each class, from the rows of `within` only if there are some.
    Drawn { per_class: usize, within: Option<Vec<usize>> },
}

/// Rows, sorted. No image is in both, nor is a copy of one.
pub struct Chosen {
    pub labelled: Vec<usize>,
    pub validation: Vec<usize>,
}

/// Chooses the labelled images, and `validation` of each class to validate on. The validation set is
/// drawn first and from outside of what is listed or drawn within, so it is the same whatever the size
/// of the subset.
///
/// Errors: `TooFew` if a class has fewer images than are to be drawn.
pub fn choose(pool: &Pool, choice: Choice, validation: usize, seed: u64) -> Result<Chosen, TooFew> {
    let Pool { labels, hashes, classes } = *pool;
    let kept_out = match &choice {
        Choice::Listed(rows) | Choice::Drawn { within: Some(rows), .. } => copies_of(rows, hashes),
        Choice::Drawn { within: None, .. } => Vec::new(),
    };
    let validation = draw(labels, classes, validation, seed, Stream::Validation, &kept_out)?;
    let labelled = match choice {
        Choice::Listed(rows) => rows,
        Choice::Drawn { per_class, within } => {
            let mut taken = copies_of(&validation, hashes);
            if let Some(within) = within {
                let within: HashSet<usize> = within.into_iter().collect();
                taken.extend((0..labels.len()).filter(|row| !within.contains(row)));
            }
            draw(labels, classes, per_class, seed, Stream::Subset, &taken)?
        }
    };
    Ok(Chosen { labelled, validation })
}

/// A class with fewer free images than asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct TooFew {
    pub class: usize,
    pub asked: usize,
    pub found: usize,
}

/// `per_class` rows of each class, none of them in `taken`, sorted. The rows of a class are put in
/// an order by (seed, stream, class) and the first free ones are drawn: a smaller draw lies within
/// a larger one.
///
/// Errors: `TooFew`, of the first such class.
pub fn draw(
    labels: &[Option<u32>],
    classes: usize,
    per_class: usize,
    seed: u64,
    stream: Stream,
    taken: &[usize],
) -> Result<Vec<usize>, TooFew> {
    let mut free = vec![true; labels.len()];
    for &row in taken {
        free[row] = false;
    }
    let mut members = vec![Vec::new(); classes];
    for (row, label) in labels.iter().enumerate() {
        if let Some(label) = label {
            members[*label as usize].push(row);
        }
    }
    let mut rows = Vec::with_capacity(classes * per_class);
    for (class, members) in members.iter().enumerate() {
        let order = permutation(&mut rng(seed, stream, 0, class as u64), members.len());
        let before = rows.len();
        let candidates = order.into_iter().map(|i| members[i as usize]);
        rows.extend(candidates.filter(|&row| free[row]).take(per_class));
        let found = rows.len() - before;
        if found < per_class {
            return Err(TooFew { class, asked: per_class, found });
        }
    }
    rows.sort_unstable();
    Ok(rows)
}
