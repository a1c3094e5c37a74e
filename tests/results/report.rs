//! `s4l-report` through its binary, on evaluations and metrics written by the library.

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array,
    StringArray,
};
use arrow::datatypes::{DataType, Field, Float64Type};
use s4l::artifact::hash_file;
use s4l::evaluate::metrics::{self, EvalSummary, Prediction};
use s4l::lineage::Lineage;
use s4l::model::config::Config;
use s4l::model::folder;
use s4l::network::layout::Layout;
use s4l::network::weights::Weights;
use s4l::settings::Settings;
use s4l::tables::table;
use s4l::{methods, recipe, schema};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

const CLASSES: [&str; 3] = ["cat", "dog", "owl"];

fn report(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_s4l-report")).current_dir(folder).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn write_eval(folder: &Path, seed: u64, right: usize, split: &str) {
    write_eval_of(folder, seed, right, split, "fedcba9876543210", "images");
}

/// An evaluation of 30 images, ten per class, of which the first `right` are classified correctly.
fn write_eval_of(folder: &Path, seed: u64, right: usize, split: &str, model: &str, shards: &str) {
    let labels: Vec<u32> = (0..30).map(|i| i % 3).collect();
    let logits: Vec<f32> = labels
        .iter()
        .enumerate()
        .flat_map(|(i, &label)| {
            let target = if i < right { label } else { (label + 1) % 3 };
            (0..3).map(move |c| if c == target { 2.0 } else { 0.0 })
        })
        .collect();
    let rows: Vec<Prediction> =
        logits.chunks(3).zip(&labels).map(|(l, &label)| Prediction::new(l, label)).collect();
    let classes = CLASSES.map(String::from);
    let summary = EvalSummary {
        row: folder.file_name().unwrap().to_string_lossy().into_owned(),
        method: "moam".into(),
        seed,
        split: split.into(),
        unrotated: metrics::summarize(&rows, &classes, &labels, seed),
        rotation_averaged: None,
    };
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..30).map(|i| i.to_string()))),
        Arc::new(Int64Array::from_iter_values(labels.iter().map(|&l| l.into()))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.class.into()))),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.top5)))),
        Arc::new(Float32Array::from_iter_values(rows.iter().map(|r| r.nll as f32))),
        Arc::new(FixedSizeListArray::new(item, 3, Arc::new(Float32Array::from(logits)), None)),
    ];
    let lineage = Lineage::new("s4l-eval", seed, "0123456789abcdef".into())
        .input("model", model)
        .input("shards", shards);
    let footer = BTreeMap::from([(
        schema::SUMMARY_KEY.to_string(),
        serde_json::to_string(&summary).unwrap(),
    )]);
    let path = folder.join("eval.parquet");
    table::write(&path, schema::eval(3), columns, &lineage, footer).unwrap();
}

fn write_metrics(folder: &Path, curves: &[(&str, i64, f64)]) {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(curves.iter().map(|c| c.1))),
        Arc::new(StringArray::from_iter_values(curves.iter().map(|c| c.0))),
        Arc::new(Float64Array::from_iter_values(curves.iter().map(|c| c.2))),
    ];
    let lineage = Lineage::new("s4l-pretrain", 0, String::new());
    let path = folder.join("model").join(schema::METRICS);
    table::write(&path, schema::metrics(), columns, &lineage, BTreeMap::new()).unwrap();
}

/// Two seeds of MOAM step 3, one of a supervised row, one of a row that is not in the paper.
fn some_runs() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    write_eval(&runs.join("seed0/moam_step3"), 0, 27, "test");
    write_eval(&runs.join("seed1/moam_step3"), 1, 24, "test");
    write_eval(&runs.join("seed0/supervised_10p"), 0, 21, "test");
    write_eval(&runs.join("seed0/a<b|c"), 0, 15, "test");
    let curves = [
        ("loss", 10, 2.5),
        ("loss/vat", 10, f64::NAN),
        ("loss", 20, 1.5),
        ("validation/top1", 20, 0.7),
    ];
    write_metrics(&runs.join("seed0/moam_step3"), &curves);
    folder
}

fn first_cells(markdown: &str) -> Vec<Vec<String>> {
    markdown
        .lines()
        .filter(|l| l.starts_with("| "))
        .map(|l| l.split(" | ").map(|c| c.trim_matches(['|', ' ']).to_string()).collect())
        .collect()
}

#[test]
fn the_table_has_the_papers_rows_in_order_and_means_over_seeds() {
    let folder = some_runs();
    let out = report(folder.path(), &["--in", "runs", "--out", "report"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let markdown = text(&out.stdout);
    assert_eq!(std::fs::read_to_string(folder.path().join("report/table.md")).unwrap(), markdown);
    let cells = first_cells(&markdown);
    let rows: Vec<&str> = cells.iter().map(|c| c[0].as_str()).collect();
    assert_eq!(rows[0], "Row");
    assert!(rows[1].starts_with("--"));
    assert_eq!(rows[2..], ["Supervised (10% labels)", "MOAM step 3", "a&lt;b\\|c"]);
    assert!(cells[2][1].starts_with("70.0 ["), "{:?}", cells[2]);
    // Mean of 0.9 and 0.8, sample standard deviation 0.1 / sqrt(2).
    assert_eq!(cells[3][1], "85.0 \u{b1} 7.1");
    // Of seed 0, which both have: 0.9 against 0.7, six of 30 images.
    assert_eq!((&*cells[0][2], &*cells[2][2]), ("To supervised", ""));
    assert!(cells[3][2].starts_with("+20.0 [6.7, 3"), "{:?}", cells[3]);
    assert_eq!(cells[3][7..], ["91.23"]);
    assert_eq!(cells[4][7..], [""]);
}

/// Nothing says how many labels these rows have but their names.
#[test]
fn rows_of_other_labels_are_not_compared() {
    let folder = tempfile::tempdir().unwrap();
    for (row, right) in [("supervised_10p", 27), ("supervised_1p", 15), ("vat_1p", 18), ("vat", 24)]
    {
        write_eval(&folder.path().join("runs/seed0").join(row), 0, right, "test");
    }
    let out = report(folder.path(), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let cells = first_cells(&text(&out.stdout));
    let compared: Vec<_> = cells[2..].iter().map(|c| c[2].split(' ').next().unwrap()).collect();
    assert_eq!(compared, ["", "-10.0", "", "+10.0"]);
}

/// Two seeds. With one, the row is right on three images on which the supervised row is wrong; with the
/// other, both are equal.
#[test]
fn differences_are_over_seeds_and_images_and_budgets_over_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let points = [("loss", 10, 2.5), ("loss", 20, 1.5)];
    for (seed, right) in [(0, 24), (1, 21)] {
        let at = runs.join(format!("seed{seed}"));
        let model = write_model(&at.join("supervised"), seed, 0.1);
        write_eval_of(&at.join("supervised"), seed, 21, "test", &model, "images");
        write_metrics(&at.join("supervised"), &points);
        let own = write_model_of(&at.join("vat"), seed, 0.2, "init", &model);
        write_eval_of(&at.join("vat"), seed, right, "test", &own, "images");
        write_metrics(&at.join("vat"), &points[..1]);
    }
    let out = report(folder.path(), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let table = table::read(&folder.path().join("report/table.parquet"), "").unwrap();
    // The supervised row has no difference.
    let of = |name: &str| {
        let column = table.batch.column_by_name(name).unwrap();
        column.slice(1, 1).as_primitive::<Float64Type>().value(0)
    };
    assert!((of("top1_to_supervised_points") - 5.0).abs() < 1e-9);
    // A quarter of the resamples has only the second seed.
    assert_eq!(of("top1_to_supervised_low_points"), 0.0);
    // Resamples with only the first seed have 10 points plus or minus 11.
    assert!((10.0..21.0).contains(&of("top1_to_supervised_high_points")));
    let batch = Settings::default().batch as f64;
    assert_eq!(table.doubles("labels_seen").unwrap(), [20.0 * batch, 30.0 * batch]);
    assert_eq!(table.doubles("images_seen").unwrap(), [20.0 * batch, 30.0 * batch]);
    let page = std::fs::read_to_string(folder.path().join("report/index.html")).unwrap();
    assert!(page.contains("To supervised") && page.contains("<td>+5.0<td class=range>0.0 to "));
}

#[test]
fn csv_and_parquet_have_the_same_columns() {
    let folder = some_runs();
    assert!(report(folder.path(), &[]).status.success());
    let csv = std::fs::read_to_string(folder.path().join("report/table.csv")).unwrap();
    let header: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let table = table::read(&folder.path().join("report/table.parquet"), "").unwrap();
    let schema = table.batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    assert_eq!(header, names);
    assert_eq!(table.ints("seeds").unwrap(), [1, 2, 1]);
    let top1 = table.doubles("top1_percent").unwrap();
    assert!((top1[1] - 85.0).abs() < 1e-9);
    // If all classes have the same size.
    let balanced = table.doubles("balanced_accuracy_percent").unwrap();
    assert!(balanced.iter().zip(&top1).all(|(a, b)| (a - b).abs() < 1e-9), "{balanced:?}");
    let line = csv.lines().nth(2).unwrap();
    assert!(line.starts_with("moam_step3,MOAM step 3,moam,test,30,2,85.0000,7.0711,,,"), "{line}");
}

#[test]
fn the_page_stands_alone_and_escapes_names() {
    let folder = some_runs();
    assert!(report(folder.path(), &[]).status.success());
    let page = std::fs::read_to_string(folder.path().join("report/index.html")).unwrap();
    for outside in ["http:", "https:", "<script ", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src 'none'; img-src data:;"));
    assert!(page.contains("a&lt;b|c") && !page.contains("a<b"));
    assert!(!page.contains("NaN") && !page.contains("inf"));
    assert!(page.contains("fedcba9876543210"), "lineage");
}

#[test]
fn the_same_runs_give_the_same_bytes_and_the_second_time_is_up_to_date() {
    let folder = some_runs();
    let files = ["table.md", "table.csv", "table.parquet", "index.html"];
    let first = report(folder.path(), &["--out", "one"]);
    assert!(report(folder.path(), &["--out", "two"]).status.success());
    for file in files {
        let read = |out: &str| std::fs::read(folder.path().join(out).join(file)).unwrap();
        assert_eq!(read("one"), read("two"), "{file}");
    }
    let again = report(folder.path(), &["--out", "one"]);
    assert!(again.status.success());
    assert!(text(&again.stderr).contains("up to date"));
    assert_eq!(again.stdout, first.stdout);
}

/// The part of a row on the page between two words.
fn between<'a>(page: &'a str, start: &str, end: &str) -> &'a str {
    let rest = page.split_once(start).unwrap_or_else(|| panic!("no {start:?}")).1;
    rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} after {start:?}")).0
}

/// Keeps some rows of an evaluation, with this summary.
fn write_first_rows(path: &Path, rows: usize, summary: &str) {
    let table = table::read(path, "").unwrap();
    let mut columns: Vec<ArrayRef> =
        table.batch.columns().iter().map(|column| column.slice(0, rows)).collect();
    let (logits, classes) = table.float_lists("logits").unwrap();
    columns[5] = table::fixed_lists(logits[..rows * classes].to_vec(), classes);
    let footer = BTreeMap::from([(schema::SUMMARY_KEY.to_string(), summary.to_string())]);
    let lineage = Lineage::new("s4l-eval", 0, String::new());
    table::write(path, schema::eval(classes), columns, &lineage, footer).unwrap();
}

/// In one of two evaluations, the last six of 30 images are predicted as the next class.
#[test]
fn the_page_shows_what_is_taken_for_what_and_how_sure_the_network_was() {
    let folder = tempfile::tempdir().unwrap();
    write_eval(&folder.path().join("runs/seed0/vat"), 0, 24, "test");
    write_eval(&folder.path().join("runs/seed1/vat"), 1, 30, "test");
    assert!(report(folder.path(), &[]).status.success());
    let page = std::fs::read_to_string(folder.path().join("report/index.html")).unwrap();
    // Both seeds together: 20 images per class, two of the first class wrong.
    let matrix = between(&page, "<table class=matrix>", "</table>");
    for words in ["class cat, predicted cat: 18 of 20", "class cat, predicted dog: 2 of 20"] {
        assert!(matrix.contains(words), "{words}: {matrix}");
    }
    assert!(!matrix.contains("class cat, predicted owl"));
    // Every confidence is e^2 / (e^2 + 2).
    let bars = between(&page, "Accuracy by confidence of VAT", "</svg>");
    assert!(bars.contains("<title>confidence 78.7%\naccuracy 90.0%\n60 images</title>"), "{bars}");
    assert_eq!(bars.matches("<title>").count(), 1);
    // A cell shows the value of each seed, and links to the commands.
    let cell = "<a href='#made-0' title='seed 0: 80.00, seed 1: 100.00'>90.0</a>";
    assert!(page.contains(cell));
    let made = between(&page, "<div id=made-0>", "</pre>");
    assert_eq!(
        made,
        "<pre>s4l-inspect --lineage seed0/vat/eval.parquet\n\
         s4l-inspect --lineage seed1/vat/eval.parquet\n"
    );
}

/// An evaluation by another version, with classes of different sizes: 2 cats, one of them right, and 1 dog.
#[test]
fn balanced_accuracy_is_that_of_the_classes() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/vat");
    write_eval(&run, 0, 30, "test");
    let path = run.join("eval.parquet");
    let table = table::read(&path, "").unwrap();
    let mut summary: serde_json::Value =
        serde_json::from_str(&table.metadata[schema::SUMMARY_KEY]).unwrap();
    let unrotated = summary["unrotated"].as_object_mut().unwrap();
    assert_eq!(unrotated.remove("balanced_accuracy").unwrap(), 1.0);
    for (key, value) in [("images", 3.into()), ("top1", (2.0 / 3.0).into())] {
        unrotated.insert(key.into(), value);
    }
    let classes = unrotated["per_class"].as_array_mut().unwrap();
    for (class, images, top1) in [(0, 2, Some(0.5)), (1, 1, Some(1.0)), (2, 0, None)] {
        classes[class]["images"] = images.into();
        classes[class]["top1"] = top1.into();
    }
    write_first_rows(&path, 3, &summary.to_string());
    let out = report(folder.path(), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let cells = first_cells(&text(&out.stdout));
    assert_eq!((&*cells[0][2], &*cells[2][2]), ("Balanced %", "75.0"));
    let table = table::read(&folder.path().join("report/table.parquet"), "").unwrap();
    assert_eq!(table.doubles("balanced_accuracy_percent").unwrap(), [75.0]);
    let page = std::fs::read_to_string(folder.path().join("report/index.html")).unwrap();
    assert!(page.contains("<th scope=col>Balanced %") && page.contains("'seed 0: 75.00'>75.0</a>"));
}

/// The rows of an evaluation must fit its summary.
#[test]
fn an_evaluation_with_other_rows_than_it_says_is_65() {
    let folder = some_runs();
    let path = folder.path().join("runs/seed0/moam_step3/eval.parquet");
    let table = table::read(&path, "").unwrap();
    write_first_rows(&path, 29, &table.metadata[schema::SUMMARY_KEY]);
    let out = report(folder.path(), &[]);
    assert_eq!(out.status.code(), Some(65));
    let message = text(&out.stderr);
    assert!(message.contains("eval.parquet: expected logits of 30 images"), "{message}");
}

/// The model of a run, by a recipe with this learning rate. Returns its hash.
fn write_model(run: &Path, seed: u64, learning_rate: f64) -> String {
    write_model_of(run, seed, learning_rate, "labels", "absent")
}

/// A model made from an input with this hash.
fn write_model_of(run: &Path, seed: u64, learning_rate: f64, input: &str, hash: &str) -> String {
    let settings =
        Settings { learning_rate, units: vec![1], width_factor: 1, ..Settings::default() };
    let config = Config {
        architecture: methods::architecture(&settings, 1, 3),
        height: 28,
        width: 28,
        classes: CLASSES.map(String::from).to_vec(),
        seed,
        settings,
    };
    let weights = Weights::zeros(&Layout::new(&config.architecture));
    let lineage =
        Lineage::new("s4l-pretrain", seed, recipe::hash(&config.settings)).input(input, hash);
    folder::write(&run.join("model"), &config, &weights, &lineage).unwrap();
    hash_file(&run.join("model/model.safetensors")).unwrap()
}

/// Three seeds of one row, with their models.
fn runs_with_models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..3 {
        let run = folder.path().join(format!("runs/seed{seed}/vat"));
        let model = write_model(&run, seed, 0.1);
        write_eval_of(&run, seed, 20, "test", &model, "images");
        std::fs::write(run.join("eval.parquet.prov.json"), r#"{"commit": "abc"}"#).unwrap();
    }
    folder
}

/// Labels of one image, by a model that had the labelled set with this hash.
fn write_pseudo_labels(path: &Path, labelled: &str) {
    let item = Arc::new(Field::new_list_field(DataType::Float32, false));
    let one = || -> ArrayRef { Arc::new(Int64Array::from(vec![0])) };
    let float = || -> ArrayRef { Arc::new(Float32Array::from(vec![1.0])) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["0"])),
        one(),
        Arc::new(BooleanArray::from(vec![false])),
        one(),
        float(),
        float(),
        float(),
        Arc::new(FixedSizeListArray::new(item, 1, float(), None)),
    ];
    let lineage = Lineage::new("s4l-pseudolabel", 0, String::new()).input("labelled", labelled);
    table::write(path, schema::labels(1), columns, &lineage, BTreeMap::new()).unwrap();
}

/// A model has the hash of its labels; their number is in the file, in any folder above the run. Pseudo
/// labels count as their labelled set, and a model without labels as the model from which it was
/// initialized.
#[test]
fn accuracy_is_shown_over_the_number_of_labels_where_rows_differ() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let write_labels = |name: &str, rows: i64| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values((0..rows).map(|i| i.to_string()))),
            Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i % 3))),
        ];
        let lineage = Lineage::new("s4l-subset", 0, String::new());
        let path = runs.join(name);
        table::write(&path, schema::labelled(), columns, &lineage, BTreeMap::new()).unwrap();
        hash_file(&path).unwrap()
    };
    let few = write_labels("seed0/few.parquet", 12);
    let many = write_labels("many.parquet", 120);
    let one = |row: &str, right: usize, input: &str, hash: &str| {
        let run = runs.join("seed0").join(row);
        let model = write_model_of(&run, 0, 0.1, input, hash);
        write_eval_of(&run, 0, right, "test", &model, "images");
        model
    };
    one("supervised_1p", 15, "labels", &few);
    let pseudo = runs.join("seed0/supervised_1p/labels.parquet");
    write_pseudo_labels(&pseudo, &few);
    one("pseudo_labels", 12, "labels", &hash_file(&pseudo).unwrap());
    let step1 = one("moam_step1", 24, "labels", &many);
    one("moam_step2", 27, "init", &step1);
    assert!(report(folder.path(), &[]).status.success());
    let page = |out: &str| std::fs::read_to_string(folder.path().join(out)).unwrap();
    let html = page("report/index.html");
    let chart = between(&html, "Top-1 accuracy by number of labels", "</svg>");
    for title in [
        "Supervised (1% labels)\n12 labels: 50.0 [",
        "Pseudo labels\n12 labels: 40.0 [",
        "MOAM step 1\n120 labels: 80.0 [",
        "MOAM step 2\n120 labels: 90.0 [",
    ] {
        assert!(chart.contains(title), "{title:?} is not in {chart}");
    }
    let names = chart.split("<text class=end").skip(1).map(|text| between(text, ">", "<"));
    assert_eq!(names.collect::<Vec<_>>(), ["MOAM step 2", "Supervised (1% labels)"]);
    // The recipe is on the page too.
    assert!(html.contains("learning_rate = 0.1\n") && html.contains("labels <code>"));

    std::fs::remove_file(runs.join("seed0/few.parquet")).unwrap();
    assert_eq!(report(folder.path(), &[]).status.code(), Some(73), "the labels are an input");
    assert!(report(folder.path(), &["--force"]).status.success());
    assert!(!page("report/index.html").contains("by number of labels"));
}

#[test]
fn runs_that_do_not_belong_together_are_marked_and_said() {
    let folder = runs_with_models();
    let good = report(folder.path(), &["--check"]);
    assert!(good.status.success() && good.stderr.is_empty() && good.stdout.is_empty());
    assert!(!folder.path().join("report").exists());

    type Spoil = fn(&Path);
    let spoils: [(Spoil, &str); 3] = [
        (
            |run| write_eval_of(run, 1, 20, "test", &write_model(run, 1, 0.2), "images"),
            "seed 1: trained by another recipe than seed 0: learning_rate 0.2 in place of 0.1",
        ),
        (|run| drop(write_model(run, 7, 0.1)), "lies beside it; evaluate again"),
        (
            |run| write_eval_of(run, 1, 20, "test", &write_model(run, 1, 0.1), "others"),
            "seed 1: evaluated on other images than ",
        ),
    ];
    for (spoil, note) in spoils {
        let folder = runs_with_models();
        spoil(&folder.path().join("runs/seed1/vat"));
        let checked = report(folder.path(), &["--check"]);
        assert_eq!(checked.status.code(), Some(3), "{}", text(&checked.stderr));
        assert!(!folder.path().join("report").exists());
        let out = report(folder.path(), &["-q"]);
        assert!(out.status.success());
        for said in [text(&checked.stderr), text(&out.stderr), text(&out.stdout)] {
            assert!(said.contains(note), "{note:?} in {said}");
        }
        assert!(text(&out.stderr).starts_with("warning: VAT: seed 1: "));
        assert!(text(&out.stdout).contains("| VAT * "), "{}", text(&out.stdout));
        let read =
            |file: &str| std::fs::read_to_string(folder.path().join("report").join(file)).unwrap();
        assert!(read("table.csv").contains(note));
        assert!(read("index.html").contains(">VAT *</a>"));
    }
}

/// The provenance files name commits, on which no output depends: a warning, but no mark on the row.
#[test]
fn programs_of_two_commits_are_said() {
    let folder = runs_with_models();
    assert!(report(folder.path(), &["--out", "before"]).status.success());
    let sidecar = folder.path().join("runs/seed1/vat/eval.parquet.prov.json");
    std::fs::write(sidecar, r#"{"commit": "d"}"#).unwrap();
    let words = "warning: VAT: seed 1: made by commit d, seed 0 of vat by abc\n";
    let checked = report(folder.path(), &["--check"]);
    assert_eq!(checked.status.code(), Some(3));
    assert!(text(&checked.stderr).starts_with(words), "{}", text(&checked.stderr));
    assert_eq!(text(&report(folder.path(), &["--out", "after", "-q"]).stderr), words);
    for file in ["table.md", "table.csv", "table.parquet", "index.html"] {
        let read = |out: &str| std::fs::read(folder.path().join(out).join(file)).unwrap();
        assert!(read("before") == read("after"), "{file}");
    }
}

/// What stages used is in files of its own, also if the report is up to date: the page has the same bytes.
#[test]
fn the_cost_is_that_of_the_provenance_files() {
    let folder = runs_with_models();
    let run = folder.path().join("runs/seed1/vat");
    assert!(report(folder.path(), &[]).status.success());
    let read =
        |file: &str| std::fs::read_to_string(folder.path().join("report").join(file)).unwrap();
    let page = read("index.html");
    // Of older versions, which did not write what they used.
    assert!(read("cost.csv").lines().nth(2).unwrap() == "vat,1,seed1/vat/eval.parquet,,,,,,,");
    let write = |name: &str, text: &str| {
        std::fs::write(run.join(format!("{name}.prov.json")), text).unwrap();
    };
    write(
        "model",
        r#"{"command": ["bin/s4l-pretrain", "-q"], "seconds": 12.34, "cpu_seconds": 20.06,
            "peak_memory_mb": 70, "threads": 2, "instructions": "avx2", "host": "<a>"}"#,
    );
    // Joined from two parts.
    write(
        "labels.parquet",
        r#"{"command": ["s4l-pseudolabel"], "seconds": 1, "cpu_seconds": 1, "peak_memory_mb": 5,
            "host": "a", "parts": [{"seconds": 2, "cpu_seconds": 3, "peak_memory_mb": 9, "host": "c"},
            {"seconds": 3, "cpu_seconds": 4, "peak_memory_mb": 8, "host": "b"}, null]}"#,
    );
    let again = report(folder.path(), &[]);
    assert!(text(&again.stderr).contains("up to date"), "{}", text(&again.stderr));
    assert_eq!(read("index.html"), page);
    let csv = read("cost.csv");
    assert_eq!(
        csv.lines().collect::<Vec<_>>(),
        [
            "row,seed,output,stage,seconds,cpu_seconds,peak_memory_mb,threads,instructions,host",
            "vat,0,seed0/vat/eval.parquet,,,,,,,",
            "vat,1,seed1/vat/model,s4l-pretrain,12.3,20.1,70,2,avx2,<a>",
            "vat,1,seed1/vat/labels.parquet,s4l-pseudolabel,6.0,8.0,9,,,a b c",
            "vat,1,seed1/vat/eval.parquet,,,,,,,",
            "vat,2,seed2/vat/eval.parquet,,,,,,,",
        ]
    );
    let cost = read("cost.html");
    assert!(cost.contains("<td>s4l-pretrain<td>12.3<td>20.1<td>70<td>2<td>avx2<td>&lt;a&gt;"));
    assert!(page.contains("<a href='cost.html'>"));
}

#[test]
fn a_damaged_model_beside_an_evaluation_is_65() {
    for file in ["model.safetensors", "config.json"] {
        let folder = runs_with_models();
        let path = folder.path().join("runs/seed1/vat/model").join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let out = report(folder.path(), &[]);
        assert_eq!(out.status.code(), Some(65), "{}", text(&out.stderr));
        assert!(text(&out.stderr).contains(&format!("seed1/vat/model/{file}")));
        assert!(!folder.path().join("report").exists());
    }
}

/// Names from outside are escaped everywhere.
#[test]
fn names_are_no_markup_and_no_formulas() {
    let folder = tempfile::tempdir().unwrap();
    let split = "<img src=x>\n[a](b) `c`|d";
    write_eval(&folder.path().join("runs/=1+1"), 0, 20, split);
    assert!(report(folder.path(), &[]).status.success());
    let read =
        |file: &str| std::fs::read_to_string(folder.path().join("report").join(file)).unwrap();
    assert!(read("index.html").contains("&lt;img src=x&gt;"));
    let markdown = read("table.md");
    assert!(markdown.contains("&lt;img src=x&gt; \\[a](b) \\`c\\`\\|d split"), "{markdown}");
    for file in ["index.html", "table.md"] {
        assert!(!read(file).contains("<img"), "{file}");
    }
    let csv = read("table.csv");
    assert!(csv.contains("\n'=1+1,'=1+1,moam,\"<img src=x>\n"), "{csv}");
}

#[test]
fn a_new_run_needs_force() {
    let folder = some_runs();
    assert!(report(folder.path(), &[]).status.success());
    write_eval(&folder.path().join("runs/seed0/vat"), 0, 3, "test");
    let refused = report(folder.path(), &[]);
    assert_eq!(refused.status.code(), Some(73), "{}", text(&refused.stderr));
    assert!(report(folder.path(), &["--force"]).status.success());
    let table = std::fs::read_to_string(folder.path().join("report/table.md")).unwrap();
    assert!(table.contains("| VAT "));
}

#[test]
fn quiet_silences_words_but_not_the_table() {
    let folder = some_runs();
    let out = report(folder.path(), &["-q"]);
    assert!(out.stderr.is_empty());
    assert!(text(&out.stdout).contains("MOAM step 3"));
}

#[test]
fn dry_run_writes_nothing() {
    let folder = some_runs();
    let out = report(folder.path(), &["-n"]);
    assert_eq!(text(&out.stdout), "3 rows of 4 runs to report\n");
    assert!(!folder.path().join("report").exists());
}

#[test]
fn a_folder_without_runs_is_66() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("runs")).unwrap();
    for input in ["runs", "nowhere"] {
        let out = report(folder.path(), &["--in", input]);
        assert_eq!(out.status.code(), Some(66));
        let message = text(&out.stderr);
        assert!(message.contains(input) && message.contains("s4l-eval"), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
}

#[test]
fn a_broken_evaluation_is_65_and_named() {
    let folder = some_runs();
    let path = folder.path().join("runs/seed1/moam_step3/eval.parquet");
    let whole = std::fs::read(&path).unwrap();
    for broken in [&whole[..whole.len() / 2], b"", b"not parquet"] {
        std::fs::write(&path, broken).unwrap();
        let out = report(folder.path(), &[]);
        assert_eq!(out.status.code(), Some(65));
        assert!(text(&out.stderr).contains("seed1/moam_step3/eval.parquet"));
        assert!(!folder.path().join("report").exists());
    }
}

#[test]
fn runs_that_do_not_compare_are_65() {
    let folder = some_runs();
    write_eval(&folder.path().join("runs/seed2/moam_step3"), 2, 20, "val");
    let out = report(folder.path(), &[]);
    assert_eq!(out.status.code(), Some(65));
    assert!(text(&out.stderr).contains("split val"), "{}", text(&out.stderr));

    let folder = some_runs();
    write_eval(&folder.path().join("runs/again/moam_step3"), 1, 20, "test");
    let out = report(folder.path(), &[]);
    assert_eq!(out.status.code(), Some(65));
    assert!(text(&out.stderr).contains("seed 1"), "{}", text(&out.stderr));
}
