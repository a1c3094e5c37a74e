//! Images in the formats that users have: one file per format, and what all formats share.
//!
//! An input is opened by the content of its path (`detect`) and walked through from any position, one item
//! at a time (`item`). A survey goes through it once and then hands out its samples.

mod archive;
mod binary;
mod classes;
mod columns;
mod contents;
mod contradictions;
mod detect;
mod folder;
mod hash;
mod idx;
mod idx_names;
mod index;
mod item;
mod keys;
mod label;
mod labels;
mod layout;
mod list;
mod listing;
mod matching;
mod members;
mod meta_mat;
pub mod names;
mod notes;
mod npz;
mod numbered;
mod parquet;
mod samples;
mod seen;
mod sidecar;
mod spans;
mod splits;
mod stream;
pub mod survey;
pub mod taken;
mod tar;
mod tfrecord;
mod unlabelled;
mod zip;

pub use columns::Columns;
pub use detect::Format;
pub use item::SplitName;
pub use names::base_name;
// The parsers of ours, for the fuzz targets.
pub use meta_mat::synsets;
pub use tfrecord::example;

use crate::artifact;
use crate::cli;
use crate::error::{Error, Result};
use item::{Class, Instead, Item, Position, Stop, Visit};
use labels::LabelList;
use matching::Images;
use splits::{Splits, Tree, has_word};
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
    /// How folders are to be taken before they are seen.
    splits: Splits,
}

/// The options that describe an input.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// The format, if it is given.
    pub format: Option<Format>,
    /// A file of labels for images that have none of their own.
    pub labels: Option<&'a Path>,
    /// A file of class names, one per line, which the input's class numbers count.
    pub classes: Option<&'a Path>,
    /// The columns of a list or table.
    pub columns: Columns,
    /// A name of folders whose images have no class, or a word in that of files without labels.
    pub unlabelled: Option<&'a str>,
}

/// The files of an input, by their format.
#[derive(Debug)]
enum Files {
    /// Images in folders, or those that a list names.
    Folder(folder::Folder),
    Archive(Box<archive::Archive>),
    TfRecord(tfrecord::TfRecord),
    Parquet(parquet::Parquet),
    Idx(idx::Idx),
    Binary(binary::Binary),
    Npz(npz::Npz),
}

/// Opens what `path` holds.
///
/// Errors: `Missing` if there is nothing, `BadData` if it is not a set of images.
pub fn open(path: &Path, options: &Options) -> Result<Input> {
    let Some(found) = artifact::look(path)? else {
        return Err(Error::missing(path, "input", "name a folder, or a file of images"));
    };
    if found.is_dir() {
        // The files of data sets are looked for by their names: none of them may be taken for absent.
        listing::parted(listing::entries(path)?)?;
    } else if !found.is_file() {
        let hint = "write it to a file first";
        return Err(Error::bad_data(path, "a folder or a regular file", "neither", hint));
    }
    let format = match options.format {
        Some(format) => format,
        None => detect::detect(path)?,
    };
    refuse_unused(path, format, options)?;
    let splits = Splits::new(options.unlabelled);
    let files = Files::open(path, format, options, &splits)?;
    let labels = match format {
        Format::Csv => Some(LabelList::of_listed(path, &options.columns)?),
        _ => match options.labels {
            Some(file) => Some(LabelList::open(file, &options.columns, files.images()?, &splits)?),
            None => None,
        },
    };
    let given = options.classes.map(classes::read).transpose()?;
    let of_input = labels.as_ref().and_then(LabelList::given).or(files.classes());
    Ok(Input {
        root: path.to_path_buf(),
        format,
        classes: given.or(of_input.map(<[_]>::to_vec)),
        files,
        labels,
        class_file: options.classes.map(Path::to_path_buf),
        splits,
    })
}

/// Errors if the input has no use for an option.
fn refuse_unused(path: &Path, format: Format, options: &Options) -> Result<()> {
    let refuse = |option: &str, has: &str, is_for: &str| {
        Err(Error::Usage(format!("{option}: {} {has}; it is for {is_for}", path.display())))
    };
    let archive = matches!(format, Format::Tar | Format::Zip);
    let folders = archive || format == Format::Folder;
    if let Some(file) = options.labels.filter(|_| !folders) {
        let option = format!("--labels {}", file.display());
        return refuse(&option, "has its own labels", "folders, tars and zips of images");
    }
    let columns = matches!(format, Format::Csv | Format::Parquet) || options.labels.is_some();
    if options.columns.key.is_some() && !columns {
        return refuse("--key-column", "has no columns", "parquet, --labels and lists");
    }
    // In an archive it is a key of JSON.
    if options.columns.label.is_some() && !columns && !archive {
        return refuse("--label-column", "has no columns", "parquet, --labels, lists and JSON");
    }
    let files = matches!(format, Format::Tfrecord | Format::Parquet | Format::Npz);
    match options.unlabelled {
        Some(_) if !folders && !files => {
            let is_for = "folders, tars, zips, TFRecord, parquet and npz";
            refuse("--unlabelled", "has neither folders nor files of such a name", is_for)
        }
        _ => Ok(()),
    }
}

impl Files {
    fn open(path: &Path, format: Format, options: &Options, splits: &Splits) -> Result<Files> {
        let has_list = options.labels.is_some();
        Ok(match format {
            Format::Folder => Files::Folder(folder::Folder::open(path, splits)?),
            Format::Csv => Files::Folder(folder::Folder::listed(path, &options.columns)?),
            Format::Tar => {
                let archive = archive::Archive::open_tar(path, &options.columns, has_list)?;
                Files::Archive(Box::new(archive))
            }
            Format::Zip => {
                let archive = archive::Archive::open_zip(path, &options.columns, has_list)?;
                Files::Archive(Box::new(archive))
            }
            Format::Tfrecord => Files::TfRecord(tfrecord::TfRecord::open(path)?),
            Format::Parquet => Files::Parquet(parquet::Parquet::open(path, &options.columns)?),
            Format::Idx => Files::Idx(idx::Idx::open(path)?),
            Format::Cifar => Files::Binary(binary::Binary::open_cifar(path)?),
            Format::Stl10 => Files::Binary(binary::Binary::open_stl10(path)?),
            Format::Npz => Files::Npz(npz::Npz::open(path)?),
        })
    }

    /// Where the labels are, as text for users.
    fn label_words(&self) -> String {
        match self {
            Files::Folder(_) => "none".to_string(),
            Files::Archive(_) => "files .cls and .json, or tars of one class".to_string(),
            Files::TfRecord(_) => "image/class/label, or label".to_string(),
            Files::Npz(_) => "arrays of labels".to_string(),
            Files::Parquet(f) => f.label_words(),
            Files::Idx(_) | Files::Binary(_) => "files of labels".to_string(),
        }
    }

    /// Files of many images, each with its split.
    fn splits(&self) -> Vec<(SplitName, &Path)> {
        match self {
            Files::Folder(_) => Vec::new(),
            Files::Archive(f) => f.splits().collect(),
            Files::Npz(f) => f.splits().collect(),
            Files::TfRecord(f) => f.splits().collect(),
            Files::Parquet(f) => f.splits().collect(),
            Files::Idx(f) => f.splits().collect(),
            Files::Binary(f) => f.splits().collect(),
        }
    }

    /// The names of images that lie in folders.
    fn images(&self) -> Result<Images<'_>> {
        Ok(match self {
            Files::Folder(f) => Images::new(f.count(), Box::new(|nth| f.name(nth))),
            Files::Archive(f) => {
                let contents = f.contents()?;
                Images::new(contents.count_all(), Box::new(|nth| contents.name_of(nth)))
            }
            _ => Images::new(0, Box::new(|_| String::new())),
        })
    }

    /// What was found instead of labels, if no image has one.
    fn instead_of_labels(&self) -> Result<Option<Instead>> {
        match self {
            Files::Archive(f) => f.instead_of_labels(),
            Files::TfRecord(f) => f.instead_of_labels(),
            Files::Parquet(f) => f.instead_of_labels(),
            Files::Npz(f) => Ok(f.instead_of_labels()),
            // Labels in folders, or in files in which each byte is a label.
            Files::Folder(_) | Files::Idx(_) | Files::Binary(_) => Ok(None),
        }
    }

    /// Class names that the files hold, if they do.
    fn classes(&self) -> Option<&[String]> {
        match self {
            Files::Idx(f) => Some(&f.classes),
            Files::Binary(f) => Some(&f.classes),
            Files::Npz(f) => Some(&f.classes),
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
            Files::Npz(f) => Some(f.shape),
            _ => None,
        }
    }

    /// Hash of the format and of the names and contents of all files read, independent of where they
    /// lie. The only pass over the whole input before shards are written.
    pub fn hash(&self) -> Result<String> {
        hash::of_input(self.format(), &self.root, self.paths())
    }

    /// A hash of the format and of names, sizes and times of all files: shows a changed file without reading
    /// the input.
    pub fn stamp(&self) -> Result<String> {
        hash::of_times(self.format(), &self.root, self.paths())
    }

    /// Every file read, in a fixed order.
    fn paths(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        let files: Box<dyn Iterator<Item = PathBuf>> = match &self.files {
            Files::Folder(f) => Box::new(f.paths()),
            Files::Archive(f) => Box::new(f.paths()),
            Files::TfRecord(f) => Box::new(f.paths()),
            Files::Parquet(f) => Box::new(f.paths()),
            Files::Idx(f) => Box::new(f.paths()),
            Files::Binary(f) => Box::new(f.paths()),
            Files::Npz(f) => Box::new(f.paths()),
        };
        let labels = self.labels.iter().flat_map(LabelList::paths);
        Box::new(files.chain(labels).chain(self.class_file.clone()))
    }

    /// Visits the items from `from` on, in an order that depends only on the input, until `visit`
    /// stops. With `read` the images' bytes come with them. `splits` gives the split and class of images in
    /// folders.
    fn walk(&self, splits: &Splits, from: Position, read: bool, visit: Visit) -> Result<()> {
        let mut placed = |mut item: Item| {
            let place = splits.place(&item.name, item.split);
            item.split = place.split;
            if item.class == Class::Unknown {
                item.class = place.class;
            }
            visit(item)
        };
        Stop::result(match &self.files {
            Files::Folder(f) => f.walk(from, read, &mut placed),
            Files::Archive(f) => f.walk(from, read, &mut placed),
            Files::TfRecord(f) => f.walk(from, visit),
            Files::Parquet(f) => f.walk(from, read, visit),
            Files::Idx(f) => f.walk(from, visit),
            Files::Binary(f) => f.walk(from, visit),
            Files::Npz(f) => f.walk(from, visit),
        })
    }

    /// The class of an item: by the list of labels, else its own.
    fn class(&self, item: &Item) -> Class {
        let listed = self.labels.as_ref().and_then(|labels| labels.class(&item.name));
        listed.unwrap_or_else(|| item.class.clone())
    }

    fn has_folders(&self) -> bool {
        matches!(self.files, Files::Folder(_) | Files::Archive(_))
    }

    /// Warns of folders that are not what their names suggest.
    ///
    /// Errors: `BadData` if no folder has the name given by `--unlabelled`.
    fn say_folders(&self, splits: &Splits, tree: &Tree) -> Result<()> {
        let root = self.root.display();
        for (above, class) in splits.classes_named_as_splits(tree) {
            let above = if above.is_empty() { "" } else { &format!("{above}/") };
            cli::warn(&format!(
                "{root}: {above}{class} is a class, no split: folders beside it are none"
            ));
        }
        let named =
            |name: &str| tree.has(name) || self.file_names().any(|file| has_word(&file, name));
        match splits.unlabelled() {
            Some(name) if !named(name) => {
                let folders = tree.names().into_iter().map(str::to_string);
                let names: Vec<String> = folders.chain(self.file_names()).take(8).collect();
                Err(Error::bad_data(
                    &self.root,
                    format!("a folder {name:?} with images, or a file of that name"),
                    names.join(", "),
                    "correct --unlabelled",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The files of many images, below the input and with its name.
    fn file_names(&self) -> impl Iterator<Item = String> {
        let above = self.root.parent().unwrap_or(Path::new(""));
        let below =
            move |path: &Path| path.strip_prefix(above).unwrap_or(path).display().to_string();
        self.files.splits().into_iter().map(move |(_, path)| below(path))
    }

    fn is_archive(&self) -> bool {
        matches!(self.files, Files::Archive(_))
    }

    /// The name of an image that no other image of another file has.
    fn full_name(&self, item: &Item) -> String {
        match &self.files {
            Files::Archive(f) => f.full_name(item),
            Files::TfRecord(f) => f.full_name(item),
            Files::Parquet(f) => f.full_name(item),
            _ => item.name.clone(),
        }
    }

    /// Errors if the folder reader would refuse the arrangement of class folders.
    fn refuse_unclear(&self, splits: &Splits) -> Result<()> {
        match &self.files {
            Files::Archive(f) => f.refuse_unclear(splits),
            _ => Ok(()),
        }
    }

    /// A file that can only be read from its start, and the command that unpacks it.
    pub fn compressed(&self) -> Result<Option<(&Path, &'static str)>> {
        match &self.files {
            Files::Archive(f) => Ok(f.compressed()),
            Files::TfRecord(f) => f.compressed(),
            _ => Ok(None),
        }
    }
}
