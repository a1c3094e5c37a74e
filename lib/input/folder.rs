//! Image folders: `root/<class>/*.jpg` is the split `train`; `root/train/<class>/*`,
//! `root/val/<class>/*` and `root/test/<class>/*` are splits of their own. Images that lie in no
//! class folder have no label but one of a list.

use super::item::{Fault, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, Walked};
use super::labels;
use super::listing::entries;
use super::names::{is_image_name, split_and_class};
use crate::cli;
use crate::decode::encoded;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Paths below the root, one after the other: some 40 bytes per image are all the memory that
    /// grows with the number of files.
    names: Vec<u8>,
    ends: Vec<usize>,
    passed_over: PassedOver,
}

/// Files that are not images.
#[derive(Debug, Default)]
struct PassedOver {
    files: usize,
    first: Option<PathBuf>,
}

impl Folder {
    /// Lists a folder of images, of class folders, or of splits.
    ///
    /// Errors: `BadData` for an arrangement that leaves open what the classes are.
    pub fn open(root: &Path) -> Result<Folder> {
        let mut folder = Folder::empty(root);
        let found = entries(root)?;
        let is_split = |p: &&PathBuf| {
            let name = p.file_name().and_then(OsStr::to_str);
            name.and_then(SplitName::of_folder).is_some()
        };
        let mut by_split = false;
        for split in found.iter().filter(|p| p.is_dir()).filter(is_split) {
            // A class may be named "train": then it holds images.
            by_split |= entries(split)?.iter().any(|p| p.is_dir());
        }
        if by_split {
            for path in found.iter().filter(|p| p.is_dir()) {
                if !is_split(&path) {
                    return Err(Error::bad_data(
                        root,
                        "only the folders train, val and test",
                        format!("also {}", path.file_name().unwrap_or_default().display()),
                        "move it elsewhere",
                    ));
                }
                folder.add_split(path)?;
            }
        } else {
            folder.add_split(root)?;
        }
        if let PassedOver { files, first: Some(first) } = &folder.passed_over {
            cli::warn(&format!(
                "{}: {files} files are not images by name and were passed over, the first is {}",
                root.display(),
                first.display()
            ));
        }
        Ok(folder)
    }

    fn empty(root: &Path) -> Folder {
        Folder {
            root: root.to_path_buf(),
            names: Vec::new(),
            ends: Vec::new(),
            passed_over: PassedOver::default(),
        }
    }

    /// The images that a CSV file lists by their paths below its folder.
    pub fn listed(csv: &Path) -> Result<Folder> {
        let mut folder = Folder::empty(csv.parent().unwrap_or(Path::new("")));
        labels::for_each_line(csv, &mut |line| {
            folder.push(line.name.as_bytes());
            Ok(())
        })?;
        Ok(folder)
    }

    fn push(&mut self, name: &[u8]) {
        self.names.extend_from_slice(name);
        self.ends.push(self.names.len());
    }

    /// Adds the class folders of a split, or its images if it has no class folders.
    fn add_split(&mut self, folder: &Path) -> Result<()> {
        let (folders, files): (Vec<_>, Vec<_>) =
            entries(folder)?.into_iter().partition(|p| p.is_dir());
        if folders.is_empty() {
            return self.add_images(folder, files);
        }
        if let Some(image) = files.iter().find(|p| is_image(p)) {
            return Err(Error::bad_data(
                image,
                "images in class folders",
                "one beside them",
                "move it into its class folder",
            ));
        }
        self.pass_over(&files);
        for class in folders {
            let inside = entries(&class)?;
            if let Some(folder) = inside.iter().find(|p| p.is_dir()) {
                return Err(Error::bad_data(
                    folder,
                    "only images in a class folder",
                    "a folder",
                    "arrange the images as <class>/<image> or <split>/<class>/<image>",
                ));
            }
            self.add_images(&class, inside)?;
        }
        Ok(())
    }

    /// Adds the images among the files of one folder, which must have at least one.
    fn add_images(&mut self, folder: &Path, files: Vec<PathBuf>) -> Result<()> {
        let (images, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|p| is_image(p));
        if images.is_empty() {
            return Err(Error::bad_data(
                folder,
                "JPEG, PNG or WebP images, or files of a known data set",
                match others.len() {
                    0 => "an empty folder".to_string(),
                    n => format!("{n} other files"),
                },
                "name a folder of images or of class folders, or remove this one",
            ));
        }
        self.pass_over(&others);
        for path in images {
            let name = path.strip_prefix(&self.root).unwrap_or(&path);
            self.push(name.as_os_str().as_bytes());
        }
        Ok(())
    }

    fn pass_over(&mut self, files: &[PathBuf]) {
        self.passed_over.files += files.len();
        if self.passed_over.first.is_none() {
            self.passed_over.first = files.first().cloned();
        }
    }

    fn name(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.names[start..self.ends[nth]]
    }

    fn path(&self, nth: usize) -> PathBuf {
        self.root.join(OsStr::from_bytes(self.name(nth)))
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        // What a list names and is not there is a reject, not an error of the whole.
        let all = (0..self.ends.len()).map(|i| self.path(i));
        all.filter(|p| p.is_file())
    }

    pub fn walk(&self, from: Position, read: bool, visit: Visit) -> Walked {
        (from.file..self.ends.len()).try_for_each(|nth| visit(self.item(nth, read)?))
    }

    fn item(&self, nth: usize, read: bool) -> Result<Item> {
        let bytes = self.name(nth);
        let name = String::from_utf8_lossy(bytes).into_owned();
        let (split, class) = split_and_class(&name, SplitName::Train);
        let position = Position { file: nth, at: 0 };
        let mut item = Item { position, split, name, class, size: 0, image: Ok(Vec::new()) };
        load(&mut item, &self.path(nth), read)?;
        if std::str::from_utf8(bytes).is_err() {
            item.image = Err(Fault::Image("a name that is not UTF-8".to_string()));
        }
        Ok(item)
    }
}

fn is_image(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_image_name(&name) {
        return true;
    }
    let mut start = [0; 12];
    let file = File::open(path);
    file.and_then(|mut f| f.read_exact(&mut start)).is_ok_and(|()| encoded::is_image(&start))
}

/// Puts size and bytes of an image file into an item; a missing or too large one is a fault of the
/// image.
fn load(item: &mut Item, path: &Path, read: bool) -> Result<()> {
    let fault = |what: String| Err(Fault::Image(what));
    let mut file = match File::open(path) {
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
    item.size = file.metadata().map_err(Error::io(path))?.len();
    if item.size > MAX_IMAGE_BYTES {
        item.image = fault(format!("{} bytes, more than {MAX_IMAGE_BYTES}", item.size));
    } else if read {
        let mut bytes = Vec::with_capacity(item.size as usize);
        file.by_ref().take(item.size).read_to_end(&mut bytes).map_err(Error::io(path))?;
        item.image = Ok(bytes);
    }
    Ok(())
}
