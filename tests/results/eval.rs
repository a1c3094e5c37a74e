//! `s4l-eval`: its table, its summary, and that both agree.

use crate::common::Scratch;
use crate::common::training::{EVAL, labelled_shards, pretrain, read_labels, words, write_labels};
use s4l::evaluate::metrics::EvalSummary;
use s4l::shards::Shards;
use s4l::tables::table::{self, Table};

fn with_model(row: &str) -> Scratch {
    let scratch = labelled_shards();
    pretrain(&scratch, row, "run/model", "").ok();
    scratch
}

/// Runs with the options `more`; returns the summary on stdout and the table.
fn eval(scratch: &Scratch, more: &str) -> (EvalSummary, Table) {
    let line =
        format!("--in shards --model run/model --out run/eval.parquet --threads 1 -q {more}");
    let ran = scratch.run(EVAL, &words(&line)).ok();
    let table = table::read(&scratch.path("run/eval.parquet"), "s4l-eval").unwrap();
    assert_eq!(ran.stdout.trim_end(), table.metadata["s4l.summary"]);
    assert_eq!(ran.stdout.lines().count(), 1);
    (serde_json::from_str(&ran.stdout).unwrap(), table)
}

fn share(right: impl Iterator<Item = bool>) -> f64 {
    let all: Vec<bool> = right.collect();
    all.iter().filter(|r| **r).count() as f64 / all.len() as f64
}

#[test]
fn the_table_is_that_of_the_contract() {
    let scratch = with_model("supervised_10p");
    let (_, table) = eval(&scratch, "");
    let schema = table.batch.schema();
    let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(names, ["key", "label", "prediction", "top5", "nll", "logits"]);
    let own = ["s4l.tool", "s4l.version", "s4l.recipe", "s4l.seed"];
    let inputs = ["s4l.input.labels", "s4l.input.model", "s4l.input.shards"];
    for key in own.into_iter().chain(inputs) {
        assert!(table.metadata.contains_key(key), "{key}");
    }
    let split = Shards::open(&scratch.path("shards")).unwrap().split("test").unwrap();
    assert_eq!(table.strings("key").unwrap(), split.keys().collect::<Vec<_>>());
    let labels = split.labels().unwrap().iter().map(|label| i64::from(label.unwrap()));
    assert_eq!(table.ints("label").unwrap(), labels.collect::<Vec<_>>());
}

#[test]
fn the_summary_follows_from_the_rows() {
    let scratch = with_model("supervised_10p");
    let (summary, table) = eval(&scratch, "");
    assert_eq!(summary.row, "run");
    assert_eq!((&summary.method[..], &summary.split[..]), ("supervised", "test"));
    assert!(summary.rotation_averaged.is_none());
    let s = summary.unrotated;
    assert_eq!(s.images, 200);
    let labels = table.ints("label").unwrap();
    let predictions = table.ints("prediction").unwrap();
    assert_eq!(s.top1, share(labels.iter().zip(&predictions).map(|(a, b)| a == b)));
    assert_eq!(s.top5, share(table.bools("top5").unwrap().into_iter()));
    assert!(s.top1_low <= s.top1 && s.top1 <= s.top1_high);
    let nll = table.floats("nll").unwrap();
    let mean = nll.iter().map(|&v| f64::from(v)).sum::<f64>() / 200.0;
    assert!((s.nll - mean).abs() < 1e-5, "{} is not {mean}", s.nll);
    // The rows follow from the logits.
    let (logits, classes) = table.float_lists("logits").unwrap();
    assert_eq!(classes, 10);
    for (i, l) in logits.chunks(classes).enumerate() {
        let largest = l.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(l[predictions[i] as usize], largest, "row {i}");
        let sum: f64 = l.iter().map(|v| f64::from(*v).exp()).sum();
        let expected = sum.ln() - f64::from(l[labels[i] as usize]);
        assert!((f64::from(nll[i]) - expected).abs() < 1e-4, "row {i}");
    }
    assert_eq!(s.per_class.len(), 10);
    assert_eq!(s.per_class.iter().map(|c| c.images).sum::<u64>(), 200);
    let mean = s.per_class.iter().map(|c| c.top1.unwrap()).sum::<f64>() / 10.0;
    assert!((mean - s.top1).abs() < 1e-9 && (mean - s.balanced_accuracy).abs() < 1e-9);
}

#[test]
fn models_of_rotations_report_both_figures() {
    for (row, method) in [("s4l_rotation", "rotation"), ("moam_step1", "moam")] {
        let scratch = with_model(row);
        let (summary, table) = eval(&scratch, "");
        assert_eq!(summary.method, method);
        let averaged = summary.rotation_averaged.unwrap();
        assert_eq!(averaged.images, 200);
        assert_ne!(averaged.nll, summary.unrotated.nll);
        let predictions = table.ints("prediction").unwrap().into_iter();
        let labels = table.ints("label").unwrap().into_iter();
        assert_eq!(summary.unrotated.top1, share(predictions.zip(labels).map(|(a, b)| a == b)));
        // The rows are of the unrotated images.
        let (plain, plain_table) = eval(&scratch, "--force -s augment_eval=resize(28)|-1_to_1");
        assert!(plain.rotation_averaged.is_none());
        assert_eq!(plain.unrotated, summary.unrotated);
        assert_eq!(
            plain_table.float_lists("logits").unwrap(),
            table.float_lists("logits").unwrap()
        );
        // Rotated images have no class for a model of upright ones.
        pretrain(&scratch, row, "run/model", "--force -s upright_classes=true").ok();
        assert!(eval(&scratch, "--force").0.rotation_averaged.is_none());
    }
}

#[test]
fn the_images_of_a_file_of_another_split() {
    let scratch = with_model("supervised_10p");
    let (summary, table) = eval(&scratch, "--labelled val.parquet --split train");
    let keys = table.strings("key").unwrap();
    let rows: Vec<_> = keys.into_iter().zip(table.ints("label").unwrap()).collect();
    assert_eq!(rows, read_labels(&scratch, "val.parquet"));
    assert_eq!((summary.unrotated.images, &summary.split[..]), (50, "train"));
    // The figure that training logged at the end.
    let curve = crate::common::training::curve(&scratch, "run/model", "validation/top1");
    assert_eq!(summary.unrotated.top1, *curve.last().unwrap());
}

#[test]
fn a_finished_evaluation_is_printed_again() {
    let scratch = with_model("supervised_10p");
    let path = scratch.path("run/eval.parquet");
    let first = eval(&scratch, "").0;
    let time = path.metadata().unwrap().modified().unwrap();
    assert_eq!(eval(&scratch, "").0, first);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), time);
    let line = "--in shards --model run/model --out run/eval.parquet -q --split train";
    scratch.run(EVAL, &words(line)).fails(73, &["run/eval.parquet", "--force"]);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), time);
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let scratch = with_model("s4l_rotation");
    let bytes = |threads: u32| {
        let line =
            format!("--in shards --model run/model --out {threads}.parquet -q --threads {threads}");
        scratch.run(EVAL, &words(&line)).ok();
        std::fs::read(scratch.path(&format!("{threads}.parquet"))).unwrap()
    };
    assert_eq!(bytes(1), bytes(2));
}

#[test]
fn bad_input_leaves_no_table() {
    let scratch = with_model("supervised_10p");
    write_labels(&scratch, "odd.parquet", &[("nowhere", 1)]);
    let before = scratch.names();
    for (more, code, message) in [
        ("--labelled odd.parquet", 65, ["odd.parquet", "unknown key \"nowhere\""]),
        ("--labelled absent.parquet", 66, ["absent.parquet", "s4l-subset"]),
        ("-s augment_eval=resize(14)|-1_to_1", 65, ["28x28x1", "14x14x1"]),
        ("-s augment_evl=resize(28)", 78, ["augment_evl", "did you mean augment_eval"]),
        ("--max-seconds 0", 75, ["stopped before", "run the same command again"]),
    ] {
        let line = format!("--in shards --model run/model --out eval.parquet -q {more}");
        let ran = scratch.run(EVAL, &words(&line));
        ran.fails(code, &message);
        assert_eq!(ran.stdout, "");
        assert_eq!(scratch.names(), before, "{more}");
    }
}

#[test]
fn each_stage_warns_once_that_evaluation_does_not_crop() {
    let scratch = labelled_shards();
    let set = "-s augment_eval=inception_crop|resize(28)|-1_to_1";
    let trained = pretrain(&scratch, "supervised_10p", "run/model", set).ok();
    let line = words("--in shards --model run/model --out run/eval.parquet -q");
    for stderr in [trained.stderr, scratch.run(EVAL, &line).ok().stderr] {
        assert_eq!(stderr.matches("inception_crop keeps the full image").count(), 1, "{stderr}");
    }
}
