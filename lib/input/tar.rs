//! tar files: images in class folders; ILSVRC-2012's tar of one tar per class; WebDataset, in which
//! files of one name and several endings are one sample (`0001.jpg`, `0001.cls`, `0001.json`).

use super::item::{Class, Fault, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, Walked};
use super::label;
use super::listing::{self, SplitFile};
use super::names::{base_name, is_hidden_path, is_image_name};
use crate::error::{Error, Result};
use ::tar::{Archive, Entry};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK: u64 = 512;
/// Images of one sample that wait for its label.
const MAX_SIBLINGS: usize = 16;
/// A label file is short; a longer one is no label.
const MAX_LABEL: u64 = 1 << 20;

/// Whether a file begins as a tar.
pub fn is_start(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

#[derive(Debug)]
pub struct Tar {
    members: Vec<Member>,
}

/// A tar file, or one within a tar file.
#[derive(Debug)]
struct Member {
    path: PathBuf,
    start: u64,
    end: u64,
    split: SplitName,
    /// The class of all its images: the name of an inner tar.
    class: Option<String>,
}

impl Tar {
    pub fn open(path: &Path) -> Result<Tar> {
        let mut members = Vec::new();
        for SplitFile { path, split } in listing::files(path, "Tar", is_start)? {
            let end = path.metadata().map_err(Error::io(&path))?.len();
            let whole = Member { path, start: 0, end, split, class: None };
            match whole.inner()? {
                inner if inner.is_empty() => members.push(whole),
                inner => members.extend(inner),
            }
        }
        Ok(Tar { members })
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let whole = self.members.chunk_by(|a, b| a.path == b.path);
        whole.map(|members| members[0].path.clone())
    }

    /// Each file with its split.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        self.members.iter().map(|f| (f.split, f.path.as_path()))
    }

    pub fn walk(&self, from: Position, read: bool, visit: Visit) -> Walked {
        for (nth, member) in self.members.iter().enumerate().skip(from.file) {
            member.walk(Position { file: nth, at: from.start_in(nth) }, read, visit)?;
        }
        Ok(())
    }
}

impl Member {
    /// The tars in this one, if the first file in it is a tar.
    fn inner(&self) -> Result<Vec<Member>> {
        let (mut members, mut rest) = (Vec::new(), 0);
        let mut archive = Archive::new(self.section(0)?);
        let entries = archive.entries_with_seek().map_err(Error::io(&self.path))?;
        for entry in entries {
            // What is wrong with it is said by the walk.
            let Ok(entry) = entry else { break };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = path_of(&entry);
            let Some(class) = base_name(&name).strip_suffix(".tar") else {
                break;
            };
            let start = entry.raw_file_position();
            let end = start.saturating_add(entry.size());
            rest = end.next_multiple_of(BLOCK);
            members.push(self.part(start, end, Some(class.to_string())));
        }
        if !members.is_empty() && rest <= self.end {
            // Other files, or what tells that the outer tar is cut.
            members.push(self.part(rest, self.end, None));
        }
        Ok(members)
    }

    fn part(&self, start: u64, end: u64, class: Option<String>) -> Member {
        Member { path: self.path.clone(), start, end, split: self.split, class }
    }

    fn section(&self, at: u64) -> Result<Section> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let size = file.metadata().map_err(Error::io(&self.path))?.len();
        let start = self.start.saturating_add(at).min(size);
        Ok(Section { file, start, at: 0, size: self.end.min(size).saturating_sub(start) })
    }

    fn walk(&self, from: Position, read: bool, visit: Visit) -> Walked {
        let section = self.section(from.at)?;
        let size = section.size;
        let mut archive = Archive::new(section);
        let entries = archive.entries_with_seek().map_err(Error::io(&self.path))?;
        // The header of the next entry, in the section.
        let mut next = 0;
        let mut siblings = Siblings::default();
        for entry in entries {
            let position = Position { at: from.at + next, ..from };
            let entry = match self.whole(entry, size)? {
                Ok(entry) => entry,
                Err(found) => {
                    siblings.end(visit)?;
                    return visit(self.cut(position, found));
                }
            };
            next = end(&entry).next_multiple_of(BLOCK);
            let Some(name) = self.name(&entry) else {
                continue;
            };
            siblings.go_on_with(stem(&name), visit)?;
            if is_image_name(&name) {
                let position = *siblings.position.get_or_insert(position);
                let item = self.item(entry, name, position, read).map_err(Error::io(&self.path))?;
                siblings.add(item, visit)?;
            } else if let ending @ (".cls" | ".json") = &name[siblings.stem.len()..] {
                siblings.position.get_or_insert(position);
                let class = label_of(entry, ending).map_err(Error::io(&self.path))?;
                siblings.class = class.or(siblings.class.take());
            }
        }
        siblings.end(visit)?;
        // Two blocks of zeros end a tar; the reader stops at the first.
        if next + BLOCK > size {
            let position = Position { at: from.at + next, ..from };
            visit(self.cut(position, "no end mark, the tar is not complete".to_string()))?;
        }
        Ok(())
    }

    /// The next entry of a section of that size, or why the section ends before it.
    fn whole<'a>(
        &self,
        entry: std::io::Result<Entry<'a, Section>>,
        size: u64,
    ) -> Result<std::result::Result<Entry<'a, Section>, String>> {
        Ok(match entry {
            Ok(entry) if end(&entry) > size => {
                Err(format!("the tar ends within {:?}", path_of(&entry)))
            }
            Ok(entry) => Ok(entry),
            Err(e) if e.raw_os_error().is_some() => return Err(Error::io(&self.path)(e)),
            Err(e) => Err(e.to_string().replace('\n', " ")),
        })
    }

    /// The item that stands for what the tar no longer has.
    fn cut(&self, position: Position, found: String) -> Item {
        let file = self.path.file_name().unwrap_or_default().display();
        Item {
            position,
            split: self.split,
            name: format!("{file}@{}", self.start + position.at),
            class: Class::Unknown,
            size: 0,
            image: Err(Fault::Cut(found)),
        }
    }

    /// The path of an entry below its class; `None` if it is hidden or no file.
    fn name(&self, entry: &Entry<'_, Section>) -> Option<String> {
        let name = path_of(entry);
        if !entry.header().entry_type().is_file() || is_hidden_path(&name) {
            return None;
        }
        let name = name.trim_start_matches("./");
        Some(match &self.class {
            Some(class) => format!("{class}/{name}"),
            None => name.to_string(),
        })
    }

    fn item(
        &self,
        mut entry: Entry<'_, Section>,
        name: String,
        position: Position,
        read: bool,
    ) -> std::io::Result<Item> {
        let class = self.class.clone().map_or(Class::Unknown, Class::Name);
        let mut image = load(&mut entry, read)?;
        if std::str::from_utf8(&entry.path_bytes()).is_err() {
            image = Err(Fault::Image("a name that is not UTF-8".to_string()));
        }
        Ok(Item { position, split: self.split, name, class, size: entry.size(), image })
    }
}

/// The files of one sample: those of one name but for the ending, in a row.
#[derive(Debug, Default)]
struct Siblings {
    stem: String,
    position: Option<Position>,
    class: Option<Class>,
    items: Vec<Item>,
}

impl Siblings {
    /// Ends the sample unless the next file is of it, too.
    fn go_on_with(&mut self, stem: &str, visit: Visit) -> Walked {
        if self.stem != stem {
            self.end(visit)?;
            self.stem = stem.to_string();
        }
        Ok(())
    }

    fn add(&mut self, image: Item, visit: Visit) -> Walked {
        self.items.push(image);
        match self.items.len() > MAX_SIBLINGS {
            true => self.hand_out(1, visit),
            false => Ok(()),
        }
    }

    fn end(&mut self, visit: Visit) -> Walked {
        self.hand_out(self.items.len(), visit)?;
        *self = Siblings::default();
        Ok(())
    }

    /// Hands out the first `count` images. In a sample with a label only `name.jpg` is the image,
    /// `name.mask.png` is not.
    fn hand_out(&mut self, count: usize, visit: Visit) -> Walked {
        for mut item in self.items.drain(..count) {
            if let Some(class) = &self.class {
                if item.name[self.stem.len()..].matches('.').count() > 1 {
                    continue;
                }
                item.class = class.clone();
            }
            visit(item)?;
        }
        Ok(())
    }
}

fn path_of(entry: &Entry<'_, Section>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).into_owned()
}

/// Where the content of an entry ends in its section.
fn end(entry: &Entry<'_, Section>) -> u64 {
    entry.raw_file_position().saturating_add(entry.size())
}

/// The path up to the first dot of its base name.
fn stem(name: &str) -> &str {
    let base = base_name(name);
    let folders = name.len() - base.len();
    &name[..folders + base.find('.').unwrap_or(base.len())]
}

fn load(
    entry: &mut Entry<'_, Section>,
    read: bool,
) -> std::io::Result<std::result::Result<Vec<u8>, Fault>> {
    let size = entry.size();
    if size > MAX_IMAGE_BYTES {
        let fault = format!("{size} bytes, more than {MAX_IMAGE_BYTES}");
        return Ok(Err(Fault::Image(fault)));
    }
    let mut bytes = vec![0; if read { size as usize } else { 0 }];
    entry.read_exact(&mut bytes)?;
    Ok(Ok(bytes))
}

/// The class that a label file names, if it does.
fn label_of(entry: Entry<'_, Section>, ending: &str) -> std::io::Result<Option<Class>> {
    let mut text = Vec::new();
    entry.take(MAX_LABEL).read_to_end(&mut text)?;
    Ok(match ending {
        ".cls" => Some(label::counted(&String::from_utf8_lossy(&text))),
        _ => of_json(&text),
    })
}

/// The class that a `.json` file names, if it does.
fn of_json(text: &[u8]) -> Option<Class> {
    let json: serde_json::Value = match serde_json::from_slice(text) {
        Ok(json) => json,
        Err(_) => return Some(Class::Bad("a .json file that does not parse".to_string())),
    };
    let value = ["label", "cls", "class"].iter().find_map(|k| json.get(k))?;
    Some(label::of_json(value))
}

/// A part of a file as a file of its own.
struct Section {
    file: File,
    start: u64,
    at: u64,
    size: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.size.saturating_sub(self.at).min(buffer.len() as u64) as usize;
        // As in a file, there may be places beyond the end, with nothing to read.
        if left == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..left], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
