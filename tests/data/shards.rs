//! The reader of shards: many files, files of other tools, damaged files.

use crate::common::{SMOKE, Scratch, batches, metadata, photos, shard, smoke_shards};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use s4l::shards::{Shards, Stored};
use std::path::Path;
use std::sync::Arc;

const TRAIN: &str = "shards/train-00000-of-00001.parquet";

/// Rewrites a shard file as another tool might: snappy, dictionaries, nullable columns, with `change`
/// applied.
fn rewrite(path: &Path, change: impl Fn(RecordBatch) -> RecordBatch) {
    let batches: Vec<RecordBatch> = batches(path).into_iter().map(change).collect();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let fields = batches[0].schema();
    let fields = fields.fields().iter();
    let fields = fields.map(|f| f.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties.build())).unwrap();
    for batch in &batches {
        let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).unwrap();
        writer.write(&batch).unwrap();
    }
    writer.close().unwrap();
}

fn with_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let at = batch.schema().index_of(name).unwrap();
    let mut columns = batch.columns().to_vec();
    columns[at] = column;
    RecordBatch::try_new(batch.schema(), columns).unwrap()
}

#[test]
fn a_split_of_many_files_is_one_row_space() {
    let scratch = smoke_shards();
    let args = ["--in", SMOKE, "--out", "many", "-s", "file_bytes=100000"];
    shard(&scratch, &args).ok();
    let open = |name: &str| Shards::open(&scratch.path(name)).unwrap().split("train").unwrap();
    let (one, many) = (open("shards"), open("many"));
    assert!(scratch.path("many/train-00003-of-00004.parquet").is_file());
    assert_eq!(one.content_hash(), many.content_hash());
    assert!(one.keys().eq(many.keys()));
    for row in 0..one.len() {
        assert_eq!(one.stored(row).unwrap(), many.stored(row).unwrap());
    }
    assert_eq!(one.labels().unwrap(), many.labels().unwrap());
}

#[test]
fn parquet_rewritten_by_another_tool_reads_the_same() {
    let pixels = smoke_shards();
    let photos_ = Scratch::new();
    photos(&photos_);
    shard(&photos_, &["--in", "photos", "--out", "shards"]).ok();
    for scratch in [pixels, photos_] {
        let open = || Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
        let before = open();
        // The old map stays valid: its file is unlinked, not overwritten.
        let path = scratch.path(TRAIN);
        std::fs::copy(&path, scratch.path("copy")).unwrap();
        rewrite(&scratch.path("copy"), |batch| batch);
        std::fs::rename(scratch.path("copy"), &path).unwrap();
        let after = open();
        assert!(before.keys().eq(after.keys()));
        for row in 0..before.len() {
            assert_eq!(before.stored(row).unwrap(), after.stored(row).unwrap());
        }
        assert_eq!(before.labels().unwrap(), after.labels().unwrap());
    }
}

#[test]
fn destroyed_labels_leave_the_images_readable() {
    let scratch = smoke_shards();
    rewrite(&scratch.path(TRAIN), |batch| {
        let nowhere = Int64Array::from(vec![99; batch.num_rows()]);
        with_column(&batch, "label", Arc::new(nowhere))
    });
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    assert!(matches!(split.stored(0).unwrap(), Stored::Pixels(_)));
    assert_eq!(split.labels().unwrap_err().exit_code(), 65);
}

#[test]
fn damaged_shards_are_named() {
    let open = |scratch: &Scratch| {
        let shards = Shards::open(&scratch.path("shards"))?;
        let split = shards.split("train")?;
        (0..split.len()).try_for_each(|row| split.decode(row).map(|_| ()))
    };
    #[track_caller]
    fn fails(result: s4l::error::Result<()>, code: u8, word: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(word), "{word:?} in {error}");
    }
    fails(open(&Scratch::new()), 66, "s4l-shard");

    let scratch = smoke_shards();
    open(&scratch).unwrap();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    fails(shards.split("val").map(|_| ()), 66, "test, train");
    let json = scratch.path("shards/dataset.json");
    let text = std::fs::read_to_string(&json).unwrap();
    let manifest = std::fs::read_to_string(scratch.path("shards/MANIFEST.b3")).unwrap();
    let put = |text: &str| {
        let line = format!("{}  dataset.json\n", blake3::hash(text.as_bytes()).to_hex());
        scratch.write("shards/MANIFEST.b3", line + &manifest);
        std::fs::write(&json, text).unwrap();
    };
    for (from, to, word) in [
        ("\"images\": 400", "\"images\": 401", "401"),
        ("\"format\": 2", "\"format\": 3", "format 3"),
        ("28,\n    28,\n    1", "28,\n    28,\n    2", "shape"),
        ("28,\n    28,\n    1", "14,\n    56,\n    1", "14x56"),
        ("{", "", "dataset.json"),
    ] {
        assert!(text.contains(from));
        put(&text.replacen(from, to, 1));
        fails(open(&scratch), 65, word);
    }
    std::fs::write(&json, text.replace("Trouser", "Trousers")).unwrap();
    fails(open(&scratch), 65, "MANIFEST.b3");
    put(&text);
    std::fs::rename(scratch.path(TRAIN), scratch.path("away")).unwrap();
    fails(open(&scratch), 66, "train-0000");
    std::fs::rename(scratch.path("away"), scratch.path(TRAIN)).unwrap();

    let whole = std::fs::read(scratch.path(TRAIN)).unwrap();
    for length in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
        scratch.write(TRAIN, &whole[..length]);
        fails(open(&scratch), 65, "train-00000");
    }
    scratch.write(TRAIN, &whole);
    rewrite(&scratch.path(TRAIN), |batch| {
        let mut keys: Vec<_> = batch.column(0).as_string::<i32>().iter().collect();
        keys[1] = keys[0];
        let keys = arrow::array::StringArray::from(keys);
        with_column(&batch, "key", Arc::new(keys))
    });
    fails(open(&scratch), 65, "the keys, sizes and hashes that s4l-shard wrote");
    // Without hashes.
    let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
    old["format"] = 1.into();
    for (_, split) in old["splits"].as_object_mut().unwrap() {
        split.as_object_mut().unwrap().retain(|key, _| key != "rows" && key != "labels");
    }
    put(&old.to_string());
    fails(open(&scratch), 65, "\"train-000000\" in rows 0 and 1");
}

#[test]
fn an_offset_index_that_claims_more_than_it_has_is_damaged() {
    let scratch = smoke_shards();
    let path = scratch.path(TRAIN);
    let index = metadata(&path).row_group(0).column(1).offset_index_offset();
    // Field 5: a list of 2^31 - 1 booleans.
    let claim = [0x59, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[index.unwrap() as usize..][..claim.len()].copy_from_slice(&claim);
    scratch.write(TRAIN, bytes);
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let error = shards.split("train").unwrap_err().to_string();
    assert!(error.contains("a list with more elements than bytes"), "{error}");
}

/// Files are never trusted: for any wrong byte the reader returns rows or an error.
#[test]
fn flipped_bytes_never_panic() {
    let scratch = smoke_shards();
    let path = scratch.path(TRAIN);
    let whole = std::fs::read(&path).unwrap();
    // Any pixel value is valid; only headers, small columns and the footer can break.
    let index = metadata(&path);
    let pages = index.page_index_for_row_group(0);
    let pages = pages.page_locations(1).unwrap();
    let headers = pages.iter().flat_map(|p| p.offset as usize..p.offset as usize + 24);
    for at in headers.chain(400 * 784 + 1000..whole.len()) {
        for value in [0, 0xff, whole[at] ^ (1 << (at % 8))] {
            let mut broken = whole.clone();
            broken[at] = value;
            // A new file each time: an open map must not change.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, broken).unwrap();
            let shards = Shards::open(&scratch.path("shards")).unwrap();
            if let Ok(split) = shards.split("train") {
                for row in 0..split.len() {
                    split.prefetch(row);
                    let _ = split.decode(row);
                }
                let _ = split.labels();
            }
        }
    }
}
