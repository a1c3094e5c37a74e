//! Models on disk: the files of a model folder, and the formats of other libraries, one file each.

pub mod card;
pub mod config;
pub mod folder;
pub mod metrics;
pub mod tensors;
pub mod timm;
