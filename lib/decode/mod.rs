//! Image files to pixels: the only place that parses and decodes them, upright and as 8-bit RGB. Only the
//! needed part of a JPEG is decoded.
//!
//! Grey is repeated, alpha is dropped, 16-bit samples are scaled, CMYK becomes RGB without a colour
//! profile. The orientation that a camera noted (Exif) is applied, so sizes and windows are those of
//! the upright image. A window of a JPEG has the pixels that the whole image has there.

pub mod encoded;
mod huffman;
mod jpeg;
pub mod kind;
mod scan;
mod upright;

pub use upright::MAX_PIXELS;

use crate::pixels::{Size, View, Window};
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::io::Cursor;
use upright::{CHANNELS, Header, StoredPixels, checked_size};

/// Decodes images one after the other in the same buffers: one decoder per thread. The errors are what the
/// decoder says, one line.
#[derive(Default)]
pub struct Decoder {
    jpeg: Option<jpeg::Jpeg>,
    pixels: StoredPixels,
    turned: Vec<u8>,
}

impl Decoder {
    /// The size of an image, from its header.
    pub fn size(&mut self, bytes: &[u8]) -> Result<Size, String> {
        let header = match is_jpeg(bytes) {
            true => self.jpeg().header(bytes)?,
            false => header(&mut reader(bytes)?)?,
        };
        Ok(header.upright())
    }

    /// The pixels inside `window` of an image that is known to have that size. Those of a JPEG come
    /// scaled down by 2, 4 or 8 if that leaves at least the size `enough`: nearly the means of
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
                Ok((header.place(window), enough.map(|size| header.as_stored(size))))
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
            let header = header(&mut decoder)?;
            let (window, _) = choose(header)?;
            let image = DynamicImage::from_decoder(decoder).map_err(one_line)?;
            let stride = header.stored.width * CHANNELS;
            self.pixels = StoredPixels {
                data: image.into_rgb8().into_raw(),
                size: window.size(),
                stride,
                start: window.y * stride + window.x * CHANNELS,
            };
            header
        };
        Ok(self.pixels.upright(header.orientation, &mut self.turned))
    }

    /// All pixels of an image.
    pub fn whole(&mut self, bytes: &[u8]) -> Result<View<'_, u8>, String> {
        let size = self.size(bytes)?;
        self.window(bytes, size, Window::whole(size), None)
    }

    fn jpeg(&mut self) -> &mut jpeg::Jpeg {
        self.jpeg.get_or_insert_with(jpeg::Jpeg::new)
    }
}

fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8])
}

/// The decoder of any file but a JPEG.
fn reader(bytes: &[u8]) -> Result<impl ImageDecoder, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    reader.map_err(one_line)?.into_decoder().map_err(one_line)
}

fn header(decoder: &mut impl ImageDecoder) -> Result<Header, String> {
    let (width, height) = decoder.dimensions();
    let stored = checked_size(height as usize, width as usize)?;
    Ok(Header { stored, orientation: decoder.orientation().map_err(one_line)? })
}

fn one_line(e: impl std::fmt::Display) -> String {
    e.to_string().replace('\n', " ")
}
