//! Image folders: `root/<class>/*.png` is the split `train`; `root/train/<class>/*`,
//! `root/val/<class>/*` and `root/test/<class>/*` are splits of their own. Images that lie in no
//! class folder have no label.

use super::{Image, Record, Records, base_name, entries};
use crate::cli;
use crate::error::{Error, Result};
use crate::shards::decode_rgb;
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

const SPLITS: [&str; 3] = ["train", "val", "test"];
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Files read ahead: enough to keep all cores decoding, some 30 MB of photographs.
const READ_AHEAD: usize = 256;

#[derive(Debug)]
pub struct Folder {
    pub root: PathBuf,
    pub classes: Vec<String>,
    pub splits: Vec<Split>,
}

#[derive(Debug)]
pub struct Split {
    pub name: String,
    pub files: Vec<ImageFile>,
}

#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    key: String,
    label: Option<u32>,
}

/// The images of one split by class name; `None`: without a label.
type ByClass = Vec<(Option<String>, Vec<PathBuf>)>;

pub fn open(root: &Path) -> Result<Folder> {
    let found = entries(root)?;
    let mut by_split = false;
    for split in SPLITS.map(|s| root.join(s)).iter().filter(|p| p.is_dir()) {
        // A class may be named "train": then it holds images.
        by_split |= entries(split)?.iter().any(|p| p.is_dir());
    }

    let mut passed_over = Vec::new();
    let mut splits: Vec<(String, ByClass)> = Vec::new();
    if by_split {
        for path in found.iter().filter(|p| p.is_dir()) {
            let name = base_name(path)?;
            if !SPLITS.contains(&name) {
                return Err(Error::bad_data(
                    root,
                    "only the folders train, val and test",
                    format!("also {name}"),
                    "move it elsewhere",
                ));
            }
            splits.push((name.to_string(), classes(path, &mut passed_over)?));
        }
    } else {
        splits.push(("train".to_string(), classes(root, &mut passed_over)?));
    }
    if let Some(first) = passed_over.first() {
        cli::warn(&format!(
            "{}: {} files are not PNG or JPEG by name and were passed over, the first is {}",
            root.display(),
            passed_over.len(),
            first.display()
        ));
    }

    let names: BTreeSet<&String> = splits
        .iter()
        .flat_map(|(_, classes)| classes.iter().filter_map(|(class, _)| class.as_ref()))
        .collect();
    let names: Vec<String> = names.into_iter().cloned().collect();
    let splits = splits
        .into_iter()
        .map(|(name, by_class)| {
            let files = key(by_class, &names)?;
            Ok(Split { name, files })
        })
        .collect::<Result<_>>()?;
    Ok(Folder {
        root: root.to_path_buf(),
        classes: names,
        splits,
    })
}

/// The class folders of a split, or its images where it has no class folders.
fn classes(folder: &Path, passed_over: &mut Vec<PathBuf>) -> Result<ByClass> {
    let (folders, files): (Vec<_>, Vec<_>) = entries(folder)?.into_iter().partition(|p| p.is_dir());
    if folders.is_empty() {
        return Ok(vec![(None, images(folder, files, passed_over)?)]);
    }
    if let Some(image) = files.iter().find(|p| is_image(p)) {
        return Err(Error::bad_data(
            image,
            "images in class folders",
            "one beside them",
            "move it into its class folder",
        ));
    }
    passed_over.extend(files);
    folders
        .into_iter()
        .map(|class| {
            let inside = entries(&class)?;
            if let Some(folder) = inside.iter().find(|p| p.is_dir()) {
                return Err(Error::bad_data(
                    folder,
                    "only images in a class folder",
                    "a folder",
                    "arrange the images as <class>/<image> or <split>/<class>/<image>",
                ));
            }
            let name = base_name(&class)?.to_string();
            Ok((Some(name), images(&class, inside, passed_over)?))
        })
        .collect()
}

/// The images among the files of one folder, which must have at least one.
fn images(
    folder: &Path,
    files: Vec<PathBuf>,
    passed_over: &mut Vec<PathBuf>,
) -> Result<Vec<PathBuf>> {
    let (images, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|p| is_image(p));
    if images.is_empty() {
        return Err(Error::bad_data(
            folder,
            "PNG or JPEG images, or IDX files",
            match others.len() {
                0 => "an empty folder".to_string(),
                n => format!("{n} other files"),
            },
            "name a folder of images or of class folders, or remove this one",
        ));
    }
    passed_over.extend(others);
    Ok(images)
}

fn is_image(path: &Path) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| ENDINGS.contains(&e.to_ascii_lowercase().as_str()))
}

/// Gives every image its key: its base name, or `<class>/<base name>` where the split has that base
/// name in several classes. A base name has no slash, so the two kinds never meet.
fn key(by_class: ByClass, names: &[String]) -> Result<Vec<ImageFile>> {
    let mut count: HashMap<String, usize> = HashMap::new();
    for path in by_class.iter().flat_map(|(_, paths)| paths) {
        *count.entry(base_name(path)?.to_string()).or_default() += 1;
    }
    let mut files = Vec::new();
    for (class, paths) in by_class {
        let label = class
            .as_ref()
            .and_then(|c| names.binary_search(c).ok())
            .map(|l| l as u32);
        for path in paths {
            let name = base_name(&path)?;
            let key = match &class {
                Some(class) if count[name] > 1 => format!("{class}/{name}"),
                _ => name.to_string(),
            };
            files.push(ImageFile { path, key, label });
        }
    }
    Ok(files)
}

impl Folder {
    /// Every file read, in a fixed order.
    pub fn files(&self) -> Vec<PathBuf> {
        let files = self.splits.iter().flat_map(|s| &s.files);
        files.map(|f| f.path.clone()).collect()
    }

    pub fn records(&self, split: usize) -> Records<'_> {
        let chunks = self.splits[split].files.chunks(READ_AHEAD);
        Box::new(chunks.flat_map(|files| files.par_iter().map(load).collect::<Vec<_>>()))
    }
}

/// Reads one file and decodes it whole, so that a damaged one is found here and not in training.
fn load(file: &ImageFile) -> Result<Record> {
    let bytes = std::fs::read(&file.path).map_err(Error::io(&file.path))?;
    let bad = |found: String| {
        Error::bad_data(
            &file.path,
            "a complete PNG or JPEG image",
            found,
            "replace or remove the file",
        )
    };
    let image = decode_rgb(&bytes).map_err(bad)?;
    if is_cut_jpeg(&bytes) {
        return Err(bad("a JPEG without its end".to_string()));
    }
    Ok(Record {
        key: file.key.clone(),
        label: file.label,
        height: image.height(),
        width: image.width(),
        image: Image::Encoded {
            bytes,
            name: base_name(&file.path)?.to_string(),
        },
    })
}

/// Whether a JPEG lacks its end marker. The decoder fills what is missing with grey and says
/// nothing, so a file cut short has to be found by hand: the marker FF D9 cannot occur within
/// compressed data, only in segments before it (a thumbnail), which are stepped over.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return false;
    }
    let mut at = 2;
    while let Some(&[mark, kind, high, low]) = bytes.get(at..).and_then(|b| b.first_chunk::<4>()) {
        const START_OF_SCAN: u8 = 0xda;
        if mark != 0xff || kind == START_OF_SCAN {
            break;
        }
        // Before a marker there may be any number of fill bytes FF.
        at += match kind {
            0xff => 1,
            _ => 2 + usize::from(u16::from_be_bytes([high, low])),
        };
    }
    !bytes
        .get(at..)
        .is_some_and(|scan| scan.windows(2).any(|w| w == [0xff, 0xd9]))
}
