//! Everything that may know a label: which images have one, and which.

pub mod draw;
pub mod duplicates;
pub mod list;
pub mod rows;
