//! The views of a method: the pipes that make the views of each image, for both halves of a batch.

use crate::augment::{Mode, Output, Pipe};
use crate::error::Result;
use crate::settings::{Checked, Fault, Settings};

/// The pipes of each half, as written in a recipe. Each image goes through all pipes of its half.
pub struct Pipes<'a> {
    pub labelled: Vec<&'a str>,
    pub unlabelled: Vec<&'a str>,
}

/// The views of each image, by half.
pub struct Views {
    pub labelled: ImageViews,
    pub unlabelled: ImageViews,
}

/// The views of one image: those of each pipe, one pipe after the other.
#[derive(Debug, Clone)]
pub struct ImageViews(Vec<(Pipe, Output)>);

impl Views {
    /// The views of images with this many channels.
    ///
    /// Errors: as `Pipe::parse` and `Pipe::output`.
    pub fn new(pipes: &Pipes, channels: usize) -> Result<Views> {
        Ok(Views {
            labelled: ImageViews::new(&pipes.labelled, channels)?,
            unlabelled: ImageViews::new(&pipes.unlabelled, channels)?,
        })
    }

    /// Images in the main pass of a step; each view counts as one.
    pub fn images_a_step(&self, s: &Settings) -> usize {
        s.batch * self.labelled.count() + s.unlabelled_batch * self.unlabelled.count()
    }

    /// All views go through the network together.
    pub fn check_sizes(&self, s: &Settings) -> Checked {
        let unlabelled = self.unlabelled.outputs().filter(|_| s.unlabelled_batch > 0);
        let sizes = self.labelled.outputs().chain(unlabelled).map(|o| (o.height, o.width));
        let first = self.labelled.first();
        match sizes.into_iter().find(|&size| size != (first.height, first.width)) {
            None => Ok(()),
            Some((height, width)) => Err(Fault::new(
                format!("views of {}x{} and of {height}x{width}", first.height, first.width),
                "let all training pipes end in the same size",
            )),
        }
    }

    /// For losses that treat the views of both halves alike.
    pub fn check_alike(&self, s: &Settings) -> Checked {
        if s.unlabelled_batch == 0 || self.labelled.outputs().eq(self.unlabelled.outputs()) {
            return Ok(());
        }
        Err(Fault::new(
            "augment_labelled and augment_unlabelled give images of different size or views",
            "end both in the same steps",
        ))
    }
}

impl ImageViews {
    /// Of one pipe or more.
    pub fn new(pipes: &[&str], channels: usize) -> Result<ImageViews> {
        let views = pipes.iter().map(|text| {
            let pipe = Pipe::parse(text, Mode::Train)?;
            let output = pipe.output(channels)?;
            Ok((pipe, output))
        });
        Ok(ImageViews(views.collect::<Result<_>>()?))
    }

    /// The pipes in order, with the output of each.
    pub fn pipes(&self) -> impl Iterator<Item = &(Pipe, Output)> {
        self.0.iter()
    }

    /// The output of each pipe.
    pub fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.0.iter().map(|(_, output)| output)
    }

    /// The output of the first pipe.
    pub fn first(&self) -> &Output {
        &self.0[0].1
    }

    /// Views per image.
    pub fn count(&self) -> usize {
        self.outputs().map(|o| o.views).sum()
    }

    /// Values of all views of one image.
    pub fn values(&self) -> usize {
        self.outputs().map(Output::values).sum()
    }
}
