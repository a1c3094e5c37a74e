//! `s4l-inspect --lineage`: from a cell of the table to the images, with changed files reported.

use crate::common::training::{EVAL, labelled_shards, moam, pretrain, pseudolabel, words};
use crate::common::{IMAGES, Ran, SMOKE, Scratch, contents, shard, smoke};
use std::time::{Duration, Instant};

const INSPECT: &str = env!("CARGO_BIN_EXE_s4l-inspect");
const REPORT: &str = env!("CARGO_BIN_EXE_s4l-report");

fn inspect(scratch: &Scratch, line: &str) -> Ran {
    scratch.run(INSPECT, &words(line))
}

/// A table with one row, whose model was retrained on the pseudo labels of another model.
fn chain() -> Scratch {
    let scratch = labelled_shards();
    let short = "-s schedule=[0,0.2]";
    pretrain(&scratch, "supervised_10p", "runs/one/model", short).ok();
    pseudolabel(&scratch, "runs/one/model", "").ok();
    let more = format!("--labels labels.parquet --init runs/one/model {short}");
    moam(&scratch, "retrain", "runs/two/model", &more).ok();
    let line = "--in shards --model runs/two/model --out runs/two/eval.parquet -q";
    scratch.run(EVAL, &words(line)).ok();
    scratch.run(REPORT, &words("--in runs --out report -q")).ok();
    scratch
}

#[test]
fn a_cell_leads_to_the_images_and_a_change_on_the_way_is_named() {
    let scratch = chain();
    let start = Instant::now();
    let text = inspect(&scratch, "--lineage runs/two/eval.parquet").ok().stdout;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let begins = |line: &str| text.lines().any(|l| l.starts_with(line));
    for line in [
        "runs/two/eval.parquet",
        "  by s4l-eval ",
        "    by s4l-moam ",
        "      by s4l-pretrain ",
        "        by s4l-subset ",
        "          by s4l-shard ",
    ] {
        assert!(begins(line), "{line:?} is not in\n{text}");
    }
    for word in [
        "seed 0, recipe ",
        "--labels labels.parquet --init runs/one/model",
        &format!("images {}: {SMOKE}", hash_of(&scratch, "shards/dataset.json", "images")),
        ": val.parquet, see above",
    ] {
        assert!(text.contains(word), "{word:?} is not in\n{text}");
    }
    assert!(!text.contains("CHANGED") && !text.contains("not found"), "{text}");
    for table in ["report", "report/table.parquet"] {
        let table = inspect(&scratch, &format!("--lineage {table}")).ok().stdout;
        assert!(table.contains("by s4l-report ") && table.contains(SMOKE), "{table}");
        assert!(table.contains(": runs/two/model/metrics.parquet"), "{table}");
    }
    let silent = inspect(&scratch, "--lineage --verify report").ok();
    assert_eq!((silent.stdout.as_str(), silent.stderr.as_str()), ("", ""));

    // The whole folder moved.
    std::fs::create_dir(scratch.path("archive")).unwrap();
    for name in ["labels.parquet", "labelled.parquet", "val.parquet", "shards", "runs", "report"] {
        std::fs::rename(scratch.path(name), scratch.path(&format!("archive/{name}"))).unwrap();
        let beside = [name, ".prov.json"].concat();
        let _ = std::fs::rename(scratch.path(&beside), scratch.path(&format!("archive/{beside}")));
    }
    inspect(&scratch, "--lineage --verify archive/report").ok();

    // One file replaced, one removed.
    let eval = "archive/runs/two/eval.parquet";
    std::fs::rename(scratch.path("archive/val.parquet"), scratch.path("val")).unwrap();
    let gone = ["archive/runs/", "validation ", "made from, found nothing"];
    inspect(&scratch, &format!("--lineage --verify {eval}")).fails(65, &gone);
    let text = inspect(&scratch, &format!("--lineage {eval}")).ok().stdout;
    assert!(text.contains(": not found\n"), "{text}");
    std::fs::copy(scratch.path("archive/labelled.parquet"), scratch.path("archive/val.parquet"))
        .unwrap();
    let other = ["archive/val.parquet: expected validation "];
    inspect(&scratch, &format!("--lineage --verify {eval}")).fails(65, &other);
    let text = inspect(&scratch, &format!("--lineage {eval}")).ok().stdout;
    assert!(text.contains(": archive/val.parquet, CHANGED: "), "{text}");
}

/// The lineage of the images themselves, and of merged shards, which name their parts.
#[test]
fn changed_images_and_shards_are_named() {
    let scratch = Scratch::new();
    for (name, bytes) in contents(std::path::Path::new(SMOKE)) {
        scratch.write(&format!("data/{name}"), bytes);
    }
    for part in ["1/2", "2/2"] {
        shard(&scratch, &["--in", "data", "--out", "shards", "--part", part, "-q"]).ok();
    }
    shard(&scratch, &["--merge", "--out", "shards", "-q"]).ok();
    let text = inspect(&scratch, "--lineage shards").ok().stdout;
    assert!(text.contains("--merge") && text.contains(": data\n"), "{text}");
    inspect(&scratch, "--lineage --verify shards").ok();

    let file = scratch.path(&format!("data/{IMAGES}.zst"));
    std::fs::remove_file(file).unwrap();
    let mut images = smoke(IMAGES);
    images[100] ^= 1;
    scratch.write(&format!("data/{IMAGES}"), images);
    let changed = ["data: expected images ", "which shards was made from"];
    inspect(&scratch, "--lineage --verify shards").fails(65, &changed);
    crate::common::training::flip(&scratch.path("shards/train-00000-of-00001.parquet"));
    let flipped = ["shards/train-00000-of-00001.parquet", "MANIFEST.b3"];
    inspect(&scratch, "--lineage --verify shards").fails(65, &flipped);
    inspect(&scratch, "--lineage data").fails(65, &["data"]);
    inspect(&scratch, "--lineage nowhere").fails(66, &["nowhere"]);
}

/// The hash of an input in a JSON file.
fn hash_of(scratch: &Scratch, file: &str, input: &str) -> String {
    let text = std::fs::read_to_string(scratch.path(file)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["lineage"][format!("s4l.input.{input}")].as_str().unwrap().to_string()
}
