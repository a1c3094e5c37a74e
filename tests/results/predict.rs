//! `s4l-predict`: the predictions of `s4l-eval`, for images outside shards.

use crate::common::training::{EVAL, PRETRAIN, labelled_shards, pretrain, recipe, words};
use crate::common::{Ran, SMOKE, Scratch, photos, png, real, shard, smoke};
use s4l::tables::table::{self, Table};
use std::io::Write;
use std::process::{Command, Stdio};

const PREDICT: &str = env!("CARGO_BIN_EXE_s4l-predict");

/// A model for `photos`, coloured images in three classes.
fn of_photos() -> Scratch {
    let scratch = Scratch::new();
    photos(&scratch);
    shard(&scratch, &words("--in photos --out shards -q")).ok();
    let subset = env!("CARGO_BIN_EXE_s4l-subset");
    scratch.run(subset, &words("--all --out labelled.parquet -q")).ok();
    let line = format!(
        "--labelled labelled.parquet --recipe {} -s units=[1] -s stem=small_stride2 -s batch=12 \
         -s schedule=[1,4] -s validate_every=9 --threads 1 -q --out model",
        recipe("supervised_10p")
    );
    scratch.run(PRETRAIN, &words(&line)).ok();
    scratch
}

fn predict(scratch: &Scratch, line: &str) -> Ran {
    scratch.run(PREDICT, &[&["--threads", "1", "-q"], &words(line)[..]].concat())
}

/// As above, with bytes on stdin.
fn predict_stdin(scratch: &Scratch, line: &str, bytes: &[u8]) -> String {
    let mut child = Command::new(PREDICT)
        .args(words(line))
        .current_dir(scratch.path("."))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Key, name of the predicted class and its probability, for each row of an evaluation.
fn evaluated(scratch: &Scratch, split: &str, classes: &[String]) -> Vec<(String, String, String)> {
    let line = format!("--split {split} --model model --out {split}.parquet --threads 1 -q");
    scratch.run(EVAL, &words(&line)).ok();
    let table = table::read(&scratch.path(&format!("{split}.parquet")), "s4l-eval").unwrap();
    let (logits, n) = table.float_lists("logits").unwrap();
    let keys = table.strings("key").unwrap().into_iter();
    let predictions = table.ints("prediction").unwrap();
    keys.zip(logits.chunks(n).zip(predictions))
        .map(|(key, (logits, class))| {
            let largest = f64::from(logits[class as usize]);
            let sum: f64 = logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum();
            (key, classes[class as usize].clone(), format!("{:.6}", (1.0 / sum) as f32))
        })
        .collect()
}

/// The lines of a result.
fn rows(stdout: &str) -> Vec<Vec<&str>> {
    stdout.lines().map(|line| line.split('\t').collect()).collect()
}

fn classes(scratch: &Scratch) -> Vec<String> {
    s4l::shards::Shards::open(&scratch.path("shards")).unwrap().classes().to_vec()
}

fn tar(scratch: &Scratch, folder: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(folder, scratch.path(folder)).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn photographs_get_the_labels_of_an_evaluation() {
    let scratch = of_photos();
    let mut expected = evaluated(&scratch, "train", &classes(&scratch));
    let found = predict(&scratch, "photos").ok().stdout;
    let mut base: Vec<_> = rows(&found)
        .into_iter()
        .map(|row| {
            let path = std::path::Path::new(row[0]);
            assert!(scratch.path(row[0]).is_file(), "{row:?}");
            let key = path.file_name().unwrap().to_str().unwrap();
            (key.to_string(), row[1].to_string(), row[2].to_string())
        })
        .collect();
    base.sort();
    expected.sort();
    assert_eq!(base, expected);

    // One by one, in the order of the command line; and with other numbers of threads.
    let lines: Vec<&str> = found.lines().collect();
    let last_first = |n: usize| lines.iter().rev().take(n).map(|line| format!("{line}\n"));
    let paths: Vec<&str> =
        lines.iter().rev().map(|line| line.split('\t').next().unwrap()).collect();
    let ran = scratch.run(PREDICT, &[&paths[..], &["--threads", "2"]].concat()).ok();
    assert_eq!(ran.stdout, last_first(12).collect::<String>());
    // Archives, and stdin.
    let archive = tar(&scratch, "photos");
    scratch.write("all.tar", &archive);
    let in_archive = |name: &str| {
        let mut lines: Vec<String> = lines.iter().map(|line| format!("{name}/{line}")).collect();
        lines.sort();
        lines
    };
    let sorted = |stdout: String| {
        let mut lines: Vec<String> = stdout.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(predict(&scratch, "all.tar").ok().stdout), in_archive("all.tar"));
    assert_eq!(sorted(predict_stdin(&scratch, "-", &archive)), in_archive("-"));
    let image = std::fs::read(scratch.path(paths[0])).unwrap();
    let expected = last_first(1).collect::<String>().replace(paths[0], "-");
    assert_eq!(predict_stdin(&scratch, "-", &image), expected);
    // A reader that has seen enough is no error.
    let mut child = Command::new(PREDICT)
        .args(["photos", "-q"])
        .current_dir(scratch.path("."))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_model_of_grey_images_takes_pixels_and_pictures() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    let expected = evaluated(&scratch, "train", &classes(&scratch));
    let found = predict(&scratch, SMOKE).ok().stdout;
    let found = rows(&found);
    assert_eq!(found.len(), 600);
    for (row, (key, label, probability)) in found.iter().zip(&expected) {
        assert_eq!(row[0], format!("{SMOKE}/{key}"));
        assert_eq!((row[1], row[2]), (&label[..], &probability[..]));
    }
    for row in 0..3 {
        scratch.write(&format!("grey/{row}.png"), png(&real(row).0, 28));
    }
    let grey = predict(&scratch, "grey").ok().stdout;
    for (row, expected) in rows(&grey).iter().zip(&expected) {
        assert_eq!((row[1], row[2]), (&expected.1[..], &expected.2[..]));
    }
}

#[test]
fn what_is_broken_is_said_and_the_others_are_predicted() {
    let scratch = of_photos();
    let whole = predict(&scratch, "photos").ok().stdout;
    let cut = std::fs::read(scratch.path("photos/bag/00.png")).unwrap();
    scratch.write("photos/bag/000.png", &cut[..cut.len() / 2]);
    scratch.write("notes.txt", "none");
    let ran = predict(&scratch, "notes.txt photos");
    assert_eq!((ran.code, &ran.stdout), (65, &whole));
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.stderr);
    assert!(lines[0].starts_with("warning: notes.txt: "), "{}", lines[0]);
    assert!(lines[1].starts_with("warning: photos/bag/000.png: a PNG without its end"));
    let end = "notes.txt: expected images that can be read, found 2 that cannot be read, this is the first; \
               repair or remove them; the other 12 are predicted";
    assert!(lines[2].ends_with(end), "{}", lines[2]);

    let ran = predict(&scratch, "notes.txt photos --format parquet --out p.parquet");
    assert_eq!((ran.code, &ran.stdout[..]), (65, ""));
    let table = table::read(&scratch.path("p.parquet"), "s4l-predict").unwrap();
    let nulls = |name: &str| table.batch.column_by_name(name).unwrap().null_count();
    assert_eq!((table.batch.num_rows(), nulls("label"), nulls("probability")), (14, 2, 2));

    // Before the first prediction.
    let before = scratch.names();
    for (line, code, message) in [
        ("photos absent.jpg", 66, ["absent.jpg", "name an image"]),
        ("photos --model absent", 66, ["absent/model.safetensors", "s4l-pretrain"]),
        ("photos --format parquet", 2, ["--format parquet", "--out"]),
        ("photos --out o.tsv", 2, ["--out o.tsv", "stdout"]),
        ("photos --format parquet --out photos", 2, ["photos", "input"]),
        ("photos --max-seconds 0", 75, ["stopped before it, after 0 images", "again"]),
    ] {
        let ran = predict(&scratch, line);
        assert_eq!((ran.code, &ran.stdout[..]), (code, ""), "{line}: {}", ran.stderr);
        assert!(message.iter().all(|word| ran.stderr.contains(word)), "{line}: {}", ran.stderr);
        assert_eq!(scratch.names(), before, "{line}");
    }
}

#[test]
fn every_form_has_the_same_rows() {
    let scratch = of_photos();
    // A name with a tab and a line break, which would give two fields and two lines.
    scratch.write("odd/a\tb\nc\\, \"d\".png", png(&real(3).0, 28));
    let line = "odd photos --top 2";
    let tsv = predict(&scratch, line).ok().stdout;
    let tsv = rows(&tsv);
    assert_eq!(tsv.len(), 26);
    assert_eq!(tsv[0][0], r#"odd/a\tb\nc\\, "d".png"#);
    let likely = |row: &[&str]| row[2].parse::<f64>().unwrap();
    for pair in tsv.chunks(2) {
        assert!(pair[0][0] == pair[1][0] && pair[0][1] != pair[1][1], "{pair:?}");
        assert!(likely(&pair[0]) >= likely(&pair[1]), "{pair:?}");
    }
    let three = predict(&scratch, "odd --top 99").ok().stdout;
    let sum: f64 = rows(&three).iter().map(|row| likely(row)).sum();
    assert!(rows(&three).len() == 3 && (sum - 1.0).abs() < 1e-5, "{three}");

    let unescaped = |text: &str| match text.starts_with("odd") {
        true => "odd/a\tb\nc\\, \"d\".png".to_string(),
        false => text.to_string(),
    };
    let expected: Vec<[String; 3]> =
        tsv.iter().map(|row| [unescaped(row[0]), row[1].to_string(), row[2].to_string()]).collect();
    let json = predict(&scratch, &format!("{line} --format json")).ok().stdout;
    let json: Vec<[String; 3]> = json
        .lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap().to_string();
            let probability = format!("{:.6}", row["probability"].as_f64().unwrap());
            [text("path"), text("label"), probability]
        })
        .collect();
    assert_eq!(json, expected);
    let csv = predict(&scratch, &format!("{line} --format csv")).ok().stdout;
    let mut csv = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(csv.headers().unwrap().iter().collect::<Vec<_>>(), ["path", "label", "probability"]);
    let records = csv.records().map(|record| {
        let record = record.unwrap();
        [0, 1, 2].map(|field| record[field].to_string())
    });
    assert_eq!(records.collect::<Vec<_>>(), expected);

    let parquet = format!("{line} --format parquet --out p.parquet");
    predict(&scratch, &parquet).ok();
    let read = || -> Table { table::read(&scratch.path("p.parquet"), "s4l-predict").unwrap() };
    let table = read();
    let (paths, labels) = (table.strings("path").unwrap(), table.strings("label").unwrap());
    let likely = table.floats("probability").unwrap().into_iter().map(|p| format!("{p:.6}"));
    let found =
        paths.into_iter().zip(labels).zip(likely).map(|((path, label), p)| [path, label, p]);
    assert_eq!(found.collect::<Vec<_>>(), expected);
    // As for every table: up to date, from other inputs, with its lineage.
    let hash = read().hash;
    let again = scratch.run(PREDICT, &words(&parquet)).ok();
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    let other = parquet.replace("odd ", "");
    predict(&scratch, &other).fails(73, &["p.parquet", "--force"]);
    let inspect = env!("CARGO_BIN_EXE_s4l-inspect");
    scratch.run(inspect, &words("--lineage p.parquet --verify")).ok();
    predict(&scratch, &format!("{other} --update")).ok();
    assert_ne!(read().hash, hash);
    std::fs::remove_file(scratch.path("photos/bag/00.png")).unwrap();
    let ran = scratch.run(inspect, &words("--lineage p.parquet --verify"));
    assert_eq!(ran.code, 65, "{}", ran.stdout);
}

#[test]
fn the_model_that_comes_with_the_project_knows_its_images() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/fashion");
    let scratch = Scratch::new();
    let ran = predict(&scratch, &format!("--model {model} {SMOKE}")).ok();
    let config = std::fs::read(format!("{model}/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let labels = &smoke("t10k-labels-idx1-ubyte")[8..];
    let of_test = ran.stdout.lines().filter(|line| line.contains("/test-"));
    let named: Vec<&str> = of_test.map(|line| line.split('\t').nth(1).unwrap()).collect();
    assert_eq!(named.len(), labels.len());
    let right = |(name, label): &(&&str, &u8)| **name == config["classes"][usize::from(**label)];
    let right = named.iter().zip(labels).filter(right).count();
    assert!(right * 5 > 4 * labels.len(), "{right} of {}", labels.len());
}
