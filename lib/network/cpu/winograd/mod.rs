//! 3x3 convolutions with stride 1 by Winograd's minimal filtering (Lavin & Gray, arXiv 1509.09308): how
//! images are cut into patches, the passes over the patches, the transforms.
//!
//! F(2x2, 3x3): 16 multiplications instead of 36, for 2x2 outputs of a 4x4 patch. F(4x4, 3x3): 36 instead
//! of 144, for 4x4 outputs of a 6x6 patch. Forward and input gradient use the algorithm, the weight
//! gradient uses its adjoint.

mod form;
mod kernels;
mod patches;
mod transforms;

pub use patches::{PatchBuffers, Patches};
