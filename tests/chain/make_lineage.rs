//! make with the built programs: the lineage of an output decides, not times and names.

use crate::common::{IMAGES, SMOKE, Scratch, contents, shard, smoke};
use crate::makefile;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder with images of the smoke pipeline and their labels, which a test may correct.
fn with_data() -> Scratch {
    let scratch = Scratch::new();
    for (name, bytes) in contents(Path::new(SMOKE)) {
        match name.strip_suffix(".zst").filter(|name| name.contains("labels")) {
            Some(labels) => scratch.write(&format!("data/{labels}"), smoke(labels)),
            None => scratch.write(&format!("data/{name}"), bytes),
        };
    }
    scratch
}

fn make(scratch: &Scratch, arguments: &[&str]) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_s4l-shard")).parent().unwrap();
    let mut command = makefile::make();
    command
        .args(["supervised_1p", "PIPELINE=smoke"])
        .arg(format!("BIN={}", programs.display()))
        .arg(format!("OUT={}", scratch.path("out").display()))
        .arg(format!("DATA={}", scratch.path("data").display()))
        .args(arguments);
    command
}

/// The outputs that were made, each with the reason.
#[track_caller]
fn made(scratch: &Scratch, arguments: &[&str]) -> Vec<String> {
    let output = make(scratch, arguments).output().unwrap();
    let words = stderr(&output);
    assert!(output.status.success(), "{words}");
    let out = format!("{}/", scratch.path("out").display());
    let lines = words.lines().filter(|line| line.contains(": making it "));
    lines.map(|line| line.replace(&out, "").replace("making it ", "")).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const ALL: [&str; 7] = [
    "shards: now",
    "seed0/val.parquet: now",
    "seed0/labelled_1p.parquet: now",
    "seed0/labelled_10p.parquet: now",
    "seed0/supervised_1p/model/model.safetensors: now",
    "seed0/supervised_1p/eval.parquet: now",
    "report/index.html: now",
];

fn set_times(folder: &Path, time: SystemTime) {
    for file in walkdir::WalkDir::new(folder) {
        std::fs::File::open(file.unwrap().path()).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn the_same_content_is_left_alone_however_old_and_whatever_it_is_called() {
    let scratch = with_data();
    assert_eq!(made(&scratch, &[]), ALL);
    let table = std::fs::read(scratch.path("out/report/table.parquet")).unwrap();
    let nothing = Vec::<String>::new();
    // Wrong clocks.
    set_times(&scratch.path("out"), UNIX_EPOCH);
    assert_eq!(made(&scratch, &[]), nothing);
    set_times(&scratch.path("data"), SystemTime::now() + Duration::from_secs(9999));
    assert_eq!(made(&scratch, &[]), nothing);
    // Copies, as in a fresh checkout.
    let copy = scratch.path("Ann's copy");
    for (name, bytes) in contents(&scratch.path("data")) {
        scratch.write(&format!("Ann's copy/{name}"), bytes);
    }
    let data = format!("DATA={}", copy.display());
    assert_eq!(made(&scratch, &[&data]), nothing);
    // Shards that were made in parts and merged by hand.
    std::fs::remove_dir_all(scratch.path("out/shards")).unwrap();
    std::fs::remove_file(scratch.path("out/data.txt")).unwrap();
    for part in ["1/2", "2/2"] {
        shard(&scratch, &["--in", "data", "--out", "out/shards", "--part", part, "-q"]).ok();
    }
    shard(&scratch, &["--merge", "--out", "out/shards", "-q"]).ok();
    assert_eq!(made(&scratch, &[]), nothing);
    assert_eq!(std::fs::read(scratch.path("out/report/table.parquet")).unwrap(), table);
    // A removed output is made again with the same bytes, and nothing made from it is made again.
    std::fs::remove_dir_all(scratch.path("out/seed0/supervised_1p/model")).unwrap();
    assert_eq!(made(&scratch, &[]), [ALL[4]]);
}

/// Four jobs at once, of two rows and two seeds, give the same as one stage at a time.
#[test]
fn rows_and_seeds_side_by_side_end_with_the_same_bytes() {
    let bytes = |more: &[&str]| {
        let scratch = with_data();
        made(&scratch, &[&["supervised_10p", "SEEDS=0 1"][..], more].concat());
        let out = scratch.path("out");
        let files = walkdir::WalkDir::new(&out).sort_by_file_name().into_iter();
        let paths = files.map(|entry| entry.unwrap().into_path()).filter(|path| path.is_file());
        let named = paths.map(|path| (path.strip_prefix(&out).unwrap().to_path_buf(), path));
        // These contain times and commands.
        let varies =
            [".prov.json", "data.txt", "report/index.html", "report/cost.csv", "report/cost.html"];
        named
            .filter(|(name, _)| !varies.iter().any(|end| name.to_string_lossy().ends_with(end)))
            .map(|(name, path)| (name, std::fs::read(path).unwrap()))
            .collect::<Vec<_>>()
    };
    let one_by_one = bytes(&[]);
    let evaluations = one_by_one.iter().filter(|(name, _)| name.ends_with("eval.parquet"));
    assert_eq!(evaluations.count(), 4);
    let side_by_side = bytes(&["-j4", "RUN=env"]);
    assert!(one_by_one.iter().map(|f| &f.0).eq(side_by_side.iter().map(|f| &f.0)));
    assert!(one_by_one == side_by_side);
}

/// Labels changed in place, and data under another name with an apostrophe: everything that depends on them
/// is made again.
#[test]
fn other_content_is_noticed() {
    let scratch = with_data();
    made(&scratch, &[]);
    // The labels of two training images are swapped.
    let correct = |file: &str| {
        let path = scratch.path(file);
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut labels = std::fs::read(&path).unwrap();
        let other = (9..labels.len()).find(|&row| labels[row] != labels[8]).unwrap();
        labels.swap(8, other);
        std::fs::write(&path, labels).unwrap();
        std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    };
    correct("data/t10k-labels-idx1-ubyte");
    let tested =
        ["shards: anew: other images", "seed0/supervised_1p/eval.parquet: anew: other labels"];
    assert_eq!(made(&scratch, &[])[..2], tested);
    correct("data/train-labels-idx1-ubyte");
    let again = made(&scratch, &[]);
    assert_eq!(again[..2], [tested[0], "seed0/val.parquet: anew: other labels"]);

    std::fs::create_dir(scratch.path("Ann's photos")).unwrap();
    for (name, bytes) in contents(&scratch.path("data")) {
        if !name.starts_with(IMAGES) {
            scratch.write(&format!("Ann's photos/{name}"), bytes);
        }
    }
    let mut images = smoke(IMAGES);
    images[100] ^= 1;
    scratch.write(&format!("Ann's photos/{IMAGES}"), images);
    let data = format!("DATA={}", scratch.path("Ann's photos").display());
    let ann = made(&scratch, &[&data]);
    assert_eq!(ann[0], tested[0]);
    let model = "seed0/supervised_1p/model/model.safetensors: anew: other ";
    assert!(ann.iter().any(|line| line.starts_with(model) && line.contains("shards")), "{ann:?}");

    // A recipe, and a model that was trained by hand with another seed.
    let weight = "seed0/supervised_1p/model";
    let pretrain = env!("CARGO_BIN_EXE_s4l-pretrain");
    let line = format!(
        "--in out/shards --labelled out/seed0/labelled_1p.parquet --val out/seed0/val.parquet \
         --recipe {ROOT}/pipelines/smoke/supervised_1p.toml --out out/{weight} -q --force --seed 7"
    );
    scratch.run(pretrain, &crate::common::training::words(&line)).ok();
    let anew = made(&scratch, &[&data]);
    assert_eq!(anew, [format!("{weight}/model.safetensors: anew: other seed")]);
}

/// A setting that is newer than a model counts with its default: the model stays.
#[test]
fn a_model_from_before_a_setting_is_up_to_date() {
    let scratch = with_data();
    made(&scratch, &[]);
    let model = scratch.path("out/seed0/supervised_1p/model");
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&config).unwrap();
    json["settings"].as_object_mut().unwrap().remove("weight_vat").unwrap();
    let config = json.to_string();
    std::fs::write(model.join("config.json"), &config).unwrap();
    crate::common::training::rewrite(&model.join("model.safetensors"), |header, _| {
        let hash = blake3::hash(config.as_bytes()).to_hex()[..16].to_string();
        header.insert("s4l.config".into(), hash);
        header.insert("s4l.recipe".into(), "0123456789abcdef".into());
    });
    let again = made(&scratch, &[]);
    let model = "seed0/supervised_1p/model/model.safetensors: ";
    assert!(again.iter().all(|line| !line.starts_with(model)), "{again:?}");
    // Classes with other names are another task.
    let classes: Vec<String> = (0..10).map(|class| format!("class {class}")).collect();
    scratch.write("data/classes.txt", classes.join("\n"));
    let again = made(&scratch, &[]);
    assert!(again.contains(&format!("{model}anew: other classes")), "{again:?}");
}

/// A stage whose make was killed continues; the next make waits for it and uses its output.
#[test]
fn a_stage_that_a_killed_make_left_is_waited_for() {
    let scratch = with_data();
    let smoke = Path::new(ROOT).join("pipelines/smoke");
    scratch.write("mine/pipeline.mk", std::fs::read(smoke.join("pipeline.mk")).unwrap());
    let recipe = std::fs::read_to_string(smoke.join("supervised_1p.toml")).unwrap();
    let keep = |line: &&str| !line.starts_with("schedule") && !line.starts_with("checkpoint_every");
    let recipe = recipe.lines().filter(keep).collect::<Vec<_>>().join("\n");
    let recipe = format!("{recipe}\nschedule = [0, 60]\ncheckpoint_every = 2\n");
    scratch.write("mine/supervised_1p.toml", recipe);
    let pipeline = format!("PIPELINE={}", scratch.path("mine").display());
    let mut first =
        make(&scratch, &[&pipeline]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let model = scratch.path("out/seed0/supervised_1p/model");
    let start = Instant::now();
    while !model.join("checkpoint/state.safetensors").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let second = make(&scratch, &[&pipeline]).output().unwrap();
    let words = stderr(&second);
    assert!(second.status.success(), "{words}");
    assert!(words.contains("model: waiting for the run that makes it (host "), "{words}");
    assert!(words.contains("model.safetensors: up to date"), "{words}");
}
