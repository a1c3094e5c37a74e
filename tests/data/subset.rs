//! `s4l-subset`: balance, nesting, disjointness, lists.

use crate::common::{IMAGES, Ran, Scratch, photos, png, real, shard, smoke, smoke_shards};
use proptest::prelude::*;
use s4l::labelled::draw::draw;
use s4l::rng::Stream;
use s4l::shards::Shards;
use std::collections::HashSet;

fn subset(scratch: &Scratch, args: &[&str]) -> Ran {
    let all = [&["--in", "shards"], args].concat();
    scratch.run(env!("CARGO_BIN_EXE_s4l-subset"), &all)
}

/// Rows of an output: keys and labels.
fn rows(scratch: &Scratch, name: &str) -> Vec<(String, i64)> {
    let table = s4l::tables::table::read(&scratch.path(name), "s4l-subset").unwrap();
    let keys = table.strings("key").unwrap();
    keys.into_iter().zip(table.ints("label").unwrap()).collect()
}

fn keys(scratch: &Scratch, name: &str) -> HashSet<String> {
    rows(scratch, name).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn a_fraction_is_balanced_in_shard_order_with_true_labels() {
    let scratch = smoke_shards();
    subset(&scratch, &["--fraction", "0.1", "--out", "l.parquet"]).ok();
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    let rows = rows(&scratch, "l.parquet");
    assert_eq!(rows.len(), 40);
    let mut count = [0; 10];
    for (key, label) in &rows {
        count[*label as usize] += 1;
        let row = split.row(key).unwrap();
        assert_eq!(split.labels().unwrap()[row], Some(*label as u32));
    }
    assert_eq!(count, [4; 10]);
    assert!(rows.is_sorted());
    assert_eq!(scratch.names(), ["l.parquet", "l.parquet.prov.json", "shards", "shards.prov.json"]);
}

#[test]
fn the_seed_decides() {
    let scratch = smoke_shards();
    for (seed, out) in [("0", "a"), ("0", "b"), ("1", "c")] {
        subset(&scratch, &["--per-class", "5", "--seed", seed, "--out", out]).ok();
    }
    let bytes = |name| std::fs::read(scratch.path(name)).unwrap();
    assert_eq!(bytes("a"), bytes("b"));
    assert_ne!(rows(&scratch, "a"), rows(&scratch, "c"));
}

#[test]
fn validation_is_disjoint_and_the_same_for_every_fraction() {
    let scratch = smoke_shards();
    for (fraction, out, val) in [("0.05", "l1", "v1"), ("0.5", "l2", "v2")] {
        let args = ["--fraction", fraction, "--out", out, "--val-per-class", "8", "--val-out", val];
        subset(&scratch, &args).ok();
    }
    let bytes = |name| std::fs::read(scratch.path(name)).unwrap();
    assert_eq!(bytes("v1"), bytes("v2"));
    assert_eq!(keys(&scratch, "v1").len(), 80);
    assert!(keys(&scratch, "l1").is_subset(&keys(&scratch, "l2")));
    assert!(keys(&scratch, "l2").is_disjoint(&keys(&scratch, "v2")));
}

#[test]
fn a_list_names_the_images() {
    let scratch = smoke_shards();
    scratch.write("map.json", r#"{"values": ["train-000007", "some/folder/train-000003"]}"#);
    scratch.write("list.txt", "train-000003\n\ntrain-000007\n");
    subset(&scratch, &["--list", "map.json", "--out", "a"]).ok();
    let args = ["--list", "list.txt", "--out", "b", "--val-per-class", "39", "--val-out", "v"];
    subset(&scratch, &args).ok();
    let listed = ["train-000003", "train-000007"].map(str::to_string);
    assert!(rows(&scratch, "a").into_iter().map(|r| r.0).eq(listed));
    assert_eq!(rows(&scratch, "a"), rows(&scratch, "b"));
    assert!(keys(&scratch, "v").is_disjoint(&keys(&scratch, "b")));
}

/// Names as in S4L's label maps and SimCLR's lists, matched with keys of photographs in folders.
#[test]
fn lists_name_photographs_with_and_without_folders_and_endings() {
    let scratch = Scratch::new();
    photos(&scratch);
    // A base name that occurs in two classes: these keys have their folder.
    scratch.write("photos/bag/same.png", png(&real(20).0, 28));
    scratch.write("photos/coat/same.png", png(&real(21).0, 28));
    scratch.write("photos/coat/cafe\u{301}.png", png(&real(22).0, 28));
    shard(&scratch, &["--in", "photos", "--out", "shards"]).ok();
    let all = Shards::open(&scratch.path("shards")).unwrap();
    let all = all.split("train").unwrap();
    assert!(all.row("01.JPEG").is_some() && all.row("coat/same.png").is_some());
    let expected =
        ["00.png", "01.JPEG", "02.png", "03.JPEG", "coat/same.png", "04.png", "cafe\u{301}.png"];
    let expected: HashSet<String> = expected.map(str::to_string).into();
    let names = [
        "00.png",
        "01",
        "photos/shirt/02.PNG",
        "/data/train/bag/03",
        "train/coat/same",
        "train\\coat\\04.png",
        "caf\u{e9}",
    ];
    // With the byte order mark that some editors put before text.
    scratch.write("list.txt", format!("\u{feff}{}", names.join("\r\n")));
    let map = serde_json::json!({"values": names});
    scratch.write("map.json", format!("\u{feff}{map}"));
    for list in ["list.txt", "map.json"] {
        let out = format!("{list}.parquet");
        subset(&scratch, &["--list", list, "--out", &out]).ok();
        assert_eq!(keys(&scratch, &out), expected, "{list}");
    }
    let labels: Vec<i64> =
        rows(&scratch, "list.txt.parquet").into_iter().map(|row| row.1).collect();
    let labels: HashSet<i64> = labels.into_iter().collect();
    assert_eq!(labels.len(), 3);

    // Two images have this name; for five names there is no image.
    scratch.write("two.txt", "same.png\n00.png\n");
    let two = subset(&scratch, &["--list", "two.txt"]);
    two.fails(65, &["1 of 2 names", "\"same.png\""]);
    scratch.write("none.txt", "a\nb\n00.png\nc\nd\ne.png\n");
    let none = subset(&scratch, &["--list", "none.txt"]);
    none.fails(65, &["none.txt", "5 of 6 names", "\"a\", \"b\", \"c\", .."]);
    assert!(!scratch.path("labelled.parquet").exists());
}

#[test]
fn a_subset_is_drawn_within_another() {
    let scratch = smoke_shards();
    let draw = |line: &str| subset(&scratch, &line.split(' ').collect::<Vec<_>>());
    draw("--per-class 12 --seed 1 --out outer --val-per-class 5 --val-out val").ok();
    let nested = "--per-class 3 --nested-in outer --val-per-class 5 --val-out val2 --out";
    draw(&format!("{nested} inner --seed 2")).ok();
    let (outer, inner) = (rows(&scratch, "outer"), rows(&scratch, "inner"));
    assert!(inner.iter().all(|row| outer.contains(row)));
    assert!((0..10).all(|class| inner.iter().filter(|r| r.1 == class).count() == 3));
    assert!(keys(&scratch, "outer").is_disjoint(&keys(&scratch, "val2")));
    // Not so by the seed only; and the same as before if the seed alone would do.
    draw("--per-class 3 --seed 2 --out free").ok();
    assert!(!keys(&scratch, "free").is_subset(&keys(&scratch, "outer")));
    draw(&format!("{nested} same --seed 1 --force")).ok();
    draw("--per-class 3 --seed 1 --out alone --val-per-class 5 --val-out val3").ok();
    assert_eq!(keys(&scratch, "same"), keys(&scratch, "alone"));
    assert_eq!(keys(&scratch, "val2"), keys(&scratch, "val"));
    let inspected = scratch.run(env!("CARGO_BIN_EXE_s4l-inspect"), &["inner"]);
    assert!(inspected.stdout.contains("s4l.input.nested_in"), "{}", inspected.stdout);

    let before = scratch.names();
    let more = draw("--per-class 13 --nested-in outer -n -q").ok();
    assert!(more.stdout.contains("120 images"), "{}", more.stdout);
    draw("--per-class 1 --nested-in absent -q").fails(66, &["absent", "s4l-subset"]);
    draw("--per-class 1 --nested-in outer --out outer -q --force").fails(2, &["outer"]);
    scratch.write("list.txt", "train-000003\n");
    assert_eq!(draw("--list list.txt --nested-in outer").code, 2);
    std::fs::remove_file(scratch.path("list.txt")).unwrap();
    assert_eq!(scratch.names(), before);
}

#[test]
fn bad_requests_are_named_and_leave_nothing_behind() {
    let scratch = smoke_shards();
    scratch.write("unknown.txt", "train-000003\nnowhere.png\nelsewhere.png\n");
    scratch.write("twice.txt", "train-000003\ntrain-000003\n");
    scratch.write("empty.txt", "\n");
    scratch.write("slashes.txt", "/".repeat(1_000_000));
    scratch.write("bad.json", "{\"values\": [1]}");
    let before = scratch.names();
    let fails = |args: &[&str], code, words: &[&str]| {
        let ran = subset(&scratch, &[args, &["--out", "l.parquet"]].concat());
        ran.fails(code, words);
        assert_eq!(scratch.names(), before);
    };
    let validation = |size: &[&'static str]| [&["--all", "--val-out", "v"][..], size].concat();
    let too_few = ["shards", "41 images of class \"T-shirt/top\"", "found 40", "fewer"];
    fails(&validation(&["--val-per-class", "41"]), 65, &too_few);
    fails(&validation(&["--val-fraction", "1"]), 2, &["--val-fraction 1"]);
    fails(&validation(&["--val-fraction", "0.001"]), 65, &["to validate on", "found none"]);
    fails(&["--fraction", "1.5"], 2, &["--fraction 1.5"]);
    fails(&["--fraction", "NaN"], 2, &["--fraction NaN"]);
    fails(&["--fraction", "0.001"], 2, &["less than one image"]);
    fails(&["--per-class", "1", "--split", "dev"], 66, &["\"dev\"", "test, train"]);
    fails(&["--list", "absent.txt"], 66, &["absent.txt"]);
    fails(
        &["--list", "unknown.txt"],
        65,
        &["2 of 3 names", "\"nowhere.png\", \"elsewhere.png\"", "correct the list"],
    );
    fails(&["--list", "twice.txt"], 65, &["train-000003", "twice"]);
    fails(&["--list", "empty.txt"], 65, &["empty.txt"]);
    fails(&["--list", "slashes.txt"], 65, &["one of 1000000 bytes"]);
    fails(&["--list", "bad.json"], 65, &["bad.json", "values"]);
    let same = ["--val-per-class", "1", "--val-out", "l.parquet", "--per-class", "1"];
    fails(&same, 2, &["l.parquet"]);
    let inside = subset(&scratch, &["--per-class", "1", "--out", "shards/l.parquet"]);
    inside.fails(2, &["shards"]);
    let over = subset(&scratch, &["--list", "twice.txt", "--out", "twice.txt", "--force"]);
    over.fails(2, &["twice.txt"]);
    let both = subset(&scratch, &["--per-class", "1", "--fraction", "0.1"]);
    assert_eq!(both.code, 2);
    let absent = scratch.run(env!("CARGO_BIN_EXE_s4l-subset"), &["--in", "x", "--per-class", "1"]);
    absent.fails(66, &["x/dataset.json", "s4l-shard"]);
}

/// Photographs of uneven classes in `train`, one of which exists only in `test`.
fn uneven() -> Scratch {
    let scratch = Scratch::new();
    let mut row = 0;
    for (class, images) in [("bag", 20), ("coat", 9), ("shirt", 3)] {
        for nth in 0..images {
            scratch.write(&format!("set/train/{class}/{class}{nth}.png"), png(&real(row).0, 28));
            row += 1;
        }
    }
    scratch.write("set/train/unlabeled/more.png", png(&real(row).0, 28));
    scratch.write("set/test/trouser/t.png", png(&real(row + 1).0, 28));
    shard(&scratch, &["--in", "set", "--out", "shards"]).ok();
    scratch
}

#[test]
fn uneven_classes_give_what_they_have_and_say_so() {
    let scratch = uneven();
    let draw = |line: &str| subset(&scratch, &line.split(' ').collect::<Vec<_>>()).ok();
    // Images per class, in the order bag, coat, shirt, trouser.
    let counts = |name: &str| {
        let rows = rows(&scratch, name);
        [0, 1, 2, 3].map(|class| rows.iter().filter(|row| row.1 == class).count())
    };
    let all = draw("--all --out all");
    assert_eq!(counts("all"), [20, 9, 3, 0]);
    let words = "no image of train has the label \"trouser\": left out";
    assert!(all.stderr.contains(words), "{}", all.stderr);
    assert!(all.stderr.contains("32 images of train, 3 of 4 classes"), "{}", all.stderr);
    assert!(!all.stderr.contains("fewer"), "{}", all.stderr);

    // 32 labelled images of three classes: 5 per class.
    let half = draw("--fraction 0.5 --out half");
    assert_eq!(counts("half"), [5, 5, 3, 0]);
    let words = "warning: classes with fewer than 5 images give all they have: \"shirt\" 3\n";
    assert!(half.stderr.contains(words), "{}", half.stderr);
    let ten = draw("--per-class 10 --out ten");
    assert_eq!(counts("ten"), [10, 9, 3, 0]);
    let words = "fewer than 10 images give all they have: \"coat\" 9, \"shirt\" 3\n";
    assert!(ten.stderr.contains(words), "{}", ten.stderr);
    for (inner, outer) in [("half", "ten"), ("ten", "all")] {
        assert!(keys(&scratch, inner).is_subset(&keys(&scratch, outer)), "{inner}");
    }

    // A part of each class is held out, never all of it.
    draw("--all --out l --val-fraction 0.2 --val-out v");
    assert_eq!((counts("l"), counts("v")), ([16, 7, 2, 0], [4, 2, 1, 0]));
    assert!(keys(&scratch, "l").is_disjoint(&keys(&scratch, "v")));
    draw("--per-class 1 --out one --val-fraction 0.9 --val-out v9");
    assert_eq!((counts("one"), counts("v9")), ([1, 1, 1, 0], [18, 8, 2, 0]));
    draw("--per-class 4 --out same --val-fraction 0.2 --val-out w");
    assert_eq!(rows(&scratch, "v"), rows(&scratch, "w"));
    assert!(keys(&scratch, "same").is_subset(&keys(&scratch, "l")));

    scratch.write("bags", "bag0.png\nbag1.png\n");
    let bags = draw("--list bags --out bags.parquet");
    let words = ["the subset has no image of \"coat\", \"shirt\"\n", "1 of 4 classes"];
    assert!(words.iter().all(|word| bags.stderr.contains(word)), "{}", bags.stderr);
    assert!(bags.stderr.contains("are of one class"), "{}", bags.stderr);
}

#[test]
fn images_without_labels_are_never_chosen() {
    let scratch = Scratch::new();
    scratch.write(&format!("idx/{IMAGES}"), smoke(IMAGES));
    shard(&scratch, &["--in", "idx", "--out", "shards"]).ok();
    subset(&scratch, &["--per-class", "1"]).fails(65, &["labels", "none"]);
    scratch.write("list.txt", "train-000003\n");
    subset(&scratch, &["--list", "list.txt"]).fails(65, &["\"train-000003\" without"]);
}

#[test]
fn up_to_date_exists_and_force() {
    let scratch = smoke_shards();
    let args = ["--per-class", "2", "--val-per-class", "2", "--val-out", "v.parquet"];
    subset(&scratch, &args).ok();
    let again = subset(&scratch, &args).ok();
    assert_eq!(again.stderr.matches("up to date").count(), 2);
    let other = ["--per-class", "3", "-q"];
    subset(&scratch, &other).fails(73, &["labelled.parquet", "--force"]);
    assert_eq!(rows(&scratch, "labelled.parquet").len(), 20);
    subset(&scratch, &[&other[..], &["--force"]].concat()).ok();
    assert_eq!(rows(&scratch, "labelled.parquet").len(), 30);
}

proptest! {
    /// Balanced as far as there are images, disjoint from the images already taken, nested.
    #[test]
    fn draws(
        labels in prop::collection::vec(prop::option::weighted(0.9, 0u32..4), 0..200),
        taken in 0usize..10,
        small in 0usize..8,
        more in 0usize..8,
        seed: u64,
    ) {
        let taken = draw(&labels, &[taken; 4], seed, Stream::Validation, &[]);
        let of = |class: u32, rows: &[usize]| {
            rows.iter().filter(|&&r| labels[r] == Some(class)).count()
        };
        let all: Vec<usize> = (0..labels.len()).collect();
        let sample = |n| draw(&labels, &[n; 4], seed, Stream::Subset, &taken);
        let (few, many) = (sample(small), sample(small + more));
        prop_assert!(many.is_sorted());
        prop_assert!(taken.iter().all(|row| !many.contains(row)));
        prop_assert!(few.iter().all(|row| many.contains(row)));
        for class in 0..4 {
            let free = of(class, &all) - of(class, &taken);
            prop_assert_eq!(of(class, &many), free.min(small + more));
        }
    }
}

/// IDX files of two splits, `train` and `t10k`, from the embedded images.
fn idx(scratch: &Scratch, train: &[Vec<u8>], test: &[Vec<u8>]) {
    for (split, images) in [("train", train), ("t10k", test)] {
        let head = |magic: u32, sizes: &[u32]| -> Vec<u8> {
            let words = [&[magic], sizes].concat();
            words.iter().flat_map(|w| w.to_be_bytes()).collect()
        };
        let count = images.len() as u32;
        let pixels = [head(2051, &[count, 28, 28]), images.concat()].concat();
        let labels = (0..images.len()).map(|i| (i % 2) as u8).collect();
        let labels = [head(2049, &[count]), labels].concat();
        scratch.write(&format!("idx/{split}-images-idx3-ubyte"), pixels);
        scratch.write(&format!("idx/{split}-labels-idx1-ubyte"), labels);
    }
    scratch.write("idx/classes.txt", "even\nodd\n");
    shard(scratch, &["--in", "idx", "--out", "shards"]).ok();
}

fn images(n: usize) -> Vec<Vec<u8>> {
    let pixels = smoke(IMAGES);
    let images = pixels[16..].chunks_exact(784);
    images.take(n).map(<[u8]>::to_vec).collect()
}

#[test]
fn a_labelled_image_that_is_tested_on_is_refused() {
    let scratch = Scratch::new();
    let all = images(40);
    idx(&scratch, &all[..20], &[&all[20..], &all[3..5]].concat());
    let args = ["--fraction", "1", "--out", "l"];
    let words = ["2 of split \"test\"", "\"test-000020\" = \"train-000003\"", "--allow-duplicates"];
    subset(&scratch, &args).fails(65, &words);
    subset(&scratch, &[&args[..], &["-n"]].concat()).fails(65, &words);
    assert!(!scratch.path("l").exists());
    let ran = subset(&scratch, &[&args[..], &["--allow-duplicates"]].concat()).ok();
    assert!(ran.stderr.contains("warning: labelled images"), "{}", ran.stderr);
    assert_eq!(rows(&scratch, "l").len(), 20);
    // Without the copies, a subset is still complete.
    scratch.write("list", "train-000001\ntrain-000002\n");
    subset(&scratch, &["--list", "list", "--out", "m"]).ok();
}

#[test]
fn copies_are_never_on_both_sides_of_a_draw() {
    let scratch = Scratch::new();
    // Six images per class, each four times: each side finds images that are not copies of the other
    // side's.
    let base = images(12);
    let train: Vec<_> = (0..48).map(|i| base[i % 12].clone()).collect();
    idx(&scratch, &train, &images(60)[50..]);
    let content = |name| -> HashSet<usize> {
        let number = |key: String| key["train-".len()..].parse::<usize>().unwrap() % 12;
        keys(&scratch, name).into_iter().map(number).collect()
    };
    let sides = ["--val-per-class", "4", "--val-out", "v", "--out", "l", "-f"];
    for seed in ["0", "1", "2"] {
        subset(&scratch, &[&["--per-class", "4", "--seed", seed], &sides[..]].concat()).ok();
        assert!(content("l").is_disjoint(&content("v")), "seed {seed}");
    }
}

#[test]
fn near_duplicates_are_counted() {
    let scratch = Scratch::new();
    let all = images(40);
    // Brighter if that does not clip, and by one grey level if the pixel is not black.
    let brighter = |image: &Vec<u8>| image.iter().map(|v| v.saturating_add(9)).collect();
    let other = |image: &Vec<u8>| {
        let pixels = image.iter().map(|&v| v.saturating_add((v > 0).into()));
        pixels.collect()
    };
    let near: Vec<Vec<u8>> = vec![brighter(&all[2]), other(&all[3])];
    idx(&scratch, &all[..20], &[&all[30..], &near].concat());
    let ran = subset(&scratch, &["--fraction", "1", "--out", "l"]).ok();
    let words = "2 of 12 images of split \"test\" nearly equal a labelled one";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
}
