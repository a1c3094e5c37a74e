//! Everything that may know a label: which images have one, and which. A training stage takes its
//! labels through `rows`, from a table that it is given, and never from the shards.
//!
//! - `rows`: the rows and labels that a table (`labelled.parquet`, `labels.parquet`) names
//! - `list`: the rows that a published list of names names
//! - `draw`: which images are labelled, and which are validated on
//! - `collapse`: whether pseudo labels are of a few classes only
//! - `duplicates`: images that stand twice, to the byte or nearly

pub mod collapse;
pub mod draw;
pub mod duplicates;
pub mod list;
pub mod rows;
