//! Image folders: `root/<class>/*.jpg` is the split `train`; `root/train/<class>/*`,
//! `root/val/<class>/*` and `root/test/<class>/*` are splits of their own. Images that lie in no
//! class folder have no label but one of a list.

use super::{
    Class, Fault, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, entries, is_image_name, labels,
};
use crate::cli;
use crate::decode::encoded;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Paths below the root, one after the other: some 40 bytes an image is all the memory that
    /// grows with the number of files.
    names: Vec<u8>,
    ends: Vec<usize>,
    /// Files that are not images.
    passed_over: usize,
}

impl Folder {
    /// Lists a folder of images, of class folders, or of splits.
    ///
    /// Errors: `BadData` for an arrangement that leaves open what the classes are.
    pub fn open(root: &Path) -> Result<Folder> {
        let mut folder = Folder {
            root: root.to_path_buf(),
            names: Vec::new(),
            ends: Vec::new(),
            passed_over: 0,
        };
        let found = entries(root)?;
        let split_of = |p: &PathBuf| p.file_name()?.to_str().and_then(SplitName::of_folder);
        let mut by_split = false;
        for split in found.iter().filter(|p| p.is_dir() && split_of(p).is_some()) {
            // A class may be named "train": then it holds images.
            by_split |= entries(split)?.iter().any(|p| p.is_dir());
        }
        let mut first = None;
        if by_split {
            for path in found.iter().filter(|p| p.is_dir()) {
                if split_of(path).is_none() {
                    return Err(Error::bad_data(
                        root,
                        "only the folders train, val and test",
                        format!("also {}", path.file_name().unwrap_or_default().display()),
                        "move it elsewhere",
                    ));
                }
                folder.add_split(path, &mut first)?;
            }
        } else {
            folder.add_split(root, &mut first)?;
        }
        if let Some(first) = first {
            cli::warn(&format!(
                "{}: {} files are not images by name and were passed over, the first is {}",
                root.display(),
                folder.passed_over,
                first.display()
            ));
        }
        Ok(folder)
    }

    /// The images that a CSV file lists by their paths below its folder.
    pub fn listed(csv: &Path) -> Result<Folder> {
        let mut folder = Folder {
            root: csv.parent().unwrap_or(Path::new("")).to_path_buf(),
            names: Vec::new(),
            ends: Vec::new(),
            passed_over: 0,
        };
        labels::for_each_row(csv, &mut |row| {
            folder.push(row.name.as_bytes());
            Ok(())
        })?;
        Ok(folder)
    }

    fn push(&mut self, name: &[u8]) {
        self.names.extend_from_slice(name);
        self.ends.push(self.names.len());
    }

    /// Adds the class folders of a split, or its images where it has no class folders.
    fn add_split(&mut self, folder: &Path, first: &mut Option<PathBuf>) -> Result<()> {
        let (folders, files): (Vec<_>, Vec<_>) =
            entries(folder)?.into_iter().partition(|p| p.is_dir());
        if folders.is_empty() {
            return self.add_images(folder, files, first);
        }
        if let Some(image) = files.iter().find(|p| is_image(p)) {
            return Err(Error::bad_data(
                image,
                "images in class folders",
                "one beside them",
                "move it into its class folder",
            ));
        }
        self.pass_over(&files, first);
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
            self.add_images(&class, inside, first)?;
        }
        Ok(())
    }

    /// Adds the images among the files of one folder, which must have at least one.
    fn add_images(
        &mut self,
        folder: &Path,
        files: Vec<PathBuf>,
        first: &mut Option<PathBuf>,
    ) -> Result<()> {
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
        self.pass_over(&others, first);
        for path in images {
            let name = path.strip_prefix(&self.root).unwrap_or(&path);
            self.push(name.as_os_str().as_bytes());
        }
        Ok(())
    }

    fn pass_over(&mut self, files: &[PathBuf], first: &mut Option<PathBuf>) {
        self.passed_over += files.len();
        if first.is_none() {
            *first = files.first().cloned();
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

    pub fn walk(&self, from: Position, read: bool, visit: Visit) -> Result<()> {
        for nth in from.file..self.ends.len() {
            let position = Position { file: nth, at: 0 };
            if visit(self.item(nth, position, read)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn item(&self, nth: usize, position: Position, read: bool) -> Result<Item> {
        let path = self.path(nth);
        let bytes = self.name(nth);
        let name = String::from_utf8_lossy(bytes).into_owned();
        let (split, class) = place(&name, SplitName::Train);
        let mut size = 0;
        let mut image = load(&path, read, &mut size)?;
        if std::str::from_utf8(bytes).is_err() {
            image = Err(Fault::Image("a name that is not UTF-8".to_string()));
        }
        Ok(Item { position, split, name, class, size, image })
    }
}

/// SplitName and class of an image by its path: `[<split>/][<class>/]<image>`, whatever folders are
/// above. A folder named as a split above the class is the split.
pub fn place(name: &str, split: SplitName) -> (SplitName, Class) {
    let mut folders: Vec<&str> = name.split('/').collect();
    folders.pop();
    let named = |folder: &&str| SplitName::of_folder(folder);
    match folders.as_slice() {
        [] => (split, Class::Unknown),
        // Alone, "train" is a split without classes.
        [only] => match SplitName::of_folder(only) {
            Some(split) => (split, Class::Unknown),
            None => (split, Class::Folder(only.to_string())),
        },
        [above @ .., class] => match (above.iter().find_map(named), SplitName::of_folder(class)) {
            (None, Some(split)) => (split, Class::Unknown),
            (above, _) => (above.unwrap_or(split), Class::Folder(class.to_string())),
        },
    }
}

fn is_image(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_image_name(&name) {
        return true;
    }
    let mut start = [0; 12];
    let file = std::fs::File::open(path);
    file.and_then(|mut f| f.read_exact(&mut start)).is_ok_and(|()| encoded::is_image(&start))
}

/// The bytes of an image file; a missing or too large one is a fault of the image.
fn load(path: &Path, read: bool, size: &mut u64) -> Result<std::result::Result<Vec<u8>, Fault>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(Fault::Image("no such file".to_string())));
        }
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return Ok(Err(Fault::Image("a file that may not be read".to_string())));
        }
        Err(e) => return Err(Error::io(path)(e)),
    };
    *size = file.metadata().map_err(Error::io(path))?.len();
    if *size > MAX_IMAGE_BYTES {
        let fault = format!("{size} bytes, more than {MAX_IMAGE_BYTES}");
        return Ok(Err(Fault::Image(fault)));
    }
    let mut bytes = Vec::new();
    if read {
        bytes.reserve_exact(*size as usize);
        file.by_ref().take(*size).read_to_end(&mut bytes).map_err(Error::io(path))?;
    }
    Ok(Ok(bytes))
}
