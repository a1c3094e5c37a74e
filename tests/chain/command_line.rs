//! The common options of all stages, their help, and that a stage refuses options which it would not obey.
//! `docs/COMMANDS.md` is written here:
//!
//!     UPDATE=1 cargo test --release --test chain command_line

use crate::common::{Scratch, commands};
use std::collections::BTreeMap;

/// Each of `options` is a usage error, and nothing is done.
#[track_caller]
fn refuses(program: &str, line: &[&str], options: &[&[&str]]) {
    let scratch = Scratch::new();
    for option in options {
        let ran = scratch.run(program, &[line, option].concat());
        assert_eq!(ran.code, 2, "{option:?}: {}", ran.stderr);
        let words = format!("unexpected argument '{}'", option[0]);
        assert!(ran.stderr.contains(&words), "{option:?}: {}", ran.stderr);
        assert!(scratch.names().is_empty());
    }
}

const SEED: &[&str] = &["--seed", "1"];
const DEVICE: &[&str] = &["--device", "cpu"];
const THREADS: &[&str] = &["--threads", "1"];
const MAX_SECONDS: &[&str] = &["--max-seconds", "9"];
const RECIPE: &[&str] = &["--recipe", "r.toml"];
const SET: &[&str] = &["--set", "key=value"];
const SHORT_SET: &[&str] = &["-s", "key=value"];

#[test]
fn what_draws_nothing_takes_no_seed_and_no_device() {
    refuses(env!("CARGO_BIN_EXE_s4l-shard"), &["--in", "photos"], &[SEED, DEVICE]);
}

#[test]
fn what_has_no_settings_takes_no_recipe() {
    let line = ["--per-class", "1"];
    refuses(env!("CARGO_BIN_EXE_s4l-subset"), &line, &[RECIPE, SET, SHORT_SET, DEVICE]);
}

#[test]
fn what_does_not_compute_takes_options_of_its_result_and_words_only() {
    let all = [SEED, DEVICE, THREADS, MAX_SECONDS, RECIPE, SET, SHORT_SET];
    refuses(env!("CARGO_BIN_EXE_s4l-report"), &["--in", "runs"], &all);
    refuses(env!("CARGO_BIN_EXE_s4l-export"), &["--to", "timm"], &all);
    // The sheet of s4l-inspect is not random.
    refuses(env!("CARGO_BIN_EXE_s4l-inspect"), &["model"], &all[1..]);
}

#[test]
fn what_runs_a_trained_network_takes_no_options_of_training() {
    let options: [&[&str]; 3] =
        [&["--precision", "bf16"], &["--init", "model"], &["--method", "vat"]];
    refuses(env!("CARGO_BIN_EXE_s4l-eval"), &[], &options);
    refuses(env!("CARGO_BIN_EXE_s4l-pseudolabel"), &[], &options);
}

#[test]
fn what_trains_takes_no_model_and_no_split() {
    let options: [&[&str]; 2] = [&["--model", "model"], &["--split", "train"]];
    refuses(env!("CARGO_BIN_EXE_s4l-pretrain"), &["--labelled", "l"], &options);
    refuses(env!("CARGO_BIN_EXE_s4l-moam"), &["--step", "finetune"], &options);
}

#[test]
fn verifying_and_merging_exclude_what_they_would_not_obey() {
    let scratch = Scratch::new();
    let inspect = env!("CARGO_BIN_EXE_s4l-inspect");
    let shard = env!("CARGO_BIN_EXE_s4l-shard");
    let label = env!("CARGO_BIN_EXE_s4l-pseudolabel");
    let eval = env!("CARGO_BIN_EXE_s4l-eval");
    for (program, line) in [
        (inspect, &["model", "--verify", "--out", "o"][..]),
        (shard, &["--merge", "--dry-run"]),
        (shard, &["--merge", "--resize-small", "256"]),
        (shard, &["--merge", "--set", "file_bytes=1"]),
        (label, &["--merge", "--part", "1/2"]),
        (label, &["--merge", "--in", "shards"]),
        (label, &["--merge", "--labelled", "l"]),
        (label, &["--merge", "--set", "views=a"]),
        (label, &["--merge", "--seed", "1"]),
        (eval, &["--merge", "--part", "1/2"]),
        (eval, &["--merge", "--split", "test"]),
        (eval, &["--merge", "--set", "augment_eval=a"]),
    ] {
        let ran = scratch.run(program, line);
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("cannot be used with"), "{}", ran.stderr);
    }
}

#[test]
fn options_of_several_stages_are_worded_alike() {
    // For these options each stage has its own text.
    let own = ["labelled", "labels", "model", "split", "in", "format"];
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for command in commands() {
        let options = command.get_arguments().filter(|a| !a.is_positional());
        for option in options.filter(|a| !own.contains(&a.get_long().unwrap_or_default())) {
            let long = option.get_long().unwrap().to_string();
            let words = format!("{:?} {}", option.get_short(), option.get_help().unwrap());
            let before = known.entry(long).or_insert_with(|| words.clone());
            assert_eq!(*before, words, "{}", command.get_name());
        }
    }
}

#[test]
fn every_help_begins_with_examples_and_every_stage_has_its_result_and_words() {
    for mut command in commands() {
        let name = command.get_name().to_string();
        let help = command.render_long_help().to_string();
        assert!(help.starts_with(&format!("EXAMPLES\n  {name} ")), "{help}");
        let options =
            ["--out", "--force", "--update", "--dry-run", "--quiet", "--log-format", "--version"];
        // A pipeline is people's own once it is written, and named as an argument.
        let left_out = if name == "s4l-init" { &["--out", "--update"][..] } else { &[] };
        for option in options.into_iter().filter(|option| !left_out.contains(option)) {
            assert!(help.contains(option), "{name}: {option}");
        }
    }
}

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/COMMANDS.md");

#[test]
fn docs_commands_md_has_every_help_text() {
    let mut text = String::from(
        "# The help of every program\n\n`tests/chain/command_line.rs` wrote this file:\n\n```\n\
         UPDATE=1 cargo test --release --test chain command_line\n```\n",
    );
    for command in commands() {
        let name = command.get_name();
        let ran = Scratch::new().run(&program(name), &["--help"]).ok();
        text += &format!("\n## {name}\n\n```\n{}```\n", ran.stdout);
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(DOCS, &text).unwrap();
    }
    assert!(std::fs::read_to_string(DOCS).unwrap() == text, "{DOCS} is not of this program");
}

#[test]
fn shells_complete_every_option() {
    for command in commands() {
        let name = command.get_name();
        for shell in ["bash", "zsh", "fish"] {
            let ran = Scratch::new().run(&program(name), &["--completions", shell]).ok();
            assert!(ran.stderr.is_empty(), "{}", ran.stderr);
            for option in command.get_arguments().filter_map(|arg| arg.get_long()) {
                assert!(ran.stdout.contains(option), "{name} {shell}: {option}");
            }
        }
        let line = ["--completions", "bash", "--quiet"];
        assert_eq!(Scratch::new().run(&program(name), &line).code, 2);
    }
}

#[test]
fn make_installs_programs_and_completions() {
    let scratch = Scratch::new();
    let programs = program("").trim_end_matches('/').to_string();
    let ran = std::process::Command::new("make")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "install", &format!("BIN={programs}")])
        .arg(format!("PREFIX={}", scratch.path("usr").display()))
        .env_remove("MAKEFLAGS")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for command in commands() {
        let name = command.get_name();
        let installed = scratch.path(&format!("usr/bin/{name}"));
        let help = scratch.run(installed.to_str().unwrap(), &["--help"]).ok().stdout;
        assert_eq!(help, scratch.run(&program(name), &["--help"]).ok().stdout);
        for file in ["bash-completion/completions/", "zsh/site-functions/_"] {
            let script = scratch.path(&format!("usr/share/{file}{name}"));
            assert!(std::fs::read_to_string(script).unwrap().contains(name));
        }
        assert!(scratch.path(&format!("usr/share/fish/vendor_completions.d/{name}.fish")).exists());
    }
}

#[test]
fn a_typing_error_names_what_was_meant() {
    let ran = Scratch::new().run(env!("CARGO_BIN_EXE_s4l-subset"), &["--per-clas", "3"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("'--per-class'"), "{}", ran.stderr);
}

/// The path of a program.
fn program(name: &str) -> String {
    let one = std::path::Path::new(env!("CARGO_BIN_EXE_s4l-shard"));
    one.with_file_name(name).to_str().unwrap().to_string()
}
