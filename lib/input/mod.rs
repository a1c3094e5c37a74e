//! Images as people have them: one file per format that an input may have, and what all formats share.
//!
//! An input is opened, by what its path holds (`detect`), and walked through from any place on, one
//! item at a time (`item`). A survey goes through it once and then hands out its samples.

mod binary;
mod classes;
mod detect;
mod folder;
mod hash;
mod idx;
mod item;
mod labels;
mod listing;
mod meta_mat;
mod names;
mod parquet;
mod spans;
pub mod survey;
mod tar;
mod tfrecord;

pub use detect::Format;
pub use item::SplitName;
pub use names::base_name;
// The parsers of ours, for the fuzz targets.
pub use meta_mat::synsets;
pub use tfrecord::example;

use crate::error::{Error, Result};
use item::{Class, Item, Position, Stop, Visit};
use labels::LabelList;
use std::path::{Path, PathBuf};

/// An open input.
#[derive(Debug)]
pub struct Input {
    root: PathBuf,
    format: Format,
    files: Files,
    labels: Option<LabelList>,
    /// Class names if they are given and not collected from the images.
    classes: Option<Vec<String>>,
    class_file: Option<PathBuf>,
}

/// The files of an input, by their format.
#[derive(Debug)]
enum Files {
    /// Images in folders, or those that a list names.
    Folder(folder::Folder),
    Tar(tar::Tar),
    TfRecord(tfrecord::TfRecord),
    Parquet(parquet::Parquet),
    Idx(idx::Idx),
    Binary(binary::Binary),
}

/// Finds out what `path` holds if `format` does not say it. `labels`: a file of labels for images that
/// have none of their own; `classes`: a file of class names, one per line, which the input's class
/// numbers count.
///
/// Errors: `Missing` if there is nothing, `BadData` if it is not a set of images.
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
        None => detect::detect(path)?,
    };
    let given = classes.map(classes::read).transpose()?;
    let files = Files::open(path, format)?;
    let labels = match label_file(path, format, labels)? {
        Some(file) => Some(LabelList::open(file, given.as_deref())?),
        None => None,
    };
    let of_input = labels.as_ref().map(LabelList::classes).or(files.classes()).map(<[_]>::to_vec);
    Ok(Input {
        root: path.to_path_buf(),
        format,
        files,
        labels,
        classes: given.or(of_input),
        class_file: classes.map(Path::to_path_buf),
    })
}

/// The file that holds the labels of an input, if its format leaves them to one.
fn label_file<'a>(
    path: &'a Path,
    format: Format,
    labels: Option<&'a Path>,
) -> Result<Option<&'a Path>> {
    match (format, labels) {
        (Format::Csv, None) => Ok(Some(path)),
        (Format::Folder | Format::Tar, labels) | (_, labels @ None) => Ok(labels),
        (_, Some(file)) => Err(Error::Usage(format!(
            "--labels {}: {} has its own labels; --labels is for folders and tars of images",
            file.display(),
            path.display()
        ))),
    }
}

impl Files {
    fn open(path: &Path, format: Format) -> Result<Files> {
        Ok(match format {
            Format::Folder => Files::Folder(folder::Folder::open(path)?),
            Format::Csv => Files::Folder(folder::Folder::listed(path)?),
            Format::Tar => Files::Tar(tar::Tar::open(path)?),
            Format::Tfrecord => Files::TfRecord(tfrecord::TfRecord::open(path)?),
            Format::Parquet => Files::Parquet(parquet::Parquet::open(path)?),
            Format::Idx => Files::Idx(idx::Idx::open(path)?),
            Format::Cifar => Files::Binary(binary::Binary::open_cifar(path)?),
            Format::Stl10 => Files::Binary(binary::Binary::open_stl10(path)?),
        })
    }

    /// Class names that the files hold, if they do.
    fn classes(&self) -> Option<&[String]> {
        match self {
            Files::Idx(f) => Some(&f.classes),
            Files::Binary(f) => Some(&f.classes),
            Files::Parquet(f) => f.classes.as_deref(),
            _ => None,
        }
    }
}

impl Input {
    /// What was found, for people.
    pub fn format(&self) -> &'static str {
        self.format.name()
    }

    /// Height, width and channels if the input holds pixels; `None` for encoded images.
    pub fn shape(&self) -> Option<[usize; 3]> {
        match &self.files {
            Files::Idx(f) => Some(f.shape),
            Files::Binary(f) => Some(f.shape),
            _ => None,
        }
    }

    /// Hash of the format and of the names and contents of all files read, independent of where they
    /// lie. The only pass over the whole input before shards are written.
    pub fn hash(&self) -> Result<String> {
        hash::of_input(self.format(), &self.root, self.paths())
    }

    /// Every file read, in a fixed order.
    fn paths(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        let files: Box<dyn Iterator<Item = PathBuf>> = match &self.files {
            Files::Folder(f) => Box::new(f.paths()),
            Files::Tar(f) => Box::new(f.paths()),
            Files::TfRecord(f) => Box::new(f.paths()),
            Files::Parquet(f) => Box::new(f.paths()),
            Files::Idx(f) => Box::new(f.paths()),
            Files::Binary(f) => Box::new(f.paths()),
        };
        let labels = self.labels.iter().flat_map(LabelList::paths);
        Box::new(files.chain(labels).chain(self.class_file.clone()))
    }

    /// Visits the items from `from` on, in an order that depends on the input alone, until `visit` has
    /// enough. With `read` the images' bytes come with them.
    fn walk(&self, from: Position, read: bool, visit: Visit) -> Result<()> {
        Stop::result(match &self.files {
            Files::Folder(f) => f.walk(from, read, visit),
            Files::Tar(f) => f.walk(from, read, visit),
            Files::TfRecord(f) => f.walk(from, visit),
            Files::Parquet(f) => f.walk(from, read, visit),
            Files::Idx(f) => f.walk(from, visit),
            Files::Binary(f) => f.walk(from, visit),
        })
    }

    /// The class of an item, by the list of labels if there is one.
    fn class(&self, item: &Item) -> Class {
        match &self.labels {
            Some(labels) => labels.class(&item.name),
            None => item.class.clone(),
        }
    }

    /// Whether the list of labels, if there is one, has the image.
    fn lists(&self, name: &str) -> bool {
        self.labels.as_ref().is_none_or(|labels| labels.lists(name))
    }

    fn is_tar(&self) -> bool {
        matches!(self.files, Files::Tar(_))
    }
}
