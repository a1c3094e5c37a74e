//! The engine's own kernels: their names and sources. What each one does and takes stands in the sources,
//! `kernels/*.cu`.

/// Threads of every block. `THREADS` of gpu.h.
pub const THREADS: usize = 256;

/// Values that a thread takes at once, 16 bytes in bfloat16. `LANE` of gpu.h.
pub const LANE: usize = 8;

/// A file of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Norm,
    Pool,
    Images,
    Weights,
}

impl Source {
    pub const ALL: [Source; 4] = [Source::Norm, Source::Pool, Source::Images, Source::Weights];

    /// The program, whole: in C, without includes. Define `S4L_BF16` to have values stored in bfloat16.
    pub fn text(self) -> String {
        let parts: &[&str] = match self {
            Source::Norm => {
                &[include_str!("kernels/norm.cu"), include_str!("kernels/norm_back.cu")]
            }
            Source::Pool => &[include_str!("kernels/pool.cu")],
            Source::Images => &[include_str!("kernels/images.cu")],
            Source::Weights => &[include_str!("kernels/weights.cu")],
        };
        [&[include_str!("kernels/gpu.h")], parts].concat().concat()
    }
}

/// A kernel of one of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    BnStats,
    AddStats,
    BnFinish,
    BnMoving,
    BnRelu,
    BnBackSums,
    BnBackFinish,
    BnBackApply,
    BnTangent,
    MaxPool,
    MaxPoolBack,
    MaxPoolTangent,
    MeanPixels,
    MeanPixelsBack,
    MeanTangents,
    ImagesIn,
    ImagesOut,
    MoveImages,
    WeightsIn,
    GradientIn,
    SgdPolyak,
}

impl Kernel {
    pub const ALL: [Kernel; 21] = [
        Kernel::BnStats,
        Kernel::AddStats,
        Kernel::BnFinish,
        Kernel::BnMoving,
        Kernel::BnRelu,
        Kernel::BnBackSums,
        Kernel::BnBackFinish,
        Kernel::BnBackApply,
        Kernel::BnTangent,
        Kernel::MaxPool,
        Kernel::MaxPoolBack,
        Kernel::MaxPoolTangent,
        Kernel::MeanPixels,
        Kernel::MeanPixelsBack,
        Kernel::MeanTangents,
        Kernel::ImagesIn,
        Kernel::ImagesOut,
        Kernel::MoveImages,
        Kernel::WeightsIn,
        Kernel::GradientIn,
        Kernel::SgdPolyak,
    ];

    /// Its name in its source, and the source.
    pub fn place(self) -> (&'static str, Source) {
        match self {
            Kernel::BnStats => ("bn_stats", Source::Norm),
            Kernel::AddStats => ("add_stats", Source::Norm),
            Kernel::BnFinish => ("bn_finish", Source::Norm),
            Kernel::BnMoving => ("bn_moving", Source::Norm),
            Kernel::BnRelu => ("bn_relu", Source::Norm),
            Kernel::BnBackSums => ("bn_back_sums", Source::Norm),
            Kernel::BnBackFinish => ("bn_back_finish", Source::Norm),
            Kernel::BnBackApply => ("bn_back_apply", Source::Norm),
            Kernel::BnTangent => ("bn_tangent", Source::Norm),
            Kernel::MaxPool => ("max_pool", Source::Pool),
            Kernel::MaxPoolBack => ("max_pool_back", Source::Pool),
            Kernel::MaxPoolTangent => ("max_pool_tangent", Source::Pool),
            Kernel::MeanPixels => ("mean_pixels", Source::Pool),
            Kernel::MeanPixelsBack => ("mean_pixels_back", Source::Pool),
            Kernel::MeanTangents => ("mean_tangents", Source::Norm),
            Kernel::ImagesIn => ("images_in", Source::Images),
            Kernel::ImagesOut => ("images_out", Source::Images),
            Kernel::MoveImages => ("move_images", Source::Images),
            Kernel::WeightsIn => ("weights_in", Source::Weights),
            Kernel::GradientIn => ("gradient_in", Source::Weights),
            Kernel::SgdPolyak => ("sgd_polyak", Source::Weights),
        }
    }
}
