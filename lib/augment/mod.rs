//! Image augmentation from a pipe string such as
//! `inception_crop|resize(28)|flip_lr|-1_to_1|rotate`.
//!
//! A pipe takes one image and gives one or more views of it, all f32. Pixels enter as 0..255 and
//! stay in that range until a step maps them elsewhere. Random steps act in training only, except
//! `hsvnoise`, `to_gray` and `crop_inception_patches`, which know no mode, as in the reference
//! (S4L, preprocess.py).
//!
//! | step | what it does |
//! |---|---|
//! | `inception_crop` | random window by [`crop::inception`]; evaluation: the full image |
//! | `crop(h[,w])` | random window; evaluation: the central one |
//! | `central_crop(h[,w])` | the central window |
//! | `multi_crop(h[,w])` | five views: centre and the corners, [`crop::multi`] |
//! | `crop_inception_patches(n,h[,w])` | n views: an inception crop each, resized |
//! | `resize(h[,w])` | [`resize::Interpolation::LegacyBilinear`]; with the argument `randomize_method`, in training, one of the three aligned methods, one draw for all views; with `dct_scaling`, from a JPEG decoded at 1/2, 1/4 or 1/8 of its size where that is large enough: faster, and other pixels than the reference's |
//! | `resize_small(s)` | smaller side to s, [`resize::Interpolation::Area`] |
//! | `flip_lr` | mirrored with probability 1/2; evaluation: nothing |
//! | `rotate` | four views: turned by 0, 90, 180, 270 degrees counter-clockwise |
//! | `hsvnoise` | [`color::HsvNoise`] |
//! | `inception_preprocess(h[,w])` | crop, resize, flip, [`color::InceptionColor`]; evaluation: central 87.5%, resized; -1..1 |
//! | `crop_inception_preprocess_patches(n,h[,w])` | n views of `inception_preprocess` |
//! | `-1_to_1`, `0_to_1`, `value_range(min,max)` | [`color::value_range`] |
//! | `to_gray[(p)]` | [`color::to_gray`] with probability p, default 1 |
//! | `standardize` | [`color::standardize`] |
//! | `copy_label[(name)]`, `plain_preprocess` | nothing: labels are no matter of the pipe |
//!
//! A step on several views acts on each by itself, with draws of its own, and what it makes of a
//! view stays together: `multi_crop(24)|rotate` gives the four turns of the centre first.
//!
//! `tests/golden/images.py` says which of TensorFlow and NumPy judges each step. Every step agrees
//! within 1e-3 grey levels of 255, steps that only move pixels exactly, and the inception crop is
//! indistinguishable in 20,000 draws. Where this departs from the reference on purpose:
//! `inception_preprocess` always takes 0..255 (there, only from bytes), `hsvnoise` gives no NaN for
//! values below 0 (they come from bicubic resizing), and steps that the reference would apply
//! wrongly or fail on at run time are refused when the pipe is parsed.

pub mod color;
pub mod crop;
mod parse;
pub mod resize;

use crate::error::{Error, Result};
use crate::pixels::{self, Image, Size, View, Window};
use crate::rng::{Rng, RngExt};

use resize::{Interpolation, Resize};

/// Whether the views are for training or for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Train,
    Eval,
}

/// A parsed pipe. Immutable and shared freely between threads; all randomness is the caller's.
#[derive(Debug, Clone)]
pub struct Pipe {
    text: String,
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
    /// The same, perhaps scaled down to no less than the size `enough` where that saves work.
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

#[derive(Debug, Clone)]
struct Step {
    text: String,
    op: Op,
}

/// A step with the mode settled.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Crop(Crop),
    MultiCrop(Size),
    InceptionPatches { views: usize, size: Size },
    InceptionPreprocess { views: usize, size: Size, mode: Mode },
    Resize { size: Size, randomize: bool, dct_scaling: bool },
    ResizeSmall(usize),
    FlipLr,
    Rotate,
    HsvNoise,
    ValueRange { min: f32, max: f32 },
    ToGray { probability: f64 },
    Standardize,
}

/// A step that keeps one window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Crop {
    Inception,
    Random(Size),
    Central(Size),
}

impl Pipe {
    pub fn parse(text: &str, mode: Mode) -> Result<Pipe> {
        let steps = parse::steps(text, mode)?;
        Ok(Pipe { text: text.to_string(), steps })
    }

    /// The views that images of that many channels give. An error if a step cannot take such
    /// images, or the size of a view would depend on the image.
    pub fn output(&self, channels: usize) -> Result<Output> {
        self.check_channels(channels)?;
        let (mut views, mut size, mut rotated) = (1, None::<Size>, false);
        for step in &self.steps {
            match step.op {
                Op::Crop(Crop::Inception) => size = None,
                Op::Crop(Crop::Random(part) | Crop::Central(part)) | Op::MultiCrop(part) => {
                    if let Some(size) = size {
                        self.check_fits(step, size, part)?;
                    }
                    size = Some(part);
                }
                Op::InceptionPatches { size: s, .. }
                | Op::InceptionPreprocess { size: s, .. }
                | Op::Resize { size: s, .. } => size = Some(s),
                Op::ResizeSmall(side) => size = size.map(|s| resize::smaller_side(s, side)),
                Op::Rotate => {
                    rotated = true;
                    if let Some(s) = size.filter(|s| s.height != s.width) {
                        let found = format!("{}x{} there", s.height, s.width);
                        let hint = "crop or resize to a square before it";
                        return Err(self.wrong(step, "square images", &found, hint));
                    }
                }
                _ => {}
            }
            views *= step.op.views();
        }
        let size = size.ok_or_else(|| Error::Recipe {
            recipe: self.text.clone(),
            what: "the size of the views would depend on the image".to_string(),
            hint: "add resize(h,w) or crop(h,w)".to_string(),
        })?;
        Ok(Output { views, height: size.height, width: size.width, channels, rotated })
    }

    /// The values that 0 and 255 become; `None` where that depends on the image.
    pub fn value_range(&self) -> Option<(f32, f32)> {
        let mut range = Some((0.0, 255.0));
        for step in &self.steps {
            match step.op {
                Op::ValueRange { min, max } => range = Some((min, max)),
                Op::InceptionPreprocess { .. } => range = Some((-1.0, 1.0)),
                Op::Standardize => range = None,
                _ => {}
            }
        }
        range
    }

    /// The smaller side that images are resized to before the last crop, if they are.
    pub fn resized_side(&self) -> Option<usize> {
        self.steps.iter().rev().find_map(|step| match step.op {
            Op::ResizeSmall(side) => Some(side),
            Op::Resize { size, .. } => Some(size.height.min(size.width)),
            _ => None,
        })
    }

    /// The views of one image, one after the other. Reads no randomness but `rng`'s, so the same
    /// pixels and key give the same values. Of the image only what the views show is asked for,
    /// where a crop or a resize comes first.
    ///
    /// An error if a crop does not fit the image, as `output`, or from `source`.
    pub fn views(&self, source: &mut impl PixelSource, rng: &mut impl Rng) -> Result<Vec<Image>> {
        self.check_channels(source.channels())?;
        let (window, steps) = self.first_crop(source.size(), &self.steps, rng)?;
        self.views_of(source, window, steps, rng)
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
        let (window, steps) = self.first_crop(source.size(), steps, rng)?;
        match steps {
            [] => {
                source.window(window)?.write(range, out);
                return Ok(());
            }
            // One resized view, mirrored or not, is made where it belongs.
            [step, flips @ ..]
                if let Op::Resize { size, randomize, dct_scaling } = step.op
                    && flips.iter().all(|step| step.op == Op::FlipLr) =>
            {
                let method = resize_method(randomize, rng);
                let pixels = to_resize(source, window, size, dct_scaling)?;
                let resize = Resize::new(pixels.size, size, method, Window::whole(size));
                resize.write(pixels.window(resize.source), out);
                let channels = pixels.channels;
                for _ in flips {
                    if rng.random_bool(0.5) {
                        pixels::flip_lr(out, size.width, channels);
                    }
                }
                if let Some((min, max)) = range {
                    color::map_range(out, min, max);
                }
                return Ok(());
            }
            _ => {}
        }
        let views = self.views_of(source, window, steps, rng)?;
        let size = out.len() / views.len();
        for (out, view) in out.chunks_exact_mut(size).zip(&views) {
            view.view().write(range, out);
        }
        Ok(())
    }

    /// The window that the steps begin with, and the other steps.
    fn first_crop<'a>(
        &self,
        size: Size,
        steps: &'a [Step],
        rng: &mut impl Rng,
    ) -> Result<(Window, &'a [Step])> {
        Ok(match steps {
            [step, rest @ ..] if let Op::Crop(crop) = step.op => {
                (self.window(step, crop, size, rng)?, rest)
            }
            _ => (Window::whole(size), steps),
        })
    }

    /// What the steps make of a window.
    fn views_of(
        &self,
        source: &mut impl PixelSource,
        window: Window,
        steps: &[Step],
        rng: &mut impl Rng,
    ) -> Result<Vec<Image>> {
        let (mut views, steps) = self.head(source, window, steps, rng)?;
        for step in steps {
            self.apply_step(step, &mut views, rng)?;
        }
        Ok(views)
    }

    /// The views after the first step, which decides what part of the window is needed, and the
    /// other steps.
    fn head<'a>(
        &self,
        source: &mut impl PixelSource,
        window: Window,
        steps: &'a [Step],
        rng: &mut impl Rng,
    ) -> Result<(Vec<Image>, &'a [Step])> {
        let [step, rest @ ..] = steps else {
            return Ok((vec![source.window(window)?.to_image()], steps));
        };
        let views = match step.op {
            Op::Resize { size, randomize, dct_scaling } => {
                let method = resize_method(randomize, rng);
                let pixels = to_resize(source, window, size, dct_scaling)?;
                vec![resize::resize(pixels, size, method)]
            }
            Op::ResizeSmall(side) => {
                let small = resize::smaller_side(window.size(), side);
                let (part, rest) = match rest {
                    [step, rest @ ..] if let Op::Crop(crop) = step.op => {
                        (self.window(step, crop, small, rng)?, rest)
                    }
                    _ => (Window::whole(small), rest),
                };
                let resize = Resize::new(window.size(), small, Interpolation::Area, part);
                let needed = resize.source.inside(window);
                return Ok((vec![resize.run(source.window(needed)?)], rest));
            }
            Op::InceptionPatches { views, size } => {
                let patches: Vec<Window> = (0..views)
                    .map(|_| crop::inception(window.size(), rng).inside(window))
                    .collect();
                let all = patches.iter().copied().reduce(Window::around);
                let all = all.unwrap_or(window);
                let pixels = source.window(all)?;
                let patch = |patch: &Window| pixels.window(patch.within(all));
                let views = patches.iter().map(patch);
                let resized = views.map(|v| resize::resize(v, size, Interpolation::LegacyBilinear));
                resized.collect()
            }
            _ => return Ok((vec![source.window(window)?.to_image()], steps)),
        };
        Ok((views, rest))
    }

    fn apply_step(&self, step: &Step, views: &mut Vec<Image>, rng: &mut impl Rng) -> Result<()> {
        match step.op {
            Op::Crop(crop) => {
                for view in views {
                    *view = view.crop(self.window(step, crop, view.size(), rng)?);
                }
            }
            Op::MultiCrop(part) => {
                for view in views.iter() {
                    self.check_fits(step, view.size(), part)?;
                }
                *views =
                    expand(views, |v| crop::multi(v.size(), part).map(|window| v.crop(window)));
            }
            Op::InceptionPatches { views: n, size } => {
                *views = expand(views, |v| repeat(n, || inception_patch(v, size, rng)));
            }
            Op::InceptionPreprocess { views: n, size, mode } => {
                *views = expand(views, |v| {
                    repeat(n, || match mode {
                        Mode::Train => inception_train(v, size, rng),
                        Mode::Eval => inception_eval(v, size),
                    })
                });
            }
            // Pixels that were decoded before are not scaled by the decoder.
            Op::Resize { size, randomize, .. } => {
                let method = resize_method(randomize, rng);
                for view in views {
                    *view = resize::resize(view.view(), size, method);
                }
            }
            Op::ResizeSmall(side) => {
                for view in views {
                    let size = resize::smaller_side(view.size(), side);
                    *view = resize::resize(view.view(), size, Interpolation::Area);
                }
            }
            Op::FlipLr => views.iter_mut().for_each(|v| maybe_flip(v, rng)),
            Op::Rotate => *views = expand(views, |v| [0, 1, 2, 3].map(|turns| v.rotate(turns))),
            Op::HsvNoise => {
                for view in views {
                    color::HsvNoise::draw(rng).apply(view);
                }
            }
            Op::ValueRange { min, max } => {
                for view in views {
                    color::value_range(view, min, max);
                }
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

    fn window(&self, step: &Step, crop: Crop, size: Size, rng: &mut impl Rng) -> Result<Window> {
        Ok(match crop {
            Crop::Inception => crop::inception(size, rng),
            Crop::Random(part) => {
                self.check_fits(step, size, part)?;
                crop::random(size, part, rng)
            }
            Crop::Central(part) => {
                self.check_fits(step, size, part)?;
                crop::central(size, part)
            }
        })
    }

    fn check_channels(&self, channels: usize) -> Result<()> {
        match self.steps.iter().find(|step| step.op.needs_rgb()) {
            Some(step) if channels != 3 => {
                let found = format!("{channels}");
                Err(self.wrong(step, "3 channels", &found, "remove the step"))
            }
            _ => Ok(()),
        }
    }

    fn check_fits(&self, step: &Step, size: Size, part: Size) -> Result<()> {
        if size.holds(part) {
            return Ok(());
        }
        let expected = format!("at least {}x{} pixels", part.height, part.width);
        let found = format!("{}x{}", size.height, size.width);
        Err(self.wrong(step, &expected, &found, "resize before it"))
    }

    fn wrong(&self, step: &Step, expected: &str, found: &str, hint: &str) -> Error {
        Error::Recipe {
            recipe: self.text.clone(),
            what: format!("step {} needs {expected}, found {found}", step.text),
            hint: hint.to_string(),
        }
    }
}

impl Op {
    /// Views that come out for each that goes in.
    fn views(&self) -> usize {
        match *self {
            Op::MultiCrop(_) => 5,
            Op::Rotate => 4,
            Op::InceptionPatches { views, .. } | Op::InceptionPreprocess { views, .. } => views,
            _ => 1,
        }
    }

    fn needs_rgb(&self) -> bool {
        matches!(self, Op::HsvNoise | Op::ToGray { .. } | Op::InceptionPreprocess { .. })
    }
}

/// Replaces each view by several, in order.
fn expand<I: IntoIterator<Item = Image>>(
    views: &[Image],
    each: impl FnMut(&Image) -> I,
) -> Vec<Image> {
    views.iter().flat_map(each).collect()
}

fn repeat(n: usize, make: impl FnMut() -> Image) -> Vec<Image> {
    std::iter::repeat_with(make).take(n).collect()
}

fn maybe_flip(image: &mut Image, rng: &mut impl Rng) {
    if rng.random_bool(0.5) {
        image.flip_lr();
    }
}

fn resize_method(randomize: bool, rng: &mut impl Rng) -> Interpolation {
    match randomize.then(|| rng.random_range(0..3)) {
        None => Interpolation::LegacyBilinear,
        Some(0) => Interpolation::AlignedBilinear,
        Some(1) => Interpolation::AlignedNearest,
        Some(_) => Interpolation::AlignedBicubic,
    }
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

fn inception_patch(image: &Image, size: Size, rng: &mut impl Rng) -> Image {
    let window = crop::inception(image.size(), rng);
    resize::resize(image.view().window(window), size, Interpolation::LegacyBilinear)
}

fn inception_train(image: &Image, size: Size, rng: &mut impl Rng) -> Image {
    let mut patch = inception_patch(image, size, rng);
    maybe_flip(&mut patch, rng);
    color::InceptionColor::draw(rng).apply(&mut patch);
    patch
}

fn inception_eval(image: &Image, size: Size) -> Image {
    let crop = image.view().window(crop::central_fraction(image.size()));
    let mut view = resize::resize(crop, size, Interpolation::LegacyBilinear);
    color::value_range(&mut view, -1.0, 1.0);
    view
}
