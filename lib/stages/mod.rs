//! The stage programs, one file a binary.

pub mod eval;
//INS
pub mod moam;
pub mod pretrain;
pub mod pseudolabel;
//REP
pub mod shard;
pub mod subset;
