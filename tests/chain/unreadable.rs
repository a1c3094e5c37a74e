//! Files that exist but cannot be examined, like stale handles on shared storage: an error, never taken for
//! absent. Here each is a link to itself, for which every look is an error.

use crate::common::training::{
    EVAL, PRETRAIN, labelled_shards, pretrain, pretrain_words, signalled, words,
};
use crate::common::{SMOKE, Scratch, contents, png, real, shard};
use std::path::Path;

/// Replaces a file by a link to itself; returns its bytes.
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

    // A finished part, renamed as if its run had been stopped.
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

/// Nothing is silently left out of a table.
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

/// Every stage that reads a model or replaces an export, in any format.
#[test]
fn models_and_exports_are_there() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "model", "-s schedule=[0,1] -s stem=imagenet").ok();
    let run = |program: &str, line: &str| scratch.run(program, &words(line));
    const EXPORT: &str = env!("CARGO_BIN_EXE_s4l-export");
    for (format, file) in [("huggingface", "config.json"), ("onnx", "model.onnx")] {
        let line = format!("--to {format} --out {format} -q");
        run(EXPORT, &line).ok();
        let path = scratch.path(format).join(file);
        let bytes = hide(&path);
        for more in ["", "--update", "--force"] {
            run(EXPORT, &format!("{line} {more}")).fails(74, &[&format!("{format}/{file}")]);
        }
        show(&path, &bytes);
        run(EXPORT, &line).ok();
    }
    const INSPECT: &str = env!("CARGO_BIN_EXE_s4l-inspect");
    let predict = format!("--model model {SMOKE}");
    for name in ["model.safetensors", "config.json"] {
        let path = scratch.path("model").join(name);
        let bytes = hide(&path);
        for (program, line) in [
            (EVAL, "--in shards --out e.parquet"),
            (EXPORT, "--to onnx --out other"),
            (env!("CARGO_BIN_EXE_s4l-predict"), predict.as_str()),
            (INSPECT, "model"),
            (INSPECT, "--verify model"),
            (INSPECT, "--lineage model"),
        ] {
            run(program, line).fails(74, &[&format!("model/{name}")]);
        }
        show(&path, &bytes);
    }
    // A table of labels.
    let bytes = hide(&scratch.path("labelled.parquet"));
    for line in ["labelled.parquet", "--lineage labelled.parquet"] {
        run(INSPECT, line).fails(74, &["labelled.parquet"]);
    }
    run(env!("CARGO_BIN_EXE_s4l-predict"), "--model model labelled.parquet").fails(74, &[]);
    show(&scratch.path("labelled.parquet"), &bytes);
}

/// No image of an input is skipped, and no part is missed.
#[test]
fn no_image_is_passed_over_and_no_part_is_missed() {
    let scratch = Scratch::new();
    for name in ["cat/1.png", "cat/2.png", "dog/3.png", "dog/4"] {
        scratch.write(&format!("images/{name}"), png(&real(3).0, 28));
    }
    scratch.write("one.tar", "");
    for entry in std::fs::read_dir(SMOKE).unwrap() {
        let from = entry.unwrap().path();
        let name = format!("idx/{}", from.file_name().unwrap().to_str().unwrap());
        scratch.write(&name, std::fs::read(from).unwrap());
    }
    for (input, file) in [
        ("images", "cat/2.png"),
        ("images", "dog/4"),
        ("idx", "train-labels-idx1-ubyte.zst"),
        ("idx", "t10k-images-idx3-ubyte.zst"),
        ("idx", "classes.txt"),
        ("one.tar", "one.tar"),
    ] {
        let path = if input == file { scratch.path(file) } else { scratch.path(input).join(file) };
        let bytes = hide(&path);
        shard(&scratch, &["--in", input, "--out", "shards", "-q"]).fails(74, &[file]);
        show(&path, &bytes);
    }
    let labelled = labelled_shards();
    pretrain(&labelled, "supervised_10p", "model", "-s schedule=[0,1]").ok();
    let line = "--in shards --out eval.parquet --threads 1 -q";
    for part in ["1/2", "2/2"] {
        labelled.run(EVAL, &words(&format!("{line} --part {part}"))).ok();
    }
    let part = labelled.path("eval.parquet.part-2-of-2");
    let bytes = hide(&part);
    let merge = words("--merge --out eval.parquet -q");
    labelled.run(EVAL, &merge).fails(74, &["eval.parquet.part-2-of-2"]);
    show(&part, &bytes);
    labelled.run(EVAL, &merge).ok();
}
