//! `s4l-report --audit` through its binary: the page for pseudo labels that the test has written.

use crate::common::training::{words, write_labels};
use crate::common::{Ran, Scratch, smoke_shards};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, StringArray};
use s4l::lineage::Lineage;
use s4l::page::frame::escape;
use s4l::schema;
use s4l::shards::{Shards, Split};
use s4l::tables::table::{self, fixed_lists};
use std::collections::BTreeMap;
use std::sync::Arc;

fn report(scratch: &Scratch, line: &str) -> Ran {
    scratch.run(env!("CARGO_BIN_EXE_s4l-report"), &words(line))
}

fn page(scratch: &Scratch) -> String {
    std::fs::read_to_string(scratch.path("audit.html")).unwrap()
}

/// A row of pseudo labels.
struct Row {
    label: u32,
    known: bool,
    confidence: f32,
}

/// Pseudo labels of the first rows of a split.
fn write_pseudo(scratch: &Scratch, name: &str, split: &Split, images: &str, rows: &[Row]) {
    let keys = (0..rows.len()).map(|row| split.key(row));
    let labels = || rows.iter().map(|row| i64::from(row.label));
    let confidences = || rows.iter().map(|row| row.confidence);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(keys)),
        Arc::new(Int64Array::from_iter_values(labels())),
        Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.known)))),
        Arc::new(Int64Array::from_iter_values(labels())),
        Arc::new(Float32Array::from_iter_values(confidences())),
        Arc::new(Float32Array::from_iter_values(rows.iter().map(|_| 0.5))),
        Arc::new(Float32Array::from_iter_values(rows.iter().map(|_| 0.75))),
        fixed_lists(vec![0.1; 10 * rows.len()], 10),
    ];
    let lineage = Lineage::new("s4l-pseudolabel", 0, String::new()).input("shards", images);
    let path = scratch.path(name);
    table::write(&path, schema::labels(10), columns, &lineage, BTreeMap::new()).unwrap();
}

/// Of 200 images the first 40 are known. Of the others, every tenth has the label of the next class; in
/// `before`, every fifth.
fn some_labels() -> (Scratch, Split, Vec<u32>) {
    let scratch = smoke_shards();
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    let truth: Vec<u32> = split.labels().unwrap().iter().map(|label| label.unwrap()).collect();
    let rows = |wrong: usize| -> Vec<Row> {
        let label = |row: usize| match row >= 40 && row.is_multiple_of(wrong) {
            true => (truth[row] + 1) % 10,
            false => truth[row],
        };
        // Confidence grows with the row; no two rows are equal.
        let confidence = |row: usize| 0.4 + row as f32 / 400.0;
        let row = |row| Row { label: label(row), known: row < 40, confidence: confidence(row) };
        (0..200).map(row).collect()
    };
    write_pseudo(&scratch, "labels.parquet", &split, split.content_hash(), &rows(10));
    write_pseudo(&scratch, "before.parquet", &split, split.content_hash(), &rows(5));
    (scratch, split, truth)
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let text = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}")).1;
    text.split_once(end).unwrap().0
}

/// The cells of the table with this head, row by row.
fn cells(html: &str, head: &str) -> Vec<Vec<String>> {
    let table = html.split("<table").find(|table| table.contains(head)).unwrap();
    let body = between(table, "<tbody>", "</tbody>");
    let text = |cell: &str| cell.split_once('>').unwrap().1.trim().to_string();
    let cells = |row: &str| {
        let row = row.replace("<th scope=row", "<td");
        row.split("<td").skip(1).map(text).collect()
    };
    body.split("<tr>").skip(1).map(cells).collect()
}

#[test]
fn labels_are_counted_compared_and_judged() {
    let (scratch, split, truth) = some_labels();
    let line = "--audit labels.parquet --before before.parquet --truth shards";
    report(&scratch, line).ok();
    let html = page(&scratch);
    for outside in ["http:", "https:", "<script ", "<link", "url(", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(
        html.contains("160 pseudo labels and 40 known ones of the images of train, in 10 classes.")
    );
    // Rows 40, 45, .. 195 were wrong; every second of them is right now.
    assert!(html.contains("16 of 160 have changed; 90.0% of 160 are right."), "counts");
    assert!(html.contains("16 became right, 0 wrong, and 0 stayed wrong."), "drift");
    assert!(!html.contains("class=bad"), "no collapse");

    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let known = |class: u32| truth[..40].iter().filter(|&&label| label == class).count();
    let found = cells(&html, "<th scope=col>Recall");
    assert_eq!(found.len(), 10);
    for (class, row) in found.iter().enumerate() {
        let class = class as u32;
        let given = |row: &usize| (truth[*row] + u32::from(row.is_multiple_of(10))) % 10 == class;
        let pseudo: Vec<usize> = (40..200).filter(given).collect();
        let right = pseudo.iter().filter(|&&row| truth[row] == class).count();
        let images = (40..200).filter(|&row| truth[row] == class).count();
        let percent = |part: usize, all: usize| format!("{:.1}%", part as f64 / all as f64 * 100.0);
        assert_eq!(row[0], escape(&shards.classes()[class as usize]));
        assert_eq!(row[1], known(class).to_string());
        assert_eq!(row[2], percent(known(class), 40));
        assert_eq!((&row[3], &row[4]), (&pseudo.len().to_string(), &percent(pseudo.len(), 160)));
        assert_eq!(row[6], "75.0%");
        assert_eq!(row[10], percent(right, pseudo.len()), "precision");
        assert_eq!(row[11], percent(right, images), "recall");
    }
    // Row 160 is the first with a confidence of 0.8.
    let kept = cells(&html, "<th scope=col>min_confidence");
    assert_eq!(kept[0][..3], ["0.2", "160", "100.0%"]);
    assert_eq!(
        (&kept[3][..3], &*kept[3][4]),
        (&["0.8", "40", "25.0%"].map(String::from)[..], "90.0%")
    );

    // The last row of each class is the most confident; the first pseudo-labelled row is the least
    // confident.
    let part = |title: &str| between(&html, &format!("<h2>{title}</h2>"), "<footer>");
    let first = |html: &str| between(html, "<figcaption>", "</figcaption>").to_string();
    let label = |row: usize| (truth[row] + u32::from(row.is_multiple_of(10))) % 10;
    let surest = (40..200).rev().find(|&row| label(row) == 0).unwrap();
    assert_eq!(first(part("The surest")), split.key(surest));
    let least = (40..200).find(|&row| label(row) == 0).unwrap();
    assert_eq!(first(part("The least sure")), split.key(least));
    let changed = part("Changed");
    assert_eq!(changed.matches("<figure").count(), 16);
    assert_eq!(changed.matches(", was ").count(), 2 * 16, "in the title and below");
    assert!(!changed.contains(", is "), "those that changed are right");
    for row in 0..40 {
        assert!(!html.contains(&format!("<figcaption>{}<", split.key(row))), "row {row} is known");
    }
}

/// Without `--truth`, nothing depends on the labels in the shards.
#[test]
fn nothing_else_is_read_and_what_does_not_fit_is_refused() {
    let (scratch, split, _) = some_labels();
    report(&scratch, "--audit labels.parquet").ok();
    let html = page(&scratch);
    let body = between(&html, "<h1>", "<script>");
    for word in ["Precision", "right", "Changed", ", is ", ", was "] {
        assert!(!body.contains(word), "{word}");
    }
    let again = report(&scratch, "--audit labels.parquet").ok();
    assert!(again.stderr.contains("audit.html: up to date"), "{}", again.stderr);
    let other = "--audit labels.parquet --before before.parquet";
    report(&scratch, other).fails(73, &["audit.html", "--force"]);
    report(&scratch, &format!("{other} --force")).ok();
    assert_ne!(page(&scratch), html);
    report(&scratch, &format!("{other} -o labels.parquet")).fails(2, &["overwrite"]);
    scratch.write("thesis.html", "<!doctype html>");
    report(&scratch, "--audit labels.parquet -f -o thesis.html").fails(73, &["not a page of"]);
    for option in ["--labelled l", "--before b", "--truth t"] {
        assert_eq!(report(&scratch, option).code, 2, "{option}");
    }
    let dry = report(&scratch, "--audit labels.parquet -n -o none.html").ok();
    assert_eq!(dry.stdout, "audit of 160 pseudo labels to none.html\n");
    assert!(!scratch.path("none.html").exists());

    write_labels(
        &scratch,
        "three.parquet",
        &[(split.key(0), 0), (split.key(1), 0), (split.key(2), 1)],
    );
    report(&scratch, "--audit labels.parquet -f --labelled three.parquet").ok();
    let found = cells(&page(&scratch), "<th scope=col>Labelled");
    assert_eq!((&*found[0][1], &*found[1][1], &*found[2][1]), ("2", "1", "0"));
    report(&scratch, "--audit three.parquet -f").fails(65, &["three.parquet", "known"]);
    let row = || Row { label: 0, known: false, confidence: 0.5 };
    write_pseudo(&scratch, "other.parquet", &split, "other", &[row()]);
    for line in ["--audit other.parquet", "--audit labels.parquet --before other.parquet"] {
        report(&scratch, &format!("{line} -f"))
            .fails(65, &["other.parquet", "labels of other images"]);
    }
}

#[test]
fn a_collapse_is_said() {
    let (scratch, split, truth) = some_labels();
    let label = |row: usize| if row < 40 { truth[row] } else { 3 };
    let row = |row| Row { label: label(row), known: row < 40, confidence: 0.5 };
    let rows: Vec<Row> = (0..200).map(row).collect();
    write_pseudo(&scratch, "labels.parquet", &split, split.content_hash(), &rows);
    report(&scratch, "--audit labels.parquet").ok();
    let words = between(&page(&scratch), "<p class=bad>", "</p>").to_string();
    assert!(words.starts_with("160 of 160 pseudo labels are &quot;"), "{words}");
    assert!(words.contains("classes have none: "), "{words}");
}
