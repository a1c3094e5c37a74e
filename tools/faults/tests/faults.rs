//! The fault injector, and a sample of its campaigns on the stages:
//!
//!     BIN=$PWD/target/release cargo test --release --manifest-path tools/faults/Cargo.toml

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "../mod.rs"]
#[allow(dead_code)]
mod faults;

use faults::calls::Counted;
use faults::campaign;
use faults::case::{Case, Kind};
use faults::damage;
use faults::draw;
use faults::smoke::Stage;
use faults::trace::{self, End, Fault, Ran};
use faults::world::{LIMIT, World};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The sample: 40 cases.
const SAMPLE: [(Kind, usize); 5] =
    [(Kind::Kill, 16), (Kind::Fail, 8), (Kind::Flip, 8), (Kind::Signal, 4), (Kind::Race, 4)];
const STAGES: [&str; 4] = ["subset", "pretrain", "pseudolabel", "eval"];

/// Runs a shell script of eight calls in a folder.
fn script(folder: &Path, counted: Counted, fault: &Fault) -> Ran {
    let text = "echo one >a; echo two >>a; mkdir d; mv a d/b; ln d/b c; rm c; echo end >&2";
    let mut command = Command::new("sh");
    command.args(["-c", text]).current_dir(folder).stderr(Stdio::piped());
    trace::run(command, counted, fault, LIMIT, &mut |_, _| ()).unwrap()
}

/// The names in a folder, and in its folder `d`.
fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for (folder, prefix) in [(folder.to_path_buf(), ""), (folder.join("d"), "d/")] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            names.push(format!("{prefix}{}", entry.unwrap().file_name().display()));
        }
    }
    names.sort();
    names
}

#[test]
fn calls_have_the_same_numbers_every_time() {
    let mut all = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let ran = script(folder.path(), Counted::Changes, &Fault::None);
        assert_eq!((ran.end, ran.stderr.as_str()), (End::Exit(0), "end\n"));
        let root = folder.path().canonicalize().unwrap();
        let calls = ran.calls.iter().map(|call| {
            let path = call.path.strip_prefix(&root).unwrap_or(&call.path);
            let name = call.name.trim_end_matches("at2").trim_end_matches("at");
            format!("{name} {}", path.display())
        });
        all.push(calls.collect::<Vec<_>>());
    }
    let expected =
        ["open a", "write a", "open a", "write a", "mkdir d", "rename d/b", "link c", "unlink c"];
    assert_eq!(all[0], expected);
    assert_eq!(all[1], expected);
}

#[test]
fn a_kill_comes_before_a_call_or_after_it() {
    // Call 6 is the rename.
    for (after, there) in [(false, &["a", "d"][..]), (true, &["d", "d/b"])] {
        let folder = tempfile::tempdir().unwrap();
        let ran = script(folder.path(), Counted::Changes, &Fault::Kill { at: 6, after });
        assert_eq!((ran.end, ran.injected), (End::Killed(Signal::SIGKILL), 1));
        assert_eq!((ran.calls.len(), ran.stderr.as_str()), (6, ""));
        assert_eq!(names(folder.path()), there);
    }
}

#[test]
fn a_call_fails_once_or_from_there_on() {
    let errno = libc::ENOSPC;
    for (at, onwards, there) in [(8, false, &["c", "d", "d/b"][..]), (5, true, &["a"])] {
        let folder = tempfile::tempdir().unwrap();
        let ran = script(folder.path(), Counted::Changes, &Fault::Fail { at, errno, onwards });
        assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
        // mkdir, mv and rm; ln finds no file to link to.
        assert_eq!(ran.injected > 1, onwards);
        assert_eq!(names(folder.path()), there);
    }
}

#[test]
fn a_short_write_writes_half() {
    let folder = tempfile::tempdir().unwrap();
    let ran = script(folder.path(), Counted::Changes, &Fault::Short { at: 2 });
    // The shell then writes the other half.
    assert_eq!((ran.end, ran.injected, ran.calls.len()), (End::Exit(0), 1, 9));
    assert_eq!(ran.calls[1], ran.calls[2]);
    assert_eq!(std::fs::read_to_string(folder.path().join("d/b")).unwrap(), "one\ntwo\n");
}

#[test]
fn words_fail_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo words >&2; : >a"]).current_dir(&folder).stderr(Stdio::piped());
    let fault = Fault::Fail { at: 1, errno: libc::EPIPE, onwards: false };
    let ran = trace::run(command, Counted::Words, &fault, LIMIT, &mut |_, _| ()).unwrap();
    assert_eq!((names(folder.path()), ran.injected), (vec!["a".to_string()], 1));
    assert!(!ran.stderr.contains("words"), "{}", ran.stderr);
}

#[test]
fn signals_come_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    let text =
        "trap 'echo term >&2' TERM; trap 'echo usr1 >&2' USR1; echo a >a; sleep 0.1; echo b >b";
    command.args(["-c", text]).current_dir(&folder).stderr(Stdio::piped());
    let signals = vec![Signal::SIGUSR1, Signal::SIGTERM];
    let fault = Fault::Signal { at: 1, signals, pause: Duration::from_millis(20) };
    let ran = trace::run(command, Counted::Changes, &fault, LIMIT, &mut |_, _| ()).unwrap();
    assert!(ran.stderr.starts_with("usr1\n") && ran.stderr.contains("term\n"), "{}", ran.stderr);
    assert_eq!(
        (ran.end, names(folder.path())),
        (End::Exit(0), vec!["a".to_string(), "b".to_string()])
    );
}

#[test]
fn a_command_without_end_is_ended() {
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & sleep 1000"]);
    let limit = Duration::from_millis(100);
    let ran = trace::run(command, Counted::Changes, &Fault::None, limit, &mut |_, _| ()).unwrap();
    assert!(ran.hung && ran.end == End::Killed(Signal::SIGKILL));
    let nothing = Command::new("no-such-program");
    assert!(trace::run(nothing, Counted::Changes, &Fault::None, LIMIT, &mut |_, _| ()).is_err());
}

#[test]
fn bits_are_changed_and_files_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"abcd").unwrap();
    damage::flip(&file, 1, 5).unwrap();
    damage::cut(&file, 3).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), b"aBc");
    assert!(damage::flip(&file, 3, 0).is_err() && damage::cut(&file, 3).is_err());
}

#[test]
fn cases_are_named() {
    for name in [
        "kill/shard/force/61",
        "kill/merge/make/3+17",
        "fail/eval/plain/changes/5/ENOSPC/onwards",
        "fail/eval/plain/words/1/EPIPE/once",
        "flip/report/plain/108.2/runs/seed0/supervised_10p/eval.parquet",
        "cut/resume/make/9/model/checkpoint/state.safetensors",
        "signal/pretrain/plain/0/SIGTERM+SIGINT/20",
        "race/distill/make/7/other/held",
    ] {
        assert_eq!(name.parse::<Case>().unwrap().to_string(), name);
    }
    assert!("kill/nothing/force/61".parse::<Case>().is_err());
}

#[test]
fn stages_come_back_to_the_same_bytes() {
    let stages = STAGES.map(|name| Stage::named(name).unwrap());
    let bin = std::env::var("BIN").expect("BIN=FOLDER, the programs of s4l to try");
    let world = World::new(Path::new(&bin), &stages).unwrap();
    let mut sample = Vec::new();
    for (kind, runs) in SAMPLE {
        sample.extend(draw::cases(&world, kind, &stages, runs, 0).unwrap());
    }
    assert_eq!(sample.len(), SAMPLE.iter().map(|s| s.1).sum());
    let summary = campaign::run(&world, &sample, 2, &|_| ()).unwrap();
    assert!(summary.failing.is_empty(), "{:#?}", summary.failing);
    assert_eq!(summary.equal + summary.refused, sample.len(), "{summary}");
}
