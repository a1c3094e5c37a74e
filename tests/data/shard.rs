//! `s4l-shard` on real images: what it writes, keeps and refuses.

use crate::common::{
    IMAGES, LABELS, SMOKE, Scratch, batches, contents, jpeg, metadata, photos, png, real, shard,
    smoke, smoke_shards,
};
use arrow::array::AsArray;
use parquet::basic::{Compression, Encoding};
use s4l::shards::{Shards, Stored};
use std::path::Path;

const TRAIN: &str = "shards/train-00000-of-00001.parquet";

#[test]
fn pixels_come_back_as_they_were() {
    let scratch = smoke_shards();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    assert_eq!(shards.splits(), ["test", "train"]);
    assert_eq!(shards.classes().len(), 10);
    assert_eq!(shards.classes()[9], "Ankle boot");
    for (name, prefix, count) in [("train", "train", 400), ("test", "t10k", 200)] {
        let split = shards.split(name).unwrap();
        let images = smoke(&format!("{prefix}-images-idx3-ubyte"));
        let labels = smoke(&format!("{prefix}-labels-idx1-ubyte"));
        assert_eq!((split.len(), split.channels()), (count, 1));
        for row in 0..count {
            let pixels = &images[16 + row * 784..][..784];
            assert_eq!(split.stored(row).unwrap(), Stored::Pixels(pixels));
            assert_eq!(split.decode(row).unwrap().pixels, pixels);
            assert_eq!(split.labels().unwrap()[row], Some(labels[8 + row].into()));
            assert_eq!(split.key(row), format!("{name}-{row:06}"));
            assert_eq!(split.row(split.key(row)), Some(row));
            assert_eq!(split.size(row), (28, 28));
        }
        assert_eq!(split.row("nothing"), None);
    }
}

#[test]
fn plain_gzip_and_zstd_idx_hold_the_same_rows() {
    let scratch = smoke_shards();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &smoke(IMAGES)).unwrap();
    scratch.write(&format!("idx/{IMAGES}.gz"), gzip.finish().unwrap());
    scratch.write(&format!("idx/{LABELS}"), smoke(LABELS));
    shard(&scratch, &["--in", "idx", "--out", "other"]).ok();
    let open = |name: &str| Shards::open(&scratch.path(name)).unwrap();
    let (here, there) = (open("shards"), open("other"));
    assert_eq!(there.splits(), ["train"]);
    let digits: Vec<String> = (0..10).map(|d| d.to_string()).collect();
    assert_eq!(there.classes(), digits);
    assert_eq!(
        here.split("train").unwrap().content_hash(),
        there.split("train").unwrap().content_hash()
    );
}

#[test]
fn idx_without_labels_has_null_labels() {
    let scratch = Scratch::new();
    scratch.write(&format!("idx/{IMAGES}"), smoke(IMAGES));
    shard(&scratch, &["--in", "idx", "--out", "shards"]).ok();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    assert!(split.labels().unwrap().iter().all(Option::is_none));
}

#[test]
fn encoded_images_stay_byte_for_byte() {
    let scratch = Scratch::new();
    photos(&scratch);
    shard(&scratch, &["--in", "photos", "--out", "shards"]).ok();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    assert_eq!(shards.classes(), ["bag", "coat", "shirt"]);
    let split = shards.split("train").unwrap();
    assert_eq!((split.len(), split.channels()), (12, 3));
    for row in 0..12 {
        let key = split.key(row);
        let class = &shards.classes()[split.labels().unwrap()[row].unwrap() as usize];
        let file = std::fs::read(scratch.path(&format!("photos/{class}/{key}"))).unwrap();
        assert_eq!(split.stored(row).unwrap(), Stored::Encoded(&file));
        let decoded = split.decode(row).unwrap();
        assert_eq!((decoded.height, decoded.width, decoded.channels), (28, 28, 3));
        let truth = real(key[..2].parse().unwrap()).0;
        let grey = decoded.pixels.chunks_exact(3).map(|rgb| rgb[0]);
        let far = grey.zip(truth).map(|(a, b)| a.abs_diff(b)).max().unwrap();
        // PNG is exact; JPEG of quality 95 is not.
        assert!(far <= if key.ends_with("png") { 0 } else { 40 }, "{key}: {far}");
    }
    let paths = batches(&scratch.path(TRAIN));
    let paths = paths[0].column_by_name("image").unwrap().as_struct();
    let paths = paths.column_by_name("path").unwrap().as_string::<i32>();
    assert!(paths.iter().flatten().eq(split.keys()));
}

#[test]
fn folders_of_splits_and_keys_of_equal_base_names() {
    let scratch = Scratch::new();
    let image = |row| png(&real(row).0, 28);
    scratch.write("in/train/a/1.png", image(0));
    scratch.write("in/train/b/1.png", image(1));
    scratch.write("in/train/b/2.png", image(2));
    scratch.write("in/val/b/1.png", image(3));
    scratch.write("in/test/4.png", image(4));
    let ran = shard(&scratch, &["--in", "in", "--out", "shards"]).ok();
    assert!(!ran.stderr.contains("warning"));
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    assert_eq!(shards.splits(), ["test", "train", "val"]);
    let rows = |name| {
        let split = shards.split(name).unwrap();
        let rows = (0..split.len()).map(|r| (split.key(r).to_string(), split.labels().unwrap()[r]));
        rows.collect::<Vec<_>>()
    };
    let row = |key: &str, label| (key.to_string(), label);
    let train = [row("a/1.png", Some(0)), row("b/1.png", Some(1)), row("2.png", Some(1))];
    assert_eq!(rows("train"), train);
    assert_eq!(rows("val"), [row("1.png", Some(1))]);
    assert_eq!(rows("test"), [row("4.png", None)]);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let scratch = Scratch::new();
    photos(&scratch);
    for input in [SMOKE, "photos"] {
        shard(&scratch, &["--in", input, "--out", "a", "--threads", "1"]).ok();
        shard(&scratch, &["--in", input, "--out", "b", "--threads", "2"]).ok();
        assert_eq!(contents(&scratch.path("a")), contents(&scratch.path("b")));
        std::fs::remove_dir_all(scratch.path("a")).unwrap();
        std::fs::remove_dir_all(scratch.path("b")).unwrap();
    }
}

#[test]
fn labels_do_not_enter_the_content_hash() {
    let scratch = smoke_shards();
    let mut labels = smoke(LABELS);
    labels[8..].reverse();
    scratch.write(&format!("idx/{LABELS}"), labels);
    scratch.write(&format!("idx/{IMAGES}"), smoke(IMAGES));
    shard(&scratch, &["--in", "idx", "--out", "other"]).ok();
    let hash = |name| {
        let shards = Shards::open(&scratch.path(name)).unwrap();
        shards.split("train").unwrap().content_hash().to_string()
    };
    assert_eq!(hash("shards"), hash("other"));
    let mut images = smoke(IMAGES);
    images[16 + 784] ^= 1;
    scratch.write(&format!("idx/{IMAGES}"), images);
    shard(&scratch, &["--in", "idx", "--out", "third"]).ok();
    assert_ne!(hash("shards"), hash("third"));
}

#[test]
fn the_order_of_images_enters_the_content_hash() {
    let scratch = Scratch::new();
    let hash = |list: &str| {
        scratch.write("list.csv", format!("path,label\n{list}"));
        shard(&scratch, &["--in", "list.csv", "--out", "shards", "--force"]).ok();
        let shards = Shards::open(&scratch.path("shards")).unwrap();
        shards.split("train").unwrap().content_hash().to_string()
    };
    scratch.write("a.png", png(&real(0).0, 28));
    scratch.write("b.png", png(&real(1).0, 28));
    assert_ne!(hash("a.png,x\nb.png,x\n"), hash("b.png,x\na.png,x\n"));
}

#[test]
fn a_file_ends_after_65536_images() {
    let scratch = Scratch::new();
    let mut idx = vec![0, 0, 8, 3];
    for size in [70_000_u32, 1, 1] {
        idx.extend(size.to_be_bytes());
    }
    idx.resize(idx.len() + 70_000, 7);
    scratch.write(&format!("idx/{IMAGES}"), idx);
    shard(&scratch, &["--in", "idx", "--out", "shards"]).ok();
    let rows = [0, 1].map(|file| {
        let path = format!("shards/train-0000{file}-of-00002.parquet");
        let batches = batches(&scratch.path(&path));
        batches.iter().map(|b| b.num_rows()).sum::<usize>()
    });
    assert_eq!(rows, [65_536, 4_464]);
}

#[test]
fn manifest_and_lineage() {
    let scratch = smoke_shards();
    let manifest = std::fs::read_to_string(scratch.path("shards/MANIFEST.b3")).unwrap();
    let mut named = Vec::new();
    for line in manifest.lines() {
        let (hash, name) = line.split_once("  ").unwrap();
        let bytes = std::fs::read(scratch.path("shards").join(name)).unwrap();
        assert_eq!(blake3::hash(&bytes).to_hex().as_str(), hash);
        named.push(name.to_string());
    }
    let files = contents(&scratch.path("shards")).into_iter().map(|f| f.0);
    assert!(files.filter(|f| f != "MANIFEST.b3").eq(named));
    let metadata = metadata(&scratch.path(TRAIN));
    let footer = metadata.file_metadata().key_value_metadata().unwrap();
    for key in ["s4l.tool", "s4l.version", "s4l.recipe", "s4l.seed", "s4l.input.images"] {
        assert!(footer.iter().any(|kv| kv.key == key), "{key}");
    }
    assert!(scratch.path("shards.prov.json").is_file());
}

#[test]
fn layout_of_encoded_images_is_one_plain_row_a_page() {
    let scratch = Scratch::new();
    photos(&scratch);
    shard(&scratch, &["--in", "photos", "--out", "shards"]).ok();
    layout(&scratch.path(TRAIN), "image.bytes", 1);
}

#[test]
fn layout_of_pixels_is_plain_pages_of_256_rows() {
    let scratch = smoke_shards();
    layout(&scratch.path(TRAIN), "pixels", 256);
}

#[track_caller]
fn layout(path: &Path, leaf: &str, page_rows: i64) {
    let metadata = metadata(path);
    for (i, group) in metadata.row_groups().iter().enumerate() {
        for (c, column) in group.columns().iter().enumerate() {
            if column.column_path().string() != leaf {
                assert!(matches!(column.compression(), Compression::ZSTD(_)));
                continue;
            }
            assert_eq!(column.compression(), Compression::UNCOMPRESSED);
            let plain = |e| matches!(e, Encoding::PLAIN | Encoding::RLE);
            assert!(column.encodings().all(plain));
            assert!(column.statistics().is_none());
            assert!(column.dictionary_page_offset().is_none());
            let index = metadata.page_index_for_row_group(i);
            let pages = index.page_locations(c).unwrap();
            let starts = pages.iter().map(|p| p.first_row_index);
            assert!(starts.eq((0..group.num_rows()).step_by(page_rows as usize)));
        }
    }
}

#[test]
fn up_to_date_exists_and_force() {
    let scratch = smoke_shards();
    let before = contents(&scratch.path("shards"));
    let again = shard(&scratch, &["--in", SMOKE, "--out", "shards/"]).ok();
    assert!(again.stderr.contains("up to date"));
    let other = ["--in", SMOKE, "--out", "shards", "-s", "file_bytes=100000", "-q"];
    shard(&scratch, &other).fails(73, &["shards", "--force"]);
    assert_eq!(contents(&scratch.path("shards")), before);
    shard(&scratch, &[&other[..], &["--force"]].concat()).ok();
    assert!(scratch.path("shards/train-00003-of-00004.parquet").is_file());
    assert!(!scratch.path(TRAIN).exists());
    assert_eq!(scratch.names(), ["shards", "shards.prov.json"]);
}

#[test]
fn force_never_deletes_a_folder_of_something_else() {
    let scratch = Scratch::new();
    scratch.write("thesis/chapter1.tex", "words");
    let ran = shard(&scratch, &["--in", SMOKE, "--out", "thesis", "--force"]);
    ran.fails(73, &["thesis", "not a shard folder", "another --out"]);
    assert_eq!(scratch.names(), ["thesis"]);
    assert!(scratch.path("thesis/chapter1.tex").is_file());
}

#[test]
fn output_in_or_over_the_input_is_refused() {
    let scratch = Scratch::new();
    photos(&scratch);
    for out in ["photos", "photos/shards", "photos/../photos/x/y", "."] {
        let ran = shard(&scratch, &["--in", "photos", "--out", out, "--force"]);
        ran.fails(2, &["input", "--out"]);
    }
    assert_eq!(scratch.names(), ["photos"]);
}

#[test]
fn dry_run_prints_the_plan_and_writes_nothing() {
    let scratch = Scratch::new();
    let ran = shard(&scratch, &["--in", SMOKE, "--out", "shards", "--dry-run"]).ok();
    assert!(ran.stdout.contains("train 400"), "{}", ran.stdout);
    assert!(scratch.names().is_empty());
}

#[test]
fn stopped_early_it_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let args = ["--in", SMOKE, "--out", "shards", "--max-seconds", "0"];
    shard(&scratch, &args).fails(75, &["shards", "nothing was written"]);
    assert!(scratch.names().is_empty());
}

/// One bad input per line: the files in `in`, the exit code, and words of the message.
#[test]
fn bad_input_is_named_and_leaves_nothing_behind() {
    type Case = (&'static str, Vec<(String, Vec<u8>)>, i32, &'static [&'static str]);
    let image = png(&real(0).0, 28);
    let photo = jpeg(&real(0).0, 28);
    let file = |name: &str, bytes: &[u8]| (name.to_string(), bytes.to_vec());
    let (images, labels) = (smoke(IMAGES), smoke(LABELS));
    let zst = std::fs::read(format!("{SMOKE}/{IMAGES}.zst")).unwrap();
    let mut fewer = labels.clone();
    fewer[4..8].copy_from_slice(&399u32.to_be_bytes());
    let mut outside = labels.clone();
    outside[8..8 + 7].fill(10);
    let mut wide = images.clone();
    wide[8..12].copy_from_slice(&14u32.to_be_bytes());
    wide[12..16].copy_from_slice(&56u32.to_be_bytes());
    let mut huge = images.clone();
    huge[4..16].fill(0xff);
    let mut many = images.clone();
    many[4..16].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1]);
    let cases: Vec<Case> = vec![
        ("nothing", vec![], 66, &["in", "not found"]),
        ("no images", vec![file("a/notes.txt", b"x")], 65, &["in/a", "1 other files"]),
        ("deep", vec![file("a/b/1.png", &image)], 65, &["in/a/b"]),
        (
            "cut PNG",
            vec![file("a/1.png", &image), file("a/2.png", &image[..200])],
            65,
            &["a/2.png"],
        ),
        ("cut JPEG", vec![file("a/1.jpg", &photo[..photo.len() - 40])], 65, &["a/1.jpg"]),
        ("not an image", vec![file("a/1.png", b"GIF89a")], 65, &["a/1.png"]),
        ("empty image", vec![file("a/1.png", b"")], 65, &["a/1.png"]),
        ("cut IDX", vec![file(IMAGES, &images[..5000])], 65, &[IMAGES, "400 images", "after 6"]),
        ("long IDX", vec![file(IMAGES, &[&images[..], b"x"].concat())], 65, &["more bytes"]),
        ("cut zstd", vec![file(&format!("{IMAGES}.zst"), &zst[..5000])], 65, &[".zst"]),
        ("not zstd", vec![file(&format!("{IMAGES}.zst"), b"abcdefgh")], 65, &[".zst"]),
        ("not gzip", vec![file(&format!("{IMAGES}.gz"), b"abcdefgh")], 65, &[".gz"]),
        ("cut header", vec![file(IMAGES, &images[..7])], 65, &["header"]),
        ("huge header", vec![file(IMAGES, &huge)], 65, &[IMAGES]),
        ("many claimed", vec![file(IMAGES, &many)], 65, &[IMAGES, "the end after 313600 images"]),
        ("swapped", vec![file(IMAGES, &labels)], 65, &["found uint8 with 1 dimensions"]),
        (
            "cut labels",
            vec![file(IMAGES, &images), file(LABELS, &labels[..100])],
            65,
            &[LABELS, "after 92"],
        ),
        (
            "fewer labels",
            vec![file(IMAGES, &images), file(LABELS, &fewer)],
            65,
            &[LABELS, "400", "399"],
        ),
        (
            "label outside",
            vec![file(IMAGES, &images), file(LABELS, &outside)],
            65,
            &["train-000000", "label 10", "10 classes"],
        ),
        (
            "mixed sizes",
            vec![file(IMAGES, &images), file("t10k-images-idx3-ubyte", &wide)],
            65,
            &["28x28", "14x56"],
        ),
        (
            "class twice",
            vec![file(IMAGES, &images), file("classes.txt", b"a\nb\na\n")],
            65,
            &["classes.txt", "line 3"],
        ),
    ];
    for (what, files, code, words) in cases {
        let scratch = Scratch::new();
        for (name, bytes) in &files {
            scratch.write(&format!("in/{name}"), bytes);
        }
        let ran = shard(&scratch, &["--in", "in", "--out", "shards"]);
        println!("{what}: {}", ran.stderr);
        ran.fails(code, words);
        assert!(scratch.names().iter().all(|n| n == "in"), "{what}");
    }
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("in")).unwrap();
    shard(&scratch, &["--in", "in"]).fails(65, &["in", "empty folder"]);
    let file = scratch.write("file", "x");
    shard(&scratch, &["--in", file.to_str().unwrap()]).fails(65, &["a file"]);
    shard(&scratch, &["--in", SMOKE, "-q", "-s", "rows=1"]).fails(78, &["rows"]);
    shard(&scratch, &["--in", SMOKE, "-q", "-s", "file_bytes=0"]).fails(78, &["file_bytes"]);
}
