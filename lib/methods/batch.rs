//! A training batch: the images of one step, the meaning of its rows, and the labels.

use crate::error::Result;
use crate::ranks::Parts;
use crate::settings::Settings;
use candle_core::Tensor;

/// The images of one step, augmented.
#[derive(Debug)]
pub struct Batch {
    /// `[rows, height, width, channels]` in one buffer, in the order of `rows`: this rank's share of each half.
    pub images: Vec<f32>,
    /// Of all ranks, as the labels.
    pub rows: Rows,
    /// One label per labelled image.
    pub labels: Labels,
}

/// The rows of a batch: all views of each unlabelled image, then all views of each labelled one.
/// The views of an image are consecutive, in the order of its pipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    pub unlabelled: Half,
    pub labelled: Half,
}

/// One half of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Half {
    pub images: usize,
    /// Views per image.
    pub views: usize,
}

/// Some rows of a batch: a number of rows, from the first one on, each `every`-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stride {
    pub rows: usize,
    pub every: usize,
}

impl Stride {
    /// These rows of `[n, classes]`.
    pub fn pick(self, logits: &Tensor) -> Result<Tensor> {
        let Stride { rows, every } = self;
        let first = logits.narrow(0, 0, rows * every)?.reshape((rows, every, ()))?;
        Ok(first.narrow(1, 0, 1)?.squeeze(1)?)
    }
}

impl Rows {
    pub fn all(&self) -> usize {
        self.unlabelled.rows() + self.labelled.rows()
    }

    /// Rows of each half.
    pub fn parts(&self) -> Parts {
        [self.unlabelled.rows(), self.labelled.rows()]
    }

    /// How many of some rows are in each half.
    pub fn parts_of(&self, some: Stride) -> Parts {
        let first = (some.rows * some.every).min(self.unlabelled.rows()) / some.every;
        [first, some.rows - first]
    }
}

impl Half {
    pub fn rows(&self) -> usize {
        self.images * self.views
    }

    /// The rows with a class: all views of an image, or with `upright_classes` only the first view.
    pub fn classes(&self, s: &Settings) -> Stride {
        match s.upright_classes {
            true => Stride { rows: self.images, every: self.views },
            false => Stride { rows: self.rows(), every: 1 },
        }
    }
}

/// Labels of images, one per image.
#[derive(Debug, Clone)]
pub enum Labels {
    /// Numbers of classes.
    Hard(Vec<u32>),
    /// Class probabilities of a teacher, `[images, classes]`.
    Soft { probabilities: Vec<f32>, classes: usize },
}

impl Labels {
    /// The labels of some of the images, in the given order.
    pub fn pick(&self, images: impl Iterator<Item = usize>) -> Labels {
        match self {
            Labels::Hard(labels) => Labels::Hard(images.map(|i| labels[i]).collect()),
            Labels::Soft { probabilities, classes } => {
                let of = |i: usize| &probabilities[i * classes..(i + 1) * classes];
                let probabilities = images.flat_map(of).copied().collect();
                Labels::Soft { probabilities, classes: *classes }
            }
        }
    }
}
