//! The only place for labels: which images have one, and which one. A training stage takes its labels
//! through `rows`, from a table that is given to the stage, and never from the shards.
//!
//! - `rows`: the rows and labels in a table (`labelled.parquet`, `labels.parquet`)
//! - `list`: the rows in a published list of names
//! - `draw`: which images are labelled, and which are for validation
//! - `collapse`: whether pseudo labels are of a few classes only
//! - `duplicates`: images that occur twice, to the byte or nearly

pub mod collapse;
pub mod draw;
pub mod duplicates;
pub mod list;
pub mod rows;
