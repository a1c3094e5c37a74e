//! Resizing by the formulas of TensorFlow 1.
//!
//! All methods are separable: an output value is a weighted sum of input rows, and of columns. They
//! differ in the taps of one axis only. Values keep their range, except that bicubic overshoots;
//! nothing is rounded. Weights are f32, as in TensorFlow; the order of the sums differs, which
//! moves a value of 0..255 by less than 1e-3.

use super::crop::Size;
use super::image::Image;

/// Position of output index `i` on the input axis, n -> m points: "legacy" is i * n / m (no
/// half-pixel centres), "aligned" is i * (n - 1) / (m - 1) (corners on corners; legacy if m = 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Legacy positions, linear, no antialiasing: `tf.compat.v1.image.resize_images`' default.
    LegacyBilinear,
    /// Aligned positions, linear.
    AlignedBilinear,
    /// Aligned positions, halves rounded away from zero.
    AlignedNearest,
    /// Aligned positions, cubic convolution with a = -0.75, the fraction rounded to 1/1024
    /// (ties to even), edge pixels repeated.
    AlignedBicubic,
    /// The mean over the box that an output pixel covers: `tf.compat.v1.image.resize_area`.
    Area,
}

/// One axis: `count` taps (input index, weight) for each output index.
struct Taps {
    count: usize,
    taps: Vec<(usize, f32)>,
}

impl Taps {
    fn new(method: Method, input: usize, output: usize) -> Taps {
        let legacy = input as f32 / output as f32;
        let scale = match method {
            Method::LegacyBilinear | Method::Area => legacy,
            _ if output == 1 => legacy,
            _ => (input - 1) as f32 / (output - 1) as f32,
        };
        let last = input - 1;
        let position = |i: usize| i as f32 * scale;
        let each = 0..output;
        match method {
            Method::LegacyBilinear | Method::AlignedBilinear => Taps {
                count: 2,
                taps: each.flat_map(|i| linear(position(i), last)).collect(),
            },
            Method::AlignedNearest => Taps {
                count: 1,
                taps: each
                    .map(|i| ((position(i).round() as usize).min(last), 1.0))
                    .collect(),
            },
            Method::AlignedBicubic => Taps {
                count: 4,
                taps: each.flat_map(|i| cubic(position(i), last)).collect(),
            },
            Method::Area => {
                // A box of length `scale` that starts anywhere touches at most this many pixels.
                let count = scale.ceil() as usize + 1;
                let taps = each
                    .flat_map(|i| covered(position(i), position(i + 1), scale, last).take(count))
                    .collect();
                Taps { count, taps }
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &[(usize, f32)]> {
        self.taps.chunks_exact(self.count)
    }
}

fn linear(position: f32, last: usize) -> [(usize, f32); 2] {
    let low = (position as usize).min(last);
    let fraction = position - position.floor();
    [(low, 1.0 - fraction), ((low + 1).min(last), fraction)]
}

fn cubic(position: f32, last: usize) -> [(usize, f32); 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let low = position as usize;
    let fraction = ((position - position.floor()) * 1024.0).round_ties_even() / 1024.0;
    [
        (low.saturating_sub(1).min(last), far(fraction + 1.0)),
        (low.min(last), near(fraction)),
        ((low + 1).min(last), near(1.0 - fraction)),
        ((low + 2).min(last), far(2.0 - fraction)),
    ]
}

/// The pixels from `start` on, each with the share of the box `start..end` (of length `scale`)
/// that it covers; pixels past the end have a share of 0.
fn covered(start: f32, end: f32, scale: f32, last: usize) -> impl Iterator<Item = (usize, f32)> {
    (start as usize..).map(move |i| {
        let overlap = end.min((i + 1) as f32) - start.max(i as f32);
        (i.min(last), overlap.max(0.0) / scale)
    })
}

/// Resizes to `size`; the aspect ratio is not kept.
pub fn resize(image: &Image, size: Size, method: Method) -> Image {
    let channels = image.channels;
    let rows = Taps::new(method, image.height, size.height);
    let columns = Taps::new(method, image.width, size.width);
    let stride = image.width * channels;
    let mut row = vec![0.0; stride];
    let mut data = vec![0.0; size.height * size.width * channels];
    // Rows first: those sums run over contiguous values, and rows without weight are never read.
    for (out_row, taps) in data
        .chunks_exact_mut(size.width * channels)
        .zip(rows.iter())
    {
        row.fill(0.0);
        for &(y, weight) in taps {
            for (sum, v) in row.iter_mut().zip(&image.data[y * stride..][..stride]) {
                *sum += weight * v;
            }
        }
        // A literal number of channels lets the compiler unroll the loop over them.
        match channels {
            1 => sum_columns(&row, &columns, 1, out_row),
            3 => sum_columns(&row, &columns, 3, out_row),
            _ => sum_columns(&row, &columns, channels, out_row),
        }
    }
    Image {
        height: size.height,
        width: size.width,
        channels,
        data,
    }
}

#[inline(always)]
fn sum_columns(row: &[f32], columns: &Taps, channels: usize, out: &mut [f32]) {
    for (pixel, taps) in out.chunks_exact_mut(channels).zip(columns.iter()) {
        for &(x, weight) in taps {
            for (sum, v) in pixel.iter_mut().zip(&row[x * channels..][..channels]) {
                *sum += weight * v;
            }
        }
    }
}

/// The size whose smaller side is `side` at the same aspect ratio: round(length * side / smaller),
/// in f32 with ties to even (`resize_small`; S4L, preprocess.py).
pub fn smaller_side(image: Size, side: usize) -> Size {
    let ratio = side as f32 / image.height.min(image.width) as f32;
    let scaled = |length: usize| (length as f32 * ratio).round_ties_even() as usize;
    Size {
        height: scaled(image.height),
        width: scaled(image.width),
    }
}
