//! Files that are there and cannot be looked at, as stale handles of shared storage: an error, never taken for
//! absent. Here each is a link that leads to itself, of which every look says so.

mod common;

use common::training::{
    EVAL, PRETRAIN, labelled_shards, pretrain, pretrain_words, signalled, words,
};
use common::{SMOKE, Scratch, contents, shard};
use std::path::Path;

/// Puts a link to itself in the place of a file, which it returns.
fn hide(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap();
    bytes
}

fn show(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn training_begins_anew_over_neither_a_checkpoint_nor_a_model() {
    let scratch = labelled_shards();
    let line = pretrain_words("supervised_10p", "model", "-s checkpoint_every=2 -s schedule=[1,8]");
    let checkpoint = scratch.path("model/checkpoint/state.safetensors");
    signalled(&scratch, PRETRAIN, &line, "model/checkpoint/state.safetensors", &[libc::SIGTERM]);
    let newest = hide(&checkpoint);
    for more in ["", "--update", "--force"] {
        let ran = scratch.run(PRETRAIN, &words(&format!("{line} {more}")));
        ran.fails(74, &["model/checkpoint/state.safetensors"]);
    }
    show(&checkpoint, &newest);
    scratch.run(PRETRAIN, &words(&line)).ok();

    for name in ["model.safetensors", "config.json"] {
        let path = scratch.path("model").join(name);
        let bytes = hide(&path);
        let other = format!("{line} -s learning_rate=0.01 --update");
        scratch.run(PRETRAIN, &words(&other)).fails(74, &[&format!("model/{name}")]);
        show(&path, &bytes);
    }
    let ran = scratch.run(PRETRAIN, &words(&line.replace(" -q", ""))).ok();
    assert!(ran.stderr.contains("up to date"), "{}", ran.stderr);
}

#[test]
fn shards_are_made_anew_over_neither_finished_files_nor_shards() {
    let scratch = Scratch::new();
    let args = ["--in", SMOKE, "--out", "shards", "-q", "-s", "file_bytes=4000"];
    shard(&scratch, &args).ok();
    let whole = contents(&scratch.path("shards"));
    let dataset = scratch.path("shards/dataset.json");
    let bytes = hide(&dataset);
    for more in ["--update", "--force"] {
        let ran = shard(&scratch, &[&args[..], &[more]].concat());
        ran.fails(74, &["shards/dataset.json"]);
    }
    show(&dataset, &bytes);
    assert_eq!(contents(&scratch.path("shards")), whole);

    // A part is what a run leaves: made into one of the whole that was stopped.
    std::fs::remove_dir_all(scratch.path("shards")).unwrap();
    shard(&scratch, &[&args[..], &["--part", "1/2"]].concat()).ok();
    let part = scratch.path("shards.part-1-of-2");
    std::fs::rename(&part, scratch.path("shards.part-1-of-2.partial")).unwrap();
    let again = [&args[..], &["--part", "1/2"]].concat();
    for name in ["plan.json", "records/train-00000-of-00080.parquet.json"] {
        let path = scratch.path("shards.part-1-of-2.partial").join(name);
        let bytes = hide(&path);
        shard(&scratch, &again).fails(74, &[name]);
        show(&path, &bytes);
    }
    shard(&scratch, &again).ok();
}

/// Nothing is left out of a table in silence.
#[test]
fn a_report_leaves_no_evaluation_out() {
    let scratch = labelled_shards();
    for row in ["supervised_1p", "supervised_10p"] {
        pretrain(&scratch, row, &format!("runs/{row}/model"), "-s schedule=[0,1]").ok();
        let line = format!(
            "--in shards --model runs/{row}/model --out runs/{row}/eval.parquet --threads 1 -q"
        );
        scratch.run(EVAL, &words(&line)).ok();
    }
    let report = || {
        let words = words("--in runs --out report --force -q");
        scratch.run(env!("CARGO_BIN_EXE_s4l-report"), &words)
    };
    report().ok();
    for name in ["eval.parquet", "model/model.safetensors", "model/metrics.parquet"] {
        let path = scratch.path("runs/supervised_1p").join(name);
        let bytes = hide(&path);
        report().fails(74, &[name]);
        show(&path, &bytes);
    }
}
