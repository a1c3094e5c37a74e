//! Decoding of image files: every kind of JPEG is decoded as by libjpeg-turbo, and windows are parts of the
//! whole image.

use s4l::augment::{Mode, Pipe};
use s4l::decode::Decoder;
use s4l::pixels::{Size, View, Window};
use s4l::rng::{RngExt, Stream, rng};
use serde_json::Value;

fn golden(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");
    std::fs::read(format!("{folder}{name}")).unwrap()
}

/// Name and bytes of each file, with the expected values of `jpegs.py`.
fn jpegs() -> Vec<(String, Vec<u8>, Value)> {
    let records: Vec<Value> = serde_json::from_slice(&golden("jpegs.json")).unwrap();
    let named = records.into_iter().map(|record| {
        let name = record["name"].as_str().unwrap().to_string();
        (name.clone(), golden(&format!("jpegs/{name}.jpg")), record)
    });
    named.collect()
}

fn pixels(view: View<u8>) -> Vec<u8> {
    let rows = (0..view.size.height).flat_map(|y| view.row(y));
    rows.copied().collect()
}

#[test]
fn every_kind_of_jpeg_decodes_as_by_libjpeg_turbo() {
    let mut decoder = Decoder::default();
    for (name, bytes, record) in jpegs() {
        let size = Size {
            height: record["height"].as_u64().unwrap() as usize,
            width: record["width"].as_u64().unwrap() as usize,
        };
        assert_eq!(decoder.size(&bytes).unwrap(), size, "{name}");
        let view = decoder.whole(&bytes).unwrap();
        assert_eq!(view.size, size, "{name}");
        let mut crc = flate2::Crc::new();
        crc.update(&pixels(view));
        assert_eq!(u64::from(crc.sum()), record["crc32"], "{name}");
    }
}

/// The contract allows one grey level; here there is no difference at all.
#[test]
fn a_window_has_the_pixels_of_the_whole_image() {
    let mut decoder = Decoder::default();
    let mut rng = rng(0, Stream::LabelledAugment, 0, 0);
    let mut files = jpegs();
    // A file that is no JPEG goes to another decoder.
    let (mut png, image) = (Vec::new(), decoder.whole(&files[0].1).unwrap());
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    let (width, height) = (image.size.width as u32, image.size.height as u32);
    let encode = image::ImageEncoder::write_image;
    encode(encoder, &pixels(image), width, height, image::ExtendedColorType::Rgb8).unwrap();
    files.push(("png".into(), png, Value::Null));
    for (name, bytes, _) in files {
        let size = decoder.size(&bytes).unwrap();
        let whole = pixels(decoder.whole(&bytes).unwrap());
        let whole = View::new(&whole, size, 3);
        for _ in 0..300 {
            let (y, x) = (rng.random_range(0..size.height), rng.random_range(0..size.width));
            let window = Window {
                y,
                x,
                height: rng.random_range(1..=size.height - y),
                width: rng.random_range(1..=size.width - x),
            };
            let part = decoder.window(&bytes, size, window, None).unwrap();
            assert!(pixels(part) == pixels(whole.window(window)), "{name} {window:?}");
        }
    }
}

/// A pipe gives the same result with and without a window.
#[test]
fn pipes_see_no_difference_between_a_file_and_its_pixels() {
    struct File<'a>(&'a [u8], Size, Decoder, usize);
    impl s4l::augment::PixelSource for File<'_> {
        fn size(&self) -> Size {
            self.1
        }
        fn channels(&self) -> usize {
            3
        }
        fn window(&mut self, window: Window) -> s4l::error::Result<View<'_, u8>> {
            self.3 += window.height * window.width;
            Ok(self.2.window(self.0, self.1, window, None).unwrap())
        }
    }
    let (_, bytes, _) = &jpegs()[2];
    let mut decoder = Decoder::default();
    let size = decoder.size(bytes).unwrap();
    let whole = pixels(decoder.whole(bytes).unwrap());
    let mut asked = Vec::new();
    for (text, mode) in [
        ("inception_crop|resize(24)|flip_lr|-1_to_1", Mode::Train),
        ("crop(100,40)|resize_small(20)|crop(18)", Mode::Train),
        ("resize_small(64)|crop(24)|-1_to_1", Mode::Eval),
        ("resize_small(64)|multi_crop(56)|rotate", Mode::Eval),
        ("crop_inception_patches(3,24)|hsvnoise", Mode::Train),
        ("central_crop(50)|standardize", Mode::Train),
        ("inception_preprocess(24)", Mode::Train),
    ] {
        let pipe = Pipe::parse(text, mode).unwrap();
        let mut file = File(bytes, size, Decoder::default(), 0);
        for key in 0..50 {
            let rng = || rng(0, Stream::LabelledAugment, 0, key);
            let of_file = pipe.views(&mut file, &mut rng()).unwrap();
            let of_pixels = pipe.views(&mut View::new(&whole, size, 3), &mut rng()).unwrap();
            assert_eq!(of_file, of_pixels, "{text}");
        }
        asked.push(file.3 as f64 / (50 * size.height * size.width) as f64);
    }
    // A pipe that begins with a crop, or with a resize and a crop, reads little more than it shows.
    assert!(asked[0] < 0.5 && asked[2] < 0.2 && asked[3] == 1.0, "{asked:?}");
}

/// Scaled down by 2, 4 and 8, the whole image equals libjpeg-turbo's, and a window equals a part of it.
#[test]
fn scaled_decoding_is_libjpeg_turbos() {
    let mut decoder = Decoder::default();
    for (name, bytes, record) in jpegs() {
        let size = decoder.size(&bytes).unwrap();
        let Some(scaled) = record["scaled"].as_array() else {
            continue;
        };
        for (divisor, crc32) in [2, 4, 8].into_iter().zip(scaled) {
            let enough =
                |size: Size| Size { height: size.height / divisor, width: size.width / divisor };
            let mut decode = |window: Window| {
                let enough = enough(window.size());
                let view = decoder.window(&bytes, size, window, Some(enough)).unwrap();
                (view.size, pixels(view))
            };
            let (whole_size, whole) = decode(Window::whole(size));
            assert_eq!(whole_size.height, size.height.div_ceil(divisor), "{name}");
            let mut crc = flate2::Crc::new();
            crc.update(&whole);
            assert_eq!(u64::from(crc.sum()), *crc32, "{name} 1/{divisor}");
            let window = |divisor: usize| Window {
                y: 16 / divisor,
                x: 24 / divisor,
                height: 96 / divisor,
                width: 80 / divisor,
            };
            let (part_size, part) = decode(window(1));
            let expected = View::new(&whole, whole_size, 3).window(window(divisor));
            assert_eq!(part_size, expected.size, "{name} 1/{divisor}");
            assert!(part == pixels(expected), "{name} 1/{divisor}");
        }
        // `enough` is more than the window has: nothing is scaled.
        let whole = Window::whole(size);
        let above = Size { height: size.height + 1, width: 1 };
        let view = decoder.window(&bytes, size, whole, Some(above)).unwrap();
        assert_eq!(view.size, size, "{name}");
    }
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let mut decoder = Decoder::default();
    let files = jpegs();
    let (_, good, record) = &files[2];
    let cut = &good[..good.len() / 2];
    let mut garbled = good.clone();
    let end = garbled.len();
    garbled[end / 2..end / 2 + 40].fill(0xff);
    // Height and width in the frame header: two bytes each, after length and precision.
    let mut bomb = good.clone();
    let frame = bomb.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    bomb[frame + 5..frame + 9].fill(0xff);
    for (what, bytes) in [
        ("cut", cut),
        ("garbled", &garbled),
        ("bomb", &bomb),
        ("empty", &[]),
        ("text", b"no image"),
        ("marker", &[0xff, 0xd8]),
        ("scans", &crate::common::many_scans()),
    ] {
        let error = decoder.whole(bytes).map(|view| view.size).unwrap_err();
        assert!(!error.is_empty() && !error.contains('\n'), "{what}: {error:?}");
    }
    // The decoder still works after the error.
    let mut crc = flate2::Crc::new();
    crc.update(&pixels(decoder.whole(good).unwrap()));
    assert_eq!(u64::from(crc.sum()), record["crc32"]);
}
