//! Bad input of the training stages: one line that says what, where and what to do, the exit code of the
//! contract, and nothing written.

use crate::common::Scratch;
use crate::common::training::{
    EVAL, MOAM, PRETRAIN, PSEUDOLABEL, labelled_shards, moam, pretrain, pseudolabel, read_labels,
    recipe, words, write_labels,
};
use arrow::array::BooleanArray;
use s4l::lineage::Lineage;
use s4l::network::cuda::libraries;
use s4l::tables::table;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Checks that a command fails and changes nothing.
#[track_caller]
fn refuses(scratch: &Scratch, program: &str, line: &str, code: i32, message: &[&str]) {
    let before = scratch.names();
    scratch.run(program, &[words(line), vec!["-q"]].concat()).fails(code, message);
    assert_eq!(scratch.names(), before);
}

/// As `refuses`, for `s4l-pretrain` with the recipe of a row and `more` options.
#[track_caller]
fn refuses_to_train(scratch: &Scratch, row: &str, more: &str, code: i32, message: &[&str]) {
    let before = scratch.names();
    pretrain(scratch, row, "model", more).fails(code, message);
    assert_eq!(scratch.names(), before);
}

#[test]
fn absent_files() {
    let scratch = labelled_shards();
    let line = |input: &str, labelled: &str, val: &str, recipe: &str| {
        format!("--in {input} --labelled {labelled} --val {val} --recipe {recipe} --out model")
    };
    let (l, v, r) = ("labelled.parquet", "val.parquet", recipe("supervised_1p"));
    for (line, what) in [
        (line("absent", l, v, &r), ["absent/dataset.json", "s4l-shard"]),
        (line("shards", "absent.parquet", v, &r), ["absent.parquet", "s4l-subset"]),
        (line("shards", l, "absent.parquet", &r), ["absent.parquet", "s4l-subset"]),
        (line("shards", l, v, "absent.toml"), ["absent.toml", "name a TOML file"]),
        (line("shards", l, v, &r) + " --init absent", ["absent/model.safetensors", "s4l-pretrain"]),
    ] {
        refuses(&scratch, PRETRAIN, &line, 66, &[what[0], "not found", what[1]]);
    }
    let line =
        format!("--step finetune --in shards --labelled {l} --init absent --out m --recipe {r}");
    refuses(&scratch, MOAM, &line, 66, &["absent/model.safetensors", "not found"]);
    for program in [EVAL, PSEUDOLABEL] {
        let line = "--in shards --model absent --out out.parquet";
        refuses(&scratch, program, line, 66, &["absent/model.safetensors", "not found"]);
    }
}

#[test]
fn a_split_that_is_not_there() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    for program in [EVAL, PSEUDOLABEL] {
        let line = "--in shards --split dev --model model --out out.parquet";
        refuses(&scratch, program, line, 66, &["shards", "\"dev\"", "test, train"]);
    }
}

#[test]
fn a_command_line_that_cannot_be_meant() {
    let scratch = labelled_shards();
    let small = format!("--recipe {} --in shards", recipe("moam_step2"));
    for (step, message) in [
        ("retrain --labels labels.parquet --out m", "--init MODEL"),
        ("finetune --labelled labelled.parquet --out m", "--init MODEL"),
        ("retrain --init model --out m", "--labels labels.parquet"),
        ("finetune --init model --out m", "--labelled labelled.parquet"),
        ("finetune --init model --labelled labelled.parquet", "--out MODEL"),
    ] {
        refuses(&scratch, MOAM, &format!("--step {step} {small}"), 2, &[message]);
    }
    // clap's own message has several lines.
    let ran = scratch.run(PRETRAIN, &words("--in shards --out model"));
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("--labelled"), "{}", ran.stderr);
    let ran = scratch.run(MOAM, &words("--step dance --out m"));
    assert_eq!(ran.code, 2);
    for device in ["tpu", "cuda:x"] {
        let more = format!("--device {device}");
        let words = ["--device", "cpu, cuda, cuda:N or auto"];
        refuses_to_train(&scratch, "supervised_1p", &more, 2, &words);
    }
    if libraries::gpus() == 0 {
        let words = ["--device cuda:3: ", "libcuda.so.1", "LD_LIBRARY_PATH", "--device cpu"];
        refuses_to_train(&scratch, "supervised_1p", "--device cuda:3", 2, &words);
    }
    refuses_to_train(&scratch, "supervised_1p", "-s batch", 2, &["--set batch", "key=value"]);
}

#[test]
fn labels_that_do_not_fit_the_shards() {
    let scratch = labelled_shards();
    let good = read_labels(&scratch, "labelled.parquet");
    let (a, b) = (good[0].0.as_str(), good[1].0.as_str());
    let again = "again from these shards";
    for (rows, message) in [
        (vec![(a, 0), ("nowhere", 1)], vec!["unknown key \"nowhere\"", again]),
        (vec![(a, 0), (b, 10)], vec!["labels 0 to 9", "label 10", again]),
        (vec![(a, -1)], vec!["labels 0 to 9", "label -1", again]),
        (vec![(a, 0), (b, 1), (a, 0)], vec!["each key once", "twice", "remove"]),
        (vec![], vec!["labelled images", "no rows", "label some"]),
    ] {
        write_labels(&scratch, "labelled.parquet", &rows);
        let message = [vec!["labelled.parquet"], message].concat();
        refuses_to_train(&scratch, "supervised_1p", "", 65, &message);
    }
    let held_out = &read_labels(&scratch, "val.parquet")[0].0;
    write_labels(&scratch, "labelled.parquet", &[(a, 0), (held_out, 1)]);
    refuses_to_train(
        &scratch,
        "supervised_1p",
        "",
        65,
        &["labelled.parquet", "not in the validation set", held_out, "s4l-subset"],
    );
}

#[test]
fn files_of_another_kind() {
    let scratch = labelled_shards();
    scratch.write("labelled.parquet", "not parquet");
    refuses_to_train(&scratch, "supervised_1p", "", 65, &["labelled.parquet", "s4l-subset"]);
    let scratch = labelled_shards();
    // Labels without confidence, although pseudo labels are needed.
    let more = "--labels labelled.parquet";
    refuses_to_train(&scratch, "supervised_1p", more, 65, &["labelled.parquet", "\"confidence\""]);
    scratch.write("shards/dataset.json", "{}");
    refuses_to_train(&scratch, "supervised_1p", "", 65, &["shards/dataset.json", "s4l-shard"]);
}

#[test]
fn pseudo_labels_none_of_which_is_confident_enough() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "one", "").ok();
    pseudolabel(&scratch, "one", "").ok();
    // Known labels are always used, but here there are none.
    let path = scratch.path("labels.parquet");
    let table = table::read(&path, "s4l-pseudolabel").unwrap();
    let schema = table.batch.schema();
    let mut columns = table.batch.columns().to_vec();
    columns[schema.index_of("known").unwrap()] =
        Arc::new(BooleanArray::from(vec![false; table.batch.num_rows()]));
    let lineage = Lineage::new("s4l-pseudolabel", 0, String::new());
    table::write(&path, schema, columns, &lineage, BTreeMap::new()).unwrap();
    let more = "--labels labels.parquet -s min_confidence=1";
    refuses_to_train(
        &scratch,
        "supervised_1p",
        more,
        65,
        &["labels.parquet", "confidence of at least 1", "lower min_confidence"],
    );
}

#[test]
fn recipes_that_cannot_be_meant() {
    let scratch = labelled_shards();
    for (row, set, message) in [
        ("supervised_1p", "batch=many", "batch"),
        ("supervised_1p", "method=unheard_of", "unheard_of"),
        ("supervised_1p", "schedule=[]", "ascending epochs"),
        ("supervised_1p", "schedule=[5]", "ascending epochs"),
        ("supervised_1p", "schedule=[5,4]", "ascending epochs"),
        ("supervised_1p", "schedule=[-1,4]", "ascending epochs"),
        ("supervised_1p", "batch=0", "--set: batch is 0; give 1 or more"),
        ("supervised_1p", "units=[]", "units is []; give 1 or more"),
        ("supervised_1p", "width_factor=1000", "kernels of up to"),
        ("supervised_1p", "units=[1000000000000]", "1000000000000 units"),
        ("supervised_1p", "checkpoint_every=0", "checkpoint_every is 0"),
        ("supervised_1p", "weight_vat=0.3", "no effect"),
        ("supervised_1p", "label_column=labl", "give one of label, label_single"),
        (
            "supervised_1p",
            "min_confidence=1.1",
            "min_confidence is 1.1; give a probability from 0 to 1",
        ),
        ("supervised_1p", "min_confidence=-0.1", "from 0 to 1"),
        ("supervised_1p", "min_confidence=nan", "from 0 to 1"),
        ("supervised_1p", "learning_rate=0", "learning_rate is 0.0; give a number above 0"),
        ("supervised_1p", "learning_rate=inf", "learning_rate is inf"),
        ("supervised_1p", "momentum=1", "from 0 to below 1"),
        ("supervised_1p", "weight_decay=-1e-4", "weight_decay is -0.0001; give 0 or more"),
        ("supervised_1p", "decay_factor=0", "above 0, up to 1"),
        ("supervised_1p", "polyak_half_life=nan", "polyak_half_life is nan"),
        ("supervised_1p", "validate_every=0", "validate_every is 0.0"),
        ("supervised_1p", "weight_supervised=-1", "weight_supervised is -1.0"),
        ("supervised_1p", "schedule=[0,inf]", "ascending epochs from 0 to 1e9"),
        ("vat", "vat_eps=0", "vat_eps is 0.0; give a number above 0"),
        ("vat", "ramp=-1", "ramp is -1.0"),
        ("supervised_1p", "weight_rotation=0.3", "no effect"),
        ("supervised_1p", "upright_classes=true", "no effect"),
        ("supervised_1p", "weight_supervised=0", "weight_supervised is 0"),
        ("supervised_1p", "method=rotation", "weight_rotation is 0"),
        ("supervised_1p", "method=vat", "weight_vat and weight_entmin are 0"),
        ("supervised_1p", "method=rotation -s weight_rotation=1", "|rotate"),
        ("supervised_1p", "method=exemplar -s weight_exemplar=1", "crop_inception_patches"),
        ("supervised_1p", "augment_labelled=sharpen", "sharpen"),
        ("moam_step1", "unlabelled_batch=0", "unlabelled_batch is 0"),
        // If VAT also used labelled images, they would be enough.
        ("vat", "vat_labelled=false -s unlabelled_batch=0", "no images"),
        ("moam_step1", "augment_unlabelled=resize(28)|-1_to_1", "different size or views"),
        ("vat", "augment_unlabelled=resize(32)|-1_to_1", "views of 28x28 and of 32x32"),
        // There is no other image to tell its patches from.
        ("s4l_exemplar", "batch=1", "batch"),
        ("s4l_exemplar", "unlabelled_batch=1", "unlabelled_batch"),
    ] {
        let more = format!("-s {set}");
        refuses_to_train(&scratch, row, &more, 78, &[message]);
    }
    let method = "--method distill";
    refuses_to_train(&scratch, "supervised_1p", method, 2, &["s4l-moam --step distill"]);
    // The message names the file.
    scratch.write("mine.toml", "learning_rate = 0.1\nbatches = 3\n");
    let line = "--in shards --labelled labelled.parquet --recipe mine.toml --out model";
    refuses(&scratch, PRETRAIN, line, 78, &["mine.toml: unknown key batches; did you mean batch?"]);
    scratch.write("mine.toml", "learning_rate = = 0.1\n");
    refuses(&scratch, PRETRAIN, line, 78, &["mine.toml"]);
}

/// Labels with a key that is not in the shards.
#[test]
fn retraining_on_labels_of_other_shards() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "one", "").ok();
    write_labels(&scratch, "labels.parquet", &[("elsewhere", 3)]);
    let before = scratch.names();
    moam(&scratch, "retrain", "two", "--labels labels.parquet --init one")
        .fails(65, &["labels.parquet", "unknown key \"elsewhere\""]);
    assert_eq!(scratch.names(), before);
}
