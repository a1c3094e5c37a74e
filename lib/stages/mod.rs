//! The stage programs, one file a binary.

pub mod eval;
pub mod export;
pub mod inspect;
pub mod moam;
pub mod pretrain;
pub mod pseudolabel;
pub mod report;
pub mod shard;
pub mod subset;
