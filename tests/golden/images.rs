//! The image operations, compared with TensorFlow and NumPy.

use crate::{float, rows, singles};
use s4l::augment::color::{self, HsvNoise, InceptionColor};
use s4l::augment::crop;
use s4l::augment::resize::{self, Interpolation};
use s4l::augment::{Mode, Pipe};
use s4l::pixels::{Image, Size, View};
use s4l::rng::{Stream, rng};
use serde_json::Value;
use std::collections::BTreeMap;

fn pair(value: &Value) -> [f32; 2] {
    singles(value).try_into().unwrap()
}

fn image(value: &Value) -> Image {
    let shape = singles(&value["shape"]);
    Image {
        height: shape[0] as usize,
        width: shape[1] as usize,
        channels: shape[2] as usize,
        data: singles(&value["data"]),
    }
}

/// This project's result for a case.
fn ours(case: &Value) -> Vec<f32> {
    let mut image = image(&case["input"]);
    let per_pixel = |image: &Image, f: fn([f32; 3]) -> [f32; 3]| {
        let pixels = image.data.as_chunks::<3>().0;
        pixels.iter().flat_map(|p| f(p.map(|v| v / 255.0))).collect()
    };
    match case["kind"].as_str().unwrap() {
        "pipe" => {
            let mode = match case["mode"].as_str().unwrap() {
                "train" => Mode::Train,
                _ => Mode::Eval,
            };
            let pipe = Pipe::parse(case["pipe"].as_str().unwrap(), mode).unwrap();
            let pixels: Vec<u8> = image.data.iter().map(|&v| v as u8).collect();
            let mut source = View::new(&pixels, image.size(), image.channels);
            let mut rng = rng(0, Stream::LabelledAugment, 0, 0);
            let views = pipe.views(&mut source, &mut rng).unwrap();
            return views.into_iter().flat_map(|v| v.data).collect();
        }
        "resize" => {
            let shape = singles(&case["output"]["shape"]);
            let size = Size { height: shape[0] as usize, width: shape[1] as usize };
            let method = match case["method"].as_str().unwrap() {
                "AlignedBilinear" => Interpolation::AlignedBilinear,
                "AlignedNearest" => Interpolation::AlignedNearest,
                "AlignedBicubic" => Interpolation::AlignedBicubic,
                "Area" => Interpolation::Area,
                other => panic!("method {other}"),
            };
            image = resize::resize(image.view(), size, method);
        }
        "flip" => image.flip_lr(),
        "rgb_to_hsv" => return per_pixel(&image, color::rgb_to_hsv),
        "hsv_to_rgb" => return per_pixel(&image, color::hsv_to_rgb),
        "hsv_noise" => HsvNoise {
            hue: float(&case["hue"]) as f32,
            power: pair(&case["power"]),
            scale: pair(&case["scale"]),
            shift: pair(&case["shift"]),
        }
        .apply(&mut image),
        "inception_color" => InceptionColor {
            brightness: float(&case["brightness"]) as f32,
            saturation: float(&case["saturation"]) as f32,
        }
        .apply(&mut image),
        other => panic!("kind {other}"),
    }
    image.data
}

/// Every operation within 1e-3 grey levels of 255, far below the one level that is required. The committed
/// numbers are rounded to 1e-4 levels.
#[test]
fn operations_equal_tensorflow_and_numpy() {
    let mut worst = BTreeMap::<String, f64>::new();
    for case in rows("images.json") {
        let name = format!(
            "{} {}{}",
            case["kind"].as_str().unwrap(),
            case["pipe"].as_str().unwrap_or(""),
            case["method"].as_str().unwrap_or("")
        );
        let (ours, theirs) = (ours(&case), singles(&case["output"]["data"]));
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let level = case["level"].as_f64().unwrap();
        let far = worst.entry(name.clone()).or_default();
        for (a, b) in ours.iter().zip(&theirs) {
            *far = far.max((f64::from(*a) - f64::from(*b)).abs() / level);
        }
    }
    println!("largest deviations in grey levels: {worst:#?}");
    let bad: Vec<_> = worst.iter().filter(|(_, far)| **far > 1e-3).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// Kolmogorov-Smirnov distance of two samples given as counts of integers.
pub fn distance(a: &BTreeMap<i64, u64>, b: &BTreeMap<i64, u64>) -> f64 {
    let (n, m) = (a.values().sum::<u64>(), b.values().sum::<u64>());
    let (mut below_a, mut below_b, mut far) = (0, 0, 0.0f64);
    let values: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for v in values {
        below_a += a.get(v).unwrap_or(&0);
        below_b += b.get(v).unwrap_or(&0);
        far = far.max((below_a as f64 / n as f64 - below_b as f64 / m as f64).abs());
    }
    far
}

/// The largest distance of two samples of `n` at a significance level of 1e-3 for all `comparisons`
/// together (Bonferroni). Ties only make the test more conservative.
pub fn bound(n: usize, comparisons: usize) -> f64 {
    const LEVEL: f64 = 1e-3;
    let critical = (-(LEVEL / comparisons as f64 / 2.0).ln() / 2.0).sqrt();
    critical * (2.0 / n as f64).sqrt()
}

/// Two-sample Kolmogorov-Smirnov tests of the inception crop against 20,000 draws of
/// `tf.image.sample_distorted_bounding_box`, for offsets, sizes, aspect ratio, area and their
/// discrete versions.
#[test]
fn inception_crop_has_the_distribution_of_tensorflow() {
    const DRAWS: u64 = 20_000;
    let sizes = rows("crops.json");
    let variables = sizes.iter().map(|s| s.as_object().unwrap().len() - 2);
    let comparisons: usize = variables.sum();
    let bound = bound(DRAWS as usize, comparisons);
    for size in &sizes {
        let side = |name: &str| size[name].as_u64().unwrap() as usize;
        let (height, width) = (side("height"), side("width"));
        let mut ours = BTreeMap::<&str, BTreeMap<i64, u64>>::new();
        for i in 0..DRAWS {
            let mut rng = rng(0, Stream::UnlabelledAugment, 0, i);
            let c = crop::inception(Size { height, width }, &mut rng);
            for (name, value) in [
                ("y", c.y),
                ("x", c.x),
                ("y_plus_x", c.y + c.x),
                ("crop_height", c.height),
                ("crop_width", c.width),
                ("aspect_percent", 100 * c.width / c.height),
                ("area_permille", 1000 * c.height * c.width / (height * width)),
                ("y_percent_of_free", 100 * c.y / (height - c.height).max(1)),
                ("x_percent_of_free", 100 * c.x / (width - c.width).max(1)),
            ] {
                *ours.entry(name).or_default().entry(value as i64).or_default() += 1;
            }
        }
        for (name, ours) in &ours {
            let columns = size[*name].as_array().unwrap();
            let column = |i: usize| columns[i].as_array().unwrap().iter();
            let theirs: BTreeMap<i64, u64> = column(0)
                .map(|v| v.as_i64().unwrap())
                .zip(column(1).map(|v| v.as_u64().unwrap()))
                .collect();
            assert_eq!(theirs.values().sum::<u64>(), DRAWS);
            let far = distance(ours, &theirs);
            println!("{height}x{width} {name}: {far:.4}, bound {bound:.4}");
            assert!(far < bound, "{height}x{width} {name}: {far} >= {bound}");
        }
    }
}
