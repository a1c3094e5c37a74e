//! The part of an image that a crop keeps. Crops copy pixels and change no value.

use crate::pixels::{Size, Window};
use crate::rng::{Rng, RngExt};

/// The central window, offset floor((side - part) / 2): `crop` in evaluation and `central_crop`
/// (S4L, preprocess.py). `image` holds `part`.
pub fn central(image: Size, part: Size) -> Window {
    let y = (image.height - part.height) / 2;
    let x = (image.width - part.width) / 2;
    Window::at(y, x, part)
}

/// A uniformly random window: `crop` in training (`tf.image.random_crop`: both ends of the range of
/// offsets can come). `image` holds `part`.
pub fn random(image: Size, part: Size, rng: &mut impl Rng) -> Window {
    let y = rng.random_range(0..=image.height - part.height);
    let x = rng.random_range(0..=image.width - part.width);
    Window::at(y, x, part)
}

/// Centre, top left, top right, bottom left, bottom right: `multi_crop` (S4L, preprocess.py).
/// `image` holds `part`.
pub fn multi(image: Size, part: Size) -> [Window; 5] {
    let (bottom, right) = (image.height - part.height, image.width - part.width);
    [
        central(image, part),
        Window::at(0, 0, part),
        Window::at(0, right, part),
        Window::at(bottom, 0, part),
        Window::at(bottom, right, part),
    ]
}

/// The central 87.5% of each side: offset floor(side * 0.125 / 2), the same margin on both ends
/// (`tf.image.central_crop` of slim's evaluation preprocessing).
pub fn central_fraction(image: Size) -> Window {
    let (y, x) = (image.height / 16, image.width / 16);
    let part = Size { height: image.height - 2 * y, width: image.width - 2 * x };
    Window::at(y, x, part)
}

const ASPECT: (f32, f32) = (0.75, 1.33);
const AREA: (f32, f32) = (0.05, 1.0);
const MIN_OBJECT_COVERED: f32 = 0.1;
const ATTEMPTS: usize = 100;

/// A random window with the distribution of TensorFlow's `sample_distorted_bounding_box` at its
/// default ranges and without a box, so that the whole image is the object of which 10% must stay:
/// the "inception crop". The aspect ratio (width / height) is uniform, then the *height*, not the
/// area, is uniform among those that keep the area in range. After 100 failures the whole image.
///
/// The arithmetic is in f32 with ties to even, as in TensorFlow, because for small images the
/// rounding is a visible part of the distribution.
pub fn inception(image: Size, rng: &mut impl Rng) -> Window {
    let covered = MIN_OBJECT_COVERED;
    (0..ATTEMPTS)
        .find_map(|_| {
            let aspect = ASPECT.0 + rng.random::<f32>() * (ASPECT.1 - ASPECT.0);
            attempt(image, aspect, rng)
                .filter(|w| area(w.height, w.width) / area(image.height, image.width) >= covered)
        })
        .unwrap_or(Window::whole(image))
}

fn area(height: usize, width: usize) -> f32 {
    (height * width) as f32
}

fn round(x: f32) -> usize {
    x.round_ties_even() as usize
}

fn attempt(image: Size, aspect: f32, rng: &mut impl Rng) -> Option<Window> {
    let width_of = |height: usize| round(height as f32 * aspect);
    let [min_area, max_area] =
        [AREA.0, AREA.1].map(|share| share * image.width as f32 * image.height as f32);

    let mut tallest = round((max_area / aspect).sqrt());
    if width_of(tallest) > image.width {
        tallest = ((image.width as f64 + 0.5 - 1e-7) / f64::from(aspect)) as usize;
        if width_of(tallest) > image.width {
            tallest -= 1;
        }
    }
    let tallest = tallest.min(image.height);
    let lowest = round((min_area / aspect).sqrt()).min(tallest);

    let mut height = rng.random_range(lowest..=tallest);
    // Rounding may have left the range of areas by a little: one row more, or one less, mends it.
    if area(height, width_of(height)) < min_area {
        height += 1;
    }
    if area(height, width_of(height)) > max_area {
        height -= 1;
    }
    let part = Size { height, width: width_of(height) };
    if !(min_area..=max_area).contains(&area(part.height, part.width)) || !image.holds(part) {
        return None;
    }
    // As in TensorFlow, the last offset (the window touching the bottom or right edge) never comes.
    let mut offset = |free: usize| {
        if free > 0 { rng.random_range(0..free) } else { 0 }
    };
    let y = offset(image.height - part.height);
    let x = offset(image.width - part.width);
    Some(Window::at(y, x, part))
}
