//! Running the stages that follow the shards: training, pseudo labels, evaluation.

use super::{Ran, Scratch, contents, smoke_shards};
use arrow::array::{ArrayRef, Int64Array, StringArray};
use s4l::lineage::Lineage;
use s4l::model::tensors::to_safetensors;
use s4l::schema;
use s4l::tables::table;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const PRETRAIN: &str = env!("CARGO_BIN_EXE_s4l-pretrain");
pub const MOAM: &str = env!("CARGO_BIN_EXE_s4l-moam");
pub const PSEUDOLABEL: &str = env!("CARGO_BIN_EXE_s4l-pseudolabel");
pub const EVAL: &str = env!("CARGO_BIN_EXE_s4l-eval");
pub const SUBSET: &str = env!("CARGO_BIN_EXE_s4l-subset");

/// A network of one unit at a quarter of the work, one thread (tests run side by side), and no messages
/// except errors.
pub const SMALL: [&str; 7] =
    ["-s", "units=[1]", "-s", "stem=small_stride2", "--threads", "1", "-q"];

/// The recipe of a row of the smoke pipeline.
pub fn recipe(row: &str) -> String {
    format!("{}/pipelines/smoke/{row}.toml", env!("CARGO_MANIFEST_DIR"))
}

/// Shards, `labelled.parquet` (10 images per class) and `val.parquet` of the embedded set.
pub fn labelled_shards() -> Scratch {
    let scratch = smoke_shards();
    scratch.run(SUBSET, &words(LABELLED)).ok();
    scratch
}

const LABELLED: &str =
    "--in shards --per-class 10 --out labelled.parquet --val-per-class 5 --val-out val.parquet";

/// The words of a command line.
pub fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// `s4l-pretrain` by a recipe of the smoke pipeline, into `out`, with `more` options.
pub fn pretrain(scratch: &Scratch, row: &str, out: &str, more: &str) -> Ran {
    scratch.run(PRETRAIN, &words(&pretrain_words(row, out, more)))
}

pub fn pretrain_words(row: &str, out: &str, more: &str) -> String {
    format!(
        "--in shards --labelled labelled.parquet --val val.parquet --recipe {} --out {out} {} {more}",
        recipe(row),
        SMALL.join(" ")
    )
}

/// Runs `s4l-moam --step` with the recipe of that step.
pub fn moam(scratch: &Scratch, step: &str, out: &str, more: &str) -> Ran {
    scratch.run(MOAM, &words(&moam_words(step, out, more)))
}

pub fn moam_words(step: &str, out: &str, more: &str) -> String {
    let row = match step {
        "retrain" => "moam_step2",
        "finetune" => "moam_step3",
        _ => "pseudo_labels",
    };
    format!(
        "--step {step} --in shards --val val.parquet --recipe {} --out {out} {} {more}",
        recipe(row),
        SMALL.join(" ")
    )
}

/// Runs `s4l-pseudolabel` on all images with `model`.
pub fn pseudolabel(scratch: &Scratch, model: &str, more: &str) -> Ran {
    let line = format!(
        "--in shards --model {model} --labelled labelled.parquet --threads 1 -q --out labels.parquet {more}"
    );
    scratch.run(PSEUDOLABEL, &words(&line))
}

/// A table of keys and labels, as `s4l-subset` writes it.
pub fn write_labels(scratch: &Scratch, name: &str, rows: &[(&str, i64)]) {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))),
    ];
    let lineage = Lineage::new("s4l-subset", 0, String::new());
    let path = scratch.path(name);
    table::write(&path, schema::labelled(), columns, &lineage, BTreeMap::new()).unwrap();
}

/// Keys and labels of a table.
pub fn read_labels(scratch: &Scratch, name: &str) -> Vec<(String, i64)> {
    let table = table::read(&scratch.path(name), "s4l-subset").unwrap();
    let keys = table.strings("key").unwrap();
    keys.into_iter().zip(table.ints("label").unwrap()).collect()
}

/// The values of one name in a model's `metrics.parquet`, in order.
pub fn curve(scratch: &Scratch, model: &str, name: &str) -> Vec<f64> {
    let path = scratch.path(model).join(schema::METRICS);
    let table = table::read(&path, "s4l-pretrain").unwrap();
    let names = table.strings("name").unwrap();
    let values = table.doubles("value").unwrap();
    let all = names.into_iter().zip(values);
    all.filter(|(n, _)| n == name).map(|(_, v)| v).collect()
}

/// All files of a finished model's folder; checks that there is no other file.
#[track_caller]
pub fn model(scratch: &Scratch, name: &str) -> Vec<(String, Vec<u8>)> {
    let files = contents(&scratch.path(name));
    let names: Vec<_> = files.iter().map(|f| f.0.as_str()).collect();
    let expected = [
        "README.md",
        "config.json",
        "events.out.tfevents.0.s4l",
        "metrics.parquet",
        "model.safetensors",
    ];
    assert_eq!(names, expected);
    assert!(scratch.path(&format!("{name}.prov.json")).is_file());
    files
}

/// Writes a safetensors file again with other tensors or another header, with a valid hash.
pub fn rewrite(path: &Path, change: impl FnOnce(&mut BTreeMap<String, String>, &mut Vec<Tensor>)) {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut header: BTreeMap<_, _> = header.metadata().clone().unwrap().into_iter().collect();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<Tensor> = tensors
        .iter()
        .map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter();
            let values = values.map(|b| f32::from_le_bytes(*b)).collect();
            (name.to_string(), view.shape().to_vec(), values)
        })
        .collect();
    change(&mut header, &mut tensors);
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape, v)| (name.clone(), shape.clone(), &v[..])).collect();
    std::fs::write(path, to_safetensors(&tensors, header).unwrap()).unwrap();
}

/// Name, shape and values.
pub type Tensor = (String, Vec<usize>, Vec<f32>);

/// Changes a bit in the middle of a file.
pub fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Names of the files that differ.
pub fn differing(a: &[(String, Vec<u8>)], b: &[(String, Vec<u8>)]) -> Vec<String> {
    let pairs = a.iter().zip(b).filter(|(a, b)| a != b);
    pairs.map(|(a, _)| a.0.clone()).collect()
}

/// Starts a stage and sends it signals, one after the other, as soon as `file` exists and has content.
pub fn signalled(
    scratch: &Scratch,
    program: &str,
    line: &str,
    file: &str,
    signals: &[i32],
) -> Output {
    let path: PathBuf = scratch.path(file);
    let mut command = Command::new(program);
    command
        .args(words(line))
        .current_dir(scratch.path("."))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Under nohup the tests ignore SIGHUP, and so would the stages that they start.
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        })
    };
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while std::fs::metadata(&path).map_or(0, |m| m.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before {file} was there");
        assert!(start.elapsed() < Duration::from_secs(60), "no {file}");
        std::thread::sleep(Duration::from_millis(1));
    }
    for &signal in signals {
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        // Two signals of a kind count once if the second comes before the first is handled.
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}
