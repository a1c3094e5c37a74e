//! Models on disk: the files of a model folder, and the formats of other libraries, one file per format.

pub mod card;
pub mod config;
pub mod export_card;
pub mod folder;
pub mod metrics;
pub mod onnx;
pub mod tensors;
pub mod timm;
mod timm_preparation;
