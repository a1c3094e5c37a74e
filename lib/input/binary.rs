//! The binary files of CIFAR-10, CIFAR-100 and STL-10: pixels of one size, plane by plane, without
//! headers.

use super::{Class, Format, Item, Position, SplitName, Visit, class_names};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const CIFAR_10: &str = "data_batch_1.bin";
const CIFAR_100: &str = "fine_label_names.txt";
const STL_10: &str = "train_X.bin";

#[derive(Debug)]
pub struct Binary {
    pub classes: Vec<String>,
    /// Height, width, channels.
    pub shape: [usize; 3],
    /// Bytes before the pixels of each record; the label is the last.
    label_bytes: usize,
    /// Whether the pixels of a plane are stored column by column.
    by_column: bool,
    parts: Vec<Part>,
    class_file: PathBuf,
}

/// One file of images.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    split: SplitName,
    /// Keys are `<name>-<row>`.
    name: &'static str,
    /// Row of its first image under that name.
    first: u64,
    count: u64,
    /// Labels in a file of their own, counted from 1.
    labels: Option<(PathBuf, Vec<u8>)>,
}

/// The format of a folder that has one of these sets.
pub fn format(root: &Path) -> Option<Format> {
    let has = |name: &str| root.join(name).is_file();
    match () {
        () if has(STL_10) || has("test_X.bin") || has("unlabeled_X.bin") => Some(Format::Stl10),
        () if has(CIFAR_10) || has("test_batch.bin") => Some(Format::Cifar),
        () if has(CIFAR_100) && has("train.bin") => Some(Format::Cifar),
        () => None,
    }
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
            parts: Vec::new(),
            class_file: root.join(if hundred { CIFAR_100 } else { "batches.meta.txt" }),
        };
        binary.classes = class_names(&binary.class_file)?;
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
            parts: Vec::new(),
            class_file: root.join("class_names.txt"),
        };
        binary.classes = class_names(&binary.class_file)?;
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
            Some(file) => {
                let labels = std::fs::read(&file).map_err(|e| match e.kind() {
                    std::io::ErrorKind::NotFound => {
                        Error::missing(&file, "labels", "put them beside the images")
                    }
                    _ => Error::io(&file)(e),
                })?;
                if labels.len() as u64 != count {
                    return Err(Error::bad_data(
                        &file,
                        format!("{count} labels, one for each image"),
                        format!("{}", labels.len()),
                        "take images and labels from the same set",
                    ));
                }
                Some((file, labels))
            }
        };
        let before = self.parts.iter().filter(|p| p.name == name);
        self.parts.push(Part {
            first: before.map(|p| p.count).sum(),
            path,
            split,
            name,
            count,
            labels,
        });
        Ok(())
    }

    fn not_empty(self, root: &Path) -> Result<Binary> {
        match self.parts.is_empty() {
            false => Ok(self),
            true => Err(Error::missing(
                root,
                "files of CIFAR or STL-10",
                "name the folder that holds the .bin files",
            )),
        }
    }

    /// Bytes of a record.
    fn record(&self) -> usize {
        self.label_bytes + self.shape.iter().product::<usize>()
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let of_part = |p: &Part| {
            let labels = p.labels.as_ref().map(|(path, _)| path.clone());
            std::iter::once(p.path.clone()).chain(labels)
        };
        let class_file = std::iter::once(self.class_file.clone());
        self.parts.iter().flat_map(of_part).chain(class_file)
    }

    pub fn walk(&self, from: Position, _read: bool, visit: Visit) -> Result<()> {
        let mut record = vec![0; self.record()];
        for (nth, part) in self.parts.iter().enumerate().skip(from.file) {
            let start = if nth == from.file { from.at } else { 0 };
            let mut file = File::open(&part.path).map_err(Error::io(&part.path))?;
            file.seek(SeekFrom::Start(start * record.len() as u64))
                .map_err(Error::io(&part.path))?;
            let mut stream = BufReader::with_capacity(1 << 20, file);
            for at in start..part.count {
                stream.read_exact(&mut record).map_err(Error::io(&part.path))?;
                let (labels, planes) = record.split_at(self.label_bytes);
                let class = match (&part.labels, labels.last()) {
                    (Some((_, labels)), _) => match labels[at as usize].checked_sub(1) {
                        Some(label) => Class::Index(label.into(), None),
                        None => Class::Bad("label 0, labels count from 1".to_string()),
                    },
                    (None, Some(&label)) => Class::Index(label.into(), None),
                    (None, None) => Class::Unknown,
                };
                let item = Item {
                    position: Position { file: nth, at },
                    split: part.split,
                    name: format!("{}-{:06}", part.name, part.first + at),
                    class,
                    size: planes.len() as u64,
                    image: Ok(self.interleave(planes)),
                };
                if visit(item)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Row-major HWC of planes.
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
