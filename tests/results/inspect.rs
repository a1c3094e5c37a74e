//! `s4l-inspect` through its binary, on files written by the library and by hand.

use arrow::array::{
    ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, StringArray,
};
use arrow::datatypes::{DataType, Field};
use s4l::lineage::Lineage;
use s4l::schema;
use s4l::tables::table;
use safetensors::{Dtype, tensor::TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

fn inspect(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_s4l-inspect")).current_dir(folder).args(args).output().unwrap()
}

/// The output of a run that must succeed.
fn shown(folder: &Path, args: &[&str]) -> String {
    let out = inspect(folder, args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn assert_silent(folder: &Path, path: &str) {
    let out = inspect(folder, &["--verify", path]);
    assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stdout.is_empty() && out.stderr.is_empty(), "{path}");
}

/// The error is one line that contains all of `words`, and stdout is empty.
fn assert_refused(folder: &Path, args: &[&str], code: i32, words: &[&str]) {
    let out = inspect(folder, args);
    let message = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(out.stdout.is_empty());
    for word in words {
        assert!(message.contains(word), "{word} is not in {message}");
    }
}

/// The parquet reader looks ahead for the end of a list, because a page may end within it.
#[test]
fn lists_on_several_pages_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let rows = 200_000;
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let logits = Float32Array::from_iter_values((0..3 * rows).map(|i| i as f32));
    let zeros = || Arc::new(Int64Array::from(vec![0; rows]));
    let keys = StringArray::from_iter_values((0..rows).map(|i| i.to_string()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys),
        zeros(),
        zeros(),
        Arc::new(BooleanArray::from(vec![true; rows])),
        Arc::new(Float32Array::from(vec![0.0; rows])),
        Arc::new(FixedSizeListArray::new(item, 3, Arc::new(logits), None)),
    ];
    let path = folder.path().join("eval.parquet");
    let lineage = Lineage::new("s4l-eval", 0, String::new());
    table::write(&path, schema::eval(3), columns, &lineage, BTreeMap::new()).unwrap();
    assert_silent(folder.path(), "eval.parquet");
}

/// Each of these once took minutes or gigabytes, or is undamaged.
#[test]
fn damaged_tables_end_soon() {
    let seeds = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/table"));
    for seed in std::fs::read_dir(seeds).unwrap() {
        let seed = seed.unwrap().path();
        for option in ["--quiet", "--verify"] {
            let out = inspect(seeds, &[option, seed.to_str().unwrap()]);
            assert!(matches!(out.status.code(), Some(0 | 3 | 65)), "{seed:?}");
        }
    }
}

fn write_labelled(path: &Path) {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..30).map(|i| format!("image-{i:02}")))),
        Arc::new(Int64Array::from_iter_values((0..30).map(|i| i % 3))),
    ];
    let lineage = Lineage::new("s4l-subset", 4, "0123456789abcdef".into())
        .input("shards", "fedcba9876543210");
    table::write(path, schema::labelled(), columns, &lineage, BTreeMap::new()).unwrap();
}

fn write_metrics(path: &Path) {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![100, 200, 200])),
        Arc::new(StringArray::from(vec!["loss", "loss", "train/top1"])),
        Arc::new(Float64Array::from(vec![1.5, f64::NAN, 0.5])),
    ];
    let lineage = Lineage::new("s4l-pretrain", 0, String::new());
    table::write(path, schema::metrics(), columns, &lineage, BTreeMap::new()).unwrap();
}

fn write_weights(path: &Path, last: f32) {
    let kernel = [1f32, 2.0, 3.0, 4.0, 5.0, last].map(f32::to_le_bytes).concat();
    let view = TensorView::new(Dtype::F32, vec![2, 3], &kernel).unwrap();
    let header = HashMap::from([("s4l.tool".to_string(), "s4l-pretrain".to_string())]);
    let bytes = safetensors::serialize([("head/kernel", view)], Some(header)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A folder `shards` as `s4l-shard` writes it: data set, two shards, manifest.
fn write_shards(folder: &Path) {
    let shards = folder.join("shards");
    write_labelled(&shards.join("train-00000-of-00002.parquet"));
    write_labelled(&shards.join("train-00001-of-00002.parquet"));
    std::fs::write(shards.join("dataset.json"), r#"{"classes": ["cat", "dog", "owl"]}"#).unwrap();
    let mut manifest = String::new();
    for name in ["dataset.json", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"] {
        let bytes = std::fs::read(shards.join(name)).unwrap();
        manifest += &format!("{}  {name}\n", blake3::hash(&bytes).to_hex());
    }
    std::fs::write(shards.join("MANIFEST.b3"), manifest).unwrap();
}

fn write_model(folder: &Path) {
    let model = folder.join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.json"), r#"{"units": [1, 1, 1]}"#).unwrap();
    write_weights(&model.join("model.safetensors"), 6.0);
    write_metrics(&model.join("metrics.parquet"));
}

#[test]
fn a_parquet_file_shows_columns_and_lineage() {
    let folder = tempfile::tempdir().unwrap();
    write_labelled(&folder.path().join("labelled.parquet"));
    let text = shown(folder.path(), &["labelled.parquet"]);
    for words in [
        "30 rows in 1 row group",
        "image-00 to image-29",
        "10 each of 0, 1, 2",
        "s4l-subset",
        "s4l.input.shards",
        "fedcba9876543210",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    assert_silent(folder.path(), "labelled.parquet");
}

#[test]
fn floats_have_a_range_a_mean_and_a_count_of_what_is_not_finite() {
    let folder = tempfile::tempdir().unwrap();
    write_metrics(&folder.path().join("metrics.parquet"));
    let text = shown(folder.path(), &["metrics.parquet"]);
    assert!(text.contains("0.5000 to 1.5000, mean 1.0000; 1 not finite"), "{text}");
    assert!(text.contains("2 of loss, 1 of train/top1"), "{text}");
}

#[test]
fn weights_show_tensors_and_lineage() {
    let folder = tempfile::tempdir().unwrap();
    write_weights(&folder.path().join("model.safetensors"), 6.0);
    let text = shown(folder.path(), &["model.safetensors"]);
    for words in ["6 values in 1 tensor", "head/kernel", "F32", "[2, 3]", "s4l-pretrain"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    assert_silent(folder.path(), "model.safetensors");
}

#[test]
fn folders_of_shards_and_models_are_shown_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    write_shards(folder.path());
    write_model(folder.path());
    let shards = shown(folder.path(), &["shards"]);
    assert!(shards.contains("train  60 images  2 files"), "{shards}");
    assert!(shards.contains("classes: cat, dog, owl"), "{shards}");
    let model = shown(folder.path(), &["model"]);
    assert!(model.contains("units: 1, 1, 1") && model.contains("head/kernel"), "{model}");
    for path in ["shards", "shards/dataset.json", "model"] {
        assert_silent(folder.path(), path);
    }
}

#[test]
fn damaged_shards_fail_the_check() {
    let shard = "shards/train-00001-of-00002.parquet";
    let damaged = |damage: &dyn Fn(&Path), words: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        damage(folder.path());
        assert_refused(folder.path(), &["--verify", "shards"], 3, words);
    };
    damaged(&|f| std::fs::remove_file(f.join(shard)).unwrap(), &[shard]);
    damaged(&|f| write_labelled(&f.join("shards/more.parquet")), &["more.parquet"]);
    let manifest = "shards/MANIFEST.b3";
    damaged(&|f| std::fs::remove_file(f.join(manifest)).unwrap(), &[manifest]);
    damaged(&|f| std::fs::write(f.join(manifest), "no hash\n").unwrap(), &["no hash"]);
    let flip_a_bit = |f: &Path| {
        let mut bytes = std::fs::read(f.join(shard)).unwrap();
        bytes[100] ^= 1;
        std::fs::write(f.join(shard), bytes).unwrap();
    };
    damaged(&flip_a_bit, &[shard, "MANIFEST.b3"]);
}

#[test]
fn a_truncated_parquet_file_is_65_to_show_and_3_to_verify() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labelled.parquet");
    write_labelled(&path);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert_refused(folder.path(), &["labelled.parquet"], 65, &["labelled.parquet"]);
    assert_refused(folder.path(), &["--verify", "labelled.parquet"], 3, &["labelled.parquet"]);
}

#[test]
fn weights_that_are_not_finite_or_not_whole_fail_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_weights(&path, f32::NAN);
    assert_refused(folder.path(), &["--verify", "model.safetensors"], 3, &["head/kernel", "5"]);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 5, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert_refused(folder.path(), &["--verify", "model.safetensors"], 3, &[]);
    }
}

#[test]
fn a_model_without_weights_has_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    std::fs::remove_file(folder.path().join("model/model.safetensors")).unwrap();
    assert!(shown(folder.path(), &["model"]).contains("training has not ended"));
    assert_refused(folder.path(), &["--verify", "model"], 3, &["model.safetensors"]);
}

#[test]
fn what_is_missing_is_66_and_what_is_unknown_65() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "words").unwrap();
    assert_refused(folder.path(), &["nowhere"], 66, &["nowhere"]);
    assert_refused(folder.path(), &["notes.txt"], 65, &["notes.txt"]);
    assert_refused(folder.path(), &["."], 65, &["dataset.json"]);
}

#[test]
fn a_result_can_go_to_a_file_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    write_labelled(&folder.path().join("labelled.parquet"));
    let args = ["labelled.parquet", "-o", "about.txt"];
    assert_eq!(shown(folder.path(), &args), "");
    let text = std::fs::read_to_string(folder.path().join("about.txt")).unwrap();
    assert!(text.contains("image-00"));
    assert_refused(folder.path(), &args, 73, &["about.txt"]);
}
