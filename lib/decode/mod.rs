//! Image files to pixels: the one place where they are decoded, upright and as 8-bit RGB. A JPEG is
//! decoded only where it is looked at.
//!
//! Grey is repeated, alpha is dropped, 16-bit samples are scaled, CMYK becomes RGB without a colour
//! profile. The orientation that a camera noted (Exif) is applied, so sizes and windows are those of
//! the upright image. A window of a JPEG has the pixels that the whole image has there.

pub mod encoded;
mod huffman;
mod jpeg;
mod scan;

use crate::pixels::View;
use crate::pixels::{Size, Window};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::io::Cursor;

/// Larger images are refused, whatever is in them. One of this size takes 240 MB as RGB, and on the way
/// at most 960 MB: a progressive JPEG of four colours.
pub const MAX_PIXELS: usize = 80_000_000;

/// A JPEG of more scans is refused: each passes over all pixels and may take but a hundred bytes of
/// the file. libjpeg-turbo's own tools draw the line here; encoders write some ten.
pub const MAX_SCANS: usize = 500;

const CHANNELS: usize = 3;

/// Decodes images one after the other in the same buffers: one a thread. The errors are what the
/// decoder says, one line.
#[derive(Default)]
pub struct Decoder {
    jpeg: Option<jpeg::Jpeg>,
    pixels: Pixels,
    turned: Vec<u8>,
}

/// Rows of RGB bytes inside a buffer.
#[derive(Default)]
struct Pixels {
    data: Vec<u8>,
    size: Size,
    /// Bytes from row to row.
    stride: usize,
    /// Where the first pixel is.
    start: usize,
}

/// What the header of a file says.
#[derive(Debug, Clone, Copy)]
struct Header {
    /// The size before the image is turned upright.
    stored: Size,
    orientation: Orientation,
}

impl Decoder {
    /// The size of an image, from its header.
    pub fn size(&mut self, bytes: &[u8]) -> Result<Size, String> {
        Ok(match is_jpeg(bytes) {
            true => self.jpeg().header(bytes)?.upright(),
            false => upright(&mut reader(bytes)?)?.upright(),
        })
    }

    /// The pixels inside `window` of an image that is known to have that size. Those of a JPEG come
    /// scaled down by 2, 4 or 8 where that leaves at least the size `enough`: nearly the means of
    /// squares of pixels, for less work.
    pub fn window(
        &mut self,
        bytes: &[u8],
        size: Size,
        window: Window,
        enough: Option<Size>,
    ) -> Result<View<'_, u8>, String> {
        let choose = |header: Header| match header.upright() {
            found if found == size => {
                Ok((header.place(window), enough.map(|size| turned(size, header.orientation))))
            }
            Size { height, width } => Err(format!("{height}x{width}")),
        };
        let header = if is_jpeg(bytes) {
            let mut pixels = std::mem::take(&mut self.pixels);
            let header = self.jpeg().window(bytes, choose, &mut pixels);
            self.pixels = pixels;
            header?
        } else {
            let mut decoder = reader(bytes)?;
            let header = upright(&mut decoder)?;
            let (window, _) = choose(header)?;
            let image = DynamicImage::from_decoder(decoder).map_err(one_line)?;
            let stride = header.stored.width * CHANNELS;
            self.pixels = Pixels {
                data: image.into_rgb8().into_raw(),
                size: window.size(),
                stride,
                start: window.y * stride + window.x * CHANNELS,
            };
            header
        };
        Ok(self.turn(header.orientation))
    }

    /// All pixels of an image.
    pub fn whole(&mut self, bytes: &[u8]) -> Result<View<'_, u8>, String> {
        let size = self.size(bytes)?;
        self.window(bytes, size, Window::whole(size), None)
    }

    fn jpeg(&mut self) -> &mut jpeg::Jpeg {
        self.jpeg.get_or_insert_with(jpeg::Jpeg::new)
    }

    /// The decoded pixels upright.
    fn turn(&mut self, orientation: Orientation) -> View<'_, u8> {
        let Pixels { data, size, stride, start } = &self.pixels;
        let size = turned(*size, orientation);
        if orientation == Orientation::NoTransforms {
            return View { size, channels: CHANNELS, data: &data[*start..], stride: *stride };
        }
        let walk = Walk::new(orientation, size);
        self.turned.clear();
        for y in 0..size.height {
            for x in 0..size.width {
                let (y, x) = walk.stored(y, x);
                let pixel = start + y * stride + x * CHANNELS;
                self.turned.extend_from_slice(&data[pixel..][..CHANNELS]);
            }
        }
        View { size, channels: CHANNELS, data: &self.turned, stride: size.width * CHANNELS }
    }
}

impl Header {
    fn upright(self) -> Size {
        turned(self.stored, self.orientation)
    }

    /// Where the pixels of a window of the upright image are stored.
    fn place(self, window: Window) -> Window {
        let walk = Walk::new(self.orientation, self.upright());
        let (bottom, right) = (window.y + window.height - 1, window.x + window.width - 1);
        let (a, b) = (walk.stored(window.y, window.x), walk.stored(bottom, right));
        Window {
            y: a.0.min(b.0),
            x: a.1.min(b.1),
            height: a.0.abs_diff(b.0) + 1,
            width: a.1.abs_diff(b.1) + 1,
        }
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
struct Walk {
    swap: bool,
    flip_y: bool,
    flip_x: bool,
    upright: Size,
}

impl Walk {
    fn new(orientation: Orientation, upright: Size) -> Walk {
        use Orientation::*;
        Walk {
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

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8])
}

fn check_size(height: usize, width: usize) -> Result<(), String> {
    match height.saturating_mul(width) {
        1..=MAX_PIXELS => Ok(()),
        _ => Err(format!("{height}x{width}, where 1 to {MAX_PIXELS} pixels can be")),
    }
}

/// The decoder of any file but a JPEG.
fn reader(bytes: &[u8]) -> Result<impl ImageDecoder, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let decoder = reader.map_err(one_line)?.into_decoder().map_err(one_line)?;
    let (width, height) = decoder.dimensions();
    check_size(height as usize, width as usize)?;
    Ok(decoder)
}

fn upright(decoder: &mut impl ImageDecoder) -> Result<Header, String> {
    let (width, height) = decoder.dimensions();
    Ok(Header {
        stored: Size { height: height as usize, width: width as usize },
        orientation: decoder.orientation().map_err(one_line)?,
    })
}

fn one_line(e: impl std::fmt::Display) -> String {
    e.to_string().replace('\n', " ")
}
