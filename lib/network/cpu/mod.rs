//! The fast engine on the CPU: whole-network forward and backward in NHWC over one preallocated arena.
//! Batch norm and ReLU are fused into the convolutions; only the convolutions' outputs are stored.
//!
//! Reading order: `engine` (the implementation of the `Engine` trait), `trunk` (the order of a pass), its `tangent`
//! and `inference`; `layers`; where the values are stored: `arena`, and `buffers` above this folder; convolutions over
//! tiles: `conv`, `backward`, their tables `tiling`, `geometry`, `tile`, `packing`, and `winograd`; `norm` and
//! `pool`; the kernels: `convolve`, `products`, `elementwise`; below them `multiply`, `registers`,
//! `element`, `isa`; the threads: `split`, `workers`, `shared`.
//!
//! Letters of shapes: n images of h x w pixels (oh x ow of an output) of c channels (ci in, co out); a
//! kernel of k x k with stride s; y0 goes into the first bottleneck unit, z1, z2 and y come out of its
//! three convolutions; g is the gradient of an output.

mod arena;
mod backward;
mod conv;
mod convolve;
mod element;
mod elementwise;
mod engine;
mod geometry;
mod inference;
mod isa;
mod layers;
mod multiply;
mod norm;
mod packing;
mod pool;
mod products;
mod registers;
mod shared;
mod split;
mod tangent;
mod tile;
mod tiling;
mod trunk;
mod winograd;
mod workers;

pub use engine::{engine, training_bytes};
pub use isa::Isa;
pub use layers::is_addressable;
