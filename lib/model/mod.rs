//! Models on disk.

pub mod card;
pub mod config;
pub mod folder;
pub mod metrics;
pub mod tensors;
pub mod timm;
