//! `s4l-shard` on data sets as other tools write them: the image column, the first label number, the names
//! of files.

use crate::common::{Ran, Scratch, are, labelled_keys, png, real, shard};
use arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array, StringArray, StructArray};
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use s4l::shards::{Shards, Stored};
use std::io::{Cursor, Write};
use std::sync::Arc;

fn image(row: usize) -> Vec<u8> {
    png(&real(row).0, 28)
}

fn sharded(scratch: &Scratch, args: &[&str]) -> (Vec<(String, String)>, String) {
    let out = ["--out", "shards", "--force"];
    let said = shard(scratch, &[args, &out[..]].concat()).ok().stderr;
    (labelled_keys(scratch, "train"), said)
}

/// Images as `datasets` writes them.
fn images(rows: std::ops::Range<usize>, path: impl Fn(usize) -> String) -> ArrayRef {
    let bytes: Vec<Vec<u8>> = rows.clone().map(image).collect();
    let bytes = BinaryArray::from_iter_values(bytes.iter());
    let paths = StringArray::from_iter_values(rows.map(path));
    let field = |name: &str, kind| Arc::new(Field::new(name, kind, true));
    Arc::new(StructArray::from(vec![
        (field("bytes", DataType::Binary), Arc::new(bytes) as ArrayRef),
        (field("path", DataType::Utf8), Arc::new(paths) as ArrayRef),
    ]))
}

fn parquet(scratch: &Scratch, name: &str, columns: Vec<(&str, ArrayRef)>, codec: Compression) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    scratch.write(name, bytes);
}

#[test]
fn the_column_named_image_is_the_image() {
    let scratch = Scratch::new();
    let masks = images(4..8, |row| format!("mask{row}.png"));
    let photos = images(0..4, |row| format!("{row}.png"));
    let species: ArrayRef = Arc::new(StringArray::from(vec!["cat", "dog", "cat", "dog"]));
    let columns = || {
        vec![
            ("annotation", masks.clone()),
            ("image", photos.clone()),
            ("genus", species.clone()),
            ("weight", Arc::new(Float64Array::from(vec![1.5; 4])) as ArrayRef),
        ]
    };
    parquet(&scratch, "train.parquet", columns(), Compression::SNAPPY);
    let (found, said) = sharded(&scratch, &["--in", "train.parquet"]);
    are(&found, &[("0.png", "-"), ("1.png", "-"), ("2.png", "-"), ("3.png", "-")]);
    assert!(said.contains("no column of labels among annotation, genus, weight"), "{said}");
    let split = Shards::open(&scratch.path("shards")).unwrap();
    let split = split.split("train").unwrap();
    assert_eq!(split.stored(0).unwrap(), Stored::Encoded(&image(0)));
    let (found, _) = sharded(&scratch, &["--in", "train.parquet", "--label-column", "genus"]);
    are(&found, &[("0.png", "cat"), ("1.png", "dog"), ("2.png", "cat"), ("3.png", "dog")]);

    let only_mask = vec![("segmentation_mask", masks.clone())];
    parquet(&scratch, "mask.parquet", only_mask, Compression::SNAPPY);
    shard(&scratch, &["--in", "mask.parquet"]).fails(65, &["segmentation_mask", "mask"]);
}

#[test]
fn every_common_codec_is_read() {
    let scratch = Scratch::new();
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 0]));
    for codec in [Compression::BROTLI(Default::default()), Compression::LZ4, Compression::LZ4_RAW] {
        let photos = images(0..2, |row| format!("{row}.png"));
        let columns = vec![("image", photos), ("label", labels.clone())];
        parquet(&scratch, "train.parquet", columns, codec);
        let (found, _) = sharded(&scratch, &["--in", "train.parquet"]);
        are(&found, &[("0.png", "1"), ("1.png", "0")]);
    }
}

#[test]
fn rows_of_one_path_are_keyed_by_their_numbers() {
    let scratch = Scratch::new();
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![0, 0, 1, 1]));
    // As datasets writes class folders that number their images from 0 each.
    let photos = images(0..4, |row| format!("{}.png", row % 2 + 2 * (row / 3)));
    let columns = vec![("image", photos), ("label", labels)];
    parquet(&scratch, "train.parquet", columns, Compression::SNAPPY);
    let (found, _) = sharded(&scratch, &["--in", "train.parquet"]);
    are(
        &found,
        &[("train-000000/0.png", "0"), ("1.png", "0"), ("train-000002/0.png", "1"), ("3.png", "1")],
    );
}

/// A field of a message of protobuf.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut out = vec![(number << 3) | 2];
    while length > 127 {
        out.push(length as u8 | 128);
        length >>= 7;
    }
    out.push(length as u8);
    [&out[..], bytes].concat()
}

/// A record of text fields and one number.
fn record(texts: &[(&str, &[u8])], number: (&str, u8)) -> Vec<u8> {
    let entry = |key: &str, feature: Vec<u8>| {
        field(1, &[field(1, key.as_bytes()), field(2, &feature)].concat())
    };
    let mut entries: Vec<u8> =
        texts.iter().flat_map(|(key, text)| entry(key, field(1, &field(1, text)))).collect();
    entries.extend(entry(number.0, field(3, &field(1, &[number.1]))));
    let data = field(1, &entries);
    let mask =
        |b: &[u8]| crc32c::crc32c(b).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &mask(&length), &data, &mask(&data)].concat()
}

#[test]
fn labels_of_tfrecords_count_from_0_or_from_1() {
    let scratch = Scratch::new();
    let slim = |labels: &[u8]| -> Vec<u8> {
        let rows = labels.iter().enumerate();
        rows.flat_map(|(row, label)| {
            record(&[("image/encoded", &image(row)[..])], ("image/class/label", *label))
        })
        .collect()
    };
    let classes = |bytes: &[u8]| {
        scratch.write("train.tfrecord", bytes);
        let (found, _) = sharded(&scratch, &["--in", "train.tfrecord"]);
        found.into_iter().map(|row| row.1).collect::<Vec<_>>()
    };
    // As slim's flowers: the 0 comes late.
    assert_eq!(classes(&slim(&[2, 1, 0, 2])), ["2", "1", "0", "2"]);
    assert_eq!(classes(&slim(&[3, 1, 2, 3])), ["2", "0", "1", "2"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&slim(&[2, 1, 0, 2])).unwrap();
    assert_eq!(classes(&gzip.finish().unwrap()), ["2", "1", "0", "2"]);
    let part = ["--in", "train.tfrecord", "--part", "1/2", "--out", "parts"];
    shard(&scratch, &part).fails(2, &["gunzip", "train.tfrecord"]);

    let tfds: Vec<u8> = (0..3)
        .flat_map(|row| {
            let name = format!("n0{row}_7.JPEG");
            let bytes = image(row);
            let texts = [("image", &bytes[..]), ("file_name", name.as_bytes())];
            record(&texts, ("label", 1 + row as u8 % 2))
        })
        .collect();
    scratch.write("imagenet2012-train.tfrecord-00000-of-00001", &tfds);
    let (found, _) = sharded(&scratch, &["--in", "imagenet2012-train.tfrecord-00000-of-00001"]);
    are(&found, &[("n00_7.JPEG", "1"), ("n01_7.JPEG", "2"), ("n02_7.JPEG", "1")]);
}

fn idx(kind: u8, sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let sizes_bytes = sizes.iter().flat_map(|size| size.to_be_bytes());
    [0, 0, kind, sizes.len() as u8].into_iter().chain(sizes_bytes).chain(data.to_vec()).collect()
}

#[test]
fn idx_of_other_names_and_of_emnist() {
    let scratch = Scratch::new();
    let pixels = [real(0).0, real(1).0].concat();
    scratch.write("mnist/train-images.idx3-ubyte", idx(8, &[2, 28, 28], &pixels));
    scratch.write("mnist/train-labels.idx1-ubyte", idx(8, &[2], &[7, 2]));
    let (found, _) = sharded(&scratch, &["--in", "mnist"]);
    are(&found, &[("train-000000", "7"), ("train-000001", "2")]);

    let letters = "emnist-letters";
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let images = gzip(&idx(8, &[2, 28, 28], &pixels));
    scratch.write(&format!("emnist/{letters}-test-images-idx3-ubyte.gz"), &images);
    let labels = gzip(&idx(8, &[2], &[26, 1]));
    scratch.write(&format!("emnist/{letters}-test-labels-idx1-ubyte.gz"), labels);
    let mapping: String = (1..=26).map(|n| format!("{n} {} {}\n", n + 64, n + 96)).collect();
    scratch.write(&format!("emnist/{letters}-mapping.txt"), mapping);
    shard(&scratch, &["--in", "emnist", "--out", "shards", "--force"]).ok();
    are(&labelled_keys(&scratch, "test"), &[("test-000000", "Z"), ("test-000001", "A")]);
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("test").unwrap();
    let Stored::Pixels(found) = split.stored(1).unwrap() else { panic!("encoded") };
    for (y, x) in [(3, 14), (14, 3), (20, 7)] {
        assert_eq!(found[y * 28 + x], pixels[784 + x * 28 + y]);
    }
    scratch.write("emnist/emnist-digits-test-images-idx3-ubyte.gz", images);
    let several = shard(&scratch, &["--in", "emnist", "-q"]);
    several.fails(65, &["emnist-digits, emnist-letters", "one"]);

    let labels = idx(8, &[2], &[0, 1]);
    for (name, kind, sizes, found) in [
        ("colour", 8, &[2, 28, 28, 3][..], "uint8 with 4 dimensions"),
        ("float", 13, &[2, 28, 28], "float32 with 3 dimensions"),
    ] {
        let data = vec![0; sizes.iter().product::<u32>() as usize * 4];
        scratch.write(&format!("{name}/train-images-idx3-ubyte"), idx(kind, sizes, &data));
        scratch.write(&format!("{name}/train-labels-idx1-ubyte"), &labels);
        let ran = shard(&scratch, &["--in", name, "-q"]);
        ran.fails(65, &[found, "class folders"]);
        assert!(!ran.stderr.contains("copy it again"), "{}", ran.stderr);
    }
}

/// An array as NumPy writes it.
fn npy(kind: &str, sizes: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sizes}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
}

fn npz(scratch: &Scratch, arrays: &[(&str, Vec<u8>)]) -> Ran {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    scratch.write("med.npz", zip.finish().unwrap().into_inner());
    shard(scratch, &["--in", "med.npz", "--out", "shards", "--force", "-q"])
}

#[test]
fn npz_of_medmnist() {
    let scratch = Scratch::new();
    let grey = |rows: std::ops::Range<usize>| rows.flat_map(|row| real(row).0).collect::<Vec<u8>>();
    let labels = |labels: &[u8]| npy("|u1", &format!("{}, 1", labels.len()), labels);
    let train = npy("|u1", "3, 28, 28", &grey(0..3));
    let val = npy("|u1", "1, 28, 28", &grey(3..4));
    let eight = [4u64, 0].iter().flat_map(|l| l.to_le_bytes()).collect::<Vec<u8>>();
    npz(
        &scratch,
        &[
            ("train_images", train.clone()),
            ("val_images", val),
            ("train_labels", labels(&[2, 0, 1])),
            ("val_labels", labels(&[1])),
            ("test_images", npy("|u1", "2, 28, 28", &grey(4..6))),
            ("test_labels", npy("<i8", "2, 1", &eight)),
        ],
    )
    .ok();
    let expected = [("train-000000", "2"), ("train-000001", "0"), ("train-000002", "1")];
    are(&labelled_keys(&scratch, "train"), &expected);
    are(&labelled_keys(&scratch, "val"), &[("val-000000", "1")]);
    are(&labelled_keys(&scratch, "test"), &[("test-000000", "4"), ("test-000001", "0")]);
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("test").unwrap();
    assert_eq!(split.stored(1).unwrap(), Stored::Pixels(&real(5).0));

    let several = npy("|u1", "3, 14", &[0; 42]);
    npz(&scratch, &[("train_images", train.clone()), ("train_labels", several)])
        .fails(65, &["train_labels", "[3, 14]", "one label"]);
    let volumes = npy("|u1", "1, 28, 28, 28", &vec![0; 28 * 28 * 28]);
    npz(&scratch, &[("train_images", volumes), ("train_labels", labels(&[0]))])
        .fails(65, &["train_images", "[1, 28, 28, 28]"]);
    let absurd = npy("<i8", "3", &i64::MAX.to_le_bytes().repeat(3));
    npz(&scratch, &[("train_images", train.clone()), ("train_labels", absurd)])
        .fails(65, &["labels below 100000"]);
    npz(&scratch, &[("arr_0", train.clone())]).fails(65, &["arr_0", "train_images"]);
    let short = npy("|u1", "4, 28, 28", &grey(0..3));
    npz(&scratch, &[("train_images", short), ("train_labels", labels(&[0, 1, 2, 3]))])
        .fails(65, &["train_images", "copy it again"]);
}

/// -1 and no value mean unlabelled. If no image has a label although there is a field for it, a message
/// says so, unless the files are declared unlabelled.
#[test]
fn a_place_for_labels_that_holds_none_is_an_error() {
    let scratch = Scratch::new();
    let fails = |file: &str, words: &[&str]| {
        shard(&scratch, &["--in", file, "--out", "none", "-q"]).fails(65, words);
    };
    let photos = || images(0..2, |row| format!("{row}.png"));
    let integers =
        |labels: [Option<i64>; 2]| Arc::new(Int64Array::from(labels.to_vec())) as ArrayRef;
    let table = |file: &str, name: &str, labels: ArrayRef| {
        parquet(&scratch, file, vec![("image", photos()), (name, labels)], Compression::SNAPPY);
    };
    for labels in [integers([Some(-1), Some(-1)]), integers([None, None])] {
        table("pool.parquet", "label", labels);
        fails(
            "pool.parquet",
            &["column \"label\" of label", "--label-column", "--unlabelled pool"],
        );
        let (found, _) = sharded(&scratch, &["--in", "pool.parquet", "--unlabelled", "pool"]);
        are(&found, &[("0.png", "-"), ("1.png", "-")]);
    }
    table("some/unlabelled-0.parquet", "label", integers([Some(-1), None]));
    let (found, _) = sharded(&scratch, &["--in", "some"]);
    are(&found, &[("0.png", "-"), ("1.png", "-")]);
    table("some/train-1.parquet", "label", integers([Some(1), Some(0)]));
    let (found, _) = sharded(&scratch, &["--in", "some"]);
    let keys = ["train-1-000000/0.png", "train-1-000001/1.png"];
    let others = ["unlabelled-0-000000/0.png", "unlabelled-0-000001/1.png"];
    are(&found, &[(keys[0], "1"), (keys[1], "0"), (others[0], "-"), (others[1], "-")]);
    let args = ["--in", "some", "--unlabelled", "extra", "--out", "none", "-q"];
    shard(&scratch, &args).fails(65, &["\"extra\"", "train-1"]);
    table("x.parquet", "image_class", integers([Some(1), Some(0)]));
    fails("x.parquet", &["no column of labels among image_class", "--label-column"]);
    let mut lists = arrow::array::ListBuilder::new(arrow::array::Int64Builder::new());
    lists.append_value([Some(1), Some(2)]);
    lists.append_value([Some(0)]);
    table("several.parquet", "label", Arc::new(lists.finish()));
    fails("several.parquet", &["one label per image", "column \"label\" of List"]);

    let records = |number| -> Vec<u8> {
        (0..2).flat_map(|row| record(&[("image/encoded", &image(row)[..])], number)).collect()
    };
    scratch.write("train.tfrecord", records(("image/object/class/label", 3)));
    fails("train.tfrecord", &["image/encoded, image/object/class/label", "--unlabelled train"]);
    sharded(&scratch, &["--in", "train.tfrecord", "--unlabelled", "train"]);
    scratch.write("train.tfrecord", records(("image/height", 28)));
    let (found, said) = sharded(&scratch, &["--in", "train.tfrecord"]);
    assert_eq!(found.iter().map(|row| &*row.1).collect::<Vec<_>>(), ["-", "-"]);
    assert!(said.contains("no label, or -1 alone, among the features image/encoded"), "{said}");

    let grey: Vec<u8> = real(0).0;
    let arrays = [
        ("train_images", npy("|u1", "1, 28, 28", &grey)),
        ("train_labels", npy("<i8", "1, 1", &(-1i64).to_le_bytes())),
    ];
    npz(&scratch, &arrays).fails(65, &["1 labels that are all -1", "--unlabelled med"]);
}

#[test]
fn folders_of_files_of_many_images() {
    let scratch = Scratch::new();
    let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 0]));
    for split in ["train", "test"] {
        let photos = images(0..2, |row| format!("{split}{row}.png"));
        let columns = vec![("image", photos), ("label", labels.clone())];
        let name = format!("repo/data/{split}-00000-of-00001.parquet");
        parquet(&scratch, &name, columns, Compression::SNAPPY);
    }
    scratch.write("repo/README.md", "---\nlicense: mit\n---\n");
    let (found, _) = sharded(&scratch, &["--in", "repo"]);
    are(&found, &[("train0.png", "1"), ("train1.png", "0")]);
    assert_eq!(labelled_keys(&scratch, "test").len(), 2);

    for (split, row) in [("train", 0), ("val", 1)] {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in [("0.png", image(row)), ("0.cls", vec![b'0' + row as u8])] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        scratch.write(&format!("wds/{split}/0000.tar"), tar.into_inner().unwrap());
    }
    let (found, _) = sharded(&scratch, &["--in", "wds"]);
    are(&found, &[("0.png", "0")]);
    are(&labelled_keys(&scratch, "val"), &[("0.png", "1")]);
}

#[test]
fn forms_that_are_not_read_are_named_with_those_that_are() {
    let scratch = Scratch::new();
    for name in ["data_batch_1", "test_batch", "batches.meta"] {
        scratch.write(&format!("cifar-10-batches-py/{name}"), b"\x80\x04.");
    }
    let ran = shard(&scratch, &["--in", "cifar-10-batches-py"]);
    ran.fails(65, &["Python", "binary version"]);
    for name in ["train", "test", "meta"] {
        scratch.write(&format!("cifar-100-python/{name}"), b"\x80\x04.");
    }
    shard(&scratch, &["--in", "cifar-100-python"]).fails(65, &["Python", "binary version"]);
    scratch.write("photos.7z", b"7z\xbc\xaf\x27\x1c and so on");
    shard(&scratch, &["--in", "photos.7z"]).fails(65, &["a 7z archive", "unpack"]);
}
