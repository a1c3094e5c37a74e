//! `s4l-shard` on archives as people have them: each image gets its key and label in the shards, and
//! everything else is named.

use crate::common::{Scratch, are, labelled_keys, png, real, shard};
use s4l::shards::Shards;
use std::io::{Cursor, Write};
use tar::{Builder, EntryType, Header};

type Tar = Builder<Vec<u8>>;

fn add(tar: &mut Tar, name: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).unwrap();
}

fn image(row: usize) -> Vec<u8> {
    png(&real(row).0, 28)
}

/// A tar of images and text files.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (row, (name, text)) in files.iter().enumerate() {
        match text.is_empty() {
            true => add(&mut tar, name, &image(row)),
            false => add(&mut tar, name, text.as_bytes()),
        }
    }
    tar.into_inner().unwrap()
}

fn link(tar: &mut Tar, kind: EntryType, name: &str, target: &str) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    tar.append_link(&mut header, name, target).unwrap();
}

/// Keys with the names of their classes, and the messages.
struct Rows {
    rows: Vec<(String, String)>,
    said: String,
}

fn sharded(scratch: &Scratch, args: &[&str]) -> Rows {
    let out = ["--out", "shards", "--force"];
    let said = shard(scratch, &[args, &out[..]].concat()).ok().stderr;
    Rows { rows: labelled_keys(scratch, "train"), said }
}

#[test]
fn links_in_a_tar_are_followed_or_counted() {
    let scratch = Scratch::new();
    let mut builder = Builder::new(Vec::new());
    link(&mut builder, EntryType::Symlink, "photos/ant/a.png", "../cat/0.png");
    add(&mut builder, "photos/cat/0.png", &image(0));
    add(&mut builder, "photos/.store/7f3a", &image(1));
    link(&mut builder, EntryType::Link, "photos/dog/d0.png", "photos/cat/0.png");
    link(&mut builder, EntryType::Symlink, "photos/dog/d1.png", "../.store/7f3a");
    link(&mut builder, EntryType::Symlink, "photos/owl/o.png", "../dog/d1.png");
    link(&mut builder, EntryType::Symlink, "photos/owl/gone.png", "/elsewhere/1.png");
    scratch.write("photos.tar", builder.into_inner().unwrap());
    let Rows { rows, said } = sharded(&scratch, &["--in", "photos.tar"]);
    are(
        &rows,
        &[
            ("a.png", "ant"),
            ("0.png", "cat"),
            ("d0.png", "dog"),
            ("d1.png", "dog"),
            ("o.png", "owl"),
        ],
    );
    assert!(said.contains("1 links lead to no file"), "{said}");
    assert!(said.contains("photos/owl/gone.png"), "{said}");
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    for (row, image) in [(0, 0), (2, 0), (3, 1), (4, 1)] {
        let pixels = split.decode(row).unwrap().pixels;
        let grey: Vec<u8> = pixels.iter().step_by(3).copied().collect();
        assert_eq!(grey, real(image).0);
    }
}

#[test]
fn what_systems_leave_in_archives_is_no_data() {
    let scratch = Scratch::new();
    let bytes = tar(&[
        ("./photos/cat/0.png", ""),
        ("./photos/cat/._0.png", "x"),
        ("./photos/.ipynb_checkpoints/0-checkpoint.png", ""),
        ("./__MACOSX/photos/cat/._0.png", "x"),
        ("./photos/dog/1.png", ""),
    ]);
    scratch.write("photos.tar", bytes);
    let Rows { rows, .. } = sharded(&scratch, &["--in", "photos.tar"]);
    are(&rows, &[("0.png", "cat"), ("1.png", "dog")]);
}

#[test]
fn class_folders_of_uneven_depth_are_refused() {
    let scratch = Scratch::new();
    let tiny = tar(&[
        ("tiny/train/n01/images/n01_0.png", ""),
        ("tiny/train/n02/images/n02_0.png", ""),
        ("tiny/val/images/val_0.png", ""),
    ]);
    let uneven = tar(&[("a/cat/0.png", ""), ("b/c/dog/1.png", "")]);
    for bytes in [tiny, uneven] {
        scratch.write("in.tar", bytes);
        shard(&scratch, &["--in", "in.tar"]).fails(65, &["in.tar", "<class>/<image>"]);
    }
    // A folder is a split only if all folders beside it are splits.
    scratch
        .write("in.tar", tar(&[("x/bus/0.png", ""), ("x/car/1.png", ""), ("x/train/2.png", "")]));
    let found = sharded(&scratch, &["--in", "in.tar"]);
    are(&found.rows, &[("0.png", "bus"), ("1.png", "car"), ("2.png", "train")]);
    scratch.write("in.tar", tar(&[("x/Training/a/0.png", ""), ("x/Testing/a/1.png", "")]));
    let args = ["--in", "in.tar", "--out", "shards", "--force"];
    shard(&scratch, &args).ok();
    are(&labelled_keys(&scratch, "test"), &[("1.png", "-")]);
}

#[test]
fn tars_behind_the_end_mark_are_read_and_sparse_files_are_named() {
    let scratch = Scratch::new();
    let first = tar(&[("cat/0.png", ""), ("dog/1.png", "")]);
    let second = tar(&[("cat/2.png", ""), ("dog/3.png", "")]);
    scratch.write("in.tar", [&first[..], &[0; 20 * 512], &second].concat());
    let Rows { rows, .. } = sharded(&scratch, &["--in", "in.tar"]);
    are(&rows, &[("0.png", "cat"), ("1.png", "dog"), ("2.png", "cat"), ("3.png", "dog")]);
    // Bytes after the tar that are no tar are ignored.
    scratch.write("in.tar", [&first[..], b"signature"].concat());
    assert_eq!(sharded(&scratch, &["--in", "in.tar"]).rows.len(), 2);

    let mut builder = Builder::new(Vec::new());
    add(&mut builder, "cat/0.png", &image(0));
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("cat/holes.png").unwrap();
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 20);
    gnu.sparse[0].set_offset((1 << 20) - 512);
    gnu.sparse[0].set_length(512);
    header.set_cksum();
    builder.append(&header, &[1; 512][..]).unwrap();
    add(&mut builder, "dog/1.png", &image(1));
    scratch.write("in.tar", builder.into_inner().unwrap());
    let args = ["--in", "in.tar", "-q", "--strict", "--force"];
    shard(&scratch, &args).fails(65, &["holes.png", "sparse file"]);
    let Rows { rows, .. } = sharded(&scratch, &["--in", "in.tar", "--allow-rejects", "0.5"]);
    are(&rows, &[("0.png", "cat"), ("1.png", "dog")]);
}

#[test]
fn labels_of_webdataset_find_their_images() {
    let scratch = Scratch::new();
    let of = |files: &[(&str, &str)]| {
        scratch.write("train.tar", tar(files));
        sharded(&scratch, &["--in", "train.tar"])
    };
    let expected = [("0.png", "0"), ("1.png", "1")];
    // After all images.
    let apart = of(&[("0.png", ""), ("1.png", ""), ("0.cls", "0"), ("1.cls", "1")]);
    are(&apart.rows, &expected);
    let mask =
        of(&[("0.seg.png", ""), ("0.png", ""), ("1.png", ""), ("1.cls", "1"), ("0.cls", "0")]);
    are(&mask.rows, &expected);
    assert!(!mask.said.contains("more than one image"), "{}", mask.said);
    let compound =
        of(&[("0.in.png", ""), ("0.out.cls", "0"), ("1.in.png", ""), ("1.out.cls", "1")]);
    are(&compound.rows, &[("0.in.png", "0"), ("1.in.png", "1")]);
    let dots = of(&[("0.a.png", ""), ("0.a.cls", "0"), ("0.b.png", ""), ("0.b.cls", "1")]);
    are(&dots.rows, &[("0.a.png", "0"), ("0.b.png", "1")]);
    let two = of(&[
        ("0.png", ""),
        ("0.webp.png", ""),
        ("0.cls", "0"),
        ("1.png", ""),
        ("1.png", ""),
        ("1.cls", "1"),
    ]);
    are(&two.rows, &expected);
    assert!(two.said.contains("1 samples have more than one image"), "{}", two.said);
    let lost = of(&[("0.png", ""), ("0.cls", "0"), ("7.cls", "1")]);
    are(&lost.rows, &expected[..1]);
    assert!(lost.said.contains("1 label files without an image, as 7.cls"), "{}", lost.said);
    let ran = |files: &[(&str, &str)], more: &[&str]| {
        scratch.write("train.tar", tar(files));
        shard(&scratch, &[&["--in", "train.tar", "--force", "-q"][..], more].concat())
    };
    let ran_none = ran(&[("images/0.png", ""), ("labels/0.cls", "1")], &[]);
    ran_none.fails(65, &["labels/0.cls", "a label for each image"]);
    let empty = [("0.png", ""), ("0.cls", "-1"), ("1.png", ""), ("1.json", "{\"label\": null}")];
    ran(&empty, &[])
        .fails(65, &["2 label files that say -1, null or nothing", "--unlabelled train"]);
    ran(&empty, &["--unlabelled", "train"]).ok();
    are(&labelled_keys(&scratch, "train"), &[("0.png", "-"), ("1.png", "-")]);
    ran(&[("unsup/0.png", ""), ("unsup/0.cls", "-1")], &[]).ok();
    let nested = [("0.png", ""), ("0.json", "{\"info\": {\"category\": \"cat\"}, \"id\": 7}")];
    ran(&nested, &[]).fails(65, &["id, info.category", "--label-column"]);
    ran(&nested, &["--label-column", "info.category"]).ok();
    are(&labelled_keys(&scratch, "train"), &[("0.png", "cat")]);
    // Captions are no labels, and no mistake either.
    let captions = of(&[("0.png", ""), ("0.json", "{\"caption\": \"a cat\"}")]);
    are(&captions.rows, &[("0.png", "-")]);
    assert!(captions.said.contains("the first has caption"), "{}", captions.said);
    // The same for files beside class folders.
    let beside = of(&[("cat/0.png", ""), ("dog/1.png", ""), ("labels.json", "{\"label2id\": 7}")]);
    are(&beside.rows, &[("0.png", "cat"), ("1.png", "dog")]);
    let floats =
        of(&[("0.png", ""), ("0.json", "{\"label\": 2.0}"), ("1.png", ""), ("1.cls", "-1")]);
    are(&floats.rows, &[("0.png", "2"), ("1.png", "-")]);
}

#[test]
fn a_key_that_repeats_has_the_name_of_its_archive_in_front() {
    let scratch = Scratch::new();
    for shard in ["train-0000", "train-0001"] {
        let files = [("0.png", ""), ("0.cls", "0"), ("1.png", ""), ("1.cls", "1")];
        scratch.write(&format!("in/{shard}.tar"), tar(&files));
    }
    let Rows { rows, .. } = sharded(&scratch, &["--in", "in"]);
    are(
        &rows,
        &[
            ("train-0000/0.png", "0"),
            ("train-0000/1.png", "1"),
            ("train-0001/0.png", "0"),
            ("train-0001/1.png", "1"),
        ],
    );
}

fn zip(files: &[(&str, Vec<u8>)], method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn compressed_tars_and_zips_are_as_the_plain_tar() {
    let scratch = Scratch::new();
    let names = ["p/train/cat/0.png", "p/train/dog/1.png", "p/test/cat/2.png", "p/test/dog/3.png"];
    let plain = tar(&names.map(|name| (name, "")));
    scratch.write("p.tar", &plain);
    let small = ["-s", "file_bytes=500"];
    let of = |input: &str| {
        sharded(&scratch, &[&["--in", input], &small[..]].concat());
        let shards = Shards::open(&scratch.path("shards")).unwrap();
        let hash = |split: &str| shards.split(split).unwrap().content_hash().to_string();
        (
            labelled_keys(&scratch, "train"),
            labelled_keys(&scratch, "test"),
            hash("train"),
            hash("test"),
        )
    };
    let expected = of("p.tar");
    are(&expected.0, &[("0.png", "cat"), ("1.png", "dog")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    scratch.write("p.tar.gz", &gzip);
    scratch.write("p.tgz/renamed", &gzip);
    scratch.write("p.tar.zst", zstd::encode_all(&plain[..], 3).unwrap());
    let files: Vec<_> = names.iter().enumerate().map(|(row, name)| (*name, image(row))).collect();
    scratch.write("p.zip", zip(&files, zip::CompressionMethod::Deflated));
    let windows: Vec<String> = names.map(|name| name.replace('/', "\\")).to_vec();
    let windows = windows.iter().map(String::as_str).zip(files.iter().map(|f| f.1.clone()));
    scratch.write("stored.zip", zip(&windows.collect::<Vec<_>>(), zip::CompressionMethod::Stored));
    for input in ["p.tar.gz", "p.tgz", "p.tar.zst", "p.zip", "stored.zip"] {
        assert!(of(input) == expected, "{input}");
    }
    // Otherwise each part would read a compressed tar from its start.
    let part = ["--in", "p.tar.gz", "--part", "1/2", "--out", "parts"];
    shard(&scratch, &part).fails(2, &["gunzip", "p.tar.gz"]);
    shard(&scratch, &["--in", "p.zip", "--part", "1/2", "--out", "parts"]).ok();

    scratch.write("cut.tar.gz", &gzip[..gzip.len() / 2]);
    shard(&scratch, &["--in", "cut.tar.gz", "-q", "--force"]).fails(65, &["cut.tar.gz"]);
    // The data are complete, the checksum is wrong.
    let mut damaged = gzip.clone();
    damaged[gzip.len() - 6] ^= 1;
    scratch.write("sum.tar.gz", damaged);
    shard(&scratch, &["--in", "sum.tar.gz", "-q", "--force"])
        .fails(65, &["sum.tar.gz", "checksum"]);
    let mut damaged = std::fs::read(scratch.path("stored.zip")).unwrap();
    let pixels = damaged.windows(4).position(|w| w == b"IDAT").unwrap() + 20;
    damaged[pixels] ^= 1;
    scratch.write("damaged.zip", &damaged);
    let args = ["--in", "damaged.zip", "-q", "--strict", "--force"];
    shard(&scratch, &args).fails(65, &["0.png", "damaged in the zip"]);
    scratch.write("cut.zip", &damaged[..damaged.len() - 40]);
    shard(&scratch, &["--in", "cut.zip", "-q"]).fails(65, &["cut.zip", "whole zip"]);
}

#[test]
fn what_is_made_to_fill_a_disk_is_refused() {
    let scratch = Scratch::new();
    let mut builder = Builder::new(Vec::new());
    add(&mut builder, "cat/0.png", &image(0));
    add(&mut builder, "cat/zeros.png", &vec![0; 200 << 20]);
    add(&mut builder, "dog/1.png", &image(1));
    let bomb = zstd::encode_all(&builder.into_inner().unwrap()[..], 1).unwrap();
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    scratch.write("bomb.tar.zst", bomb);
    let ran = shard(&scratch, &["--in", "bomb.tar.zst", "-q"]);
    ran.fails(65, &["bomb.tar.zst", "1000 times"]);
}

#[test]
fn an_archive_without_images_says_what_is_in_it() {
    let scratch = Scratch::new();
    let bytes = tar(&[("x/train.zip", "PK"), ("x/data_batch_1", "p")]);
    scratch.write("in.tar", bytes);
    shard(&scratch, &["--in", "in.tar"]).fails(65, &["2 files", "x/train.zip", "unpack"]);
}
