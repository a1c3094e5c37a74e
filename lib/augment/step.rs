//! A step of a pipe, and its effect on views in memory.

use super::color::{self, HsvNoise, InceptionColor};
use super::crop;
use super::randaugment;
use super::resize::{self, Interpolation};
use crate::error::{Error, Result};
use crate::pixels::{Image, Size, Window};
use crate::rng::{Rng, RngExt};
use std::sync::Arc;

/// Whether the views are for training or for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Train,
    Eval,
}

#[derive(Debug, Clone)]
pub struct Step {
    /// The whole pipe, for messages.
    pub pipe: Arc<str>,
    pub text: String,
    pub op: Op,
}

/// The operation of a step, with the mode already applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Crop(Crop),
    MultiCrop(Size),
    InceptionPatches { views: usize, size: Size },
    InceptionPreprocess { views: usize, size: Size, mode: Mode },
    Resize { size: Size, randomize: bool, dct_scaling: bool },
    ResizeSmall(usize),
    FlipLr,
    RandAugment { transforms: usize },
    Cutout { side: usize },
    Rotate,
    HsvNoise,
    ValueRange { min: f32, max: f32 },
    ToGray { probability: f64 },
    Standardize,
}

/// A step that keeps one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Crop {
    Inception,
    Random(Size),
    Central(Size),
}

impl Op {
    /// Number of output views per input view.
    pub fn views(&self) -> usize {
        match *self {
            Op::MultiCrop(_) => 5,
            Op::Rotate => 4,
            Op::InceptionPatches { views, .. } | Op::InceptionPreprocess { views, .. } => views,
            _ => 1,
        }
    }

    pub fn needs_rgb(&self) -> bool {
        matches!(self, Op::HsvNoise | Op::ToGray { .. } | Op::InceptionPreprocess { .. })
    }
}

impl Step {
    /// The size of the output views for input views of `size`; `None` if it depends on the image.
    ///
    /// Errors: the step cannot take that size.
    pub fn size_after(&self, size: Option<Size>) -> Result<Option<Size>> {
        Ok(match self.op {
            Op::Crop(Crop::Inception) => None,
            Op::Crop(Crop::Random(part) | Crop::Central(part)) | Op::MultiCrop(part) => {
                if let Some(size) = size {
                    self.check_fits(size, part)?;
                }
                Some(part)
            }
            Op::InceptionPatches { size, .. }
            | Op::InceptionPreprocess { size, .. }
            | Op::Resize { size, .. } => Some(size),
            Op::ResizeSmall(side) => size.map(|size| resize::smaller_side(size, side)),
            Op::Rotate => match size {
                Some(Size { height, width }) if height != width => {
                    let found = format!("{height}x{width} there");
                    let hint = "crop or resize to a square before it";
                    return Err(self.wrong("square images", &found, hint));
                }
                size => size,
            },
            Op::FlipLr
            | Op::RandAugment { .. }
            | Op::Cutout { .. }
            | Op::HsvNoise
            | Op::ValueRange { .. }
            | Op::ToGray { .. }
            | Op::Standardize => size,
        })
    }

    /// Replaces each view by the step's output for it, in order.
    ///
    /// Errors: a crop does not fit a view.
    pub fn apply(&self, views: &mut Vec<Image>, rng: &mut impl Rng) -> Result<()> {
        match self.op {
            Op::Crop(crop) => {
                for view in views {
                    *view = view.crop(self.window(crop, view.size(), rng)?);
                }
            }
            Op::MultiCrop(part) => {
                for view in views.iter() {
                    self.check_fits(view.size(), part)?;
                }
                expand(views, |v| crop::multi(v.size(), part).map(|window| v.crop(window)));
            }
            Op::InceptionPatches { views: n, size } => {
                expand(views, |v| repeat(n, || inception_patch(v, size, rng)));
            }
            Op::InceptionPreprocess { views: n, size, mode } => {
                expand(views, |v| repeat(n, || inception_preprocess(v, size, mode, rng)));
            }
            // Pixels that are already decoded are not scaled by the decoder.
            Op::Resize { size, randomize, .. } => {
                let method = resize_method(randomize, rng);
                views.iter_mut().for_each(|v| *v = resize::resize(v.view(), size, method));
            }
            Op::ResizeSmall(side) => {
                for view in views {
                    let size = resize::smaller_side(view.size(), side);
                    *view = resize::resize(view.view(), size, Interpolation::Area);
                }
            }
            Op::FlipLr => views.iter_mut().for_each(|v| maybe_flip(v, rng)),
            Op::RandAugment { transforms } => {
                views.iter_mut().for_each(|v| randaugment::randaugment(v, transforms, rng));
            }
            Op::Cutout { side } => {
                views.iter_mut().for_each(|v| randaugment::random_cutout(v, side, rng));
            }
            Op::Rotate => expand(views, |v| [0, 1, 2, 3].map(|turns| v.rotate(turns))),
            Op::HsvNoise => views.iter_mut().for_each(|v| HsvNoise::draw(rng).apply(v)),
            Op::ValueRange { min, max } => {
                views.iter_mut().for_each(|v| color::value_range(v, min, max));
            }
            Op::ToGray { probability } => {
                for view in views {
                    if rng.random_bool(probability) {
                        color::to_gray(view);
                    }
                }
            }
            Op::Standardize => views.iter_mut().for_each(color::standardize),
        }
        Ok(())
    }

    /// The window that a crop keeps of an image of this size.
    pub fn window(&self, crop: Crop, size: Size, rng: &mut impl Rng) -> Result<Window> {
        Ok(match crop {
            Crop::Inception => crop::inception(size, rng),
            Crop::Random(part) => {
                self.check_fits(size, part)?;
                crop::random(size, part, rng)
            }
            Crop::Central(part) => {
                self.check_fits(size, part)?;
                crop::central(size, part)
            }
        })
    }

    fn check_fits(&self, size: Size, part: Size) -> Result<()> {
        if size.holds(part) {
            return Ok(());
        }
        let expected = format!("at least {}x{} pixels", part.height, part.width);
        let found = format!("{}x{}", size.height, size.width);
        Err(self.wrong(&expected, &found, "resize before it"))
    }

    /// The error of a step that cannot take its input.
    pub fn wrong(&self, expected: &str, found: &str, hint: &str) -> Error {
        Error::Recipe {
            recipe: self.pipe.to_string(),
            what: format!("step {} needs {expected}, found {found}", self.text),
            hint: hint.to_string(),
        }
    }
}

/// Replaces each view by several, in order.
fn expand<I: IntoIterator<Item = Image>>(views: &mut Vec<Image>, each: impl FnMut(&Image) -> I) {
    *views = views.iter().flat_map(each).collect();
}

fn repeat(n: usize, make: impl FnMut() -> Image) -> Vec<Image> {
    std::iter::repeat_with(make).take(n).collect()
}

fn maybe_flip(image: &mut Image, rng: &mut impl Rng) {
    if rng.random_bool(0.5) {
        image.flip_lr();
    }
}

/// How a step `resize` resizes: with `randomize_method` one of the aligned methods.
pub fn resize_method(randomize: bool, rng: &mut impl Rng) -> Interpolation {
    match randomize.then(|| rng.random_range(0..3)) {
        None => Interpolation::LegacyBilinear,
        Some(0) => Interpolation::AlignedBilinear,
        Some(1) => Interpolation::AlignedNearest,
        Some(_) => Interpolation::AlignedBicubic,
    }
}

fn inception_patch(image: &Image, size: Size, rng: &mut impl Rng) -> Image {
    let window = crop::inception(image.size(), rng);
    resize::resize(image.view().window(window), size, Interpolation::LegacyBilinear)
}

fn inception_preprocess(image: &Image, size: Size, mode: Mode, rng: &mut impl Rng) -> Image {
    match mode {
        Mode::Train => {
            let mut view = inception_patch(image, size, rng);
            maybe_flip(&mut view, rng);
            InceptionColor::draw(rng).apply(&mut view);
            view
        }
        Mode::Eval => {
            let part = image.view().window(crop::central_fraction(image.size()));
            let mut view = resize::resize(part, size, Interpolation::LegacyBilinear);
            color::value_range(&mut view, -1.0, 1.0);
            view
        }
    }
}
