//! Images of shards on a page: small files unchanged, others as small pictures.

use super::frame::escape;
use crate::cli;
use crate::decode::kind::Kind;
use crate::error::{Error, Result};
use crate::shards::{Decoded, Split, Stored};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, RgbImage};
use indicatif::HumanCount;
use rayon::prelude::*;

/// A file with at most this many bytes and pixels is shown unchanged.
const SMALL_BYTES: usize = 16 << 10;
const SMALL_PIXELS: usize = 512 * 512;
/// The larger side of the pictures that replace other files, as JPEG. Images no larger than this become
/// PNG.
const SIDE: u32 = 160;
const QUALITY: u8 = 85;
/// Pictures with a smaller side are shown as squares, pixel by pixel.
const FEW_PIXELS: usize = 80;

/// An image to show.
pub struct Shown<'a> {
    pub row: usize,
    /// Name of its label.
    pub label: &'a str,
    /// More text, below the key; may be empty.
    pub note: String,
}

/// Images under a heading: number and name of a class, how many images it has, the images shown.
pub fn group(
    split: &Split,
    number: &str,
    name: &str,
    all: usize,
    shown: &[Shown],
) -> Result<String> {
    let figures = shown.par_iter().map(|image| figure(split, image));
    let figures = figures.collect::<Result<Vec<_>>>()?.concat();
    let (some, all) = (HumanCount(shown.len() as u64), HumanCount(all as u64));
    Ok(format!(
        "<section class=group><h3><i>{number}</i> {} <small>{some} of {all}</small></h3>\n\
         <div>{figures}</div></section>\n",
        escape(name)
    ))
}

/// An image with its key.
fn figure(split: &Split, Shown { row, label, note }: &Shown) -> Result<String> {
    if cli::stop_requested() {
        return Err(Error::Interrupted { path: split.path().to_path_buf() });
    }
    let (key, label) = (escape(split.key(*row)), escape(label));
    let (height, width) = split.size(*row);
    let picture = match picture(split, *row)? {
        Picture::File(kind, bytes) => {
            let few = if height.max(width) < FEW_PIXELS { " class=few" } else { "" };
            let data = BASE64_STANDARD.encode(bytes);
            format!("<img{few} alt=\"{label}\" src=\"data:image/{kind};base64,{data}\">")
        }
        Picture::Damaged(found) => format!("<em>{}</em>", escape(&found)),
    };
    let (comma, below) = match note.is_empty() {
        true => ("", String::new()),
        false => (", ", format!("<p>{}</p>", escape(note))),
    };
    Ok(format!(
        "<figure title=\"{key}: {label}, {height}x{width}{comma}{}\">{picture}\
         <figcaption>{key}</figcaption>{below}</figure>\n",
        escape(note)
    ))
}

/// The content shown for an image.
enum Picture {
    /// The media subtype, and the bytes.
    File(&'static str, Vec<u8>),
    /// Why the image does not decode.
    Damaged(String),
}

/// The second half of the media type.
fn subtype(kind: Kind) -> &'static str {
    match kind {
        Kind::Jpeg => "jpeg",
        Kind::Png => "png",
        Kind::Webp => "webp",
        Kind::Gif => "gif",
        Kind::Bmp => "bmp",
    }
}

/// Errors: `BadData` if the shards are damaged.
fn picture(split: &Split, row: usize) -> Result<Picture> {
    let (height, width) = split.size(row);
    if let Stored::Encoded(bytes) = split.stored(row)?
        && let Some(kind) = Kind::of(bytes)
        && bytes.len() <= SMALL_BYTES
        && height * width <= SMALL_PIXELS
    {
        return Ok(Picture::File(subtype(kind), bytes.to_vec()));
    }
    let Decoded { height, width, channels, pixels } = match split.decode(row) {
        Ok(image) => image,
        // These are the bytes that were written: `stored` has checked them.
        Err(Error::BadData { found, .. }) => return Ok(Picture::Damaged(found)),
        Err(e) => return Err(e),
    };
    let (w, h, pixels) = (width as u32, height as u32, pixels.into_owned());
    let image = match channels {
        1 => GrayImage::from_raw(w, h, pixels).map(DynamicImage::from),
        _ => RgbImage::from_raw(w, h, pixels).map(DynamicImage::from),
    };
    let image = image.ok_or_else(|| Error::Internal(format!("no {height}x{width} pixels")))?;
    let mut bytes = Vec::new();
    let (kind, done) = match w.max(h) <= SIDE {
        true => ("png", image.write_with_encoder(PngEncoder::new(&mut bytes))),
        false => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
            ("jpeg", image.thumbnail(SIDE, SIDE).write_with_encoder(encoder))
        }
    };
    done.map_err(|e| Error::Internal(e.to_string()))?;
    Ok(Picture::File(kind, bytes))
}
