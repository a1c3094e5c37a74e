//! The training stages: settings, methods, the trunk, and runs that are stopped or fail.

#[path = "../common/mod.rs"]
mod common;

mod gpu;
mod gpu_errors;
mod gpu_kernels;
mod gpu_methods;
mod gpu_products;
mod losses;
mod memory;
mod methods;
mod model_input;
mod ranks;
mod resume;
mod settings;
mod training;
mod training_input;
mod transfer;
mod trunk;
mod watch;
