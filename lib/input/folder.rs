//! Image folders: `root/<class>/*.jpg` is the split `train`; `root/train/<class>/*`,
//! `root/val/<class>/*` and `root/test/<class>/*` are splits of their own, under all names that
//! `splits` knows. Images outside class folders have a label only if a list names one.

use super::columns::Columns;
use super::item::{Class, Fault, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, Walked};
use super::labels;
use super::listing::{entries, parted};
use super::names::is_image_name;
use super::splits::Splits;
use crate::cli;
use crate::decode::kind::{self, KINDS};
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const ARRANGE: &str = "arrange the images as <class>/<image> or <split>/<class>/<image>";

#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Paths below the root, one after the other: some 40 bytes per image are all the memory that
    /// grows with the number of files.
    names: Vec<u8>,
    ends: Vec<usize>,
    /// Files that are not images.
    passed_over: Counted,
    /// Images beside class folders.
    loose: Counted,
}

/// Files of one kind.
#[derive(Debug, Default)]
struct Counted {
    files: usize,
    first: Option<PathBuf>,
}

impl Folder {
    /// Lists a folder of images, of class folders, or of splits.
    ///
    /// Errors: `BadData` if the classes are ambiguous.
    pub fn open(root: &Path, splits: &Splits) -> Result<Folder> {
        let mut folder = Folder::empty(root);
        let (folders, files) = parted(entries(root)?)?;
        if !are_splits(&folders, splits)? {
            folder.add_split(root, folders, files, splits)?;
        } else {
            folder.add_loose(&files);
            for path in folders {
                let name = name(&path);
                if splits.is_unlabelled(&name) || splits.of_folder("", &name).is_some() {
                    let (folders, files) = parted(entries(&path)?)?;
                    folder.add_split(&path, folders, files, splits)?;
                } else {
                    return Err(Error::bad_data(
                        root,
                        "only folders of splits, as train, val and test",
                        format!("also {name}"),
                        "move it elsewhere, or say --unlabelled if its images have no class",
                    ));
                }
            }
        }
        folder.say();
        Ok(folder)
    }

    /// Warnings about what users may not expect.
    fn say(&self) {
        let root = self.root.display();
        if let Some(first) = &self.passed_over.first {
            cli::warn(&format!(
                "{root}: {} files are not images by name and were passed over, the first is {}",
                self.passed_over.files,
                first.display()
            ));
        }
        if let Some(first) = &self.loose.first {
            cli::warn(&format!(
                "{root}: {} images lie beside folders and have no class, the first is {}",
                self.loose.files,
                first.display()
            ));
        }
    }

    fn empty(root: &Path) -> Folder {
        Folder {
            root: root.to_path_buf(),
            names: Vec::new(),
            ends: Vec::new(),
            passed_over: Counted::default(),
            loose: Counted::default(),
        }
    }

    /// The images that a CSV file lists by their paths below its folder.
    pub fn listed(csv: &Path, columns: &Columns) -> Result<Folder> {
        let mut folder = Folder::empty(csv.parent().unwrap_or(Path::new("")));
        labels::listed(csv, columns, &mut |name| folder.push(name.as_bytes()))?;
        Ok(folder)
    }

    fn push(&mut self, name: &[u8]) {
        self.names.extend_from_slice(name);
        self.ends.push(self.names.len());
    }

    /// Adds the folders and files of a split: class folders, or images.
    fn add_split(
        &mut self,
        folder: &Path,
        folders: Vec<PathBuf>,
        files: Vec<PathBuf>,
        splits: &Splits,
    ) -> Result<()> {
        if folders.is_empty() {
            return self.add_images(folder, files);
        }
        self.add_loose(&files);
        let alone = folders.len() == 1 && !files.iter().any(|p| is_image(p));
        for class in folders {
            let (folders, inside) = parted(entries(&class)?)?;
            if let Some(folder) = folders.first() {
                let split = splits.of_folder("", &name(folder)).is_some();
                return Err(Error::bad_data(
                    folder,
                    "only images in a class folder",
                    if split { "the folder of a split" } else { "a folder" },
                    match alone {
                        true => format!("name {} with --in", class.display()),
                        false => ARRANGE.to_string(),
                    },
                ));
            }
            self.add_images(&class, inside)?;
        }
        Ok(())
    }

    /// Adds the images that lie beside folders.
    fn add_loose(&mut self, files: &[PathBuf]) {
        let (images, others): (Vec<_>, Vec<_>) = files.iter().partition(|p| is_image(p));
        self.loose.add(&images);
        self.passed_over.add(&others);
        images.into_iter().for_each(|path| self.push_path(path));
    }

    /// Adds the images among the files of one folder, which must have at least one.
    fn add_images(&mut self, folder: &Path, files: Vec<PathBuf>) -> Result<()> {
        let (images, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|p| is_image(p));
        if images.is_empty() {
            return Err(Error::bad_data(
                folder,
                format!("{KINDS} images, or files of a known data set"),
                match others.len() {
                    0 => "an empty folder".to_string(),
                    n => format!("{n} other files"),
                },
                "name a folder of images or of class folders, or remove this one",
            ));
        }
        self.passed_over.add(&others.iter().collect::<Vec<_>>());
        images.iter().for_each(|path| self.push_path(path));
        Ok(())
    }

    fn push_path(&mut self, path: &Path) {
        let name = path.strip_prefix(&self.root).unwrap_or(path);
        self.push(name.as_os_str().as_bytes());
    }

    fn bytes(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.names[start..self.ends[nth]]
    }

    fn path(&self, nth: usize) -> PathBuf {
        self.root.join(OsStr::from_bytes(self.bytes(nth)))
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        // A file that a list names and that is missing is a reject, not an error of the whole input.
        let all = (0..self.ends.len()).map(|i| self.path(i));
        all.filter(|p| p.is_file())
    }

    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The path of an image below the root.
    pub fn name(&self, nth: usize) -> String {
        String::from_utf8_lossy(self.bytes(nth)).into_owned()
    }

    pub fn walk(&self, from: Position, read: bool, visit: Visit) -> Walked {
        (from.file..self.ends.len()).try_for_each(|nth| visit(self.item(nth, read)?))
    }

    fn item(&self, nth: usize, read: bool) -> Result<Item> {
        let (bytes, name) = (self.bytes(nth), self.name(nth));
        let position = Position { file: nth, at: 0 };
        let (split, class) = (SplitName::Train, Class::Unknown);
        let mut item = Item { position, split, name, class, size: 0, image: Ok(Vec::new()) };
        load(&mut item, &self.path(nth), read)?;
        if std::str::from_utf8(bytes).is_err() {
            item.image = Err(Fault::Image("a name that is not UTF-8".to_string()));
        }
        Ok(item)
    }
}

impl Counted {
    fn add(&mut self, files: &[&PathBuf]) {
        self.files += files.len();
        if self.first.is_none() {
            self.first = files.first().map(|path| path.to_path_buf());
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether the folders of the root are splits.
fn are_splits(folders: &[PathBuf], splits: &Splits) -> Result<bool> {
    let names: Vec<String> = folders.iter().map(|p| name(p)).collect();
    let mut beside = Vec::new();
    for (path, name) in folders.iter().zip(&names) {
        let named = splits.of_folder("", name).is_some();
        let has_folders = named && !parted(entries(path)?)?.0.is_empty();
        beside.push((name.as_str(), has_folders));
    }
    let named = names.iter().any(|name| splits.of_folder("", name).is_some());
    Ok(named && splits.beside(&beside).splits)
}

/// Whether a regular file is an image, by its name or its first bytes. Nothing else is opened: a pipe
/// would wait for a writer.
fn is_image(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_image_name(&name) {
        return true;
    }
    let mut start = [0; 12];
    let file = File::open(path);
    file.and_then(|mut f| f.read_exact(&mut start)).is_ok_and(|()| kind::is_image(&start))
}

/// Puts size and bytes of an image file into an item; a missing or too large one is a fault of the
/// image.
fn load(item: &mut Item, path: &Path, read: bool) -> Result<()> {
    let fault = |what: String| Err(Fault::Image(what));
    let metadata = std::fs::metadata(path);
    let file = metadata.and_then(|m| match m.is_file() && read {
        true => Ok((m, Some(File::open(path)?))),
        false => Ok((m, None)),
    });
    let (metadata, file) = match file {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            item.image = fault("no such file".to_string());
            return Ok(());
        }
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            item.image = fault("a file that may not be read".to_string());
            return Ok(());
        }
        Err(e) => return Err(Error::io(path)(e)),
    };
    item.size = metadata.len();
    if !metadata.is_file() {
        item.image = fault("not a regular file".to_string());
    } else if item.size > MAX_IMAGE_BYTES {
        item.image = fault(format!("{} bytes, more than {MAX_IMAGE_BYTES}", item.size));
    } else if let Some(file) = file {
        let mut bytes = Vec::with_capacity(item.size as usize);
        file.take(item.size).read_to_end(&mut bytes).map_err(Error::io(path))?;
        item.image = Ok(bytes);
    }
    Ok(())
}
