//! Encoded images (JPEG, PNG, WebP, GIF, BMP): whether they are complete, and their size. Nothing is
//! decompressed, so the cost is a scan of the bytes, for any size in the header.

use super::Decoder;
use super::jpeg::MAX_SCANS;
use super::kind::{self, Kind};
use super::upright::{Header, MAX_PIXELS, checked_size};
use crate::augment::resize::{self, Interpolation, smaller_side};
use crate::pixels::{Size, View, Window};
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{ExtendedColorType, ImageDecoder, ImageEncoder};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::Cursor;

/// Checks the structure of an image file, whose kind is recognized by content. Returns the size of the
/// image as shown, after the rotation that its EXIF data asks for.
///
/// - JPEG: the decoder accepts the header, every marker within the compressed data is allowed there, the
///   scans are few enough to decode, and the end marker is present. Other damage within the compressed data
///   is not detected.
/// - PNG: every chunk's checksum is right, up to the end chunk.
/// - WebP: the container is complete and its headers parse.
/// - GIF: the first image, which is the one shown, is complete.
/// - BMP: the decoder accepts the header, and uncompressed pixels are complete.
///
/// Errors: what is wrong, for people; also for an image without pixels, or with more than can be decoded.
pub fn check(bytes: &[u8]) -> Result<Size, String> {
    let header = match Kind::of(bytes) {
        Some(Kind::Jpeg) => jpeg(bytes)?,
        Some(Kind::Png) => png(bytes)?,
        Some(Kind::Webp) => webp(bytes)?,
        Some(Kind::Gif) => gif(bytes)?,
        Some(Kind::Bmp) => bmp(bytes)?,
        None => return Err(kind::other(bytes)),
    };
    let Size { height, width } = header.stored;
    if height == 0 || width == 0 {
        return Err(format!("an image of {height}x{width} pixels"));
    }
    if height.saturating_mul(width) > MAX_PIXELS {
        return Err(format!(
            "{height}x{width} is more than the {MAX_PIXELS} pixels that are decoded"
        ));
    }
    Ok(header.upright())
}

/// Larger images were shrunk and encoded again as JPEG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resized {
    /// Pixels of the smaller side.
    pub small: u32,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
}

/// Decodes a whole image file of a known size, as `decode::Decoder` does.
///
/// Errors: the message of the decoder, one line; also if it finds another size.
pub fn decode_rgb(bytes: &[u8], size: Size) -> Result<image::RgbImage, String> {
    let mut decoder = Decoder::default();
    let found = decoder.size(bytes)?;
    if found != size {
        let [Size { height, width }, other] = [size, found];
        let other = format!("{}x{}", other.height, other.width);
        return Err(format!("an image of {height}x{width} that is decoded as {other}"));
    }
    let pixels = decoder.window(bytes, size, Window::whole(size), None)?;
    let rows = (0..size.height).flat_map(|y| pixels.row(y));
    image::RgbImage::from_raw(size.width as u32, size.height as u32, rows.copied().collect())
        .ok_or_else(|| "an image that does not fill its size".to_string())
}

fn jpeg(bytes: &[u8]) -> Result<Header, String> {
    thread_local! {
        static DECODER: RefCell<Decoder> = RefCell::default();
    }
    jpeg_end(bytes)?;
    let size = DECODER.with_borrow_mut(|decoder| decoder.size(bytes));
    let size = size.map_err(|e| format!("a JPEG that cannot be decoded: {e}"))?;
    // The decoder has already turned the image.
    Ok(Header { stored: size, orientation: Orientation::NoTransforms })
}

/// Walks over the segments and the compressed data of a JPEG up to its end marker FF D9. A decoder silently
/// fills the missing part of a truncated file with grey, so truncation must be found here.
fn jpeg_end(bytes: &[u8]) -> Result<(), String> {
    let (mut at, mut scans) = (2, 0);
    while let Some((place, kind)) = marker(bytes, at) {
        at = place + 2;
        match kind {
            // A fill byte, which a marker may follow.
            0xff => at -= 1,
            // Restart markers; TEM.
            0x01 | 0xd0..=0xd7 => {}
            0xd9 => return Ok(()),
            // A segment: its length counts itself.
            0xc0..=0xcf | 0xda..=0xef | 0xfe => {
                scans += usize::from(kind == 0xda);
                if scans > MAX_SCANS {
                    return Err(format!("a JPEG of more than {MAX_SCANS} scans"));
                }
                let Some(&[high, low]) = bytes.get(at..at + 2) else {
                    break;
                };
                at += usize::from(u16::from_be_bytes([high, low])).max(2);
            }
            _ => return Err(format!("a damaged JPEG: marker FF {kind:02X}")),
        }
    }
    Err("a JPEG without its end".to_string())
}

/// The position of the first FF from `at` on that does not belong to the compressed data, because a byte
/// other than 0 follows, and that byte.
fn marker(bytes: &[u8], mut at: usize) -> Option<(usize, u8)> {
    const STEP: usize = 64;
    let is_marker = |(&first, &second): (&u8, &u8)| first == 0xff && second != 0;
    // Compressed data is full of FF 00, at which a search for FF would stop. The fold has no early exit, so
    // that the compiler can vectorize it.
    while let Some(some) = bytes.get(at..at + STEP + 1) {
        let pairs = some.iter().zip(&some[1..]);
        if pairs.fold(false, |found, pair| found | is_marker(pair)) {
            break;
        }
        at += STEP;
    }
    let rest = bytes.get(at..)?;
    let place = at + rest.iter().zip(rest.get(1..)?).position(is_marker)?;
    Some((place, bytes[place + 1]))
}

fn png(bytes: &[u8]) -> Result<Header, String> {
    let cut = || "a PNG without its end".to_string();
    let mut rest = bytes.get(8..).ok_or_else(cut)?;
    let (mut size, mut data, mut exif) = (None, false, None);
    loop {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, after) = after.split_at_checked(length + 4).ok_or_else(cut)?;
        let (sum, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
        rest = after;
        let (kind, body) = chunk.split_at(4);
        let name = kind.escape_ascii();
        if crc32fast::hash(chunk) != u32::from_be_bytes(*sum) {
            return Err(format!("a damaged PNG: the checksum of its chunk {name}"));
        }
        match (kind, body, size) {
            (b"IHDR", [w0, w1, w2, w3, h0, h1, h2, h3, depth, color, ..], None) => {
                if !matches!(
                    (color, depth),
                    (0, 1 | 2 | 4 | 8 | 16) | (2 | 4 | 6, 8 | 16) | (3, 1 | 2 | 4 | 8)
                ) {
                    return Err(format!("a damaged PNG: color type {color} of {depth} bits"));
                }
                size = Some(Size {
                    height: u32::from_be_bytes([*h0, *h1, *h2, *h3]) as usize,
                    width: u32::from_be_bytes([*w0, *w1, *w2, *w3]) as usize,
                });
            }
            (b"IEND", _, Some(stored)) if data => {
                let orientation = exif.unwrap_or(Orientation::NoTransforms);
                return Ok(Header { stored, orientation });
            }
            (_, _, None) | (b"IEND" | b"IHDR", ..) => {
                return Err(format!("a damaged PNG: chunk {name} out of place"));
            }
            (b"IDAT", ..) => data = true,
            // After the data it comes too late for a decoder that begins to show the image.
            (b"eXIf", ..) if !data && exif.is_none() => {
                let orientation = Orientation::from_exif_chunk(body);
                exif = Some(orientation.unwrap_or(Orientation::NoTransforms));
            }
            _ => {}
        }
    }
}

fn webp(bytes: &[u8]) -> Result<Header, String> {
    let size =
        bytes.get(4..8).map_or(0, |s| u64::from(u32::from_le_bytes([s[0], s[1], s[2], s[3]])));
    if size + 8 > bytes.len() as u64 {
        return Err("a WebP without its end".to_string());
    }
    let damaged = |e: image::ImageError| format!("a damaged WebP: {}", one_line(&e));
    let mut decoder = image::codecs::webp::WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let stored = Size { height: height as usize, width: width as usize };
    Ok(Header { stored, orientation: decoder.orientation().map_err(damaged)? })
}

/// Walks over the blocks of a GIF up to the end of its first image.
fn gif(bytes: &[u8]) -> Result<Header, String> {
    let cut = || "a GIF without its end".to_string();
    let u16_at = |at: usize| {
        let two = bytes.get(at..at + 2).ok_or_else(cut)?;
        Ok::<usize, String>(u16::from_le_bytes([two[0], two[1]]).into())
    };
    let byte = |at: usize| bytes.get(at).copied().ok_or_else(cut);
    let colors = |flags: u8| if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let stored = Size { width: u16_at(6)?, height: u16_at(8)? };
    let mut at = 13 + colors(byte(10)?);
    loop {
        let is_image = match byte(at)? {
            0x21 => false,
            0x2c => true,
            0x3b => return Err("a GIF without an image".to_string()),
            kind => return Err(format!("a damaged GIF: block {kind:02X}")),
        };
        if is_image {
            let (width, height) = (u16_at(at + 5)?, u16_at(at + 7)?);
            checked_size(height, width)?;
            at += 11 + colors(byte(at + 9)?);
        } else {
            at += 2;
        }
        // Blocks of data, each preceded by its length; a length of 0 is the end.
        while let length @ 1.. = byte(at)? {
            at += 1 + usize::from(length);
        }
        at += 1;
        if is_image {
            return Ok(Header { stored, orientation: Orientation::NoTransforms });
        }
    }
}

fn bmp(bytes: &[u8]) -> Result<Header, String> {
    let damaged = |e: image::ImageError| format!("a BMP that cannot be decoded: {}", one_line(&e));
    let decoder = image::codecs::bmp::BmpDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    let stored = Size { height: height as usize, width: width as usize };
    let number = |at: usize, size: usize| {
        let bytes = bytes.get(at..at + size).unwrap_or_default();
        bytes.iter().rev().fold(0, |sum, &byte| (sum << 8) | usize::from(byte))
    };
    // The oldest header has no compression, and its fields are at other places.
    let (bits, compression) = match number(14, 4) {
        12 => (number(24, 2), 0),
        _ => (number(28, 2), number(30, 4)),
    };
    let row = stored.width.saturating_mul(bits).div_ceil(32).saturating_mul(4);
    let pixels = row.saturating_mul(stored.height);
    let plain = matches!(compression, 0 | 3 | 6);
    if plain && number(10, 4).saturating_add(pixels) > bytes.len() {
        return Err("a BMP without its end".to_string());
    }
    Ok(Header { stored, orientation: Orientation::NoTransforms })
}

/// The image with its smaller side reduced to `small` (each pixel the mean over its box, aspect ratio
/// kept), as JPEG with its size; `None` if the image is not larger than that and stays unchanged.
///
/// Errors: the message of the decoder.
pub fn resize(
    bytes: &[u8],
    size: Size,
    Resized { small, quality }: Resized,
) -> Result<Option<(Vec<u8>, Size)>, String> {
    if size.height.min(size.width) <= small as usize {
        return Ok(None);
    }
    let pixels = decode_rgb(bytes, size)?;
    let smaller = smaller_side(size, small as usize);
    let means = resize::resize(View::new(&pixels, size, 3), smaller, Interpolation::Area);
    let means: Vec<u8> = means.data.iter().map(|value| value.round() as u8).collect();
    let mut encoded = Vec::new();
    let (width, height) = (smaller.width as u32, smaller.height as u32);
    JpegEncoder::new_with_quality(&mut encoded, quality)
        .write_image(&means, width, height, ExtendedColorType::Rgb8)
        .map_err(|e| one_line(&e))?;
    Ok(Some((encoded, smaller)))
}

fn one_line(e: &dyn std::fmt::Display) -> String {
    e.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
