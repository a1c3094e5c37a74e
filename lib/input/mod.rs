//! Images as people have them: finds out by content what a path holds and walks through its items,
//! from any place on, one at a time.

mod binary;
mod detect;
mod folder;
mod idx;
mod labels;
mod meta_mat;
mod parquet;
mod survey;
mod tar;
mod tfrecord;

use detect::{detect, entries, files};
pub use survey::{Plan, Record, Shard};
// The parsers of ours, for the fuzz targets.
pub use meta_mat::synsets;
pub use tfrecord::example;

use crate::cli;
use crate::error::{Error, Result};
use crate::schema;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A larger image file is a reject: it is never read into memory.
const MAX_IMAGE_BYTES: u64 = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Images in class folders, or flat with --labels
    Folder,
    /// A CSV list of image files
    Csv,
    /// tar: class folders, ILSVRC's tar of tars, WebDataset
    Tar,
    /// TFRecord of slim or tensor2tensor
    Tfrecord,
    /// Parquet of Hugging Face datasets, or of s4l-shard
    Parquet,
    /// IDX files of MNIST
    Idx,
    /// Binary files of CIFAR-10 and CIFAR-100
    Cifar,
    /// Binary files of STL-10
    Stl10,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SplitName {
    Train,
    Val,
    Test,
}

impl SplitName {
    pub fn name(self) -> &'static str {
        match self {
            SplitName::Train => "train",
            SplitName::Val => "val",
            SplitName::Test => "test",
        }
    }

    /// The split that a folder of this name holds.
    fn of_folder(name: &str) -> Option<SplitName> {
        match name.to_ascii_lowercase().as_str() {
            "train" => Some(SplitName::Train),
            "val" | "valid" | "validation" => Some(SplitName::Val),
            "test" => Some(SplitName::Test),
            _ => None,
        }
    }

    /// The split that a file of this name holds: the first of its words that names one. What
    /// ILSVRC-2012 calls validation is the test set of S4L, and tensor2tensor's `dev` is the same.
    fn of_file(path: &Path) -> SplitName {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("ILSVRC2012_img_val") {
            return SplitName::Test;
        }
        let words = name.split(|c: char| !c.is_ascii_alphabetic());
        let mut named = words.filter_map(|word| match word {
            "dev" => Some(SplitName::Test),
            _ => SplitName::of_folder(word),
        });
        named.next().unwrap_or(SplitName::Train)
    }
}

/// A place in the input: a file of it, and a byte or row in that file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    file: usize,
    at: u64,
}

/// What an input says about the class of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    Unknown,
    /// The folder that the image is in.
    Folder(String),
    Name(String),
    /// Counted from 0, with its name where the input has one.
    Index(u64, Option<String>),
    /// Not a class: what was found.
    Bad(String),
}

/// One image of an input.
#[derive(Debug)]
struct Item {
    /// Where a walk that begins with it starts. Several items may share one.
    position: Position,
    split: SplitName,
    /// Path in the input, with slashes; its last part is the base name.
    name: String,
    class: Class,
    /// Bytes of the image, an estimate where they are not known before they are read.
    size: u64,
    /// The image's bytes, empty where the walk does not read them.
    image: std::result::Result<Vec<u8>, Fault>,
}

/// Why an item is none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// This image is damaged.
    Image(String),
    /// The file ends or is damaged here, so nobody knows what else it held.
    Cut(String),
}

type Visit<'a> = &'a mut dyn FnMut(Item) -> Result<ControlFlow<()>>;

#[derive(Debug)]
enum Files {
    Folder(folder::Folder),
    Tar(tar::Tar),
    TfRecord(tfrecord::TfRecord),
    Parquet(parquet::Parquet),
    Idx(idx::Idx),
    Binary(binary::Binary),
}

/// An input that was found to be of some format.
#[derive(Debug)]
pub struct Input {
    root: PathBuf,
    format: Format,
    files: Files,
    labels: Option<labels::Labels>,
    /// Class names where they are given and not collected from the images.
    classes: Option<Vec<String>>,
    class_file: Option<PathBuf>,
}

/// Finds out what `path` holds. `labels`: a file of labels for images that have none of their own;
/// `classes`: a file of class names, one a line, which the input's class numbers count.
///
/// Errors: `Missing` where there is nothing, `BadData` where it is not a set of images.
pub fn open(
    path: &Path,
    format: Option<Format>,
    labels: Option<&Path>,
    classes: Option<&Path>,
) -> Result<Input> {
    if !path.exists() {
        return Err(Error::missing(path, "input", "name a folder, or a file of images"));
    }
    let format = match format {
        Some(format) => format,
        None => detect(path)?,
    };
    let given = classes.map(class_names).transpose()?;
    let files = match format {
        Format::Folder => Files::Folder(folder::Folder::open(path)?),
        Format::Csv => Files::Folder(folder::Folder::listed(path)?),
        Format::Tar => Files::Tar(tar::Tar::open(path)?),
        Format::Tfrecord => Files::TfRecord(tfrecord::TfRecord::open(path)?),
        Format::Parquet => Files::Parquet(parquet::Parquet::open(path)?),
        Format::Idx => Files::Idx(idx::Idx::open(path)?),
        Format::Cifar => Files::Binary(binary::Binary::open_cifar(path)?),
        Format::Stl10 => Files::Binary(binary::Binary::open_stl10(path)?),
    };
    let labels = match (format, labels) {
        (Format::Csv, None) => Some(labels::Labels::open(path, given.as_deref())?),
        (Format::Folder | Format::Tar, Some(file)) => {
            Some(labels::Labels::open(file, given.as_deref())?)
        }
        (_, None) => None,
        (_, Some(file)) => {
            return Err(Error::Usage(format!(
                "--labels {}: {} has its own labels; --labels is for folders and tars of images",
                file.display(),
                path.display()
            )));
        }
    };
    let classes_of_files = match (&labels, &files) {
        (Some(labels), _) => Some(labels.classes().to_vec()),
        (_, Files::Idx(s)) => Some(s.classes.clone()),
        (_, Files::Binary(s)) => Some(s.classes.clone()),
        (_, Files::Parquet(s)) => s.classes.clone(),
        _ => None,
    };
    Ok(Input {
        root: path.to_path_buf(),
        format,
        files,
        labels,
        classes: given.or(classes_of_files),
        class_file: classes.map(Path::to_path_buf),
    })
}

impl Input {
    /// What was found, for people.
    pub fn format(&self) -> &'static str {
        match self.format {
            Format::Folder => "image folder",
            Format::Csv => "CSV list",
            Format::Tar => "tar",
            Format::Tfrecord => "TFRecord",
            Format::Parquet => "parquet",
            Format::Idx => "IDX",
            Format::Cifar => "CIFAR binary",
            Format::Stl10 => "STL-10 binary",
        }
    }

    /// Height, width and channels where the input holds pixels; `None` for encoded images.
    pub fn shape(&self) -> Option<[usize; 3]> {
        match &self.files {
            Files::Idx(s) => Some(s.shape),
            Files::Binary(s) => Some(s.shape),
            _ => None,
        }
    }

    /// Visits the items from `from` on, in an order that depends on the input alone. With `read`
    /// the images' bytes come with them.
    fn walk(&self, from: Position, read: bool, visit: Visit) -> Result<()> {
        match &self.files {
            Files::Folder(s) => s.walk(from, read, visit),
            Files::Tar(s) => s.walk(from, read, visit),
            Files::TfRecord(s) => s.walk(from, read, visit),
            Files::Parquet(s) => s.walk(from, read, visit),
            Files::Idx(s) => s.walk(from, read, visit),
            Files::Binary(s) => s.walk(from, read, visit),
        }
    }

    /// Every file read, in a fixed order.
    fn paths(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        let files: Box<dyn Iterator<Item = PathBuf>> = match &self.files {
            Files::Folder(s) => Box::new(s.paths()),
            Files::Tar(s) => Box::new(s.paths()),
            Files::TfRecord(s) => Box::new(s.files.iter().map(|f| f.0.clone())),
            Files::Parquet(s) => Box::new(s.paths()),
            Files::Idx(s) => Box::new(s.paths()),
            Files::Binary(s) => Box::new(s.paths()),
        };
        let labels = self.labels.iter().flat_map(labels::Labels::paths);
        Box::new(files.chain(labels).chain(self.class_file.clone()))
    }

    /// Hash of the format and of the names and contents of all files read, independent of where they
    /// lie. The only pass over the whole input before shards are written.
    pub fn hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.format().as_bytes());
        let bar = cli::progress_bytes("reading the input once");
        let mut paths = self.paths().peekable();
        while paths.peek().is_some() {
            let some: Vec<PathBuf> = paths.by_ref().take(256).collect();
            let digests =
                some.par_iter().map(|p| hash_file(p, &bar)).collect::<Result<Vec<_>>>()?;
            for (path, digest) in some.iter().zip(digests) {
                let name = path.strip_prefix(&self.root).ok();
                let name = name.filter(|n| !n.as_os_str().is_empty());
                let name = name.map_or(path.file_name().unwrap_or_default(), |n| n.as_os_str());
                let name = name.as_encoded_bytes();
                hasher.update(&(name.len() as u64).to_le_bytes());
                hasher.update(name);
                hasher.update(digest.as_bytes());
            }
        }
        Ok(schema::short_hash(&hasher.finalize()))
    }
}

/// BLAKE3 of the BLAKE3 hashes of a file's pieces, which are hashed on all threads, in their caches.
fn hash_file(path: &Path, bar: &ProgressBar) -> Result<blake3::Hash> {
    const PIECE: u64 = 256 << 10;
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let size = file.metadata().map_err(Error::io(path))?.len();
    let hash = |piece: &mut Vec<u8>, number: &u64| {
        let start = number * PIECE;
        piece.resize((size - start).min(PIECE) as usize, 0);
        file.read_exact_at(piece, start)?;
        bar.inc(piece.len() as u64);
        Ok(blake3::hash(piece))
    };
    let mut hasher = blake3::Hasher::new();
    let mut pieces = (0..size.div_ceil(PIECE)).peekable();
    while pieces.peek().is_some() {
        if cli::stop_requested() {
            let path = path.to_path_buf();
            return Err(Error::Interrupted { path });
        }
        let some: Vec<u64> = pieces.by_ref().take(1024).collect();
        let hashes = some.par_iter().map_init(Vec::new, hash);
        let hashes: std::io::Result<Vec<_>> = hashes.collect();
        for hash in hashes.map_err(Error::io(path))? {
            hasher.update(hash.as_bytes());
        }
    }
    Ok(hasher.finalize())
}

/// The names of a file of class names, one a line, each once.
fn class_names(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::missing(path, "class names", "name a file of one class a line")
        }
        std::io::ErrorKind::InvalidData => Error::bad_data(
            path,
            "one class name a line",
            "bytes that are not UTF-8",
            "write it as UTF-8",
        ),
        _ => Error::io(path)(e),
    })?;
    let names: Vec<String> = text.trim_end().lines().map(|l| l.trim().to_string()).collect();
    let mut seen = BTreeMap::new();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() || seen.insert(name, i).is_some() {
            return Err(Error::bad_data(
                path,
                "one class name a line, each once",
                format!("{name:?} on line {}", i + 1),
                "correct the line",
            ));
        }
    }
    Ok(names)
}

/// The last part of a path with slashes.
pub fn base_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether a name ends as that of an image file, of a kind that is read or not.
fn is_image_name(name: &str) -> bool {
    const ENDINGS: [&str; 14] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif",
        "avif", "jxl",
    ];
    base_name(name)
        .rsplit_once('.')
        .is_some_and(|(_, ending)| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
}
