//! `s4l-inspect --sheet` through its binary: which images are under which class, and their form.

use crate::common::{Ran, Scratch, jpeg, png, real, shard, smoke_shards};
use arrow::array::{ArrayRef, Int64Array, StringArray};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use s4l::lineage::Lineage;
use s4l::schema;
use s4l::shards::Shards;
use s4l::tables::table;
use std::collections::BTreeMap;
use std::sync::Arc;

fn inspect(scratch: &Scratch, line: &str) -> Ran {
    let words: Vec<&str> = line.split(' ').collect();
    scratch.run(env!("CARGO_BIN_EXE_s4l-inspect"), &words)
}

/// An image on a sheet: class, key, kind of file, bytes.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    class: String,
    key: String,
    kind: String,
    bytes: Vec<u8>,
}

fn page(scratch: &Scratch, name: &str) -> String {
    std::fs::read_to_string(scratch.path(name)).unwrap()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let text = text.split_once(start).unwrap_or_else(|| panic!("no {start} in {text}")).1;
    text.split_once(end).unwrap().0
}

/// The images on the page, with the class of the heading above each. The page loads nothing from elsewhere.
fn pictures(html: &str) -> Vec<Picture> {
    let mut pictures = Vec::new();
    for section in html.split("<section class=group>").skip(1) {
        let class = between(section, "</i> ", " <small>");
        for figure in section.split("<figure").skip(1) {
            let source = between(figure, "src=\"", "\"");
            let (kind, data) =
                source.strip_prefix("data:image/").unwrap().split_once(";base64,").unwrap();
            pictures.push(Picture {
                class: class.to_string(),
                key: between(figure, "<figcaption>", "</figcaption>").to_string(),
                kind: kind.to_string(),
                bytes: BASE64_STANDARD.decode(data).unwrap(),
            });
        }
    }
    for outside in ["http:", "https:", "<script ", "<link", "url(", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("default-src 'none'; img-src data:;"));
    assert_eq!(html.matches("src=").count(), pictures.len());
    pictures
}

#[test]
fn files_stand_under_their_class_as_they_are_or_smaller() {
    let scratch = Scratch::new();
    let mut originals = BTreeMap::new();
    for row in 0..9 {
        let class = ["bag", "<b>coat\" & 'hat'"][row % 2];
        let name = format!("<i>{row}&\".png");
        let bytes = if row < 6 { png(&real(row).0, 28) } else { jpeg(&real(row).0, 28) };
        scratch.write(&format!("photos/{class}/{name}"), &bytes);
        originals.insert(name, (class, bytes));
    }
    let noise: Vec<u8> = (0..400 * 400u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    scratch.write("photos/bag/large.png", png(&noise, 400));
    scratch.write("photos/unlabeled/none.png", png(&real(9).0, 28));
    shard(&scratch, &["--in", "photos", "--out", "shards"]).ok();
    inspect(&scratch, "shards --sheet a.html").ok();
    let html = page(&scratch, "a.html");
    let raw = (0..9).any(|row| html.contains(&format!("<i>{row}&")));
    assert!(!raw && !html.contains("<b>"), "not escaped");

    let escape = s4l::page::frame::escape;
    let mut shown = pictures(&html);
    assert_eq!(shown.len(), 11);
    let large = shown.iter().position(|p| p.key == "large.png").unwrap();
    let large = shown.remove(large);
    assert_eq!((&*large.class, &*large.kind), ("bag", "jpeg"));
    let small = image::load_from_memory(&large.bytes).unwrap();
    assert_eq!((small.width(), small.height()), (160, 160));
    let none = shown.pop().unwrap();
    assert_eq!((&*none.class, &*none.key), ("without a label", "none.png"));
    for (name, (class, bytes)) in originals {
        let kind = if bytes[0] == 0xff { "jpeg" } else { "png" };
        let (class, key, kind) = (escape(class), escape(&name), kind.to_string());
        let picture = Picture { class, key, kind, bytes };
        assert!(shown.contains(&picture), "{name}");
    }
}

#[test]
fn a_seed_draws_and_what_is_there_is_kept() {
    let scratch = smoke_shards();
    inspect(&scratch, "shards --sheet a.html --per-class 3").ok();
    inspect(&scratch, "shards --sheet b.html --per-class 3").ok();
    inspect(&scratch, "shards --sheet c.html --per-class 3 --seed 1").ok();
    let [a, b, c] = ["a.html", "b.html", "c.html"].map(|name| page(&scratch, name));
    assert_eq!(a, b);
    let keys = |html: &str| pictures(html).into_iter().map(|p| p.key).collect::<Vec<_>>();
    assert_ne!(keys(&a), keys(&c));

    let again = inspect(&scratch, "shards --sheet a.html --per-class 3").ok();
    assert!(again.stderr.contains("a.html: up to date"), "{}", again.stderr);
    inspect(&scratch, "shards --sheet a.html").fails(73, &["a.html", "--force"]);
    inspect(&scratch, "shards --sheet a.html --force").ok();
    scratch.write("thesis.html", "<!doctype html>");
    inspect(&scratch, "shards --sheet thesis.html --force")
        .fails(73, &["not a page of s4l-inspect --sheet"]);
    inspect(&scratch, "shards --sheet shards/a.html").fails(2, &["lie in the input"]);
    inspect(&scratch, "shards --sheet d.html --in shards").fails(2, &["--in", "tables"]);
    inspect(&scratch, "shards/dataset.json --sheet d.html").fails(2, &["shards and tables"]);
    for option in ["--seed 1", "--per-class 1", "--in shards"] {
        let ran = inspect(&scratch, &format!("shards {option}"));
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("--sheet <FILE>"), "{}", ran.stderr);
    }
    assert!(!scratch.path("d.html").exists());

    // All images of a class in the shards: the pixels are those of the key, the class is its label.
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let splits = ["test", "train"].map(|name| shards.split(name).unwrap());
    let shown = pictures(&c);
    assert_eq!(shown.len(), 2 * 10 * 3);
    for picture in shown {
        let split = splits.iter().find(|split| split.row(&picture.key).is_some()).unwrap();
        let row = split.row(&picture.key).unwrap();
        let label = split.labels().unwrap()[row].unwrap() as usize;
        assert_eq!(picture.class, s4l::page::frame::escape(&shards.classes()[label]));
        let pixels = image::load_from_memory(&picture.bytes).unwrap().into_luma8().into_raw();
        assert_eq!(pixels, *split.decode(row).unwrap().pixels, "{}", picture.key);
    }
}

/// The labels are those of the table, right or wrong.
#[test]
fn a_table_is_shown_with_its_own_labels() {
    let scratch = smoke_shards();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let test = shards.split("test").unwrap();
    let labels = test.labels().unwrap();
    let shifted = |row: usize| (labels[row].unwrap() + 1) % 10;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..20).map(|row| test.key(row)))),
        Arc::new(Int64Array::from_iter_values((0..20).map(|row| i64::from(shifted(row))))),
    ];
    let lineage = |images: &str| {
        Lineage::new("s4l-subset", 0, String::new()).input(schema::input::SHARDS, images)
    };
    for (name, images) in [("shifted.parquet", test.content_hash()), ("other.parquet", "other")] {
        let (path, columns) = (scratch.path(name), columns.clone());
        table::write(&path, schema::labelled(), columns, &lineage(images), BTreeMap::new())
            .unwrap();
    }
    inspect(&scratch, "shifted.parquet --sheet a.html --per-class 20").ok();
    let shown = pictures(&page(&scratch, "a.html"));
    assert_eq!(shown.len(), 20);
    for picture in shown {
        let class = &shards.classes()[shifted(test.row(&picture.key).unwrap()) as usize];
        assert_eq!(picture.class, s4l::page::frame::escape(class), "{}", picture.key);
    }
    inspect(&scratch, "other.parquet --sheet b.html").fails(65, &["labels of other images"]);
    inspect(&scratch, "shifted.parquet --in none --sheet b.html").fails(66, &["none"]);
}
