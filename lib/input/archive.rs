//! Archives of images, tar or zip: class folders, WebDataset, ILSVRC-2012's tar of one tar per class.

use super::columns::Columns;
use super::contents::{Contents, Links, Listed, Listing};
use super::hash::of_name;
use super::item::{
    Class, Fault, Instead, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, Walked,
};
use super::layout;
use super::listing::{self, SplitFile};
use super::members::{Cut, Member, MemberKind, VisitMember, normal};
use super::splits::Splits;
use super::tar::{self, Tar, TarReader};
use super::zip::{self, Zip, ZipReader};
use crate::cli;
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[derive(Debug)]
pub struct Archive {
    root: PathBuf,
    volumes: Vec<Volume>,
    /// The key of the label in JSON.
    label_key: Option<String>,
    /// Whether labels come from somewhere else.
    has_list: bool,
    /// The content of the archives, once they have been listed.
    contents: OnceLock<Contents>,
}

/// An archive, or one within an archive.
#[derive(Debug)]
struct Volume {
    path: PathBuf,
    split: SplitName,
    /// The class of all its images: the name of an inner tar.
    class: Option<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tar(Tar),
    Zip(Zip),
}

impl Archive {
    pub fn open_tar(root: &Path, columns: &Columns, has_list: bool) -> Result<Archive> {
        let mut volumes = Vec::new();
        let volume = |path: &Path, split, class, tar| Volume {
            path: path.to_path_buf(),
            split,
            class,
            kind: Kind::Tar(tar),
        };
        for SplitFile { path, split } in listing::files(root, "tar", tar::is_start)? {
            let whole = Tar::open(path.clone())?;
            match whole.inner()? {
                inner if inner.is_empty() => volumes.push(volume(&path, split, None, whole)),
                inner => volumes
                    .extend(inner.into_iter().map(|(class, tar)| volume(&path, split, class, tar))),
            }
        }
        Ok(Archive::of(root, volumes, columns, has_list))
    }

    pub fn open_zip(root: &Path, columns: &Columns, has_list: bool) -> Result<Archive> {
        let volumes = listing::files(root, "zip", zip::is_start)?.into_iter().map(|file| {
            let SplitFile { path, split } = file;
            let kind = Kind::Zip(Zip::open(path.clone())?);
            Ok(Volume { path, split, class: None, kind })
        });
        Ok(Archive::of(root, volumes.collect::<Result<_>>()?, columns, has_list))
    }

    fn of(root: &Path, volumes: Vec<Volume>, columns: &Columns, has_list: bool) -> Archive {
        Archive {
            root: root.to_path_buf(),
            volumes,
            label_key: columns.label.clone().filter(|_| !has_list),
            has_list,
            contents: OnceLock::new(),
        }
    }

    /// Each file with its split.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        let files = self.volumes.chunk_by(|a, b| a.path == b.path);
        files.map(|volumes| (volumes[0].split, volumes[0].path.as_path()))
    }

    /// Errors: `BadData` if class folders are at uneven depth, or one class in several folders.
    pub fn refuse_unclear(&self, splits: &Splits) -> Result<()> {
        let contents = self.contents()?;
        for (nth, volume) in self.volumes.iter().enumerate() {
            if let Some((one, other)) = layout::unclear(contents.folders(nth), splits) {
                return Err(Error::bad_data(
                    &volume.path,
                    "class folders at one depth, as <class>/<image> or <split>/<class>/<image>",
                    format!("images in {one:?} and in {other:?}"),
                    "arrange the images so, or give their labels with --labels",
                ));
            }
        }
        Ok(())
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let files = self.volumes.chunk_by(|a, b| a.path == b.path);
        files.map(|volumes| volumes[0].path.clone())
    }

    /// The first file that can only be read from its start, and the command that unpacks it.
    pub fn compressed(&self) -> Option<(&Path, &'static str)> {
        self.volumes.iter().find_map(|volume| match &volume.kind {
            Kind::Tar(tar) => Some((&*volume.path, tar.compression?.unpacked_by())),
            Kind::Zip(_) => None,
        })
    }

    pub fn walk(&self, from: Position, read: bool, visit: Visit) -> Walked {
        let contents = self.contents()?;
        for (nth, volume) in self.volumes.iter().enumerate().skip(from.file) {
            let (first, count) = (from.start_in(nth), contents.count(nth) as u64);
            let mut reader = match read && first < count {
                true => Some(volume.reader()?),
                false => None,
            };
            for at in first..count {
                let listed = contents.image(nth, at as usize);
                visit(volume.item(listed, Position { file: nth, at }, reader.as_mut())?)?;
            }
            if let Some(cut) = contents.cut(nth) {
                visit(volume.cut(cut, Position { file: nth, at: count }))?;
            }
        }
        Ok(())
    }

    /// The unique name of an image: it begins with the name of its archive.
    pub fn full_name(&self, item: &Item) -> String {
        let path = &self.volumes[item.position.file].path;
        format!("{}/{}", path.file_stem().unwrap_or_default().display(), item.name)
    }

    /// What was found instead of labels.
    pub fn instead_of_labels(&self) -> Result<Option<Instead>> {
        Ok(self.contents()?.notes().instead_of_labels())
    }

    /// Lists all archives once, on the first walk.
    pub fn contents(&self) -> Result<&Contents> {
        if let Some(contents) = self.contents.get() {
            return Ok(contents);
        }
        let mut contents = Contents::default();
        for volume in &self.volumes {
            let (class, key) = (volume.class.as_deref(), self.label_key.as_deref());
            let mut listing = Listing::new(&mut contents, class, key);
            let cut = volume.list(&mut |member, content| {
                if cli::stop_requested() {
                    return Err(Error::Interrupted { path: self.root.clone() });
                }
                listing.add(member, content)
            })?;
            let links = listing.end();
            let targets = volume.targets(&links)?;
            listing.finish(&links, &|target| targets.get(&target).copied(), cut);
        }
        contents.finish();
        contents.notes().say(&self.root, self.has_list)?;
        Ok(self.contents.get_or_init(|| contents))
    }
}

impl Volume {
    fn list(&self, visit: VisitMember) -> Result<Option<Cut>> {
        match &self.kind {
            Kind::Tar(tar) => tar.list(visit),
            Kind::Zip(zip) => zip.list(visit),
        }
    }

    /// Position and size of the files that links point to, by the hashes of their paths.
    fn targets(&self, links: &Links) -> Result<HashMap<u64, (u64, u64)>> {
        let mut found = HashMap::new();
        if links.is_empty() {
            return Ok(found);
        }
        let wanted: HashSet<u64> = links.wanted().collect();
        self.list(&mut |Member { path, kind, at, size }, _| {
            let target = of_name(&[&normal("", &String::from_utf8_lossy(path))]);
            if kind == MemberKind::File && wanted.contains(&target) {
                found.insert(target, (at, size));
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn reader(&self) -> Result<Reader<'_>> {
        Ok(match &self.kind {
            Kind::Tar(tar) => Reader::Tar(Box::new(tar.reader()?)),
            Kind::Zip(zip) => Reader::Zip(zip.reader()),
        })
    }

    fn item(
        &self,
        listed: Listed,
        position: Position,
        reader: Option<&mut Reader>,
    ) -> Result<Item> {
        let Listed { name, class, at, size, fault } = listed;
        let class = class.or(self.class.clone().map(Class::Name)).unwrap_or(Class::Unknown);
        let image = match (fault, reader) {
            (Some(fault), _) => Err(fault.to_string()),
            (None, _) if size > MAX_IMAGE_BYTES => {
                Err(format!("{size} bytes, more than {MAX_IMAGE_BYTES}"))
            }
            (None, Some(Reader::Tar(tar))) => tar.read(at, size)?,
            (None, Some(Reader::Zip(zip))) => zip.read(at, size)?,
            (None, None) => Ok(Vec::new()),
        };
        let image = image.map_err(Fault::Image);
        Ok(Item { position, split: self.split, name, class, size, image })
    }

    /// The item that stands for the missing rest of a cut archive.
    fn cut(&self, cut: &Cut, position: Position) -> Item {
        let file = self.path.file_name().unwrap_or_default().display();
        Item {
            position,
            split: self.split,
            name: format!("{file}@{}", cut.at),
            class: Class::Unknown,
            size: 0,
            image: Err(Fault::Cut(cut.found.clone())),
        }
    }
}

enum Reader<'a> {
    Tar(Box<TarReader<'a>>),
    Zip(ZipReader<'a>),
}
