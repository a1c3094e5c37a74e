//! Changed bytes, and files that do not belong together: always an error, never other results. Files of
//! earlier versions are readable.

use crate::common::training::{
    EVAL, PRETRAIN, PSEUDOLABEL, labelled_shards, pretrain, pretrain_words, pseudolabel, recipe,
    words, write_labels,
};
use crate::common::{IMAGES, LABELS, SMOKE, Scratch, contents, shard, smoke, smoke_shards};
use s4l::shards::{Shards, Split};
use s4l::tables::table;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SUBSET: &str = env!("CARGO_BIN_EXE_s4l-subset");
const INSPECT: &str = env!("CARGO_BIN_EXE_s4l-inspect");
const TRAIN: &str = "shards/train-00000-of-00001.parquet";

#[test]
fn a_changed_byte_of_a_table_is_an_error() {
    let scratch = Scratch::new();
    write_labels(&scratch, "l.parquet", &[("a", 0), ("b", 1), ("c", 0)]);
    let path = scratch.path("l.parquet");
    let whole = std::fs::read(&path).unwrap();
    table::read(&path, "s4l-subset").unwrap();
    for at in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(&path, bytes).unwrap();
            for found in [
                table::read(&path, "s4l-subset").map(|_| ()),
                table::metadata(&path, "s4l-subset").map(|_| ()),
            ] {
                let code = found.err().map(|e| e.exit_code());
                assert_eq!(code, Some(65), "bit {bit} of byte {at}");
            }
        }
    }
    scratch.run(INSPECT, &["--verify", "l.parquet"]).fails(3, &["l.parquet"]);
}

/// Key, pixels and label.
type Row = (String, Vec<u8>, Option<u32>);

/// Everything that stages take from a split.
fn all(split: &Split) -> s4l::error::Result<Vec<Row>> {
    let labels = split.labels()?;
    let row = |row| Ok((split.key(row).to_string(), split.decode(row)?.pixels.into(), labels[row]));
    (0..split.len()).map(row).collect()
}

#[test]
fn a_changed_byte_of_shards_is_an_error_or_changes_nothing() {
    let scratch = smoke_shards();
    let open = || all(&Shards::open(&scratch.path("shards"))?.split("train")?);
    let before = open().unwrap();
    let names = [TRAIN, "shards/dataset.json", "shards/MANIFEST.b3"];
    let mut found = 0;
    for name in names {
        let path = scratch.path(name);
        let whole = std::fs::read(&path).unwrap();
        // Some bytes of the images, about every byte of the rest.
        let images = if name == TRAIN { 400 * 784 } else { 0 };
        let at = (0..images).step_by(9973).chain((images..whole.len()).step_by(3));
        for at in at {
            let mut broken = whole.clone();
            broken[at] ^= 1 << (at % 8);
            // A new file each time: an open map must not change.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, broken).unwrap();
            match open() {
                Ok(after) => assert!(after == before, "byte {at} of {name}"),
                Err(e) => {
                    assert!(matches!(e.exit_code(), 65 | 66), "byte {at} of {name}: {e}");
                    found += 1;
                }
            }
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(found > 1000, "{found}");
    assert!(open().unwrap() == before);
}

#[test]
fn a_changed_image_ends_the_stage_that_reads_it() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "-s schedule=[0,2]").ok();
    for name in [TRAIN, "shards/test-00000-of-00001.parquet"] {
        let mut bytes = std::fs::read(scratch.path(name)).unwrap();
        bytes[100_000] ^= 1;
        std::fs::write(scratch.path(name), bytes).unwrap();
    }
    let again = ["s4l-shard --force", "the image of"];
    let eval = "--in shards --model model -q --threads 1";
    scratch.run(EVAL, &words(eval)).fails(65, &again);
    pseudolabel(&scratch, "model", "-s views=resize(28)|-1_to_1").fails(65, &again);
}

/// Shards with the same images and keys in another order, in `other`.
fn other_order(scratch: &Scratch) {
    let files = [(IMAGES, 16, 784), (LABELS, 8, 1)];
    for (name, head, size) in files {
        let bytes = smoke(name);
        let (head, rows) = bytes.split_at(head);
        let rows: Vec<u8> = rows.rchunks(size).flatten().copied().collect();
        scratch.write(&format!("data/{name}"), [head, &rows].concat());
    }
    scratch.write("data/classes.txt", std::fs::read(format!("{SMOKE}/classes.txt")).unwrap());
    shard(scratch, &["--in", "data", "--out", "other"]).ok();
}

#[test]
fn labels_of_other_images_with_the_same_keys_are_refused() {
    let scratch = labelled_shards();
    other_order(&scratch);
    pretrain(&scratch, "supervised_1p", "model", "-s schedule=[0,2]").ok();
    pseudolabel(&scratch, "model", "-s views=resize(28)|-1_to_1").ok();
    let recipe = recipe("supervised_1p");
    let train = |labels: &str| format!("--in other --recipe {recipe} -q --out wrong {labels}");
    let eval = "--in other --split train --model model -q --out e.parquet --labelled";
    let label = "--in other --model model -q --out p.parquet --labelled";
    let nested = "--in other --per-class 2 -q --out n.parquet --nested-in";
    let validation = "--labelled n.parquet --val val.parquet";
    scratch.run(SUBSET, &words("--in other --per-class 2 -q --out n.parquet")).ok();
    for (program, line, file) in [
        (PRETRAIN, train("--labelled labelled.parquet"), "labelled.parquet"),
        (PRETRAIN, train("--labels labels.parquet"), "labels.parquet"),
        (PRETRAIN, train(validation), "val.parquet"),
        (EVAL, format!("{eval} val.parquet"), "val.parquet"),
        (PSEUDOLABEL, format!("{label} labelled.parquet"), "labelled.parquet"),
        (SUBSET, format!("{nested} labelled.parquet"), "labelled.parquet"),
    ] {
        let ran = scratch.run(program, &words(&line));
        ran.fails(65, &[file, "labels of other images", "these shards"]);
    }
}

#[test]
fn a_shard_that_shrinks_while_it_is_read_is_named() {
    let scratch = labelled_shards();
    let line = pretrain_words("supervised_10p", "model", "-s schedule=[0,9000]");
    let child = Command::new(PRETRAIN)
        .args(words(&line))
        .current_dir(scratch.path(""))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = scratch.path("model/metrics.jsonl");
    let start = Instant::now();
    while begun.metadata().map_or(true, |file| file.len() == 0) {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::File::options().write(true).open(scratch.path(TRAIN)).unwrap().set_len(0).unwrap();
    let ran = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(74), "{stderr}");
    let expected = format!("error: s4l-pretrain: {TRAIN}: it shrank");
    assert!(stderr.starts_with(&expected) && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn names_with_folders_in_them_lead_nowhere() {
    let scratch = smoke_shards();
    std::fs::rename(scratch.path("shards"), scratch.path("elsewhere")).unwrap();
    for (name, bytes) in contents(&scratch.path("elsewhere")) {
        scratch.write(&format!("shards/{name}"), bytes);
    }
    let json = std::fs::read_to_string(scratch.path("shards/dataset.json")).unwrap();
    let json = json.replace("\"test\"", "\"../elsewhere/test\"");
    let manifest = std::fs::read_to_string(scratch.path("shards/MANIFEST.b3")).unwrap();
    let lines = manifest.lines().filter(|line| !line.ends_with("dataset.json"));
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    let line = format!("{}  dataset.json\n", blake3::hash(json.as_bytes()).to_hex());
    scratch.write("shards/dataset.json", json);
    scratch.write("shards/MANIFEST.b3", lines + &line);
    let subset = ["--in", "shards", "--split", "../elsewhere/test", "--per-class", "1"];
    scratch.run(SUBSET, &subset).fails(65, &["dataset.json", "no name of a file"]);

    scratch.write("elsewhere/MANIFEST.b3", manifest.replace("  test-", "  ../shards/test-"));
    let verify = scratch.run(INSPECT, &["--verify", "elsewhere"]);
    verify.fails(3, &["MANIFEST.b3", "../shards"]);
}

/// `tests/old` was written by commit 41a1f45, before files had hashes.
#[test]
fn files_of_earlier_versions_are_read() {
    let scratch = Scratch::new();
    let old = format!("{}/tests/old", env!("CARGO_MANIFEST_DIR"));
    let run = |program: &str, line: &str| scratch.run(program, &words(&line.replace("OLD", &old)));
    for name in ["shards", "labelled.parquet", "labels.parquet", "supervised/eval.parquet"] {
        run(INSPECT, &format!("--verify OLD/{name}")).ok();
    }
    let subset = "--in OLD/shards --per-class 2 --nested-in OLD/labelled.parquet --out l.parquet";
    run(SUBSET, subset).ok();
    run(env!("CARGO_BIN_EXE_s4l-report"), "--in OLD --out report").ok();
    let small = "-s units=[1] -s stem=small_stride2 -s schedule=[0,1] -s batch=4 -q";
    let pipe = "resize(8,8)|-1_to_1";
    let pipes = format!("-s augment_labelled={pipe} -s augment_eval={pipe}");
    for labels in ["--labelled OLD/labelled.parquet", "--labels OLD/labels.parquet"] {
        let out = labels.split(' ').next().unwrap().trim_start_matches('-');
        let line =
            format!("--in OLD/shards {labels} --val OLD/val.parquet {small} {pipes} --out {out}");
        run(PRETRAIN, &line).ok();
    }
    run(EVAL, "--in OLD/shards --model labelled --out e.parquet -q").ok();

    // A file of a later version.
    for (name, bytes) in contents(std::path::Path::new(&format!("{old}/shards"))) {
        let text = String::from_utf8_lossy(&bytes).replace("\"format\": 1", "\"format\": 9");
        if name == "dataset.json" {
            let hash = blake3::hash(text.as_bytes()).to_hex();
            scratch.write("later/MANIFEST.b3", format!("{hash}  dataset.json\n"));
            scratch.write("later/dataset.json", text);
        }
    }
    let later = run(SUBSET, "--in later --per-class 2");
    later.fails(65, &["dataset.json", "format 9", "s4l-shard"]);
}
