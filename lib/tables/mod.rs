//! Parquet tables other than shards, and what keeps the stock reader of parquet in bounds.

pub mod contained;
mod hash;
pub mod pieces;
pub mod table;
mod thrift;
