//! Only one run at a time makes an output: the lock of each stage, and how it is released.

use crate::common::training::{
    EVAL, MOAM, PRETRAIN, PSEUDOLABEL, differing, labelled_shards, moam_words, model, pretrain,
    pretrain_words, pseudolabel, words,
};
use crate::common::{SMOKE, Scratch};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SHARD: &str = env!("CARGO_BIN_EXE_s4l-shard");
const SUBSET: &str = env!("CARGO_BIN_EXE_s4l-subset");
const REPORT: &str = env!("CARGO_BIN_EXE_s4l-report");
const EXPORT: &str = env!("CARGO_BIN_EXE_s4l-export");
const INSPECT: &str = env!("CARGO_BIN_EXE_s4l-inspect");

/// Waits until a file exists.
fn wait_for(scratch: &Scratch, file: &str) {
    let start = Instant::now();
    while !scratch.path(file).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no {file}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a training stage that has written a checkpoint.
fn started(scratch: &Scratch, line: &str) -> Child {
    let mut command = Command::new(PRETRAIN);
    command.args(words(line)).current_dir(scratch.path(".")).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_for(scratch, "model/checkpoint/state.safetensors");
    child
}

#[test]
fn a_second_run_is_told_who_makes_the_model_and_disturbs_nothing() {
    let scratch = labelled_shards();
    let more = "-s checkpoint_every=2 -s schedule=[0,40]";
    pretrain(&scratch, "supervised_10p", "whole", more).ok();
    let mut first = started(&scratch, &pretrain_words("supervised_10p", "model", more));
    let pid = format!("pid {}, since 20", first.id());
    // By any name of the folder.
    std::os::unix::fs::symlink("model", scratch.path("link")).unwrap();
    for (out, seed) in [("model", 0), ("./model/", 1), ("link", 1)] {
        let line = format!("{more} --seed {seed} --force");
        let ran = pretrain(&scratch, "supervised_10p", out, &line);
        ran.fails(75, &[": another run is making it (host ", &pid, "run the same command again"]);
    }
    assert!(first.try_wait().unwrap().is_none(), "the first run ended too early to be disturbed");
    assert!(first.wait().unwrap().success());
    assert_eq!(
        differing(&model(&scratch, "whole"), &model(&scratch, "model")),
        Vec::<String>::new()
    );
    assert!(!scratch.path("model.lock").exists());
}

/// Nobody has to remove the lock of a killed run, on whichever host it ran.
#[test]
fn a_lock_ends_with_its_holder() {
    let scratch = labelled_shards();
    let more = "-s checkpoint_every=2 -s schedule=[0,40]";
    let line = pretrain_words("supervised_10p", "model", more).replace(" -q", "");
    let mut first = started(&scratch, &line);
    first.kill().unwrap();
    first.wait().unwrap();
    let holder = std::fs::read_to_string(scratch.path("model.lock")).unwrap();
    assert!(holder.contains(&format!("pid {}", first.id())), "{holder}");
    let mut again = Command::new(PRETRAIN);
    again.args(words(&line)).current_dir(scratch.path("."));
    // SAFETY: two system calls between fork and exec. If the user may not set a host name, the second run
    // has the same one.
    unsafe {
        again.pre_exec(|| {
            if libc::unshare(libc::CLONE_NEWUTS) == 0 {
                libc::sethostname(c"elsewhere".as_ptr(), 9);
            }
            Ok(())
        });
    }
    let ran = again.output().unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{stderr}");
    assert!(stderr.contains("going on from step "), "{stderr}");
    model(&scratch, "model");
    assert!(!scratch.path("model.lock").exists());
}

/// Everything needed to run each stage.
fn pipeline() -> Scratch {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "one", "-s stem=imagenet -s schedule=[0,0.2]").ok();
    pseudolabel(&scratch, "one", "").ok();
    scratch.run(EVAL, &words("--in shards --model one --out runs/one/eval.parquet -q")).ok();
    scratch
}

#[test]
fn every_stage_keeps_away_from_an_output_in_the_making() {
    let scratch = pipeline();
    let stages = [
        (SHARD, format!("--in {SMOKE} --out out"), "out"),
        (SHARD, format!("--in {SMOKE} --out out --part 1/2"), "out.part-1-of-2"),
        (SHARD, "--merge --out out".into(), "out"),
        (SUBSET, "--in shards --per-class 5 --out out".into(), "out"),
        (SUBSET, "--in shards --per-class 5 --val-per-class 1 --val-out out --out a".into(), "out"),
        (PRETRAIN, pretrain_words("supervised_1p", "out", ""), "out"),
        (MOAM, moam_words("distill", "out", "--labels labels.parquet"), "out"),
        (PSEUDOLABEL, "--in shards --model one --out out".into(), "out"),
        (PSEUDOLABEL, "--in shards --model one --out out --part 1/2".into(), "out.part-1-of-2"),
        (PSEUDOLABEL, "--merge --out out".into(), "out"),
        (EVAL, "--in shards --model one --out out".into(), "out"),
        (REPORT, "--in runs --out out".into(), "out"),
        (EXPORT, "--model one --to timm --out out".into(), "out"),
        (INSPECT, "one --out out".into(), "out"),
    ];
    for (program, line, out) in stages {
        let file = File::create(scratch.path(&format!("{out}.lock"))).unwrap();
        file.lock().unwrap();
        let before = scratch.names();
        let ran = scratch.run(program, &words(&format!("{} -q", line.replace(" -q", ""))));
        ran.fails(75, &[out, "another run is making it"]);
        assert_eq!(scratch.names(), before, "{line}");
        std::fs::remove_file(scratch.path(&format!("{out}.lock"))).unwrap();
    }
}

/// If there are no locks, a warning says so, and the run continues.
#[test]
fn without_locks_there_is_a_warning() {
    let scratch = labelled_shards();
    // A file that cannot be opened cannot be locked.
    std::fs::create_dir(scratch.path("model.lock")).unwrap();
    let ran = pretrain(&scratch, "supervised_1p", "model", "").ok();
    assert!(ran.stderr.starts_with("warning: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("model.lock: cannot be locked"), "{}", ran.stderr);
    model(&scratch, "model");
}
