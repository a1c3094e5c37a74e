//! How evaluation prepares an image, described so that other programs can do the same.

use super::pipe::Pipe;
use super::step::{Crop, Op};
use crate::error::{Error, Result};
use crate::pixels::Size;

/// A step on the way to the first view of an image, which draws nothing. All but `Range` and
/// `Standardize` leave values in 0..255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    /// The window of `crop::central`.
    Crop(Size),
    /// The window of `crop::central_fraction`.
    CropFraction,
    /// By `Interpolation::LegacyBilinear`. `reduced`: from a JPEG that may have been decoded smaller.
    Resize { size: Size, reduced: bool },
    /// To the size of `resize::smaller_side`, by `Interpolation::Area`.
    ResizeSmall(usize),
    /// `color::value_range`.
    Range { min: f32, max: f32 },
    /// `color::to_gray`.
    Gray,
    /// `color::standardize`.
    Standardize,
}

impl Pipe {
    /// What becomes of the first view of an image, by a pipe of evaluation.
    ///
    /// Errors: `Recipe` for a step that draws at random in evaluation too.
    pub fn first_view(&self) -> Result<Vec<Act>> {
        let mut acts = Vec::new();
        for step in self.steps() {
            match step.op {
                Op::Crop(Crop::Central(part)) | Op::MultiCrop(part) => acts.push(Act::Crop(part)),
                Op::InceptionPreprocess { size, .. } => acts.extend([
                    Act::CropFraction,
                    Act::Resize { size, reduced: false },
                    Act::Range { min: -1.0, max: 1.0 },
                ]),
                Op::Resize { size, dct_scaling, .. } => {
                    acts.push(Act::Resize { size, reduced: dct_scaling });
                }
                Op::ResizeSmall(side) => acts.push(Act::ResizeSmall(side)),
                Op::ValueRange { min, max } => acts.push(Act::Range { min, max }),
                Op::ToGray { probability: 1.0 } => acts.push(Act::Gray),
                Op::Standardize => acts.push(Act::Standardize),
                // The first view is that which is not turned.
                Op::Rotate | Op::FlipLr => {}
                Op::ToGray { probability: 0.0 } => {}
                Op::Crop(Crop::Inception | Crop::Random(_))
                | Op::InceptionPatches { .. }
                | Op::RandAugment { .. }
                | Op::Cutout { .. }
                | Op::HsvNoise
                | Op::ToGray { .. } => {
                    return Err(Error::Recipe {
                        recipe: step.pipe.to_string(),
                        what: format!("step {} draws at random in evaluation too", step.text),
                        hint: "an export needs an augment_eval that draws nothing".to_string(),
                    });
                }
            }
        }
        Ok(acts)
    }
}
