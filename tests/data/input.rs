//! `s4l-shard` on a sample of every input format. `tests/golden/inputs.py` made the samples of other
//! libraries' formats; they have the first images of `pipelines/smoke/data`.

use crate::common::{LABELS, Scratch, batches, jpeg, png, real, shard, smoke};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use s4l::shards::{Shards, Split, Stored};
use std::path::Path;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/inputs");

fn sample(name: &str) -> String {
    format!("{SAMPLES}/{name}")
}

/// Shards an input into `shards`.
fn sharded(scratch: &Scratch, args: &[&str]) -> Shards {
    let out = ["--out", "shards", "--force"];
    shard(scratch, &[args, &out[..]].concat()).ok();
    Shards::open(&scratch.path("shards")).unwrap()
}

fn rows(split: &Split) -> Vec<(String, Option<u32>)> {
    let rows = 0..split.len();
    rows.map(|r| (split.key(r).to_string(), split.labels().unwrap()[r])).collect()
}

fn label_of(row: usize) -> u32 {
    smoke(LABELS)[8 + row].into()
}

/// The rows of a split are the smoke images from `first` on, in order, with their labels.
#[track_caller]
fn holds(shards: &Shards, split: &str, first: usize, count: usize, key: impl Fn(usize) -> String) {
    let split = shards.split(split).unwrap();
    let expected: Vec<_> =
        (first..first + count).map(|row| (key(row), Some(label_of(row)))).collect();
    assert_eq!(rows(&split), expected);
    for row in 0..count {
        let grey = split.decode(row).unwrap();
        let truth = real(first + row).0;
        let pairs = grey.pixels.chunks_exact(3).map(|rgb| rgb[0]).zip(truth);
        let far: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(b))).sum();
        // JPEG of quality 90; any two of these images differ by more than 5 levels per pixel.
        assert!(far < 5 * 784, "{}: {far}", split.key(row));
    }
}

#[test]
fn ilsvrc_tar_of_tars_and_validation_tar() {
    let scratch = Scratch::new();
    let train = sample("ilsvrc/ILSVRC2012_img_train.tar");
    let shards = sharded(&scratch, &["--in", &train]);
    assert_eq!(shards.classes(), ["n01440764", "n02100735", "n02119789"]);
    let split = shards.split("train").unwrap();
    let expected: Vec<_> = [("n02119789", 2), ("n02100735", 1), ("n01440764", 0)]
        .iter()
        .flat_map(|(s, label)| (1..=4).map(move |i| (format!("{s}_{i}.JPEG"), Some(*label))))
        .collect();
    assert_eq!(rows(&split), expected);

    // The ground truth 3 1 2 1 1 3 counts n02119789 n02100735 n01440764, as meta.mat says.
    let val = sample("ilsvrc/ILSVRC2012_img_val.tar");
    let truth = sample("ilsvrc/ILSVRC2012_validation_ground_truth.txt");
    let shards = sharded(&scratch, &["--in", &val, "--labels", &truth]);
    assert_eq!(shards.classes(), ["n01440764", "n02100735", "n02119789"]);
    let split = shards.split("test").unwrap();
    let expected: Vec<_> = [0, 2, 1, 2, 2, 0]
        .iter()
        .enumerate()
        .map(|(i, &label)| (format!("ILSVRC2012_val_{:08}.JPEG", i + 1), Some(label)))
        .collect();
    assert_eq!(rows(&split), expected);

    let alone =
        scratch.write("ILSVRC2012_validation_ground_truth.txt", std::fs::read(&truth).unwrap());
    let args = ["--in", &val, "--labels", alone.to_str().unwrap(), "--force"];
    shard(&scratch, &args).fails(66, &["meta.mat", "devkit"]);
}

#[test]
fn webdataset_of_several_tars() {
    let scratch = Scratch::new();
    let shards = sharded(&scratch, &["--in", &sample("webdataset")]);
    holds(&shards, "train", 0, 12, |row| format!("{row:06}.jpg"));
    let digits: Vec<String> = (0..10).map(|d| d.to_string()).collect();
    assert_eq!(shards.classes(), digits);
    let names = scratch.write("names.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    let args = ["--classes", names.to_str().unwrap()];
    let one = sample("webdataset/train-000001.tar");
    let shards = sharded(&scratch, &[&["--in", &one], &args[..]].concat());
    holds(&shards, "train", 6, 6, |row| format!("{row:06}.jpg"));
    assert_eq!(shards.classes()[9], "j");
}

#[test]
fn plain_tar_of_class_folders() {
    let scratch = Scratch::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    let long = format!("set/train/coat/{}.png", "x".repeat(150));
    add("set/train/bag/1.png", &png(&real(0).0, 28));
    add("set/README.txt", b"words");
    add(&long, &png(&real(1).0, 28));
    add("set/test/bag/1.jpg", &jpeg(&real(2).0, 28));
    add("set/train/coat/1.png", &png(&real(3).0, 28));
    scratch.write("photos.tar", tar.into_inner().unwrap());
    let shards = sharded(&scratch, &["--in", "photos.tar"]);
    assert_eq!(shards.classes(), ["bag", "coat"]);
    let train = rows(&shards.split("train").unwrap());
    let row = |key: &str, label| (key.to_string(), Some(label));
    let long = long.rsplit_once('/').unwrap().1;
    let expected = [row("set/train/bag/1.png", 0), row(long, 1), row("set/train/coat/1.png", 1)];
    assert_eq!(train, expected);
    assert_eq!(rows(&shards.split("test").unwrap()), [row("1.jpg", 0)]);
}

#[test]
fn tfrecord_of_tensor2tensor() {
    let scratch = Scratch::new();
    let shards = sharded(&scratch, &["--in", &sample("tfrecord")]);
    holds(&shards, "train", 0, 12, |row| format!("{row:06}.JPEG"));
    holds(&shards, "test", 12, 4, |row| format!("{row:06}.JPEG"));
    assert_eq!(shards.classes()[9], "Ankle boot");
}

#[test]
fn hugging_face_parquet_keeps_names_of_classes() {
    let scratch = Scratch::new();
    let shards = sharded(&scratch, &["--in", &sample("huggingface")]);
    holds(&shards, "train", 0, 12, |row| format!("{row:06}.png"));
    holds(&shards, "val", 12, 4, |row| format!("{row:06}.png"));
    assert_eq!(shards.classes()[0], "T-shirt/top");
    // Shards are such parquet files too.
    let before = shards.split("train").unwrap();
    std::fs::rename(scratch.path("shards"), scratch.path("first")).unwrap();
    let again = sharded(&scratch, &["--in", "first"]);
    let after = again.split("train").unwrap();
    assert_eq!(again.classes(), shards.classes());
    assert_eq!(rows(&after), rows(&before));
    assert_eq!(after.content_hash(), before.content_hash());
    // With the compression of other tools.
    let images = batches(&scratch.path("first/train-00000-of-00001.parquet"));
    for compression in [Compression::SNAPPY, Compression::GZIP(Default::default())] {
        let file = std::fs::File::create(scratch.path("train.parquet")).unwrap();
        let properties = WriterProperties::builder().set_compression(compression);
        let schema = images[0].schema();
        let mut writer = ArrowWriter::try_new(file, schema, Some(properties.build())).unwrap();
        images.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.close().unwrap();
        let again = sharded(&scratch, &["--in", "train.parquet"]);
        let after = again.split("train").unwrap();
        assert_eq!(after.content_hash(), before.content_hash());
    }
}

#[test]
fn flat_folder_with_a_list_of_labels() {
    let scratch = Scratch::new();
    for row in 0..6 {
        scratch.write(&format!("in/{row}.png"), png(&real(row).0, 28));
    }
    scratch.write(
        "labels.csv",
        "filename,label\n0.png,coat\n1.png,\n2.png,\"bag, small\"\n3.png,coat\n4.png,\n",
    );
    let args = ["--in", "in", "--labels", "labels.csv"];
    let shards = sharded(&scratch, &args);
    assert_eq!(shards.classes(), ["bag, small", "coat"]);
    let labels = |shards: &Shards| shards.split("train").unwrap().labels().unwrap().to_vec();
    let expected = [Some(1), None, Some(0), Some(1), None, None];
    assert_eq!(labels(&shards), expected);
    let ran = shard(&scratch, &[&args[..], &["--force"]].concat()).ok();
    assert!(ran.stderr.contains("1 of 6 images have no line"), "{}", ran.stderr);

    // The same images from a list of paths, without a header and with numbers for class names.
    scratch.write("list.csv", "in/0.png,7\nin/2.png,10\nin/3.png,\n");
    let shards = sharded(&scratch, &["--in", "list.csv"]);
    assert_eq!(shards.classes(), ["7", "10"]);
    let expected = ["0.png", "2.png", "3.png"].map(str::to_string);
    assert_eq!(shards.split("train").unwrap().keys().collect::<Vec<_>>(), expected);
    assert_eq!(labels(&shards), [Some(0), Some(1), None]);

    // Lines of name and number, as in caffe's val.txt.
    scratch.write("val.txt", "0.png 1\n1.png 0\n2.png 1\n3.png 0\n4.png 0\n5.png 1\n");
    scratch.write("names.txt", "zebra\nant\n");
    let args = ["--in", "in", "--labels", "val.txt", "--classes", "names.txt"];
    let shards = sharded(&scratch, &args);
    assert_eq!(shards.classes(), ["zebra", "ant"]);
    assert_eq!(labels(&shards), [1, 0, 1, 0, 0, 1].map(Some));
}

/// Three planes of a real image, its neighbours and an edge, `side` pixels wide.
fn planes(row: usize, side: usize) -> Vec<u8> {
    let mut planes = vec![0; 3 * side * side];
    for c in 0..3 {
        for (at, &value) in real(row + c).0.iter().enumerate() {
            planes[(c * side + at / 28) * side + at % 28] = value;
        }
    }
    planes
}

#[track_caller]
fn holds_planes(split: &Split, row: usize, image: usize, side: usize, by_column: bool) {
    let Stored::Pixels(pixels) = split.stored(row).unwrap() else { panic!("encoded") };
    let planes = planes(image, side);
    for y in 0..side {
        for x in 0..side {
            let at = if by_column { x * side + y } else { y * side + x };
            for c in 0..3 {
                let here = pixels[(y * side + x) * 3 + c];
                assert_eq!(here, planes[c * side * side + at], "row {row}, {y}, {x}, {c}");
            }
        }
    }
}

#[test]
fn cifar_10_and_100_binary() {
    let scratch = Scratch::new();
    let record = |image: usize, labels: &[u8]| [labels, &planes(image, 32)].concat();
    for batch in 1..=5 {
        let bytes = [record(batch, &[batch as u8]), record(batch + 9, &[0])].concat();
        scratch.write(&format!("ten/data_batch_{batch}.bin"), bytes);
    }
    scratch.write("ten/test_batch.bin", record(30, &[7]));
    let names = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    scratch.write("ten/batches.meta.txt", names);
    let shards = sharded(&scratch, &["--in", "ten"]);
    assert_eq!(shards.classes()[7], "horse");
    let train = shards.split("train").unwrap();
    assert_eq!((train.len(), train.channels()), (10, 3));
    for batch in 1..=5 {
        let row = 2 * (batch - 1);
        assert_eq!(train.key(row), format!("train-{row:06}"));
        assert_eq!(train.labels().unwrap()[row], Some(batch as u32));
        holds_planes(&train, row, batch, 32, false);
        holds_planes(&train, row + 1, batch + 9, 32, false);
    }
    assert_eq!(shards.split("test").unwrap().labels().unwrap()[0], Some(7));

    let fine: String = (0..100).map(|i| format!("fine{i}\n")).collect();
    scratch.write("hundred/fine_label_names.txt", fine);
    scratch.write("hundred/train.bin", record(3, &[1, 99]));
    scratch.write("hundred/test.bin", record(4, &[2, 5]));
    let shards = sharded(&scratch, &["--in", "hundred"]);
    assert_eq!(shards.classes().len(), 100);
    assert_eq!(shards.split("train").unwrap().labels().unwrap()[0], Some(99));
    holds_planes(&shards.split("test").unwrap(), 0, 4, 32, false);
}

#[test]
fn stl_10_binary_with_its_unlabelled_images() {
    let scratch = Scratch::new();
    scratch.write("stl/train_X.bin", [planes(0, 96), planes(5, 96)].concat());
    scratch.write("stl/train_y.bin", [10, 1]);
    scratch.write("stl/test_X.bin", planes(7, 96));
    scratch.write("stl/test_y.bin", [3]);
    scratch.write("stl/unlabeled_X.bin", [planes(9, 96), planes(2, 96)].concat());
    let names = "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n";
    scratch.write("stl/class_names.txt", names);
    let shards = sharded(&scratch, &["--in", "stl"]);
    let train = shards.split("train").unwrap();
    let row = |key: &str, label| (key.to_string(), label);
    let expected = [
        row("train-000000", Some(9)),
        row("train-000001", Some(0)),
        row("unlabeled-000000", None),
        row("unlabeled-000001", None),
    ];
    assert_eq!(rows(&train), expected);
    for (row, image) in [0, 5, 9, 2].into_iter().enumerate() {
        holds_planes(&train, row, image, 96, true);
    }
    assert_eq!(shards.split("test").unwrap().labels().unwrap()[0], Some(2));
}

/// Every kind of JPEG, PNG and WebP: stored byte for byte, with the size and the colours that Pillow shows
/// after turning the image as EXIF says.
#[test]
fn kinds_of_images_are_what_pillow_shows() {
    let scratch = Scratch::new();
    let shards = sharded(&scratch, &["--in", &sample("kinds"), "--decode"]);
    let split = shards.split("train").unwrap();
    let expected = std::fs::read(sample("kinds.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let expected = expected.as_object().unwrap();
    assert_eq!(split.len(), expected.len());
    for row in 0..split.len() {
        let (key, (height, width)) = (split.key(row), split.size(row));
        let image = split.decode(row).unwrap();
        let truth = &expected[key];
        assert_eq!(truth["height"], height, "{key}");
        assert_eq!(truth["width"], width, "{key}");
        let file = std::fs::read(sample(&format!("kinds/{key}"))).unwrap();
        assert_eq!(split.stored(row).unwrap(), Stored::Encoded(&file));
        let mean = |h: usize, w: usize, c: usize| {
            let pixels = (0..h).flat_map(|y| (0..w).map(move |x| (y * width + x) * 3 + c));
            let sum: f64 = pixels.map(|at| f64::from(image.pixels[at])).sum();
            sum / (h * w) as f64
        };
        let half = |side: usize| {
            if height.min(width) > 1 { side / 2 } else { side }
        };
        for c in 0..3 {
            // JPEG decoders differ in rounding, and in how they enlarge subsampled colour.
            for (found, truth) in [
                (mean(height, width, c), &truth["mean"][c]),
                (mean(half(height), half(width), c), &truth["corner"][c]),
            ] {
                let far = (found - truth.as_f64().unwrap()).abs();
                assert!(far < 1.5, "{key}: channel {c} is {found}, {truth}");
            }
        }
    }
}

#[test]
fn larger_images_are_made_smaller_once() {
    let scratch = Scratch::new();
    let wide: Vec<u8> = real(0).0.into_iter().cycle().take(28 * 56).collect();
    let mut png56 = Vec::new();
    image::ImageEncoder::write_image(
        image::codecs::png::PngEncoder::new(&mut png56),
        &wide,
        28,
        56,
        image::ExtendedColorType::L8,
    )
    .unwrap();
    scratch.write("in/large.png", &png56);
    scratch.write("in/small.png", png(&real(1).0[..100], 10));
    let args = ["--in", "in", "--resize-small", "14", "--quality", "80"];
    let shards = sharded(&scratch, &args);
    let split = shards.split("train").unwrap();
    assert_eq!((split.size(0), split.size(1)), ((28, 14), (10, 10)));
    let Stored::Encoded(bytes) = split.stored(0).unwrap() else { panic!("pixels") };
    assert!(bytes.starts_with(&[0xff, 0xd8]));
    let mean =
        |pixels: &[u8]| pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / pixels.len() as f64;
    let found = mean(&split.decode(0).unwrap().pixels);
    assert!((found - mean(&wide)).abs() < 3.0, "{found}");
    let small = png(&real(1).0[..100], 10);
    assert_eq!(split.stored(1).unwrap(), Stored::Encoded(&small));
    let json = std::fs::read_to_string(scratch.path("shards/dataset.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["resized"], serde_json::json!({"small": 14, "quality": 80}));
}

#[test]
fn hugging_face_sees_an_image_feature_and_names() {
    let scratch = Scratch::new();
    sharded(&scratch, &["--in", &sample("huggingface")]);
    let path = scratch.path("shards/train-00000-of-00001.parquet");
    let metadata = crate::common::metadata(&path);
    let footer = metadata.file_metadata().key_value_metadata().unwrap();
    let features = footer.iter().find(|kv| kv.key == "huggingface").unwrap();
    let json: serde_json::Value = serde_json::from_str(features.value.as_ref().unwrap()).unwrap();
    let features = &json["info"]["features"];
    assert_eq!(features["image"]["_type"], "Image");
    assert_eq!(features["label"]["names"][9], "Ankle boot");
    // The type must equal the feature's, including nullability.
    let image = batches(&path)[0].schema();
    let image = image.field_with_name("image").unwrap().clone();
    let arrow::datatypes::DataType::Struct(fields) = image.data_type() else { panic!("{image}") };
    assert!(image.is_nullable() && fields.iter().all(|f| f.is_nullable()));
}

#[test]
fn format_can_be_said() {
    let scratch = Scratch::new();
    let dev = sample("tfrecord/image_imagenet-dev-00000-of-00001");
    let args = ["--in", &dev, "--format", "tfrecord"];
    holds(&sharded(&scratch, &args), "test", 12, 4, |row| format!("{row:06}.JPEG"));
    assert!(Path::new(&dev).is_file());
    let ran = shard(&scratch, &["--in", &dev, "--format", "parquet", "--force"]);
    ran.fails(65, &["parquet"]);
}
