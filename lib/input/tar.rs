//! tar files: images in class folders; ILSVRC-2012's tar of one tar a class; WebDataset, where files
//! of one name and several endings are one sample (`0001.jpg`, `0001.cls`, `0001.json`).

use super::{
    Class, Fault, Format, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, base_name, files,
    folder, is_image_name,
};
use crate::error::{Error, Result};
use ::tar::{Archive, Entry};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const BLOCK: u64 = 512;
/// Files of one sample that wait for its label.
const SAMPLE: usize = 16;
/// A label file is short; a longer one is no label.
const MAX_LABEL: u64 = 1 << 20;

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
        for (path, split) in files(path, Format::Tar)? {
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

    pub fn walk(&self, from: Position, read: bool, visit: Visit) -> Result<()> {
        for (nth, member) in self.members.iter().enumerate().skip(from.file) {
            let at = if nth == from.file { from.at } else { 0 };
            if member.walk(nth, at, read, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Member {
    /// The tars in it, where the first file in it is a tar.
    fn inner(&self) -> Result<Vec<Member>> {
        let (mut members, mut rest) = (Vec::new(), 0);
        let mut archive = Archive::new(self.window(0)?);
        let entries = archive.entries_with_seek().map_err(Error::io(&self.path))?;
        for entry in entries {
            // What is wrong with it is said by the walk.
            let Ok(entry) = entry else { break };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
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

    fn window(&self, at: u64) -> Result<Window> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let size = file.metadata().map_err(Error::io(&self.path))?.len();
        let start = self.start.saturating_add(at).min(size);
        Ok(Window { file, start, at: 0, size: self.end.min(size).saturating_sub(start) })
    }

    fn walk(&self, nth: usize, from: u64, read: bool, visit: Visit) -> Result<ControlFlow<()>> {
        let window = self.window(from)?;
        let size = window.size;
        let mut archive = Archive::new(window);
        let mut next = 0;
        let mut sample = Sample::default();
        let cut = |at: u64, found: String| Item {
            position: Position { file: nth, at: from + at },
            split: self.split,
            name: format!(
                "{}@{}",
                self.path.file_name().unwrap_or_default().display(),
                self.start + from + at
            ),
            class: Class::Unknown,
            size: 0,
            image: Err(Fault::Cut(found)),
        };
        let entries = archive.entries_with_seek().map_err(Error::io(&self.path))?;
        for entry in entries {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(e) if e.raw_os_error().is_some() => return Err(Error::io(&self.path)(e)),
                Err(e) => {
                    if sample.end(visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    return visit(cut(next, e.to_string().replace('\n', " ")));
                }
            };
            let position = Position { file: nth, at: from + next };
            let bytes = entry.path_bytes().into_owned();
            let name = String::from_utf8_lossy(&bytes).into_owned();
            let end = entry.raw_file_position().saturating_add(entry.size());
            if end > size {
                if sample.end(visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                return visit(cut(next, format!("the tar ends within {name:?}")));
            }
            next = end.next_multiple_of(BLOCK);
            if !entry.header().entry_type().is_file() || base_name(&name).starts_with('.') {
                continue;
            }
            let name = name.trim_start_matches("./");
            let name = match &self.class {
                Some(class) => format!("{class}/{name}"),
                None => name.to_string(),
            };
            let stem = stem(&name);
            if stem != sample.stem && sample.end(visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if sample.stem != stem {
                sample.stem = stem.to_string();
            }
            let ending = &name[stem.len()..];
            if is_image_name(&name) {
                let (split, class) = folder::place(&name, self.split);
                let mut item = Item {
                    position: *sample.position.get_or_insert(position),
                    split,
                    class: self.class.clone().map_or(class, Class::Name),
                    size: entry.size(),
                    image: load(&mut entry, read).map_err(Error::io(&self.path))?,
                    name,
                };
                if std::str::from_utf8(&bytes).is_err() {
                    item.image = Err(Fault::Image("a name that is not UTF-8".to_string()));
                }
                sample.items.push(item);
                if sample.items.len() > SAMPLE && sample.flush(1, visit)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            } else if matches!(ending, ".cls" | ".json") {
                sample.position.get_or_insert(position);
                let mut text = Vec::new();
                entry.take(MAX_LABEL).read_to_end(&mut text).map_err(Error::io(&self.path))?;
                let class = match ending {
                    ".cls" => Some(of_text(&String::from_utf8_lossy(&text))),
                    _ => of_json(&text),
                };
                sample.class = class.or(sample.class.take());
            }
        }
        if sample.end(visit)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        // Two blocks of zeros end a tar; the reader stops at the first.
        if next + BLOCK > size {
            return visit(cut(next, "no end mark, the tar is not complete".to_string()));
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Files of one name but for the ending, in a row.
#[derive(Debug, Default)]
struct Sample {
    stem: String,
    position: Option<Position>,
    class: Option<Class>,
    items: Vec<Item>,
}

impl Sample {
    fn end(&mut self, visit: Visit) -> Result<ControlFlow<()>> {
        let flow = self.flush(self.items.len(), visit)?;
        *self = Sample::default();
        Ok(flow)
    }

    /// Hands out the first `count` images. In a sample with a label only `name.jpg` is the image,
    /// `name.mask.png` is not.
    fn flush(&mut self, count: usize, visit: Visit) -> Result<ControlFlow<()>> {
        let items: Vec<Item> = self.items.drain(..count).collect();
        for mut item in items {
            if let Some(class) = &self.class {
                if item.name[self.stem.len()..].matches('.').count() > 1 {
                    continue;
                }
                item.class = class.clone();
            }
            if visit(item)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The path up to the first dot of its base name.
fn stem(name: &str) -> &str {
    let base = base_name(name);
    let folders = name.len() - base.len();
    &name[..folders + base.find('.').unwrap_or(base.len())]
}

fn load(
    entry: &mut Entry<'_, Window>,
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

/// The content of a `.cls` file: a number counted from 0, or a name.
fn of_text(text: &str) -> Class {
    match text.trim() {
        "" => Class::Unknown,
        text => match text.parse::<i64>() {
            Ok(-1) => Class::Unknown,
            Ok(number) => of_number(number),
            Err(_) => Class::Name(text.to_string()),
        },
    }
}

fn of_number(number: i64) -> Class {
    u64::try_from(number).map_or(Class::Bad(format!("label {number}")), |n| Class::Index(n, None))
}

/// The class that a `.json` file names, if it does.
fn of_json(text: &[u8]) -> Option<Class> {
    let json: serde_json::Value = match serde_json::from_slice(text) {
        Ok(json) => json,
        Err(_) => return Some(Class::Bad("a .json file that does not parse".to_string())),
    };
    let value = ["label", "cls", "class"].iter().find_map(|k| json.get(k))?;
    Some(match value {
        serde_json::Value::String(name) => Class::Name(name.clone()),
        serde_json::Value::Null => Class::Unknown,
        value => value.as_i64().map_or(Class::Bad(format!("label {value}")), of_number),
    })
}

/// A part of a file as a file of its own.
struct Window {
    file: File,
    start: u64,
    at: u64,
    size: u64,
}

impl Read for Window {
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

impl Seek for Window {
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
