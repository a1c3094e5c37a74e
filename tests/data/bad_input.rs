//! `s4l-shard` on broken input: single bad images are listed and skipped; larger losses stop the run.

use crate::common::{Ran, Scratch, batches, jpeg, many_scans, png, real, shard};
use arrow::array::AsArray;
use s4l::shards::{Shards, Stored};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/inputs");
const TFRECORD: &str = "tfrecord/image_imagenet-train-00000-of-00002";
/// Bytes of the first image of the record, outside its checksums.
const IN_RECORD: usize = 500;

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{SAMPLES}/{name}")).unwrap()
}

/// Key and reason of each rejected image.
fn rejects(scratch: &Scratch) -> Vec<(String, String)> {
    let batches = batches(&scratch.path("shards/rejects.parquet"));
    let column = |name: &str| {
        let columns = batches.iter().map(|b| b.column_by_name(name).unwrap());
        let texts = columns.flat_map(|c| c.as_string::<i32>().iter());
        texts.map(|t| t.unwrap().to_string()).collect::<Vec<_>>()
    };
    column("key").into_iter().zip(column("reason")).collect()
}

#[track_caller]
fn rejected(scratch: &Scratch, expected: &[(&str, &str)]) {
    let found = rejects(scratch);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((key, reason), (expected_key, word)) in found.iter().zip(expected) {
        assert_eq!(key, expected_key);
        assert!(reason.contains(word), "{word:?} in {reason:?} of {key}");
    }
}

fn keys(scratch: &Scratch) -> Vec<String> {
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    // The shards that exist decode.
    (0..split.len()).for_each(|row| drop(split.decode(row).unwrap()));
    split.keys().map(str::to_string).collect()
}

/// Peak memory of a run in MB, from its closing line.
fn peak(ran: &Ran) -> u64 {
    let (_, after) = ran.stderr.split_once("peak memory ").unwrap();
    after.split(' ').next().unwrap().parse().unwrap()
}

/// A black PNG with one bit per pixel, whose data has `lines` lines.
fn black(width: u32, height: u32, lines: usize) -> Vec<u8> {
    let mut chunks = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        chunks.extend((data.len() as u32).to_be_bytes());
        chunks.extend(&body);
        chunks.extend(crc32fast::hash(&body).to_be_bytes());
    };
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&size[..], &[1, 0, 0, 0, 0]].concat());
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    let line = 1 + width.div_ceil(8) as usize;
    std::io::copy(&mut std::io::repeat(0).take((line * lines) as u64), &mut zlib).unwrap();
    chunk(b"IDAT", &zlib.finish().unwrap());
    chunk(b"IEND", b"");
    chunks
}

#[test]
fn single_bad_images_are_listed_and_the_run_goes_on() {
    let scratch = Scratch::new();
    let (good, photo) = (png(&real(0).0, 28), jpeg(&real(0).0, 28));
    let mut flipped = good.clone();
    flipped[100] ^= 1;
    let mut overwritten = photo.clone();
    let middle = photo.len() - 40;
    overwritten[middle..middle + 8].fill(0xfa);
    overwritten[middle + 2] = 0xff;
    overwritten[middle + 3] = 0x33;
    for i in 0..10 {
        scratch.write(&format!("in/good{i}.png"), png(&real(i).0, 28));
    }
    scratch.write("in/1 cut.jpg", &photo[..photo.len() - 40]);
    scratch.write("in/2 cut.png", &good[..good.len() - 5]);
    scratch.write("in/3 flipped.png", flipped);
    scratch.write("in/4 overwritten.jpg", overwritten);
    scratch.write("in/5 empty.png", b"");
    scratch.write("in/6 text.jpg", "not an image");
    scratch.write("in/7 other.gif", b"GIF89a\x01\0\x01\0");
    scratch.write("in/8 cut.webp", &sample("kinds/lossy.webp")[..300]);
    let name = std::ffi::OsStr::from_bytes(b"9 \xff.png");
    std::fs::write(scratch.path("in").join(name), &good).unwrap();
    // A wrong file name, but an image.
    scratch.write("in/wrong.jpg", &good);
    scratch.write("in/wrong without an ending", &photo);

    let args = ["--in", "in", "--out", "shards"];
    let ran = shard(&scratch, &args);
    ran.fails(65, &["in", "0.01 of 21", "--allow-rejects"]);
    assert_eq!(scratch.names(), ["in"]);
    let strict = shard(&scratch, &[&args[..], &["--strict", "-q"]].concat());
    strict.fails(65, &["1 cut.jpg", "without its end"]);
    let ran = shard(&scratch, &[&args[..], &["--allow-rejects", "0.5"]].concat()).ok();
    assert!(ran.stderr.contains("9 of 21 images"), "{}", ran.stderr);
    rejected(
        &scratch,
        &[
            ("1 cut.jpg", "JPEG without its end"),
            ("2 cut.png", "PNG without its end"),
            ("3 flipped.png", "checksum of its chunk IDAT"),
            ("4 overwritten.jpg", "marker FF 33"),
            ("5 empty.png", "empty file"),
            ("6 text.jpg", "no JPEG, PNG, WebP, GIF or BMP"),
            ("7 other.gif", "GIF without its end"),
            ("8 cut.webp", "WebP without its end"),
            ("9 \u{fffd}.png", "not UTF-8"),
        ],
    );
    assert_eq!(keys(&scratch).len(), 12);
    // The manifest covers the list of rejects too.
    let manifest = std::fs::read_to_string(scratch.path("shards/MANIFEST.b3")).unwrap();
    assert!(manifest.contains("  rejects.parquet\n"));
}

#[test]
fn damage_within_the_compressed_data_is_found_on_demand() {
    let scratch = Scratch::new();
    // The checksums are right, but the data is half of what the header says.
    scratch.write("in/1.png", black(64, 64, 32));
    scratch.write("in/2.png", png(&real(0).0, 28));
    let args = ["--in", "in", "--allow-rejects", "0.5", "--out", "shards"];
    shard(&scratch, &[&args[..], &["--decode"]].concat()).ok();
    assert_eq!(rejects(&scratch)[0].0, "1.png");
    assert_eq!(keys(&scratch), ["2.png"]);
}

#[test]
fn memory_is_bounded_whatever_an_image_claims() {
    let scratch = Scratch::new();
    scratch.write("in/0 one.png", sample("kinds/one.png"));
    // A complete image of 600 million pixels, in 80 KB.
    scratch.write("in/1 huge.png", black(30_000, 20_000, 20_000));
    let mut claims = jpeg(&real(0).0, 28);
    let frame = claims.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    claims[frame + 5..frame + 9].fill(0xf0);
    scratch.write("in/2 claims.jpg", claims);
    // 800 MB of lines after a header of 64 x 64.
    let bomb = black(64, 64, 90_000_000);
    assert!(bomb.len() > 500_000, "{}", bomb.len());
    scratch.write("in/3 bomb.png", bomb);
    scratch.write("in/4 scans.jpg", many_scans());
    let args = ["--in", "in", "--allow-rejects", "0.9", "--out", "shards"];
    let ran = shard(&scratch, &[&args[..], &["--decode"]].concat()).ok();
    let reasons = rejects(&scratch);
    let of = |key: &str| reasons.iter().find(|r| r.0 == key).map(|r| r.1.clone());
    assert!(of("1 huge.png").unwrap().contains("20000x30000 is more"));
    assert!(of("2 claims.jpg").unwrap().contains("61680x61680, where"));
    assert!(of("4 scans.jpg").unwrap().contains("more than 500 scans"));
    assert_eq!(of("0 one.png"), None);
    assert!(peak(&ran) < 100, "{}", ran.stderr);
}

#[test]
fn a_key_twice_is_rejected() {
    let scratch = Scratch::new();
    let mut tar = tar::Builder::new(Vec::new());
    for (row, name) in ["a/1.png", "b/1.png", "a/1.png", "b/2.png"].iter().enumerate() {
        let bytes = png(&real(row).0, 28);
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    scratch.write("in.tar", tar.into_inner().unwrap());
    let args = ["--in", "in.tar", "--allow-rejects", "0.5", "--out", "shards"];
    shard(&scratch, &args).ok();
    rejected(&scratch, &[("a/1.png", "key that an earlier image has")]);
    assert_eq!(keys(&scratch), ["a/1.png", "b/1.png", "2.png"]);
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let first = png(&real(0).0, 28);
    let split = shards.split("train").unwrap();
    assert_eq!(split.stored(0).unwrap(), Stored::Encoded(&first));
}

#[test]
fn names_in_a_tar_that_are_not_utf8() {
    let scratch = Scratch::new();
    let mut tar = sample("ilsvrc/ILSVRC2012_img_val.tar");
    tar[0] = 0xff;
    // The checksum of the header is the sum of its bytes.
    let sum: u32 =
        tar[..148].iter().chain(&tar[156..512]).map(|&b| u32::from(b)).sum::<u32>() + 8 * 32;
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    scratch.write("train.tar", tar);
    let args = ["--in", "train.tar", "--allow-rejects", "0.5", "--out", "shards"];
    shard(&scratch, &args).ok();
    rejected(&scratch, &[("\u{fffd}LSVRC2012_val_00000001.JPEG", "not UTF-8")]);
    assert_eq!(keys(&scratch).len(), 5);
}

#[test]
fn a_tar_cut_off_is_an_error_unless_rejects_are_allowed() {
    let scratch = Scratch::new();
    let args = ["--in", "train.tar", "--out", "shards", "-q", "--force"];
    let whole = sample("ilsvrc/ILSVRC2012_img_val.tar");
    let inner = sample("ilsvrc/ILSVRC2012_img_train.tar");
    // Within an image, within a header, after an image, and within an inner tar.
    for (tar, length, left) in [
        (&whole, 3 * 1536 + 700, 3),
        (&whole, 3 * 1536 + 100, 3),
        (&whole, 3 * 1536, 3),
        (&inner, 10240 + 512 + 512 + 200, 4),
    ] {
        scratch.write("train.tar", &tar[..length]);
        let ran = shard(&scratch, &args);
        ran.fails(65, &["train.tar", "copy it again", "--allow-rejects"]);
        shard(&scratch, &[&args[..], &["--allow-rejects", "1"]].concat()).ok();
        assert!(keys(&scratch).len() >= left, "{length}");
        let found = rejects(&scratch);
        assert_eq!(found.len(), 1, "{found:?}");
        std::fs::remove_dir_all(scratch.path("shards")).unwrap();
    }
}

#[test]
fn checksums_of_tfrecords_are_checked() {
    let scratch = Scratch::new();
    let args = ["--in", "train", "--out", "shards", "-q", "--force"];
    let allow = [&args[..], &["--allow-rejects", "0.5"]].concat();
    let whole = sample(TFRECORD);
    let mut broken = whole.clone();
    broken[IN_RECORD] ^= 1;
    scratch.write("train", &broken);
    shard(&scratch, &args).fails(65, &["train@0", "wrong checksum"]);
    shard(&scratch, &allow).ok();
    rejected(&scratch, &[("train@0", "wrong checksum")]);
    assert_eq!(keys(&scratch)[0], "000001.JPEG");
    assert_eq!(keys(&scratch).len(), 5);

    // A wrong length: the start of the next record is unknown.
    let second = 16 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut broken = whole.clone();
    broken[second] ^= 1;
    scratch.write("train", &broken);
    shard(&scratch, &args).fails(65, &["wrong checksum of a record's length", "copy it again"]);
    scratch.write("train", &whole[..whole.len() - 3]);
    shard(&scratch, &args).fails(65, &["ends within a record"]);

    // Complete records whose content is no image.
    let record = |data: &[u8]| {
        let mask =
            |b: &[u8]| crc32c::crc32c(b).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
        let length = (data.len() as u64).to_le_bytes();
        [&length[..], &mask(&length), data, &mask(data)].concat()
    };
    let more = [whole.clone(), record(b"\x0a\xff"), record(b""), whole.clone()].concat();
    scratch.write("train", more);
    shard(&scratch, &[&args[..], &["--allow-rejects", "0.9"]].concat()).ok();
    let found = rejects(&scratch);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].1.contains("no tf.train.Example"));
    assert!(found[1].1.contains("without image/encoded"));
    // If a name occurs twice, the record number precedes it.
    let keys = keys(&scratch);
    assert_eq!(keys.len(), 12);
    assert_eq!(keys[0], "train@0/000000.JPEG");
}

#[test]
fn labels_outside_of_the_class_list_are_rejected() {
    let scratch = Scratch::new();
    scratch.write("names.txt", "a\nb\nc\nd\n");
    let input = format!("{SAMPLES}/webdataset/train-000000.tar");
    let args = ["--in", &input, "--classes", "names.txt", "--out", "shards", "-q"];
    shard(&scratch, &args).fails(65, &["label 9", "outside of 4 classes"]);
    shard(&scratch, &[&args[..], &["--allow-rejects", "0.5"]].concat()).ok();
    rejected(&scratch, &[("000000.jpg", "label 9")]);

    scratch.write("in/1.png", png(&real(0).0, 28));
    scratch.write("in/2.png", png(&real(1).0, 28));
    scratch.write("labels.csv", "name,label\n1.png,a\n2.png,z\n");
    let args = ["--in", "in", "--labels", "labels.csv", "--classes", "names.txt"];
    let more = ["--allow-rejects", "0.5", "--force", "--out", "shards"];
    shard(&scratch, &[&args[..], &more[..]].concat()).ok();
    rejected(&scratch, &[("2.png", "outside of the class list")]);
    scratch.write("labels.csv", "name,label\n1.png,a\n1.png,b\n");
    shard(&scratch, &[&args[..], &["-q"]].concat()).fails(65, &["labels.csv", "line 3"]);
    scratch.write("list.csv", "path,label\nin/1.png,a\nin/3.png,b\n");
    let more = ["--in", "list.csv", "--allow-rejects", "0.5", "--force", "--out", "shards"];
    shard(&scratch, &more).ok();
    rejected(&scratch, &[("3.png", "no such file")]);
    scratch.write("list.csv", b"path,label\nin/1.png,\xff\n");
    shard(&scratch, &["--in", "list.csv", "-q"]).fails(65, &["list.csv", "UTF-8"]);
}

#[test]
fn damaged_parquet_and_binary_files_are_named() {
    let scratch = Scratch::new();
    let whole = sample("huggingface/train-00000-of-00001.parquet");
    for length in [4, 100, whole.len() / 2, whole.len() - 1] {
        scratch.write("in/train.parquet", &whole[..length]);
        shard(&scratch, &["--in", "in", "-q"]).fails(65, &["train.parquet"]);
    }
    // In place of the first page's header: a list that claims 2^31 - 1 numbers, a dictionary that claims as
    // many values, and a page that claims as many bytes.
    let list = [0x99, 0xf7, 0xff, 0xff, 0xff, 0xff, 0x07];
    let dictionary =
        [0x15, 4, 0x15, 100, 0x15, 100, 0x4c, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let page = [0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 100, 0x2c, 0x15, 4, 0, 0];
    // A field that the reader takes for the header of a data page, as text.
    let text = [0x15, 0, 0x15, 100, 0x15, 100, 0x28, 1, 0, 0];
    for (header, found) in [
        (&list[..], "more elements than bytes"),
        (&text, "another type"),
        (&dictionary, "more values than its bytes can hold"),
        (&page, "more bytes than it can have"),
    ] {
        let mut damaged = whole.clone();
        damaged[4..][..header.len()].copy_from_slice(header);
        scratch.write("in/train.parquet", damaged);
        shard(&scratch, &["--in", "in", "-q"]).fails(65, &["train.parquet", found]);
    }
    // The first field of the footer, a number, as text.
    let tail = whole.len() - 8;
    let length = u32::from_le_bytes(whole[tail..][..4].try_into().unwrap());
    let mut damaged = whole.clone();
    damaged[tail - length as usize] = 0x18;
    scratch.write("in/train.parquet", damaged);
    shard(&scratch, &["--in", "in", "-q"]).fails(65, &["train.parquet", "another type"]);
    scratch.write("stl/train_X.bin", [0; 1000]);
    scratch.write("stl/class_names.txt", "a\nb\n");
    shard(&scratch, &["--in", "stl", "-q"]).fails(65, &["train_X.bin", "27648"]);
    scratch.write("stl/train_X.bin", [0; 27648]);
    shard(&scratch, &["--in", "stl", "-q"]).fails(66, &["train_y.bin"]);
    scratch.write("stl/train_y.bin", [1, 2]);
    shard(&scratch, &["--in", "stl", "-q"]).fails(65, &["train_y.bin", "1 labels"]);
    assert_eq!(scratch.names(), ["in", "stl"]);
}

/// Needs the right to mount a file system.
#[test]
fn a_full_disk_leaves_no_shards_and_the_run_goes_on_later() {
    let scratch = Scratch::new();
    let disk = scratch.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |options: &str| {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk);
        mount.stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|s| s.success())
    };
    if !mount("size=256k") {
        eprintln!("SKIPPED: a full disk, for want of the right to mount one");
        return;
    }
    let args =
        ["--in", crate::common::SMOKE, "--out", "disk/shards", "-s", "file_bytes=100000", "-q"];
    let full = shard(&scratch, &args);
    let names = |path: &str| {
        let entries = std::fs::read_dir(scratch.path(path)).unwrap();
        entries.map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
    };
    let left = names("disk");
    let grown = mount("remount,size=8m");
    let again = shard(&scratch, &args);
    let after = names("disk");
    shard(
        &scratch,
        &["--in", crate::common::SMOKE, "--out", "plain", "-s", "file_bytes=100000", "-q"],
    )
    .ok();
    let (one, other) = ("disk/shards", "plain");
    let same = again.code == 0
        && crate::common::contents(&scratch.path(one))
            == crate::common::contents(&scratch.path(other));
    std::process::Command::new("umount").arg(&disk).status().unwrap();
    full.fails(74, &["No space left"]);
    assert_eq!(left, ["shards.partial"]);
    assert!(grown && same, "{}", again.stderr);
    assert!(after.iter().all(|n| n != "shards.partial"));
}
