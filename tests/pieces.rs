//! `s4l-pseudolabel` in pieces: killed and run again, stopped, and split into parts: always the bytes of one
//! run, and no piece of it made twice.

mod common;

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, StringArray};
use common::training::{PSEUDOLABEL, flip, pretrain, words};
use common::{IMAGES, LABELS, Ran, Scratch, metadata, shard, smoke};
use s4l::artifact::{self, Lineage};
use s4l::schema;
use s4l::tables::table::{self, fixed_lists};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of which the last of five pieces has 76.
const ROWS: usize = 1100;
const LINE: &str =
    "--in shards --model model --labelled labelled.parquet --out labels.parquet --threads 1";

/// Shards of so many images, a model, and known labels of 200.
fn with_model() -> Scratch {
    let scratch = Scratch::new();
    let (images, labels) = (smoke(IMAGES)[16..].repeat(3), smoke(LABELS)[8..].repeat(3));
    let idx = |sizes: &[u32], values: &[u8]| {
        let head = [0, 0, 8, sizes.len() as u8].into_iter();
        let head = head.chain(sizes.iter().flat_map(|n| n.to_be_bytes()));
        head.chain(values.iter().copied()).collect::<Vec<u8>>()
    };
    let rows = ROWS as u32;
    let pixels = idx(&[rows, 28, 28], &images[..ROWS * 28 * 28]);
    scratch.write(&format!("data/{IMAGES}"), pixels);
    scratch.write(&format!("data/{LABELS}"), idx(&[rows], &labels[..ROWS]));
    shard(&scratch, &["--in", "data", "--out", "shards", "-q"]).ok();
    let subset = "--in shards --per-class 20 --out labelled.parquet --val-per-class 5 \
                  --val-out val.parquet --allow-duplicates -q";
    scratch.run(env!("CARGO_BIN_EXE_s4l-subset"), &words(subset)).ok();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    scratch
}

fn label(scratch: &Scratch, more: &str) -> Ran {
    scratch.run(PSEUDOLABEL, &words(&format!("{LINE} {more}")))
}

fn bytes(scratch: &Scratch, name: &str) -> Vec<u8> {
    std::fs::read(scratch.path(name)).unwrap()
}

/// What one run makes that nobody disturbs.
fn whole(scratch: &Scratch) -> Vec<u8> {
    let line = LINE.replace("labels.parquet", "whole.parquet");
    scratch.run(PSEUDOLABEL, &words(&line)).ok();
    bytes(scratch, "whole.parquet")
}

fn piece(scratch: &Scratch, nth: usize) -> PathBuf {
    scratch.path("labels.parquet.partial").join(schema::piece_file(nth))
}

/// File number and time of change of each piece that is finished.
fn finished(scratch: &Scratch) -> Vec<(u64, i64, i64)> {
    let pieces = (1..).map_while(|nth| piece(scratch, nth).metadata().ok());
    pieces.map(|m| (m.ino(), m.mtime(), m.mtime_nsec())).collect()
}

/// Starts it, and waits until so many pieces are finished.
fn started(scratch: &Scratch, pieces: usize, more: &str) -> Child {
    let mut command = Command::new(PSEUDOLABEL);
    command.args(words(LINE)).args(words(more)).current_dir(scratch.path(""));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while finished(scratch).len() < pieces {
        assert!(child.try_wait().unwrap().is_none(), "it ended before {pieces} were finished");
        assert!(start.elapsed() < Duration::from_secs(60), "no {pieces} pieces");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Starts it, and stops it with SIGTERM once so many pieces are finished; what it said.
fn stopped(scratch: &Scratch, pieces: usize, more: &str) -> String {
    let child = started(scratch, pieces, more);
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    stderr
}

/// The table with its sidecar is all that there is under its name.
#[track_caller]
fn nothing_is_left(scratch: &Scratch) {
    let mut names = scratch.names();
    names.retain(|name| name.contains("labels.parquet"));
    assert_eq!(names, ["labels.parquet", "labels.parquet.prov.json"]);
}

#[test]
fn killed_it_goes_on_behind_its_pieces_and_ends_with_the_same_bytes() {
    let scratch = with_model();
    let mut before = Vec::new();
    for pieces in 1..=3 {
        let mut child = started(&scratch, pieces, "");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!scratch.path("labels.parquet").exists());
        let after = finished(&scratch);
        assert_eq!(after[..before.len()], before, "a finished piece was made again");
        before = after;
    }
    // As it is when a run is killed that has the table, and not yet removed what it was made of.
    let mut copy = Command::new("cp");
    copy.args(["-r", "labels.parquet.partial", "kept"]).current_dir(scratch.path(""));
    assert!(copy.status().unwrap().success());
    let again = label(&scratch, "").ok();
    assert!(again.stderr.contains("1100 labels (200 known)"), "{}", again.stderr);
    nothing_is_left(&scratch);
    let expected = whole(&scratch);
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    std::fs::rename(scratch.path("kept"), scratch.path("labels.parquet.partial")).unwrap();
    let again = label(&scratch, "").ok();
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    nothing_is_left(&scratch);

    // They are the bytes of a table that was never in pieces.
    let table = table::read(&scratch.path("labels.parquet"), "s4l-pseudolabel").unwrap();
    let pairs = table.metadata.clone().into_iter().collect();
    let lineage = Lineage::of_metadata("s4l-pseudolabel", &pairs);
    let (probs, classes) = table.float_lists("probs").unwrap();
    let mut columns = table.batch.columns()[..7].to_vec();
    columns.push(fixed_lists(probs, classes));
    let path = scratch.path("one.parquet");
    table::write(&path, schema::labels(classes), columns, &lineage, BTreeMap::new()).unwrap();
    assert_eq!(bytes(&scratch, "one.parquet"), expected);
}

#[test]
fn a_stop_keeps_what_is_done_and_no_damaged_or_foreign_piece_is_used() {
    let scratch = with_model();
    let expected = whole(&scratch);
    let said = stopped(&scratch, 2, "");
    let done = 256 * finished(&scratch).len();
    let words = format!("labels.parquet: stopped with {done} of 1100 images; run the same command");
    assert!(said.contains(&words), "{said}");
    assert!(!scratch.path("labels.parquet").exists());

    // One bit of a piece; one piece in the place of another.
    flip(&piece(&scratch, 1));
    std::fs::copy(piece(&scratch, 1), piece(&scratch, 3)).unwrap();
    std::fs::copy(piece(&scratch, 2), piece(&scratch, 4)).unwrap();
    std::fs::write(piece(&scratch, 9), "").unwrap();
    label(&scratch, "").ok();
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    nothing_is_left(&scratch);

    // Those of a run with other settings.
    std::fs::remove_file(scratch.path("labels.parquet")).unwrap();
    stopped(&scratch, 2, "--seed 1 -s views=resize(28)|-1_to_1|rotate");
    label(&scratch, "").ok();
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    nothing_is_left(&scratch);

    // A folder of something else.
    std::fs::remove_file(scratch.path("labels.parquet")).unwrap();
    scratch.write("labels.parquet.partial/thesis.tex", "words");
    label(&scratch, "-q").fails(73, &["labels.parquet.partial", "another --out"]);
    assert_eq!(bytes(&scratch, "labels.parquet.partial/thesis.tex"), b"words");
    std::fs::remove_dir_all(scratch.path("labels.parquet.partial")).unwrap();
    // Stopped before the first piece.
    label(&scratch, "-q --max-seconds 0").fails(75, &["labels.parquet: stopped before"]);
    assert!(!scratch.path("labels.parquet.partial").exists());
}

/// The variables of the middle one of three tasks of a Slurm array.
const ARRAY: [(&str, &str); 4] = [
    ("SLURM_ARRAY_TASK_ID", "6"),
    ("SLURM_ARRAY_TASK_MIN", "5"),
    ("SLURM_ARRAY_TASK_MAX", "7"),
    ("SLURM_ARRAY_TASK_COUNT", "3"),
];

#[test]
fn parts_merge_into_the_bytes_of_one_run() {
    let scratch = with_model();
    let expected = whole(&scratch);
    let merge = ["--merge", "--out", "labels.parquet"];
    let merged = || scratch.run(PSEUDOLABEL, &merge);
    merged().fails(66, &["labels.parquet.part-1-of-2", "s4l-pseudolabel --part I/N"]);
    for part in ["3/3", "1/3"] {
        label(&scratch, &format!("-q --part {part}")).ok();
    }
    merged().fails(66, &["labels.parquet.part-2-of-3", "--part"]);
    let mut second = Command::new(PSEUDOLABEL);
    second.args(words(LINE)).args(["-q", "--part", "auto"]).current_dir(scratch.path(""));
    assert_eq!(second.status().unwrap().code(), Some(2));
    assert_eq!(second.envs(ARRAY).status().unwrap().code(), Some(0));
    let again = label(&scratch, "--part 2/3").ok();
    assert!(again.stderr.contains("labels.parquet.part-2-of-3: up to date"), "{}", again.stderr);
    let names: Vec<_> = (1..=3).map(|nth| format!("labels.parquet.part-{nth}-of-3")).collect();
    let parts: Vec<_> = names.iter().map(|name| bytes(&scratch, name)).collect();
    // On another kind of machine.
    let sidecar = scratch.path("labels.parquet.part-2-of-3.prov.json");
    let text = std::fs::read_to_string(&sidecar).unwrap();
    let here = artifact::instructions([&scratch.path(&names[0])]).pop_first().unwrap();
    std::fs::write(&sidecar, text.replace(&format!("{here:?}"), "\"abacus\"")).unwrap();
    let ran = merged().ok();
    let warning = format!("warning: labels.parquet: parts computed with {here} and abacus: ");
    assert!(ran.stderr.contains(&warning), "{}", ran.stderr);
    assert!(ran.stderr.contains("labels.parquet: 1100 labels (200 known)"), "{}", ran.stderr);
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    nothing_is_left(&scratch);
    let sidecar: serde_json::Value =
        serde_json::from_slice(&bytes(&scratch, "labels.parquet.prov.json")).unwrap();
    assert_eq!(sidecar["parts"][1]["command"][13], "auto");
    // As a merge leaves it that is killed while it removes the parts.
    std::fs::write(scratch.path(&names[2]), &parts[2]).unwrap();
    let second = format!("{LINE} --part 2/3");
    let merges = "--merge --out labels.parquet";
    for line in [merges, &format!("{merges} --force"), second.as_str(), LINE] {
        let again = scratch.run(PSEUDOLABEL, &words(line)).ok();
        assert!(again.stderr.contains("labels.parquet: up to date"), "{}", again.stderr);
        nothing_is_left(&scratch);
    }
    // As one run has it. Most arrays are not over parts.
    let mut ran = Command::new(PSEUDOLABEL);
    ran.args(words(LINE)).current_dir(scratch.path("")).envs(ARRAY);
    let said = String::from_utf8(ran.output().unwrap().stderr).unwrap();
    assert!(said.contains("labels.parquet: up to date"), "{said}");

    let force = || {
        for (name, part) in names.iter().zip(&parts).filter(|(name, _)| **name != names[1]) {
            std::fs::write(scratch.path(name), part).unwrap();
        }
        scratch.run(PSEUDOLABEL, &[&merge[..], &["--force", "-q"]].concat())
    };
    let second = scratch.path(&names[1]);
    std::fs::write(&second, &parts[1]).unwrap();
    flip(&second);
    force().fails(65, &["labels.parquet.part-2-of-3", "s4l-pseudolabel --part"]);
    std::fs::write(&second, &parts[0]).unwrap();
    force().fails(65, &["labels.parquet.part-2-of-3", "a part of another one"]);
    std::fs::remove_file(&second).unwrap();
    label(&scratch, "-q --part 2/3 --seed 1").ok();
    force().fails(65, &["labels.parquet.part-2-of-3", "a part of another one"]);
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    std::fs::write(&second, &parts[1]).unwrap();
    force().ok();
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);

    // More parts than pieces: some have no row.
    std::fs::remove_file(scratch.path("labels.parquet")).unwrap();
    for nth in 1..=7 {
        label(&scratch, &format!("-q --part {nth}/7")).ok();
    }
    merged().ok();
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    for part in ["0/3", "4/3", "1", "a/b"] {
        assert_eq!(label(&scratch, &format!("--part {part}")).code, 2, "{part}");
    }
    assert_eq!(label(&scratch, "--merge").code, 2);
}

/// Where values fill pages, dictionaries and row groups.
#[test]
fn however_a_table_is_cut_its_bytes_are_those_of_one() {
    let scratch = Scratch::new();
    let lineage = Lineage::new("s4l-pseudolabel", 0, "0123456789abcdef".into());
    let (rows, classes) = (70_000, 5);
    let write = |name: &str, rows: std::ops::Range<usize>| {
        let key = |row: usize| format!("{:08x}", row.wrapping_mul(0x9e37_79b1));
        let value = |i: usize| (i as f32).sin();
        let ints = |f: fn(usize) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows.clone().map(f)))
        };
        let floats = |n: usize| -> ArrayRef {
            Arc::new(Float32Array::from_iter_values(rows.clone().map(|row| value(row * n))))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.clone().map(key))),
            ints(|row| row as i64 % 5),
            Arc::new(BooleanArray::from_iter(rows.clone().map(|row| Some(row % 7 == 0)))),
            ints(|row| row as i64 % 3),
            floats(3),
            floats(5),
            floats(7),
            fixed_lists((rows.start * classes..rows.end * classes).map(value).collect(), classes),
        ];
        let path = scratch.path(name);
        table::write(&path, schema::labels(classes), columns, &lineage, BTreeMap::new()).unwrap();
        path
    };
    let one = write("one.parquet", 0..rows);
    assert_eq!(metadata(&one).num_row_groups(), 2);
    let expected = std::fs::read(one).unwrap();
    for step in [7_936, 65_792] {
        let starts = (0..rows).step_by(step);
        let tables: Vec<PathBuf> =
            starts.map(|at| write(&format!("{at}.parquet"), at..rows.min(at + step))).collect();
        let (joined, mut seen) = (scratch.path("joined.parquet"), 0);
        table::join(
            &joined,
            schema::labels(classes),
            lineage.metadata(),
            &tables,
            "s4l-pseudolabel",
            |batch| seen += batch.num_rows(),
        )
        .unwrap();
        assert_eq!(seen, rows);
        assert!(std::fs::read(joined).unwrap() == expected, "in pieces of {step}");
    }
}
