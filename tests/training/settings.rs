//! The keys of recipes: how they are found, which values they take, and the errors for unknown keys.
//! `docs/SETTINGS.md` is written here:
//!
//!     UPDATE=1 cargo test --release --test training settings

use crate::common::Scratch;
use crate::common::training::{MOAM, PRETRAIN, labelled_shards, pretrain, recipe, words};
use s4l::augment;
use s4l::recipe::Recipe;
use s4l::settings::{Range, SETTINGS, Settings};
use toml::{Table, Value};

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SETTINGS.md");

const HEAD: &str = "\
# Every key of a training recipe

What a recipe of `s4l-pretrain` and `s4l-moam` does not name keeps its default; `-s key=value` goes before the
recipe. `s4l-pretrain --settings` prints this table as a recipe. Epochs are epochs of the labelled images.
`tests/training/settings.rs` wrote this file from `lib/settings.rs`, whose ranges are those that are enforced:

```
UPDATE=1 cargo test --release --test training settings
```

| key | type | default | range | meaning |
|---|---|---|---|---|
";

fn defaults() -> Table {
    Settings::default().table().unwrap()
}

#[test]
fn docs_settings_md_is_the_table_of_the_program() {
    let cell = |text: &str| text.replace('|', "\\|");
    let defaults = defaults();
    let rows: String = SETTINGS
        .iter()
        .map(|setting| {
            let value = &defaults[setting.key];
            let (kind, range) = (setting.kind(value), setting.range());
            let (value, meaning) = (value.to_string(), setting.meaning);
            let [value, range, meaning] = [&value[..], &range[..], meaning].map(cell);
            format!("| `{}` | {kind} | `{value}` | {range} | {meaning} |\n", setting.key)
        })
        .collect();
    let steps = augment::STEPS;
    let text = format!("{HEAD}{rows}\nSteps of images, for the `augment_` keys: `{steps}`.\n");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(DOCS, &text).unwrap();
    }
    let found = std::fs::read_to_string(DOCS).unwrap_or_default();
    assert!(found == text, "{DOCS}: UPDATE=1 cargo test --release --test training settings");
}

/// The output is a recipe of the defaults, with every key once.
#[test]
fn the_keys_are_printed_as_a_recipe() {
    let scratch = Scratch::new();
    for program in [PRETRAIN, MOAM] {
        let ran = scratch.run(program, &["--settings"]).ok();
        assert_eq!(ran.stdout.parse::<Table>().unwrap(), defaults());
        let file = Some(scratch.write("all.toml", &ran.stdout));
        let read: Settings = Recipe { file, set: Vec::new() }.load().unwrap();
        assert_eq!(read, Settings::default());
        for line in [
            "# Labelled images per step. (integer, 1 or more)\nbatch = 256\n",
            "(name, one of imagenet, small, small_stride2)\nstem = \"imagenet\"\n",
            "(number, a number above 0, up to 1)\ndecay_factor = 0.1\n",
            "# Steps of images: inception_crop, ",
        ] {
            assert!(ran.stdout.contains(line), "{line:?} in {}", ran.stdout);
        }
        assert_eq!(scratch.run(program, &["--settings", "-q"]).code, 2);
    }
    assert_eq!(scratch.names(), ["all.toml"]);
}

/// Each printed range is enforced, for every source of the key.
#[test]
fn a_value_out_of_its_range_is_refused_and_where_it_stands_is_said() {
    let scratch = labelled_shards();
    let defaults = defaults();
    for setting in SETTINGS {
        let key = setting.key;
        let value = match (&setting.range, &defaults[key]) {
            (Range::Numbers(..), Value::Array(_)) => "[-1, 0]",
            (Range::Numbers(..), Value::Float(_)) => "-1.0",
            (Range::Numbers(..), _) => "-1",
            (Range::Names(_), _) => "\"unheard_of\"",
            (Range::Pipe, _) => "\"sharpen\"",
            (Range::Either, _) => "\"maybe\"",
        };
        let written = match &setting.range {
            Range::Pipe => "sharpen".to_string(),
            _ => key.to_string(),
        };
        let more = format!("-s {key}={}", value.replace(' ', ""));
        let before = scratch.names();
        let ran = pretrain(&scratch, "vat_entmin", "model", &more);
        ran.fails(78, &[&written[..]]);
        if matches!(setting.range, Range::Numbers(..)) {
            let given = ran.stderr.contains("invalid value: integer `-1`");
            assert!(
                given || ran.stderr.contains(&format!("give {}", setting.range())),
                "{}",
                ran.stderr
            );
        }
        if !matches!(setting.range, Range::Pipe) {
            let start = format!("error: s4l-pretrain: --set: {key} ");
            assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
            scratch.write("mine.toml", format!("{key} = {value}\n"));
            let line = "--in shards --labelled labelled.parquet --recipe mine.toml -q --out model";
            let ran = scratch.run(PRETRAIN, &words(line));
            ran.fails(78, &[&format!("mine.toml: {key} ")]);
            std::fs::remove_file(scratch.path("mine.toml")).unwrap();
        }
        assert_eq!(scratch.names(), before);
    }
}

#[test]
fn an_unknown_key_is_placed_and_the_one_that_was_meant_is_named() {
    let scratch = labelled_shards();
    for (key, meant) in [
        ("learning_rte", "did you mean learning_rate?"),
        ("weight-decay", "did you mean weight_decay?"),
        ("batches", "did you mean batch?"),
        ("unlabeled_batch", "did you mean unlabelled_batch?"),
        ("vat_epsilon", "did you mean vat_eps?"),
        ("lr", "here that is learning_rate"),
        ("LR", "here that is learning_rate"),
        ("epochs", "here that is schedule, whose last number"),
        ("batch_size", "here that is batch"),
        ("batch-size", "here that is batch"),
        ("wd", "here that is weight_decay"),
        ("seed", "here that is the option --seed"),
        ("qqq", "remove it; --settings lists all keys"),
    ] {
        let found = format!("unknown key {key}; {meant}");
        let more = format!("-s {key}=3");
        let ran = pretrain(&scratch, "supervised_1p", "model", &more);
        ran.fails(78, &[&format!("error: s4l-pretrain: --set: {found}")]);
        let mine = format!("learning_rate = 0.1\n{key} = 3\n");
        scratch.write("mine.toml", mine);
        let line = "--in shards --labelled labelled.parquet --recipe mine.toml -q -s batch=4";
        let ran = scratch.run(PRETRAIN, &words(line));
        ran.fails(78, &[&format!("error: s4l-pretrain: mine.toml: {found}")]);
    }
    // Settings of other stages.
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    let eval = env!("CARGO_BIN_EXE_s4l-eval");
    let ran = scratch.run(eval, &words("--in shards -q -s augment_evl=resize(28)"));
    ran.fails(78, &["--set: unknown key augment_evl; did you mean augment_eval? --help lists all"]);
}

/// Other programs' names for a setting lead to an existing setting.
#[test]
fn every_other_name_points_somewhere() {
    use s4l::recipe::Keys;
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
    for (name, here) in Settings::ELSEWHERE {
        assert!(!known.contains(name), "{name}");
        let mut words = here.split([' ', ',']);
        let points = words.any(|word| known.contains(&word) || word.starts_with("--"));
        assert!(points || *name == "num_classes", "{name}: {here}");
    }
}

#[test]
fn a_recipe_and_what_is_set_together() {
    let scratch = labelled_shards();
    let small = recipe("vat");
    let ran = pretrain(&scratch, "vat", "model", "-s method=supervised");
    ran.fails(78, &[&format!("{small} with --set: weight_vat has no effect")]);
}
