//! The pipe string: steps joined by `|`, each `name`, `name(a,b)` or `name(key=a)`.

use super::step::{Crop, Mode, Op, Step};
use crate::error::{Error, Result};
use crate::pixels::Size;
use std::sync::Arc;

/// The names of the steps, with their arguments.
pub const STEPS: &str = "inception_crop, crop(h[,w]), central_crop(h[,w]), multi_crop(h[,w]), \
    crop_inception_patches(n,h[,w]), resize(h[,w][,randomize_method][,dct_scaling]), resize_small(s), flip_lr, \
    randaugment(n), cutout(s), rotate, hsvnoise, inception_preprocess(h[,w]), crop_inception_preprocess_patches(n,h[,w]), \
    -1_to_1, 0_to_1, value_range([min[,max]]), to_gray[(p)], standardize, copy_label[(name)], \
    plain_preprocess";

/// Far above any image, far below what memory could not hold.
const MAX_SIDE: usize = 1 << 14;
const MAX_VIEWS: usize = 1 << 10;
const MAX_TRANSFORMS: usize = 1 << 6;

/// The steps that do something in that mode.
pub fn steps(pipe: &Arc<str>, mode: Mode) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for text in pipe.split('|').map(str::trim) {
        let mut args = Args::split(pipe, text)?;
        let op = op(&mut args, mode)?;
        args.finish()?;
        let Some(op) = op else { continue };
        for before in &steps {
            if let Some(why) = conflict(&before.op, &op) {
                let what = format!("cannot follow {:?}: {why}", before.text);
                return Err(bad(pipe, text, &what));
            }
        }
        steps.push(Step { pipe: pipe.clone(), text: text.to_string(), op });
    }
    Ok(steps)
}

/// The step with that name, or `None` if it does nothing in that mode.
fn op(args: &mut Args, mode: Mode) -> Result<Option<Op>> {
    let train = mode == Mode::Train;
    Ok(Some(match args.name {
        "inception_crop" if train => Op::Crop(Crop::Inception),
        "crop" if train => Op::Crop(Crop::Random(args.size()?)),
        "crop" | "central_crop" => Op::Crop(Crop::Central(args.size()?)),
        "multi_crop" => Op::MultiCrop(args.size()?),
        "crop_inception_patches" => {
            Op::InceptionPatches { views: args.whole("n", MAX_VIEWS)?, size: args.size()? }
        }
        "crop_inception_preprocess_patches" => {
            Op::InceptionPreprocess { views: args.whole("n", MAX_VIEWS)?, size: args.size()?, mode }
        }
        "inception_preprocess" => Op::InceptionPreprocess { views: 1, size: args.size()?, mode },
        "resize" => Op::Resize {
            randomize: args.flag("randomize_method") && train,
            dct_scaling: args.flag("dct_scaling"),
            size: args.size()?,
        },
        "resize_small" => Op::ResizeSmall(args.whole("s", MAX_SIDE)?),
        "flip_lr" if train => Op::FlipLr,
        "randaugment" | "cutout" => {
            let (key, most) =
                if args.name == "cutout" { ("s", MAX_SIDE) } else { ("n", MAX_TRANSFORMS) };
            let count = args.whole(key, most)?;
            match args.name {
                _ if !train => return Ok(None),
                "cutout" => Op::Cutout { side: count },
                _ => Op::RandAugment { transforms: count },
            }
        }
        "inception_crop" | "flip_lr" | "plain_preprocess" => return Ok(None),
        "rotate" => Op::Rotate,
        "hsvnoise" => Op::HsvNoise,
        "-1_to_1" => Op::ValueRange { min: -1.0, max: 1.0 },
        "0_to_1" => Op::ValueRange { min: 0.0, max: 1.0 },
        "value_range" => Op::ValueRange {
            min: args.number("min", -1.0, |v| v.is_finite())?,
            max: args.number("max", 1.0, |v| v.is_finite())?,
        },
        "to_gray" => Op::ToGray {
            probability: f64::from(args.number("p", 1.0, |p| (0.0..=1.0).contains(p))?),
        },
        "standardize" => Op::Standardize,
        "copy_label" => {
            args.take("name");
            return Ok(None);
        }
        _ => return Err(bad(args.pipe, args.step, "is unknown")),
    }))
}

/// Why `op` makes no sense after `before`; `None` if it does.
fn conflict(before: &Op, op: &Op) -> Option<&'static str> {
    use Op::{Cutout, HsvNoise, InceptionPreprocess, RandAugment, Standardize, ValueRange};
    let needs_pixels = matches!(
        op,
        Cutout { .. }
            | HsvNoise
            | InceptionPreprocess { .. }
            | RandAugment { .. }
            | ValueRange { .. }
    );
    let leaves_pixels =
        matches!(before, InceptionPreprocess { .. } | Standardize | ValueRange { .. });
    if needs_pixels && leaves_pixels {
        return Some("it needs values 0..255");
    }
    (*before == Op::Rotate && op.views() > 1).then_some("the views of a rotation stay in fours")
}

/// The arguments of one step, taken one by one.
struct Args<'a> {
    pipe: &'a str,
    step: &'a str,
    name: &'a str,
    /// The key if there is one, and the value.
    rest: Vec<(Option<&'a str>, &'a str)>,
}

impl<'a> Args<'a> {
    fn split(pipe: &'a str, step: &'a str) -> Result<Args<'a>> {
        let (name, list) = match step.split_once('(') {
            None => (step, ""),
            Some((name, list)) => {
                let list = list.strip_suffix(')');
                (name, list.ok_or_else(|| bad(pipe, step, "lacks its `)`"))?)
            }
        };
        let pair = |arg: &'a str| match arg.split_once('=') {
            Some((key, value)) => (Some(key.trim()), value.trim()),
            None => (None, arg.trim()),
        };
        let list = Some(list).filter(|l| !l.trim().is_empty());
        Ok(Args {
            pipe,
            step,
            name: name.trim(),
            rest: list.into_iter().flat_map(|l| l.split(',')).map(pair).collect(),
        })
    }

    /// The argument of that key, else the first one without a key.
    fn take(&mut self, key: &str) -> Option<&'a str> {
        let by_key = self.rest.iter().position(|(k, _)| *k == Some(key));
        let found = by_key.or_else(|| self.rest.iter().position(|(k, _)| k.is_none()))?;
        Some(self.rest.remove(found).1)
    }

    /// Whether the bare word is among the arguments, at any position.
    fn flag(&mut self, word: &str) -> bool {
        let before = self.rest.len();
        self.rest.retain(|arg| *arg != (None, word));
        self.rest.len() < before
    }

    /// A number that `fits` (NaN never does); the default if it is absent.
    fn number(&mut self, key: &str, default: f32, fits: fn(&f32) -> bool) -> Result<f32> {
        let Some(text) = self.take(key) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(fits);
        number.ok_or_else(|| {
            let what = format!("needs {key}, a finite number in its range, found {text:?}");
            bad(self.pipe, self.step, &what)
        })
    }

    /// A whole number from 1 to `most`.
    fn whole(&mut self, key: &str, most: usize) -> Result<usize> {
        let text = self.take(key).unwrap_or("");
        let number = text.parse().ok().filter(|n| (1..=most).contains(n));
        number.ok_or_else(|| {
            let expected = format!("needs {key}, a whole number from 1 to {most}, found {text:?}");
            bad(self.pipe, self.step, &expected)
        })
    }

    /// `h` and `w`; one number means a square.
    fn size(&mut self) -> Result<Size> {
        let height = self.whole("h", MAX_SIDE)?;
        let width = if self.rest.is_empty() { height } else { self.whole("w", MAX_SIDE)? };
        Ok(Size { height, width })
    }

    fn finish(self) -> Result<()> {
        match self.rest.first() {
            None => Ok(()),
            Some((_, value)) => {
                let what = format!("has an argument too many, {value:?}");
                Err(bad(self.pipe, self.step, &what))
            }
        }
    }
}

fn bad(pipe: &str, step: &str, what: &str) -> Error {
    Error::Recipe {
        recipe: pipe.to_string(),
        what: format!("step {step:?} {what}"),
        hint: format!("known steps: {STEPS}"),
    }
}
