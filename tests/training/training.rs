//! The training stages: what each method writes, and on what the weights depend.

use crate::common::training::{
    curve, differing, labelled_shards, moam, model, pretrain, pseudolabel, read_labels, words,
};
use crate::common::{Scratch, batches, contents};
use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use s4l::lineage::Lineage;
use s4l::network::cpu::Isa;
use s4l::shards::Shards;
use s4l::tables::table;
use safetensors::SafeTensors;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Trains to the end and checks: the files of a model, finite curves with the terms of the method.
#[track_caller]
fn is_trained(scratch: &Scratch, name: &str, terms: &[&str]) {
    model(scratch, name);
    for name_of in
        ["loss", "loss/supervised", "learning_rate", "validation/top1"].iter().chain(terms)
    {
        let curve = curve(scratch, name, name_of);
        assert!(!curve.is_empty(), "no {name_of}");
        assert!(curve.iter().all(|v| v.is_finite()), "{name_of}: {curve:?}");
    }
}

#[test]
fn rotation_trains() {
    let scratch = labelled_shards();
    pretrain(&scratch, "s4l_rotation", "model", "").ok();
    is_trained(&scratch, "model", &["loss/rotation", "train/top1"]);
}

#[test]
fn exemplar_trains() {
    let scratch = labelled_shards();
    pretrain(&scratch, "s4l_exemplar", "model", "").ok();
    is_trained(&scratch, "model", &["loss/exemplar", "train/top1"]);
}

#[test]
fn vat_trains_with_entropy_minimization_and_without() {
    let scratch = labelled_shards();
    pretrain(&scratch, "vat", "vat", "").ok();
    is_trained(&scratch, "vat", &["loss/vat", "loss/entmin"]);
    pretrain(&scratch, "vat_entmin", "both", "-s ramp=1").ok();
    is_trained(&scratch, "both", &["loss/vat", "loss/entmin"]);
}

/// Labelled images have one view, unlabelled images four.
#[test]
fn the_halves_of_a_batch_may_differ_in_views() {
    let scratch = labelled_shards();
    let turned = "-s augment_unlabelled=resize(28)|-1_to_1|rotate";
    let ran = pretrain(&scratch, "vat", "model", &format!("{turned} --dry-run")).ok();
    for line in [
        "views of an image     1 of a labelled, 4 of an unlabelled one\n",
        "images a step         80 in the main pass\n",
    ] {
        assert!(ran.stdout.contains(line), "{line:?} in {}", ran.stdout);
    }
    pretrain(&scratch, "vat", "model", turned).ok();
    is_trained(&scratch, "model", &["loss/vat", "loss/entmin"]);
}

#[test]
fn supervised_training_lowers_the_loss_and_learns() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "model", "-s schedule=[1,20]").ok();
    is_trained(&scratch, "model", &["train/top1"]);
    let loss = curve(&scratch, "model", "loss");
    assert_eq!(loss.len(), 120);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&loss[..12]), mean(&loss[108..]));
    assert!(last < 0.8 * first, "{first} to {last}");
    // Ten classes: chance is 0.1.
    let top1 = curve(&scratch, "model", "train/top1");
    assert!(mean(&top1[108..]) > 0.3, "{top1:?}");
}

#[test]
fn the_steps_of_moam_train_on_one_another() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "one", "").ok();
    is_trained(&scratch, "one", &["loss/rotation", "loss/vat", "loss/entmin"]);
    pseudolabel(&scratch, "one", "").ok();
    moam(&scratch, "retrain", "two", "--labels labels.parquet --init one").ok();
    is_trained(&scratch, "two", &["loss/rotation", "loss/vat", "loss/entmin"]);
    moam(&scratch, "finetune", "three", "--labelled labelled.parquet --init two").ok();
    is_trained(&scratch, "three", &["loss/rotation", "loss/vat", "loss/entmin"]);
    // A student of its own size.
    moam(&scratch, "distill", "student", "--labels labels.parquet -s width_factor=2").ok();
    is_trained(&scratch, "student", &[]);
    // All views of an image have its soft label.
    moam(
        &scratch,
        "distill",
        "turned",
        "--labels labels.parquet -s augment_labelled=resize(28)|-1_to_1|rotate",
    )
    .ok();
    is_trained(&scratch, "turned", &[]);
    // The pseudo-label row.
    pretrain(&scratch, "pseudo_labels", "pseudo", "--labels labels.parquet").ok();
    is_trained(&scratch, "pseudo", &["train/top1"]);
}

/// The float values of a model's weights, without the header.
fn weights(scratch: &Scratch, model: &str) -> Vec<u8> {
    let bytes = std::fs::read(scratch.path(model).join("model.safetensors")).unwrap();
    let (header, _) = SafeTensors::read_metadata(&bytes).unwrap();
    bytes[8 + header..].to_vec()
}

/// Writes `labels.parquet` again with other numbers in an integer column.
fn change(scratch: &Scratch, to: &str, column: &str, value: impl Fn(bool, i64) -> i64) {
    let table = table::read(&scratch.path("labels.parquet"), "s4l-pseudolabel").unwrap();
    let (index, _) = table.batch.schema().column_with_name(column).unwrap();
    let known = table.bools("known").unwrap().into_iter();
    let values = known.zip(table.ints(column).unwrap());
    let mut columns = table.batch.columns().to_vec();
    columns[index] =
        Arc::new(Int64Array::from_iter_values(values.map(|(known, v)| value(known, v))));
    let lineage = Lineage::new("s4l-pseudolabel", 0, String::new());
    let path = scratch.path(to);
    table::write(&path, table.batch.schema(), columns, &lineage, BTreeMap::new()).unwrap();
}

#[test]
fn the_recipe_says_which_pseudo_label_trains_and_known_labels_are_kept() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "teacher", "").ok();
    pseudolabel(&scratch, "teacher", "").ok();
    let other = |v: i64| (v + 1) % 10;
    let train = |labels: &str, column: &str| {
        let more = format!("--labels {labels}.parquet --force -s label_column={column}");
        pretrain(&scratch, "pseudo_labels", "model", &more).ok();
        weights(&scratch, "model")
    };
    for (column, unused) in [("label_single", "label"), ("label", "label_single")] {
        let before = train("labels", column);
        change(&scratch, "a.parquet", column, |known, v| if known { v } else { other(v) });
        assert_ne!(train("a", column), before, "{column}");
        change(&scratch, "a.parquet", unused, |known, v| if known { v } else { other(v) });
        assert_eq!(train("a", column), before, "{column}");
    }
    // For a known image the label counts, never the model's prediction.
    let before = train("labels", "label_single");
    change(&scratch, "a.parquet", "label_single", |known, v| if known { other(v) } else { v });
    assert_eq!(train("a", "label_single"), before);
    change(&scratch, "a.parquet", "label", |known, v| if known { other(v) } else { v });
    assert_ne!(train("a", "label_single"), before);
}

#[test]
fn a_confidence_threshold_drops_pseudo_labels_and_is_off_by_default() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "teacher", "").ok();
    pseudolabel(&scratch, "teacher", "").ok();
    let table = table::read(&scratch.path("labels.parquet"), "s4l-pseudolabel").unwrap();
    let held_out: HashSet<String> =
        read_labels(&scratch, "val.parquet").into_iter().map(|row| row.0).collect();
    let (keys, known) = (table.strings("key").unwrap(), table.bools("known").unwrap());
    let confidence = table.floats("confidence").unwrap();
    let expected = |threshold: f32| {
        let kept = |i: &usize| known[*i] || confidence[*i] >= threshold;
        let rows = (0..keys.len()).filter(|&i| !held_out.contains(&keys[i]));
        rows.filter(kept).count()
    };
    let found = |more: &str| {
        let more = format!("--labels labels.parquet --dry-run {more}");
        let plan = pretrain(&scratch, "pseudo_labels", "model", &more).ok().stdout;
        let line = plan.lines().find_map(|l| l.strip_prefix("labelled images"));
        let count = line.unwrap().split_whitespace().next().unwrap();
        count.parse::<usize>().unwrap()
    };
    assert_eq!(found(""), 350);
    let mut sorted = confidence.clone();
    sorted.sort_by(f32::total_cmp);
    let middle = sorted[200];
    let kept = found(&format!("-s min_confidence={middle}"));
    assert_eq!(kept, expected(middle));
    assert!((101..350).contains(&kept), "{kept}");
    assert_eq!(found("-s min_confidence=1.0"), 100);
    let line = "--labels labels.parquet --dry-run -s min_confidence=1.0";
    let said = pretrain(&scratch, "pseudo_labels", "model", line).ok().stderr;
    assert!(said.contains("0 of 300 pseudo labels have a confidence of at least 1, "), "{said}");
    assert!(said.contains("10 of 10 classes have none"), "{said}");
    // Of the known labels, 10 are of each class; of the others, some classes have more.
    assert_eq!(found("-s min_confidence=1.0 -s balance_classes=true"), 100);
    let balanced = found("-s balance_classes=true");
    assert!(balanced > 350 && balanced % 10 == 0, "{balanced}");
}

/// Fine-tuning with a learning rate of nearly zero gives the initial weights, so it did start from them.
#[test]
fn init_is_where_training_starts() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "one", "").ok();
    let still =
        "-s learning_rate=1e-300 -s polyak_half_life=0 -s batch_norm_batches=0 -s schedule=[0,0.1]";
    let line = format!("--labelled labelled.parquet --init one {still}");
    moam(&scratch, "finetune", "two", &line).ok();
    let open = |name: &str| s4l::model::folder::Model::open(&scratch.path(name)).unwrap().weights;
    let (one, two) = (open("one"), open("two"));
    assert_eq!(one.parameters, two.parameters);
    assert_ne!(one.moving, two.moving);
}

/// With an endless half-life the average stays at the initial weights; with none it follows every step.
#[test]
fn the_weights_of_a_model_are_the_averaged_ones() {
    let scratch = labelled_shards();
    let parameters = |out: &str, more: &str| {
        let more = format!("{more} -s schedule=[0,1] -s batch_norm_batches=0");
        pretrain(&scratch, "supervised_10p", out, &more).ok();
        let model = s4l::model::folder::Model::open(&scratch.path(out)).unwrap();
        model.weights.parameters
    };
    let start = parameters("start", "-s learning_rate=1e-300");
    let raw = parameters("raw", "-s polyak_half_life=0");
    assert!(start != raw);
    assert!(parameters("endless", "-s polyak_half_life=1e30") == start);
    assert!(parameters("none", "-s polyak_half_life=1e-30") == raw);
}

#[test]
fn the_same_bytes_for_any_number_of_threads_and_others_for_another_seed() {
    let scratch = labelled_shards();
    for (row, out) in [("moam_step1", "moam"), ("s4l_exemplar", "exemplar")] {
        let run = |name: &str, more: &str| {
            let out = format!("{out}-{name}");
            let line = crate::common::training::pretrain_words(row, &out, more);
            // The last of an option given twice would be an error.
            let line = line.replacen(" --threads 1", "", 1);
            scratch.run(crate::common::training::PRETRAIN, &words(&line)).ok();
            model(&scratch, &out)
        };
        let one = run("one", "--threads 1");
        assert_eq!(differing(&one, &run("two", "--threads 2")), Vec::<String>::new());
        let other = differing(&one, &run("seed", "--threads 2 --seed 1"));
        for file in ["model.safetensors", "metrics.parquet"] {
            assert!(other.contains(&file.to_string()), "{row}: {file}");
        }
    }
}

/// Rewrites the shards with other labels, as any tool could.
fn relabel(scratch: &Scratch, label: impl Fn(Option<i64>) -> Option<i64>) {
    for split in ["train", "test"] {
        let path = scratch.path(&format!("shards/{split}-00000-of-00001.parquet"));
        let old = batches(&path);
        let schema = old[0].schema();
        let column = schema.index_of("label").unwrap();
        let properties = WriterProperties::builder()
            .set_compression(parquet::basic::Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .build();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).unwrap();
        for batch in old {
            let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
            let labels = columns[column].as_any().downcast_ref::<Int64Array>().unwrap();
            let new: Int64Array = labels.iter().map(&label).collect();
            assert_ne!(&new, labels);
            columns[column] = Arc::new(new);
            writer.write(&RecordBatch::try_new(schema.clone(), columns).unwrap()).unwrap();
        }
        writer.close().unwrap();
    }
}

#[test]
fn the_labels_of_the_shards_do_not_reach_the_weights() {
    let scratch = labelled_shards();
    let train = |out: &str| {
        for (row, name) in [("supervised_10p", "supervised"), ("moam_step1", "moam")] {
            pretrain(&scratch, row, &format!("{name}-{out}"), "").ok();
        }
        ["supervised", "moam"].map(|name| model(&scratch, &format!("{name}-{out}")))
    };
    let before = train("true");
    relabel(&scratch, |l| l.map(|l| (l + 1) % 10));
    let wrong = train("wrong");
    relabel(&scratch, |_| None);
    for batch in batches(&scratch.path("shards/train-00000-of-00001.parquet")) {
        let labels = batch.column_by_name("label").unwrap();
        assert_eq!(labels.null_count(), labels.len());
    }
    let none = train("none");
    for i in 0..2 {
        assert_eq!(differing(&before[i], &wrong[i]), Vec::<String>::new());
        assert_eq!(differing(&before[i], &none[i]), Vec::<String>::new());
    }
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let scratch = labelled_shards();
    let before = scratch.names();
    let ran = pretrain(&scratch, "moam_step1", "model", "--dry-run").ok();
    assert_eq!(scratch.names(), before);
    for line in [
        "labelled images       100 (16 a step)",
        "unlabelled images     350 (16 a step)",
        "views of an image     4",
        "steps                 12 (6 an epoch)",
        "images seen           1536",
    ] {
        assert!(ran.stdout.contains(line), "{line:?} in {}", ran.stdout);
    }
    // Stem 3x3x1x16; a unit of width 16 to 64 with its projection and three norms (16, 16, 16); the last
    // norm; heads of 10 and 4.
    let unit = 16 * 64 + 16 * 16 + 9 * 16 * 16 + 16 * 64 + 3 * 2 * 16;
    let parameters = 9 * 16 + unit + 2 * 64 + 65 * 10 + 65 * 4;
    let line = format!("parameters            {parameters}\n");
    assert!(ran.stdout.contains(&line), "{line:?} in {}", ran.stdout);
    let best = Isa::best();
    let coarse = match best.has_pairs() {
        true => "products of bfloat16",
        false => "bfloat16 widened to float32 before its products",
    };
    for (precision, products) in [("f32", "products in float32"), ("bf16", coarse)] {
        let line = format!("--dry-run --precision {precision}");
        let ran = pretrain(&scratch, "moam_step1", "model", &line).ok();
        let line = format!("instructions          {}, {products}\n", best.name());
        assert!(ran.stdout.contains(&line), "{line:?} in {}", ran.stdout);
    }
}

#[test]
fn quiet_is_silent() {
    let scratch = labelled_shards();
    let ran = pretrain(&scratch, "supervised_1p", "model", "").ok();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    // Such a short training gives most images one label: a warning, no error.
    let ran = pseudolabel(&scratch, "model", "").ok();
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.lines().all(|line| line.starts_with("warning: ")), "{}", ran.stderr);
}

#[test]
fn an_override_is_printed() {
    let scratch = labelled_shards();
    let line = crate::common::training::pretrain_words("supervised_1p", "model", "--dry-run");
    let ran = scratch.run(crate::common::training::PRETRAIN, &words(&line.replace(" -q", ""))).ok();
    assert!(ran.stderr.contains("units = [1] (recipe has [1, 1])"), "{}", ran.stderr);
}

#[test]
fn a_finished_model_is_left_alone_unless_forced() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    let (before, names) = (contents(&scratch.path("model")), scratch.names());
    let provenance = std::fs::read(scratch.path("model.prov.json")).unwrap();
    let unchanged = || {
        assert_eq!(contents(&scratch.path("model")), before);
        assert_eq!(scratch.names(), names);
        assert_eq!(std::fs::read(scratch.path("model.prov.json")).unwrap(), provenance);
    };
    for same in ["", "-s checkpoint_every=9"] {
        pretrain(&scratch, "supervised_1p", "model", same).ok();
        unchanged();
    }
    for other in ["-s learning_rate=0.01", "--seed 1", "--method vat -s weight_vat=0.5"] {
        pretrain(&scratch, "supervised_1p", "model", other)
            .fails(73, &["model/model.safetensors", "output exists", "--force"]);
        unchanged();
    }
    // A longer run does not start again.
    let longer = "-s schedule=[1,3,4,8]";
    let words = ["output exists and was trained by another schedule", "--init model", "--force"];
    pretrain(&scratch, "supervised_1p", "model", longer).fails(73, &words);
    unchanged();
    pretrain(&scratch, "supervised_1p", "model", "-s learning_rate=0.01 --force").ok();
    let files = differing(&model(&scratch, "model"), &before);
    assert!(files.contains(&"model.safetensors".to_string()), "{files:?}");
    pretrain(&scratch, "supervised_1p", "model", "--force").ok();
    assert_eq!(contents(&scratch.path("model")), before);
}

#[test]
fn the_weights_name_what_they_were_made_from() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    let found = s4l::model::folder::header(&scratch.path("model")).unwrap().unwrap();
    for (key, file) in [("labels", "labelled.parquet"), ("validation", "val.parquet")] {
        let hash = s4l::artifact::hash_file(&scratch.path(file)).unwrap();
        assert_eq!(found[&format!("s4l.input.{key}")], hash);
    }
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    assert_eq!(found["s4l.input.shards"], split.content_hash());
    assert_eq!((&found["s4l.tool"][..], &found["s4l.seed"][..]), ("s4l-pretrain", "0"));
}
