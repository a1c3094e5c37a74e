//! TFRecord files of `tf.train.Example`, plain or compressed, in the layout of slim and tensor2tensor:
//! `image/encoded`, `image/class/label` (counted from 1, or from 0 where there is a 0), `image/filename`,
//! and `image/class/synset` or `image/class/text` for the name of the class; or in that of TensorFlow
//! Datasets: `image`, `label` (counted from 0), `file_name`.
//!
//! A record is its length (u64), the masked CRC-32C of the length, the data, and the masked CRC-32C of
//! the data, all little-endian.

use super::item::{
    Class, Fault, Instead, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, Walked,
};
use super::label;
use super::listing::{self, SplitFile};
use super::stream::{self, Compression};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const HEADER: usize = 12;
const CHECKSUM: usize = 4;

#[derive(Debug)]
pub struct TfRecord {
    files: Vec<SplitFile>,
}

/// The fields that are read from a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Example<'a> {
    pub encoded: Option<&'a [u8]>,
    pub filename: Option<&'a [u8]>,
    pub label: Option<i64>,
    /// Whether the label is that of TensorFlow Datasets, which counts from 0.
    pub from_zero: bool,
    /// Name of the class: the synset if there is one, else the text.
    pub class: Option<&'a [u8]>,
}

/// Whether a file begins with the header of a record: its checksum is the magic number.
pub fn is_start(start: &[u8]) -> bool {
    start.first_chunk().and_then(length).is_some()
}

/// The length that a header states, if its checksum holds.
fn length(header: &[u8; 12]) -> Option<u64> {
    let (length, sum) = header.split_at(8);
    let length: [u8; 8] = length.try_into().ok()?;
    (masked(&length).to_le_bytes() == *sum).then_some(u64::from_le_bytes(length))
}

/// The checksum as TFRecord stores it.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

impl TfRecord {
    pub fn open(path: &Path) -> Result<TfRecord> {
        Ok(TfRecord { files: listing::files(path, "TFRecord", is_start)? })
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.files.iter().map(|f| f.path.clone())
    }

    /// Each file with its split.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        self.files.iter().map(|f| (f.split, f.path.as_path()))
    }

    /// The first file that can only be read from its start, with the command that unpacks it.
    pub fn compressed(&self) -> Result<Option<(&Path, &'static str)>> {
        for SplitFile { path, .. } in &self.files {
            if let Some(compression) = Compression::of(path)? {
                return Ok(Some((path, compression.unpacked_by())));
            }
        }
        Ok(None)
    }

    /// A unique name for an image: the name of its record, then its own.
    pub fn full_name(&self, item: &Item) -> String {
        let record = record_name(&self.files[item.position.file].path, item.position.at);
        match item.name == record {
            true => record,
            false => format!("{record}/{}", item.name),
        }
    }

    /// The fields that the first record has instead of labels.
    pub fn instead_of_labels(&self) -> Result<Option<Instead>> {
        let Some(SplitFile { path, .. }) = self.files.first() else {
            return Ok(None);
        };
        let mut stream = open_at(path, 0)?;
        let Next::Record { data: Ok(data), .. } = next(&mut stream).map_err(Error::io(path))?
        else {
            return Ok(None);
        };
        let mut names = Vec::new();
        let all = features(&data, &mut |name, _| {
            names.push(String::from_utf8_lossy(name).into_owned());
            Some(())
        });
        names.sort();
        Ok(all.map(|()| Instead {
            found: format!("no label, or -1 alone, among the features {}", names.join(", ")),
            like_labels: names.iter().any(|name| label::is_like(name)),
            hint: "write them as image/class/label or label; ",
        }))
    }

    /// All records are read in any case, to check them.
    pub fn walk(&self, from: Position, visit: Visit) -> Walked {
        for (nth, SplitFile { path, split }) in self.files.iter().enumerate().skip(from.file) {
            let mut at = from.start_in(nth);
            let mut stream = open_at(path, at)?;
            loop {
                let mut item = Item {
                    position: Position { file: nth, at },
                    split: *split,
                    name: record_name(path, at),
                    class: Class::Unknown,
                    size: 0,
                    image: Ok(Vec::new()),
                };
                let end = match next(&mut stream).map_err(Error::io(path))? {
                    Next::End => break,
                    Next::Record { size, data } => {
                        at += size;
                        fill(&mut item, data);
                        false
                    }
                    Next::Cut(found) => {
                        item.image = Err(Fault::Cut(found));
                        true
                    }
                };
                visit(item)?;
                if end {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn record_name(path: &Path, at: u64) -> String {
    format!("{}@{at}", path.file_name().unwrap_or_default().display())
}

/// A file from a position on.
fn open_at(path: &Path, at: u64) -> Result<Box<dyn Read + Send>> {
    if Compression::of(path)?.is_some() {
        let mut stream = stream::open(path)?;
        std::io::copy(&mut stream.by_ref().take(at), &mut std::io::sink())
            .map_err(Error::io(path))?;
        return Ok(stream);
    }
    let mut file = File::open(path).map_err(Error::io(path))?;
    file.seek(SeekFrom::Start(at)).map_err(Error::io(path))?;
    Ok(Box::new(BufReader::with_capacity(1 << 20, file)))
}

/// The next item in a stream of records.
enum Next {
    Record {
        /// All of it.
        size: u64,
        /// The data, or what is wrong with this record only.
        data: std::result::Result<Vec<u8>, String>,
    },
    End,
    /// The following records cannot be found.
    Cut(String),
}

/// Up to `size` bytes; fewer only at the end. The inner error: the decompressor's message.
fn take(
    stream: &mut dyn Read,
    size: usize,
) -> std::io::Result<std::result::Result<Vec<u8>, String>> {
    let mut bytes = stream::room_for(size as u64);
    match stream.take(size as u64).read_to_end(&mut bytes) {
        Ok(_) => Ok(Ok(bytes)),
        Err(e) if e.raw_os_error().is_some() => Err(e),
        Err(e) => Ok(Err(format!("damaged compression: {e}"))),
    }
}

fn next(stream: &mut dyn Read) -> std::io::Result<Next> {
    let cut = || Ok(Next::Cut("the file ends within a record".to_string()));
    let header = match take(stream, HEADER)? {
        Ok(header) if header.is_empty() => return Ok(Next::End),
        Ok(header) => header,
        Err(found) => return Ok(Next::Cut(found)),
    };
    let Some(header) = header.first_chunk::<HEADER>() else {
        return cut();
    };
    let Some(size) = length(header) else {
        return Ok(Next::Cut("a wrong checksum of a record's length".to_string()));
    };
    let all = size.saturating_add((HEADER + CHECKSUM) as u64);
    if size > MAX_IMAGE_BYTES {
        let rest = size.saturating_add(CHECKSUM as u64);
        let passed = std::io::copy(&mut stream.take(rest), &mut std::io::sink())?;
        let data = Err(format!("{size} bytes, more than {MAX_IMAGE_BYTES}"));
        return if passed < rest { cut() } else { Ok(Next::Record { size: all, data }) };
    }
    let mut data = match take(stream, size as usize + CHECKSUM)? {
        Ok(data) => data,
        Err(found) => return Ok(Next::Cut(found)),
    };
    if data.len() < size as usize + CHECKSUM {
        return cut();
    }
    let sum = data.split_off(size as usize);
    let data = match masked(&data).to_le_bytes() == sum[..] {
        true => Ok(data),
        false => Err("a record with a wrong checksum".to_string()),
    };
    Ok(Next::Record { size: all, data })
}

/// Sets an item from the content of its record.
fn fill(item: &mut Item, data: std::result::Result<Vec<u8>, String>) {
    let found = data.and_then(|data| {
        let example =
            example(&data).ok_or_else(|| "a record that is no tf.train.Example".to_string())?;
        if let Some(name) = example.filename.filter(|n| !n.is_empty()) {
            item.name = String::from_utf8_lossy(name).into_owned();
            if std::str::from_utf8(name).is_err() {
                return Err("a name that is not UTF-8".to_string());
            }
        }
        let name = example.class.filter(|n| !n.is_empty());
        let name = name.and_then(|n| String::from_utf8(n.to_vec()).ok());
        item.class = match example.label {
            None => Class::Unknown,
            Some(number) if example.from_zero => label::of_integer(number),
            Some(number) => match u64::try_from(number) {
                Ok(number) => Class::Counted(number, name),
                Err(_) => label::of_integer(number),
            },
        };
        let none = || "a record without image/encoded or image".to_string();
        let image = example.encoded.ok_or_else(none)?;
        item.size = image.len() as u64;
        Ok(image.to_vec())
    });
    item.image = found.map_err(Fault::Image);
}

/// Parses a `tf.train.Example`; `None` if the data is not one. Of the fields `Example { features: 1 }`,
/// `Features { map<string, Feature>: 1 }`, `Feature { bytes_list: 1, float_list: 2, int64_list: 3 }`, each
/// list `{ value: 1 }`.
pub fn example(data: &[u8]) -> Option<Example<'_>> {
    let mut example = Example::default();
    let (mut text, mut of_tfds) = (None, Example::default());
    features(data, &mut |name, value| {
        match name {
            b"image/encoded" => example.encoded = first_bytes(value)?,
            b"image/filename" => example.filename = first_bytes(value)?,
            b"image/class/label" => example.label = first_int(value)?,
            b"image/class/synset" => example.class = first_bytes(value)?,
            b"image/class/text" => text = first_bytes(value)?,
            b"image" => of_tfds.encoded = first_bytes(value)?,
            b"file_name" | b"filename" => of_tfds.filename = first_bytes(value)?,
            b"label" => of_tfds.label = first_int(value)?,
            _ => {}
        }
        Some(())
    })?;
    example.class = example.class.or(text);
    example.from_zero = example.label.is_none() && of_tfds.label.is_some();
    example.encoded = example.encoded.or(of_tfds.encoded);
    example.filename = example.filename.or(of_tfds.filename);
    example.label = example.label.or(of_tfds.label);
    Some(example)
}

/// Passes on name and value of each feature of an `Example`.
fn features<'a>(
    data: &'a [u8],
    visit: &mut dyn FnMut(&'a [u8], &'a [u8]) -> Option<()>,
) -> Option<()> {
    fields(data, &mut |number, features| {
        if number != 1 {
            return Some(());
        }
        fields(features.bytes()?, &mut |number, entry| {
            if number != 1 {
                return Some(());
            }
            let (mut key, mut value) = (&[][..], &[][..]);
            fields(entry.bytes()?, &mut |number, field| {
                match number {
                    1 => key = field.bytes()?,
                    2 => value = field.bytes()?,
                    _ => {}
                }
                Some(())
            })?;
            visit(key, value)
        })
    })
}

/// First value of a `Feature` that is a list of bytes.
fn first_bytes(feature: &[u8]) -> Option<Option<&[u8]>> {
    let mut first = None;
    fields(feature, &mut |number, list| {
        if number != 1 {
            return Some(());
        }
        fields(list.bytes()?, &mut |number, value| {
            if number == 1 && first.is_none() {
                first = Some(value.bytes()?);
            }
            Some(())
        })
    })?;
    Some(first)
}

/// First value of a `Feature` that is a list of int64, packed or not.
fn first_int(feature: &[u8]) -> Option<Option<i64>> {
    let mut first = None;
    fields(feature, &mut |number, list| {
        if number != 3 {
            return Some(());
        }
        fields(list.bytes()?, &mut |number, value| {
            if number == 1 && first.is_none() {
                first = match value {
                    Field::Varint(value) => Some(value as i64),
                    Field::Bytes([]) => None,
                    Field::Bytes(mut packed) => Some(varint(&mut packed)? as i64),
                    Field::Fixed => return None,
                };
            }
            Some(())
        })
    })?;
    Some(first)
}

/// A field of a protobuf message.
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of 4 or 8 bytes; unused here.
    Fixed,
}

impl<'a> Field<'a> {
    fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Passes on number and value of each field of a protobuf message.
fn fields<'a>(
    mut message: &'a [u8],
    visit: &mut dyn FnMut(u64, Field<'a>) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut message)?),
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            kind @ (1 | 5) => {
                message = message.get(if kind == 1 { 8 } else { 4 }..)?;
                Field::Fixed
            }
            _ => return None,
        };
        visit(tag >> 3, field)?;
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
