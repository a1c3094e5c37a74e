//! Drawing a class-balanced subset.

use crate::rng::{Stream, permutation, rng};

/// A class with fewer images than asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct TooFew {
    pub class: usize,
    pub asked: usize,
    pub found: usize,
}

/// `per_class` rows of each class, none of them in `taken`, sorted. The rows of a class are put in
/// an order by (seed, stream, class) and the first free ones are drawn: a smaller draw lies within
/// a larger one.
pub fn draw(
    labels: &[Option<u32>],
    classes: usize,
    per_class: usize,
    seed: u64,
    stream: Stream,
    taken: &[usize],
) -> std::result::Result<Vec<usize>, TooFew> {
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
