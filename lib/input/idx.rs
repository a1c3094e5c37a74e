//! IDX, the format of MNIST: a big-endian header (0, 0, 8 for uint8, number of dimensions, then one
//! u32 per dimension) and raw bytes. Plain, gzip or zstd, told apart by the ending of the name.

use super::classes;
use super::item::{Class, Item, Position, SplitName, Visit, Walked};
use crate::decode::MAX_PIXELS;
use crate::error::{Error, Result};
use crate::pixels::Size;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Each split with the prefix of its file names.
const SPLITS: [(SplitName, &str); 2] = [(SplitName::Train, "train"), (SplitName::Test, "t10k")];
const ENDINGS: [&str; 3] = ["", ".gz", ".zst"];
const CLASSES: &str = "classes.txt";
const COPY_AGAIN: &str = "the file is damaged, copy it again";

/// Whether a folder has IDX images.
pub fn has_images(root: &Path) -> bool {
    SPLITS.iter().any(|(_, prefix)| find(root, &images_of(prefix)).is_some())
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
}

impl Idx {
    /// Errors: `BadData` for a header that is none, labels that do not fit, or no images at all.
    pub fn open(root: &Path) -> Result<Idx> {
        let class_file = Some(root.join(CLASSES)).filter(|p| p.exists());
        let classes = match &class_file {
            Some(path) => classes::read(path)?,
            None => (0..10).map(|digit| digit.to_string()).collect(),
        };
        let mut splits: Vec<SplitImages> = Vec::new();
        for (split, prefix) in SPLITS {
            if let Some(images) = find(root, &images_of(prefix)) {
                let label_file = find(root, &format!("{prefix}-labels-idx1-ubyte"));
                let images = SplitImages::open(split, images, label_file)?;
                if let Some(first) = splits.first() {
                    images.check_size(first.size)?;
                }
                splits.push(images);
            }
        }
        let Some(Size { height, width }) = splits.first().map(|first| first.size) else {
            return Err(Error::bad_data(
                root,
                "train-images-idx3-ubyte or t10k-images-idx3-ubyte",
                "neither",
                "name the folder that holds them",
            ));
        };
        Ok(Idx { classes, shape: [height, width, 1], splits, class_file })
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

fn images_of(prefix: &str) -> String {
    format!("{prefix}-images-idx3-ubyte")
}

impl SplitImages {
    fn open(split: SplitName, images: PathBuf, label_file: Option<PathBuf>) -> Result<SplitImages> {
        let [count, height, width] = header(&images, &mut stream(&images)?)?;
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
        Ok(SplitImages { split, count, size, images, label_file, labels })
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
        let mut stream = stream(&self.images)?;
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
            let label = self.labels.as_ref().map(|l| l[row]);
            visit(Item {
                position: Position { at, ..from },
                split: self.split,
                name: format!("{}-{row:06}", self.split.name()),
                class: label.map_or(Class::Unknown, |l| Class::Index(l.into(), None)),
                size: size as u64,
                image: Ok(pixels),
            })?;
        }
        Ok(())
    }
}

fn labels(path: &Path, images: usize) -> Result<Vec<u8>> {
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

/// The plain file before the gzip one before the zstd one.
fn find(root: &Path, name: &str) -> Option<PathBuf> {
    ENDINGS.iter().map(|ending| root.join(format!("{name}{ending}"))).find(|path| path.is_file())
}

fn stream(path: &Path) -> Result<Box<dyn Read>> {
    let file = BufReader::new(File::open(path).map_err(Error::io(path))?);
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))),
        Some("zst") => {
            Box::new(BufReader::new(zstd::Decoder::with_buffer(file).map_err(Error::io(path))?))
        }
        _ => Box::new(file),
    })
}

/// Reads the header of a file of `N` dimensions.
fn header<const N: usize>(path: &Path, stream: &mut dyn Read) -> Result<[usize; N]> {
    let bytes = take(path, stream, 4 + 4 * N)?;
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
fn take(path: &Path, stream: &mut dyn Read, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stream.take(size as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        // What the decompressors say about a cut or damaged file.
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
