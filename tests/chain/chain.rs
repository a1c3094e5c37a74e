//! The whole chain by make, with the built programs on the embedded images.

use crate::common::Scratch;
use crate::makefile;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::{Instant, SystemTime};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folder of the built programs.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_s4l-shard")).parent().unwrap()
}

/// make of the main job.
fn make(scratch: &Scratch) -> Output {
    let start = Instant::now();
    let output = makefile::make()
        .arg("moam_step3")
        .arg(format!("PIPELINE={}", scratch.path("smoke").display()))
        .arg(format!("OUT={}", scratch.path("runs").display()))
        .arg(format!("BIN={}", programs().display()))
        .output()
        .unwrap();
    println!("make moam_step3: {:.1} s", start.elapsed().as_secs_f64());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The outputs that the stages made, in order.
fn made(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let outputs = text.lines().filter_map(|line| line.split_once(": making it "));
    outputs
        .map(|(path, _)| path.split_once("/runs/").unwrap().1.trim_start_matches("seed0/").into())
        .collect()
}

/// Bytes and modification time of each file under a folder.
fn tree(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let files = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    files
        .filter(|f| f.file_type().is_file())
        .map(|f| {
            let time = f.metadata().unwrap().modified().unwrap();
            let bytes = std::fs::read(f.path()).unwrap();
            (f.path().strip_prefix(folder).unwrap().display().to_string(), (bytes, time))
        })
        .collect()
}

#[test]
fn the_main_job_runs_once_and_redoes_only_what_depends_on_a_change() {
    let scratch = Scratch::new();
    let smoke = Path::new(ROOT).join("pipelines/smoke");
    for file in walkdir::WalkDir::new(&smoke) {
        let file = file.unwrap();
        if file.file_type().is_file() {
            let name = file.path().strip_prefix(&smoke).unwrap().display().to_string();
            scratch.write(&format!("smoke/{name}"), std::fs::read(file.path()).unwrap());
        }
    }
    let rows = ["supervised_10p", "moam_step1", "moam_step2", "moam_step3"];

    let first = make(&scratch);
    let text = String::from_utf8_lossy(&first.stdout);
    let table = std::fs::read_to_string(scratch.path("runs/report/table.md")).unwrap();
    assert!(text.ends_with(&table), "{text}");
    for name in ["table.csv", "table.parquet", "index.html"] {
        assert!(scratch.path(&format!("runs/report/{name}")).is_file(), "{name}");
    }
    assert_eq!(
        made(&first),
        [
            "shards",
            "val.parquet",
            "labelled_1p.parquet",
            "labelled_10p.parquet",
            "supervised_10p/model/model.safetensors",
            "moam_step1/model/model.safetensors",
            "moam_step1/labels.parquet",
            "moam_step2/model/model.safetensors",
            "moam_step3/model/model.safetensors",
            "supervised_10p/eval.parquet",
            "moam_step1/eval.parquet",
            "moam_step2/eval.parquet",
            "moam_step3/eval.parquet",
            "report/index.html"
        ]
    );
    for row in rows {
        for name in ["model/model.safetensors", "model/metrics.parquet", "eval.parquet"] {
            assert!(scratch.path(&format!("runs/seed0/{row}/{name}")).is_file(), "{row}/{name}");
        }
    }

    let before = tree(&scratch.path("runs"));
    let second = make(&scratch);
    assert_eq!(made(&second), Vec::<String>::new());
    assert_eq!(String::from_utf8_lossy(&second.stdout), table);
    assert!(tree(&scratch.path("runs")) == before);

    // Modification times are those of before.
    let recipe = scratch.path("smoke/moam_step2.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let time = std::fs::metadata(&recipe).unwrap().modified().unwrap();
    std::fs::write(&recipe, text.replace("weight_vat = 0.3", "weight_vat = 0.2")).unwrap();
    std::fs::File::options().append(true).open(&recipe).unwrap().set_modified(time).unwrap();
    assert_eq!(
        made(&make(&scratch)),
        [
            "moam_step2/model/model.safetensors",
            "moam_step3/model/model.safetensors",
            "moam_step2/eval.parquet",
            "moam_step3/eval.parquet",
            "report/index.html"
        ]
    );
    let after = tree(&scratch.path("runs"));
    let changed = |name: &str| before[name].0 != after[name].0;
    for row in rows {
        let depends = row == "moam_step2" || row == "moam_step3";
        assert_eq!(changed(&format!("seed0/{row}/model/model.safetensors")), depends, "{row}");
    }
}
