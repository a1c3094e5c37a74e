//! `s4l-pseudolabel` and `s4l-eval` in pieces: killed and run again, stopped, and split into parts: always
//! the bytes of one run, and no piece made twice.

use crate::common::training::{EVAL, PSEUDOLABEL, flip, pretrain, words};
use crate::common::{IMAGES, LABELS, Ran, Scratch, metadata, shard, smoke};
use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, StringArray};
use s4l::artifact;
use s4l::augment::{Mode, Pipe};
use s4l::evaluate::logits;
use s4l::evaluate::metrics::{EvalSummary, Prediction, summarize};
use s4l::lineage::Lineage;
use s4l::model::folder::Model;
use s4l::network::device::Device;
use s4l::schema;
use s4l::shards::Shards;
use s4l::tables::table::{self, fixed_lists};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of images: five pieces, the last with 76.
const ROWS: usize = 1100;

/// A stage that makes its table in pieces.
struct Stage {
    program: &'static str,
    tool: &'static str,
    out: &'static str,
    /// The command line without `--out`.
    line: &'static str,
    /// The message about its table, after the name.
    says: &'static str,
}

const LABELLING: Stage = Stage {
    program: PSEUDOLABEL,
    tool: "s4l-pseudolabel",
    out: "labels.parquet",
    line: "--in shards --model model --labelled labelled.parquet --threads 1",
    says: "1100 labels (200 known)",
};
const EVALUATION: Stage = Stage {
    program: EVAL,
    tool: "s4l-eval",
    out: "eval.parquet",
    line: "--in shards --model model --split train --threads 1 -s augment_eval=resize(28)|-1_to_1|rotate",
    says: "top-1 ",
};

/// Shards with this many images, a model, and known labels of 200.
fn with_model() -> Scratch {
    let scratch = Scratch::new();
    let (images, labels) = (smoke(IMAGES)[16..].repeat(3), smoke(LABELS)[8..].repeat(3));
    let idx = |sizes: &[u32], values: &[u8]| {
        let head = [0, 0, 8, sizes.len() as u8].into_iter();
        let head = head.chain(sizes.iter().flat_map(|n| n.to_be_bytes()));
        head.chain(values.iter().copied()).collect::<Vec<u8>>()
    };
    let rows = ROWS as u32;
    let pixels = idx(&[rows, 28, 28], &images[..ROWS * 28 * 28]);
    scratch.write(&format!("data/{IMAGES}"), pixels);
    scratch.write(&format!("data/{LABELS}"), idx(&[rows], &labels[..ROWS]));
    shard(&scratch, &["--in", "data", "--out", "shards", "-q"]).ok();
    let subset = "--in shards --per-class 20 --out labelled.parquet --val-per-class 5 \
                  --val-out val.parquet --allow-duplicates -q";
    scratch.run(env!("CARGO_BIN_EXE_s4l-subset"), &words(subset)).ok();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    scratch
}

fn bytes(scratch: &Scratch, name: &str) -> Vec<u8> {
    std::fs::read(scratch.path(name)).unwrap()
}

impl Stage {
    fn words<'a>(&'a self, more: &'a str) -> Vec<&'a str> {
        [words(self.line), vec!["--out", self.out], words(more)].concat()
    }

    fn run(&self, scratch: &Scratch, more: &str) -> Ran {
        scratch.run(self.program, &self.words(more))
    }

    fn merge(&self, scratch: &Scratch, more: &str) -> Ran {
        let merge = ["--merge", "--out", self.out];
        scratch.run(self.program, &[&merge[..], &words(more)].concat())
    }

    fn command(&self, scratch: &Scratch, more: &str) -> Command {
        let mut command = Command::new(self.program);
        command.args(self.words(more)).current_dir(scratch.path(""));
        command
    }

    /// The output of an undisturbed run.
    fn whole(&self, scratch: &Scratch) -> Vec<u8> {
        let out = format!("whole.{}", self.tool);
        scratch.run(self.program, &[words(self.line), vec!["--out", &out]].concat()).ok();
        bytes(scratch, &out)
    }

    fn part(&self, nth: usize, of: usize) -> String {
        format!("{}.part-{nth}-of-{of}", self.out)
    }

    fn partial(&self) -> String {
        format!("{}.partial", self.out)
    }

    fn piece(&self, scratch: &Scratch, nth: usize) -> PathBuf {
        scratch.path(&self.partial()).join(schema::piece_file(nth))
    }

    /// Inode and modification time of each finished piece.
    fn finished(&self, scratch: &Scratch) -> Vec<(u64, i64, i64)> {
        let pieces = (1..).map_while(|nth| self.piece(scratch, nth).metadata().ok());
        pieces.map(|m| (m.ino(), m.mtime(), m.mtime_nsec())).collect()
    }

    /// Starts the stage, and waits until this many pieces are finished.
    fn started(&self, scratch: &Scratch, pieces: usize, more: &str) -> Child {
        let mut command = self.command(scratch, more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while self.finished(scratch).len() < pieces {
            assert!(child.try_wait().unwrap().is_none(), "it ended before {pieces} were finished");
            assert!(start.elapsed() < Duration::from_secs(60), "no {pieces} pieces");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    /// Starts the stage, and stops it with SIGTERM once this many pieces are finished; returns its
    /// messages.
    fn stopped(&self, scratch: &Scratch, pieces: usize, more: &str) -> String {
        let child = self.started(scratch, pieces, more);
        // SAFETY: the process is our child and has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(75), "{stderr}");
        stderr
    }

    /// The table and its provenance are the only files with its name.
    #[track_caller]
    fn nothing_is_left(&self, scratch: &Scratch) {
        let mut names = scratch.names();
        names.retain(|name| name.contains(self.out));
        assert_eq!(names, [self.out.to_string(), format!("{}.prov.json", self.out)]);
    }
}

#[test]
fn killed_it_goes_on_behind_its_pieces_and_ends_with_the_same_bytes() {
    let scratch = with_model();
    for stage in [LABELLING, EVALUATION] {
        let mut before = Vec::new();
        for pieces in 1..=3 {
            let mut child = stage.started(&scratch, pieces, "");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(!scratch.path(stage.out).exists());
            let after = stage.finished(&scratch);
            assert_eq!(after[..before.len()], before, "a finished piece was made again");
            before = after;
        }
        // The state after a run was killed that had finished the table, but not yet removed the pieces.
        let mut copy = Command::new("cp");
        copy.args(["-r", &stage.partial(), "kept"]).current_dir(scratch.path(""));
        assert!(copy.status().unwrap().success());
        let made = stage.run(&scratch, "").ok();
        let said = format!("{}: {}", stage.out, stage.says);
        assert!(made.stderr.contains(&said), "{}", made.stderr);
        stage.nothing_is_left(&scratch);
        assert_eq!(bytes(&scratch, stage.out), stage.whole(&scratch));
        std::fs::rename(scratch.path("kept"), scratch.path(&stage.partial())).unwrap();
        let again = stage.run(&scratch, "").ok();
        assert!(again.stderr.contains("up to date"), "{}", again.stderr);
        assert_eq!(again.stdout, made.stdout);
        stage.nothing_is_left(&scratch);
        is_a_table_that_was_never_in_pieces(&scratch, &stage);
    }
    the_summary_is_of_all_views(&scratch);
}

/// The columns of a table written in one go have the same bytes.
fn is_a_table_that_was_never_in_pieces(scratch: &Scratch, stage: &Stage) {
    let table = table::read(&scratch.path(stage.out), stage.tool).unwrap();
    let pairs = table.metadata.clone().into_iter().collect();
    let lineage = Lineage::of_metadata(stage.tool, &pairs);
    let summary = pairs.get(schema::SUMMARY_KEY).cloned();
    let (name, of): (_, fn(usize) -> _) = match summary {
        None => (schema::PROBS, schema::labels),
        Some(_) => (schema::LOGITS, schema::eval),
    };
    let (last, classes) = table.float_lists(name).unwrap();
    let mut columns = table.batch.columns().to_vec();
    columns.pop();
    columns.push(fixed_lists(last, classes));
    let extra = summary.map(|summary| (schema::SUMMARY_KEY.to_string(), summary));
    let path = scratch.path("one.parquet");
    table::write(&path, of(classes), columns, &lineage, extra.into_iter().collect()).unwrap();
    assert_eq!(bytes(scratch, "one.parquet"), bytes(scratch, stage.out));
}

/// Equal to the last bit to those of the network's logits.
fn the_summary_is_of_all_views(scratch: &Scratch) {
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    let rows: Vec<u32> = (0..ROWS as u32).collect();
    let labels: Vec<u32> = split.labels().unwrap().iter().map(|label| label.unwrap()).collect();
    let model = Model::open(&scratch.path("model")).unwrap();
    let mut network = model.network(Device::Cpu).unwrap();
    let pipe = Pipe::parse("resize(28)|-1_to_1|rotate", Mode::Eval).unwrap();
    let all = logits::logits(&mut network, &split, &rows, &pipe, "testing").unwrap();
    let classes = model.config.classes.len();
    let summary = |of: &dyn Fn(&[f32]) -> Vec<f32>| {
        let views = all.chunks_exact(4 * classes).zip(&labels);
        let predictions: Vec<_> = views.map(|(v, &l)| Prediction::new(&of(v), l)).collect();
        summarize(&predictions, &model.config.classes, &labels, 0)
    };
    let table = table::read(&scratch.path("eval.parquet"), "s4l-eval").unwrap();
    let written = &table.metadata[schema::SUMMARY_KEY];
    let expected = EvalSummary {
        unrotated: summary(&|views| views[..classes].to_vec()),
        rotation_averaged: Some(summary(&|views| logits::mean_over_views(views, classes))),
        ..serde_json::from_str(written).unwrap()
    };
    assert_eq!(serde_json::to_string(&expected).unwrap(), *written);
}

#[test]
fn a_stop_keeps_what_is_done_and_no_damaged_or_foreign_piece_is_used() {
    let (scratch, stage) = (with_model(), LABELLING);
    let expected = stage.whole(&scratch);
    let said = stage.stopped(&scratch, 2, "");
    let done = 256 * stage.finished(&scratch).len();
    let words = format!("labels.parquet: stopped with {done} of 1100 images; run the same command");
    assert!(said.contains(&words), "{said}");
    assert!(!scratch.path("labels.parquet").exists());

    // One bit of a piece; one piece in the place of another.
    flip(&stage.piece(&scratch, 1));
    std::fs::copy(stage.piece(&scratch, 1), stage.piece(&scratch, 3)).unwrap();
    std::fs::copy(stage.piece(&scratch, 2), stage.piece(&scratch, 4)).unwrap();
    std::fs::write(stage.piece(&scratch, 9), "").unwrap();
    stage.run(&scratch, "").ok();
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    stage.nothing_is_left(&scratch);

    // Pieces of a run with other settings.
    std::fs::remove_file(scratch.path("labels.parquet")).unwrap();
    stage.stopped(&scratch, 2, "--seed 1 -s views=resize(28)|-1_to_1|rotate");
    stage.run(&scratch, "").ok();
    assert_eq!(bytes(&scratch, "labels.parquet"), expected);
    stage.nothing_is_left(&scratch);

    // A folder of another program.
    std::fs::remove_file(scratch.path("labels.parquet")).unwrap();
    scratch.write("labels.parquet.partial/thesis.tex", "words");
    stage.run(&scratch, "-q").fails(73, &["labels.parquet.partial", "another --out"]);
    assert_eq!(bytes(&scratch, "labels.parquet.partial/thesis.tex"), b"words");
    std::fs::remove_dir_all(scratch.path("labels.parquet.partial")).unwrap();
    // Stopped before the first piece.
    stage.run(&scratch, "-q --max-seconds 0").fails(75, &["labels.parquet: stopped before"]);
    assert!(!scratch.path("labels.parquet.partial").exists());

    // An evaluation prints the same message, and continues with the same pieces.
    let stage = EVALUATION;
    let said = stage.stopped(&scratch, 1, "");
    let before = stage.finished(&scratch);
    let words = format!("eval.parquet: stopped with {} of 1100 images", 256 * before.len());
    assert!(said.contains(&words), "{said}");
    stage.stopped(&scratch, before.len() + 1, "");
    assert_eq!(stage.finished(&scratch)[..before.len()], before);
    stage.run(&scratch, "").ok();
    assert_eq!(bytes(&scratch, "eval.parquet"), stage.whole(&scratch));
    stage.nothing_is_left(&scratch);
}

/// The variables of the middle one of three tasks of a Slurm array.
const ARRAY: [(&str, &str); 4] = [
    ("SLURM_ARRAY_TASK_ID", "6"),
    ("SLURM_ARRAY_TASK_MIN", "5"),
    ("SLURM_ARRAY_TASK_MAX", "7"),
    ("SLURM_ARRAY_TASK_COUNT", "3"),
];

#[test]
fn parts_merge_into_the_bytes_of_one_run() {
    let scratch = with_model();
    for stage in [LABELLING, EVALUATION] {
        let merged = || stage.merge(&scratch, "");
        let expected = stage.whole(&scratch);
        let by = format!("{} --part I/N", stage.tool);
        merged().fails(66, &[&stage.part(1, 2), &by]);
        for part in ["3/3", "1/3"] {
            stage.run(&scratch, &format!("-q --part {part}")).ok();
        }
        merged().fails(66, &[&stage.part(2, 3), "--part"]);
        let mut second = stage.command(&scratch, "-q --part auto");
        assert_eq!(second.status().unwrap().code(), Some(2));
        assert_eq!(second.envs(ARRAY).status().unwrap().code(), Some(0));
        let again = stage.run(&scratch, "--part 2/3").ok();
        let words = format!("{}: up to date", stage.part(2, 3));
        assert!(again.stderr.contains(&words), "{}", again.stderr);
        assert_eq!(again.stdout, "");
        let names = [1, 2, 3].map(|nth| stage.part(nth, 3));
        let parts = names.each_ref().map(|name| bytes(&scratch, name));
        // On another kind of machine.
        let sidecar = scratch.path(&format!("{}.prov.json", names[1]));
        let text = std::fs::read_to_string(&sidecar).unwrap();
        let here = artifact::instructions([&scratch.path(&names[0])]).pop_first().unwrap();
        std::fs::write(&sidecar, text.replace(&format!("{here:?}"), "\"abacus\"")).unwrap();
        let ran = merged().ok();
        let out = stage.out;
        let warning = format!("warning: {out}: parts computed with {here} and abacus: ");
        assert!(ran.stderr.contains(&warning), "{}", ran.stderr);
        let words = format!("{out}: {}", stage.says);
        assert!(ran.stderr.contains(&words), "{}", ran.stderr);
        let table = table::read(&scratch.path(out), stage.tool).unwrap();
        let summary = table.metadata.get(schema::SUMMARY_KEY);
        let summary = summary.map_or(String::new(), |summary| format!("{summary}\n"));
        assert_eq!(ran.stdout, summary);
        assert_eq!(bytes(&scratch, out), expected);
        stage.nothing_is_left(&scratch);
        let sidecar: serde_json::Value =
            serde_json::from_slice(&bytes(&scratch, &format!("{out}.prov.json"))).unwrap();
        let command = sidecar["parts"][1]["command"].as_array().unwrap();
        assert!(command.contains(&"auto".into()), "{command:?}");
        // The state after a merge was killed while it removed the parts.
        std::fs::write(scratch.path(&names[2]), &parts[2]).unwrap();
        let none = String::new();
        for (ran, stdout) in [
            (merged(), &summary),
            (stage.merge(&scratch, "--force"), &summary),
            (stage.run(&scratch, "--part 2/3"), &none),
            (stage.run(&scratch, ""), &summary),
        ] {
            let again = ran.ok();
            let words = format!("{out}: up to date");
            assert!(again.stderr.contains(&words), "{}", again.stderr);
            assert_eq!(again.stdout, *stdout);
            stage.nothing_is_left(&scratch);
        }
        // As for one run. Most arrays are not over parts.
        let ran = stage.command(&scratch, "").envs(ARRAY).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.contains(&format!("{out}: up to date")), "{said}");
        parts_of_others_are_refused(&scratch, &stage, &parts, &expected);

        // More parts than pieces: some parts have no row.
        std::fs::remove_file(scratch.path(out)).unwrap();
        for nth in 1..=7 {
            stage.run(&scratch, &format!("-q --part {nth}/7")).ok();
        }
        merged().ok();
        assert_eq!(bytes(&scratch, out), expected);
        for part in ["0/3", "4/3", "1", "a/b"] {
            assert_eq!(stage.run(&scratch, &format!("--part {part}")).code, 2, "{part}");
        }
        assert_eq!(stage.run(&scratch, "--merge").code, 2);
    }
}

fn parts_of_others_are_refused(
    scratch: &Scratch,
    stage: &Stage,
    parts: &[Vec<u8>; 3],
    expected: &[u8],
) {
    let force = || {
        for nth in [1, 3] {
            std::fs::write(scratch.path(&stage.part(nth, 3)), &parts[nth - 1]).unwrap();
        }
        stage.merge(scratch, "--force -q")
    };
    let (name, by) = (stage.part(2, 3), format!("{} --part", stage.tool));
    let second = scratch.path(&name);
    std::fs::write(&second, &parts[1]).unwrap();
    flip(&second);
    force().fails(65, &[&name, &by]);
    std::fs::write(&second, &parts[0]).unwrap();
    force().fails(65, &[&name, "a part of another run"]);
    std::fs::remove_file(&second).unwrap();
    stage.run(scratch, "-q --part 2/3 --seed 1").ok();
    force().fails(65, &[&name, "a part of another run"]);
    assert_eq!(bytes(scratch, stage.out), expected);
    std::fs::write(&second, &parts[1]).unwrap();
    force().ok();
    assert_eq!(bytes(scratch, stage.out), expected);
}

/// Enough values to fill pages, dictionaries and row groups.
#[test]
fn however_a_table_is_cut_its_bytes_are_those_of_one() {
    let scratch = Scratch::new();
    let lineage = Lineage::new("s4l-pseudolabel", 0, "0123456789abcdef".into());
    let (rows, classes) = (70_000, 5);
    let write = |name: &str, rows: std::ops::Range<usize>| {
        let key = |row: usize| format!("{:08x}", row.wrapping_mul(0x9e37_79b1));
        let value = |i: usize| (i as f32).sin();
        let ints = |f: fn(usize) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows.clone().map(f)))
        };
        let floats = |n: usize| -> ArrayRef {
            Arc::new(Float32Array::from_iter_values(rows.clone().map(|row| value(row * n))))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.clone().map(key))),
            ints(|row| row as i64 % 5),
            Arc::new(BooleanArray::from_iter(rows.clone().map(|row| Some(row % 7 == 0)))),
            ints(|row| row as i64 % 3),
            floats(3),
            floats(5),
            floats(7),
            fixed_lists((rows.start * classes..rows.end * classes).map(value).collect(), classes),
        ];
        let path = scratch.path(name);
        table::write(&path, schema::labels(classes), columns, &lineage, BTreeMap::new()).unwrap();
        path
    };
    let one = write("one.parquet", 0..rows);
    assert_eq!(metadata(&one).num_row_groups(), 2);
    let expected = std::fs::read(one).unwrap();
    for step in [7_936, 65_792] {
        let starts = (0..rows).step_by(step);
        let tables: Vec<PathBuf> =
            starts.map(|at| write(&format!("{at}.parquet"), at..rows.min(at + step))).collect();
        let (joined, mut seen) = (scratch.path("joined.parquet"), 0);
        table::join(
            &joined,
            schema::labels(classes),
            lineage.metadata().into_iter().collect(),
            &tables,
            "s4l-pseudolabel",
        )
        .unwrap();
        table::each(&tables, "s4l-pseudolabel", |batch| seen += batch.num_rows()).unwrap();
        assert_eq!(seen, rows);
        assert!(std::fs::read(joined).unwrap() == expected, "in pieces of {step}");
    }
}
