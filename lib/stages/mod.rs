//! The stage programs, one file per binary, each in the same order: examples, `Args`, `run`, its steps.
//! A stage is what its command line says and the order of its steps; no stage imports another.

pub mod eval;
pub mod export;
pub mod init;
pub mod inspect;
pub mod moam;
pub mod predict;
pub mod pretrain;
pub mod pseudolabel;
pub mod report;
pub mod shard;
pub mod subset;
