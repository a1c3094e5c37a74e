//! The Makefile and the recipes: what runs, in which order, and what does not run again. The stages are
//! stand-ins that keep an output of the same inputs, log their command line and write what they were given.
//! tests/chain/make_lineage.rs has the stages themselves.

use crate::common::rows;
use s4l::recipe::Recipe;
use s4l::settings::Settings;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PROGRAMS: [&str; 7] = [
    "s4l-shard",
    "s4l-subset",
    "s4l-pretrain",
    "s4l-pseudolabel",
    "s4l-moam",
    "s4l-eval",
    "s4l-report",
];

/// `$top/fail` has a word and an exit code: a stage with this word in its command line exits with the code.
const STAGE: &str = r#"#!/bin/sh
top=$(dirname "$0")/..
program=$(basename "$0")
words=$*
content() {
    if [ "$program" = s4l-report ]; then
        find "$1" -name eval.parquet | sort | xargs cat
    elif [ -e "$1/dataset.json" ]; then
        cat "$1/dataset.json"
    elif [ -e "$1/model.safetensors" ]; then
        cat "$1/model.safetensors"
    elif [ -d "$1" ]; then
        (cd "$1" && find . -type f | sort && find . -type f | sort | xargs -r cat)
    else
        cat "$1"
    fi | cksum
}
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2; shift;;
    --val-out) val=$2; shift;;
    --update) update=yes;;
    --in) in=$(content "$2"); shift;;
    --seed) seed=$2; shift;;
    --labelled | --labels | --init | --model | --recipe | --val) made="$made $1 $(content "$2")"; shift;;
    *) made="$made $1";;
    esac
    shift
done
made="$program $in $seed $made"
case $program in
s4l-shard) file=$out/dataset.json;;
s4l-pretrain | s4l-moam) file=$out/model.safetensors;;
s4l-report) file=$out/index.html;;
*) file=$out;;
esac
is() { [ -e "$1" ] && [ "$(cat "$1")" = "$2" ]; }
if is "$file" "$made" && { [ -z "$val" ] || is "$val" "$in $seed"; }; then exit 0; fi
if [ -e "$file" ] && [ -z "$update" ]; then echo "error: $out: output exists" >&2; exit 73; fi
echo "$program $words" >>"$top/log"
if [ -e "$top/fail" ]; then
    read -r word code <"$top/fail"
    case "$words" in *"$word"*) echo "error: $word is broken" >&2; exit "$code";; esac
fi
mkdir -p "$(dirname "$file")"
echo "$made" >"$file"
[ -z "$val" ] || echo "$in $seed" >"$val"
[ "$program" != s4l-report ] || { echo "the table" >"$out/table.md"; echo "the table, from the stage"; }
"#;

/// A private folder with stand-ins for the stages, a pipeline of its own and some data.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        for program in PROGRAMS {
            bench.script(&format!("bin/{program}"), STAGE);
        }
        fs::create_dir_all(bench.path("data/train/boot")).unwrap();
        fs::write(bench.path("data/train/boot/0.png"), "").unwrap();
        fs::create_dir(bench.path("mine")).unwrap();
        let recipes = rows("smoke").into_iter().map(|row| format!("{row}.toml"));
        for name in recipes.chain(["pipeline.mk".into()]) {
            let from = Path::new(ROOT).join("pipelines/smoke").join(&name);
            fs::copy(from, bench.path("mine").join(name)).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Adds a comment to a file and keeps its modification time.
    fn change(&self, name: &str) {
        let mut file = fs::File::options().append(true).open(self.path(name)).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        file.write_all(b"\n# changed\n").unwrap();
        file.set_modified(time).unwrap();
    }

    /// Runs make; returns its output and the log of the stages.
    fn make(&self, arguments: &[&str]) -> (Output, Vec<String>) {
        let top = self.dir.path().display();
        let log = self.path("log");
        fs::write(&log, "").unwrap();
        let output = make()
            .arg(format!("BIN={top}/bin"))
            .arg(format!("PIPELINE={top}/mine/"))
            .arg(format!("DATA={top}/data"))
            .arg(format!("OUT={top}/out"))
            .args(arguments)
            .output()
            .unwrap();
        let prefix = format!("{top}/");
        let log = fs::read_to_string(log).unwrap().replace(&prefix, "");
        (output, log.lines().map(str::to_string).collect())
    }

    /// Runs make, which must succeed; returns what ran, as "program output".
    fn ran(&self, arguments: &[&str]) -> Vec<String> {
        let (output, log) = self.make(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        log.iter().map(|line| summary(line)).collect()
    }
}

/// make in the project's folder, without the variables of the make that may run this test.
pub fn make() -> Command {
    let mut command = Command::new("make");
    command.current_dir(ROOT);
    for name in [
        "MAKEFLAGS",
        "MFLAGS",
        "MAKEOVERRIDES",
        "MAKELEVEL",
        "PIPELINE",
        "DATA",
        "OUT",
        "SEEDS",
        "DEVICE",
        "RUN",
        "MPI_RUN",
        "BIN",
    ] {
        command.env_remove(name);
    }
    command
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// "s4l-eval ... --out out/seed0/vat/eval.parquet ..." → "eval seed0/vat/eval.parquet"
fn summary(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let out = words.iter().position(|w| *w == "--out").unwrap();
    format!("{} {}", &words[0][4..], words[out + 1].trim_start_matches("out/"))
}

fn recipe(pipeline: &str, row: &str) -> Settings {
    let file = Path::new(ROOT).join(format!("pipelines/{pipeline}/{row}.toml"));
    Recipe { file: Some(file), set: Vec::new() }.load().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn help_is_the_default_and_names_every_target_and_variable() {
    let text = stdout(&make().output().unwrap());
    assert_eq!(text, stdout(&make().arg("help").output().unwrap()));
    let others = ["NAME", "table", "report", "test", "toolchain", "help"].map(String::from);
    for target in rows("imagenet").iter().chain(&others) {
        assert!(text.contains(&format!("make {target} ")), "{target}");
    }
    for variable in ["PIPELINE", "DATA", "OUT", "SEEDS", "DEVICE", "RUN", "BIN"] {
        assert!(text.contains(&format!("  {variable}=")), "{variable}");
    }
}

#[test]
fn every_pipeline_can_make_every_row() {
    for pipeline in ["fashion", "smoke", "cifar10", "imagenet"] {
        for row in rows(pipeline).iter().chain(&["table".into(), "report".into()]) {
            let output = make()
                .args(["-n", row, "DATA=photos", "OUT=absent", "BIN=bin"])
                .arg(format!("PIPELINE={pipeline}"))
                .output()
                .unwrap();
            assert!(output.status.success(), "{pipeline} {row}: {}", stderr(&output));
            assert!(stdout(&output).contains("bin/s4l-report --in 'absent'"));
            if row.starts_with("moam") {
                let few = if row.ends_with("_1p") { "1p" } else { "10p" };
                let compared = format!("--out 'absent/seed0/supervised_{few}/eval.parquet'");
                assert!(stdout(&output).contains(&compared), "{pipeline} {row}");
            }
        }
    }
    assert!(!Path::new(ROOT).join("absent").exists());
}

#[test]
fn a_dry_run_builds_the_programs_first_unless_they_are_given() {
    let dry = |argument: &str| {
        let output = make()
            .env("CARGO_TARGET_DIR", "absent")
            .args(["-n", "vat", "DATA=photos", "OUT=absent", argument])
            .output()
            .unwrap();
        stdout(&output)
    };
    let text = dry("PIPELINE=smoke");
    let build = text.find("cargo build --release --locked").unwrap();
    assert!(build < text.find("absent/release/s4l-shard").unwrap());
    assert!(!dry("BIN=bin").contains("cargo"));
}

#[test]
fn moam_step3_runs_what_it_depends_on_once() {
    let bench = Bench::new();
    let (output, log) = bench.make(&["moam_step3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let common = "--seed 0 --device cpu --update";
    let train = |what: &str, row: &str| {
        format!(
            "{what} --val out/seed0/val.parquet --recipe mine/{row}.toml --out out/seed0/{row}/model {common}"
        )
    };
    let eval = |row: &str| {
        format!(
            "s4l-eval --in out/shards --split test --model out/seed0/{row}/model --out out/seed0/{row}/eval.parquet {common}"
        )
    };
    let subset = |flags: &str| {
        format!(
            "s4l-subset --in out/shards {flags}.parquet --val-per-class 5 --val-out out/seed0/val.parquet --seed 0 --update"
        )
    };
    let expected = [
        "s4l-shard --in data --out out/shards --update".to_string(),
        subset("--per-class 2 --out out/seed0/labelled_1p"),
        subset("--per-class 10 --out out/seed0/labelled_10p"),
        train(
            "s4l-pretrain --in out/shards --labelled out/seed0/labelled_10p.parquet",
            "supervised_10p",
        ),
        train(
            "s4l-pretrain --in out/shards --labelled out/seed0/labelled_10p.parquet --init out/seed0/supervised_10p/model",
            "moam_step1",
        ),
        format!(
            "s4l-pseudolabel --in out/shards --model out/seed0/moam_step1/model --labelled out/seed0/labelled_10p.parquet --out out/seed0/moam_step1/labels.parquet {common}"
        ),
        train(
            "s4l-moam --step retrain --in out/shards --labels out/seed0/moam_step1/labels.parquet --init out/seed0/moam_step1/model",
            "moam_step2",
        ),
        train(
            "s4l-moam --step finetune --in out/shards --labelled out/seed0/labelled_10p.parquet --init out/seed0/moam_step2/model",
            "moam_step3",
        ),
        eval("supervised_10p"),
        eval("moam_step1"),
        eval("moam_step2"),
        eval("moam_step3"),
        "s4l-report --in out --out out/report --update".to_string(),
    ];
    assert_eq!(log, expected);
    assert_eq!(stdout(&output), "the table\n");

    let (again, log) = bench.make(&["moam_step3"]);
    assert_eq!((stdout(&again).as_str(), log), ("the table\n", vec![]));
}

#[test]
fn table_has_all_rows() {
    let bench = Bench::new();
    let ran = bench.ran(&["table"]);
    for row in rows("smoke") {
        for output in ["model", "eval.parquet"] {
            let end = format!(" seed0/{row}/{output}");
            assert_eq!(ran.iter().filter(|r| r.ends_with(&end)).count(), 1, "{end}");
        }
    }
    assert_eq!(ran.iter().filter(|r| r.starts_with("report")).count(), 1);
    assert!(bench.ran(&["table"]).is_empty());
}

#[test]
fn a_recipe_that_the_makefile_does_not_name_is_a_row_trained_on_the_labels() {
    let bench = Bench::new();
    fs::copy(bench.path("mine/vat.toml"), bench.path("mine/mean_teacher.toml")).unwrap();
    let (output, log) = bench.make(&["mean_teacher"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        log[3],
        "s4l-pretrain --in out/shards --labelled out/seed0/labelled_10p.parquet \
         --val out/seed0/val.parquet --recipe mine/mean_teacher.toml \
         --out out/seed0/mean_teacher/model --seed 0 --device cpu --update"
    );
    let ran: Vec<String> = log[4..].iter().map(|line| summary(line)).collect();
    assert_eq!(ran, ["eval seed0/mean_teacher/eval.parquet", "report report"]);
    assert!(bench.ran(&["mean_teacher"]).is_empty());

    bench.change("mine/mean_teacher.toml");
    let ran = bench.ran(&["table"]);
    assert_eq!(ran.iter().filter(|r| r.contains("/mean_teacher/")).count(), 2, "{ran:?}");
    assert_eq!(ran.last().unwrap(), "report report");
}

/// The rows of the smaller labelled set, including chains.
#[test]
fn rows_whose_names_end_in_1p_have_the_1p_labels_and_start_from_each_other() {
    let bench = Bench::new();
    for name in ["pseudo_labels", "vat", "moam_step1", "moam_step2", "moam_step3", "distill"] {
        let [from, to] = ["", "_1p"].map(|end| bench.path(&format!("mine/{name}{end}.toml")));
        fs::copy(from, to).unwrap();
    }
    let pipeline = bench.path("mine/pipeline.mk");
    let text = fs::read_to_string(&pipeline).unwrap();
    fs::write(&pipeline, format!("{text}MOAM_STEP1_1P_INIT := vat_1p\n")).unwrap();
    let (output, log) = bench.make(&["distill_1p", "pseudo_labels_1p", "vat_1p"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let made = |row: &str| {
        let end = format!("--out out/seed0/{row} --seed 0 --device cpu --update");
        let line = log.iter().find(|line| line.ends_with(&end));
        line.unwrap_or_else(|| panic!("no {end:?} in {log:#?}")).clone()
    };
    let few = "--labelled out/seed0/labelled_1p.parquet";
    for (row, inputs) in [
        ("vat_1p/model", few.to_string()),
        ("moam_step1_1p/model", format!("{few} --init out/seed0/vat_1p/model")),
        (
            "pseudo_labels_1p/model",
            format!("{few} --labels out/seed0/supervised_1p/labels.parquet"),
        ),
        (
            "moam_step2_1p/model",
            "--labels out/seed0/moam_step1_1p/labels.parquet --init out/seed0/moam_step1_1p/model"
                .to_string(),
        ),
        ("moam_step3_1p/model", format!("{few} --init out/seed0/moam_step2_1p/model")),
        ("moam_step1_1p/labels.parquet", few.to_string()),
        ("moam_step3_1p/labels.parquet", few.to_string()),
        (
            "distill_1p/model",
            "s4l-moam --step distill --in out/shards --labels out/seed0/moam_step3_1p/labels.parquet --val"
                .to_string(),
        ),
    ] {
        assert!(made(row).contains(&inputs), "{row}: {}", made(row));
    }
    assert!(log.iter().all(|line| !line.contains("s4l-pre") || !line.contains("10p")), "{log:#?}");

    let without = text.lines().filter(|line| !line.starts_with("SUBSET_1P"));
    fs::write(&pipeline, without.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let (output, _) = bench.make(&["vat"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("set SUBSET_1P, the labels of"), "{}", stderr(&output));
}

/// With the same draws each time, on the validation images, and outside the results.
#[test]
fn tune_draws_recipes_from_ranges_and_goes_on_with_more_of_them() {
    let bench = Bench::new();
    let pipeline = bench.path("mine/pipeline.mk");
    let text = fs::read_to_string(&pipeline).unwrap();
    fs::write(&pipeline, format!("{text}TUNE_vat := weight_vat=0.5:2 vat_eps=13:120\n")).unwrap();
    let (output, log) = bench.make(&["tune", "ROW=vat", "TRIALS=3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().last(), Some("the table, from the stage"));
    let value = |line: &str, key: &str| -> Option<f64> {
        let rest = line.split_once(&format!("-s {key}="))?.1;
        Some(rest.split(' ').next()?.parse().unwrap())
    };
    let trained: Vec<&String> = log.iter().filter(|l| l.starts_with("s4l-pretrain")).collect();
    let (eps, weights): (Vec<_>, Vec<_>) =
        trained.iter().map(|l| (value(l, "vat_eps"), value(l, "weight_vat"))).unzip();
    assert_eq!((trained.len(), eps[0], weights[0]), (4, None, None), "{log:#?}");
    assert!(eps[1..].iter().all(|eps| (13.0..=120.0).contains(&eps.unwrap())), "{eps:?}");
    assert!(weights[1..].iter().all(|w| (0.5..=2.0).contains(&w.unwrap())), "{weights:?}");
    assert!(eps[1] != eps[2] && eps[2] != eps[3] && eps[1] != eps[3], "{eps:?}");
    let evaluated = "--split train --labelled out/seed0/val.parquet --model out-tune/vat/seed0/";
    assert_eq!(log.iter().filter(|line| line.contains(evaluated)).count(), 4, "{log:#?}");
    assert!(log.last().unwrap().contains("s4l-report --in out-tune/vat "), "{log:#?}");

    assert!(bench.ran(&["tune", "ROW=vat", "TRIALS=3"]).is_empty());
    let ran = bench.ran(&["tune", "ROW=vat", "TRIALS=4"]);
    assert_eq!(ran.len(), 3, "{ran:?}");
    for (arguments, words) in [
        (["tune", "ROW=vat", "TRIALS=many"], "TRIALS=many: expected a number"),
        (["tune", "ROW=vta", "TRIALS=3"], "ROW=vta: name a row of"),
        (["tune", "ROW=vat_entmin", "TRIALS=3"], "set TUNE_vat_entmin, the ranges to draw from"),
    ] {
        let (output, _) = bench.make(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn a_recipe_is_not_named_as_a_target_of_make() {
    let bench = Bench::new();
    fs::rename(bench.path("mine/vat.toml"), bench.path("mine/test.toml")).unwrap();
    let (output, log) = bench.make(&["vat"]);
    assert_eq!((output.status.code(), log.len()), (Some(2), 0));
    assert!(stderr(&output).contains("mine/test.toml: rename it"), "{}", stderr(&output));
}

#[test]
fn a_new_recipe_redoes_only_what_depends_on_it() {
    let bench = Bench::new();
    bench.ran(&["table"]);
    bench.change("mine/moam_step2.toml");
    assert!(bench.ran(&["moam_step1"]).is_empty());
    let expected = [
        "moam seed0/moam_step2/model",
        "moam seed0/moam_step3/model",
        "eval seed0/moam_step2/eval.parquet",
        "eval seed0/moam_step3/eval.parquet",
        "report report",
    ];
    assert_eq!(bench.ran(&["moam_step3"]), expected);
    let student = [
        "pseudolabel seed0/moam_step3/labels.parquet",
        "moam seed0/distill/model",
        "eval seed0/distill/eval.parquet",
        "report report",
    ];
    assert_eq!(bench.ran(&["table"]), student);

    bench.change("mine/vat.toml");
    assert!(bench.ran(&["moam_step3"]).is_empty());
    assert!(bench.ran(&["report"]).is_empty());
    assert_eq!(
        bench.ran(&["table"]),
        ["pretrain seed0/vat/model", "eval seed0/vat/eval.parquet", "report report"]
    );
}

#[test]
fn report_covers_what_was_made_without_it() {
    let bench = Bench::new();
    bench.ran(&["vat"]);
    let file = bench.path("out/seed0/supervised_1p/eval.parquet");
    assert_eq!(
        bench.ran(&[file.to_str().unwrap()]),
        ["pretrain seed0/supervised_1p/model", "eval seed0/supervised_1p/eval.parquet"]
    );
    assert_eq!(bench.ran(&["report"]), ["report report"]);
    assert!(bench.ran(&["report"]).is_empty());
}

#[test]
fn lost_files_are_made_again() {
    let bench = Bench::new();
    bench.ran(&["vat"]);
    fs::remove_dir_all(bench.path("out/seed0/vat/model")).unwrap();
    // The same model as before.
    assert_eq!(bench.ran(&["vat"]), ["pretrain seed0/vat/model"]);
}

#[test]
fn new_programs_do_not_redo_results() {
    let bench = Bench::new();
    bench.ran(&["vat"]);
    bench.change("bin/s4l-pretrain");
    assert!(bench.ran(&["vat"]).is_empty());
}

#[test]
fn other_images_redo_everything() {
    let bench = Bench::new();
    bench.ran(&["vat"]);
    let first = "shard shards";
    // Another folder, with any age and name.
    let name = "Ann's 10% of $HOME; # 1";
    fs::create_dir(bench.path(name)).unwrap();
    let old = fs::File::open(bench.path(name)).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let other = format!("DATA={}", bench.path(name).display());
    assert_eq!(bench.ran(&["vat", &other])[0], first);
    assert!(bench.ran(&["vat", &other]).is_empty());
    // The first folder again, then one more image in one class.
    assert_eq!(bench.ran(&["vat"])[0], first);
    fs::write(bench.path("data/train/boot/1.png"), "").unwrap();
    assert_eq!(bench.ran(&["vat"])[0], first);
    assert!(bench.ran(&["vat"]).is_empty());
    // Corrected in place, with the old modification time.
    bench.change("data/train/boot/1.png");
    assert_eq!(bench.ran(&["vat"])[0], first);
    // The first folder under another name.
    std::os::unix::fs::symlink(bench.path("data"), bench.path("link")).unwrap();
    assert!(bench.ran(&["vat", &format!("DATA={}", bench.path("link").display())]).is_empty());
}

#[test]
fn shards_that_make_has_not_asked_for_are_not_replaced() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("out/shards")).unwrap();
    fs::write(bench.path("out/shards/dataset.json"), "by hand").unwrap();
    let (output, log) = bench.make(&["vat"]);
    assert_eq!((output.status.code(), log.len()), (Some(2), 0));
    assert!(stderr(&output).contains("Error 73"), "{}", stderr(&output));
    // Shards are used unchanged if no images are given.
    assert_eq!(bench.ran(&["vat", "DATA="])[0], "subset seed0/labelled_1p.parquet");
}

#[test]
fn variables_that_make_cannot_obey_are_named() {
    let bench = Bench::new();
    for (argument, words) in [
        ("SEED=3", "SEED=3: there is no such variable"),
        ("OUT=my runs", "OUT=my runs: make cannot use a path with a space in it"),
        ("OUT=a:b", "make cannot use a path with : in it"),
        ("OUT=a#b", "make cannot use a path with # in it"),
        ("OUT=10%", "make cannot use a path with % in it"),
        ("OUT=it's", "make cannot use a path with ' in it"),
        ("OUT=a$b", "OUT=a$b: make cannot use a path with $ in it"),
        ("OUT=a=b", "make cannot use a path with = in it"),
        ("OUT=~/x", "make cannot use a path with ~ in it"),
        ("OUT=(x)", "make cannot use a path with ( ) in it"),
        ("OUT=", "OUT= is empty"),
        ("BIN=my programs", "BIN=my programs: make cannot use a path with a space in it"),
        ("PIPELINE=my pipelines/a", "PIPELINE=my pipelines/a: make cannot use a path with a space"),
        ("SEEDS=0,1,2", "SEEDS=0,1,2: seeds are numbers"),
        ("SEEDS={0..2}", "SEEDS={0..2}: seeds are numbers"),
        ("SEEDS=00", "SEEDS=00: seeds are numbers"),
        ("SEEDS=", "SEEDS=: seeds are numbers"),
    ] {
        let (output, log) = bench.make(&["vat", argument]);
        assert_eq!((output.status.code(), log.len()), (Some(2), 0), "{argument}");
        let words_found = stderr(&output);
        assert_eq!(words_found.lines().count(), 1, "{words_found}");
        assert!(words_found.contains(words), "{words_found}");
    }
    let out = format!("OUT={}", bench.path("größe,a+b").display());
    assert!(bench.ran(&["vat", &out, "VAL_PER_CLASS=3"]).len() > 5);
}

#[test]
fn variables_of_the_environment_are_not_obeyed() {
    let bench = Bench::new();
    let top = bench.dir.path().display();
    let mut command = make();
    command.args(["-n", "vat", "PIPELINE=smoke"]);
    let plain = stdout(&command.output().unwrap());
    for name in ["PIPELINE", "DATA", "OUT", "SEEDS", "DEVICE", "RUN", "BIN"] {
        command.env(name, format!("{top}/7"));
    }
    assert_eq!(stdout(&command.output().unwrap()), plain);
    assert!(plain.contains("pipelines/smoke/data"), "{plain}");
}

#[test]
fn each_seed_has_its_own_folder() {
    let bench = Bench::new();
    bench.ran(&["vat"]);
    let ran = bench.ran(&["vat", "SEEDS=0 12"]);
    let expected = [
        "subset seed12/labelled_1p.parquet",
        "subset seed12/labelled_10p.parquet",
        "pretrain seed12/vat/model",
        "eval seed12/vat/eval.parquet",
        "report report",
    ];
    assert_eq!(ran, expected);
    let (_, log) = bench.make(&["supervised_1p", "SEEDS=12"]);
    assert!(log[0].contains("seed12/labelled_1p.parquet") && log[0].contains("--seed 12 "));
}

#[test]
fn prefixes_stand_before_stages_only() {
    let run = |arguments: &[&str]| {
        let output = make()
            .args(["-n", "pseudo_labels", "PIPELINE=smoke", "DATA=photos", "OUT=absent"])
            .env("CARGO_TARGET_DIR", "absent")
            .args(arguments)
            .output()
            .unwrap();
        stdout(&output)
    };
    let with = |text: &str, prefix: &str, program: &str| {
        let all = text.matches(&format!("absent/release/{program} ")).count();
        let prefixed = text.matches(&format!("{prefix} absent/release/{program} ")).count();
        assert!(all > 0 && all == prefixed, "{prefix} {program}:\n{text}");
    };
    let text = run(&["RUN=srun -n1 --"]);
    for program in
        ["s4l-shard", "s4l-subset", "s4l-pretrain", "s4l-pseudolabel", "s4l-eval", "s4l-report"]
    {
        with(&text, "srun -n1 --", program);
    }
    assert!(!text.contains("srun -n1 -- cargo"));
    // The ranks of a training.
    let text = run(&["RUN=srun -n1 --", "MPI_RUN=mpirun -n 2"]);
    with(&text, "mpirun -n 2", "s4l-pretrain");
    with(&text, "srun -n1 --", "s4l-pseudolabel");
}

/// With RUN, the first four rows wait for one another; without it, no stage begins before another ends.
#[test]
fn jobs_run_side_by_side_where_run_sends_them_elsewhere() {
    let bench = Bench::new();
    let together = r#"#!/bin/sh
case "$*" in */s4l-pretrain*)
    here=$(dirname "$0")
    mkdir -p "$here/started"
    touch "$here/started/$$"
    tries=0
    while [ "$(ls "$here/started" | wc -l)" -lt 4 ]; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { echo "no four at once" >&2; exit 1; }
        sleep 0.05
    done
esac
exec "$@"
"#;
    bench.script("path/together", together);
    let run = format!("RUN={}", bench.path("path/together").display());
    let ran = bench.ran(&["table", "-j4", &run]);
    assert_eq!(ran.iter().filter(|line| line.starts_with("pretrain ")).count(), 9);

    let alone = r#"#!/bin/sh
here=$(dirname "$0")
mkdir "$here/alone" || { echo "two at once" >&2; exit 1; }
sleep 0.02
rmdir "$here/alone"
"#;
    for program in PROGRAMS {
        bench.script(&format!("bin/{program}"), &STAGE.replacen("#!/bin/sh\n", alone, 1));
    }
    fs::remove_dir_all(bench.path("out")).unwrap();
    let mut one_by_one = bench.ran(&["table", "-j4"]);
    one_by_one.sort();
    let mut ran = ran;
    ran.sort();
    assert_eq!(one_by_one, ran);
}

#[test]
fn a_failed_or_stopped_stage_ends_make_and_the_same_command_goes_on() {
    for code in ["65", "75"] {
        let bench = Bench::new();
        fs::write(bench.path("fail"), format!("moam_step2.toml {code}\n")).unwrap();
        let (output, log) = bench.make(&["moam_step3"]);
        assert_eq!(output.status.code(), Some(2));
        let words = stderr(&output);
        assert!(words.contains("error: moam_step2.toml is broken\n"), "{words}");
        assert!(words.contains(&format!("Error {code}\n")), "{words}");
        assert_eq!(summary(log.last().unwrap()), "moam seed0/moam_step2/model");
        assert!(!bench.path("out/report").exists());

        fs::remove_file(bench.path("fail")).unwrap();
        let ran = bench.ran(&["moam_step3"]);
        assert_eq!(ran[..2], ["moam seed0/moam_step2/model", "moam seed0/moam_step3/model"]);
    }
}

#[test]
fn a_pipeline_without_images_asks_for_them() {
    let output = make().args(["vat", "PIPELINE=imagenet", "OUT=absent"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("make DATA=FOLDER"), "{}", stderr(&output));
    let output = make().arg("PIPELINE=absent").output().unwrap();
    assert!(stderr(&output).contains("there is no pipelines/absent/pipeline.mk"));
}

#[test]
fn validation_images_can_be_done_without() {
    let bench = Bench::new();
    let (_, log) = bench.make(&["vat", "VAL_PER_CLASS="]);
    assert_eq!(log.len(), 6);
    assert!(log.iter().all(|line| !line.contains("--val")), "{log:?}");
    assert!(bench.ran(&["vat", "VAL_PER_CLASS="]).is_empty());
}

#[test]
fn an_old_cargo_is_replaced_through_rustup() {
    let bench = Bench::new();
    bench.script("path/cargo", "#!/bin/sh\necho 'cargo 1.9.0 (0123456 2016-05-26)'\n");
    // A stand-in for the download; it fetches a stand-in for rustup's installer.
    bench.script(
        "path/curl",
        r#"#!/bin/sh
cat >"$2" <<'END'
mkdir -p "$HOME/.cargo/bin"
printf '#!/bin/sh\necho "cargo 1.99.0 (0123456 2030-01-01)"\n' >"$HOME/.cargo/bin/cargo"
chmod +x "$HOME/.cargo/bin/cargo"
END
"#,
    );
    let toolchain = || {
        let output = make()
            .arg("toolchain")
            .env("PATH", format!("{}:/usr/bin:/bin", bench.path("path").display()))
            .env("HOME", bench.dir.path())
            .env_remove("CARGO_HOME")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let words = toolchain();
    assert!(words.contains("cargo is 1.9.0, at least"), "{words}");
    assert!(bench.path(".cargo/bin/cargo").exists());
    assert_eq!(toolchain(), "");
}

#[test]
fn every_recipe_parses() {
    for pipeline in ["fashion", "smoke", "cifar10", "imagenet"] {
        let found = rows(pipeline);
        for row in &found {
            let settings = recipe(pipeline, row);
            assert!(settings.schedule.is_sorted(), "{pipeline} {row}");
        }
        assert!(rows("imagenet").iter().all(|row| found.contains(row)), "{pipeline}: {found:?}");
    }
}

/// The reference's rule for steps: an epoch is floor(images / batch) steps, and the last entry of the
/// schedule, in epochs, is rounded up.
#[test]
fn imagenet_steps_are_those_of_the_reference() {
    let table = [
        ("supervised_1p", 13_000, 50, 50_000),
        ("supervised_10p", 128_000, 500, 100_000),
        ("s4l_rotation", 128_000, 500, 100_000),
        ("s4l_exemplar", 128_000, 250, 50_000),
        ("vat", 128_000, 500, 100_000),
        ("vat_entmin", 128_000, 500, 100_000),
        ("pseudo_labels", 1_281_167, 5_004, 500_400),
        ("moam_step1", 128_000, 1_000, 200_000),
        ("moam_step2", 1_281_167, 10_009, 180_162),
        ("moam_step3", 128_000, 1_000, 20_000),
    ];
    for (row, images, epoch, total) in table {
        let settings = recipe("imagenet", row);
        let steps = images / settings.batch;
        assert_eq!(steps, epoch, "{row}");
        let end = settings.schedule.last().unwrap() * steps as f64;
        assert_eq!(end.ceil() as u64, total, "{row}");
    }
}
