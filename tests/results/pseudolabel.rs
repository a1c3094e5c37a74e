//! `s4l-pseudolabel`: its table, known labels, and how it finds its model.

use crate::common::Scratch;
use crate::common::training::{
    PSEUDOLABEL, labelled_shards, pretrain, pseudolabel, read_labels, words, write_labels,
};
use s4l::augment::{Mode, Pipe};
use s4l::model::folder::Model;
use s4l::network::device::Device;
use s4l::rng::{Stream, rng};
use s4l::shards::Shards;
use s4l::tables::table::{self, Table};
use std::collections::HashMap;
use std::process::Command;

fn labels(scratch: &Scratch) -> Table {
    table::read(&scratch.path("labels.parquet"), "s4l-pseudolabel").unwrap()
}

fn with_model() -> Scratch {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "model", "").ok();
    scratch
}

/// The first of the largest values.
fn argmax(values: &[f32]) -> i64 {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter().position(|&v| v == largest).unwrap() as i64
}

#[test]
fn the_table_is_that_of_the_contract() {
    let scratch = with_model();
    pseudolabel(&scratch, "model", "").ok();
    let table = labels(&scratch);
    let schema = table.batch.schema();
    let columns: Vec<String> =
        schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    let expected = [
        "key Utf8",
        "label Int64",
        "known Boolean",
        "label_single Int64",
        "confidence Float32",
        "entropy Float32",
        "agreement Float32",
    ];
    assert_eq!(columns[..7], expected);
    assert!(columns[7].starts_with("probs "), "{columns:?}");
    assert_eq!(columns.len(), 8);
    for key in ["s4l.tool", "s4l.version", "s4l.recipe", "s4l.seed"] {
        assert!(table.metadata.contains_key(key), "{key}");
    }
    for input in ["shards", "model", "labelled"] {
        assert!(table.metadata.contains_key(&format!("s4l.input.{input}")));
    }
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    assert_eq!(table.strings("key").unwrap(), split.keys().collect::<Vec<_>>());
}

#[test]
fn columns_follow_from_the_probabilities() {
    let scratch = with_model();
    pseudolabel(&scratch, "model", "").ok();
    let known: HashMap<_, _> = read_labels(&scratch, "labelled.parquet").into_iter().collect();
    let table = labels(&scratch);
    let (probs, classes) = table.float_lists("probs").unwrap();
    assert_eq!(classes, 10);
    let keys = table.strings("key").unwrap();
    let (label, single) = (table.ints("label").unwrap(), table.ints("label_single").unwrap());
    let is_known = table.bools("known").unwrap();
    let confidence = table.floats("confidence").unwrap();
    let entropy = table.floats("entropy").unwrap();
    let agreement = table.floats("agreement").unwrap();
    let mut guessed = 0;
    for (i, p) in probs.chunks(classes).enumerate() {
        let sum: f32 = p.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "row {i}: {sum}");
        match known.get(&keys[i]) {
            Some(&l) => {
                assert!(is_known[i]);
                assert_eq!(label[i], l, "row {i}");
                guessed += usize::from(l != argmax(p));
            }
            None => {
                assert!(!is_known[i]);
                assert_eq!(label[i], argmax(p), "row {i}");
            }
        }
        assert!((0..10).contains(&single[i]));
        assert_eq!(confidence[i], p[argmax(p) as usize]);
        let h: f32 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        assert!((h - entropy[i]).abs() < 1e-5, "row {i}: {h}, {}", entropy[i]);
        // A share of 20 views.
        let views = agreement[i] * 20.0;
        assert!((0.0..=20.0).contains(&views) && (views - views.round()).abs() < 1e-4);
    }
    assert_eq!(is_known.iter().filter(|k| **k).count(), known.len());
    // The model makes errors: some known labels differ from its prediction.
    assert!(guessed > 0);
}

/// A square grey image turned by `quarters` quarter turns, as by `np.rot90`.
fn turned(view: &[f32], side: usize, quarters: usize) -> Vec<f32> {
    (0..quarters).fold(view.to_vec(), |v, _| {
        let pixels = (0..side * side).map(|i| v[(i % side) * side + side - 1 - i / side]);
        pixels.collect()
    })
}

/// The views by hand: centre and corners of the image at 32 pixels, each turned four times.
#[test]
fn logits_are_averaged_over_five_crops_and_four_rotations() {
    let scratch = with_model();
    let line = "--in shards --out labels.parquet --threads 1 -q";
    scratch.run(PSEUDOLABEL, &words(line)).ok();
    let table = labels(&scratch);
    let (label, single) = (table.ints("label").unwrap(), table.ints("label_single").unwrap());
    let (probs, classes) = table.float_lists("probs").unwrap();
    let model = Model::open(&scratch.path("model")).unwrap();
    let mut network = model.network(Device::Cpu).unwrap();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    let enlarge = Pipe::parse("resize_small(32)|-1_to_1", Mode::Eval).unwrap();
    let mut inference = network.inference().unwrap();
    let mut moved = 0;
    for row in 0..60 {
        let mut image = vec![0.0; 32 * 32];
        let mut rng = rng(0, Stream::LabelledAugment, 0, 0);
        split.augment(row, &enlarge, &mut rng, &mut image).unwrap();
        let mut views = Vec::new();
        for (y, x) in [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)] {
            let crop: Vec<f32> =
                (y..y + 28).flat_map(|y| image[y * 32 + x..][..28].to_vec()).collect();
            views.extend((0..4).flat_map(|quarters| turned(&crop, 28, quarters)));
        }
        let logits = inference.run(&views, "classes").unwrap();
        let mean: Vec<f32> = (0..classes)
            .map(|c| logits.iter().skip(c).step_by(classes).sum::<f32>() / 20.0)
            .collect();
        assert_eq!(single[row], argmax(&logits[..classes]), "row {row}");
        assert_eq!(label[row], argmax(&mean), "row {row}");
        let sum: f32 = mean.iter().map(|l| l.exp()).sum();
        for (l, p) in mean.iter().zip(&probs[row * classes..]) {
            assert!((l.exp() / sum - p).abs() < 1e-5, "row {row}");
        }
        moved += usize::from(label[row] != single[row]);
    }
    assert!(moved > 0);
}

/// A model that never saw a rotated image is not asked about any, nor one whose classes are upright.
#[test]
fn views_are_rotated_only_if_the_classes_were_learnt_so() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "supervised", "").ok();
    pretrain(&scratch, "s4l_rotation", "upright", "-s upright_classes=true").ok();
    for model in ["supervised", "upright"] {
        let line = format!("--in shards --model {model} --threads 1 -q --out");
        scratch.run(PSEUDOLABEL, &words(&format!("{line} default.parquet --force"))).ok();
        let upright = "-s views=resize_small(32)|multi_crop(28,28)|-1_to_1";
        scratch.run(PSEUDOLABEL, &words(&format!("{line} upright.parquet --force {upright}"))).ok();
        let read = |name: &str| std::fs::read(scratch.path(name)).unwrap();
        assert_eq!(read("default.parquet"), read("upright.parquet"), "{model}");
    }
}

/// With only the centre view there is nothing to average.
#[test]
fn one_view_is_the_single_label() {
    let scratch = with_model();
    let single = |s: &Scratch| labels(s).ints("label_single").unwrap();
    let line = "--in shards --out labels.parquet --threads 1 -q";
    scratch.run(PSEUDOLABEL, &words(line)).ok();
    let of_twenty = single(&scratch);
    assert_ne!(labels(&scratch).ints("label").unwrap(), of_twenty);
    let centre = format!("{line} --force -s views=resize_small(32)|central_crop(28)|-1_to_1");
    scratch.run(PSEUDOLABEL, &words(&centre)).ok();
    let table = labels(&scratch);
    assert_eq!(single(&scratch), of_twenty);
    assert_eq!(table.ints("label").unwrap(), of_twenty);
    assert_eq!(table.floats("agreement").unwrap(), vec![1.0; 400]);
    assert_eq!(table.bools("known").unwrap(), vec![false; 400]);
}

/// All known labels are of one class, so the share of the others is zero, and all pseudo labels exceed it.
#[test]
fn a_collapse_is_the_last_word() {
    let scratch = with_model();
    let labelled = read_labels(&scratch, "labelled.parquet");
    let of_one: Vec<(&str, i64)> =
        labelled.iter().filter(|(_, label)| *label == 0).map(|(key, _)| (&**key, 0)).collect();
    write_labels(&scratch, "one.parquet", &of_one);
    let said = |labelled: &str| {
        let line =
            format!("--in shards --out {labelled}.labels --threads 1 -q --labelled {labelled}");
        scratch.run(PSEUDOLABEL, &words(&line)).ok().stderr
    };
    let words = said("one.parquet");
    let table = table::read(&scratch.path("one.parquet.labels"), "s4l-pseudolabel").unwrap();
    let mut counts = [0; 10];
    for (label, known) in
        table.ints("label").unwrap().into_iter().zip(table.bools("known").unwrap())
    {
        counts[label as usize] += usize::from(!known);
    }
    let most = counts[1..].iter().max().unwrap();
    let begin = format!("warning: one.parquet.labels: {most} of 390 pseudo labels are \"");
    assert!(words.starts_with(&begin), "{words}");
    assert!(words.ends_with("; see s4l-report --audit one.parquet.labels\n"), "{words}");
    assert_eq!(words.lines().count(), 1);
}

#[test]
fn the_model_is_named_by_option_environment_or_place() {
    let scratch = with_model();
    let line = "--in shards --out labels.parquet -q";
    scratch.run(PSEUDOLABEL, &words(line)).ok();
    let here = std::fs::read(scratch.path("labels.parquet")).unwrap();
    // Elsewhere: by the variable, and by the option, which overrides it.
    std::fs::rename(scratch.path("model"), scratch.path("elsewhere")).unwrap();
    let run = |model: &str, more: &str| {
        let _ = std::fs::remove_file(scratch.path("labels.parquet"));
        let status = Command::new(PSEUDOLABEL)
            .args(words(line))
            .args(words(more))
            .current_dir(scratch.path("."))
            .env("S4L_MODEL", model)
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(0));
        std::fs::read(scratch.path("labels.parquet")).unwrap()
    };
    assert_eq!(run("elsewhere", ""), here);
    assert_eq!(run("absent", "--model elsewhere"), here);
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let scratch = with_model();
    let bytes = |threads: u32| {
        let line = format!("--in shards --out {threads}.parquet -q --threads {threads}");
        scratch.run(PSEUDOLABEL, &words(&line)).ok();
        std::fs::read(scratch.path(&format!("{threads}.parquet"))).unwrap()
    };
    assert_eq!(bytes(1), bytes(2));
}

#[test]
fn a_finished_table_is_left_alone_unless_forced() {
    let scratch = with_model();
    pseudolabel(&scratch, "model", "").ok();
    let path = scratch.path("labels.parquet");
    let before = std::fs::read(&path).unwrap();
    let time = path.metadata().unwrap().modified().unwrap();
    pseudolabel(&scratch, "model", "").ok();
    let other = "-s views=resize(28)|-1_to_1";
    pseudolabel(&scratch, "model", other).fails(73, &["labels.parquet", "--force"]);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), time);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    pseudolabel(&scratch, "model", &format!("{other} --force")).ok();
    assert_ne!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_dry_run_counts_the_passes_and_writes_nothing() {
    let scratch = with_model();
    let before = scratch.names();
    let ran = pseudolabel(&scratch, "model", "--dry-run").ok();
    assert!(ran.stdout.contains("forward passes 8000"), "{}", ran.stdout);
    assert!(ran.stdout.contains("known labels 100"), "{}", ran.stdout);
    assert_eq!(scratch.names(), before);
}

#[test]
fn bad_input_leaves_no_table() {
    let scratch = with_model();
    let before = scratch.names();
    for (more, code, message) in [
        ("-s views=resize(14)|-1_to_1", 65, "28x28x1"),
        ("-s views=sharpen", 78, "sharpen"),
        ("-s view=resize(28)", 78, "view"),
        ("--max-seconds 0", 75, "run the same command again"),
    ] {
        pseudolabel(&scratch, "model", more).fails(code, &[message]);
        assert_eq!(scratch.names(), before, "{more}");
    }
}
