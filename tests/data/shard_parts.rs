//! `s4l-shard` in pieces: killed and run again, stopped, and split into parts: always the bytes of one run.

use crate::common::{IMAGES, SMOKE, Scratch, contents, photos, shard, smoke};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// 120 files.
const ARGS: [&str; 6] = ["--in", SMOKE, "--out", "shards", "-s", "file_bytes=4000"];

fn whole() -> Vec<(String, Vec<u8>)> {
    let scratch = Scratch::new();
    shard(&scratch, &ARGS).ok();
    contents(&scratch.path("shards"))
}

/// Runs the stage until some files are finished, then sends the signal; returns the exit code.
fn interrupted(scratch: &Scratch, signal: &str) -> Option<i32> {
    let records = scratch.path("shards.partial/records");
    let finished = || {
        let entries = std::fs::read_dir(&records).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.ends_with(".json")).count()
    };
    let before = finished();
    let mut child = Command::new(env!("CARGO_BIN_EXE_s4l-shard"))
        .args(ARGS)
        .current_dir(scratch.path(""))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while finished() < before + 10 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    Command::new("kill").args([signal, &pid]).status().unwrap();
    let code = child.wait().unwrap().code();
    assert!(finished() > before);
    code
}

#[test]
fn killed_it_goes_on_and_ends_with_the_same_bytes() {
    let scratch = Scratch::new();
    for _ in 0..3 {
        assert_eq!(interrupted(&scratch, "-KILL"), None);
        assert!(!scratch.path("shards").exists());
    }
    let kept = "shards.partial/files/train-00000-of-00080.parquet";
    let kept = std::fs::File::open(scratch.path(kept)).unwrap();
    shard(&scratch, &ARGS).ok();
    // Finished files were not written again: they are the same inodes.
    let inode = |metadata: std::fs::Metadata| std::os::unix::fs::MetadataExt::ino(&metadata);
    let after = scratch.path("shards/train-00000-of-00080.parquet");
    let after = inode(after.metadata().unwrap());
    assert_eq!(inode(kept.metadata().unwrap()), after);
    assert_eq!(contents(&scratch.path("shards")), whole());
    assert_eq!(scratch.names(), ["shards", "shards.prov.json"]);
}

#[test]
fn stopped_it_says_so_and_goes_on() {
    let scratch = Scratch::new();
    assert_eq!(interrupted(&scratch, "-TERM"), Some(75));
    assert_eq!(scratch.names(), ["shards.partial"]);
    // With another plan everything starts again.
    shard(&scratch, &[&ARGS[..4], &["-s", "file_bytes=40000"]].concat()).ok();
    let other = scratch.path("shards/train-00000-of-00008.parquet");
    assert!(other.is_file());
    assert_eq!(scratch.names(), ["shards", "shards.prov.json"]);
}

#[test]
fn parts_merge_into_the_bytes_of_one_run() {
    let scratch = Scratch::new();
    let parts: Vec<String> = (1..=3).map(|i| format!("{i}/3")).collect();
    for part in parts.iter().rev() {
        if part != "2/3" {
            shard(&scratch, &[&ARGS[..], &["--part", part]].concat()).ok();
        }
    }
    let merge = ["--merge", "--out", "shards"];
    shard(&scratch, &merge).fails(66, &["shards.part-2-of-3", "--part"]);
    let second = [&ARGS[..], &["--part", "2/3"]].concat();
    shard(&scratch, &second).ok();
    let again = shard(&scratch, &second).ok();
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    // As the second of the three tasks of an array.
    let array = [("ID", "11"), ("MIN", "10"), ("COUNT", "3")];
    let array = array.map(|(name, value)| (format!("SLURM_ARRAY_TASK_{name}"), value));
    let mut task = Command::new(env!("CARGO_BIN_EXE_s4l-shard"));
    task.args(ARGS).args(["--part", "auto"]).current_dir(scratch.path(""));
    let said = String::from_utf8(task.envs(array).output().unwrap().stderr).unwrap();
    assert!(said.contains("shards.part-2-of-3: up to date"), "{said}");
    let third = scratch.path("shards.part-3-of-3");
    let copied = Command::new("cp").arg("-r").arg(&third).arg(scratch.path("kept")).status();
    assert!(copied.unwrap().success());
    let merged = shard(&scratch, &merge).ok();
    assert!(merged.stderr.contains("train  400"), "{}", merged.stderr);
    assert_eq!(contents(&scratch.path("shards")), whole());
    // Of the parts, only their provenance remains.
    assert_eq!(scratch.names(), ["kept", "shards", "shards.prov.json"]);
    let sidecar = std::fs::read(scratch.path("shards.prov.json")).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
    let options: Vec<_> = (0..3).map(|nth| sidecar["parts"][nth]["command"][8].clone()).collect();
    assert_eq!(options, ["1/3", "2/3", "3/3"]);
    // The state after a merge was killed while it removed the parts.
    std::fs::rename(scratch.path("kept"), third).unwrap();
    let up_to_date = [&merge[..], &["--merge", "--force"], &second[..], &ARGS[..]];
    for args in up_to_date {
        let again = shard(&scratch, args).ok();
        assert!(again.stderr.contains("shards: up to date"), "{}", again.stderr);
        assert!(!scratch.names().iter().any(|name| name.contains(".part-")));
    }

    // A part of another input is not joined.
    shard(&scratch, &[&ARGS[..], &["--part", "1/2", "--force"]].concat()).ok();
    let other = ["--in", SMOKE, "--out", "shards", "--part", "2/2", "--force"];
    shard(&scratch, &other).ok();
    let merge = ["--merge", "--out", "shards", "--force"];
    shard(&scratch, &merge).fails(65, &["shards.part-2-of-2", "another"]);
    for part in ["0/3", "4/3", "1", "a/b"] {
        let ran = shard(&scratch, &["--in", SMOKE, "--part", part]);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
    }
}

/// The survey that the parts share is made by one of them, in any order, and made again only for other
/// images.
#[test]
fn the_input_is_read_once_for_all_parts() {
    let scratch = Scratch::new();
    for (name, bytes) in contents(Path::new(SMOKE)) {
        scratch.write(&format!("data/{name}"), bytes);
    }
    let args = ["--in", "data", "--out", "shards", "-s", "file_bytes=4000", "-q"];
    let part = |part: &str| shard(&scratch, &[&args[..], &["--part", part]].concat());
    let survey = scratch.path("shards.survey");
    let made = || std::os::unix::fs::MetadataExt::ino(&survey.metadata().unwrap());
    part("2/4").ok();
    let first = std::fs::File::open(&survey).unwrap(); // so that its number is not given again
    let number = made();
    std::thread::scope(|scope| {
        for nth in ["1/4", "3/4"] {
            scope.spawn(move || part(nth).ok());
        }
    });
    assert_eq!(made(), number);
    // A damaged survey is made again.
    let text = std::fs::read_to_string(&survey).unwrap();
    std::fs::write(&survey, text.replacen("\"first\":0", "\"first\":1", 1)).unwrap();
    part("4/4").ok();
    assert_eq!(std::fs::read_to_string(&survey).unwrap(), text);
    drop(first);
    shard(&scratch, &["--merge", "--out", "shards", "-q"]).ok();
    assert_eq!(contents(&scratch.path("shards")), whole());
    assert_eq!(scratch.names(), ["data", "shards", "shards.prov.json"]);

    // Other images of the same size.
    std::fs::remove_dir_all(scratch.path("shards")).unwrap();
    part("1/2").ok();
    let mut images = smoke(IMAGES);
    images[100] ^= 1;
    std::fs::remove_file(scratch.path(&format!("data/{IMAGES}.zst"))).unwrap();
    scratch.write(&format!("data/{IMAGES}"), images);
    part("2/2").ok();
    shard(&scratch, &["--merge", "--out", "shards"]).fails(65, &["shards.part-2-of-2", "another"]);
    // A file of another program.
    scratch.write("shards.survey", "words");
    part("2/2").fails(73, &["shards.survey", "another --out"]);
}

#[test]
fn rejects_of_parts_are_those_of_one_run() {
    let scratch = Scratch::new();
    photos(&scratch);
    scratch.write("photos/coat/zz.png", "x");
    scratch.write("photos/bag/aa.png", "y");
    let args = ["--in", "photos", "-s", "file_bytes=1000", "--allow-rejects", "0.5"];
    let run = |more: &[&str]| shard(&scratch, &[&args[..], more].concat()).ok();
    run(&["--out", "one"]);
    run(&["--out", "two", "--part", "1/2"]);
    run(&["--out", "two", "--part", "2/2"]);
    shard(&scratch, &["--merge", "--out", "two"]).fails(65, &["2, as", "0.01 of 14"]);
    let merge = ["--merge", "--out", "two", "--allow-rejects", "0.5"];
    shard(&scratch, &merge).ok();
    assert_eq!(contents(&scratch.path("one")), contents(&scratch.path("two")));
    let names: Vec<String> = contents(&scratch.path("one")).into_iter().map(|f| f.0).collect();
    assert!(names.contains(&"rejects.parquet".to_string()));
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let scratch = Scratch::new();
    scratch.write("shards.partial/thesis.tex", "words");
    shard(&scratch, &ARGS[..4]).fails(73, &["shards.partial", "another --out"]);
    assert!(scratch.path("shards.partial/thesis.tex").is_file());
}

#[test]
fn a_record_counts_only_with_its_file() {
    let scratch = Scratch::new();
    assert_eq!(interrupted(&scratch, "-TERM"), Some(75));
    let files = scratch.path("shards.partial/files");
    let damage: [&dyn Fn(); 4] = [
        &|| std::fs::remove_dir_all(&files).unwrap(),
        &|| std::fs::remove_file(files.join("train-00000-of-00080.parquet")).unwrap(),
        // One changed byte in one file; one file cut in half.
        &|| {
            let path = files.join("train-00001-of-00080.parquet");
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[1000] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        &|| {
            let path = files.join("train-00002-of-00080.parquet");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        },
    ];
    for damage in damage {
        if !files.exists() {
            assert_eq!(interrupted(&scratch, "-TERM"), Some(75));
        }
        damage();
    }
    // Files that this run has not finished.
    scratch.write("shards.partial/files/rejects.parquet", "of another run");
    scratch.write("shards.partial/files/.s4l-MANIFEST.b3-abcdef.tmp", "half");
    shard(&scratch, &ARGS).ok();
    assert_eq!(contents(&scratch.path("shards")), whole());
    assert_eq!(scratch.names(), ["shards", "shards.prov.json"]);
}

/// The end of a run, killed before each of its steps.
#[test]
fn killed_in_its_last_second_it_ends_with_the_same_bytes() {
    let scratch = Scratch::new();
    assert_eq!(interrupted(&scratch, "-TERM"), Some(75));
    let copy = |from: &str, to: &str| {
        let copied =
            Command::new("cp").args(["-r", from, to]).current_dir(scratch.path("")).status();
        assert!(copied.unwrap().success());
    };
    copy("shards.partial", "kept");
    shard(&scratch, &ARGS).ok();
    for (force, left) in [
        // The folder has its name, and the staging folder still exists, complete or in part.
        (false, &["records", "plan.json"][..]),
        (true, &["records", "plan.json"]),
        (true, &["plan.json"]),
        // The old shards were exchanged for the new ones.
        (true, &["files", "records", "plan.json"]),
        (true, &[]),
    ] {
        scratch.write("shards.partial/plan.json", "");
        std::fs::remove_file(scratch.path("shards.partial/plan.json")).unwrap();
        for name in left {
            copy(&format!("kept/{name}"), "shards.partial");
        }
        if left.contains(&"files") {
            scratch.write("shards.partial/files/train-00000-of-00008.parquet", "old");
        }
        let more: &[&str] = if force { &["--force"] } else { &[] };
        shard(&scratch, &[&ARGS, more].concat()).ok();
        assert_eq!(contents(&scratch.path("shards")), whole(), "{left:?}");
        assert_eq!(scratch.names(), ["kept", "shards", "shards.prov.json"], "{left:?}");
    }
}

#[test]
fn a_part_that_was_copied_in_half_is_not_joined() {
    let scratch = Scratch::new();
    for part in ["1/2", "2/2"] {
        shard(&scratch, &[&ARGS[..], &["--part", part]].concat()).ok();
    }
    let path = scratch.path("shards.part-2-of-2/files/train-00079-of-00080.parquet");
    let bytes = std::fs::read(&path).unwrap();
    let merge = ["--merge", "--out", "shards"];
    for half in [&bytes[..bytes.len() / 2], &[&bytes[..bytes.len() - 1], b"x"].concat()] {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, half).unwrap();
        shard(&scratch, &merge).fails(65, &["train-00079-of-00080.parquet", "the part again"]);
        assert!(!scratch.path("shards").exists());
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let record = scratch.path("shards.part-2-of-2/records/train-00079-of-00080.parquet.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let content = text.find("content\":").unwrap() + "content\":".len();
    let other = if text.as_bytes()[content] == b'1' { "2" } else { "1" };
    let changed = [&text[..content], other, &text[content + 1..]].concat();
    std::fs::write(&record, changed).unwrap();
    shard(&scratch, &merge).fails(65, &["train-00079-of-00080.parquet", "the part again"]);
    std::fs::write(&record, text).unwrap();
    // Left by a killed run.
    std::fs::write(scratch.path("shards.partial/records/train-00000-of-00080.parquet.json"), "{")
        .unwrap();
    shard(&scratch, &merge).ok();
    assert_eq!(contents(&scratch.path("shards")), whole());
}
