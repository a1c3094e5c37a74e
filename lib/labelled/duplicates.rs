//! Duplicate images: byte for byte, by the content hash of the shards, or nearly, by a perceptual hash of
//! their pixels.

use crate::augment::resize::{self, Interpolation};
use crate::cli;
use crate::error::{Error, Result};
use crate::pixels::{Size, View};
use crate::shards::Split;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};

/// Rows of a split, and their name in messages.
pub struct NamedRows<'a> {
    pub name: String,
    pub split: &'a Split,
    pub rows: Vec<usize>,
}

impl<'a> NamedRows<'a> {
    /// All images of a split.
    pub fn whole(name: &str, split: &'a Split) -> NamedRows<'a> {
        NamedRows { name: format!("split {name:?}"), split, rows: (0..split.len()).collect() }
    }
}

/// The rows of a split with the same bytes as one of `rows`, including `rows`.
pub fn copies_of(rows: &[usize], hashes: &[String]) -> Vec<usize> {
    let known: HashSet<&str> = rows.iter().map(|&row| &*hashes[row]).collect();
    (0..hashes.len()).filter(|&row| known.contains(&*hashes[row])).collect()
}

/// Test images with the same bytes as a labelled image.
pub struct Leak {
    /// Number of images.
    pub count: usize,
    /// Key of the first test image, and of the labelled image.
    pub key: String,
    pub labelled: String,
}

/// The images of `others` with the same bytes as a labelled image; `None` if there are none.
pub fn leak(labelled: &NamedRows, others: &NamedRows) -> Result<Option<Leak>> {
    let hashes = labelled.split.hashes()?;
    let known: HashMap<&str, usize> = labelled.rows.iter().map(|&r| (&*hashes[r], r)).collect();
    let hashes = others.split.hashes()?;
    let rows = others.rows.iter();
    let found = rows.filter_map(|&row| Some((row, *known.get(&*hashes[row])?)));
    let found: Vec<_> = found.collect();
    Ok(found.first().map(|&(row, known)| Leak {
        count: found.len(),
        key: others.split.key(row).to_string(),
        labelled: labelled.split.key(known).to_string(),
    }))
}

/// A difference hash: whether the mean grey of a box is above that of the box on its left by more
/// than `STEP`, for 16 rows of 17 boxes which cover the image. Scale, compression and brightness
/// hardly change it.
type Perceptual = [u64; 4];

const BOXES: Size = Size { height: 16, width: 17 };

/// In grey levels of 255. Without this threshold, the noise of a clear sky would decide the bits.
const STEP: f32 = 1.0;

/// Images whose hashes differ in at most this many of the 256 bits count as nearly equal. Of 200
/// photographs, 98% match a copy of themselves saved at JPEG quality 75 (87% at half the size).
const NEAR_BITS: u32 = 8;

fn perceptual(split: &Split, row: usize) -> Result<Perceptual> {
    let image = split.decode(row)?;
    let size = Size { height: image.height, width: image.width };
    let view = View::new(&image.pixels, size, image.channels);
    let boxes = resize::resize(view, BOXES, Interpolation::Area);
    let mut hash = [0; 4];
    for y in 0..BOXES.height {
        let grey = |x: usize| -> f32 {
            let at = (y * BOXES.width + x) * boxes.channels;
            let values = &boxes.data[at..at + boxes.channels];
            values.iter().sum::<f32>() / values.len() as f32
        };
        for x in 0..BOXES.width - 1 {
            let bit = y * (BOXES.width - 1) + x;
            hash[bit / 64] |= u64::from(grey(x + 1) > grey(x) + STEP) << (bit % 64);
        }
    }
    Ok(hash)
}

fn perceptuals(set: &NamedRows) -> Result<Vec<Perceptual>> {
    let stopped = || Error::Interrupted { path: set.split.path().to_path_buf() };
    let rows = set.rows.par_iter();
    rows.map(|&row| match cli::stop_requested() {
        true => Err(stopped()),
        false => perceptual(set.split, row),
    })
    .collect()
}

/// Whether a hash is near one of the known hashes. Uses the processor's bit count if there is one.
struct IsNear<'a> {
    hash: &'a Perceptual,
    known: &'a [Perceptual],
}

impl pulp::WithSimd for IsNear<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> bool {
        let mut known = self.known.iter();
        known.any(|known| {
            let mut bits = 0;
            for (a, b) in known.iter().zip(self.hash) {
                bits += (a ^ b).count_ones();
            }
            bits <= NEAR_BITS
        })
    }
}

/// For each of `others`, how many of its images are nearly equal to a labelled one.
pub fn near(labelled: &NamedRows, others: &[NamedRows]) -> Result<Vec<usize>> {
    let known = &perceptuals(labelled)?;
    let arch = pulp::Arch::new();
    let count = |set: &NamedRows| {
        let hashes = perceptuals(set)?;
        let near = hashes.par_iter();
        Ok(near.filter(|hash| arch.dispatch(IsNear { hash, known })).count())
    };
    others.iter().map(count).collect()
}
