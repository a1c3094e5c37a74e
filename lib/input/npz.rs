//! `.npz` of NumPy in the layout of MedMNIST: `train_images` of uint8, `[n, height, width]` or with 3 colours
//! last, and `train_labels`, `[n, 1]`; likewise `val` and `test`.

use super::item::{Class, Instead, Item, Position, SplitName, Visit, Walked};
use super::label;
use super::zip::Zip;
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use candle_core::npy::NpzTensors;
use candle_core::{DType, Tensor};
use std::io::Read;
use std::path::{Path, PathBuf};

const SPLITS: [SplitName; 3] = [SplitName::Train, SplitName::Val, SplitName::Test];
/// A larger number is taken to be no label.
const MAX_CLASSES: i64 = 100_000;
/// The header of an array is a line of Python.
const MAX_HEADER: usize = 1 << 16;
const HINT: &str =
    "take a MedMNIST of pictures with one label each, or write image files in class folders";

/// Whether a file begins as a zip of arrays.
pub fn is_start(start: &[u8]) -> bool {
    let length = start.get(26..28).map_or(0, |n| usize::from(u16::from_le_bytes([n[0], n[1]])));
    let name = start.get(30..30 + length);
    start.starts_with(b"PK\x03\x04") && name.is_some_and(|name| name.ends_with(b".npy"))
}

#[derive(Debug)]
pub struct Npz {
    path: PathBuf,
    zip: Zip,
    pub classes: Vec<String>,
    /// Height, width, channels.
    pub shape: [usize; 3],
    splits: Vec<SplitArray>,
}

/// Images and labels of one split.
#[derive(Debug)]
struct SplitArray {
    split: SplitName,
    /// Number in the zip, and the start of its pixels.
    images: usize,
    start: u64,
    count: u64,
    labels: Vec<i64>,
}

impl Npz {
    /// Errors: `BadData` for arrays that are no images with one label each.
    pub fn open(path: &Path) -> Result<Npz> {
        let zip = Zip::open(path.to_path_buf())?;
        let arrays = Arrays::open(path, &zip)?;
        let mut splits = Vec::new();
        let mut shape = None;
        for split in SPLITS {
            let Some((array, of_split)) = arrays.split(split, &zip)? else {
                continue;
            };
            if *shape.get_or_insert(of_split) != of_split {
                return Err(arrays.bad("images of one size", format!("{shape:?} and {of_split:?}")));
            }
            splits.push(array);
        }
        let Some(shape) = shape else {
            return Err(arrays.bad("train_images and train_labels", arrays.names.join(", ")));
        };
        let labels = splits.iter().flat_map(|s| &s.labels);
        let last = labels.copied().max().unwrap_or(-1);
        if last >= MAX_CLASSES {
            return Err(arrays.bad(&format!("labels below {MAX_CLASSES}"), last.to_string()));
        }
        let classes = (0..=last).map(|n| n.to_string()).collect();
        Ok(Npz { path: path.to_path_buf(), zip, classes, shape, splits })
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        std::iter::once(self.path.clone())
    }

    /// Each split, all of one file.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        self.splits.iter().map(|s| (s.split, self.path.as_path()))
    }

    /// What was found instead of labels.
    pub fn instead_of_labels(&self) -> Option<Instead> {
        let labels: usize = self.splits.iter().map(|split| split.labels.len()).sum();
        let found = format!("{labels} labels that are all -1");
        Some(Instead { found, like_labels: true, hint: "" })
    }

    /// All images are read in any case, because they are found only by their bytes.
    pub fn walk(&self, from: Position, visit: Visit) -> Walked {
        let size = self.shape.iter().product::<usize>();
        for (nth, split) in self.splits.iter().enumerate().skip(from.file) {
            let first = from.start_in(nth);
            let mut archive = self.zip.archive();
            let mut stream = self.zip.content(&mut archive, split.images)?;
            let before = split.start + first * size as u64;
            std::io::copy(&mut stream.by_ref().take(before), &mut std::io::sink())
                .map_err(|e| self.damaged(e))?;
            for at in first..split.count {
                let mut pixels = vec![0; size];
                stream.read_exact(&mut pixels).map_err(|e| self.damaged(e))?;
                visit(Item {
                    position: Position { file: nth, at },
                    split: split.split,
                    name: format!("{}-{at:06}", split.split.name()),
                    class: split
                        .labels
                        .get(at as usize)
                        .map_or(Class::Unknown, |&l| label::of_integer(l)),
                    size: size as u64,
                    image: Ok(pixels),
                })?;
            }
        }
        Ok(())
    }

    fn damaged(&self, e: std::io::Error) -> Error {
        match e.raw_os_error() {
            Some(_) => Error::io(&self.path)(e),
            None => Error::bad_data(&self.path, "whole arrays", e.to_string(), "copy it again"),
        }
    }
}

/// The arrays of a file, by their names.
struct Arrays<'a> {
    path: &'a Path,
    tensors: NpzTensors,
    names: Vec<String>,
}

impl Arrays<'_> {
    fn open<'a>(path: &'a Path, zip: &Zip) -> Result<Arrays<'a>> {
        let names = zip.names();
        let names = names.iter().filter_map(|n| Some(n.strip_suffix(".npy")?.to_string()));
        let mut names: Vec<String> = names.collect();
        names.sort();
        let tensors =
            NpzTensors::new(path).map_err(|e| bad(path, "whole arrays", e.to_string()))?;
        Ok(Arrays { path, tensors, names })
    }

    fn bad(&self, expected: &str, found: String) -> Error {
        bad(self.path, expected, found)
    }

    /// The arrays of a split, and height, width and channels of its images; `None` without images.
    fn split(&self, split: SplitName, zip: &Zip) -> Result<Option<(SplitArray, [usize; 3])>> {
        let name = format!("{}_images", split.name());
        if !self.names.contains(&name) {
            return Ok(None);
        }
        let (start, sizes, kind) = self.header(zip, &name)?;
        let (count, shape) = match (&sizes[..], kind) {
            (&[count, height, width], DType::U8) => (count, [height, width, 1]),
            (&[count, height, width, channels @ (1 | 3)], DType::U8) => {
                (count, [height, width, channels])
            }
            _ => {
                let found = format!("{name} of {kind:?} and {sizes:?}");
                return Err(self.bad("uint8 of [n, height, width] or [n, height, width, 3]", found));
            }
        };
        let pixels = shape[0].saturating_mul(shape[1]);
        if !(1..=MAX_PIXELS).contains(&pixels) {
            let [height, width, _] = shape;
            return Err(self.bad(&format!("1 to {MAX_PIXELS} pixels"), format!("{height}x{width}")));
        }
        let images = zip.number(&format!("{name}.npy")).unwrap_or_default();
        let bytes = (pixels * shape[2]).checked_mul(count).map(|n| n as u64);
        if bytes.is_none_or(|bytes| start.saturating_add(bytes) != zip.size(images)) {
            let found = format!("{} bytes for {sizes:?}", zip.size(images));
            return Err(Error::bad_data(
                self.path,
                format!("whole {name}"),
                found,
                "copy it again",
            ));
        }
        let labels = self.labels(zip, split, count)?;
        let count = count as u64;
        Ok(Some((SplitArray { split, images, start, count, labels }, shape)))
    }

    fn labels(&self, zip: &Zip, split: SplitName, count: usize) -> Result<Vec<i64>> {
        let name = format!("{}_labels", split.name());
        if !self.names.contains(&name) {
            return Err(self.bad(&name, self.names.join(", ")));
        }
        let (_, sizes, kind) = self.header(zip, &name)?;
        if sizes != [count] && sizes != [count, 1] || !kind.is_int() {
            let found = format!("{name} of {kind:?} and {sizes:?}");
            return Err(self.bad(&format!("{count} whole numbers, one label per image"), found));
        }
        let numbers = |tensor: Tensor| tensor.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>();
        let tensor = self.tensors.get(&name);
        let labels = tensor.and_then(|tensor| tensor.map(numbers).transpose());
        let labels = labels.map_err(|e| self.bad("whole arrays", e.to_string()))?;
        Ok(labels.unwrap_or_default())
    }

    /// Where the data of an array starts, its sizes and its type.
    fn header(&self, zip: &Zip, name: &str) -> Result<(u64, Vec<usize>, DType)> {
        let damaged = |found: String| self.bad(&format!("the header of {name}"), found);
        let mut archive = zip.archive();
        let number = zip.number(&format!("{name}.npy")).unwrap_or_default();
        let mut start = Vec::new();
        let stream = zip.content(&mut archive, number)?;
        let read = stream.take(MAX_HEADER as u64).read_to_end(&mut start);
        read.map_err(|e| damaged(e.to_string()))?;
        let length = match start[..] {
            [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
                10 + usize::from(u16::from_le_bytes([a, b]))
            }
            [0x93, b'N', b'U', b'M', b'P', b'Y', 2, _, a, b, c, d, ..] => {
                (u32::from_le_bytes([a, b, c, d]) as usize).saturating_add(12)
            }
            _ => return Err(damaged("none".to_string())),
        };
        // Longer than any header: do not allocate memory for it.
        let Some(text) = start.get(..length) else {
            return Err(damaged(format!("{length} bytes")));
        };
        if !String::from_utf8_lossy(text).contains("'fortran_order': False") {
            return Err(damaged("an array by columns".to_string()));
        }
        let found = self.tensors.get_shape_and_dtype(name);
        let (shape, kind) = found.map_err(|e| damaged(e.to_string()))?;
        Ok((length as u64, shape.dims().to_vec(), kind))
    }
}

fn bad(path: &Path, expected: &str, found: String) -> Error {
    Error::bad_data(path, expected, found.replace('\n', " "), HINT)
}
