//! IDX, the format of MNIST: a big-endian header (0, 0, 8 for uint8, number of dimensions, then one
//! u32 a dimension) and raw bytes. Plain, gzip or zstd, told apart by the ending of the name.

use super::{Image, Record, Records};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Split and the prefix of its file names.
const SPLITS: [(&str, &str); 2] = [("train", "train"), ("test", "t10k")];
const ENDINGS: [&str; 3] = ["", ".gz", ".zst"];
const CLASSES: &str = "classes.txt";
const COPY_AGAIN: &str = "the file is damaged, copy it again";

#[derive(Debug)]
pub struct Idx {
    pub root: PathBuf,
    pub classes: Vec<String>,
    /// Height, width, channels.
    pub shape: [usize; 3],
    pub splits: Vec<Split>,
    class_file: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Split {
    pub name: &'static str,
    pub count: usize,
    images: PathBuf,
    label_file: Option<PathBuf>,
    labels: Option<Vec<u8>>,
}

/// `None` where the folder has no IDX images.
pub fn open(root: &Path) -> Result<Option<Idx>> {
    let (class_file, classes) = classes(root)?;
    let mut shape = None;
    let mut splits = Vec::new();
    for (name, prefix) in SPLITS {
        let Some(images) = find(root, &format!("{prefix}-images-idx3-ubyte")) else {
            continue;
        };
        let [count, height, width] = header(&images, &mut stream(&images)?)?;
        let size = height.saturating_mul(width);
        if count == 0 || size == 0 || size > i32::MAX as usize {
            return Err(Error::bad_data(
                &images,
                "at least one image, each of 1 to 2^31-1 pixels",
                format!("{count} images of {height}x{width}"),
                COPY_AGAIN,
            ));
        }
        let [h, w, _] = *shape.get_or_insert([height, width, 1]);
        if (h, w) != (height, width) {
            return Err(Error::bad_data(
                &images,
                format!("images of {h}x{w} as in the train split"),
                format!("{height}x{width}"),
                "pixel data has one size; give each size a data set of its own",
            ));
        }
        let label_file = find(root, &format!("{prefix}-labels-idx1-ubyte"));
        let labels = label_file
            .as_deref()
            .map(|path| labels(path, count, classes.len()))
            .transpose()?;
        splits.push(Split {
            name,
            count,
            images,
            label_file,
            labels,
        });
    }
    Ok(shape.map(|shape| Idx {
        root: root.to_path_buf(),
        classes,
        shape,
        splits,
        class_file,
    }))
}

impl Idx {
    /// Every file read, in a fixed order.
    pub fn files(&self) -> Vec<PathBuf> {
        let of_split = |s: &Split| [Some(s.images.clone()), s.label_file.clone()];
        let files = self.splits.iter().flat_map(of_split);
        files.chain([self.class_file.clone()]).flatten().collect()
    }

    /// Keys are `<split>-<row>`: these files have no names for their images.
    pub fn records(&self, split: usize) -> Result<Records<'_>> {
        let split = &self.splits[split];
        let [height, width, channels] = self.shape;
        let size = height * width * channels;
        let mut stream = stream(&split.images)?;
        header::<3>(&split.images, &mut stream)?;
        let rows = (0..split.count).map(move |row| {
            let pixels = read(&split.images, &mut stream, size)?;
            if pixels.len() < size {
                return Err(Error::bad_data(
                    &split.images,
                    format!("{} images of {height}x{width}", split.count),
                    format!("the end after {row} images"),
                    COPY_AGAIN,
                ));
            }
            if row + 1 == split.count {
                at_end(&split.images, &mut stream)?;
            }
            Ok(Record {
                key: format!("{}-{row:06}", split.name),
                label: split.labels.as_ref().map(|l| l[row].into()),
                height: height as u32,
                width: width as u32,
                image: Image::Pixels(pixels),
            })
        });
        Ok(Box::new(rows))
    }
}

/// One name a line, or the ten digits where there is no such file.
fn classes(root: &Path) -> Result<(Option<PathBuf>, Vec<String>)> {
    let path = root.join(CLASSES);
    if !path.exists() {
        return Ok((None, (0..10).map(|digit| digit.to_string()).collect()));
    }
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let names: Vec<String> = text.lines().map(|l| l.trim().to_string()).collect();
    let mut seen = std::collections::HashSet::new();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || !seen.insert(name) {
            return Err(Error::bad_data(
                &path,
                "one class name a line, each once",
                format!("{name:?} on line {}", i + 1),
                "correct the line",
            ));
        }
    }
    Ok((Some(path), names))
}

fn labels(path: &Path, images: usize, classes: usize) -> Result<Vec<u8>> {
    let mut stream = stream(path)?;
    let [count] = header(path, &mut stream)?;
    if count != images {
        return Err(Error::bad_data(
            path,
            format!("{images} labels, one for each image"),
            format!("{count}"),
            "take images and labels from the same set",
        ));
    }
    let labels = read(path, &mut stream, count)?;
    if labels.len() < count {
        return Err(Error::bad_data(
            path,
            format!("{count} labels"),
            format!("the end after {}", labels.len()),
            COPY_AGAIN,
        ));
    }
    at_end(path, &mut stream)?;
    match labels.iter().position(|&l| usize::from(l) >= classes) {
        None => Ok(labels),
        Some(row) => Err(Error::bad_data(
            path,
            format!("labels below the number of classes, {classes}"),
            format!("{} in row {row}", labels[row]),
            format!("name every class in {CLASSES}, one a line"),
        )),
    }
}

/// The plain file before the gzip one before the zstd one.
fn find(root: &Path, name: &str) -> Option<PathBuf> {
    ENDINGS
        .iter()
        .map(|ending| root.join(format!("{name}{ending}")))
        .find(|path| path.is_file())
}

fn stream(path: &Path) -> Result<Box<dyn Read>> {
    let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))),
        Some("zst") => Box::new(BufReader::new(
            zstd::Decoder::with_buffer(file).map_err(Error::io(path))?,
        )),
        _ => Box::new(file),
    })
}

/// Reads the header of a file of `N` dimensions.
fn header<const N: usize>(path: &Path, stream: &mut dyn Read) -> Result<[usize; N]> {
    let bytes = read(path, stream, 4 + 4 * N)?;
    let expected = [0, 0, 8, N as u8];
    if bytes.len() < 4 + 4 * N || bytes[..4] != expected {
        return Err(Error::bad_data(
            path,
            format!("the IDX header {expected:?} and {N} sizes"),
            format!("{bytes:?}"),
            COPY_AGAIN,
        ));
    }
    Ok(std::array::from_fn(|i| {
        let at = 4 + 4 * i;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
    }))
}

/// Up to `size` bytes; fewer only at the end. Never allocates for bytes that are not there, since
/// `size` comes from the file.
fn read(path: &Path, stream: &mut dyn Read, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.take(size as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // What the decompressors say about a cut or damaged file.
        Err(e) if e.raw_os_error().is_none() => Err(Error::bad_data(
            path,
            "a complete compressed file",
            e.to_string(),
            COPY_AGAIN,
        )),
        Err(e) => Err(Error::io(path)(e)),
    }
}

fn at_end(path: &Path, stream: &mut dyn Read) -> Result<()> {
    if read(path, stream, 1)?.is_empty() {
        return Ok(());
    }
    Err(Error::bad_data(
        path,
        "the end after the last item that the header counts",
        "more bytes",
        COPY_AGAIN,
    ))
}
