//! What every format yields: the images one by one, each with its split, its class and its position.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// A larger image file is a reject and is never read into memory.
pub const MAX_IMAGE_BYTES: u64 = 256 << 20;

/// The split of a data set that an image belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SplitName {
    Train,
    Val,
    Test,
}

impl SplitName {
    pub fn name(self) -> &'static str {
        match self {
            SplitName::Train => "train",
            SplitName::Val => "val",
            SplitName::Test => "test",
        }
    }
}

/// A place in the input: the number of a file of it, and a byte or row in that file, as the format
/// counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub file: usize,
    pub at: u64,
}

impl Position {
    /// The start, in this file or a later one, of a walk that begins at this position.
    pub fn start_in(self, file: usize) -> u64 {
        if file == self.file { self.at } else { 0 }
    }
}

/// What an input says about the class of an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Class {
    Unknown,
    /// The folder that the image is in.
    Folder(String),
    Name(String),
    /// Counted from 0, with its name if the input has one.
    Index(u64, Option<String>),
    /// Counted from 1, or from 0 if the input has a 0; with its name if the input has one.
    Counted(u64, Option<String>),
    /// Not a class: what was found.
    Bad(String),
}

impl Class {
    /// Whether it is a label that the input gives the image, be it a wrong one.
    pub fn is_label(&self) -> bool {
        !matches!(self, Class::Unknown | Class::Folder(_))
    }

    /// The name of a class that has only a name.
    pub fn name(&self) -> Option<&String> {
        match self {
            Class::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// One image of an input.
#[derive(Debug)]
pub struct Item {
    /// The position from which a walk begins with this item. Several items may share one.
    pub position: Position,
    pub split: SplitName,
    /// Path in the input, with slashes; its last part is the base name.
    pub name: String,
    pub class: Class,
    /// Bytes of the image, an estimate if they are not known before they are read.
    pub size: u64,
    /// The image's bytes, empty if the walk does not read them.
    pub image: std::result::Result<Vec<u8>, Fault>,
}

/// What an input without labels has instead.
#[derive(Debug)]
pub struct Instead {
    /// What there is, for people.
    pub found: String,
    /// Whether it seems to hold labels.
    pub like_labels: bool,
    /// What finds them, if they are elsewhere.
    pub hint: &'static str,
}

/// Why an item is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This image is damaged.
    Image(String),
    /// The file ends or is damaged here; the rest is unknown.
    Cut(String),
}

/// What a walk through an input does with each item.
pub type Visit<'a> = &'a mut dyn FnMut(Item) -> Walked;

/// How a walk ends: after the last item, or before it.
pub type Walked = std::result::Result<(), Stop>;

/// Why a walk ends before the last item.
#[derive(Debug)]
pub enum Stop {
    /// The visitor has all that it wants.
    Enough,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl Stop {
    /// A stop is no error.
    pub fn result(walked: Walked) -> Result<()> {
        match walked {
            Ok(()) | Err(Stop::Enough) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}
