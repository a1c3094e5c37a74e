//! RandAugment and cutout as FixMatch has them (arXiv 2001.07685, the table of transformations in its
//! appendix): in place of ranges, nine levels of each transformation, as in kekmodel/FixMatch-pytorch, whose
//! draws these are too. The transformations are Pillow's, for grey and colour images, byte for byte: values
//! are whole numbers 0..255, pixels that come from outside of the image are black.

use crate::pixels::{Image, Size};
use crate::rng::{Rng, RngExt};

/// What a transformation does. Those that move pixels go either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    AutoContrast,
    Brightness,
    Color,
    Contrast,
    Equalize,
    Identity,
    Posterize,
    Rotate,
    Sharpness,
    ShearX,
    ShearY,
    Solarize,
    TranslateX,
    TranslateY,
}

/// All kinds, equally likely.
pub const KINDS: [Kind; 14] = [
    Kind::AutoContrast,
    Kind::Brightness,
    Kind::Color,
    Kind::Contrast,
    Kind::Equalize,
    Kind::Identity,
    Kind::Posterize,
    Kind::Rotate,
    Kind::Sharpness,
    Kind::ShearX,
    Kind::ShearY,
    Kind::Solarize,
    Kind::TranslateX,
    Kind::TranslateY,
];

/// Levels go from 1 to below this.
pub const LEVELS: u32 = 10;

/// One transformation of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transform {
    pub kind: Kind,
    pub level: u32,
    /// To the other side, for those that move pixels.
    pub negative: bool,
}

/// So many transformations one after the other, each drawn by itself and done with probability 1/2.
pub fn randaugment(image: &mut Image, transforms: usize, rng: &mut impl Rng) {
    image.data.iter_mut().for_each(|v| *v = v.round().clamp(0.0, 255.0));
    for _ in 0..transforms {
        let transform = Transform::draw(rng);
        if rng.random_bool(0.5) {
            transform.apply(image);
        }
    }
}

/// A grey square of `side` pixels whose centre is anywhere in the image. It includes its lower and right
/// edges, as rectangles in Pillow do.
pub fn random_cutout(image: &mut Image, side: usize, rng: &mut impl Rng) {
    let Size { height, width } = image.size();
    let x = rng.random_range(0.0..width as f64);
    cutout(image, side, [rng.random_range(0.0..height as f64), x]);
}

/// `random_cutout` with the centre y, x.
pub fn cutout(image: &mut Image, side: usize, centre: [f64; 2]) {
    const GREY: f32 = 127.0;
    let range = |centre: f64, length: usize| {
        let from = (centre - side as f64 / 2.0).max(0.0) as usize;
        from..=(from + side).min(length - 1)
    };
    let (rows, columns) = (range(centre[0], image.height), range(centre[1], image.width));
    let Image { width, channels, data, .. } = image;
    for y in rows {
        let row = &mut data[y * *width * *channels..][..*width * *channels];
        row[columns.start() * *channels..(columns.end() + 1) * *channels].fill(GREY);
    }
}

impl Transform {
    pub fn draw(rng: &mut impl Rng) -> Transform {
        Transform {
            kind: KINDS[rng.random_range(0..KINDS.len())],
            level: rng.random_range(1..LEVELS),
            negative: rng.random_bool(0.5),
        }
    }

    /// Values are whole numbers 0..255 before and after.
    pub fn apply(&self, image: &mut Image) {
        let part = |most: f64| f64::from(self.level) * most / f64::from(LEVELS);
        let whole = |most: f64| part(most) as u32;
        let signed = |v: f64| if self.negative { -v } else { v };
        let factor = (part(0.9) + 0.05) as f32;
        let Size { height, width } = image.size();
        match self.kind {
            Kind::Identity => {}
            Kind::AutoContrast => map_channels(image, auto_contrast),
            Kind::Equalize => map_channels(image, equalize),
            Kind::Posterize => {
                let mask = 0xff << (8 - (whole(4.0) + 4));
                map(image, |v| v & mask);
            }
            Kind::Solarize => {
                let threshold = 256 - whole(256.0);
                map(image, |v| if v < threshold { v } else { 255 - v });
            }
            Kind::Brightness => image.data.iter_mut().for_each(|v| *v = blend(0.0, *v, factor)),
            Kind::Color => {
                for pixel in image.data.chunks_exact_mut(image.channels) {
                    let grey = luma(pixel);
                    pixel.iter_mut().for_each(|v| *v = blend(grey, *v, factor));
                }
            }
            Kind::Contrast => {
                let pixels = image.data.chunks_exact(image.channels);
                let mean = pixels.map(|pixel| f64::from(luma(pixel))).sum::<f64>();
                let mean = (mean / (height * width) as f64 + 0.5).trunc() as f32;
                image.data.iter_mut().for_each(|v| *v = blend(mean, *v, factor));
            }
            Kind::Sharpness => {
                let smooth = smooth(image);
                for (v, smooth) in image.data.iter_mut().zip(smooth) {
                    *v = blend(smooth, *v, factor);
                }
            }
            Kind::Rotate => {
                rotate(image, signed(f64::from(whole(30.0))));
            }
            Kind::ShearX => move_pixels(image, [1.0, signed(part(0.3)), 0.0, 0.0, 1.0, 0.0]),
            Kind::ShearY => move_pixels(image, [1.0, 0.0, 0.0, signed(part(0.3)), 1.0, 0.0]),
            Kind::TranslateX => {
                let by = (signed(part(0.3)) * width as f64).trunc();
                move_pixels(image, [1.0, 0.0, by, 0.0, 1.0, 0.0]);
            }
            Kind::TranslateY => {
                let by = (signed(part(0.3)) * height as f64).trunc();
                move_pixels(image, [1.0, 0.0, 0.0, 0.0, 1.0, by]);
            }
        }
    }
}

fn map(image: &mut Image, of: impl Fn(u32) -> u32) {
    image.data.iter_mut().for_each(|v| *v = of(*v as u32) as f32);
}

/// Maps the values of each channel by a table that is made from their histogram.
fn map_channels(image: &mut Image, table: fn(&[u32; 256]) -> Option<[u8; 256]>) {
    for channel in 0..image.channels {
        let values = image.data.iter_mut().skip(channel).step_by(image.channels);
        let mut histogram = [0; 256];
        let values: Vec<&mut f32> = values.collect();
        values.iter().for_each(|v| histogram[**v as usize] += 1);
        if let Some(table) = table(&histogram) {
            values.into_iter().for_each(|v| *v = f32::from(table[*v as usize]));
        }
    }
}

/// The darkest value becomes 0 and the lightest 255 (`ImageOps.autocontrast`).
fn auto_contrast(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let low = histogram.iter().position(|&n| n > 0)?;
    let high = histogram.iter().rposition(|&n| n > 0)?;
    if high == low {
        return None;
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    // Casts to u8 cut off what is out of range.
    Some(std::array::from_fn(|v| (v as f64 * scale + offset) as u8))
}

/// All values become about equally frequent (`ImageOps.equalize`).
fn equalize(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let last = histogram.iter().rfind(|&&n| n > 0)?;
    let step = (histogram.iter().sum::<u32>() - last) / 255;
    if step == 0 {
        return None;
    }
    let mut below = step / 2;
    Some(histogram.map(|n| {
        let value = below / step;
        below += n;
        value.min(255) as u8
    }))
}

/// The grey of a pixel, as Pillow converts to mode L.
fn luma(pixel: &[f32]) -> f32 {
    match *pixel {
        [r, g, b] => {
            let sum = 19595 * r as u32 + 38470 * g as u32 + 7471 * b as u32;
            ((sum + 0x8000) >> 16) as f32
        }
        _ => pixel[0],
    }
}

/// A part of the way from one value to another, cut to a whole number (`Image.blend`).
fn blend(from: f32, to: f32, factor: f32) -> f32 {
    (from + factor * (to - from)).trunc()
}

/// Mean of the 3 x 3 pixels around each, itself five times; the edge stays (`ImageFilter.SMOOTH`).
fn smooth(image: &Image) -> Vec<f32> {
    let Image { height, width, channels, data } = image;
    let mut out = data.clone();
    let row = width * channels;
    for y in 1..height.saturating_sub(1) {
        for at in y * row + channels..((y + 1) * row).saturating_sub(*channels) {
            let line = |at: usize| data[at - channels] + data[at] + data[at + channels];
            let sum = line(at - row) + line(at) + line(at + row) + 4.0 * data[at];
            out[at] = (sum / 13.0).round();
        }
    }
    out
}

/// By degrees, counter-clockwise around the centre (`Image.rotate`).
fn rotate(image: &mut Image, degrees: f64) {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let (x, y) = (image.width as f64 / 2.0, image.height as f64 / 2.0);
    let shift = [x - (cos * x + sin * y), y - (-sin * x + cos * y)];
    move_pixels(image, [cos, sin, shift[0], -sin, cos, shift[1]]);
}

/// The nearest pixel to a x + b y + c, d x + e y + f for each (`Image.transform` with `AFFINE`, which counts
/// in units of 2^-16 pixels).
fn move_pixels(image: &mut Image, [a, b, c, d, e, f]: [f64; 6]) {
    let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
    let from = [fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)];
    let [a, b, d, e] = [a, b, d, e].map(fixed);
    let Image { height, width, channels, data } = image;
    let mut out = vec![0.0; data.len()];
    for (at, pixel) in out.chunks_exact_mut(*channels).enumerate() {
        let (y, x) = ((at / *width) as i64, (at % *width) as i64);
        let [x, y] = [(a, b, from[0]), (d, e, from[1])].map(|(a, b, c)| (a * x + b * y + c) >> 16);
        if (0..*width as i64).contains(&x) && (0..*height as i64).contains(&y) {
            let at = (y as usize * *width + x as usize) * *channels;
            pixel.copy_from_slice(&data[at..at + *channels]);
        }
    }
    *data = out;
}
