//! IDX, the format of MNIST: a big-endian header (0, 0, 8 for uint8, number of dimensions, then one
//! u32 per dimension) and raw bytes. Plain, gzip or zstd. EMNIST is the same with its columns for rows,
//! and a file that says which letter each label is.

use super::classes;
use super::idx_names::{self, Kind, Set};
use super::item::{Class, Item, Position, SplitName, Visit, Walked};
use super::stream;
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use crate::pixels::Size;
use std::io::Read;
use std::path::{Path, PathBuf};

const CLASSES: &str = "classes.txt";
const COPY_AGAIN: &str = "the file is damaged, copy it again";

/// Whether a folder has IDX images.
pub fn has_images(root: &Path) -> bool {
    !idx_names::sets(root).is_empty()
}

#[derive(Debug)]
pub struct Idx {
    pub classes: Vec<String>,
    /// Height, width, channels.
    pub shape: [usize; 3],
    splits: Vec<SplitImages>,
    class_file: Option<PathBuf>,
}

/// Images and labels of one split.
#[derive(Debug)]
struct SplitImages {
    split: SplitName,
    count: usize,
    size: Size,
    images: PathBuf,
    label_file: Option<PathBuf>,
    labels: Option<Vec<u8>>,
    /// The first label, 0 or 1.
    first_label: u8,
    /// Whether the file stores columns as rows.
    by_column: bool,
}

impl Idx {
    /// Errors: `BadData` for an invalid header, labels that do not fit, or no images at all.
    pub fn open(root: &Path) -> Result<Idx> {
        let sets = idx_names::sets(root);
        let [set] = &sets[..] else {
            let names: Vec<&str> = sets.iter().map(Set::name).collect();
            return Err(Error::bad_data(
                root,
                "train-images-idx3-ubyte or t10k-images-idx3-ubyte of one data set",
                if names.is_empty() { "neither".to_string() } else { names.join(", ") },
                "name a folder that holds the files of one",
            ));
        };
        let class_file = Some(root.join(CLASSES)).filter(|p| p.exists());
        let (classes, first_label, class_file) = match class_file {
            Some(path) => (classes::read(&path)?, set.first_label(), Some(path)),
            None => set.classes(root)?,
        };
        let mut splits: Vec<SplitImages> = Vec::new();
        for (split, images) in set.files(root, Kind::Images) {
            let labels = set.files(root, Kind::Labels);
            let labels = labels.into_iter().find(|(of, _)| *of == split).map(|(_, path)| path);
            let mut images = SplitImages::open(split, images, labels)?;
            (images.first_label, images.by_column) = (first_label, set.by_column());
            if let Some(first) = splits.first() {
                images.check_size(first.size)?;
            }
            splits.push(images);
        }
        let Size { height, width } = splits.first().map(|first| first.size).unwrap_or_default();
        let shape = if set.by_column() { [width, height, 1] } else { [height, width, 1] };
        Ok(Idx { classes, shape, splits, class_file })
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let of_split = |s: &SplitImages| [Some(s.images.clone()), s.label_file.clone()];
        let files = self.splits.iter().flat_map(of_split);
        files.chain([self.class_file.clone()]).flatten()
    }

    /// Each file with its split.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        self.splits.iter().map(|f| (f.split, f.images.as_path()))
    }

    /// Keys are `<split>-<row>`: these files have no names for their images. All are read in any
    /// case: there may be fewer than the header says.
    pub fn walk(&self, from: Position, visit: Visit) -> Walked {
        for (nth, split) in self.splits.iter().enumerate().skip(from.file) {
            let at = from.start_in(nth);
            split.walk(Position { file: nth, at }, visit)?;
        }
        Ok(())
    }
}

impl SplitImages {
    fn open(split: SplitName, images: PathBuf, label_file: Option<PathBuf>) -> Result<SplitImages> {
        let [count, height, width] = header(&images, &mut stream::open(&images)?)?;
        let size = height.saturating_mul(width);
        if count == 0 || size == 0 || size > MAX_PIXELS {
            return Err(Error::bad_data(
                &images,
                format!("at least one image, each of 1 to {MAX_PIXELS} pixels"),
                format!("{count} images of {height}x{width}"),
                COPY_AGAIN,
            ));
        }
        let labels = label_file.as_deref().map(|path| labels(path, count)).transpose()?;
        let size = Size { height, width };
        let (first_label, by_column) = (0, false);
        Ok(SplitImages { split, count, size, images, label_file, labels, first_label, by_column })
    }

    fn check_size(&self, first: Size) -> Result<()> {
        if self.size == first {
            return Ok(());
        }
        Err(Error::bad_data(
            &self.images,
            format!("images of {}x{} as in the train split", first.height, first.width),
            format!("{}x{}", self.size.height, self.size.width),
            "pixel data has one size; give each size a data set of its own",
        ))
    }

    fn walk(&self, from: Position, visit: Visit) -> Walked {
        let Size { height, width } = self.size;
        let size = height * width;
        let mut stream = stream::open(&self.images)?;
        header::<3>(&self.images, &mut stream)?;
        let before = from.at * size as u64;
        std::io::copy(&mut stream.by_ref().take(before), &mut std::io::sink())
            .map_err(Error::io(&self.images))?;
        for at in from.at..self.count as u64 {
            let row = at as usize;
            let pixels = take(&self.images, &mut stream, size)?;
            if pixels.len() < size {
                return Err(Error::bad_data(
                    &self.images,
                    format!("{} images of {height}x{width}", self.count),
                    format!("the end after {row} images"),
                    COPY_AGAIN,
                )
                .into());
            }
            if row + 1 == self.count {
                at_end(&self.images, &mut stream)?;
            }
            visit(Item {
                position: Position { at, ..from },
                split: self.split,
                name: format!("{}-{row:06}", self.split.name()),
                class: self.class(row),
                size: size as u64,
                image: Ok(self.in_rows(pixels)),
            })?;
        }
        Ok(())
    }

    fn class(&self, row: usize) -> Class {
        match self.labels.as_ref().map(|labels| labels[row]) {
            None => Class::Unknown,
            Some(label) => match label.checked_sub(self.first_label) {
                Some(number) => Class::Index(number.into(), None),
                None => Class::Bad(format!("label {label}, labels count from 1")),
            },
        }
    }

    fn in_rows(&self, pixels: Vec<u8>) -> Vec<u8> {
        if !self.by_column {
            return pixels;
        }
        let Size { height, width } = self.size;
        let places = (0..width).flat_map(|y| (0..height).map(move |x| x * width + y));
        places.map(|at| pixels[at]).collect()
    }
}

fn labels(path: &Path, images: usize) -> Result<Vec<u8>> {
    let mut stream = stream::open(path)?;
    let [count] = header(path, &mut stream)?;
    if count != images {
        return Err(Error::bad_data(
            path,
            format!("{images} labels, one for each image"),
            format!("{count}"),
            "take images and labels from the same set",
        ));
    }
    let labels = take(path, &mut stream, count)?;
    if labels.len() < count {
        return Err(Error::bad_data(
            path,
            format!("{count} labels"),
            format!("the end after {}", labels.len()),
            COPY_AGAIN,
        ));
    }
    at_end(path, &mut stream)?;
    Ok(labels)
}

/// Reads the header of a file of `N` dimensions.
fn header<const N: usize>(path: &Path, stream: &mut dyn Read) -> Result<[usize; N]> {
    let bytes = take(path, stream, 4 + 4 * N)?;
    let expected = [0, 0, 8, N as u8];
    if let [0, 0, kind, sizes @ 1..=9, ..] = bytes[..]
        && let Some(kind) = kind_name(kind)
        && bytes[..4] != expected
    {
        return Err(Error::bad_data(
            path,
            format!("IDX of uint8 with {N} dimensions"),
            format!("{kind} with {sizes} dimensions"),
            "write it as grey images of uint8, or as image files in class folders",
        ));
    }
    if bytes.len() < 4 + 4 * N || bytes[..4] != expected {
        return Err(Error::bad_data(
            path,
            format!("the IDX header {expected:?} and {N} dimensions"),
            format!("{bytes:?}"),
            COPY_AGAIN,
        ));
    }
    Ok(std::array::from_fn(|i| {
        let at = 4 + 4 * i;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
    }))
}

/// The type of number that the third byte of a header stands for.
fn kind_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        8 => "uint8",
        9 => "int8",
        0x0b => "int16",
        0x0c => "int32",
        0x0d => "float32",
        0x0e => "float64",
        _ => return None,
    })
}

/// Up to `size` bytes; fewer only at the end. Never allocates for bytes that are not there, since
/// `size` comes from the file.
fn take(path: &Path, stream: &mut dyn Read, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.take(size as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // The errors of the decompressors for a cut or damaged file.
        Err(e) if e.raw_os_error().is_none() => {
            Err(Error::bad_data(path, "a complete compressed file", e.to_string(), COPY_AGAIN))
        }
        Err(e) => Err(Error::io(path)(e)),
    }
}

fn at_end(path: &Path, stream: &mut dyn Read) -> Result<()> {
    if take(path, stream, 1)?.is_empty() {
        return Ok(());
    }
    Err(Error::bad_data(
        path,
        "the end after the last item that the header counts",
        "more bytes",
        COPY_AGAIN,
    ))
}
