//! `meta.mat` of the ILSVRC-2012 devkit: the synset of each class number. A MATLAB 5 file with one struct
//! array `synsets`, of which the fields ILSVRC2012_ID, WNID and num_children are read.

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// The devkit's file has 0.5 MB.
const MAX_BYTES: u64 = 64 << 20;

const INT8: u32 = 1;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const STRUCT: u8 = 2;

/// Number of the class, from 1 → WordNet id, for the classes without subclasses.
///
/// Errors: `Missing` if the file is absent, `BadData` if it has other content.
pub fn read(path: &Path) -> Result<BTreeMap<u64, String>> {
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::missing(
            path,
            "file",
            "the numbers of the ground truth need meta.mat of the devkit beside it",
        ),
        _ => Error::io(path)(e),
    })?;
    synsets(&bytes).filter(|s| !s.is_empty()).ok_or_else(|| {
        Error::bad_data(
            path,
            "the struct synsets of the ILSVRC-2012 devkit",
            "something else",
            "copy it again from the devkit",
        )
    })
}

/// `read` for the bytes of the file; `None` if they have no such struct.
pub fn synsets(bytes: &[u8]) -> Option<BTreeMap<u64, String>> {
    const HEADER: usize = 128;
    let mut rest = bytes.get(HEADER..)?;
    let inflated;
    let mut element = take(&mut rest)?;
    if element.kind == COMPRESSED {
        let mut bytes = Vec::new();
        let decoder = flate2::read::ZlibDecoder::new(element.data);
        decoder.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        inflated = bytes;
        element = take(&mut &inflated[..])?;
    }
    let mut body = element.matrix(STRUCT)?;
    let name_length = take(&mut body)?.number()? as usize;
    let names = take(&mut body)?;
    if names.kind != INT8 || name_length == 0 {
        return None;
    }
    let names: Vec<&[u8]> = names
        .data
        .chunks(name_length)
        .map(|n| n.split(|&b| b == 0).next().unwrap_or_default())
        .collect();
    let place = |name: &[u8]| names.iter().position(|n| *n == name);
    let (id, synset) = (place(b"ILSVRC2012_ID")?, place(b"WNID")?);
    let children = place(b"num_children")?;

    let mut found = BTreeMap::new();
    while !body.is_empty() {
        let row = (0..names.len()).map(|_| take(&mut body)).collect::<Option<Vec<_>>>()?;
        if row[children].value()?.number()? == 0.0 {
            let name = row[synset].value()?.text()?;
            found.insert(row[id].value()?.number()? as u64, name);
        }
    }
    Some(found)
}

/// A tagged piece of the file, a "data element" in MATLAB's words.
#[derive(Clone, Copy)]
struct DataElement<'a> {
    kind: u32,
    data: &'a [u8],
}

/// Splits off the first element.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<DataElement<'a>> {
    let (tag, rest) = bytes.split_first_chunk::<4>()?;
    let tag = u32::from_le_bytes(*tag);
    // A small element has its size in the tag and its data in the four bytes after.
    if tag >> 16 != 0 {
        let (data, rest) = rest.split_at_checked(4)?;
        *bytes = rest;
        return Some(DataElement { kind: tag & 0xffff, data: data.get(..(tag >> 16) as usize)? });
    }
    let (size, rest) = rest.split_first_chunk::<4>()?;
    let size = u32::from_le_bytes(*size) as usize;
    let (data, rest) = rest.split_at_checked(size)?;
    // Padded to 8 bytes, unless compressed.
    let padding = match tag {
        COMPRESSED => 0,
        _ => size.next_multiple_of(8) - size,
    };
    *bytes = rest.get(padding..).unwrap_or_default();
    Some(DataElement { kind: tag, data })
}

impl<'a> DataElement<'a> {
    /// The data after flags, dimensions and name of a matrix of this class.
    fn matrix(self, class: u8) -> Option<&'a [u8]> {
        let (found, body) = self.header()?;
        (found == class).then_some(body)
    }

    fn header(self) -> Option<(u8, &'a [u8])> {
        let mut body = self.data;
        let flags = take(&mut body)?;
        let (_dimensions, _name) = (take(&mut body)?, take(&mut body)?);
        (self.kind == MATRIX).then_some((*flags.data.first()?, body))
    }

    /// The values of a matrix of numbers or characters.
    fn value(self) -> Option<DataElement<'a>> {
        let (_, mut body) = self.header()?;
        take(&mut body)
    }

    /// The first number.
    fn number(self) -> Option<f64> {
        let d = self.data;
        Some(match self.kind {
            1 => f64::from(*d.first()? as i8),
            2 => f64::from(*d.first()?),
            3 => f64::from(i16::from_le_bytes(*d.first_chunk()?)),
            4 => f64::from(u16::from_le_bytes(*d.first_chunk()?)),
            5 => f64::from(i32::from_le_bytes(*d.first_chunk()?)),
            6 => f64::from(u32::from_le_bytes(*d.first_chunk()?)),
            9 => f64::from_le_bytes(*d.first_chunk()?),
            _ => return None,
        })
    }

    /// Characters of one or two bytes each, or UTF-8.
    fn text(self) -> Option<String> {
        match self.kind {
            1 | 2 | 16 => String::from_utf8(self.data.to_vec()).ok(),
            4 | 17 => {
                let units = self.data.chunks_exact(2);
                let units: Vec<u16> = units.map(|u| u16::from_le_bytes([u[0], u[1]])).collect();
                String::from_utf16(&units).ok()
            }
            _ => None,
        }
    }
}
