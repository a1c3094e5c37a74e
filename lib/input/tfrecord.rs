//! TFRecord files of `tf.train.Example` in the layout of slim and tensor2tensor: `image/encoded`,
//! `image/class/label` (counted from 1), `image/filename`, and `image/class/synset` or
//! `image/class/text` for the name of the class.
//!
//! A record is its length (u64), the masked CRC-32C of the length, the data, and the masked CRC-32C of
//! the data, all little-endian.

use super::item::{Class, Fault, Item, MAX_IMAGE_BYTES, Position, SplitName, Visit, Walked};
use super::listing::{self, SplitFile};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const HEADER: u64 = 12;
const CHECKSUM: u64 = 4;

#[derive(Debug)]
pub struct TfRecord {
    files: Vec<SplitFile>,
}

/// What is read of a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Example<'a> {
    pub encoded: Option<&'a [u8]>,
    pub filename: Option<&'a [u8]>,
    /// Counted from 1.
    pub label: Option<i64>,
    /// Name of the class: the synset before the text.
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
        Ok(TfRecord { files: listing::files(path, "Tfrecord", is_start)? })
    }

    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.files.iter().map(|f| f.path.clone())
    }

    /// Each file with its split.
    pub fn splits(&self) -> impl Iterator<Item = (SplitName, &Path)> {
        self.files.iter().map(|f| (f.split, f.path.as_path()))
    }

    /// All records are read in any case, to check them.
    pub fn walk(&self, from: Position, visit: Visit) -> Walked {
        for (nth, SplitFile { path, split }) in self.files.iter().enumerate().skip(from.file) {
            let mut at = from.start_in(nth);
            let mut file = File::open(path).map_err(Error::io(path))?;
            let size = file.metadata().map_err(Error::io(path))?.len();
            file.seek(SeekFrom::Start(at)).map_err(Error::io(path))?;
            let mut stream = BufReader::with_capacity(1 << 20, file);
            while at < size {
                let mut item = Item {
                    position: Position { file: nth, at },
                    split: *split,
                    name: format!("{}@{at}", path.file_name().unwrap_or_default().display()),
                    class: Class::Unknown,
                    size: 0,
                    image: Ok(Vec::new()),
                };
                match next(&mut stream, size - at).map_err(Error::io(path))? {
                    Ok(record) => {
                        at += HEADER + record.size + CHECKSUM;
                        fill(&mut item, record.data);
                    }
                    Err(found) => {
                        at = size;
                        item.image = Err(Fault::Cut(found));
                    }
                }
                visit(item)?;
            }
        }
        Ok(())
    }
}

struct Record {
    size: u64,
    /// The data, or what is wrong with it alone.
    data: std::result::Result<Vec<u8>, String>,
}

/// Reads one record of a stream that has `left` bytes. The inner error: nothing after it can be found.
fn next(
    stream: &mut BufReader<File>,
    left: u64,
) -> std::io::Result<std::result::Result<Record, String>> {
    if left < HEADER {
        return Ok(Err("the file ends within a record".to_string()));
    }
    let mut header = [0; HEADER as usize];
    stream.read_exact(&mut header)?;
    let Some(size) = length(&header) else {
        return Ok(Err("a wrong checksum of a record's length".to_string()));
    };
    if size > left - HEADER || left - HEADER - size < CHECKSUM {
        return Ok(Err("the file ends within a record".to_string()));
    }
    if size > MAX_IMAGE_BYTES {
        stream.seek_relative((size + CHECKSUM) as i64)?;
        let data = Err(format!("{size} bytes, more than {MAX_IMAGE_BYTES}"));
        return Ok(Ok(Record { size, data }));
    }
    let mut data = vec![0; size as usize];
    stream.read_exact(&mut data)?;
    let mut sum = [0; CHECKSUM as usize];
    stream.read_exact(&mut sum)?;
    let data = match masked(&data).to_le_bytes() == sum {
        true => Ok(data),
        false => Err("a record with a wrong checksum".to_string()),
    };
    Ok(Ok(Record { size, data }))
}

/// Puts into an item what its record holds.
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
        item.class = match example.label {
            None => Class::Unknown,
            Some(label @ 1..) => {
                let name = example.class.filter(|n| !n.is_empty());
                let name = name.and_then(|n| String::from_utf8(n.to_vec()).ok());
                Class::Index(label as u64 - 1, name)
            }
            Some(label) => Class::Bad(format!("label {label}, labels count from 1")),
        };
        let image = example.encoded.ok_or_else(|| "a record without image/encoded".to_string())?;
        item.size = image.len() as u64;
        Ok(image.to_vec())
    });
    item.image = found.map_err(Fault::Image);
}
/// Parses a `tf.train.Example`; `None` if the data is none. Of the fields
/// `Example { features: 1 }`, `Features { map<string, Feature>: 1 }`, `Feature { bytes_list: 1,
/// float_list: 2, int64_list: 3 }`, each list `{ value: 1 }`.
pub fn example(data: &[u8]) -> Option<Example<'_>> {
    let mut example = Example::default();
    let mut text = None;
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
            match key {
                b"image/encoded" => example.encoded = first_bytes(value)?,
                b"image/filename" => example.filename = first_bytes(value)?,
                b"image/class/label" => example.label = first_int(value)?,
                b"image/class/synset" => example.class = first_bytes(value)?,
                b"image/class/text" => text = first_bytes(value)?,
                _ => {}
            }
            Some(())
        })
    })?;
    example.class = example.class.or(text);
    Some(example)
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
    /// Of 4 or 8 bytes, which nothing here has.
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

/// Hands out number and value of each field of a protobuf message.
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
