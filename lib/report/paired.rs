//! The difference of a row to the supervised one on the same images. Most of a single row's interval comes
//! from how difficult the images are; in the difference this cancels out.

use super::rows::{Difference, TableRow};
use super::runs::Run;
use crate::evaluate::metrics::RESAMPLES;
use crate::rng::{self, RngExt, Stream};
use crate::schema::{INPUT_PREFIX, input};
use std::collections::BTreeMap;

/// Sets the difference of each row to the supervised row with as many labels, if there is one, over the
/// seeds that both rows have.
pub fn compare(rows: &mut [TableRow]) {
    let pairs: Vec<_> = rows.iter().map(|row| Some(pairs(row, base(row, rows)?))).collect();
    for (row, pairs) in rows.iter_mut().zip(pairs) {
        row.difference = pairs.filter(|pairs| !pairs.is_empty()).map(|pairs| difference(&pairs));
    }
}

/// By the names of the rows. Where the numbers of labels are known, these must be equal too.
fn base<'a, 'b>(row: &TableRow, rows: &'a [TableRow<'b>]) -> Option<&'a TableRow<'b>> {
    let names: &[&str] = match row.name.ends_with("_1p") {
        true => &["supervised_1p"],
        false => &["supervised_10p", "supervised"],
    };
    let base = names.iter().find_map(|name| rows.iter().find(|base| base.name == *name))?;
    (base.name != row.name && base.labels() == row.labels()).then_some(base)
}

/// Pairs of runs with the same seed, one of each row, on the same images.
fn pairs<'a>(row: &TableRow<'a>, base: &TableRow<'a>) -> Vec<(&'a Run, &'a Run)> {
    let images = |run: &Run| {
        [input::SHARDS, input::LABELLED]
            .map(|name| run.lineage.get(&format!("{INPUT_PREFIX}{name}")).cloned())
    };
    let same = |a: &Run, b: &Run| {
        a.summary.seed == b.summary.seed && a.right.len() == b.right.len() && images(a) == images(b)
    };
    let of = |run: &'a Run| Some((run, *base.runs.iter().find(|other| same(run, other))?));
    row.runs.iter().filter_map(|run| of(run)).collect()
}

/// Mean over seeds and images of (first is right) - (second is right), each 0 or 1.
fn difference(pairs: &[(&Run, &Run)]) -> Difference {
    let images = pairs[0].0.right.len();
    // Most images have the same differences in all seeds, so images are counted by kind: their differences
    // per seed.
    let mut kinds: BTreeMap<Vec<i8>, usize> = BTreeMap::new();
    let mut kind_of = Vec::with_capacity(images);
    for image in 0..images {
        let of_seed = |(a, b): &(&Run, &Run)| i8::from(a.right[image]) - i8::from(b.right[image]);
        let next = kinds.len();
        kind_of.push(*kinds.entry(pairs.iter().map(of_seed).collect()).or_insert(next));
    }
    let all = (images * pairs.len()) as f64;
    let sum = |counts: &[u64], seeds: &[u64]| -> f64 {
        let of_kind = |(kind, &nth): (&Vec<i8>, &usize)| -> i64 {
            let weighted = kind.iter().zip(seeds).map(|(&d, &times)| i64::from(d) * times as i64);
            weighted.sum::<i64>() * counts[nth] as i64
        };
        kinds.iter().map(of_kind).sum::<i64>() as f64 / all
    };
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            let mut rng = rng::rng(0, Stream::Bootstrap, 1, resample);
            let mut seeds = vec![0; pairs.len()];
            (0..pairs.len())
                .for_each(|_| seeds[rng.random_range(0..pairs.len() as u32) as usize] += 1);
            let mut counts = vec![0; kinds.len()];
            (0..images)
                .for_each(|_| counts[kind_of[rng.random_range(0..images as u32) as usize]] += 1);
            sum(&counts, &seeds)
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let mut counts = vec![0; kinds.len()];
    kind_of.iter().for_each(|&kind| counts[kind] += 1);
    Difference {
        mean: sum(&counts, &vec![1; pairs.len()]),
        low: resampled[24],
        high: resampled[974],
    }
}
