//! A parsed pipe: which views it makes, and how it runs. The first steps request only the part of an image
//! that its views show; the others work on views in memory.

use super::resize::{self, Interpolation, Resize};
use super::step::{Crop, Mode, Op, Step, resize_method};
use super::{color, crop, parse};
use crate::cli;
use crate::error::{Error, Result};
use crate::pixels::{self, Image, Size, View, Window};
use crate::rng::{Rng, RngExt};
use std::sync::Arc;

/// A parsed pipe. Immutable and shared freely between threads; all randomness is the caller's.
#[derive(Debug, Clone)]
pub struct Pipe {
    text: Arc<str>,
    steps: Vec<Step>,
}

/// What one image becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub views: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// With `rotate` in the pipe, view v is turned by v % 4 quarters.
    pub rotated: bool,
}

impl Output {
    /// Values of all views together.
    pub fn values(&self) -> usize {
        self.views * self.height * self.width * self.channels
    }
}

/// An image to augment, whose pixels are asked for once, and of which only a part may be.
pub trait PixelSource {
    fn size(&self) -> Size;
    fn channels(&self) -> usize;
    /// The pixels inside `window`, 0..255.
    fn window(&mut self, window: Window) -> Result<View<'_, u8>>;
    /// The same, perhaps scaled down to no less than the size `enough` if that saves work.
    fn reduced(&mut self, window: Window, _enough: Size) -> Result<View<'_, u8>> {
        self.window(window)
    }
}

impl PixelSource for View<'_, u8> {
    fn size(&self) -> Size {
        self.size
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn window(&mut self, window: Window) -> Result<View<'_, u8>> {
        Ok(View::window(self, window))
    }
}

impl Pipe {
    /// Errors: `Recipe` for a step that is unknown, has wrong arguments, or makes no sense after one
    /// before it.
    pub fn parse(text: &str, mode: Mode) -> Result<Pipe> {
        let text = Arc::from(text);
        Ok(Pipe { steps: parse::steps(&text, mode)?, text })
    }

    /// The pipe of a stage that evaluates, with a warning if it would show other views than users
    /// may expect.
    ///
    /// Errors: as `parse`.
    pub fn for_evaluation(text: &str) -> Result<Pipe> {
        let crops = |step: &Step| step.op == Op::Crop(Crop::Inception);
        if Pipe::parse(text, Mode::Train)?.steps.iter().any(crops) {
            cli::warn("inception_crop keeps the full image in evaluation");
        }
        Pipe::parse(text, Mode::Eval)
    }

    /// The views that images of that many channels give.
    ///
    /// Errors: a step cannot take such images, or the size of a view would depend on the image.
    pub fn output(&self, channels: usize) -> Result<Output> {
        self.check_channels(channels)?;
        let size = self.steps.iter().try_fold(None, |size, step| step.size_after(size))?;
        let size = size.ok_or_else(|| Error::Recipe {
            recipe: self.text.to_string(),
            what: "the size of the views would depend on the image".to_string(),
            hint: "add resize(h,w) or crop(h,w)".to_string(),
        })?;
        Ok(Output {
            views: self.steps.iter().map(|step| step.op.views()).product(),
            height: size.height,
            width: size.width,
            channels,
            rotated: self.steps.iter().any(|step| step.op == Op::Rotate),
        })
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The views of one image, one after the other. Reads no randomness but `rng`'s, so the same
    /// pixels and key give the same values. Of the image only what the views show is asked for,
    /// if a crop or a resize comes first.
    ///
    /// An error if a crop does not fit the image, as `output`, or from `source`.
    pub fn views(&self, source: &mut impl PixelSource, rng: &mut impl Rng) -> Result<Vec<Image>> {
        self.check_channels(source.channels())?;
        let (window, steps) = first_crop(source.size(), &self.steps, rng)?;
        views_of(source, window, steps, rng)
    }

    /// Writes the views of one image to `out`, which is as long as `output` says.
    pub fn apply(
        &self,
        source: &mut impl PixelSource,
        rng: &mut impl Rng,
        out: &mut [f32],
    ) -> Result<()> {
        self.check_channels(source.channels())?;
        // A range of values at the end is mapped on the way out.
        let (steps, range) = match self.steps.split_last() {
            Some((step, steps)) if let Op::ValueRange { min, max } = step.op => {
                (steps, Some((min, max)))
            }
            _ => (self.steps.as_slice(), None),
        };
        let (window, steps) = first_crop(source.size(), steps, rng)?;
        match steps {
            [] => source.window(window)?.write(range, out),
            [step, flips @ ..]
                if let Op::Resize { size, randomize, dct_scaling } = step.op
                    && flips.iter().all(|step| step.op == Op::FlipLr) =>
            {
                // One resized view, mirrored or not, is written directly to its place.
                let method = resize_method(randomize, rng);
                let pixels = to_resize(source, window, size, dct_scaling)?;
                let resize = Resize::new(pixels.size, size, method, Window::whole(size));
                resize.write(pixels.window(resize.source), out);
                for _ in flips {
                    if rng.random_bool(0.5) {
                        pixels::flip_lr(out, size.width, pixels.channels);
                    }
                }
                if let Some((min, max)) = range {
                    color::map_range(out, min, max);
                }
            }
            _ => {
                let views = views_of(source, window, steps, rng)?;
                let size = out.len() / views.len();
                for (out, view) in out.chunks_exact_mut(size).zip(&views) {
                    view.view().write(range, out);
                }
            }
        }
        Ok(())
    }

    fn check_channels(&self, channels: usize) -> Result<()> {
        match self.steps.iter().find(|step| step.op.needs_rgb()) {
            Some(step) if channels != 3 => {
                Err(step.wrong("3 channels", &channels.to_string(), "remove the step"))
            }
            _ => Ok(()),
        }
    }
}

/// The window that the steps begin with, and the other steps.
fn first_crop<'a>(
    size: Size,
    steps: &'a [Step],
    rng: &mut impl Rng,
) -> Result<(Window, &'a [Step])> {
    Ok(match steps {
        [step, rest @ ..] if let Op::Crop(crop) = step.op => (step.window(crop, size, rng)?, rest),
        _ => (Window::whole(size), steps),
    })
}

/// What the steps make of a window.
fn views_of(
    source: &mut impl PixelSource,
    window: Window,
    steps: &[Step],
    rng: &mut impl Rng,
) -> Result<Vec<Image>> {
    let (mut views, steps) = first_views(source, window, steps, rng)?;
    for step in steps {
        step.apply(&mut views, rng)?;
    }
    Ok(views)
}

/// The views after the first step, which decides what part of the window is needed, and the other
/// steps.
fn first_views<'a>(
    source: &mut impl PixelSource,
    window: Window,
    steps: &'a [Step],
    rng: &mut impl Rng,
) -> Result<(Vec<Image>, &'a [Step])> {
    match steps {
        [step, rest @ ..] if let Op::Resize { size, randomize, dct_scaling } = step.op => {
            let method = resize_method(randomize, rng);
            let pixels = to_resize(source, window, size, dct_scaling)?;
            Ok((vec![resize::resize(pixels, size, method)], rest))
        }
        [step, rest @ ..] if let Op::ResizeSmall(side) = step.op => {
            let small = resize::smaller_side(window.size(), side);
            let (part, rest) = first_crop(small, rest, rng)?;
            let resize = Resize::new(window.size(), small, Interpolation::Area, part);
            let needed = resize.source.inside(window);
            Ok((vec![resize.run(source.window(needed)?)], rest))
        }
        [step, rest @ ..] if let Op::InceptionPatches { views, size } = step.op => {
            Ok((inception_patches(source, window, views, size, rng)?, rest))
        }
        _ => Ok((vec![source.window(window)?.to_image()], steps)),
    }
}

/// So many inception crops of a window, resized.
fn inception_patches(
    source: &mut impl PixelSource,
    window: Window,
    views: usize,
    size: Size,
    rng: &mut impl Rng,
) -> Result<Vec<Image>> {
    let patches: Vec<Window> =
        (0..views).map(|_| crop::inception(window.size(), rng).inside(window)).collect();
    let all = patches.iter().copied().reduce(Window::around).unwrap_or(window);
    let pixels = source.window(all)?;
    let views = patches.iter().map(|patch| pixels.window(patch.within(all)));
    Ok(views.map(|v| resize::resize(v, size, Interpolation::LegacyBilinear)).collect())
}

/// The pixels of a window that will be resized; nearer to that size already with `dct_scaling`.
fn to_resize(
    source: &mut impl PixelSource,
    window: Window,
    size: Size,
    dct_scaling: bool,
) -> Result<View<'_, u8>> {
    match dct_scaling {
        false => source.window(window),
        true => source.reduced(window, size),
    }
}
