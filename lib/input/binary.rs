//! The binary files of CIFAR-10, CIFAR-100 and STL-10: pixels of one size, plane by plane, without
//! headers.

use super::classes;
use super::item::{Class, Item, Position, SplitName, Visit, Walked};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Only in CIFAR-100.
const CIFAR_100: &str = "fine_label_names.txt";

#[derive(Debug)]
pub struct Binary {
    pub classes: Vec<String>,
    /// Height, width, channels.
    pub shape: [usize; 3],
    /// Bytes before the pixels of each record; the label is the last.
    label_bytes: usize,
    /// Whether the pixels of a plane are stored column by column.
    by_column: bool,
    files: Vec<PixelFile>,
    class_file: PathBuf,
}

#[derive(Debug)]
struct PixelFile {
    path: PathBuf,
    split: SplitName,
    /// Keys are `<name>-<row>`.
    name: &'static str,
    /// Row of its first image among the images of that name.
    first: u64,
    count: u64,
    labels: Option<LabelFile>,
}

/// Labels in a separate file.
#[derive(Debug)]
struct LabelFile {
    path: PathBuf,
    /// Counted from 1.
    labels: Vec<u8>,
}

/// Whether a folder has files of STL-10.
pub fn has_stl10(root: &Path) -> bool {
    ["train_X.bin", "test_X.bin", "unlabeled_X.bin"].iter().any(|name| root.join(name).is_file())
}

/// Whether a folder has files of CIFAR-10 or CIFAR-100.
pub fn has_cifar(root: &Path) -> bool {
    let has = |name: &str| root.join(name).is_file();
    has("data_batch_1.bin") || has("test_batch.bin") || has(CIFAR_100) && has("train.bin")
}

/// Errors: `BadData` for a folder of CIFAR's version for Python.
pub fn refuse_pickles(root: &Path) -> Result<()> {
    let has = |names: &[&str]| names.iter().all(|name| root.join(name).is_file());
    if has(&["data_batch_1", "batches.meta"]) || has(&["train", "test", "meta"]) {
        return Err(Error::bad_data(
            root,
            "CIFAR's binary files",
            "its files for Python",
            "take the binary version, cifar-10-binary.tar.gz or cifar-100-binary.tar.gz, unpacked",
        ));
    }
    Ok(())
}

impl Binary {
    /// CIFAR-10 (one label byte) or CIFAR-100 (a coarse and a fine label byte; the fine one is taken).
    ///
    /// Errors: `Missing` without its files, `BadData` for a file that is not whole records.
    pub fn open_cifar(root: &Path) -> Result<Binary> {
        let hundred = root.join(CIFAR_100).is_file();
        let mut binary = Binary {
            classes: Vec::new(),
            shape: [32, 32, 3],
            label_bytes: if hundred { 2 } else { 1 },
            by_column: false,
            files: Vec::new(),
            class_file: root.join(if hundred { CIFAR_100 } else { "batches.meta.txt" }),
        };
        binary.classes = classes::read(&binary.class_file)?;
        if hundred {
            binary.add(root.join("train.bin"), SplitName::Train, "train", None)?;
            binary.add(root.join("test.bin"), SplitName::Test, "test", None)?;
        } else {
            for batch in 1..=5 {
                let path = root.join(format!("data_batch_{batch}.bin"));
                binary.add(path, SplitName::Train, "train", None)?;
            }
            binary.add(root.join("test_batch.bin"), SplitName::Test, "test", None)?;
        }
        binary.not_empty(root)
    }

    /// STL-10. Its unlabelled images follow the labelled ones in the split train, without a label.
    ///
    /// Errors: as `open_cifar`.
    pub fn open_stl10(root: &Path) -> Result<Binary> {
        let mut binary = Binary {
            classes: Vec::new(),
            shape: [96, 96, 3],
            label_bytes: 0,
            by_column: true,
            files: Vec::new(),
            class_file: root.join("class_names.txt"),
        };
        binary.classes = classes::read(&binary.class_file)?;
        for (split, name) in [(SplitName::Train, "train"), (SplitName::Test, "test")] {
            let labels = root.join(format!("{name}_y.bin"));
            binary.add(root.join(format!("{name}_X.bin")), split, name, Some(labels))?;
        }
        let path = root.join("unlabeled_X.bin");
        binary.add(path, SplitName::Train, "unlabeled", None)?;
        binary.not_empty(root)
    }

    fn add(
        &mut self,
        path: PathBuf,
        split: SplitName,
        name: &'static str,
        labels: Option<PathBuf>,
    ) -> Result<()> {
        if !path.is_file() {
            return Ok(());
        }
        let bytes = path.metadata().map_err(Error::io(&path))?.len();
        let record = self.record() as u64;
        if bytes == 0 || bytes % record != 0 {
            return Err(Error::bad_data(
                &path,
                format!("records of {record} bytes"),
                format!("{bytes} bytes"),
                "the file is damaged, copy it again",
            ));
        }
        let count = bytes / record;
        let labels = match labels {
            None => None,
            Some(path) => Some(LabelFile::read(path, count)?),
        };
        let before = self.files.iter().filter(|f| f.name == name);
        let first = before.map(|f| f.count).sum();
        self.files.push(PixelFile { path, split, name, first, count, labels });
        Ok(())
    }

    fn not_empty(self, root: &Path) -> Result<Binary> {
        match self.files.is_empty() {
            false => Ok(self),
            true => Err(Error::missing(
                root,
                "files of CIFAR or STL-10",
                "name the folder that holds the .bin files",
            )),
        }
    }

    /// Bytes per record.
    fn record(&self) -> usize {
        self.label_bytes + self.shape.iter().product::<usize>()
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let both = |f: &PixelFile| {
            let labels = f.labels.as_ref().map(|labels| labels.path.clone());
            std::iter::once(f.path.clone()).chain(labels)
        };
        let class_file = std::iter::once(self.class_file.clone());
        self.files.iter().flat_map(both).chain(class_file)
    }

    /// The files, each with its split.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        self.files.iter().map(|f| (f.split, f.path.as_path()))
    }

    /// All images are read in any case, because they are found only by their bytes.
    pub fn walk(&self, from: Position, visit: Visit) -> Walked {
        let mut record = vec![0; self.record()];
        for (nth, file) in self.files.iter().enumerate().skip(from.file) {
            let start = from.start_in(nth);
            let mut stream = File::open(&file.path).map_err(Error::io(&file.path))?;
            stream
                .seek(SeekFrom::Start(start * record.len() as u64))
                .map_err(Error::io(&file.path))?;
            let mut stream = BufReader::with_capacity(1 << 20, stream);
            for at in start..file.count {
                stream.read_exact(&mut record).map_err(Error::io(&file.path))?;
                let (labels, planes) = record.split_at(self.label_bytes);
                visit(Item {
                    position: Position { file: nth, at },
                    split: file.split,
                    name: format!("{}-{:06}", file.name, file.first + at),
                    class: file.class(at, labels),
                    size: planes.len() as u64,
                    image: Ok(self.interleave(planes)),
                })?;
            }
        }
        Ok(())
    }

    /// Planes as row-major HWC.
    fn interleave(&self, planes: &[u8]) -> Vec<u8> {
        let [height, width, channels] = self.shape;
        let mut pixels = Vec::with_capacity(planes.len());
        for y in 0..height {
            for x in 0..width {
                let at = match self.by_column {
                    true => x * height + y,
                    false => y * width + x,
                };
                pixels.extend((0..channels).map(|c| planes[c * height * width + at]));
            }
        }
        pixels
    }
}

impl PixelFile {
    /// The class of an image whose record has these labels.
    fn class(&self, at: u64, labels: &[u8]) -> Class {
        match (&self.labels, labels.last()) {
            (Some(file), _) => match file.labels[at as usize].checked_sub(1) {
                Some(label) => Class::Index(label.into(), None),
                None => Class::Bad("label 0, labels count from 1".to_string()),
            },
            (None, Some(&label)) => Class::Index(label.into(), None),
            (None, None) => Class::Unknown,
        }
    }
}

impl LabelFile {
    fn read(path: PathBuf, images: u64) -> Result<LabelFile> {
        let labels = std::fs::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::missing(&path, "labels", "put them beside the images")
            }
            _ => Error::io(&path)(e),
        })?;
        if labels.len() as u64 != images {
            return Err(Error::bad_data(
                &path,
                format!("{images} labels, one for each image"),
                format!("{}", labels.len()),
                "take images and labels from the same set",
            ));
        }
        Ok(LabelFile { path, labels })
    }
}
