//! A contact sheet: some images of each class with their keys, on one page that needs no network, so
//! that a label that is wrong is seen.

use super::count;
use crate::cli;
use crate::decode::kind::Kind;
use crate::error::{Error, Result};
use crate::labelled::rows::labelled_rows;
use crate::report::svg::escape;
use crate::rng::{Stream, permutation, rng};
use crate::schema;
use crate::shards::{Decoded, Shards, Split, Stored};
use crate::tables::table;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, RgbImage};
use indicatif::HumanCount;
use rayon::prelude::*;
use std::fmt::Write;
use std::path::Path;

/// Images of each class, and of all classes if nobody says how many: a page of more is slow.
const PER_CLASS: usize = 8;
const MOST_IMAGES: usize = 8192;
/// A file of no more bytes and pixels stays as it is.
const SMALL_BYTES: usize = 16 << 10;
const SMALL_PIXELS: usize = 512 * 512;
/// The larger side of the pictures that others become, as JPEG; pixels of no more are PNG.
const SIDE: u32 = 160;
const QUALITY: u8 = 85;
/// Pictures of a smaller side are shown as squares, pixel by pixel.
const FEW_PIXELS: usize = 80;

/// Begins every sheet.
const MARK: &str = "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
    <meta name=generator content=s4l-inspect>\n";
/// It may load nothing.
const HEAD: &str = "<meta name=viewport content='width=device-width, initial-scale=1'>\n\
    <meta http-equiv=Content-Security-Policy \
    content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
    <title>Contact sheet</title>\n<style>\n";

/// How images are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// Of each class; fewer than `PER_CLASS` where there are many, if nobody says.
    pub per_class: Option<u32>,
    pub seed: u64,
}

/// The page of all splits of shards.
pub fn of_shards(folder: &Path, draw: Draw) -> Result<String> {
    let shards = Shards::open(folder)?;
    let mut groups = Vec::new();
    for name in shards.splits() {
        let split = shards.split(&name)?;
        let labels = split.labels()?.iter().copied().enumerate();
        groups.push(section(&shards, &name, &split, labels, draw)?);
    }
    Ok(page(&groups, draw))
}

/// The page of the images that a table has labels of.
pub fn of_table(path: &Path, folder: &Path, draw: Draw) -> Result<String> {
    let shards = Shards::open(folder)?;
    let table = table::read(path, "s4l-subset")?;
    let key = format!("{}{}", schema::INPUT_PREFIX, schema::input::SHARDS);
    let splits = shards.contents();
    let made_from = table.metadata.get(&key).and_then(|hash| {
        splits.iter().find(|(_, content)| *content == hash).map(|(name, _)| *name)
    });
    // Of a table that another tool wrote nobody knows; a label of other images is refused.
    let name = made_from.unwrap_or("train");
    let split = shards.split(name)?;
    let (rows, labels) = labelled_rows(&table, &split, shards.classes().len(), schema::LABEL)?;
    let rows = rows.into_iter().zip(labels).map(|(row, label)| (row as usize, Some(label)));
    Ok(page(&[section(&shards, name, &split, rows, draw)?], draw))
}

/// A sheet that is there already.
///
/// Errors: `NotOurs` if something else is there.
pub fn found(out: &Path) -> Result<Option<Vec<u8>>> {
    if !out.exists() {
        return Ok(None);
    }
    let bytes = match out.is_file() {
        true => std::fs::read(out).map_err(Error::io(out))?,
        false => Vec::new(),
    };
    match bytes.starts_with(MARK.as_bytes()) {
        true => Ok(Some(bytes)),
        false => Err(Error::NotOurs { path: out.to_path_buf(), what: "a contact sheet".into() }),
    }
}

fn page(sections: &[String], draw: Draw) -> String {
    format!(
        "{MARK}{HEAD}{CSS}</style>\n<h1>Contact sheet</h1>\n\
         <p>Images of each class, drawn by seed {}, each with its key. The label of an image is the \
         heading that it stands under.</p>\n{}<footer>Written by s4l-inspect {}.</footer>\n</html>\n",
        draw.seed,
        sections.concat(),
        env!("CARGO_PKG_VERSION"),
    )
}

/// The classes of a split, each with some of its images, and at the end those without a label.
fn section(
    shards: &Shards,
    name: &str,
    split: &Split,
    labelled: impl Iterator<Item = (usize, Option<u32>)>,
    draw: Draw,
) -> Result<String> {
    let classes = shards.classes();
    let mut groups: Vec<Vec<u32>> = vec![Vec::new(); classes.len() + 1];
    for (row, label) in labelled {
        groups[label.map_or(classes.len(), |label| label as usize)].push(row as u32);
    }
    let images: usize = groups.iter().map(Vec::len).sum();
    let fewer = (MOST_IMAGES / groups.len()).clamp(1, PER_CLASS);
    let per_class = draw.per_class.map_or(fewer, |images| images as usize);
    let (images, count) = (count(images as u64, "image"), HumanCount(classes.len() as u64));
    let (name, content) = (escape(name), split.content_hash());
    let mut html = format!("<h2>{name}</h2>\n<p>{images}, {count} classes, shards {content}</p>\n");
    for (class, mut rows) in groups.into_iter().enumerate() {
        let (number, title) = match classes.get(class) {
            Some(title) => (class.to_string(), title.as_str()),
            None if rows.is_empty() => continue,
            None => (String::new(), "without a label"),
        };
        let all = rows.len();
        rows.sort_unstable();
        let order = permutation(&mut rng(draw.seed, Stream::Sheet, 0, class as u64), all);
        let mut drawn: Vec<u32> =
            order.into_iter().take(per_class).map(|nth| rows[nth as usize]).collect();
        drawn.sort_unstable();
        let tiles = drawn.par_iter().map(|&row| tile(split, row as usize, title));
        let tiles = tiles.collect::<Result<Vec<_>>>()?.concat();
        let (shown, all) = (HumanCount(drawn.len() as u64), HumanCount(all as u64));
        let _ = writeln!(
            html,
            "<section><h3><i>{number}</i> {} <small>{shown} of {all}</small></h3>\n\
             <div>{tiles}</div></section>",
            escape(title)
        );
    }
    Ok(html)
}

/// An image with its key.
fn tile(split: &Split, row: usize, class: &str) -> Result<String> {
    if cli::stop_requested() {
        return Err(Error::Interrupted { path: split.path().to_path_buf() });
    }
    let (key, class) = (escape(split.key(row)), escape(class));
    let (height, width) = split.size(row);
    let picture = match picture(split, row)? {
        Picture::File(kind, bytes) => {
            let few = if height.max(width) < FEW_PIXELS { " class=few" } else { "" };
            let data = BASE64_STANDARD.encode(bytes);
            format!("<img{few} alt=\"{class}\" src=\"data:image/{kind};base64,{data}\">")
        }
        Picture::Damaged(found) => format!("<em>{}</em>", escape(&found)),
    };
    Ok(format!(
        "<figure title=\"{key}: {class}, {height}x{width}\">{picture}\
         <figcaption>{key}</figcaption></figure>\n"
    ))
}

/// What is shown of an image.
enum Picture {
    /// A kind of file, as browsers name it, and its bytes.
    File(&'static str, Vec<u8>),
    /// Why it does not decode.
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
        // The bytes are those that were written, as `stored` has found.
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

const CSS: &str = "\
:root {
  color-scheme: light dark;
  --page: #fcfcfb; --ink: #141413; --soft: #52514e; --faint: #77756f; --rule: #e4e3dd; --back: #f0efeb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #1a1a19; --ink: #f4f3ef; --soft: #c3c2b7; --faint: #98968f; --rule: #33332f; --back: #262624;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 1360px; padding: 32px 16px 48px;
  background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif;
}
h1 { margin: 0 0 4px; font-size: 24px; }
h2 { margin: 40px 0 0; font-size: 19px; }
p { margin: 2px 0 12px; max-width: 74ch; color: var(--soft); overflow-wrap: anywhere; }
section {
  display: grid; gap: 6px 16px; padding: 12px 0; border-top: 1px solid var(--rule);
  content-visibility: auto; contain-intrinsic-size: auto 150px;
}
h3 { margin: 0; font-size: 15px; font-weight: 600; overflow-wrap: anywhere; }
h3 i { font-style: normal; font-weight: 400; color: var(--faint); }
h3 small { font-size: 12px; font-weight: 400; color: var(--faint); white-space: nowrap; }
section div { display: grid; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); gap: 8px; }
figure { margin: 0; min-width: 0; }
img, em {
  display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 3px;
  background: var(--back);
}
em { padding: 6px; overflow: hidden; font-size: 11px; color: var(--faint); }
.few { image-rendering: pixelated; }
figcaption {
  margin-top: 2px; overflow-wrap: anywhere; color: var(--faint);
  font: 11px/1.3 ui-monospace, 'SF Mono', Menlo, Consolas, monospace;
}
footer { margin-top: 32px; font-size: 12.5px; color: var(--faint); }
@media (min-width: 760px) {
  section { grid-template-columns: 176px 1fr; }
  section div { grid-template-columns: repeat(auto-fill, minmax(124px, 1fr)); }
}
";
