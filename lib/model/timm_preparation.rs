//! timm's preparation of images, the `pretrained_cfg` of a `config.json`: written and read.
//!
//! timm resizes with Pillow, whose filters are antialiased and round to whole levels; ours are those of
//! TensorFlow 1. So pixels are equal if nothing is resized, and close otherwise.

use crate::augment::{Act, Mode, Pipe};
use crate::error::{Error, Result};
use crate::pixels::Size;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// The entries of `pretrained_cfg`, and the differences from ours that it cannot express.
pub struct Preparation {
    pub mean: f64,
    pub std: f64,
    pub interpolation: &'static str,
    pub crop_mode: &'static str,
    pub crop_pct: f64,
    /// The differences from ours, one sentence each.
    pub notes: Vec<String>,
}

/// timm's names for making an image square or oblong: resize both sides, or resize the smaller side and
/// crop.
const SQUASH: &str = "squash";
const CENTER: &str = "center";

/// The note on resizing by timm.
const RESIZED: &str = "timm resizes with Pillow, antialiased and rounded to whole levels, where s4l \
    samples as TensorFlow 1 does: pixels of images of another size are near those of s4l, not equal";

impl Preparation {
    /// The preparation of an evaluation pipe that makes images of `size`.
    ///
    /// Errors: `Recipe` if timm cannot express it.
    pub fn of(text: &str, size: Size) -> Result<Preparation> {
        let refuse = |what: &str| Error::Recipe {
            recipe: format!("augment_eval {text:?}"),
            what: format!("timm's config.json cannot say {what}"),
            hint: "--to onnx has the preparation inside".to_string(),
        };
        let acts = Pipe::parse(text, Mode::Eval)?.first_view()?;
        let mut range = (0.0, 255.0);
        let mut moves = Vec::new();
        for act in acts {
            match act {
                Act::Range { min, max } => range = (min, max),
                Act::Gray => return Err(refuse("to_gray")),
                Act::Standardize => {
                    return Err(refuse("standardize, another range of values for each image"));
                }
                act => moves.push(act),
            }
        }
        let (min, max) = range;
        if min == max {
            return Err(refuse("a range of values that is one value"));
        }
        let mut notes = Vec::new();
        if moves.iter().any(|act| matches!(act, Act::Resize { reduced: true, .. })) {
            let note = "JPEG files are decoded whole, where dct_scaling decodes them smaller";
            notes.push(note.to_string());
        }
        let way = way(&moves, size).ok_or_else(|| refuse("these steps in this order"))?;
        let crop_pct = match way.before {
            Some(before) => crop_pct(size, before)
                .ok_or_else(|| refuse("a crop of other shares of height and width"))?,
            None => 0.875,
        };
        notes.extend(way.notes);
        // (p - mean) / std of p in 0..1 is min + (max - min) p.
        let std = 1.0 / f64::from(max - min);
        let mean = -f64::from(min) * std;
        let (interpolation, crop_mode) = (way.interpolation, way.crop_mode);
        Ok(Preparation { mean, std, interpolation, crop_mode, crop_pct, notes })
    }

    /// The entries of `pretrained_cfg`.
    pub fn to_json(&self, channels: usize, size: Size) -> Value {
        json!({
            "input_size": [channels, size.height, size.width],
            "mean": vec![self.mean; channels],
            "std": vec![self.std; channels],
            "interpolation": self.interpolation,
            "crop_pct": self.crop_pct,
            "crop_mode": self.crop_mode,
        })
    }
}

/// How timm brings images to the network's size.
struct Way {
    crop_mode: &'static str,
    interpolation: &'static str,
    /// The size before the crop; `None` for slim's 87.5 % crop.
    before: Option<Size>,
    notes: Vec<String>,
}

/// timm's equivalent of the steps that move pixels, if there is one.
fn way(moves: &[Act], size: Size) -> Option<Way> {
    let resized = RESIZED.to_string();
    let (crop_mode, interpolation, before, notes) = match *moves {
        [Act::Crop(_)] => {
            let Size { height, width } = size;
            let note = format!(
                "timm resizes the smaller side of an image to {}, where augment_eval cuts the centre out of \
                 the image as it is: give timm images of {height}x{width}",
                height.min(width)
            );
            (CENTER, "bilinear", Some(size), vec![note])
        }
        [Act::Resize { size: to, .. }] | [Act::Resize { size: to, .. }, Act::Crop(_)] => {
            (SQUASH, "bilinear", Some(to), vec![resized])
        }
        [Act::CropFraction, Act::Resize { .. }] => {
            let note = "timm cuts the centre out behind the resize, s4l before it".to_string();
            (SQUASH, "bilinear", None, vec![resized, note])
        }
        [Act::ResizeSmall(side), Act::Crop(_)] if size.height == size.width => {
            // Of Pillow's filters this is the nearest to the mean over the box that a pixel covers: 1 level
            // of 255 away on photographs. Pillow's "box", of whole pixels, is 1 to 3 levels away.
            (CENTER, "hamming", Some(Size { height: side, width: side }), vec![resized])
        }
        _ => return None,
    };
    Some(Way { crop_mode, interpolation, before, notes })
}

/// timm resizes to floor(side / crop_pct) before it crops. This is the largest `crop_pct` that gives
/// `before` on both sides, if there is one.
fn crop_pct(size: Size, before: Size) -> Option<f64> {
    let sides = [(size.height, before.height), (size.width, before.width)];
    let share = |(side, before): (usize, usize)| side as f64 / before as f64;
    let largest = share(sides[0]).min(share(sides[1]));
    // A quotient may be rounded to just below a whole number.
    [largest, largest.next_down()]
        .into_iter()
        .find(|&pct| sides.iter().all(|&(side, before)| resized(side, pct) == before))
}

/// The side that timm resizes to.
fn resized(side: usize, crop_pct: f64) -> usize {
    (side as f64 / crop_pct).floor() as usize
}

/// The entries that are read from timm's `pretrained_cfg`.
#[derive(Deserialize)]
pub struct Pretrained {
    pub input_size: [usize; 3],
    mean: Vec<f64>,
    std: Vec<f64>,
    crop_pct: f64,
    #[serde(default)]
    crop_mode: Option<String>,
    #[serde(default)]
    pub label_names: Vec<String>,
}

impl Pretrained {
    /// The pipe nearest to timm's preparation. Errors: `BadData` if no pipe is near. `path` is that of the
    /// file.
    pub fn pipe(&self, path: &Path) -> Result<String> {
        let bad = |expected: &str, found: String, hint: &str| {
            Err(Error::bad_data(path, expected, found, hint))
        };
        let [_, height, width] = self.input_size;
        let same = |values: &[f64]| {
            let first = values.first().copied();
            first.filter(|v| values.iter().all(|w| w == v))
        };
        let (Some(mean), Some(std)) = (same(&self.mean), same(&self.std)) else {
            let found = format!("{:?} and {:?}", self.mean, self.std);
            let hint = "set both to 0.5 and fine-tune";
            return bad("one mean and one std for all channels", found, hint);
        };
        let (min, max) = (-mean / std, (1.0 - mean) / std);
        let [h, w] = [height, width].map(|side| resized(side, self.crop_pct));
        let steps = match self.crop_mode.as_deref().unwrap_or(CENTER) {
            SQUASH if (h, w) == (height, width) => format!("resize({h},{w})"),
            SQUASH => format!("resize({h},{w})|crop({height},{width})"),
            CENTER => format!("resize_small({})|crop({height},{width})", h.min(w)),
            other => {
                let hint = "set it to one of them and fine-tune";
                return bad("crop_mode \"center\" or \"squash\"", format!("{other:?}"), hint);
            }
        };
        Ok(format!("{steps}|value_range({min},{max})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timm_resizes_to_what_the_pipe_resizes_to() {
        for before in 1..600 {
            for side in 1..=before {
                let size = Size { height: side, width: side };
                let pct = crop_pct(size, Size { height: before, width: before }).unwrap();
                assert_eq!(resized(side, pct), before, "{side} of {before}");
            }
        }
        let size = |height, width| Size { height, width };
        assert!(crop_pct(size(60, 46), size(64, 48)).is_none());
        assert!(crop_pct(size(56, 42), size(64, 48)).is_some());
    }
}
