//! Whole pipes: what they accept and refuse, views and sizes, and how they use randomness. The values of
//! each operation are checked in `golden/images.rs`.

use proptest::prelude::*;
use s4l::augment::color::{self, HsvNoise, InceptionColor};
use s4l::augment::crop;
use s4l::augment::randaugment::{Transform, randaugment, random_cutout};
use s4l::augment::resize::{self, Interpolation};
use s4l::augment::{Mode, Output, Pipe};
use s4l::error::{Error, Result};
use s4l::pixels::{Image, Size, View, Window};
use s4l::rng::{RngExt, Stream, rng};
use std::collections::BTreeMap;

fn apply(pipe: &Pipe, image: &Image, key: u64) -> Result<Vec<f32>> {
    let pixels: Vec<u8> = image.data.iter().map(|&v| v as u8).collect();
    let (h, w, c) = (image.height, image.width, image.channels);
    let size = Size { height: h, width: w };
    let mut rng = rng(0, Stream::LabelledAugment, 0, key);
    let views = pipe.views(&mut View::new(&pixels, size, c), &mut rng)?;
    Ok(views.into_iter().flat_map(|v| v.data).collect())
}

fn gradient(height: usize, width: usize, channels: usize) -> Image {
    let values = (0..height * width * channels).map(|i| (i * 7 % 256) as f32);
    Image { height, width, channels, data: values.collect() }
}

#[test]
fn output_counts_views_and_sizes() {
    let output = |text: &str, channels| Pipe::parse(text, Mode::Train)?.output(channels);
    let is = |views, height, width, channels, rotated| Output {
        views,
        height,
        width,
        channels,
        rotated,
    };
    for (text, channels, expected) in [
        ("inception_crop|resize(28)|flip_lr|-1_to_1", 1, is(1, 28, 28, 1, false)),
        ("inception_crop|resize(28)|-1_to_1|rotate", 1, is(4, 28, 28, 1, true)),
        ("resize_small(32)|multi_crop(28)|rotate", 3, is(20, 28, 28, 3, true)),
        ("crop_inception_patches(8,24,20)|hsvnoise|flip_lr", 3, is(8, 24, 20, 3, false)),
        ("crop_inception_preprocess_patches(3, 9)", 3, is(3, 9, 9, 3, false)),
        ("resize(30,40)|resize_small(15)", 1, is(1, 15, 20, 1, false)),
        ("resize(randomize_method, 30)|standardize", 1, is(1, 30, 30, 1, false)),
        ("rotate|resize(8,9)", 1, is(4, 8, 9, 1, true)),
        ("resize(9)|randaugment(2)|cutout(4)|-1_to_1", 1, is(1, 9, 9, 1, false)),
    ] {
        let output = output(text, channels).unwrap();
        assert_eq!(output, expected, "{text}");
        let pipe = Pipe::parse(text, Mode::Train).unwrap();
        let values = apply(&pipe, &gradient(41, 37, channels), 3).unwrap();
        let len = output.views * output.height * output.width * output.channels;
        assert_eq!(values.len(), len, "{text}");
        assert!(values.iter().all(|v| v.is_finite()), "{text}");
    }
    for (text, channels, expected) in [
        ("-1_to_1", 3, "would depend on the image"),
        ("resize(8)|inception_crop", 3, "would depend on the image"),
        ("resize_small(8)", 3, "would depend on the image"),
        ("resize(8,9)|rotate", 3, "needs square images, found 8x9"),
        ("resize(8)|crop(9)", 3, "needs at least 9x9 pixels, found 8x8"),
        ("resize(8)|hsvnoise", 1, "hsvnoise needs 3 channels, found 1"),
        ("resize(8)|to_gray", 1, "to_gray needs 3 channels, found 1"),
        ("inception_preprocess(8)", 1, "needs 3 channels, found 1"),
    ] {
        refused(output(text, channels), expected);
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T>, expected: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Recipe { .. }), "{error:?}");
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn bad_pipes_say_what_is_wrong() {
    for (text, expected) in [
        ("", "step \"\" is unknown"),
        ("resize(8)||flip_lr", "step \"\" is unknown"),
        ("resise(8)", "step \"resise(8)\" is unknown; known steps: inception_crop, crop(h[,w])"),
        ("resize", "needs h, a whole number from 1 to"),
        ("resize(0)", "found \"0\""),
        ("resize(-3)", "found \"-3\""),
        ("resize(8,x)", "needs w, a whole number"),
        ("resize(99999999)", "from 1 to"),
        ("resize(8", "lacks its `)`"),
        ("resize(8,9,10)", "has an argument too many, \"10\""),
        ("crop_inception_patches(0,8)", "needs n"),
        ("crop_inception_patches(8)", "needs h"),
        ("flip_lr(1)", "too many"),
        ("to_gray(1.5)", "needs p"),
        ("value_range(nan)", "needs min, a finite number"),
        ("randaugment", "needs n, a whole number from 1 to"),
        ("cutout(0)", "needs s"),
        ("-1_to_1|cutout(3)", "it needs values 0..255"),
        ("standardize|randaugment(2)", "it needs values 0..255"),
        ("-1_to_1|hsvnoise", "cannot follow \"-1_to_1\": it needs values 0..255"),
        ("standardize|0_to_1", "cannot follow \"standardize\""),
        ("rotate|multi_crop(8)", "cannot follow \"rotate\""),
        ("rotate|rotate", "cannot follow \"rotate\""),
    ] {
        refused(Pipe::parse(text, Mode::Train), expected);
    }
    let pipe = Pipe::parse("crop(8)", Mode::Train).unwrap();
    refused(apply(&pipe, &gradient(7, 9, 1), 0), "found 7x9");
    let pipe = Pipe::parse("plain_preprocess|multi_crop(8)", Mode::Eval).unwrap();
    refused(apply(&pipe, &gradient(9, 7, 1), 0), "found 9x7");
}

#[test]
fn evaluation_draws_nothing() {
    let source = gradient(40, 30, 3);
    for text in [
        "inception_crop|resize(20, randomize_method)|flip_lr|-1_to_1|rotate",
        "randaugment(9)|cutout(7)|0_to_1",
        "resize_small(20)|crop(16)|standardize",
        "crop_inception_preprocess_patches(2,8)",
    ] {
        let pipe = Pipe::parse(text, Mode::Eval).unwrap();
        let first = apply(&pipe, &source, 0).unwrap();
        assert_eq!(first, apply(&pipe, &source, 1).unwrap(), "{text}");
    }
}

/// Shares of random choices over 4,000 keys, each within five standard deviations.
#[test]
fn random_steps_choose_as_often_as_they_should() {
    let share = |text: &str, hit: &dyn Fn(&[f32]) -> bool, image: &Image| {
        let pipe = Pipe::parse(text, Mode::Train).unwrap();
        let hits = (0..4000).filter(|&key| hit(&apply(&pipe, image, key).unwrap()));
        hits.count() as f64 / 4000.0
    };
    let near = |found: f64, p: f64| {
        let deviation = (p * (1.0 - p) / 4000.0).sqrt();
        assert!((found - p).abs() < 5.0 * deviation, "{found} is far from {p}");
    };
    let source = gradient(5, 4, 3);
    near(share("flip_lr", &|out| out != source.data, &source), 0.5);
    near(share("to_gray(0.3)", &|out| out[0] == out[1], &source), 0.3);
    for y in 0..3 {
        let top = source.crop(Window { y, x: 0, height: 3, width: 4 }).data;
        near(share("crop(3,4)", &|out| out == top, &source), 1.0 / 3.0);
    }
    let size = Size { height: 7, width: 9 };
    for method in [
        Interpolation::AlignedBilinear,
        Interpolation::AlignedNearest,
        Interpolation::AlignedBicubic,
    ] {
        let resized = resize::resize(source.view(), size, method).data;
        let found = share("resize(7,9,randomize_method)", &|out| out == resized, &source);
        near(found, 1.0 / 3.0);
    }
}

/// Kinds, levels and sides are equally frequent; a transformation is done half of the time; a cutout is anywhere.
#[test]
fn transformations_are_drawn_uniformly() {
    const DRAWS: usize = 20_000;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let source = gradient(20, 24, 3);
    let black = Image { data: vec![0.0; 99], ..gradient(9, 11, 1) };
    let (mut done, mut covered) = (0, [0; 99]);
    for key in 0..DRAWS as u64 {
        let mut rng = rng(0, Stream::UnlabelledAugment, 0, key);
        let Transform { kind, level, negative } = Transform::draw(&mut rng);
        for value in [format!("{kind:?}"), level.to_string(), negative.to_string()] {
            *counts.entry(value).or_default() += 1;
        }
        let mut image = source.clone();
        randaugment(&mut image, 1, &mut rng);
        done += usize::from(image.data != source.data);
        let mut image = black.clone();
        random_cutout(&mut image, 4, &mut rng);
        covered.iter_mut().zip(&image.data).for_each(|(n, v)| *n += usize::from(*v == 127.0));
        assert!((9..=25).contains(&image.data.iter().filter(|v| **v > 0.0).count()));
    }
    assert_eq!(counts.len(), 14 + 9 + 2);
    let near = |hits: usize, p: f64| {
        let (share, deviation) = (hits as f64 / DRAWS as f64, (p / DRAWS as f64).sqrt());
        assert!((share - p).abs() < 5.0 * deviation, "{share} is far from {p}");
    };
    for (n, name) in [(14, "Rotate"), (14, "Solarize"), (9, "1"), (9, "9"), (2, "true")] {
        near(counts[name], 1.0 / f64::from(n));
    }
    // These change nothing: the identity; contrast that is full already; of nine shifts, the one below a pixel.
    near(done, 0.5 * (12.0 - 2.0 / 9.0) / 14.0);
    // Of 9 rows, the first is covered from 3 and the fifth from 7 centres; of 11 columns, from 3 and from 7.
    near(covered[0], 9.0 / 99.0);
    near(covered[4 * 11 + 4], 49.0 / 99.0);
}

/// Means and ranges of the drawn colour parameters. Their logarithms are uniform if the formula says so.
#[test]
fn colour_parameters_have_their_ranges() {
    let mut draws: [Vec<f32>; 9] = Default::default();
    for key in 0..4000 {
        let mut rng = rng(0, Stream::LabelledAugment, 0, key);
        let n = HsvNoise::draw(&mut rng);
        let c = InceptionColor::draw(&mut rng);
        let [power, scale] = [n.power, n.scale].map(|pair| pair.map(f32::log2));
        for (list, value) in draws.iter_mut().zip([
            n.hue,
            power[0],
            power[1],
            scale[0],
            scale[1],
            n.shift[0],
            n.shift[1],
            c.brightness,
            c.saturation - 1.0,
        ]) {
            list.push(value);
        }
    }
    let ranges = [0.1, 2.0, 2.0, 0.5, 0.5, 0.1, 0.1, 32.0 / 255.0, 0.5];
    for (i, (list, range)) in draws.iter().zip(ranges).enumerate() {
        assert!(list.iter().all(|v| v.abs() <= range * 1.0001), "{i}");
        let quarter = |q: i32| {
            let inside = |v: &&f32| ((**v / range + 1.0) * 2.0).floor() as i32 == q;
            list.iter().filter(inside).count() as f64 / 4000.0
        };
        // Five standard deviations of a share of 1/4.
        assert!((0..4).all(|q| (quarter(q) - 0.25).abs() < 0.0343), "{i}");
        let apart = draws.iter().skip(i + 1).all(|other| other != list);
        assert!(apart, "{i} is drawn twice");
    }
}

/// Patches, turns and flips of one image are independent or equal, as the formula says.
#[test]
fn views_stay_together() {
    let source = gradient(30, 20, 3);
    let views = |text: &str, n: usize| {
        let pipe = Pipe::parse(text, Mode::Train).unwrap();
        let out = apply(&pipe, &source, 5).unwrap();
        let len = out.len() / n;
        out.chunks(len).map(<[f32]>::to_vec).collect::<Vec<_>>()
    };
    let patches = views("crop_inception_patches(4,8)|hsvnoise|flip_lr", 4);
    assert!((1..4).all(|i| patches[i] != patches[0]));
    let turned = views("inception_crop|resize(8)|flip_lr|rotate", 4);
    let upright = Image { height: 8, width: 8, channels: 3, data: turned[0].clone() };
    assert!((0..4).all(|i| upright.rotate(i).data == turned[i]));
    assert_eq!(views("inception_crop|resize(8)|flip_lr", 1)[0], turned[0]);
}

const PIPES: [&str; 12] = [
    "inception_crop|resize(28)|flip_lr|-1_to_1|rotate",
    "inception_crop|resize(9,14,randomize_method)|hsvnoise|0_to_1",
    "crop_inception_patches(3,5,7)|hsvnoise|flip_lr|value_range(-2,3)",
    "crop_inception_preprocess_patches(2,6)|flip_lr",
    "resize_small(12)|crop(12)|to_gray(0.5)|standardize",
    "resize_small(9)|multi_crop(8)|rotate|-1_to_1",
    "copy_label(x)|resize_small(7)|central_crop(5,6)|flip_lr|standardize",
    "inception_crop|rotate|inception_crop|resize(4)",
    "inception_crop|resize(9,14,randomize_method)|flip_lr|-1_to_1",
    "resize(7)|flip_lr|flip_lr",
    "resize(9,14)|flip_lr|randaugment(3)|cutout(5)|-1_to_1",
    "resize_small(13)|central_crop(5,6)|0_to_1",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn inception_crops_lie_inside_and_cover_a_tenth(
        height in 1usize..600, width in 1usize..600, key: u64,
    ) {
        let mut rng = rng(1, Stream::UnlabelledAugment, 0, key);
        for _ in 0..20 {
            let c = crop::inception(Size { height, width }, &mut rng);
            prop_assert!(c.y + c.height <= height && c.x + c.width <= width);
            prop_assert!(c.height > 0 && c.width > 0);
            prop_assert!((c.height * c.width) as f64 >= 0.1 * (height * width) as f64 * (1.0 - 1e-6));
        }
    }

    #[test]
    fn pipes_take_any_image_and_give_the_same_by_key(
        height in 1usize..40, width in 1usize..40, pipe in 0..PIPES.len(), train: bool, key: u64,
    ) {
        let mode = if train { Mode::Train } else { Mode::Eval };
        let pipe = Pipe::parse(PIPES[pipe], mode).unwrap();
        let output = pipe.output(3).unwrap();
        let mut noise = rng(2, Stream::Init, 0, key);
        let mut source = gradient(height, width, 3);
        source.data.iter_mut().for_each(|v| *v = f32::from(noise.random::<u8>()));
        let values = apply(&pipe, &source, key).unwrap();
        prop_assert_eq!(
            values.len(),
            output.views * output.height * output.width * output.channels
        );
        prop_assert!(values.iter().all(|v| v.is_finite()));
        prop_assert_eq!(&values, &apply(&pipe, &source, key).unwrap());
        let pixels: Vec<u8> = source.data.iter().map(|&v| v as u8).collect();
        let mut pixels = View::new(&pixels, source.size(), 3);
        let mut out = vec![f32::NAN; values.len()];
        pipe.apply(&mut pixels, &mut rng(0, Stream::LabelledAugment, 0, key), &mut out).unwrap();
        prop_assert_eq!(values, out, "written to a batch");
    }

    #[test]
    fn resizing_keeps_a_flat_image_flat(
        height in 1usize..70, width in 1usize..70, out in 1usize..70, value: u8,
    ) {
        let value = f32::from(value);
        let flat = Image { height, width, channels: 1, data: vec![value; height * width] };
        for method in [
            Interpolation::LegacyBilinear, Interpolation::AlignedBilinear, Interpolation::AlignedNearest,
            Interpolation::AlignedBicubic, Interpolation::Area,
        ] {
            let size = Size { height: out, width: 71 - out };
            let resized = resize::resize(flat.view(), size, method);
            prop_assert!(resized.data.iter().all(|v| (v - value).abs() < 1e-2), "{method:?}");
        }
    }
}

/// The range of values is exactly that of the formula, although the code does not divide.
#[test]
fn value_ranges_are_rounded_as_by_division() {
    let mut rng = rng(0, Stream::LabelledAugment, 0, 0);
    let bytes = (0..256).map(|v| v as f32);
    let others = (0..1_000_000).map(|_| rng.random_range(-300.0..600.0f32));
    let values: Vec<f32> = bytes.chain(others).collect();
    let mut image = Image { height: 1, width: values.len(), channels: 1, data: values.clone() };
    color::value_range(&mut image, -1.0, 1.0);
    for (v, ours) in values.iter().zip(&image.data) {
        assert_eq!(*ours, -1.0 + v / 255.0 * 2.0, "{v}");
    }
}
