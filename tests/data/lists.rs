//! `s4l-shard` on lists, folders and labels as people have them: each image gets the intended label, or a
//! message says what is unclear.

use crate::common::{Ran, Scratch, jpeg, png, real, shard};
use s4l::shards::Shards;
use std::collections::BTreeMap;

/// Writes images, no two alike.
fn images(scratch: &Scratch, names: &[&str]) {
    for (row, name) in names.iter().enumerate() {
        let pixels = real(row).0;
        let is_png = name.to_lowercase().ends_with("png");
        scratch.write(name, if is_png { png(&pixels, 28) } else { jpeg(&pixels, 28) });
    }
}

fn sharded(scratch: &Scratch, line: &str) -> Ran {
    let line = format!("{line} --out shards --force");
    shard(scratch, &line.split(' ').collect::<Vec<_>>())
}

/// `<split> <key> <class>` of each image.
fn rows(scratch: &Scratch) -> Vec<String> {
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let mut rows = Vec::new();
    for name in shards.splits() {
        let split = shards.split(&name).unwrap();
        for (key, label) in split.keys().zip(split.labels().unwrap()) {
            let class = label.map_or("-", |label| &shards.classes()[label as usize]);
            rows.push(format!("{name} {key} {class}"));
        }
    }
    rows
}

fn classes(scratch: &Scratch) -> Vec<String> {
    Shards::open(&scratch.path("shards")).unwrap().classes().to_vec()
}

/// The shards have exactly these rows.
#[track_caller]
fn holds(scratch: &Scratch, line: &str, expected: &[&str]) -> Ran {
    let ran = sharded(scratch, line).ok();
    assert_eq!(rows(scratch), expected, "{line}\n{}", ran.stderr);
    ran
}

fn tar(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn one_label_a_line_belongs_to_the_image_of_its_number() {
    for first in [0, 1] {
        let scratch = Scratch::new();
        let names: Vec<String> = (first..first + 12).map(|i| format!("in/{i}.png")).collect();
        images(&scratch, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let labels: Vec<String> = (first..first + 12).map(|i| format!("c{}", i % 5)).collect();
        let mut expected: Vec<String> =
            (first..first + 12).map(|i| format!("train {i}.png c{}", i % 5)).collect();
        expected.sort();
        let check = |text: String, expected: &[String]| {
            scratch.write("labels.txt", text);
            let ran = sharded(&scratch, "--in in --labels labels.txt").ok();
            let mut rows = rows(&scratch);
            rows.sort();
            assert_eq!(rows, expected, "{}", ran.stderr);
            assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
        };
        check(labels.join("\n"), &expected);
        check(format!("\u{feff}label\r\n{}\r\n", labels.join("\r\n")), &expected);
        // An empty line is an image without a label, also at the end.
        for at in [3, 11] {
            let (mut labels, mut expected) = (labels.clone(), expected.clone());
            let key = format!("train {}.png ", first + at);
            expected.iter_mut().filter(|row| row.starts_with(&key)).for_each(|row| {
                *row = format!("{key}-");
            });
            labels[at] = String::new();
            check(labels.join("\n") + "\n", &expected);
        }
        // Numbers below a header with any name.
        let numbers: String = (0..12).map(|i| format!("{}\n", i % 5)).collect();
        scratch.write("labels.txt", format!("grade\n{numbers}"));
        sharded(&scratch, "--in in --labels labels.txt").ok();
        let label = |row: &str| row.rsplit(' ').next().unwrap().to_string();
        let found = rows(&scratch);
        let third = found.iter().find(|r| r.contains(&format!(" {}.png ", first + 2))).unwrap();
        assert_eq!(label(third), "2");
        // Input that does not fit is never counted as rejected images.
        for text in [labels[1..].join("\n"), labels.join("\n") + "\nc1\n"] {
            scratch.write("labels.txt", text);
            let ran = sharded(&scratch, "--in in --labels labels.txt --allow-rejects 0.5 -q");
            ran.fails(65, &["labels.txt", "12 images", "lines of one label", "name,label"]);
        }
    }
}

/// One list in all forms that people write: `a.jpg` is a cat, `b.jpg` a dog, `c.jpg` unlabelled.
#[test]
fn lists_say_the_same_however_they_are_written() {
    let scratch = Scratch::new();
    images(&scratch, &["in/x/a.jpg", "in/x/b.jpg", "in/y/c.jpg"]);
    let expected = ["train a.jpg cat", "train b.jpg dog", "train c.jpg -"];
    for list in [
        "id,breed\na.jpg,cat\nb.jpg,dog\nc.jpg,\n",
        "id_code,diagnosis\na,cat\nb,dog\nc,\n",
        "ImageId,Class\na,cat\nb,dog\nc,NaN\n",
        "filenames,cats\nin/x/a.jpg,cat\nin/x/b.jpg,dog\nin/y/c.jpg,\n",
        "photo,what\nx/a.png,cat\nx/b.png,dog\ny/c.png,-1\n",
        "class id,filepaths,labels,data set\n0.0,x/a.jpg,cat,train\n1.0,x/b.jpg,dog,train\n,c,,x\n",
        ",filename,label\n0,a.jpg,cat\n1,b.jpg,dog\n2,c.jpg,\n",
        "label,score,image\ncat,1,a.jpg\ndog,2,b.jpg\n,3,c.jpg\n",
        "a.jpg,cat\nb.jpg,dog\nc.jpg,\n",
        "a.jpg;cat\nb.jpg;dog\nc.jpg;\n",
        "path;label\nx\\a.jpg;cat\nx\\b.jpg;dog\ny\\c.jpg;\n",
        "\u{feff}a.jpg\tcat\r\nb.jpg\tdog\r\nc.jpg\t\r\n",
        "a.jpg     cat\nb.jpg     dog\nc.jpg\n",
        "/other/place/a.jpg cat\n/other/place/b.jpg dog\n/other/place/c.jpg\n",
        "#Image CLASS-ID\na cat\nb dog\nc nan\n",
        "ImageId,PredictionString\na,cat 240 170 260 240 cat 0 0 1 1\nb,dog 1 2 3 4\nc,\n",
    ] {
        scratch.write("train.csv", list);
        println!("{list}");
        holds(&scratch, "--in in --labels train.csv", &expected);
        assert_eq!(classes(&scratch), ["cat", "dog"]);
    }
    // The right column, if only the user can know it.
    scratch.write("list.txt", "#Image CLASS-ID SPECIES BREED ID\na 1 1 1\nb 2 1 2\nc 2 2 1\n");
    let ran = sharded(&scratch, "--in in --labels list.txt -q");
    ran.fails(65, &["CLASS-ID", "SPECIES", "--label-column"]);
    for column in ["SPECIES", "species", "3"] {
        let line = format!("--in in --labels list.txt --label-column {column}");
        let ran = holds(&scratch, &line, &["train a.jpg 1", "train b.jpg 1", "train c.jpg 2"]);
        assert!(
            ran.stderr.contains("labels: column \"SPECIES\" of list.txt, by column \"#Image\"")
        );
    }
    scratch.write("two.csv", "image,preview,label\nb,a,cat\na,b,dog\nc,c,cat\n");
    let line = "--in in --labels two.csv --key-column preview";
    holds(&scratch, line, &["train a.jpg cat", "train b.jpg dog", "train c.jpg cat"]);
    // Other columns give other shards.
    let ran = shard(&scratch, &["--in", "in", "--labels", "two.csv", "--out", "shards", "-q"]);
    ran.fails(73, &["--force"]);
    // Columns of 0 and 1.
    scratch.write("truth.csv", "image,MEL,NV,BCC\na.jpg,0.0,1.0,0.0\nb,1,0,0\nc,1.0,0.0,0.0\n");
    holds(
        &scratch,
        "--in in --labels truth.csv",
        &["train a.jpg NV", "train b.jpg MEL", "train c.jpg MEL"],
    );
    assert_eq!(classes(&scratch), ["BCC", "MEL", "NV"]);
    // Composed and decomposed Unicode.
    let scratch = Scratch::new();
    images(&scratch, &["in/cafe\u{301}.png", "in/the\u{301}.png"]);
    scratch.write("train.csv", "name,label\ncaf\u{e9}.png,hot\nth\u{e9},hot\n");
    sharded(&scratch, "--in in --labels train.csv").ok();
    assert!(rows(&scratch).iter().all(|row| row.ends_with(" hot")));
}

#[test]
fn labels_that_are_numbers_are_numbers_in_every_list() {
    let scratch = Scratch::new();
    let names: Vec<String> = (0..14).map(|i| format!("in/{i:02}.jpg")).collect();
    images(&scratch, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let expected: Vec<String> = (0..14)
        .map(|i| format!("train {i:02}.jpg {}", if i < 12 { i.to_string() } else { "-".into() }))
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    for (dot, none) in [("", ""), ("", "-1"), (".0", "NaN"), (".0", "-1.0"), (".", "nan")] {
        let label = |i: usize| if i < 12 { format!("{i}{dot}") } else { none.to_string() };
        let list: String = (0..14).map(|i| format!("{i:02}.jpg,{}\n", label(i))).collect();
        scratch.write("train.csv", format!("filename,label\n{list}"));
        holds(&scratch, "--in in --labels train.csv", &expected);
        let digits: Vec<String> = (0..12).map(|d| d.to_string()).collect();
        assert_eq!(classes(&scratch), digits);
    }
    // Numbers count the classes that are given.
    scratch.write("names.txt", "\u{feff}n0\r\nn1\r\nn2\r\n");
    let list: String = (0..14).map(|i| format!("{i:02}.jpg,{}.0\n", i % 3)).collect();
    scratch.write("train.csv", format!("filename,label\n{list}"));
    sharded(&scratch, "--in in --labels train.csv --classes names.txt").ok();
    assert_eq!(classes(&scratch), ["n0", "n1", "n2"]);
    assert_eq!(rows(&scratch)[4], "train 04.jpg n1");
    for (label, found) in [("0.5", "0.5, not a whole"), ("\"[3]\"", "[3], a list"), ("-2", "-2")] {
        scratch.write("train.csv", format!("filename,label\n00.jpg,1\n01.jpg,{label}\n"));
        sharded(&scratch, "--in in --labels train.csv -q").fails(65, &[found, "line 3"]);
    }
}

#[test]
fn lists_that_do_not_fit_say_what_there_is() {
    let scratch = Scratch::new();
    images(&scratch, &["in/a.jpg", "in/b.jpg", "in/c.jpg", "two/x/a.jpg", "two/y/a.jpg"]);
    let cases: [(&str, &[&str]); 8] = [
        ("file_name,score,age\na.jpg,1,2\n", &["\"score\", \"age\"", "--label-column"]),
        ("name,label\nx.jpg,1\ny.jpg,2\n", &["2 names of none", "\"x.jpg\"", "\"a.jpg\""]),
        ("photo,grade,age\nx1,1,2\n", &["\"photo\", \"grade\"", "--key-column"]),
        (
            "name,label\na.jpg,\nb.jpg,\nc.jpg,-1\n",
            &["labels of images", "column \"label\"", "none"],
        ),
        ("name\nb.jpg\nc.jpg\n", &["a column of labels", "names alone"]),
        ("name,label\nb.jpg,1\nin/b,2\n", &["second one for \"in/b\" on line 3"]),
        ("image,A,B\nb.jpg,1,0\nc.jpg,1,1\n", &["several that are 1: A, B", "line 3"]),
        ("image,A,B\nb.jpg,1,0\nc.jpg,0,0\n", &["no column that is 1", "line 3"]),
    ];
    for (list, words) in cases {
        scratch.write("train.csv", list);
        println!("{list}");
        sharded(&scratch, "--in in --labels train.csv -q --allow-rejects 1").fails(65, words);
        assert!(!scratch.path("shards").exists());
    }
    scratch.write("two.csv", "name,label\nx/a.jpg,1\na.jpg,2\n");
    let ran = sharded(&scratch, "--in two --labels two.csv -q");
    ran.fails(65, &["\"a.jpg\" on line 3", "\"x/a.jpg\" or \"y/a.jpg\"", "folder"]);
    scratch.write("utf16.csv", b"\xff\xfen\0a\0m\0e\0,\0l\0\n\0");
    sharded(&scratch, "--in in --labels utf16.csv -q").fails(65, &["UTF-8"]);
    // A part that fits is used, with a message about the rest.
    scratch.write("train.csv", "name,label\nb.jpg,1\nx1,1\nx2,1\nx3,1\nx4,2\n");
    let ran = sharded(&scratch, "--in in --labels train.csv -q").ok();
    let words = "2 of 3 images have no line, as \"a.jpg\", \"c.jpg\"; 4 of 5 lines name no image, \
                 as \"x1\", \"x2\", \"x3\"";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert_eq!(rows(&scratch), ["train a.jpg -", "train b.jpg 1", "train c.jpg -"]);
    sharded(&scratch, "--in in --label-column x -q").fails(2, &["--label-column", "no columns"]);
}

#[test]
fn a_list_adds_to_the_labels_of_class_folders() {
    let scratch = Scratch::new();
    images(
        &scratch,
        &["in/train/n01/t0.jpg", "in/train/n02/t1.jpg", "in/val/v0.jpg", "in/val/v1.jpg"],
    );
    scratch.write("val.csv", "name,label\nv0.jpg,n02\nv1.jpg,n01\n");
    let expected = ["train t0.jpg n01", "train t1.jpg n02", "val v0.jpg n02", "val v1.jpg n01"];
    let ran = holds(&scratch, "--in in --labels val.csv", &expected);
    assert!(
        ran.stderr.contains("column \"label\" of val.csv, by column \"name\", and class folders")
    );
    // If both name a class, the list decides, with a message.
    scratch.write("other.csv", "name,label\nt0.jpg,n02\nt1.jpg,n02\nv0.jpg,n02\nv1.jpg,n01\n");
    let second = ["train t0.jpg n02", "train t1.jpg n02", "val v0.jpg n02", "val v1.jpg n01"];
    let ran = holds(&scratch, "--in in --labels other.csv", &second);
    let words = "other.csv: 1 images have another class than that of their folder; the list \
                 decides: \"train/n01/t0.jpg\" as \"n02\"";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    scratch.write("other.txt", "t0.jpg 1\nt1.jpg 1\nv0.jpg 1\nv1.jpg 0\n");
    scratch.write("names.txt", "n01\nn02\n");
    let ran = holds(&scratch, "--in in --labels other.txt --classes names.txt", &second);
    assert!(ran.stderr.contains("1 images have another class than that of"), "{}", ran.stderr);
    // Numbers say nothing about folders, unless the classes are named.
    for list in ["v0.jpg 1\nv1.jpg 0\n", "1\n0\n"] {
        scratch.write("val.txt", list);
        let ran = sharded(&scratch, "--in in --labels val.txt -q");
        assert_eq!(ran.code, 65);
        let error = ran.stderr.lines().last().unwrap();
        assert!(error.contains("label \"0\", folder \"n01\"; name the classes"), "{error}");
        let ran = holds(&scratch, "--in in --labels val.txt --classes names.txt", &expected);
        assert!(!ran.stderr.contains("another class"), "{}", ran.stderr);
    }
}

#[test]
fn a_list_of_files_is_read_as_people_write_it() {
    let scratch = Scratch::new();
    images(&scratch, &["train/cat/0.jpg", "train/dog/1.jpg"]);
    let expected = ["train 0.jpg x", "train 1.jpg y"];
    for list in [
        "path;label\ntrain/cat/0.jpg;x\ntrain/dog/1.jpg;y\n",
        "path,label\r\ntrain\\cat\\0.jpg,x\r\ntrain\\dog\\1.jpg,y\r\n",
        "0,./train/cat/0.jpg,x\n1,train/dog/1.jpg,y\n",
        "class id,filepaths,labels,data set\n0.0,train/cat/0.jpg,x,train\n1,train/dog/1.jpg,y,train\n",
    ] {
        scratch.write("list.csv", list);
        println!("{list}");
        let more = if list.starts_with('0') { " --label-column 3" } else { "" };
        holds(&scratch, &format!("--in list.csv{more}"), &expected);
    }
    scratch.write("list.csv", "id_code,diagnosis\n0,x\n1,y\n");
    let ran = sharded(&scratch, "--in list.csv -q");
    ran.fails(65, &["2 names of no file", "\"0\"", "--labels"]);
}

#[test]
fn folders_named_as_splits_are_splits_beside_splits_alone() {
    let cases: [(&[&str], &[&str], &str); 5] = [
        (
            &["bus/0.jpg", "car/1.jpg", "train/2.jpg"],
            &["train 0.jpg bus", "train 1.jpg car", "train 2.jpg train"],
            "train is a class",
        ),
        (
            &["invalid/0.jpg", "valid/1.jpg"],
            &["train 0.jpg invalid", "train 1.jpg valid"],
            "valid is a class",
        ),
        (
            &["Training/glioma/0.jpg", "Training/train/1.jpg", "Testing/glioma/2.jpg"],
            &["test 2.jpg glioma", "train 0.jpg glioma", "train 1.jpg train"],
            "folder Testing",
        ),
        (
            &["evaluation/a/0.jpg", "train/b/1.jpg", "validation/a/2.jpg"],
            &["test 0.jpg a", "train 1.jpg b", "val 2.jpg a"],
            "folder evaluation",
        ),
        (
            &["dev/a/0.jpg", "test/b/1.jpg", "train/a/2.jpg"],
            &["test 1.jpg b", "train 2.jpg a", "val 0.jpg a"],
            "folder dev",
        ),
    ];
    for (names, expected, word) in cases {
        let scratch = Scratch::new();
        let folder: Vec<String> = names.iter().map(|n| format!("in/{n}")).collect();
        images(&scratch, &folder.iter().map(String::as_str).collect::<Vec<_>>());
        let bytes = |n: &str| std::fs::read(scratch.path(&format!("in/{n}"))).unwrap();
        let entries: Vec<(&str, Vec<u8>)> = names.iter().map(|n| (*n, bytes(n))).collect();
        scratch.write("in.tar", tar(&entries));
        for input in ["in", "in.tar"] {
            let ran = holds(&scratch, &format!("--in {input}"), expected);
            assert!(ran.stderr.contains(word), "{}", ran.stderr);
        }
    }
    // One level down, with a message; in a tar all levels are searched.
    let scratch = Scratch::new();
    images(&scratch, &["in/brain/Training/a/0.jpg", "in/brain/Testing/a/1.jpg"]);
    let ran = sharded(&scratch, "--in in -q");
    ran.fails(65, &["in/brain/Testing", "the folder of a split", "name in/brain with --in"]);
    holds(&scratch, "--in in/brain", &["test 1.jpg a", "train 0.jpg a"]);
    images(&scratch, &["in/brain/notes/a/0.jpg"]);
    sharded(&scratch, "--in in/brain -q").fails(65, &["also notes", "move it"]);
    // The same words count in file names.
    let image = |row: usize| vec![("a.jpg", jpeg(&real(row).0, 28))];
    for (row, name) in ["training-0.tar", "Eval-0.tar", "valid_0.tar"].iter().enumerate() {
        scratch.write(&format!("tars/{name}"), tar(&image(row)));
    }
    let ran = holds(&scratch, "--in tars", &["test a.jpg -", "train a.jpg -", "val a.jpg -"]);
    assert!(ran.stderr.contains("labels: none"), "{}", ran.stderr);
}

#[test]
fn images_without_a_class_are_those_that_people_put_apart() {
    let scratch = Scratch::new();
    images(
        &scratch,
        &["in/a/0.jpg", "in/b/1.jpg", "in/unlabeled/2.jpg", "in/3.jpg", "in/extra/4.jpg"],
    );
    let expected =
        ["train 3.jpg -", "train 0.jpg a", "train 1.jpg b", "train 4.jpg -", "train 2.jpg -"];
    let ran = holds(&scratch, "--in in --unlabelled extra", &expected);
    assert!(ran.stderr.contains("1 images lie beside folders"), "{}", ran.stderr);
    let table: Vec<&str> = ran.stderr.lines().filter(|l| l.starts_with("train")).collect();
    let cells: Vec<&str> = table[0].split_whitespace().collect();
    assert_eq!(cells, ["train", "5", "2", "3", "2", "1", "a", "1", "a", "0", "in"]);
    assert_eq!(classes(&scratch), ["a", "b"]);
    let ran = sharded(&scratch, "--in in --unlabelled none -q");
    assert_eq!(ran.code, 65);
    assert_eq!(ran.code, 65);
    assert!(ran.stderr.contains("a folder \"none\" with images"), "{}", ran.stderr);
    assert!(ran.stderr.contains("found a, b, extra"), "{}", ran.stderr);
    let entry = |n: &'static str| (n, std::fs::read(scratch.path(&format!("in/{n}"))).unwrap());
    scratch.write("in.tar", tar(&["a/0.jpg", "b/1.jpg", "unlabeled/2.jpg"].map(entry)));
    holds(&scratch, "--in in.tar", &["train 0.jpg a", "train 1.jpg b", "train 2.jpg -"]);
    // Beside splits.
    let scratch = Scratch::new();
    images(&scratch, &["in/train/a/0.jpg", "in/train/unsup/1.jpg", "in/unlabelled/2.jpg"]);
    images(&scratch, &["in/test/a/3.jpg"]);
    let expected = ["test 3.jpg a", "train 0.jpg a", "train 1.jpg -", "train 2.jpg -"];
    holds(&scratch, "--in in", &expected);
}

#[test]
fn numbers_in_text_are_in_their_order_but_folders_are_as_torchvision_has_them() {
    let scratch = Scratch::new();
    let entry = |i: usize| {
        let label = format!("{{\"label\": \"{i}\"}}").into_bytes();
        [(format!("{i}.jpg"), jpeg(&real(i).0, 28)), (format!("{i}.json"), label)]
    };
    let entries: Vec<(String, Vec<u8>)> = (0..12).flat_map(entry).collect();
    let entries: Vec<(&str, Vec<u8>)> =
        entries.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    scratch.write("in.tar", tar(&entries));
    sharded(&scratch, "--in in.tar").ok();
    let digits: Vec<String> = (0..12).map(|d| d.to_string()).collect();
    assert_eq!(classes(&scratch), digits);
    let names: Vec<String> = (0..12).map(|i| format!("in/{i}/{i}.jpg")).collect();
    images(&scratch, &names.iter().map(String::as_str).collect::<Vec<_>>());
    sharded(&scratch, "--in in").ok();
    assert_eq!(classes(&scratch)[..4], ["0", "1", "10", "11"]);
    // Two spellings of a class are one class.
    let scratch = Scratch::new();
    images(&scratch, &["in/train/caf\u{e9}/0.jpg", "in/train/tee/1.jpg"]);
    images(&scratch, &["in/val/cafe\u{301}/2.jpg", "in/val/tee/3.jpg"]);
    let expected =
        ["train 0.jpg caf\u{e9}", "train 1.jpg tee", "val 2.jpg caf\u{e9}", "val 3.jpg tee"];
    let ran = holds(&scratch, "--in in", &expected);
    assert!(ran.stderr.contains("Unicode"), "{}", ran.stderr);
}

/// Labels in parquet as pandas writes them: a float column because of a missing label, or text.
#[test]
fn numbers_of_parquet_are_numbers() {
    use arrow::array::{ArrayRef, BinaryArray, Float64Array, RecordBatch, StringArray};
    use std::sync::Arc;
    let images: Vec<Vec<u8>> = (0..12).map(|i| jpeg(&real(i).0, 28)).collect();
    let images: ArrayRef =
        Arc::new(BinaryArray::from_iter_values(images.iter().map(Vec::as_slice)));
    let floats: Float64Array = (0..11).map(f64::from).chain([f64::NAN]).map(Some).collect();
    let text: Vec<String> = (0..11).map(|i| i.to_string()).chain(["-1".to_string()]).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("label", Arc::new(floats)),
        ("label", Arc::new(StringArray::from(text.clone()))),
        ("species", Arc::new(StringArray::from(text))),
    ];
    for (name, labels) in columns {
        let scratch = Scratch::new();
        let batch =
            RecordBatch::try_from_iter([("image", images.clone()), (name, labels)]).unwrap();
        let file = std::fs::File::create(scratch.path("train.parquet")).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let line = format!("--in train.parquet --label-column {name}");
        let ran = sharded(&scratch, &line).ok();
        assert!(ran.stderr.contains(&format!("labels: column {name:?}")), "{}", ran.stderr);
        let digits: Vec<String> = (0..11).map(|d| d.to_string()).collect();
        assert_eq!(classes(&scratch), digits);
        let labels: Vec<String> =
            rows(&scratch).iter().map(|r| r.rsplit(' ').next().unwrap().to_string()).collect();
        assert_eq!(labels, [&digits[..], &["-".to_string()]].concat());
        let ran = sharded(&scratch, "--in train.parquet --label-column other -q");
        ran.fails(65, &["\"other\"", "columns image, ", "--label-column"]);
    }
}

#[test]
fn of_several_kinds_in_a_folder_one_is_taken_or_both_are_named() {
    let scratch = Scratch::new();
    images(&scratch, &["dogs/beagle/0.jpg", "dogs/boxer/1.jpg"]);
    let lists = tar(&[("lists/example.jpg", jpeg(&real(5).0, 28))]);
    scratch.write("dogs/lists.tar", &lists);
    let expected = ["train 0.jpg beagle", "train 1.jpg boxer"];
    let ran = holds(&scratch, "--in dogs", &expected);
    assert!(ran.stderr.contains("dogs/lists.tar"), "{}", ran.stderr);
    images(&scratch, &["flat/0.jpg", "one/a/0.jpg"]);
    for folder in ["flat", "one"] {
        scratch.write(&format!("{folder}/lists.tar"), &lists);
        let ran = sharded(&scratch, &format!("--in {folder} -q"));
        ran.fails(65, &["tar (lists.tar)", "image", "--format"]);
    }
    holds(&scratch, "--in flat --format folder", &["train 0.jpg -"]);
    holds(&scratch, "--in flat --format tar", &["train example.jpg -"]);
    // Files that operating systems leave behind are ignored, at any level.
    for name in ["__MACOSX/dogs/a/._0.jpg", "beagle/.ipynb_checkpoints/0.jpg", "boxer/Thumbs.db"] {
        scratch.write(&format!("dogs/{name}"), "x");
    }
    let ran = holds(&scratch, "--in dogs", &expected);
    assert!(!ran.stderr.contains("Thumbs"), "{}", ran.stderr);
    let image = |row: usize| jpeg(&real(row).0, 28);
    let entries = [("a/0.jpg", image(0)), ("a/.git/1.jpg", image(1)), ("b/2.jpg", image(2))];
    scratch.write("hidden.tar", tar(&entries));
    holds(&scratch, "--in hidden.tar", &["train 0.jpg a", "train 2.jpg b"]);
    // A pipe is not opened: that would wait for ever.
    let mkfifo = |name: &str| {
        let path = std::ffi::CString::new(scratch.path(name).to_str().unwrap()).unwrap();
        // SAFETY: the path is a string that ends in a zero.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    };
    mkfifo("dogs/beagle/pipe");
    let ran = holds(&scratch, "--in dogs", &expected);
    assert!(ran.stderr.contains("2 files are not images"), "{}", ran.stderr);
    mkfifo("dogs/beagle/pipe.jpg");
    mkfifo("dogs/pipe");
    holds(&scratch, "--in dogs", &expected);
    sharded(&scratch, "--in dogs/pipe -q").fails(65, &["dogs/pipe", "regular file"]);
    let ran = sharded(&scratch, "--in one/a --labels dogs/pipe -q");
    ran.fails(65, &["dogs/pipe", "regular file"]);
}

/// The closing table, and its content in `dataset.json`; the same with parts.
#[test]
fn the_last_lines_say_what_was_taken() {
    let scratch = Scratch::new();
    images(
        &scratch,
        &["in/train/cat/0.jpg", "in/train/cat/1.jpg", "in/train/dog/2.jpg", "in/valid/3.jpg"],
    );
    scratch.write("in/valid/4.jpg", "no image");
    let ran = sharded(&scratch, "--in in --allow-rejects 0.5").ok();
    let lines: Vec<Vec<String>> = ran
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("split"))
        .map(|line| {
            line.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_string).collect()
        })
        .collect();
    assert_eq!(
        lines[0].join("|"),
        "split|images|labelled|unlabelled|classes|smallest|largest|rejects|from"
    );
    assert_eq!(lines[1].join("|"), "train|3|3|0|2|1 dog|2 cat|0|folder train");
    assert_eq!(lines[2].join("|"), "val|1|0|1|0|-|-|1|folder valid");
    assert_eq!(lines[3].join("|"), "labels: class folders");
    assert_eq!(lines.len(), 5, "{}", ran.stderr);
    let json = std::fs::read_to_string(scratch.path("shards/dataset.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let splits = BTreeMap::from([("train", "folder train"), ("val", "folder valid")]);
    assert_eq!(json["taken"], serde_json::json!({"labels": "class folders", "splits": splits}));
    for part in ["1/2", "2/2"] {
        let line = ["--in", "in", "--allow-rejects", "0.5", "--out", "parts", "--part", part];
        shard(&scratch, &line).ok();
    }
    let merged = shard(&scratch, &["--merge", "--out", "parts", "--allow-rejects", "0.5"]).ok();
    for line in ran.stderr.lines().filter(|l| l.starts_with("train ") || l.starts_with("labels:")) {
        assert!(merged.stderr.contains(line), "{line}\n{}", merged.stderr);
    }
}
