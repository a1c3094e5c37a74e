//! The figures of an audit.

use super::labels::{Labels, Pseudo};
use crate::page::matrix::Counts;

/// Of some pseudo labels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub images: u64,
    confidence: f64,
    agreement: f64,
    /// Of those that an earlier model labelled too.
    pub compared: u64,
    pub changed: u64,
    /// Of those whose right label is known.
    pub judged: u64,
    pub right: u64,
}

impl Figures {
    pub fn of<'a>(pseudo: impl IntoIterator<Item = &'a Pseudo>) -> Figures {
        let mut all = Figures::default();
        pseudo.into_iter().for_each(|pseudo| all.add(pseudo));
        all
    }

    pub fn add(&mut self, pseudo: &Pseudo) {
        self.images += 1;
        self.confidence += pseudo.confidence;
        self.agreement += pseudo.agreement;
        self.compared += u64::from(pseudo.before.is_some());
        self.changed += u64::from(pseudo.changed());
        self.judged += u64::from(pseudo.truth.is_some());
        self.right += u64::from(pseudo.right() == Some(true));
    }

    pub fn confidence(&self) -> Option<f64> {
        share(self.confidence, self.images)
    }

    pub fn agreement(&self) -> Option<f64> {
        share(self.agreement, self.images)
    }

    /// Share of the right ones.
    pub fn precision(&self) -> Option<f64> {
        share(self.right as f64, self.judged)
    }
}

/// `None` of nothing.
fn share(sum: f64, of: u64) -> Option<f64> {
    (of > 0).then(|| sum / of as f64)
}

/// Figures of each class of the labels.
pub fn of_classes(labels: &Labels) -> Vec<Figures> {
    let mut figures = vec![Figures::default(); labels.classes.len()];
    labels.pseudo.iter().for_each(|pseudo| figures[pseudo.label as usize].add(pseudo));
    figures
}

/// Images of each class of the truth: how many, and how many have that pseudo label.
pub fn found(labels: &Labels) -> Vec<(u64, u64)> {
    let mut found = vec![(0, 0); labels.classes.len()];
    for (truth, pseudo) in labels.pseudo.iter().filter_map(|p| Some((p.truth?, p))) {
        let (images, hits) = &mut found[truth as usize];
        *images += 1;
        *hits += u64::from(truth == pseudo.label);
    }
    found
}

/// Parts of the range from 0 to 1.
pub const BINS: usize = 20;

/// Figures of the labels by a value between 0 and 1. Bins are closed below, the last one above too.
pub fn by(labels: &Labels, value: fn(&Pseudo) -> f64) -> [Figures; BINS] {
    let mut bins = [Figures::default(); BINS];
    for pseudo in &labels.pseudo {
        let bin = (value(pseudo) * BINS as f64) as usize;
        bins[bin.min(BINS - 1)].add(pseudo);
    }
    bins
}

/// How often a pair of labels occurs.
pub fn pairs(labels: &Labels, from: fn(&Pseudo) -> Option<u32>) -> Counts {
    let mut counts = Counts::new();
    for (from, pseudo) in labels.pseudo.iter().filter_map(|p| Some((from(p)?, p))) {
        *counts.entry((from, pseudo.label)).or_default() += 1;
    }
    counts
}
