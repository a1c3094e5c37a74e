//! s4l: self-supervised semi-supervised image classification (S4L, arXiv 1905.03670) as a batch
//! pipeline of stage programs. `docs/ARCHITECTURE.md` is the map.

pub mod artifact;
pub mod cli;
pub mod error;
pub mod inspect;
pub mod metrics;
pub mod plan;
pub mod recipe;
pub mod report;
pub mod rng;
pub mod schema;
pub mod stages;
pub mod table;
pub mod tfevents;
