//! `s4l-export`: the formats of timm and transformers, written and read again, and ONNX.
//! `tests/golden/resnetv2.py` made a network of timm's and its logits; `tools/check-export.py` compares
//! with timm, transformers and ONNX Runtime.

use crate::common::training::{
    EVAL, PRETRAIN, PSEUDOLABEL, labelled_shards, moam, pretrain, words, write_labels,
};
use crate::common::{Ran, Scratch, contents, smoke_shards};
use prost::Message;
use s4l::model::onnx::proto::{GraphProto, ModelProto, TensorProto, ValueInfoProto};
use s4l::shards::Shards;
use s4l::tables::table;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const EXPORT: &str = env!("CARGO_BIN_EXE_s4l-export");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/resnetv2");

fn export(scratch: &Scratch, line: &str) -> Ran {
    scratch.run(EXPORT, &words(&format!("--to huggingface -q {line}")))
}

/// Logits of the images of a labelled file, by `s4l-eval`.
fn logits(scratch: &Scratch, model: &str, labelled: &str) -> Vec<f32> {
    let line = format!(
        "--in shards --split train --labelled {labelled} --model {model} --out e.parquet -q --force"
    );
    scratch.run(EVAL, &words(&line)).ok();
    let table = table::read(&scratch.path("e.parquet"), "s4l-eval").unwrap();
    table.float_lists("logits").unwrap().0
}

/// Shape and values of every float tensor of a folder's weights.
fn tensors(folder: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = tensors.iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
    floats
        .map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter();
            let values = values.map(|b| f32::from_le_bytes(*b)).collect();
            (name.to_string(), (view.shape().to_vec(), values))
        })
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let furthest = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest <= tolerance, "{furthest}");
}

#[test]
fn a_network_of_timm_s_gives_timm_s_logits() {
    let scratch = smoke_shards();
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    let rows: Vec<(&str, i64)> = (0..4).map(|row| (split.key(row), 0)).collect();
    write_labels(&scratch, "four.parquet", &rows);
    let expected: Vec<Vec<f32>> =
        serde_json::from_value(json(&Path::new(GOLDEN).join("logits.json"))).unwrap();
    let found = logits(&scratch, GOLDEN, "four.parquet");
    // The logits are around 2, in float32; timm's are in float64.
    assert_close(&found, &expected.concat(), 1e-5);
}

#[test]
fn what_timm_wrote_is_written_the_same() {
    let scratch = Scratch::new();
    export(&scratch, &format!("--model {GOLDEN} --out timm")).ok();
    let (theirs, ours) = (tensors(Path::new(GOLDEN)), tensors(&scratch.path("timm")));
    assert!(theirs.keys().eq(ours.keys()));
    for (name, (shape, values)) in &theirs {
        assert_eq!(*shape, ours[name].0, "{name}");
        // A variance was moved by 1e-3 - 1e-5 and back.
        let tolerance = if name.ends_with("running_var") { 2e-10 } else { 0.0 };
        assert_close(values, &ours[name].1, tolerance);
    }
    let (theirs, ours) =
        (json(&Path::new(GOLDEN).join("config.json")), json(&scratch.path("timm/config.json")));
    for key in ["architecture", "num_classes", "num_features", "global_pool", "label_names"] {
        assert_eq!(theirs[key], ours[key], "{key}");
    }
    for key in ["stem_type", "layers", "channels", "stem_chs", "in_chans"] {
        assert_eq!(theirs["model_args"][key], ours["model_args"][key], "{key}");
    }
    for key in ["input_size", "mean", "std", "crop_pct", "crop_mode", "num_classes"] {
        let (theirs, ours) = (&theirs["pretrained_cfg"][key], &ours["pretrained_cfg"][key]);
        assert_eq!(theirs, ours, "{key}");
    }
}

#[test]
fn a_trained_model_there_and_back() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "model", "-s stem=imagenet").ok();
    let line = "--model model --out timm";
    export(&scratch, line).ok();
    let files = contents(&scratch.path("timm"));
    let names: Vec<_> = files.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["README.md", "config.json", "model.safetensors"]);
    assert!(scratch.path("timm.prov.json").is_file());
    let bytes = String::from_utf8_lossy(&files[2].1).into_owned();
    for key in ["s4l.tool", "s4l.input.model", "s4l.recipe", "s4l.version"] {
        assert!(bytes.contains(key), "{key}");
    }
    let inspect = env!("CARGO_BIN_EXE_s4l-inspect");
    scratch.run(inspect, &["--verify", "timm"]).ok();

    let [before, after] = ["model", "timm"].map(|m| logits(&scratch, m, "val.parquet"));
    // The variances were rounded.
    assert_close(&before, &after, 1e-5);
    assert!(before.iter().any(|l| l.abs() > 0.1));
    let line = "--in shards --model timm --out labels.parquet -q";
    scratch.run(PSEUDOLABEL, &words(line)).ok();
    let start = "--labelled labelled.parquet --init timm -s stem=imagenet";
    moam(&scratch, "finetune", "two", start).ok();
    export(&scratch, "--model two --out timm2").ok();
}

#[test]
fn up_to_date_exists_force_and_a_dry_run() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "-s stem=imagenet").ok();
    let line = "--model model --out timm";
    let before = scratch.names();
    let plan = export(&scratch, &format!("{line} --dry-run")).ok().stdout;
    assert!(plan.contains("10 classes") && plan.contains("\"fixed\""), "{plan}");
    assert_eq!(scratch.names(), before);

    export(&scratch, line).ok();
    let first = contents(&scratch.path("timm"));
    // The format has two names.
    let again = scratch.run(EXPORT, &words(&format!("--to timm {line}"))).ok();
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    export(&scratch, &format!("{line} --force")).ok();
    assert_eq!(contents(&scratch.path("timm")), first);
    let other = format!("--model {GOLDEN} --out timm");
    export(&scratch, &other).fails(73, &["timm", "--force"]);
    assert_eq!(contents(&scratch.path("timm")), first);
    export(&scratch, &format!("{other} --force")).ok();
    assert_ne!(contents(&scratch.path("timm")), first);

    // Never over another file.
    let model = contents(&scratch.path("model"));
    export(&scratch, &format!("--model {GOLDEN} --out model --force"))
        .fails(73, &["model", "export"]);
    export(&scratch, "--model model --out model --force").fails(2, &["model"]);
    assert_eq!(contents(&scratch.path("model")), model);
}

/// The configuration comes through a pipe, so the stage waits in it when the signal arrives.
#[test]
fn a_signal_leaves_nothing() {
    let scratch = Scratch::new();
    let golden = |name: &str| std::fs::read(Path::new(GOLDEN).join(name)).unwrap();
    scratch.write("model/model.safetensors", golden("model.safetensors"));
    let pipe = scratch.path("model/config.json");
    let path = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: a path that ends in 0.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let mut child = Command::new(EXPORT)
        .args(["--to", "huggingface", "-q"])
        .current_dir(scratch.path("."))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut opened = File::options();
    opened.write(true).custom_flags(libc::O_NONBLOCK);
    // Opening fails until the stage opens the other end.
    let mut pipe = loop {
        match opened.open(&pipe) {
            Ok(pipe) => break pipe,
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::ENXIO)),
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it read its input");
        std::thread::sleep(Duration::from_millis(1));
    };
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    pipe.write_all(&golden("config.json")).unwrap();
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{words}");
    assert!(
        words.contains("huggingface: stopped") && words.contains("nothing was written"),
        "{words}"
    );
    assert_eq!(scratch.names(), ["model"]);
}

#[test]
fn what_timm_cannot_express() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "small", "").ok();
    let before = scratch.names();
    for (line, code, message) in [
        ("--model small", 78, ["small", "--to onnx takes every stem"]),
        ("--model absent", 66, ["absent/model.safetensors", "s4l-pretrain"]),
    ] {
        export(&scratch, &format!("{line} --out timm")).fails(code, &message);
        assert_eq!(scratch.names(), before);
    }
    let other = scratch.run(EXPORT, &words("--to keras --model small"));
    assert_eq!(other.code, 2);
    assert!(other.stderr.contains("huggingface"), "{}", other.stderr);
}

/// A copy of timm's network with images of `size`, prepared by `pipe`.
fn write_timm(scratch: &Scratch, pipe: &str, size: [usize; 2]) {
    let weights = std::fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    scratch.write("timm/model.safetensors", weights);
    let mut config = json(&Path::new(GOLDEN).join("config.json"));
    let settings = s4l::settings::Settings {
        units: vec![1, 1],
        width_factor: 1,
        augment_eval: pipe.to_string(),
        ..Default::default()
    };
    config["s4l"] = serde_json::json!({"seed": 7, "settings": settings});
    config["pretrained_cfg"]["input_size"] = vec![1, size[0], size[1]].into();
    scratch.write("timm/config.json", config.to_string());
}

#[test]
fn timm_prepares_as_the_recipe_does() {
    let scratch = Scratch::new();
    let square = [28, 28];
    // Without our settings in the file, the preparation is expressed in our steps once more.
    for (pipe, size, mode, crop_pct, interpolation, again) in [
        ("resize(28)|-1_to_1|rotate", square, "squash", 1.0, "bilinear", "resize(28,28)"),
        ("resize(20,28)|-1_to_1", [20, 28], "squash", 1.0, "bilinear", "resize(20,28)"),
        (
            "resize(32)|crop(28)|-1_to_1",
            square,
            "squash",
            0.875,
            "bilinear",
            "resize(32,32)|crop(28,28)",
        ),
        (
            "-1_to_1|resize_small(32)|crop(28)",
            square,
            "center",
            0.875,
            "hamming",
            "resize_small(32)|crop(28,28)",
        ),
        // 28 / (28 / 55) is a little below 55.
        (
            "resize_small(55)|multi_crop(28)|-1_to_1",
            square,
            "center",
            28.0 / 55.0,
            "hamming",
            "resize_small(55)|crop(28,28)",
        ),
        ("crop(28)|-1_to_1", square, "center", 1.0, "bilinear", "resize_small(28)|crop(28,28)"),
    ] {
        write_timm(&scratch, pipe, size);
        let said =
            scratch.run(EXPORT, &words("--to timm --model timm --out out --force")).ok().stderr;
        assert!(said.contains("timm resizes"), "{said}");
        let mut config = json(&scratch.path("out/config.json"));
        let found = &config["pretrained_cfg"];
        assert_eq!(found["crop_mode"], mode, "{pipe}");
        assert_eq!(found["interpolation"], interpolation, "{pipe}");
        let found_pct = found["crop_pct"].as_f64().unwrap();
        assert!((found_pct - crop_pct).abs() < 1e-12, "{pipe}: {found_pct}");
        assert_eq!((&found["mean"], &found["std"]), (&vec![0.5].into(), &vec![0.5].into()));

        config.as_object_mut().unwrap().remove("s4l");
        scratch.write("timm/config.json", config.to_string());
        export(&scratch, "--model timm --out out --force").ok();
        let config = json(&scratch.path("out/config.json"));
        let read = config["s4l"]["settings"]["augment_eval"].as_str().unwrap();
        assert_eq!(read, format!("{again}|value_range(-1,1)"), "{pipe}");
        assert_eq!(config["pretrained_cfg"]["crop_pct"].as_f64(), Some(found_pct), "{pipe}");
    }
    let before = contents(&scratch.path("out"));
    for (pipe, size, why) in [
        ("resize(28)|standardize", square, "standardize"),
        ("resize_small(32)|crop(20,28)|-1_to_1", [20, 28], "these steps in this order"),
        ("resize(30)|crop(20,28)|-1_to_1", [20, 28], "other shares of height and width"),
        ("crop(28)|resize(20)|-1_to_1", [20, 20], "these steps in this order"),
        ("crop_inception_patches(2,28)|-1_to_1", square, "draws at random"),
    ] {
        write_timm(&scratch, pipe, size);
        export(&scratch, "--model timm --out out --force").fails(78, &[pipe, why]);
        assert_eq!(contents(&scratch.path("out")), before);
    }
    let mut config = json(&Path::new(GOLDEN).join("config.json"));
    config["pretrained_cfg"]["crop_mode"] = "border".into();
    scratch.write("timm/config.json", config.to_string());
    export(&scratch, "--model timm --out out --force")
        .fails(65, &["timm/config.json", "crop_mode", "border"]);
}

#[test]
fn weights_that_pytorch_pickled() {
    let scratch = Scratch::new();
    scratch.write("timm/pytorch_model.bin", "PK");
    scratch
        .write("timm/config.json", std::fs::read(Path::new(GOLDEN).join("config.json")).unwrap());
    export(&scratch, "--model timm --out out").fails(66, &["timm", "safe_serialization=True"]);
}

#[test]
fn the_card_has_the_figures_of_an_evaluation() {
    let scratch = labelled_shards();
    for model in ["model", "other"] {
        let seed = if model == "other" { "--seed 1" } else { "" };
        pretrain(&scratch, "supervised_1p", model, &format!("-s stem=imagenet {seed}")).ok();
    }
    let eval = |model: &str, out: &str, more: &str| {
        let line = format!("--in shards --model {model} --out {out} -q {more}");
        scratch.run(EVAL, &words(&line)).ok().stdout
    };
    let summary: Value = serde_json::from_str(&eval("model", "e.parquet", "")).unwrap();
    for to in ["huggingface", "onnx"] {
        let line = format!("--to {to} --model model --out {to} --eval e.parquet -q");
        scratch.run(EXPORT, &words(&line)).ok();
        let card = std::fs::read_to_string(scratch.path(to).join("README.md")).unwrap();
        let front = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap().0;
        let index = front.lines().find_map(|line| line.strip_prefix("model-index: ")).unwrap();
        let index: Value = serde_json::from_str(index).unwrap();
        let metric = &index[0]["results"][0]["metrics"][0];
        assert_eq!(metric["type"], "accuracy");
        assert_eq!(metric["value"], summary["unrotated"]["top1"]);
        let inspect = env!("CARGO_BIN_EXE_s4l-inspect");
        let tree = scratch.run(inspect, &["--lineage", to]).ok().stdout;
        assert!(tree.contains(": e.parquet\n") && tree.contains(": model\n"), "{tree}");
        scratch.run(inspect, &["--lineage", "--verify", to]).ok();
        // Without it, the card differs.
        let line = format!("--to {to} --model model --out {to} -q");
        scratch.run(EXPORT, &words(&line)).fails(73, &[to, "--force"]);
    }
    eval("other", "other.parquet", "");
    eval("model", "resized.parquet", "-s augment_eval=resize(28)|0_to_1");
    for (eval, why) in [("other.parquet", "weights"), ("resized.parquet", "augment_eval")] {
        let line = format!("--model model --out new --eval {eval}");
        export(&scratch, &line).fails(65, &[eval, why]);
        assert!(!scratch.path("new").exists());
    }
    let line = "--model model --out e.parquet --force --eval e.parquet";
    export(&scratch, line).fails(2, &["e.parquet"]);
}

fn onnx(scratch: &Scratch, line: &str) -> Ran {
    scratch.run(EXPORT, &words(&format!("--to onnx -q {line}")))
}

fn read_onnx(scratch: &Scratch, folder: &str) -> ModelProto {
    let bytes = std::fs::read(scratch.path(folder).join("model.onnx")).unwrap();
    ModelProto::decode(&bytes[..]).unwrap()
}

/// The operators of a graph up to the tensor `prepared`.
fn preparation(graph: &GraphProto) -> Vec<&str> {
    let mut operators = Vec::new();
    for node in &graph.node {
        operators.push(node.op_type());
        if node.output == ["prepared"] {
            return operators;
        }
    }
    panic!("{operators:?}");
}

#[test]
fn an_onnx_file_has_the_model_s_weights_and_is_the_same_twice() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "model", "-s units=[1,1]").ok();
    for out in ["one", "two"] {
        onnx(&scratch, &format!("--model model --out {out}")).ok();
    }
    assert_eq!(contents(&scratch.path("one")), contents(&scratch.path("two")));
    let names: Vec<_> = contents(&scratch.path("one")).into_iter().map(|f| f.0).collect();
    assert_eq!(names, ["README.md", "model.onnx"]);

    let proto = read_onnx(&scratch, "one");
    let graph = proto.graph.unwrap();
    assert_eq!(proto.opset_import[0].version, Some(17));
    let metadata: BTreeMap<&str, &str> =
        proto.metadata_props.iter().map(|pair| (pair.key(), pair.value())).collect();
    let classes: Vec<String> = serde_json::from_str(metadata["s4l.classes"]).unwrap();
    assert_eq!(classes.len(), 10);
    assert_eq!(metadata["s4l.augment_eval"], "resize(28)|-1_to_1|rotate");
    assert!(metadata.contains_key("s4l.input.model"));
    let names = |values: &[ValueInfoProto]| -> Vec<String> {
        values.iter().map(|value| value.name().to_string()).collect()
    };
    assert_eq!(names(&graph.input), ["images"]);
    assert_eq!(names(&graph.output), ["classes", "representation"]);

    // Each tensor is there before it is used.
    let mut known: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    known.insert("images");
    for node in &graph.node {
        for input in &node.input {
            assert!(known.contains(&input[..]), "{input} of {}", node.name());
        }
        assert!(known.insert(&node.output[0]), "{} twice", node.output[0]);
    }
    let ours = tensors(&scratch.path("model"));
    let mut weights = 0;
    for tensor in &graph.initializer {
        let Some((shape, values)) = ours.get(tensor.name()) else {
            continue;
        };
        weights += 1;
        let bytes = tensor.raw_data().as_chunks::<4>().0.iter();
        let found: Vec<f32> = bytes.map(|b| f32::from_le_bytes(*b)).collect();
        match shape[..] {
            [h, w, i, o] => {
                assert_eq!(tensor.dims, [o, i, h, w].map(|n| n as i64), "{}", tensor.name());
                for (at, value) in values.iter().enumerate() {
                    let (pixel, plane) = (at / (i * o), at % (i * o));
                    let place = (plane % o * i + plane / o) * h * w + pixel;
                    assert_eq!(found[place], *value, "{}", tensor.name());
                }
            }
            _ => assert_eq!(&found, values, "{}", tensor.name()),
        }
    }
    // All but the head of the rotations, which has a kernel and a bias.
    assert_eq!(weights, ours.len() - 2);

    let inspect = env!("CARGO_BIN_EXE_s4l-inspect");
    let described = scratch.run(inspect, &["one"]).ok().stdout;
    assert!(described.contains("classes         [batch, 10]"), "{described}");
    scratch.run(inspect, &["--verify", "one/model.onnx"]).ok();
    let path = scratch.path("one/model.onnx");
    let whole = std::fs::read(&path).unwrap();
    for at in [100, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(scratch.run(inspect, &["--verify", "one"]).code, 3, "byte {at}");
    }
    // A damaged file is not recognized as an export.
    onnx(&scratch, "--model model --out one --force").fails(73, &["one", "another --out"]);
    export(&scratch, "--model model --out two --force").fails(78, &["small_stride2", "--to onnx"]);
    scratch.write("two/notes.txt", "mine");
    onnx(&scratch, "--model model --out two --force").fails(73, &["two", "notes.txt"]);
}

/// Whether these operators compute what `s4l-eval` does, only a runtime can tell: tools/check-export.py.
#[test]
fn the_preparation_is_inside_an_onnx_file() {
    let scratch = Scratch::new();
    for (pipe, size, operators) in [
        ("resize(28)|-1_to_1|rotate", [28, 28], ["Gather", "Mul", "Transpose"]),
        ("resize_small(30)|multi_crop(28)|0_to_1", [28, 28], ["MatMul", "Slice", "Transpose"]),
        ("crop(20,28)|standardize", [20, 28], ["Slice", "ReduceMean", "Sqrt"]),
    ] {
        write_timm(&scratch, pipe, size);
        onnx(&scratch, "--model timm --out out --force").ok();
        let graph = read_onnx(&scratch, "out").graph.unwrap();
        let found = preparation(&graph);
        assert_eq!((found[0], found[found.len() - 2]), ("Cast", "Reshape"), "{pipe}");
        for operator in operators {
            assert!(found.contains(&operator), "{operator} for {pipe} in {found:?}");
        }
    }
    let before = contents(&scratch.path("out"));
    write_timm(&scratch, "crop_inception_patches(2,28)|-1_to_1", [28, 28]);
    onnx(&scratch, "--model timm --out out --force").fails(78, &["draws at random"]);
    assert_eq!(contents(&scratch.path("out")), before);
}

#[test]
fn networks_of_timm_s_that_are_not_ours() {
    let scratch = labelled_shards();
    let golden = json(&Path::new(GOLDEN).join("config.json"));
    let weights = std::fs::read(Path::new(GOLDEN).join("model.safetensors")).unwrap();
    scratch.write("timm/model.safetensors", weights);
    for (pointer, value, message) in [
        ("/architecture", "resnet50".into(), "resnetv2_50"),
        ("/model_args/stem_type", "same".into(), "stem_type \"fixed\""),
        ("/model_args/global_pool", "max".into(), "global_pool"),
        ("/model_args/output_stride", 4.into(), "dilation"),
        ("/label_names", Value::Array(vec![]), "label_names"),
        ("/label_names", vec!["a", "b"].into(), "head.fc.weight"),
        ("/pretrained_cfg/input_size", Value::Null, "save_for_hf"),
    ] {
        let mut config = golden.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        scratch.write("timm/config.json", config.to_string());
        let line = "--in shards --model timm --out e.parquet -q";
        scratch.run(EVAL, &words(line)).fails(65, &["timm", message]);
        assert!(!scratch.path("e.parquet").exists());
    }
    scratch.write("timm/config.json", golden.to_string());
    // Two blocks of one unit, width factor 1, grey: not this recipe's network.
    let line = "--in shards --labelled labelled.parquet --init timm --out m -q -s width_factor=2 \
                -s augment_labelled=resize(28)|-1_to_1 -s augment_eval=resize(28)|-1_to_1";
    scratch.run(PRETRAIN, &words(line)).fails(65, &["timm", "start from"]);
}
