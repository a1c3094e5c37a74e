//! The files in a zip.

use super::members::{Cut, Member, MemberKind, VisitMember};
use super::stream::{Section, most_bytes, room_for};
use crate::cli;
use crate::error::{Error, Result};
use ::zip::result::ZipError;
use ::zip::{CompressionMethod, ZipArchive};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Most bytes read from one file at a time, unless it is an image.
const MOST_TEXT: u64 = 1 << 20;

/// Whether a file begins like a zip.
pub fn is_start(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

#[derive(Debug)]
pub struct Zip {
    path: PathBuf,
    archive: ZipArchive<Section>,
}

impl Zip {
    /// Errors: `BadData` for a damaged list of files, or one that claims more than there can be.
    pub fn open(path: PathBuf) -> Result<Zip> {
        let section = Section::open(&path, 0, u64::MAX)?;
        let most = most_bytes(section.size());
        let archive = ZipArchive::new(section).map_err(|e| damaged(&path, &e))?;
        let mut claimed = 0u64;
        for nth in 0..archive.len() {
            let entry = archive.by_index_data(nth).map_err(|e| damaged(&path, &e))?;
            claimed = claimed.saturating_add(entry.size());
        }
        if claimed > most {
            let found = format!("files of {claimed} bytes");
            let hint = "it is made to fill a disk, or damaged: copy it again";
            return Err(Error::bad_data(&path, format!("at most {most} bytes in it"), found, hint));
        }
        if archive.has_duplicate_names() {
            let path = path.display();
            cli::warn(&format!("{path}: several files have one name; the last of each is read"));
        }
        Ok(Zip { path, archive })
    }

    /// Visits the files in order.
    pub fn list(&self, visit: VisitMember) -> Result<Option<Cut>> {
        let mut archive = self.archive.clone();
        for nth in 0..self.archive.len() {
            let entry = self.archive.by_index_data(nth).map_err(|e| damaged(&self.path, &e))?;
            if entry.is_dir() {
                continue;
            }
            let mut path = entry.name_raw().to_vec();
            // Old Windows programs write backslashes.
            if !path.contains(&b'/') {
                path.iter_mut().filter(|byte| **byte == b'\\').for_each(|byte| *byte = b'/');
            }
            let mut content = Content { archive: &mut archive, nth, text: None };
            let kind = match entry.compression() {
                _ if entry.encrypted() => MemberKind::Unread("an encrypted file of a zip"),
                CompressionMethod::Stored | CompressionMethod::Deflated => match entry.is_symlink()
                {
                    true => MemberKind::SymbolicLink(content.text().into_inner()),
                    false => MemberKind::File,
                },
                _ => MemberKind::Unread("compressed in a way that is not read; unpack the zip"),
            };
            let (at, size) = (nth as u64, entry.size());
            visit(Member { path: &path, kind, at, size }, &mut content)?;
        }
        Ok(None)
    }

    /// Paths of all files.
    pub fn names(&self) -> Vec<String> {
        let names = self.archive.file_names_raw();
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    pub fn number(&self, name: &str) -> Option<usize> {
        self.archive.index_for_name_raw(name.as_bytes())
    }

    /// Bytes of the file with that number, according to the list.
    pub fn size(&self, nth: usize) -> u64 {
        self.archive.by_index_data(nth).map_or(0, |entry| entry.size())
    }

    /// A reader of its own, which shares the list of files.
    pub fn archive(&self) -> ZipArchive<Section> {
        self.archive.clone()
    }

    /// The content of the file with that number, from its start.
    pub fn content<'a>(
        &self,
        archive: &'a mut ZipArchive<Section>,
        nth: usize,
    ) -> Result<impl Read + 'a> {
        let size = self.size(nth);
        let file = archive.by_index(nth).map_err(|e| damaged(&self.path, &e))?;
        Ok(std::io::BufReader::with_capacity(1 << 16, file.take(size)))
    }

    pub fn reader(&self) -> ZipReader<'_> {
        ZipReader { path: &self.path, archive: self.archive.clone() }
    }
}

/// The first bytes of a file, read only when needed.
struct Content<'a> {
    archive: &'a mut ZipArchive<Section>,
    nth: usize,
    text: Option<Cursor<Vec<u8>>>,
}

impl Content<'_> {
    /// Empty if it cannot be read; images are read and checked elsewhere.
    fn text(&mut self) -> Cursor<Vec<u8>> {
        let mut text = Vec::new();
        if let Ok(file) = self.archive.by_index(self.nth) {
            let _ = file.take(MOST_TEXT).read_to_end(&mut text);
        }
        Cursor::new(text)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut text = self.text.take().unwrap_or_else(|| self.text());
        let read = text.read(buffer);
        self.text = Some(text);
        read
    }
}

pub struct ZipReader<'a> {
    path: &'a Path,
    archive: ZipArchive<Section>,
}

impl ZipReader<'_> {
    /// The bytes of a file with that number and size. The inner error: what is wrong with it.
    pub fn read(&mut self, nth: u64, size: u64) -> Result<std::result::Result<Vec<u8>, String>> {
        let damaged = |e: &dyn std::fmt::Display| Ok(Err(format!("damaged in the zip: {e}")));
        let file = match self.archive.by_index(nth as usize) {
            Ok(file) => file,
            Err(ZipError::Io(e)) if e.raw_os_error().is_some() => {
                return Err(Error::io(self.path)(e));
            }
            Err(e) => return damaged(&e),
        };
        let mut bytes = room_for(size + 1);
        match file.take(size + 1).read_to_end(&mut bytes) {
            Ok(read) if read as u64 == size => Ok(Ok(bytes)),
            Ok(_) => damaged(&"another length than its list says"),
            Err(e) if e.raw_os_error().is_some() => Err(Error::io(self.path)(e)),
            Err(e) => damaged(&e),
        }
    }
}

fn damaged(path: &Path, e: &ZipError) -> Error {
    let found = e.to_string().replace('\n', " ");
    Error::bad_data(path, "a whole zip", found, "copy it again, or unpack it and name its folder")
}
