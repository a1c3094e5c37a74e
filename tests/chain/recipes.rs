//! The ImageNet recipes: each value is that of `tests/golden/recipes.toml` or says that it was chosen, and
//! `docs/RECIPES.md` shows both side by side. To write that file again:
//!
//!     UPDATE=1 cargo test --release --test chain recipes

use crate::common::{Scratch, rows};
use toml::{Table, Value};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const HEAD: &str = "\
# The ImageNet recipes beside their sources

Each value of `pipelines/imagenet/*.toml`, beside what is known of the published run, then what the
program makes of the recipe. `tests/chain/recipes.rs` compares the two sides and wrote this file:

```
UPDATE=1 cargo test --release --test chain recipes
```

| source | meaning |
|---|---|
| config | a flag in `config/*.sh` of google-research/s4l, commit 8f1cf05 |
| code | its code, or the default of a flag |
| data | counted in its two label lists |
| recall | the paper (arXiv 1905.03670) as remembered, not checked against its text |
| chosen | not published; set here |
";

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

/// The published settings of a row: key → value, source, and why the recipe differs.
fn references(row: &str) -> Table {
    let mut all: Table = read("tests/golden/recipes.toml").parse().unwrap();
    let mut known = all["all"].as_table().unwrap().clone();
    known.extend(all.remove(row).unwrap().as_table().unwrap().clone());
    known
}

/// One line of a recipe: key, value, source, and the rest of the comment.
struct Setting {
    key: String,
    value: Value,
    source: String,
    note: String,
}

fn settings(row: &str) -> Vec<Setting> {
    let text = read(&format!("pipelines/imagenet/{row}.toml"));
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (key, rest) = line.split_once(" = ").unwrap();
            let tagged = rest.split_once("# [").and_then(|(_, c)| c.split_once(']'));
            let (source, note) = tagged.unwrap_or_else(|| panic!("{row}: no source: {line}"));
            Setting {
                key: key.to_string(),
                value: line.parse::<Table>().unwrap()[key].clone(),
                source: source.to_string(),
                note: note.trim().to_string(),
            }
        })
        .collect()
}

/// Numbers compare as numbers: 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    let number = |v: &Value| v.as_float().or(v.as_integer().map(|i| i as f64));
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ if number(a).is_some() => number(a) == number(b),
        _ => a == b,
    }
}

#[test]
fn each_value_is_that_of_its_source_or_says_that_it_was_chosen() {
    for row in rows("imagenet") {
        let mut known = references(&row);
        known.remove("plan");
        for Setting { key, value, source, .. } in settings(&row) {
            let Some(reference) = known.remove(&key) else {
                assert_eq!(source, "chosen", "{row}: {key} has no reference");
                continue;
            };
            let reference = reference.as_array().unwrap();
            assert_eq!(reference[1].as_str(), Some(&source[..]), "{row}: {key}");
            let differs = reference.get(2).is_some();
            assert_eq!(same(&value, &reference[0]), !differs, "{row}: {key} = {value}");
        }
        assert!(known.is_empty(), "{row} does not set {known:?}");
    }
}

/// The output of `--dry-run` without what depends on the machine.
fn dry_run(scratch: &Scratch, row: &str) -> String {
    let recipe = format!("{ROOT}/pipelines/imagenet/{row}.toml");
    let (binary, step): (_, &[&str]) = match row {
        "moam_step2" => (env!("CARGO_BIN_EXE_s4l-moam"), &["--step", "retrain"]),
        "moam_step3" => (env!("CARGO_BIN_EXE_s4l-moam"), &["--step", "finetune"]),
        _ => (env!("CARGO_BIN_EXE_s4l-pretrain"), &[]),
    };
    let ran = scratch.run(binary, &[step, &["--recipe", &recipe, "--dry-run"]].concat());
    let text = ran.ok().stdout;
    let of_machine = |line: &str| line.starts_with("memory ") || line.starts_with("instructions ");
    let lines = text.lines().filter(|line| !of_machine(line));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_plan_for_a_gpu_tells_its_memory_and_the_host_s() {
    let scratch = Scratch::new();
    let recipe = format!("{ROOT}/pipelines/imagenet/supervised_10p.toml");
    let megabytes = |name: &str, device: &str, precision: &str| -> Option<usize> {
        let more = ["--recipe", &recipe, "--dry-run", "--device", device, "--precision", precision];
        let text = scratch.run(env!("CARGO_BIN_EXE_s4l-pretrain"), &more).ok().stdout;
        let line = text.lines().find(|line| line.split("  ").next() == Some(name));
        line.map(|line| {
            line[22..].strip_prefix("about ").unwrap().replace(" MB", "").parse().unwrap()
        })
    };
    // 256 images whose convolutions have 9.8 million outputs each; the weights and all else are a third of that.
    let outputs = (256 * 9_800_000 * 2) >> 20;
    let [bf16, f32] = ["bf16", "f32"].map(|p| megabytes("memory of the GPU", "cuda", p).unwrap());
    assert!((outputs..outputs * 3 / 2).contains(&bf16), "{bf16} {outputs}");
    assert!((bf16 * 3 / 2..bf16 * 2).contains(&f32), "{f32} {bf16}");
    let [on_gpu, on_cpu] = ["cuda:1", "cpu"].map(|d| megabytes("memory", d, "f32").unwrap());
    assert!(on_gpu < on_cpu / 4, "{on_gpu} {on_cpu}");
    assert_eq!(megabytes("memory of the GPU", "cpu", "f32"), None);
}

#[test]
fn each_plan_is_that_of_the_published_run() {
    let scratch = Scratch::new();
    for row in rows("imagenet") {
        let text = dry_run(&scratch, &row);
        let words = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            let line = line.unwrap_or_else(|| panic!("{row}: no {name} in {text}"));
            let numbers = line.split([' ', '(', ')']).filter_map(|w| w.parse::<f64>().ok());
            numbers.collect::<Vec<_>>()
        };
        let plan = references(&row).remove("plan").unwrap();
        let known = |key: &str| {
            let value = &plan[key];
            value.as_float().unwrap_or_else(|| value.as_integer().unwrap() as f64)
        };
        assert_eq!(words("steps"), [known("steps"), known("epoch")], "{row}");
        assert_eq!(words("images a step")[0], known("images"), "{row}");
        assert_eq!(words("learning rate")[0], known("learning_rate"), "{row}");
        assert_eq!(words("parameters"), [known("parameters")], "{row}");
        assert_eq!(words("images seen"), [known("steps") * known("images")], "{row}");
    }
    assert!(scratch.names().is_empty(), "a dry run wrote something");
}

/// A value in a cell of a Markdown table.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(i) => i.to_string(),
        other => other.to_string(),
    };
    format!("`{}`", text.replace('|', "\\|"))
}

fn section(scratch: &Scratch, row: &str) -> String {
    let known = references(row);
    let recipe = read(&format!("pipelines/imagenet/{row}.toml"));
    let title = recipe.lines().next().unwrap().trim_start_matches("# ");
    let mut text = format!(
        "\n## {row}\n\n{title}\n\n| setting | recipe | source has | source | |\n|---|---|---|---|---|\n"
    );
    for s in settings(row) {
        let reference = known.get(&s.key).map(|r| r.as_array().unwrap());
        text += &format!(
            "| {} | {} | {} | {} | {} |\n",
            s.key,
            cell(&s.value),
            reference.map_or(String::new(), |r| cell(&r[0])),
            s.source,
            s.note
        );
    }
    text + &format!("\n```\n{}```\n", dry_run(scratch, row))
}

#[test]
fn docs_recipes_md_is_up_to_date() {
    let scratch = Scratch::new();
    let sections: String = rows("imagenet").iter().map(|row| section(&scratch, row)).collect();
    let text = format!("{HEAD}{sections}");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(format!("{ROOT}/docs/RECIPES.md"), &text).unwrap();
    }
    assert!(
        text == read("docs/RECIPES.md"),
        "docs/RECIPES.md is not what the recipes say: UPDATE=1 cargo test --release --test chain recipes"
    );
}
