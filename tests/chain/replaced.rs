//! Folders that are replaced while a stage reads them: it reads all of the old one, all of the new one, or
//! prints an error.

use crate::common::training::{
    PRETRAIN, differing, labelled_shards, model, pretrain, pretrain_words, words,
};
use crate::common::{IMAGES, LABELS, SMOKE, Scratch, contents, shard, smoke, smoke_shards};
use s4l::error::Error;
use s4l::model::folder::Model;
use s4l::shards::Shards;
use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Data of the same size with the images in another order, and the command that makes shards of it.
fn other_images(scratch: &Scratch, out: &'static str) -> [&'static str; 5] {
    for (name, head, size) in [(IMAGES, 16, 784), (LABELS, 8, 1)] {
        let bytes = smoke(name);
        let (head, rows) = bytes.split_at(head);
        let rows: Vec<u8> = rows.rchunks(size).flatten().copied().collect();
        scratch.write(&format!("data/{name}"), [head, &rows].concat());
    }
    scratch.write("data/classes.txt", std::fs::read(format!("{SMOKE}/classes.txt")).unwrap());
    ["--in", "data", "--out", out, "-q"]
}

/// Puts the folder `new` in the place of `old`.
fn replace(scratch: &Scratch, old: &str, new: &str) {
    std::fs::rename(scratch.path(old), scratch.path("gone")).unwrap();
    std::fs::rename(scratch.path(new), scratch.path(old)).unwrap();
}

#[track_caller]
fn is_refused<T>(read: Result<T, Error>, folder: &str) {
    let error = read.err().expect("a mixture was read");
    assert_eq!(error.exit_code(), 74, "{error}");
    assert!(error.to_string().contains(&format!("{folder}: another was put in its place")));
}

#[test]
fn shards_are_of_one_folder() {
    let scratch = smoke_shards();
    shard(&scratch, &other_images(&scratch, "other")).ok();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    shards.split("train").unwrap();
    replace(&scratch, "shards", "other");
    is_refused(shards.split("train"), "shards");
    std::fs::rename(scratch.path("shards"), scratch.path("other")).unwrap();
    is_refused(shards.split("train"), "shards");
    // Of the version before files had hashes; its classes have other names.
    let scratch = Scratch::new();
    let old = format!("{}/tests/old/shards", env!("CARGO_MANIFEST_DIR"));
    for (name, bytes) in contents(std::path::Path::new(&old)) {
        let text = String::from_utf8_lossy(&bytes).replace("\"left\"", "\"up\"");
        if name == "dataset.json" {
            let hash = blake3::hash(text.as_bytes()).to_hex();
            scratch.write("new/MANIFEST.b3", format!("{hash}  dataset.json\n"));
            scratch.write("new/dataset.json", text);
        } else if name != "MANIFEST.b3" {
            scratch.write(&format!("new/{name}"), &bytes);
        }
        scratch.write(&format!("shards/{name}"), bytes);
    }
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    replace(&scratch, "shards", "new");
    is_refused(shards.split("train"), "shards");
    Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
}

/// The header of exported weights does not name their `config.json`.
#[test]
fn a_model_is_of_one_folder() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "model", "-s schedule=[0,1] -s stem=imagenet").ok();
    for out in ["share", "other"] {
        let line = format!("--to huggingface --out {out} -q");
        scratch.run(env!("CARGO_BIN_EXE_s4l-export"), &words(&line)).ok();
    }
    let config = scratch.path("share/config.json");
    let mut before = std::fs::read(&config).unwrap();
    before.push(b'\n');
    std::fs::remove_file(&config).unwrap();
    // Reading a pipe waits for its end; meanwhile the folder is replaced.
    let name = CString::new(config.as_os_str().as_bytes()).unwrap();
    // SAFETY: a path that ends in 0.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let share = scratch.path("share");
    let read = std::thread::spawn(move || Model::open(&share).map(drop));
    let mut pipe = std::fs::File::options().write(true).open(&config).unwrap();
    replace(&scratch, "share", "other");
    pipe.write_all(&before).unwrap();
    drop(pipe);
    is_refused(read.join().unwrap(), "share");
    Model::open(&scratch.path("share")).unwrap();
}

/// A run reads to the end the files that it has opened, and its lineage names them.
#[test]
fn a_run_ends_with_the_shards_that_it_began_with() {
    let scratch = labelled_shards();
    let line = pretrain_words("supervised_10p", "model", "-s schedule=[0,150]");
    scratch.run(PRETRAIN, &words(&line)).ok();
    let expected = model(&scratch, "model");
    let line = line.replace("--out model", "--out again");
    let mut command = Command::new(PRETRAIN);
    let mut child = command.args(words(&line)).current_dir(scratch.path("")).spawn().unwrap();
    let (begun, start) = (scratch.path("again/metrics.jsonl"), Instant::now());
    while begun.metadata().map_or(true, |file| file.len() == 0) {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    let other = other_images(&scratch, "shards");
    shard(&scratch, &[&other[..], &["--force"]].concat()).ok();
    assert!(child.try_wait().unwrap().is_none(), "it ended before the shards were replaced");
    assert!(child.wait().unwrap().success());
    assert_eq!(differing(&model(&scratch, "again"), &expected), Vec::<String>::new());
}
