//! Shared by the tests of the stages: one folder per test, and running the real binaries in it.

// Each test file is a program of its own and uses only a part of this.
#![allow(dead_code)]

pub mod gpu;
pub mod ranks;
pub mod training;

use arrow::array::RecordBatch;
use clap::CommandFactory;
use image::{ExtendedColorType, ImageEncoder};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use s4l::shards::Shards;
use s4l::stages;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The rows of a pipeline, one per recipe, in the order of the report.
pub fn rows(pipeline: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(pipeline);
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let mut rows: Vec<String> =
        files.filter_map(|f| Some(f.to_str()?.strip_suffix(".toml")?.to_string())).collect();
    rows.sort_by_key(|row| (s4l::report::rows::place(row), row.clone()));
    rows
}

/// The embedded set of 400 + 200 images.
pub const SMOKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/smoke/data");

/// A private folder, removed at the end of the test.
pub struct Scratch(tempfile::TempDir);

/// How a binary ended.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs a binary in the folder.
    pub fn run(&self, binary: &str, args: &[&str]) -> Ran {
        let output = Command::new(binary)
            .args(args)
            .current_dir(self.0.path())
            .env_remove("S4L_MODEL")
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Names in the folder, including hidden ones: no unfinished file may be among them.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// The run failed with this code and one line that contains all of `words`.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} in {}", self.stderr);
        }
    }
}

/// Names and contents of the files of a folder.
pub fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    let mut files: Vec<_> = entries
        .map(|e| {
            let name = e.file_name().into_string().unwrap();
            (name, std::fs::read(e.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// A decompressed file of the embedded set.
pub fn smoke(name: &str) -> Vec<u8> {
    let file = std::fs::File::open(format!("{SMOKE}/{name}.zst")).unwrap();
    zstd::decode_all(file).unwrap()
}

pub const IMAGES: &str = "train-images-idx3-ubyte";
pub const LABELS: &str = "train-labels-idx1-ubyte";

/// Runs `s4l-shard`.
pub fn shard(scratch: &Scratch, args: &[&str]) -> Ran {
    scratch.run(env!("CARGO_BIN_EXE_s4l-shard"), args)
}

/// Shards of the embedded set.
pub fn smoke_shards() -> Scratch {
    let scratch = Scratch::new();
    shard(&scratch, &["--in", SMOKE, "--out", "shards"]).ok();
    scratch
}

/// A grey PNG.
pub fn png(pixels: &[u8], side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(pixels, side, side, ExtendedColorType::L8)
        .unwrap();
    bytes
}

/// A grey JPEG.
pub fn jpeg(pixels: &[u8], side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95)
        .write_image(pixels, side, side, ExtendedColorType::L8)
        .unwrap();
    bytes
}

/// A progressive JPEG whose last scan is repeated 500 times: each costs a pass over all pixels.
pub fn many_scans() -> Vec<u8> {
    let path = "tests/golden/inputs/kinds/progressive.jpg";
    let bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (scans, end) = bytes.split_at(bytes.len() - 2);
    let last = scans.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap();
    [scans, &scans[last..].repeat(500), end].concat()
}

/// Pixels and label of row `row` of the embedded training set.
pub fn real(row: usize) -> (Vec<u8>, u8) {
    let size = 28 * 28;
    let pixels = smoke(IMAGES)[16 + row * size..][..size].to_vec();
    (pixels, smoke(LABELS)[8 + row])
}

/// An image folder of 12 real images in three classes, PNG and JPEG.
pub fn photos(scratch: &Scratch) {
    for row in 0..12 {
        let (class, pixels) = (["bag", "coat", "shirt"][row % 3], real(row).0);
        if row % 2 == 0 {
            scratch.write(&format!("photos/{class}/{row:02}.png"), png(&pixels, 28));
        } else {
            scratch.write(&format!("photos/{class}/{row:02}.JPEG"), jpeg(&pixels, 28));
        }
    }
}

/// The command lines of all programs.
pub fn commands() -> Vec<clap::Command> {
    vec![
        stages::init::Args::command(),
        stages::shard::Args::command(),
        stages::subset::Args::command(),
        stages::pretrain::Args::command(),
        stages::pseudolabel::Args::command(),
        stages::moam::Args::command(),
        stages::eval::Args::command(),
        stages::predict::Args::command(),
        stages::report::Args::command(),
        stages::export::Args::command(),
        stages::inspect::Args::command(),
    ]
}

/// Footer and offset index of a parquet file.
pub fn metadata(path: &Path) -> ParquetMetaData {
    ParquetMetaDataReader::new()
        .with_offset_index_policy(PageIndexPolicy::Required)
        .parse_and_finish(&std::fs::File::open(path).unwrap())
        .unwrap()
}

/// All rows of a parquet file, by the stock reader.
pub fn batches(path: &Path) -> Vec<RecordBatch> {
    let file = std::fs::File::open(path).unwrap();
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

/// Key and class name (`-` for none) of each image of a split of `shards`.
pub fn labelled_keys(scratch: &Scratch, split: &str) -> Vec<(String, String)> {
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split(split).unwrap();
    let labels = split.labels().unwrap();
    let class = |row: usize| labels[row].map_or("-", |label| &shards.classes()[label as usize]);
    (0..split.len()).map(|row| (split.key(row).to_string(), class(row).to_string())).collect()
}

/// Keys and classes are the expected ones.
#[track_caller]
pub fn are(found: &[(String, String)], expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(key, class)| (key.to_string(), class.to_string())).collect();
    assert_eq!(found, expected);
}
