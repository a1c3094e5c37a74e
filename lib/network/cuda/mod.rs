//! The engine on a GPU. Weights, gradient, velocity, averages and moving statistics stay in its memory; the host
//! sees logits. Activations are NHWC in float32 or bfloat16, and only outputs of convolutions are stored.
//!
//! Reading order: `engine` (the implementation of the `Engine` trait); `trunk`, `tangent` and `back` (the order of a pass),
//! `heads`; `layers`; where values are: `vectors`, `room`, `buffer`; `launches`, `kernels` and the kernels'
//! sources, `kernels/*.cu`; `runtime`, the seam to the machine. The machine is a `device`, with its `libraries`:
//! kernels by `compile`; convolutions by `plans`, `graph` and `descriptor`; heads by `multiply`; copies by
//! `staging`; errors by `status`. Letters of shapes are those of the CPU engine.

mod back;
mod buffer;
pub mod compile;
mod descriptor;
pub mod device;
mod engine;
pub mod graph;
mod heads;
pub mod kernels;
pub mod launches;
mod layers;
pub mod libraries;
mod multiply;
pub mod plans;
mod room;
pub mod runtime;
mod staging;
mod status;
mod tangent;
mod trunk;
mod vectors;

pub use engine::{engine, training_bytes};
