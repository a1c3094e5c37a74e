//! s4l: self-supervised semi-supervised image classification (S4L, arXiv 1905.03670) as a batch
//! pipeline of stage programs. `docs/ARCHITECTURE.md` is the map.

pub mod artifact;
pub mod augment;
pub mod checkpoint;
pub mod cli;
pub mod contained;
pub mod decode;
pub mod duplicates;
pub mod error;
pub mod evaluate;
pub mod input;
pub mod inspect;
pub mod label_list;
pub mod loader;
pub mod methods;
pub mod metrics;
pub mod model;
pub mod model_card;
pub mod network;
pub mod optimizer;
pub mod plan;
pub mod prepare;
pub mod recipe;
pub mod report;
pub mod rng;
pub mod schema;
pub mod shards;
pub mod stages;
pub mod table;
pub mod tfevents;
mod thrift;
pub mod timm;
pub mod trainer;
