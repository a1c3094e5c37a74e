//! Checks the headers of parquet, structs in thrift's compact protocol, before the parquet reader parses
//! them: everything that a header claims must exist, and each field must have the type that the reader
//! assumes. The reader does not check the type of a field that it knows, so it would read other fields than
//! those checked here. It skips a list of booleans without one byte per element. In a page header it skips
//! past the end of the file.

use FieldType::{Byte, Double, Int, List, Noted, Struct, Text, Truth};
use parquet::errors::ParquetError;
use std::io::Read;

/// The claims of a page header (parquet.thrift): bytes of the page, its bytes in the file, values of a
/// dictionary. 0 if the header does not say.
#[derive(Debug, Default)]
pub struct PageClaims {
    pub uncompressed: i64,
    pub compressed: i64,
    pub dictionary: i64,
}

/// Checks a page header.
pub fn page_header(bytes: &mut impl Read) -> Result<PageClaims, ParquetError> {
    let mut walk = HeaderWalk {
        // A page header has no lists.
        elements: 0,
        page: PageClaims::default(),
    };
    walk.fields(bytes, PAGE, MAX_DEPTH)?;
    Ok(walk.page)
}

/// Checks a footer.
pub fn footer(bytes: &[u8]) -> Result<(), ParquetError> {
    whole(bytes, FILE)
}

/// Checks the offset index of a column chunk.
pub fn offset_index(bytes: &[u8]) -> Result<(), ParquetError> {
    whole(bytes, OFFSET_INDEX)
}

fn whole(mut bytes: &[u8], fields: Fields) -> Result<(), ParquetError> {
    let mut walk = HeaderWalk {
        // Each element has at least one byte.
        elements: bytes.len() as u64,
        page: PageClaims::default(),
    };
    walk.fields(&mut bytes, fields, MAX_DEPTH)
}

fn broken(found: &str) -> ParquetError {
    ParquetError::General(format!("{found} in a header"))
}

/// The type that the reader assumes for a field.
#[derive(Clone, Copy)]
enum FieldType {
    /// Of any size; also the numbers of an enum.
    Int,
    /// An `Int` that is returned.
    Noted(fn(&mut PageClaims) -> &mut i64),
    Byte,
    Double,
    Text,
    Truth,
    Struct(Fields),
    List(&'static FieldType),
}

/// The fields of a struct that the reader knows, with their numbers.
type Fields = &'static [(i16, FieldType)];

const EMPTY: FieldType = Struct(&[]);

const PAGE: Fields = &[
    (1, Int),
    (2, Noted(|page| &mut page.uncompressed)),
    (3, Noted(|page| &mut page.compressed)),
    (4, Int),
    (5, Struct(DATA_PAGE)),
    (6, EMPTY),
    (7, Struct(DICTIONARY_PAGE)),
    (8, Struct(DATA_PAGE_V2)),
];
const DATA_PAGE: Fields = &[(1, Int), (2, Int), (3, Int), (4, Int), (5, Struct(STATISTICS))];
const DICTIONARY_PAGE: Fields = &[(1, Noted(|page| &mut page.dictionary)), (2, Int), (3, Truth)];
const DATA_PAGE_V2: Fields = &[
    (1, Int),
    (2, Int),
    (3, Int),
    (4, Int),
    (5, Int),
    (6, Int),
    (7, Truth),
    (8, Struct(STATISTICS)),
];
const STATISTICS: Fields = &[
    (1, Text),
    (2, Text),
    (3, Int),
    (4, Int),
    (5, Text),
    (6, Text),
    (7, Truth),
    (8, Truth),
    (9, Int),
];
const OFFSET_INDEX: Fields = &[(1, List(&Struct(PAGE_LOCATION))), (2, List(&Int))];
const PAGE_LOCATION: Fields = &[(1, Int), (2, Int), (3, Int)];
const FILE: Fields = &[
    (1, Int),
    (2, List(&Struct(SCHEMA_ELEMENT))),
    (3, Int),
    (4, List(&Struct(ROW_GROUP))),
    (5, List(&Struct(KEY_VALUE))),
    (6, Text),
    (7, List(&Struct(COLUMN_ORDER))),
];
const SCHEMA_ELEMENT: Fields = &[
    (1, Int),
    (2, Int),
    (3, Int),
    (4, Text),
    (5, Int),
    (6, Int),
    (7, Int),
    (8, Int),
    (9, Int),
    (10, Struct(LOGICAL_TYPE)),
];
const LOGICAL_TYPE: Fields = &[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Struct(&[(1, Int), (2, Int)])),
    (6, EMPTY),
    (7, Struct(TIME)),
    (8, Struct(TIME)),
    (10, Struct(&[(1, Byte), (2, Truth)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Struct(&[(1, Byte)])),
    (17, Struct(&[(1, Text)])),
    (18, Struct(&[(1, Text), (2, Int)])),
    (19, EMPTY),
];
const TIME: Fields = &[(1, Truth), (2, Struct(TIME_UNIT))];
const TIME_UNIT: Fields = &[(1, EMPTY), (2, EMPTY), (3, EMPTY)];
const ROW_GROUP: Fields = &[
    (1, List(&Struct(COLUMN_CHUNK))),
    (2, Int),
    (3, Int),
    (4, List(&Struct(&[(1, Int), (2, Truth), (3, Truth)]))),
    (5, Int),
    (7, Int),
];
const COLUMN_CHUNK: Fields =
    &[(1, Text), (2, Int), (3, Struct(COLUMN)), (4, Int), (5, Int), (6, Int), (7, Int)];
const COLUMN: Fields = &[
    (1, Int),
    (2, List(&Int)),
    (4, Int),
    (5, Int),
    (6, Int),
    (7, Int),
    (9, Int),
    (10, Int),
    (11, Int),
    (12, Struct(STATISTICS)),
    (13, List(&Struct(&[(1, Int), (2, Int), (3, Int)]))),
    (14, Int),
    (15, Int),
    (16, Struct(&[(1, Int), (2, List(&Int)), (3, List(&Int))])),
    (17, Struct(&[(1, Struct(BOUNDING_BOX)), (2, List(&Int))])),
];
const BOUNDING_BOX: Fields = &[
    (1, Double),
    (2, Double),
    (3, Double),
    (4, Double),
    (5, Double),
    (6, Double),
    (7, Double),
    (8, Double),
];
const KEY_VALUE: Fields = &[(1, Text), (2, Text)];
const COLUMN_ORDER: Fields = TIME_UNIT;

/// Most levels of nested structs: a footer has about ten.
const MAX_DEPTH: usize = 16;

struct HeaderWalk {
    /// Elements that lists may still have, in total.
    elements: u64,
    page: PageClaims,
}

impl HeaderWalk {
    /// Reads the fields of a struct.
    fn fields(
        &mut self,
        bytes: &mut impl Read,
        known: Fields,
        depth: usize,
    ) -> Result<(), ParquetError> {
        let mut number = 0i16;
        loop {
            let head = byte(bytes)?;
            if head == 0 {
                return Ok(());
            }
            number = match i16::from(head >> 4) {
                0 => int(bytes)? as i16,
                more => number.wrapping_add(more),
            };
            if number < 1 {
                return Err(broken("a field without a number"));
            }
            let kind = known.iter().find(|(of, _)| *of == number);
            match (head & 0xf, kind.map(|(_, kind)| *kind)) {
                // A boolean, whose value is in its type.
                (1 | 2, None | Some(Truth)) => {}
                (_, Some(Truth)) => return Err(broken("a field of another type")),
                (code, kind) => self.value(bytes, code, kind, depth)?,
            }
        }
    }

    /// Reads a value of the type `code`, which must be a type of `kind`.
    fn value(
        &mut self,
        bytes: &mut impl Read,
        code: u8,
        kind: Option<FieldType>,
        depth: usize,
    ) -> Result<(), ParquetError> {
        match (code, kind) {
            (3, None | Some(Byte)) => {
                byte(bytes)?;
            }
            (4..=6, None | Some(Int)) => {
                int(bytes)?;
            }
            // Like the reader, which keeps the bits that fit.
            (4..=6, Some(Noted(place))) => *place(&mut self.page) = (int(bytes)? as i32).into(),
            (7, None | Some(Double)) => skip(bytes, 8)?,
            (8, None | Some(Text)) => {
                let length = varint(bytes)?;
                skip(bytes, length)?;
            }
            (9 | 10, None | Some(List(_))) if depth > 1 => {
                let head = byte(bytes)?;
                let size = match head >> 4 {
                    15 => varint(bytes)?,
                    size => size.into(),
                };
                let left = self.elements.checked_sub(size);
                self.elements =
                    left.ok_or_else(|| broken("a list with more elements than bytes"))?;
                let kind = match kind {
                    Some(List(of)) => Some(*of),
                    _ => None,
                };
                // No field that is read is a list of booleans, and the reader and the protocol disagree
                // about the size of one.
                for _ in 0..size {
                    self.value(bytes, head & 0xf, kind, depth - 1)?;
                }
            }
            (12, None) if depth > 1 => self.fields(bytes, &[], depth - 1)?,
            (12, Some(Struct(known))) if depth > 1 => self.fields(bytes, known, depth - 1)?,
            (other, None) => return Err(broken(&format!("a field of type {other}"))),
            (_, Some(_)) => return Err(broken("a field of another type")),
        }
        Ok(())
    }
}

fn skip(bytes: &mut impl Read, length: u64) -> Result<(), ParquetError> {
    let found = std::io::copy(&mut bytes.take(length), &mut std::io::sink())?;
    match found < length {
        true => Err(broken("a text beyond the end")),
        false => Ok(()),
    }
}

/// A zigzag number: 0, -1, 1, -2 and so on.
fn int(bytes: &mut impl Read) -> std::io::Result<i64> {
    let value = varint(bytes)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn byte(bytes: &mut impl Read) -> std::io::Result<u8> {
    let mut byte = [0];
    bytes.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn varint(bytes: &mut impl Read) -> std::io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(std::io::ErrorKind::InvalidData.into())
}
