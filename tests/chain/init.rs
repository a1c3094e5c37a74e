//! `s4l-init`: from a folder of images to a pipeline that make runs, and what it refuses.

use crate::common::{Ran, Scratch, png, real};
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Images below `photos`, the given number per folder.
fn images(scratch: &Scratch, folders: &[(&str, usize)]) {
    let mut row = 0;
    for (folder, images) in folders {
        for _ in 0..*images {
            scratch.write(&format!("photos/{folder}/{row}.png"), png(&real(row).0, 28));
            row += 1;
        }
    }
}

fn init(scratch: &Scratch, more: &[&str]) -> Ran {
    let program = env!("CARGO_BIN_EXE_s4l-init");
    scratch.run(program, &[&["photos", "pets", "--threads", "1"], more].concat())
}

/// Runs make with the programs of this build; returns its output.
fn make(scratch: &Scratch, more: &[&str]) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_s4l-init")).parent().unwrap();
    let output = Command::new("make")
        .args(["-C", ROOT])
        .arg(format!("PIPELINE={}", scratch.path("pets").display()))
        .arg(format!("OUT={}", scratch.path("out").display()))
        .arg(format!("BIN={}", bin.display()))
        .args(more)
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn few_labels_and_many_images_become_a_pipeline_that_make_runs() {
    let scratch = Scratch::new();
    let train = [("train/bag", 9), ("train/coat", 5), ("train/shirt", 4), ("train/unlabeled", 30)];
    let test = [("test/bag", 3), ("test/coat", 3), ("test/shirt", 3)];
    images(&scratch, &[&train[..], &test].concat());
    // Enough time on any machine, so that all steps are planned.
    let ran = init(&scratch, &["--minutes", "100000"]).ok();
    assert!(ran.stderr.contains("18 of 48 images labelled, 3 classes; 28x28"), "{}", ran.stderr);
    assert!(ran.stderr.contains("next: make moam_step3 PIPELINE=./pets\n"), "{}", ran.stderr);
    let read = |name: &str| std::fs::read_to_string(scratch.path("pets").join(name)).unwrap();
    let pipeline = read("pipeline.mk");
    let data = format!("\nDATA ?= {}\n", scratch.path("photos").display());
    for words in [
        &data,
        "\nSUBSET_10P := --all\n",
        "train 48 images, 18 labelled in 3 classes",
        "on the split test",
    ] {
        assert!(pipeline.contains(words), "{words}: {pipeline}");
    }
    assert!(!pipeline.contains("VAL_FRACTION"), "{pipeline}");

    // Unchanged, except for the time that a test has.
    for row in ["supervised", "moam_step1", "moam_step2", "moam_step3"] {
        let recipe = read(&format!("{row}.toml"));
        let short = recipe.lines().map(|line| match line {
            line if line.starts_with("schedule = ") => "schedule = [0, 2]",
            line if line.starts_with("width_factor = ") => "width_factor = 1",
            line if line.starts_with("batch_norm_batches = ") => "batch_norm_batches = 1",
            line => line,
        });
        scratch.write(&format!("pets/{row}.toml"), short.collect::<Vec<_>>().join("\n"));
    }
    let table = make(&scratch, &["moam_step3"]);
    for row in [
        "| Supervised ",
        "| MOAM step 1 ",
        "| MOAM step 2 ",
        "| MOAM step 3 ",
        "9 images of the test split",
    ] {
        assert!(table.contains(row), "{row}: {table}");
    }
    let labelled = s4l::tables::table::read(&scratch.path("out/seed0/labelled_10p.parquet"), "");
    assert_eq!(labelled.unwrap().batch.num_rows(), 18);
    assert!(!scratch.path("out/seed0/labelled_1p.parquet").exists());
    let model = "out/seed0/moam_step3/model";
    let predict = env!("CARGO_BIN_EXE_s4l-predict");
    let predicted = scratch.run(predict, &["--model", model, "photos/test"]).ok().stdout;
    assert_eq!(predicted.lines().count(), 9, "{predicted}");

    init(&scratch, &["-n"]).fails(73, &["pets", "--force"]);
}

#[test]
fn without_a_test_set_labelled_images_are_held_out() {
    let scratch = Scratch::new();
    images(&scratch, &[("bag", 10), ("coat", 7), ("shirt", 1), ("unlabeled", 4)]);
    let ran = init(&scratch, &["--minutes", "100000"]).ok();
    assert!(ran.stderr.contains("with one labelled image: \"shirt\""), "{}", ran.stderr);
    // 2 and 1 of the images.
    assert!(ran.stderr.contains("15 of 19 images labelled"), "{}", ran.stderr);
    let commands = make(&scratch, &["-n", "moam_step3"]);
    let val = scratch.path("out/seed0/val.parquet");
    let val = val.display();
    for words in [
        format!(
            " --all --out '{}' --val-fraction 0.2 --val-out '{val}'",
            scratch.path("out/seed0/labelled_10p.parquet").display()
        ),
        format!("--split train --labelled '{val}' --model"),
        format!("--val '{val}'"),
    ] {
        assert!(commands.contains(&words), "{words}: {commands}");
    }
    assert!(!commands.contains("--split test"), "{commands}");
    let short = init(&scratch, &["--minutes", "1e-6", "--force"]);
    let words = "--minutes 0.000001: the smallest plan takes";
    assert!(short.code == 2 && short.stderr.contains(words), "{}", short.stderr);
}

#[test]
fn what_teaches_nothing_is_refused() {
    for (folders, words) in [
        (
            &[("bag", 20), ("unlabeled", 9)][..],
            ["20 images of one class, \"bag\"", "a folder of its name"],
        ),
        (&[("unlabeled", 20), ("unsup", 9)], ["29 images without a label", "a folder of its name"]),
        (&[("bag", 2), ("coat", 1)], ["at least 10 labelled images", "3 of 2 classes"]),
        (&[("bag", 1), ("coat", 1), ("shirt", 1)], ["one image per class, of 3", "development"]),
        (&[("test/bag", 9), ("test/coat", 9)], ["images to train on", "only test 18 images"]),
    ] {
        let scratch = Scratch::new();
        images(&scratch, folders);
        init(&scratch, &["-q"]).fails(65, &[&["photos"][..], &words].concat());
        assert_eq!(scratch.names(), ["photos"]);
    }
    let scratch = Scratch::new();
    images(&scratch, &[("bag", 20), ("coat", 20)]);
    init(&scratch, &["--minutes", "0"]).fails(2, &["--minutes 0"]);
    scratch.write("pets/mine.toml", "");
    init(&scratch, &["--force"]).fails(73, &["pets", "s4l-init has written"]);
    assert_eq!(scratch.names(), ["pets", "photos"]);
}
