//! The Makefile and the recipes: what is run, in which order, and what is not run again. The stages
//! are stand-ins that log their command line and write empty outputs.

mod common;

use common::rows;
use s4l::recipe::Recipe;
use s4l::settings::Settings;
use std::fs;
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

/// `$top/fail` holds a word and an exit code: a stage with that word in its command line ends so.
const STAGE: &str = r#"#!/bin/sh
top=$(dirname "$0")/..
echo "$(basename "$0") $*" >>"$top/log"
if [ -e "$top/fail" ]; then
    read -r word code <"$top/fail"
    case "$*" in *"$word"*) echo "error: $word is broken" >&2; exit "$code";; esac
fi
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=$2;;
    --val-out) val=$2;;
    esac
    shift
done
mkdir -p "$(dirname "$out")"
case $0 in
*s4l-shard) mkdir -p "$out"; : >"$out/dataset.json";;
*s4l-pretrain|*s4l-moam) mkdir -p "$out"; : >"$out/model.safetensors";;
*s4l-report) mkdir -p "$out"; echo "the table" >"$out/table.md"; : >"$out/index.html"; echo "the table, from the stage";;
*) : >"$out"; [ -z "$val" ] || : >"$val";;
esac
"#;

/// A private folder with stand-ins of the stages, a pipeline of its own and some data.
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

    /// Makes the time of a file newer than that of everything there is.
    fn touch(&self, name: &str) {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let file = fs::File::options().append(true).open(self.path(name)).unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
    }

    /// Runs make and returns its output and what the stages logged.
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

    /// `make` that has to succeed; what ran, as "program output".
    fn ran(&self, arguments: &[&str]) -> Vec<String> {
        let (output, log) = self.make(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        log.iter().map(|line| summary(line)).collect()
    }
}

/// make in the project's folder, untouched by the make that may have started this test.
fn make() -> Command {
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
    for variable in ["PIPELINE", "DATA", "OUT", "SEEDS", "DEVICE", "RUN", "MPI_RUN", "BIN"] {
        assert!(text.contains(&format!("  {variable}=")), "{variable}");
    }
}

#[test]
fn every_pipeline_can_make_every_row() {
    for pipeline in ["fashion", "smoke", "imagenet"] {
        for row in rows(pipeline).iter().chain(&["table".into(), "report".into()]) {
            let output = make()
                .args(["-n", row, "DATA=photos", "OUT=absent", "BIN=bin"])
                .arg(format!("PIPELINE={pipeline}"))
                .output()
                .unwrap();
            assert!(output.status.success(), "{pipeline} {row}: {}", stderr(&output));
            assert!(stdout(&output).contains("bin/s4l-report --in 'absent'"));
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
    let common = "--seed 0 --device cpu --force";
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
            "s4l-subset --in out/shards {flags}.parquet --val-per-class 5 --val-out out/seed0/val.parquet --seed 0 --force"
        )
    };
    let expected = [
        "s4l-shard --in data --out out/shards --force".to_string(),
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
        "s4l-report --in out --out out/report --force".to_string(),
    ];
    assert_eq!(log, expected);
    assert!(stdout(&output).ends_with("\nthe table\n"), "{}", stdout(&output));

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
    fs::copy(bench.path("mine/vat.toml"), bench.path("mine/fixmatch.toml")).unwrap();
    let (output, log) = bench.make(&["fixmatch"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        log[3],
        "s4l-pretrain --in out/shards --labelled out/seed0/labelled_10p.parquet \
         --val out/seed0/val.parquet --recipe mine/fixmatch.toml \
         --out out/seed0/fixmatch/model --seed 0 --device cpu --force"
    );
    let ran: Vec<String> = log[4..].iter().map(|line| summary(line)).collect();
    assert_eq!(ran, ["eval seed0/fixmatch/eval.parquet", "report report"]);
    assert!(bench.ran(&["fixmatch"]).is_empty());

    bench.touch("mine/fixmatch.toml");
    let ran = bench.ran(&["table"]);
    assert_eq!(ran.iter().filter(|r| r.contains("/fixmatch/")).count(), 2, "{ran:?}");
    assert_eq!(ran.last().unwrap(), "report report");
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
    bench.touch("mine/moam_step2.toml");
    assert!(bench.ran(&["moam_step1"]).is_empty());
    let expected = [
        "moam seed0/moam_step2/model",
        "moam seed0/moam_step3/model",
        "eval seed0/moam_step2/eval.parquet",
        "eval seed0/moam_step3/eval.parquet",
        "report report",
    ];
    assert_eq!(bench.ran(&["moam_step3"]), expected);

    bench.touch("mine/vat.toml");
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
    assert_eq!(
        bench.ran(&["vat"]),
        ["pretrain seed0/vat/model", "eval seed0/vat/eval.parquet", "report report"]
    );
}

#[test]
fn new_programs_do_not_redo_results() {
    let bench = Bench::new();
    bench.ran(&["vat"]);
    bench.touch("bin/s4l-pretrain");
    assert!(bench.ran(&["vat"]).is_empty());
}

#[test]
fn other_images_redo_everything() {
    let bench = Bench::new();
    bench.ran(&["vat"]);
    let first = "shard shards";
    // Another folder, whatever its age.
    fs::create_dir(bench.path("my photos")).unwrap();
    let old = fs::File::open(bench.path("my photos")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    let other = format!("DATA={}", bench.path("my photos").display());
    assert_eq!(bench.ran(&["vat", &other])[0], first);
    assert!(bench.ran(&["vat", &other]).is_empty());
    // The first folder again, then one more image in one of its classes.
    assert_eq!(bench.ran(&["vat"])[0], first);
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(bench.path("data/train/boot/1.png"), "").unwrap();
    assert_eq!(bench.ran(&["vat"])[0], first);
    assert!(bench.ran(&["vat"]).is_empty());
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
    let text = run(&["RUN=srun -n1 --", "MPI_RUN=mpirun -n 4"]);
    with(&text, "srun -n1 --", "s4l-eval");
    with(&text, "mpirun -n 4", "s4l-pretrain");
    assert!(!text.contains("srun -n1 -- mpirun"));
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
    // Stands for the download; what it fetches stands for rustup's installer.
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
    for pipeline in ["fashion", "smoke", "imagenet"] {
        let found = rows(pipeline);
        for row in &found {
            let settings = recipe(pipeline, row);
            assert!(settings.schedule.is_sorted(), "{pipeline} {row}");
        }
        assert!(rows("imagenet").iter().all(|row| found.contains(row)), "{pipeline}: {found:?}");
    }
}

/// Steps by the rule of the reference: an epoch is floor(images / batch), the last entry of the
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
