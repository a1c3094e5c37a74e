//! The stage programs, one file a binary.

pub mod shard;
pub mod subset;
