//! Where the stages write: never over an input or a file that is not theirs, and nothing of a killed run
//! remains.

use crate::common::training::{EVAL, PRETRAIN, PSEUDOLABEL, labelled_shards, pretrain, words};
use crate::common::{SMOKE, Scratch, contents, shard, smoke_shards};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const SUBSET: &str = env!("CARGO_BIN_EXE_s4l-subset");
const REPORT: &str = env!("CARGO_BIN_EXE_s4l-report");
const EXPORT: &str = env!("CARGO_BIN_EXE_s4l-export");
const INSPECT: &str = env!("CARGO_BIN_EXE_s4l-inspect");

/// Runs a stage, which must refuse and change nothing.
#[track_caller]
fn refused(scratch: &Scratch, program: &str, line: &str, code: i32, keeps: &str) {
    let path = scratch.path(keeps);
    let read = || match path.is_dir() {
        true => contents(&path),
        false => vec![(String::new(), std::fs::read(&path).unwrap())],
    };
    let before = read();
    let ran = scratch.run(program, &words(&format!("{line} --force")));
    ran.fails(code, &["another --out", "error: "]);
    assert_eq!(read(), before, "{keeps} after {line}");
}

#[test]
fn inputs_and_what_is_not_of_the_stage_are_never_replaced() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "-s schedule=[0,2]").ok();
    scratch.write("notes.txt", "mine");
    scratch.write("r.toml", "");
    let eval = "--in shards --model model --threads 1 -q --out";
    let pseudolabel = "--in shards --model model -q --labelled labelled.parquet --out";
    let subset = "--in shards --per-class 3 --nested-in labelled.parquet --out";
    let train = "--in shards --labelled labelled.parquet -s units=[1] -q --out";
    for (program, line, out) in [
        (EVAL, &*format!("{eval} val.parquet --split train --labelled"), "val.parquet"),
        (EVAL, eval, "model/model.safetensors"),
        (EVAL, eval, "shards/eval.parquet"),
        (EVAL, &format!("{eval} r.toml --recipe"), "r.toml"),
        (PSEUDOLABEL, pseudolabel, "labelled.parquet"),
        (PSEUDOLABEL, pseudolabel, "model"),
        (SUBSET, subset, "labelled.parquet"),
        (PRETRAIN, train, "shards"),
        (PRETRAIN, &format!("--init model {train}"), "model"),
        (PRETRAIN, train, "labelled.parquet"),
        (INSPECT, "labelled.parquet --out", "labelled.parquet"),
        (INSPECT, "model --out", "model/config.json"),
    ] {
        let keeps = if out == "shards/eval.parquet" { "shards" } else { out };
        refused(&scratch, program, &format!("{line} {out}"), 2, keeps);
    }

    // The table of another stage, a file of another program, a folder.
    for (program, line) in [(EVAL, eval), (PSEUDOLABEL, pseudolabel), (SUBSET, subset)] {
        for out in ["val.parquet", "notes.txt", "folder"] {
            if (program, out) != (SUBSET, "val.parquet") {
                scratch.write("folder/notes.txt", "mine");
                refused(&scratch, program, &format!("{line} {out}"), 73, out);
            }
        }
    }
    // An empty file is nobody's work.
    scratch.write("empty.parquet", "");
    let again = format!("{eval} empty.parquet --force");
    scratch.run(EVAL, &words(&again)).ok();
    scratch.run(EVAL, &words(&again)).ok();
}

#[test]
fn folders_of_something_else_are_never_replaced() {
    let scratch = labelled_shards();
    let wide = "-s schedule=[0,1] -s stem=imagenet";
    pretrain(&scratch, "supervised_1p", "runs/a/model", wide).ok();
    let eval = "--in shards --model runs/a/model -q --threads 1 --out runs/a/eval.parquet";
    scratch.run(EVAL, &words(eval)).ok();
    let report = "--in runs -q --out";
    scratch.write("site/index.html", "mine");
    refused(&scratch, REPORT, &format!("{report} site"), 73, "site");
    refused(&scratch, REPORT, &format!("{report} runs"), 73, "runs/a/eval.parquet");
    for _ in 0..2 {
        scratch.run(REPORT, &words(&format!("{report} report --force"))).ok();
    }

    let train = "--in shards --labelled labelled.parquet -s units=[1] -q --out";
    scratch.write("thesis/README.md", "mine");
    scratch.write("thesis/config.json", "{}");
    scratch.write("file", "mine");
    for out in ["thesis", "file"] {
        refused(&scratch, PRETRAIN, &format!("{train} {out}"), 73, out);
    }

    let export = "--model runs/a/model --to timm -q --out timm";
    scratch.run(EXPORT, &words(export)).ok();
    scratch.write("timm/notes.txt", "mine");
    refused(&scratch, EXPORT, export, 73, "timm");

    let making = format!("--in {SMOKE} -q --out");
    scratch.write("shards/notes.txt", "mine");
    refused(&scratch, env!("CARGO_BIN_EXE_s4l-shard"), &format!("{making} shards"), 73, "shards");
    scratch.write("other.part-1-of-2/notes.txt", "mine");
    let part = format!("{making} other --part 1/2");
    refused(&scratch, env!("CARGO_BIN_EXE_s4l-shard"), &part, 73, "other.part-1-of-2");
    scratch.write("labels/labels.csv", "a,b");
    let labels = format!("{making} labels --labels labels/labels.csv");
    refused(&scratch, env!("CARGO_BIN_EXE_s4l-shard"), &labels, 2, "labels");
}

#[test]
fn what_killed_runs_left_goes_and_what_runs_hold_stays() {
    let scratch = smoke_shards();
    let subset = ["--in", "shards", "--per-class", "3", "--out", "l.parquet"];
    for name in [".s4l-l.parquet-abcdef.tmp", ".s4l-l.parquet.prov.json-ghijkl.tmp"] {
        scratch.write(name, "half");
    }
    scratch.write(".s4l-l.parquet-folder.tmp/half", "half");
    let held = scratch.write(".s4l-l.parquet-held00.tmp", "half");
    let held = std::fs::File::open(held).unwrap();
    held.lock().unwrap();
    scratch.write(".s4l-other.parquet-abcdef.tmp", "of another output");
    scratch.run(SUBSET, &subset).ok();
    let left = [".s4l-l.parquet-held00.tmp", ".s4l-other.parquet-abcdef.tmp"];
    let outputs = ["l.parquet", "l.parquet.prov.json", "shards", "shards.prov.json"];
    assert_eq!(scratch.names(), [&left[..], &outputs].concat());
    // Also if the output is up to date.
    drop(held);
    let again = scratch.run(SUBSET, &subset).ok();
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    assert_eq!(scratch.names(), [&left[1..], &outputs].concat());
}

#[test]
fn a_sidecar_that_cannot_be_written_is_a_warning() {
    let scratch = smoke_shards();
    scratch.write("l.parquet.prov.json/in/the/way", "");
    let subset = ["--in", "shards", "--per-class", "3", "--out", "l.parquet"];
    let ran = scratch.run(SUBSET, &subset).ok();
    assert!(ran.stderr.contains("warning: l.parquet.prov.json"), "{}", ran.stderr);
    scratch.write("other.prov.json/in/the/way", "");
    let ran = shard(&scratch, &["--in", SMOKE, "--out", "other", "-q"]).ok();
    assert!(ran.stderr.contains("warning: other.prov.json"), "{}", ran.stderr);
    assert!(scratch.path("other/dataset.json").is_file());
    assert!(!scratch.path("other.partial").exists());
}

#[test]
fn outputs_are_open_to_those_that_the_umask_lets_in() {
    let scratch = Scratch::new();
    let mode = |name: &str| scratch.path(name).metadata().unwrap().permissions().mode() & 0o777;
    for (umask, file, folder) in [("002", 0o664, 0o775), ("077", 0o600, 0o700)] {
        let (shard, out) = (env!("CARGO_BIN_EXE_s4l-shard"), format!("shards{umask}"));
        let line = format!(
            "umask {umask}; {shard} --in {SMOKE} -q --out {out} && \
             {SUBSET} --in {out} --per-class 3 -q --out {out}.parquet"
        );
        let ran = Command::new("sh").args(["-c", &line]).current_dir(scratch.path("")).status();
        assert!(ran.unwrap().success());
        assert_eq!(mode(&out), folder);
        for name in ["dataset.json", "MANIFEST.b3", "train-00000-of-00001.parquet"] {
            assert_eq!(mode(&format!("{out}/{name}")), file, "{name}");
        }
        assert_eq!(mode(&format!("{out}.parquet")), file);
        assert_eq!(mode(&format!("{out}.parquet.prov.json")), file);
    }
}
