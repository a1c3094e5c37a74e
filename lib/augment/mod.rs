//! Image augmentation from a pipe string such as
//! `inception_crop|resize(28)|flip_lr|-1_to_1|rotate`: what pipes are made of and how they run.
//!
//! A pipe takes one image and gives one or more views of it, all f32. Pixels enter as 0..255 and
//! stay in that range until a step maps them elsewhere. Random steps act in training only, except
//! `hsvnoise`, `to_gray` and `crop_inception_patches`, which know no mode, as in the reference
//! (S4L, preprocess.py).
//!
//! | step | what it does |
//! |---|---|
//! | `inception_crop` | random window by [`crop::inception`]; evaluation: the full image |
//! | `crop(h[,w])` | random window; evaluation: the central one |
//! | `central_crop(h[,w])` | the central window |
//! | `multi_crop(h[,w])` | five views: centre and the corners, [`crop::multi`] |
//! | `crop_inception_patches(n,h[,w])` | n views: an inception crop each, resized |
//! | `resize(h[,w])` | [`resize::Interpolation::LegacyBilinear`]; with the argument `randomize_method`, in training, one of the three aligned methods, one draw for all views; with `dct_scaling`, from a JPEG decoded at 1/2, 1/4 or 1/8 of its size if that is large enough: faster, and other pixels than the reference's |
//! | `resize_small(s)` | smaller side to s, [`resize::Interpolation::Area`] |
//! | `flip_lr` | mirrored with probability 1/2; evaluation: nothing |
//! | `randaugment(n)` | [`randaugment::randaugment`], n transformations; evaluation: nothing |
//! | `cutout(s)` | [`randaugment::random_cutout`], a square of s pixels; evaluation: nothing |
//! | `rotate` | four views: turned by 0, 90, 180, 270 degrees counter-clockwise |
//! | `hsvnoise` | [`color::HsvNoise`] |
//! | `inception_preprocess(h[,w])` | crop, resize, flip, [`color::InceptionColor`]; evaluation: central 87.5%, resized; -1..1 |
//! | `crop_inception_preprocess_patches(n,h[,w])` | n views of `inception_preprocess` |
//! | `-1_to_1`, `0_to_1`, `value_range(min,max)` | [`color::value_range`] |
//! | `to_gray[(p)]` | [`color::to_gray`] with probability p, default 1 |
//! | `standardize` | [`color::standardize`] |
//! | `copy_label[(name)]`, `plain_preprocess` | nothing: labels are no matter of the pipe |
//!
//! A step on several views acts on each by itself, with draws of its own, and what it makes of a
//! view stays together: `multi_crop(24)|rotate` gives the four turns of the centre first.
//!
//! `tests/golden/images.py` says which of TensorFlow and NumPy judges each step. Every step agrees
//! within 1e-3 grey levels of 255, steps that only move pixels exactly, and the inception crop is
//! indistinguishable in 20,000 draws; `randaugment` and `cutout` give Pillow's bytes
//! (`tests/golden/randaugment.py`). Intended differences from the reference:
//! `inception_preprocess` always takes 0..255 (there, only from bytes), `hsvnoise` gives no NaN for
//! values below 0 (they come from bicubic resizing), and steps that the reference would apply
//! wrongly or fail on at run time are refused when the pipe is parsed.

pub mod color;
pub mod crop;
mod first_view;
mod parse;
mod pipe;
pub mod randaugment;
pub mod resize;
mod step;

pub use first_view::Act;
pub use parse::STEPS;
pub use pipe::{Output, Pipe, PixelSource};
pub use step::Mode;
