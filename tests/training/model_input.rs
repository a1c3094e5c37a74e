//! Models that do not fit the other inputs: one line that says what, where and what to do, the exit code of
//! the contract, and nothing written.

use crate::common::training::{
    EVAL, MOAM, PSEUDOLABEL, flip, labelled_shards, pretrain, recipe, rewrite, words,
};
use crate::common::{Scratch, photos, shard};
use serde_json::json;

const INSPECT: &str = env!("CARGO_BIN_EXE_s4l-inspect");

/// Checks that a command fails and changes nothing.
#[track_caller]
fn refuses(scratch: &Scratch, program: &str, line: &str, code: i32, message: &[&str]) {
    let before = scratch.names();
    scratch.run(program, &[words(line), vec!["-q"]].concat()).fails(code, message);
    assert_eq!(scratch.names(), before);
}

#[test]
fn evaluation_at_another_size() {
    let scratch = labelled_shards();
    let before = scratch.names();
    let more = "-s augment_eval=resize(14)|-1_to_1";
    pretrain(&scratch, "supervised_1p", "model", more).fails(65, &["28x28x1", "14x14x1"]);
    assert_eq!(scratch.names(), before);
}

#[test]
fn a_model_of_another_network() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "one", "").ok();
    for other in ["units=[1,1]", "width_factor=2", "stem=small"] {
        let line = format!(
            "--step finetune --in shards --labelled labelled.parquet --init one --out two --recipe {} \
             -s units=[1] -s stem=small_stride2 -s {other}",
            recipe("moam_step3")
        );
        // An override given twice: the last one counts.
        refuses(&scratch, MOAM, &line, 65, &["one", "units, width factor, stem", "start from"]);
    }
}

#[test]
fn a_model_of_other_classes() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "one", "").ok();
    photos(&scratch);
    std::fs::remove_dir_all(scratch.path("photos/bag")).unwrap();
    shard(&scratch, &["--in", "photos", "--out", "two-classes", "-q"]).ok();
    for program in [EVAL, PSEUDOLABEL] {
        let line = "--in two-classes --split train --model one --out out.parquet";
        let message = ["one", "2 classes of two-classes", "10 classes", "trained on these shards"];
        refuses(&scratch, program, line, 65, &message);
    }
}

#[test]
fn damaged_models() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    let weights = scratch.path("model/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let commands = [
        (EVAL, "--in shards --model model --out e.parquet".to_string()),
        (PSEUDOLABEL, "--in shards --model model --out l.parquet".to_string()),
        (
            MOAM,
            format!(
                "--step finetune --in shards --labelled labelled.parquet --init model --out two --recipe {}",
                recipe("moam_step3")
            ),
        ),
    ];
    for length in [0, 5, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&weights, &bytes[..length]).unwrap();
        for (program, line) in &commands {
            refuses(&scratch, program, line, 65, &["model/model.safetensors", "s4l-pretrain"]);
        }
    }
    flip(&weights);
    for (program, line) in &commands {
        refuses(&scratch, program, line, 65, &["model/model.safetensors", "changed bytes"]);
    }
    std::fs::write(&weights, &bytes).unwrap();
    for weight in [f32::NAN, f32::INFINITY] {
        rewrite(&weights, |_, tensors| *tensors[0].2.last_mut().unwrap() = weight);
        for (program, line) in &commands {
            refuses(&scratch, program, line, 65, &["model/model.safetensors", "a weight that is"]);
        }
    }
    std::fs::write(&weights, &bytes).unwrap();
    // Of another model.
    let own = std::fs::read(scratch.path("model/config.json")).unwrap();
    pretrain(&scratch, "supervised_1p", "other", "--seed 1").ok();
    std::fs::copy(scratch.path("other/config.json"), scratch.path("model/config.json")).unwrap();
    for (program, line) in &commands {
        let message = ["model/config.json", "configuration of model.safetensors", "s4l-pretrain"];
        refuses(&scratch, program, line, 65, &message);
    }
    scratch.run(INSPECT, &["--verify", "model"]).fails(3, &["model/config.json"]);
    scratch.write("model/config.json", own);
    scratch.run(INSPECT, &["--verify", "model"]).ok();
    // A network or images too large for any memory; the weights are of a program that writes no hash.
    rewrite(&weights, |header, _| drop(header.remove("s4l.config")));
    let config = std::fs::read_to_string(scratch.path("model/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [
        ("/architecture/width_factor", json!(1u64 << 60)),
        ("/architecture/width_factor", json!(1 << 12)),
        ("/architecture/units", json!([1u64 << 40])),
        ("/architecture/units", json!(vec![1; 100])),
        ("/architecture/units", json!([])),
        ("/architecture/channels", json!(u64::MAX)),
        ("/architecture/heads", json!([["classes", u64::MAX]])),
        ("/height", json!(1u64 << 40)),
        ("/width", json!(0)),
    ] {
        let mut other = config.clone();
        *other.pointer_mut(key).unwrap() = value;
        scratch.write("model/config.json", other.to_string());
        for (program, line) in &commands {
            refuses(&scratch, program, line, 65, &["model/", "s4l-pretrain"]);
        }
    }
    scratch.write("model/config.json", "{\"height\": 28");
    for (program, line) in &commands {
        refuses(&scratch, program, line, 65, &["model/config.json", "s4l-pretrain"]);
    }
    std::fs::remove_file(scratch.path("model/config.json")).unwrap();
    for (program, line) in &commands {
        refuses(&scratch, program, line, 66, &["model/config.json", "s4l-pretrain"]);
    }
}
