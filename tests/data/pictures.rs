//! Images of kinds other than JPEG and PNG, and images with an orientation that not every decoder finds.

use crate::common::{Scratch, batches, png, real, shard};
use arrow::array::AsArray;
use image::codecs::gif::GifEncoder;
use image::{ExtendedColorType, Frame, ImageEncoder, RgbaImage};
use s4l::shards::{Shards, Stored};

/// A GIF of these grey images of 28 x 28, one after the other.
fn gif(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    for grey in frames {
        let rgba = grey.iter().flat_map(|&v| [v, v, v, 255]).collect();
        encoder.encode_frame(Frame::new(RgbaImage::from_raw(28, 28, rgba).unwrap())).unwrap();
    }
    drop(encoder);
    bytes
}

fn bmp(rgb: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::bmp::BmpEncoder::new(&mut bytes);
    encoder.write_image(rgb, width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// A PNG with Exif data that asks for a quarter turn, before or after the pixels.
fn turned_png(behind: bool) -> Vec<u8> {
    let grey: Vec<u8> = real(0).0.into_iter().cycle().take(28 * 56).collect();
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.write_image(&grey, 28, 56, ExtendedColorType::L8).unwrap();
    let exif = b"eXIfII*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut chunk = (exif.len() as u32 - 4).to_be_bytes().to_vec();
    chunk.extend(exif);
    chunk.extend(crc32fast::hash(exif).to_be_bytes());
    let at = if behind { bytes.len() - 12 } else { 33 };
    bytes.splice(at..at, chunk);
    bytes
}

#[test]
fn gif_and_bmp_stay_as_they_are() {
    let scratch = Scratch::new();
    let (first, second) = (real(0).0, real(1).0);
    let animated = gif(&[first.clone(), second.clone()]);
    let rgb: Vec<u8> = (0..29 * 3 * 5).map(|i| (i * 7 % 256) as u8).collect();
    let bitmap = bmp(&rgb, 29, 5);
    scratch.write("in/cat/1.gif", &animated);
    // An image is recognized by content, under any name.
    scratch.write("in/cat/2.jpg", &bitmap);
    scratch.write("in/dog/3", &bitmap);
    scratch.write("in/dog/4", gif(&[second]));
    shard(&scratch, &["--in", "in", "--out", "shards", "--decode"]).ok();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    assert!(split.keys().eq(["1.gif", "2.jpg", "3", "4"]));
    assert_eq!(split.labels().unwrap(), [Some(0), Some(0), Some(1), Some(1)]);
    assert_eq!([split.size(0), split.size(1)], [(28, 28), (5, 29)]);
    assert_eq!(split.stored(0).unwrap(), Stored::Encoded(&animated));
    let grey: Vec<u8> = first.iter().flat_map(|&v| [v, v, v]).collect();
    assert_eq!(split.decode(0).unwrap().pixels, grey);
    assert_eq!(split.decode(1).unwrap().pixels, rgb);
    let args = ["--in", "shards", "--per-class", "1", "--out", "labelled.parquet"];
    scratch.run(env!("CARGO_BIN_EXE_s4l-subset"), &args).ok();
}

#[test]
fn size_and_pixels_are_turned_by_one_rule() {
    let scratch = Scratch::new();
    for class in ["cat", "dog"] {
        scratch.write(&format!("in/{class}/{class}1.png"), turned_png(false));
        scratch.write(&format!("in/{class}/{class}2.png"), turned_png(true));
    }
    shard(&scratch, &["--in", "in", "--out", "shards", "--decode"]).ok();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    // As the standard says, Exif data after the pixels does not count.
    for (row, size) in [(0, (28, 56)), (1, (56, 28)), (2, (28, 56)), (3, (56, 28))] {
        assert_eq!(split.size(row), size, "{}", split.key(row));
        let image = split.decode(row).unwrap();
        assert_eq!((image.height, image.width), size);
    }
    let args = ["--in", "shards", "--per-class", "1", "--out", "labelled.parquet"];
    let validation = ["--val-per-class", "1", "--val-out", "val.parquet"];
    scratch.run(env!("CARGO_BIN_EXE_s4l-subset"), &[&args[..], &validation].concat()).ok();
    let small = ["--in", "in", "--out", "small", "--resize-small", "14"];
    shard(&scratch, &small).ok();
    let shards = Shards::open(&scratch.path("small")).unwrap();
    let split = shards.split("train").unwrap();
    assert_eq!([split.size(0), split.size(1)], [(14, 28), (28, 14)]);
}

#[test]
fn a_resized_image_has_the_means_of_its_boxes() {
    let scratch = Scratch::new();
    // The images are noise and the ratio is near 1, so any result other than the mean of whole boxes is far
    // off.
    let noise: Vec<u8> =
        (0..40 * 40u32).map(|i| ((i * i).wrapping_mul(2_654_435) >> 13) as u8).collect();
    scratch.write("in/cat/1.png", png(&noise, 40));
    let small = ["--in", "in", "--out", "small", "--resize-small", "32", "--quality", "100"];
    shard(&scratch, &small).ok();
    let split = Shards::open(&scratch.path("small")).unwrap().split("train").unwrap();
    let found = split.decode(0).unwrap();
    assert_eq!((found.height, found.width), (32, 32));
    let share = |i: usize, from: usize| {
        let (start, end) = (1.25 * i as f64, 1.25 * (i + 1) as f64);
        (end.min(from as f64 + 1.0) - start.max(from as f64)).max(0.0) / 1.25
    };
    for (y, x) in (0..32).flat_map(|y| (0..32).map(move |x| (y, x))) {
        let weighted =
            (0..noise.len()).map(|i| share(y, i / 40) * share(x, i % 40) * f64::from(noise[i]));
        let (mean, found) = (weighted.sum::<f64>(), found.pixels[(y * 32 + x) * 3]);
        assert!((mean - f64::from(found)).abs() < 3.0, "{y} {x}: {found}, expected {mean}");
    }
}

#[test]
fn what_is_no_image_is_named() {
    let scratch = Scratch::new();
    let animated = gif(&[real(0).0]);
    let bitmap = bmp(&[9; 12 * 12 * 3], 12, 12);
    let kinds: [(&str, &[u8], &str); 14] = [
        ("a tiff", b"II*\0\x08\0\0\0\0\0\0\0", "a TIFF"),
        ("b avif", b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF"),
        ("c heic", b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC"),
        ("d jxl", b"\xff\x0a\xfa\x21\0\0\0\0\0\0", "a JPEG XL"),
        ("e svg", b"<?xml version=\"1.0\"?>\n<svg/>", "an SVG"),
        ("f pdf", b"%PDF-1.7\n%\xff", "a PDF"),
        ("g html", b"\r\n<!DOCTYPE html><html>", "a page of HTML"),
        ("h lfs", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("i jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        ("j cut gif", &animated[..animated.len() / 2], "a GIF without its end"),
        ("k no gif", b"GIF89a\x01\0\x01\0\0\0\0;", "a GIF without an image"),
        ("l cut bmp", &bitmap[..bitmap.len() - 1], "a BMP without its end"),
        ("m words", b"BMW\0 is a car.", "a BMP that cannot be decoded"),
        ("n text", b"words", "no JPEG, PNG, WebP, GIF or BMP"),
    ];
    for (name, bytes, _) in kinds {
        scratch.write(&format!("in/{name}.jpg"), bytes);
    }
    scratch.write("in/z.png", png(&real(0).0, 28));
    let args = ["--in", "in", "--out", "shards", "--allow-rejects", "0.99"];
    shard(&scratch, &args).ok();
    let rejects = batches(&scratch.path("shards/rejects.parquet"));
    let reasons = rejects.iter().map(|b| b.column_by_name("reason").unwrap().as_string::<i32>());
    let reasons: Vec<&str> = reasons.flatten().map(Option::unwrap).collect();
    assert_eq!(reasons.len(), kinds.len());
    for (reason, (name, _, expected)) in reasons.iter().zip(kinds) {
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}
