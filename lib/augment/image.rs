//! One image in memory, and what only moves its pixels: windows, mirroring, quarter turns.

use super::crop::{Size, Window};

/// Row-major HWC. Values are 0..255 until a step like `-1_to_1` maps them elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub data: Vec<f32>,
}

impl Image {
    /// Copies a window of HWC pixels of the given width; values are kept.
    pub fn from_window<T: Copy + Into<f32>>(
        pixels: &[T],
        width: usize,
        channels: usize,
        window: Window,
    ) -> Image {
        let mut data = Vec::with_capacity(window.height * window.width * channels);
        let rows = pixels.chunks_exact(width * channels);
        for row in rows.skip(window.y).take(window.height) {
            let row = &row[window.x * channels..][..window.width * channels];
            data.extend(row.iter().map(|&v| v.into()));
        }
        Image {
            height: window.height,
            width: window.width,
            channels,
            data,
        }
    }

    pub fn size(&self) -> Size {
        Size {
            height: self.height,
            width: self.width,
        }
    }

    /// The part inside `window`.
    pub fn crop(&self, window: Window) -> Image {
        Image::from_window(&self.data, self.width, self.channels, window)
    }

    /// Mirrors left and right, in place.
    pub fn flip_lr(&mut self) {
        let c = self.channels;
        for row in self.data.chunks_exact_mut(self.width * c) {
            for x in 0..self.width / 2 {
                let (left, right) = row.split_at_mut((self.width - 1 - x) * c);
                left[x * c..][..c].swap_with_slice(&mut right[..c]);
            }
        }
    }

    /// Turned counter-clockwise by `turns` quarters (`turns` < 4), as `np.rot90(image, turns)`.
    pub fn rotate(&self, turns: usize) -> Image {
        let (h, w) = (self.height as isize, self.width as isize);
        let walk = match turns {
            0 => (0, w, 1),
            1 => (w - 1, -1, w),
            2 => (h * w - 1, -w, -1),
            _ => ((h - 1) * w, 1, -w),
        };
        let (height, width) = match turns {
            0 | 2 => (self.height, self.width),
            _ => (self.width, self.height),
        };
        let mut data = vec![0.0; self.data.len()];
        // A literal number of channels lets the compiler copy a pixel without a call.
        match self.channels {
            1 => copy_pixels(&self.data, walk, width, 1, &mut data),
            3 => copy_pixels(&self.data, walk, width, 3, &mut data),
            c => copy_pixels(&self.data, walk, width, c, &mut data),
        }
        Image {
            height,
            width,
            channels: self.channels,
            data,
        }
    }

    /// The values pixel by pixel of an image of three channels.
    pub(super) fn rgb_mut(&mut self) -> impl Iterator<Item = &mut [f32; 3]> {
        self.data.as_chunks_mut::<3>().0.iter_mut()
    }
}

/// Fills `out`, rows of `width` pixels, by a walk through the pixels of `source`: the first one, and
/// the steps from row to row and from pixel to pixel.
#[inline(always)]
fn copy_pixels(
    source: &[f32],
    (start, down, right): (isize, isize, isize),
    width: usize,
    channels: usize,
    out: &mut [f32],
) {
    let mut row_start = start;
    for row in out.chunks_exact_mut(width * channels) {
        let mut at = row_start;
        for pixel in row.chunks_exact_mut(channels) {
            pixel.copy_from_slice(&source[at as usize * channels..][..channels]);
            at += right;
        }
        row_start += down;
    }
}
