//! Parquet tables other than shards, and the checks that keep the stock parquet reader in bounds.

pub mod contained;
mod hash;
pub mod pieces;
pub mod table;
mod thrift;
