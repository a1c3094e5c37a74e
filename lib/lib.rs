//! s4l: self-supervised semi-supervised image classification (S4L, arXiv 1905.03670) as a batch
//! pipeline of stage programs. `docs/ARCHITECTURE.md` is the map.

pub mod artifact;
pub mod audit;
pub mod augment;
pub mod cli;
pub mod decode;
pub mod error;
pub mod evaluate;
pub mod input;
pub mod inspect;
pub mod labelled;
pub mod lineage;
pub mod lock;
pub mod mapped;
pub mod markdown;
pub mod memory;
pub mod methods;
pub mod model;
pub mod network;
pub mod page;
pub mod part;
pub mod pixels;
pub mod plan;
pub mod ranks;
pub mod recipe;
pub mod report;
pub mod rng;
pub mod schema;
pub mod settings;
pub mod shards;
pub mod stages;
pub mod tables;
pub mod tasks;
pub mod train;
pub mod usage;
