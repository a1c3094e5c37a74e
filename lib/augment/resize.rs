//! Resizing by the formulas of TensorFlow 1.
//!
//! All methods are separable: an output value is a weighted sum of input rows, and of columns. The methods
//! differ only in the taps of one axis. Values keep their range, except that bicubic overshoots; nothing is
//! rounded. Weights are f32, as in TensorFlow. The order of the sums differs, which changes a value of
//! 0..255 by less than 1e-3.

use crate::pixels::{Image, Size, View, Window};
use std::ops::Range;

/// Position of output index `i` on the input axis, n -> m points: "legacy" is i * n / m (no
/// half-pixel centres), "aligned" is i * (n - 1) / (m - 1) (corners on corners; legacy if m = 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
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
    /// The taps of the output indices `part`.
    fn new(method: Interpolation, input: usize, output: usize, part: Range<usize>) -> Taps {
        let legacy = input as f32 / output as f32;
        let scale = match method {
            Interpolation::LegacyBilinear | Interpolation::Area => legacy,
            _ if output == 1 => legacy,
            _ => (input - 1) as f32 / (output - 1) as f32,
        };
        let last = input - 1;
        let position = |i: usize| i as f32 * scale;
        match method {
            Interpolation::LegacyBilinear | Interpolation::AlignedBilinear => {
                Taps { count: 2, taps: part.flat_map(|i| linear(position(i), last)).collect() }
            }
            Interpolation::AlignedNearest => Taps {
                count: 1,
                taps: part.map(|i| ((position(i).round() as usize).min(last), 1.0)).collect(),
            },
            Interpolation::AlignedBicubic => {
                Taps { count: 4, taps: part.flat_map(|i| cubic(position(i), last)).collect() }
            }
            Interpolation::Area => {
                // A box of length `scale` that starts anywhere touches at most this many pixels.
                let count = scale.ceil() as usize + 1;
                let taps = part
                    .flat_map(|i| covered(position(i), position(i + 1), scale, last).take(count))
                    .collect();
                Taps { count, taps }
            }
        }
    }

    /// Counts the input from the first index that is used, and returns it with the length in use.
    fn shift(&mut self) -> (usize, usize) {
        let used = self.taps.iter().map(|tap| tap.0);
        let first = used.clone().min().unwrap_or(0);
        let last = used.max().unwrap_or(0);
        for tap in &mut self.taps {
            tap.0 -= first;
        }
        (first, last - first + 1)
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
pub fn resize<T: Copy + Into<f32>>(image: View<T>, size: Size, method: Interpolation) -> Image {
    let resize = Resize::new(image.size, size, method, Window::whole(size));
    resize.run(image.window(resize.source))
}

/// A window of a resized image, computed from the part of the input on which it depends.
pub struct Resize {
    /// The part of the input.
    pub source: Window,
    size: Size,
    rows: Taps,
    columns: Taps,
}

impl Resize {
    /// From an image of size `image` to the part inside `window` of one of size `size`.
    pub fn new(image: Size, size: Size, method: Interpolation, window: Window) -> Resize {
        let (bottom, right) = (window.y + window.height, window.x + window.width);
        let mut rows = Taps::new(method, image.height, size.height, window.y..bottom);
        let mut columns = Taps::new(method, image.width, size.width, window.x..right);
        let ((y, height), (x, width)) = (rows.shift(), columns.shift());
        Resize { source: Window { y, x, height, width }, size: window.size(), rows, columns }
    }

    /// `source`: the pixels of the window `source`.
    pub fn run<T: Copy + Into<f32>>(&self, source: View<T>) -> Image {
        let channels = source.channels;
        let mut data = vec![0.0; self.size.height * self.size.width * channels];
        self.write(source, &mut data);
        Image { height: self.size.height, width: self.size.width, channels, data }
    }

    /// As `run`, with memory for the values, row after row.
    pub(super) fn write<T: Copy + Into<f32>>(&self, source: View<T>, out: &mut [f32]) {
        pulp::Arch::new().dispatch(Fill { resize: self, source, data: out });
    }

    #[inline(always)]
    fn fill<T: Copy + Into<f32>>(&self, source: View<T>, channels: usize, data: &mut [f32]) {
        // A pixel of three values is read as four.
        let mut row = vec![0.0; source.size.width * channels + 1];
        let rows = data.chunks_exact_mut(self.size.width * channels);
        // Rows first: those sums run over contiguous values.
        for (out, taps) in rows.zip(self.rows.iter()) {
            match *taps {
                [(a, weight_a), (b, weight_b)] => {
                    let pairs = source.row(a).iter().zip(source.row(b));
                    for (sum, (&a, &b)) in row.iter_mut().zip(pairs) {
                        *sum = weight_a * a.into() + weight_b * b.into();
                    }
                }
                _ => {
                    row.fill(0.0);
                    for &(y, weight) in taps {
                        for (sum, &v) in row.iter_mut().zip(source.row(y)) {
                            *sum += weight * v.into();
                        }
                    }
                }
            }
            match self.columns.count {
                2 if channels == 3 => blend_rgb(&row, &self.columns, out),
                _ => sum_columns(&row, &self.columns, channels, out),
            }
        }
    }
}

struct Fill<'a, T> {
    resize: &'a Resize,
    source: View<'a, T>,
    data: &'a mut [f32],
}

impl<T: Copy + Into<f32>> pulp::WithSimd for Fill<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (resize, source, data) = (self.resize, self.source, self.data);
        // A literal number of channels lets the compiler unroll the loop over them.
        match source.channels {
            1 => resize.fill(source, 1, data),
            3 => resize.fill(source, 3, data),
            channels => resize.fill(source, channels, data),
        }
    }
}

#[inline(always)]
fn sum_columns(row: &[f32], columns: &Taps, channels: usize, out: &mut [f32]) {
    for (pixel, taps) in out.chunks_exact_mut(channels).zip(columns.iter()) {
        pixel.fill(0.0);
        for &(x, weight) in taps {
            for (sum, v) in pixel.iter_mut().zip(&row[x * channels..][..channels]) {
                *sum += weight * v;
            }
        }
    }
}

/// `sum_columns` for two taps and three channels. Works on four values at a time; the last one belongs to
/// the next pixel, which overwrites it.
#[inline(always)]
fn blend_rgb(row: &[f32], columns: &Taps, out: &mut [f32]) {
    let four = |values: &[f32], at: usize| -> [f32; 4] {
        let values = values[at..].first_chunk();
        *values.expect("a row has a value after its last pixel")
    };
    let taps = columns.taps.as_chunks::<2>().0;
    for (i, &[(a, weight_a), (b, weight_b)]) in taps.iter().enumerate() {
        let (a, b) = (four(row, 3 * a), four(row, 3 * b));
        let mut pixel = [0.0; 4];
        for c in 0..4 {
            pixel[c] = weight_a * a[c] + weight_b * b[c];
        }
        match out[3 * i..].first_chunk_mut::<4>() {
            Some(four) => *four = pixel,
            None => out[3 * i..].copy_from_slice(&pixel[..3]),
        }
    }
}

/// The size whose smaller side is `side` at the same aspect ratio: round(length * side / smaller),
/// in f32 with ties to even (`resize_small`; S4L, preprocess.py).
pub fn smaller_side(image: Size, side: usize) -> Size {
    let ratio = side as f32 / image.height.min(image.width) as f32;
    let scaled = |length: usize| (length as f32 * ratio).round_ties_even() as usize;
    Size { height: scaled(image.height), width: scaled(image.width) }
}
