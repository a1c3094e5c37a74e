//! `s4l-export`: timm's format, there and back. `tests/golden/resnetv2.py` made a network of timm's and
//! its logits; `tools/check-timm.py` compares on photographs.

mod common;

use common::training::{
    EVAL, PRETRAIN, PSEUDOLABEL, labelled_shards, moam, pretrain, words, write_labels,
};
use common::{Ran, Scratch, contents, smoke_shards};
use s4l::shards::Shards;
use s4l::tables::table;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const EXPORT: &str = env!("CARGO_BIN_EXE_s4l-export");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/resnetv2");

fn export(scratch: &Scratch, line: &str) -> Ran {
    scratch.run(EXPORT, &words(&format!("--to timm -q {line}")))
}

/// Logits of the images of a labelled file, by `s4l-eval`.
fn logits(scratch: &Scratch, model: &str, labelled: &str) -> Vec<f32> {
    let line = format!(
        "--in shards --split train --labelled {labelled} --model {model} --out e.parquet -q --force"
    );
    scratch.run(EVAL, &words(&line)).ok();
    let table = table::read(&scratch.path("e.parquet"), "s4l-eval").unwrap();
    table.float_lists("logits").unwrap().0
}

/// Shape and values of every float tensor of a folder's weights.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = tensors.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
    floats
        .map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter();
            let values = values.map(|b| f32::from_le_bytes(*b)).collect();
            (name.to_string(), (view.shape().to_vec(), values))
        })
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let furthest = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest <= tolerance, "{furthest}");
}

#[test]
fn a_network_of_timm_s_gives_timm_s_logits() {
    let scratch = smoke_shards();
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    let rows: Vec<(&str, i64)> = (0..4).map(|row| (split.key(row), 0)).collect();
    write_labels(&scratch, "four.parquet", &rows);
    let expected: Vec<Vec<f32>> =
        serde_json::from_value(json(&Path::new(GOLDEN).join("logits.json"))).unwrap();
    let found = logits(&scratch, GOLDEN, "four.parquet");
    // Logits of size 2 by float32; timm's are by float64.
    assert_close(&found, &expected.concat(), 1e-5);
}

#[test]
fn what_timm_wrote_is_written_the_same() {
    let scratch = Scratch::new();
    export(&scratch, &format!("--model {GOLDEN} --out timm")).ok();
    let (theirs, ours) = (tensors(Path::new(GOLDEN)), tensors(&scratch.path("timm")));
    assert!(theirs.keys().eq(ours.keys()));
    for (name, (shape, values)) in &theirs {
        assert_eq!(*shape, ours[name].0, "{name}");
        // A variance was moved by 1e-3 - 1e-5, there and back.
        let tolerance = if name.ends_with("running_var") { 2e-10 } else { 0.0 };
        assert_close(values, &ours[name].1, tolerance);
    }
    let (theirs, ours) =
        (json(&Path::new(GOLDEN).join("config.json")), json(&scratch.path("timm/config.json")));
    for key in ["architecture", "num_classes", "num_features", "global_pool", "label_names"] {
        assert_eq!(theirs[key], ours[key], "{key}");
    }
    for key in ["stem_type", "layers", "channels", "stem_chs", "in_chans"] {
        assert_eq!(theirs["model_args"][key], ours["model_args"][key], "{key}");
    }
    for key in ["input_size", "mean", "std", "crop_pct", "num_classes"] {
        let (theirs, ours) = (&theirs["pretrained_cfg"][key], &ours["pretrained_cfg"][key]);
        assert_eq!(theirs, ours, "{key}");
    }
}

#[test]
fn a_trained_model_there_and_back() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "model", "-s stem=imagenet").ok();
    let line = "--model model --out timm";
    export(&scratch, line).ok();
    let files = contents(&scratch.path("timm"));
    let names: Vec<_> = files.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    assert!(scratch.path("timm.prov.json").is_file());
    let bytes = String::from_utf8_lossy(&files[1].1).into_owned();
    for key in ["s4l.tool", "s4l.input.model", "s4l.recipe", "s4l.version"] {
        assert!(bytes.contains(key), "{key}");
    }
    let inspect = env!("CARGO_BIN_EXE_s4l-inspect");
    scratch.run(inspect, &["--verify", "timm"]).ok();

    let [before, after] = ["model", "timm"].map(|m| logits(&scratch, m, "val.parquet"));
    // The variances were rounded.
    assert_close(&before, &after, 1e-5);
    assert!(before.iter().any(|l| l.abs() > 0.1));
    let line = "--in shards --model timm --out labels.parquet -q";
    scratch.run(PSEUDOLABEL, &words(line)).ok();
    let start = "--labelled labelled.parquet --init timm -s stem=imagenet";
    moam(&scratch, "finetune", "two", start).ok();
    export(&scratch, "--model two --out timm2").ok();
}

#[test]
fn up_to_date_exists_force_and_a_dry_run() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "-s stem=imagenet").ok();
    let line = "--model model --out timm";
    let before = scratch.names();
    let plan = export(&scratch, &format!("{line} --dry-run")).ok().stdout;
    assert!(plan.contains("10 classes") && plan.contains("\"fixed\""), "{plan}");
    assert_eq!(scratch.names(), before);

    export(&scratch, line).ok();
    let first = contents(&scratch.path("timm"));
    let again = scratch.run(EXPORT, &words(&format!("--to timm {line}"))).ok();
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    export(&scratch, &format!("{line} --force")).ok();
    assert_eq!(contents(&scratch.path("timm")), first);
    let other = format!("--model {GOLDEN} --out timm");
    export(&scratch, &other).fails(73, &["timm", "--force"]);
    assert_eq!(contents(&scratch.path("timm")), first);
    export(&scratch, &format!("{other} --force")).ok();
    assert_ne!(contents(&scratch.path("timm")), first);

    // Never in place of something else.
    let model = contents(&scratch.path("model"));
    export(&scratch, &format!("--model {GOLDEN} --out model --force"))
        .fails(73, &["model", "export"]);
    export(&scratch, "--model model --out model --force").fails(2, &["model"]);
    assert_eq!(contents(&scratch.path("model")), model);
}

/// The configuration comes through a pipe, so that the stage waits for it when the signal comes.
#[test]
fn a_signal_leaves_nothing() {
    let scratch = Scratch::new();
    let golden = |name: &str| std::fs::read(Path::new(GOLDEN).join(name)).unwrap();
    scratch.write("model/model.safetensors", golden("model.safetensors"));
    let pipe = scratch.path("model/config.json");
    let path = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: a path that ends in 0.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut child = Command::new(EXPORT)
        .args(["--to", "timm", "-q"])
        .current_dir(scratch.path("."))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut opened = File::options();
    opened.write(true).custom_flags(libc::O_NONBLOCK);
    // Refused until the stage opens the other end.
    let mut pipe = loop {
        match opened.open(&pipe) {
            Ok(pipe) => break pipe,
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENXIO)),
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it read its input");
        std::thread::sleep(Duration::from_millis(1));
    };
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    pipe.write_all(&golden("config.json")).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{words}");
    assert!(words.contains("timm") && words.contains("nothing was written"), "{words}");
    assert_eq!(scratch.names(), ["model"]);
}

#[test]
fn what_timm_cannot_express() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "small", "").ok();
    let eval = "-s augment_eval=resize(28)|standardize -s stem=imagenet";
    pretrain(&scratch, "supervised_1p", "standardized", eval).ok();
    let before = scratch.names();
    for (line, code, message) in [
        ("--model small", 65, ["small", "stem = \"imagenet\""]),
        ("--model standardized", 65, ["standardized", "-1_to_1"]),
        ("--model absent", 66, ["absent/model.safetensors", "s4l-pretrain"]),
    ] {
        export(&scratch, &format!("{line} --out timm")).fails(code, &message);
        assert_eq!(scratch.names(), before);
    }
    let other = scratch.run(EXPORT, &words("--to onnx --model small"));
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("timm"), "{}", other.stderr);
}

#[test]
fn networks_of_timm_s_that_are_not_ours() {
    let scratch = labelled_shards();
    let golden = json(&Path::new(GOLDEN).join("config.json"));
    let weights = std::fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    scratch.write("timm/model.safetensors", weights);
    for (pointer, value, message) in [
        ("/architecture", "resnet50".into(), "resnetv2_50"),
        ("/model_args/stem_type", "same".into(), "stem_type \"fixed\""),
        ("/model_args/global_pool", "max".into(), "global_pool"),
        ("/model_args/output_stride", 4.into(), "dilation"),
        ("/label_names", Value::Array(vec![]), "label_names"),
        ("/label_names", vec!["a", "b"].into(), "head.fc.weight"),
        ("/pretrained_cfg/input_size", Value::Null, "save_for_hf"),
    ] {
        let mut config = golden.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        scratch.write("timm/config.json", config.to_string());
        let line = "--in shards --model timm --out e.parquet -q";
        scratch.run(EVAL, &words(line)).fails(65, &["timm", message]);
        assert!(!scratch.path("e.parquet").exists());
    }
    scratch.write("timm/config.json", golden.to_string());
    // Two blocks of one unit, width factor 1, grey: not this recipe's network.
    let line = "--in shards --labelled labelled.parquet --init timm --out m -q -s width_factor=2 \
                -s augment_labelled=resize(28)|-1_to_1 -s augment_eval=resize(28)|-1_to_1";
    scratch.run(PRETRAIN, &words(line)).fails(65, &["timm", "start from"]);
}
