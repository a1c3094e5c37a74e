//! The examples of every help text and of the documents run as they stand, in a folder with the files that
//! they name.

use crate::common::{Scratch, commands, jpeg, png, real};
use rayon::prelude::*;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Documents whose examples are run.
const DOCUMENTS: [&str; 3] = ["README.md", "docs/DATA.md", "docs/EXPORT.md"];

/// Commands that make the files of the examples, in this order.
const MADE: &str = "\
s4l-shard --in many-data --out many
s4l-subset --in many --per-class 200 --out labelled_10p.parquet
s4l-shard --in data --out shards
s4l-subset --in shards --per-class 10 --out labelled.parquet --val-per-class 5 --val-out val.parquet
s4l-pretrain --in shards --labelled labelled.parquet --recipe R.toml --out runs/seed0/vat/model
s4l-eval --in shards --model runs/seed0/vat/model --out runs/seed0/vat/eval.parquet
s4l-report --in runs --out report
cp -r runs/seed0/vat/model model
cp -r model model2
cp -r model runs/model
cp runs/seed0/vat/eval.parquet eval.parquet
mkdir -p step1 step2 runs/pets/seed0/moam_step3
s4l-pseudolabel --in shards --model model --labelled labelled.parquet --out labels.parquet
cp labels.parquet step1
cp labels.parquet step2
s4l-export --model model --to huggingface --out share
cp -r model runs/pets/seed0/moam_step3
cp eval.parquet runs/pets/seed0/moam_step3
";

/// The parts that an example of a program joins.
const PARTS: [(&str, &str); 3] = [
    ("s4l-shard --merge", "s4l-shard --in big.tar --part"),
    ("s4l-pseudolabel --merge", "s4l-pseudolabel --model runs/model --out labels.parquet --part"),
    ("s4l-eval --merge", "s4l-eval --model model --out eval.parquet --part"),
];

#[test]
fn examples_run_as_they_stand() {
    let world = world();
    let mut lines = Vec::new();
    for command in commands() {
        let help = command.get_before_help().unwrap().to_string();
        let of_help = help.lines().filter_map(|line| line.strip_prefix("  "));
        let is_command = |line: &&str| ["s4l-", "curl "].iter().any(|word| line.starts_with(word));
        lines.extend(of_help.filter(is_command).map(String::from));
    }
    lines.extend(DOCUMENTS.iter().flat_map(|path| of_document(path)));
    assert!(lines.len() > 60, "{lines:?}");
    let failed: Vec<String> = lines.par_iter().filter_map(|line| run(&world, line).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The lines of a document's code blocks that begin with a stage. make has its own tests.
fn of_document(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap();
    let blocks = text.split("\n```").skip(1).step_by(2);
    let lines = blocks.flat_map(|block| block.lines().skip(1));
    lines.filter(|line| line.starts_with("s4l-")).map(String::from).collect()
}

/// Runs a line in a copy of the world, after removing what the line makes. Remarks begin after two spaces.
fn run(world: &Scratch, line: &str) -> Result<(), String> {
    let line = line.split("  ").next().unwrap();
    let scratch = Scratch::new();
    shell(&scratch, &format!("cp -r '{}'/. .", world.path("").display()))?;
    let words: Vec<&str> = line.split(' ').collect();
    let outputs = ["--out", "-o", "--val-out"];
    let made = words.windows(2).filter(|pair| outputs.contains(&pair[0])).map(|pair| pair[1]);
    let default = (words[0] == "s4l-shard").then_some("shards");
    // Outputs that the line also reads stay.
    let only_made = |made: &&str| words.iter().filter(|word| *word == made).count() < 2;
    for made in made.chain(default).filter(only_made) {
        shell(&scratch, &format!("rm -rf {made}"))?;
    }
    if words[0] == "s4l-subset" {
        shell(&scratch, "rm -r shards && mv many shards")?;
    }
    for (_, part) in PARTS.iter().filter(|(merge, _)| line.starts_with(merge)) {
        (1..=2).try_for_each(|i| shell(&scratch, &format!("{part} {i}/2")))?;
    }
    shell(&scratch, line)
}

/// Runs a shell line with the programs of this build, and with stand-ins for other programs.
fn shell(scratch: &Scratch, line: &str) -> Result<(), String> {
    let programs = Path::new(env!("CARGO_BIN_EXE_s4l-shard")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(scratch.path(""))
        .env("PATH", format!("{}:{}:{path}", scratch.path("bin").display(), programs.display()))
        .env_remove("S4L_MODEL")
        .output()
        .unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        code => Err(format!("{line}: {code:?} {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// A folder with all files that the examples name.
fn world() -> Scratch {
    let scratch = Scratch::new();
    let copy = |from: &str, to: &str| {
        shell(&scratch, &format!("cp -r '{ROOT}/{from}' '{to}'")).unwrap();
    };
    copy("pipelines/smoke/data", "data");
    for folder in ["photos/train/unlabeled", "pipelines/fashion", "more", "new", "bin"] {
        std::fs::create_dir_all(scratch.path(folder)).unwrap();
    }
    copy("pipelines/smoke/data", "pipelines/fashion/data");
    copy("pipelines/fashion/data", "many-data");
    copy("pipelines/imagenet", "pipelines/imagenet");
    for sample in ["webdataset", "huggingface", "ilsvrc/ILSVRC2012_img_train.tar"] {
        copy(&format!("tests/golden/inputs/{sample}"), ".");
    }
    copy("tests/golden/inputs/tfrecord", "tfrecords");
    for file in ["ILSVRC2012_img_val.tar", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"] {
        copy(&format!("tests/golden/inputs/ilsvrc/{file}"), ".");
    }
    copy("fuzz/corpus/npz/grey", "pathmnist.npz");
    cifar(&scratch);
    photos(&scratch);
    recipes(&scratch);
    for (name, script) in [("curl", "cat photo.jpg"), ("jq", "cat")] {
        scratch.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n"));
        shell(&scratch, &format!("chmod +x bin/{name}")).unwrap();
    }
    for line in MADE.lines() {
        shell(&scratch, line).unwrap();
    }
    scratch
}

/// CIFAR-10 in its binary form, with some real pixels.
fn cifar(scratch: &Scratch) {
    let bytes = std::fs::read(format!("{ROOT}/fuzz/corpus/encoded/rgb.bmp")).unwrap();
    let record =
        |label: u8| [vec![label], bytes.iter().copied().cycle().take(3072).collect()].concat();
    for (name, labels) in [("data_batch_1.bin", 0..10), ("test_batch.bin", 0..3)] {
        let records: Vec<u8> = labels.flat_map(record).collect();
        scratch.write(&format!("cifar-10-batches-bin/{name}"), records);
    }
    let names = (0..10).map(|class| format!("class{class}\n")).collect::<String>();
    scratch.write("cifar-10-batches-bin/batches.meta.txt", names);
}

/// Photographs in class folders and without a class, archives and lists of them.
fn photos(scratch: &Scratch) {
    let (mut list, mut labels) = (String::from("path,label\n"), String::from("name,label\n"));
    let mut diagnoses = String::from("name,age,diagnosis\n");
    for row in 0..60 {
        let folder = match row {
            0..10 => "train/cat",
            10..20 => "train/dog",
            20..40 => "train/unlabeled",
            40..50 => "test/cat",
            _ => "test/dog",
        };
        let name = format!("{row:02}.jpg");
        scratch.write(&format!("photos/{folder}/{name}"), jpeg(&real(row).0, 28));
        let class = ["cat", "dog"][row % 2];
        if row < 40 {
            list += &format!("photos/{folder}/{name},{class}\n");
        }
        if (20..40).contains(&row) {
            labels += &format!("{name},{class}\n");
            diagnoses += &format!("{name},{row},{class}\n");
        }
    }
    scratch.write("more/1.png", png(&real(0).0, 28));
    scratch.write("list.csv", list);
    scratch.write("labels.csv", labels);
    scratch.write("l.csv", diagnoses);
    for line in [
        "cp photos/test/cat/40.jpg photo.jpg",
        "cp photos/test/dog/*.jpg new",
        "for name in photos new big; do tar cf $name.tar photos; done",
    ] {
        shell(scratch, line).unwrap();
    }
    let mut zip = zip::ZipWriter::new(std::fs::File::create(scratch.path("photos.zip")).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for row in 0..4 {
        zip.start_file(format!("photos/{}/{row}.jpg", ["cat", "dog"][row % 2]), options).unwrap();
        std::io::Write::write_all(&mut zip, &jpeg(&real(row).0, 28)).unwrap();
    }
    zip.finish().unwrap();
}

/// Short recipes with the names of the examples, and a list of images.
fn recipes(scratch: &Scratch) {
    let smoke = |row: &str| {
        let text = std::fs::read_to_string(format!("{ROOT}/pipelines/smoke/{row}.toml")).unwrap();
        // The stem that timm has, and images of the network's size.
        text.replace("\"small\"", "\"imagenet\"").replace("units = [1, 1]", "units = [1]")
    };
    scratch.write("R.toml", smoke("supervised_10p"));
    scratch.write("vat.toml", smoke("vat"));
    scratch.write("student.toml", smoke("pseudo_labels"));
    scratch.write("pipelines/fashion/moam_step1.toml", smoke("moam_step1"));
    let names: Vec<String> = (0..40).map(|row| format!("\"train-{row:06}\"")).collect();
    scratch.write("10percent.json", format!("{{\"values\": [{}]}}", names.join(", ")));
}
