//! s4l: self-supervised semi-supervised image classification (S4L, arXiv 1905.03670) as a batch
//! pipeline of stage programs. `docs/ARCHITECTURE.md` is the map.

pub mod artifact;
pub mod augment;
pub mod cli;
pub mod error;
pub mod input;
pub mod recipe;
pub mod rng;
pub mod schema;
pub mod shards;
pub mod stages;
pub mod table;
pub mod plan;
pub mod network;
