//! From an image as a file stores it to the upright one: sizes, windows and pixels. A camera notes
//! (Exif) how it was held, and stores the rows of its sensor.

use crate::pixels::{Size, View, Window};
use image::metadata::Orientation;

/// Larger images are refused. One of this size takes 240 MB as RGB, and on the way
/// at most 960 MB: a progressive JPEG of four colours.
pub const MAX_PIXELS: usize = 80_000_000;

/// Of RGB.
pub const CHANNELS: usize = 3;

/// A size that is decoded.
///
/// Errors: what is wrong with it.
pub fn checked_size(height: usize, width: usize) -> Result<Size, String> {
    match height.saturating_mul(width) {
        1..=MAX_PIXELS => Ok(Size { height, width }),
        _ => Err(format!("{height}x{width}, where 1 to {MAX_PIXELS} pixels can be")),
    }
}

/// The header of a file.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// The size before the image is turned upright.
    pub stored: Size,
    pub orientation: Orientation,
}

impl Header {
    pub fn upright(self) -> Size {
        turned(self.stored, self.orientation)
    }

    /// A size of the upright image, or of a part of it, as it is stored.
    pub fn as_stored(self, upright: Size) -> Size {
        turned(upright, self.orientation)
    }

    /// The stored window of a window of the upright image.
    pub fn place(self, window: Window) -> Window {
        let turn = Turn::new(self.orientation, self.upright());
        let (bottom, right) = (window.y + window.height - 1, window.x + window.width - 1);
        let (a, b) = (turn.stored(window.y, window.x), turn.stored(bottom, right));
        Window {
            y: a.0.min(b.0),
            x: a.1.min(b.1),
            height: a.0.abs_diff(b.0) + 1,
            width: a.1.abs_diff(b.1) + 1,
        }
    }
}

/// Rows of RGB bytes inside a buffer, as they are stored.
#[derive(Default)]
pub struct StoredPixels {
    pub data: Vec<u8>,
    pub size: Size,
    /// Bytes from row to row.
    pub stride: usize,
    /// Position of the first pixel.
    pub start: usize,
}

impl StoredPixels {
    /// The pixels upright, copied to `buffer` if they have to be turned.
    pub fn upright<'a>(
        &'a self,
        orientation: Orientation,
        buffer: &'a mut Vec<u8>,
    ) -> View<'a, u8> {
        let StoredPixels { data, size, stride, start } = self;
        let size = turned(*size, orientation);
        if orientation == Orientation::NoTransforms {
            return View { size, channels: CHANNELS, data: &data[*start..], stride: *stride };
        }
        let turn = Turn::new(orientation, size);
        buffer.clear();
        for y in 0..size.height {
            for x in 0..size.width {
                let (y, x) = turn.stored(y, x);
                let pixel = start + y * stride + x * CHANNELS;
                buffer.extend_from_slice(&data[pixel..][..CHANNELS]);
            }
        }
        View { size, channels: CHANNELS, data: buffer, stride: size.width * CHANNELS }
    }
}

/// A stored size upright, and an upright one as it is stored.
fn turned(size: Size, orientation: Orientation) -> Size {
    match swaps_sides(orientation) {
        false => size,
        true => Size { height: size.width, width: size.height },
    }
}

fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::*;
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// The way from an upright image to the stored one: sides swapped, then counted from the far end.
struct Turn {
    swap: bool,
    flip_y: bool,
    flip_x: bool,
    upright: Size,
}

impl Turn {
    fn new(orientation: Orientation, upright: Size) -> Turn {
        use Orientation::*;
        Turn {
            swap: swaps_sides(orientation),
            flip_y: matches!(orientation, FlipVertical | Rotate180 | Rotate90 | Rotate270FlipH),
            flip_x: matches!(orientation, FlipHorizontal | Rotate180 | Rotate270 | Rotate270FlipH),
            upright,
        }
    }

    /// Row and column in the stored image of those in the upright one.
    fn stored(&self, y: usize, x: usize) -> (usize, usize) {
        let Size { height, width } = self.upright;
        let (y, x, height, width) = match self.swap {
            false => (y, x, height, width),
            true => (x, y, width, height),
        };
        (if self.flip_y { height - 1 - y } else { y }, if self.flip_x { width - 1 - x } else { x })
    }
}
