//! The content of a tar, plain or compressed. Several tars in one file are read one after the other, as by
//! `tar -i`. A compressed tar can only be read from its start.

use super::members::{Cut, Member, MemberKind, VisitMember};
use super::stream::{self, Compression, Section};
use crate::error::{Error, Result};
use ::tar::{Archive, Entry, EntryType, Header};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

const BLOCK: usize = 512;

/// Whether a file begins as a tar; the oldest kind has no magic number.
pub fn is_start(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar") || start.first_chunk().is_some_and(is_header)
}

/// Whether the checksum of a header holds.
fn is_header(block: &[u8; BLOCK]) -> bool {
    let sum = block[..148].iter().chain(&block[156..]).map(|&b| u32::from(b)).sum::<u32>();
    block[0] != 0 && Header::from_byte_slice(block).cksum().is_ok_and(|c| c == sum + 8 * 32)
}

/// A tar file, or one within a tar file.
#[derive(Debug)]
pub struct Tar {
    path: PathBuf,
    start: u64,
    end: u64,
    pub compression: Option<Compression>,
}

impl Tar {
    pub fn open(path: PathBuf) -> Result<Tar> {
        let compression = Compression::of(&path)?;
        Ok(Tar { path, start: 0, end: u64::MAX, compression })
    }

    /// The tars in this one, each with its name, if the first file in it is a tar; and what follows them:
    /// other files, or the sign that the outer tar is cut.
    pub fn inner(&self) -> Result<Vec<(Option<String>, Tar)>> {
        let (mut tars, mut rest) = (Vec::new(), 0);
        if self.compression.is_some() {
            return Ok(tars);
        }
        let mut archive = Archive::new(Section::open(&self.path, self.start, self.end)?);
        let size = Section::open(&self.path, self.start, self.end)?.size();
        for entry in archive.entries_with_seek().map_err(Error::io(&self.path))? {
            // Listing it reports what is wrong.
            let Ok(entry) = entry else { break };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let base = path.rsplit('/').next().unwrap_or_default();
            let Some(name) = base.strip_suffix(".tar") else {
                break;
            };
            let start = entry.raw_file_position();
            let end = start.saturating_add(entry.size());
            rest = end.next_multiple_of(BLOCK as u64);
            tars.push((Some(name.to_string()), self.part(start, end)));
        }
        if !tars.is_empty() && rest <= size {
            tars.push((None, self.part(rest, size)));
        }
        Ok(tars)
    }

    fn part(&self, start: u64, end: u64) -> Tar {
        Tar { path: self.path.clone(), start, end, compression: None }
    }

    /// Visits the files in order.
    ///
    /// Errors: those of `visit` and of the file; a cut tar is none.
    pub fn list(&self, visit: VisitMember) -> Result<Option<Cut>> {
        let mut source = self.source()?;
        // Bytes in all, as far as that is known without reading them.
        let size = match &source.bytes {
            Bytes::Plain(section) => section.size(),
            Bytes::Stream(_) => u64::MAX,
        };
        loop {
            let start = source.start;
            let mut archive = Archive::new(source);
            if let Some(cut) = self.list_one(&mut archive, start, size, visit)? {
                return Ok(Some(cut));
            }
            source = archive.into_inner();
            if source.ended {
                // Two blocks of zeros end a tar; the reader stops at the first.
                let found = "no end mark, the tar is not complete".to_string();
                return Ok(Some(Cut { at: start + source.at, found }));
            }
            let at = start + source.at;
            match source.next_tar() {
                Ok(Some(next)) => source = next,
                Ok(None) => return Ok(None),
                Err(e) => return self.cut(at, e).map(Some),
            }
        }
    }

    /// The error of a reader for a damaged tar or damaged compression.
    fn cut(&self, at: u64, e: std::io::Error) -> Result<Cut> {
        match e.raw_os_error() {
            Some(_) => Err(Error::io(&self.path)(e)),
            None => Ok(Cut { at, found: e.to_string().replace('\n', " ") }),
        }
    }

    /// The files up to the next end mark, in a tar that starts there.
    fn list_one(
        &self,
        archive: &mut Archive<Source>,
        start: u64,
        end: u64,
        visit: VisitMember,
    ) -> Result<Option<Cut>> {
        let mut at = start;
        for entry in archive.entries_with_seek().map_err(Error::io(&self.path))? {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(e) => return self.cut(at, e).map(Some),
            };
            at = start + entry.raw_header_position();
            let path = entry.path_bytes().into_owned();
            let content = start + entry.raw_file_position();
            let Some(kind) = kind(&mut entry) else {
                continue;
            };
            let size = entry.size();
            if kind == MemberKind::File && content.saturating_add(size) > end {
                let name = String::from_utf8_lossy(&path);
                return Ok(Some(Cut { at, found: format!("the tar ends within {name:?}") }));
            }
            visit(Member { path: &path, kind, at: content, size }, &mut entry)?;
        }
        Ok(None)
    }

    fn source(&self) -> Result<Source> {
        let bytes = match self.compression {
            Some(_) => Bytes::Stream(stream::open(&self.path)?),
            None => Bytes::Plain(Section::open(&self.path, self.start, self.end)?),
        };
        Ok(Source { bytes, start: 0, at: 0, ahead: None, ended: false })
    }

    /// Reads contents; cheapest in the order of the tar.
    pub fn reader(&self) -> Result<TarReader<'_>> {
        Ok(TarReader { tar: self, source: self.source()? })
    }
}

/// What a member is; `None` for a folder or a device.
fn kind(entry: &mut Entry<'_, Source>) -> Option<MemberKind> {
    const SPARSE: MemberKind = MemberKind::Unread("a sparse file, which only tar unpacks");
    let target = |entry: &Entry<'_, Source>| entry.link_name_bytes().map(|t| t.into_owned());
    Some(match entry.header().entry_type() {
        EntryType::Symlink => MemberKind::SymbolicLink(target(entry)?),
        EntryType::Link => MemberKind::HardLink(target(entry)?),
        EntryType::GNUSparse => SPARSE,
        kind if !kind.is_file() && !kind.is_contiguous() => return None,
        _ => {
            let extensions = entry.pax_extensions().ok().flatten();
            let mut keys = extensions.into_iter().flatten().flatten();
            match keys.any(|e| e.key_bytes().starts_with(b"GNU.sparse.")) {
                true => SPARSE,
                false => MemberKind::File,
            }
        }
    })
}

pub struct TarReader<'a> {
    tar: &'a Tar,
    source: Source,
}

impl TarReader<'_> {
    /// The bytes at a place that was listed. The inner error: a compressed tar ends before.
    pub fn read(&mut self, at: u64, size: u64) -> Result<std::result::Result<Vec<u8>, String>> {
        // A stream can only go forward.
        if at < self.source.at && matches!(self.source.bytes, Bytes::Stream(_)) {
            self.source = self.tar.source()?;
        }
        let mut bytes = stream::room_for(size);
        let read = self.source.seek(SeekFrom::Start(at));
        let read = read.and_then(|_| self.source.by_ref().take(size).read_to_end(&mut bytes));
        match read {
            Ok(read) if read as u64 == size => Ok(Ok(bytes)),
            Ok(_) => Ok(Err("the tar ends within it".to_string())),
            Err(e) => Ok(Err(self.tar.cut(at, e)?.found)),
        }
    }
}

/// The bytes of a tar from one of the tars in it on.
struct Source {
    bytes: Bytes,
    /// Its start in the bytes.
    start: u64,
    at: u64,
    /// A block that was read to see whether a tar starts there.
    ahead: Option<[u8; BLOCK]>,
    /// Whether all was read and more was asked for.
    ended: bool,
}

enum Bytes {
    Plain(Section),
    Stream(Box<dyn Read + Send>),
}

impl Source {
    /// The tar behind the end mark, if there is one.
    fn next_tar(mut self) -> std::io::Result<Option<Source>> {
        loop {
            let mut block = Vec::with_capacity(BLOCK);
            self.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
            let Some(block) = block.first_chunk::<BLOCK>() else {
                return Ok(None);
            };
            if block.iter().all(|&byte| byte == 0) {
                continue;
            }
            let start = self.start + self.at - BLOCK as u64;
            let (is_header, ahead) = (is_header(block), Some(*block));
            let next = Source { bytes: self.bytes, start, at: 0, ahead, ended: false };
            return Ok(is_header.then_some(next));
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if let (Some(block), 0) = (&self.ahead, self.at) {
            // The reader of tars asks for whole headers.
            let length = buffer.len().min(BLOCK);
            buffer[..length].copy_from_slice(&block[..length]);
            self.at += length as u64;
            return Ok(length);
        }
        let read = match &mut self.bytes {
            Bytes::Plain(section) => {
                section.seek(SeekFrom::Start(self.start + self.at))?;
                section.read(buffer)?
            }
            Bytes::Stream(stream) => stream.read(buffer)?,
        };
        self.at += read as u64;
        self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

impl Seek for Source {
    /// In a stream, only forward.
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        let to = to.ok_or(ErrorKind::InvalidInput)?;
        if let Bytes::Stream(stream) = &mut self.bytes {
            let by = to.checked_sub(self.at).ok_or(ErrorKind::InvalidInput)?;
            let passed = std::io::copy(&mut stream.take(by), &mut std::io::sink())?;
            if passed < by {
                return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the tar ends too soon"));
            }
        }
        self.at = to;
        Ok(to)
    }
}
