//! Memory for 15 million made-up images, as many as ImageNet-21k has: the plan of `s4l-shard`, with and
//! without a list of labels, and opening a split. Run by `benches/shard.sh`.

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use image::codecs::bmp::BmpEncoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use s4l::shards::Shards;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const IMAGES: usize = 15_000_000;
const PER_CLASS: usize = 1_000;
/// Rows per row group, as in a file of the shards.
const ROWS: usize = 1 << 16;
/// Most MB that each may use.
const MOST: f64 = 1500.0;

fn main() {
    let folder = tempfile::tempdir_in("target").unwrap();
    let path = |name: &str| folder.path().join(name);
    if let Some(shards) = std::env::args().skip_while(|arg| arg != "--open").nth(1) {
        return open(Path::new(&shards));
    }
    write_tar(&path("plan.tar.zst"));
    line("plan_memory", peak(shard(&path("plan.tar.zst")).arg("--dry-run")));
    write_list(&path("list.csv"));
    let list = path("list.csv");
    let with_list = ["--dry-run", "--labels"];
    line("list_memory", peak(shard(&path("plan.tar.zst")).args(with_list).arg(&list)));
    std::fs::remove_file(list).unwrap();

    write_parquet(&path("train.parquet"));
    peak(shard(&path("train.parquet")).arg("--out").arg(path("shards")));
    let this = std::env::current_exe().unwrap();
    line("open_memory", peak(Command::new(this).arg("--open").arg(path("shards"))));
}

fn line(case: &str, ours: f64) {
    println!(
        "BENCH data/{case} ours={ours:.0} peer={MOST:.0} ratio={:.2} peer_is=limit",
        ours / MOST
    );
}

fn name(image: usize) -> (String, String) {
    let (class, nth) = (format!("n{:08}", image / PER_CLASS), image % PER_CLASS);
    (format!("{class}_{nth}.JPEG"), class)
}

/// Class folders in a tar: only the names, from which a plan is made. The tar itself would take 8 GB.
fn write_tar(path: &Path) {
    let file = zstd::Encoder::new(File::create(path).unwrap(), 1).unwrap();
    let mut tar = tar::Builder::new(file.auto_finish());
    for image in 0..IMAGES {
        let (name, class) = name(image);
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        tar.append_data(&mut header, format!("{class}/{name}"), &[][..]).unwrap();
    }
    tar.finish().unwrap();
}

/// One line per image.
fn write_list(path: &Path) {
    let mut list = BufWriter::new(File::create(path).unwrap());
    for (name, class) in (0..IMAGES).map(name) {
        writeln!(list, "{name},{class}").unwrap();
    }
    list.flush().unwrap();
}

/// Images of one pixel, each with another colour.
fn write_parquet(path: &Path) {
    let mut bmp = Vec::new();
    image::RgbImage::new(1, 1).write_with_encoder(BmpEncoder::new(&mut bmp)).unwrap();
    let pixel = bmp.len() - 4;
    let file = File::create(path).unwrap();
    let mut writer: Option<ArrowWriter<File>> = None;
    for first in (0..IMAGES).step_by(ROWS) {
        let rows = first..(first + ROWS).min(IMAGES);
        let names: ArrayRef =
            Arc::new(StringArray::from_iter_values(rows.clone().map(|i| name(i).0)));
        let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(rows.clone().map(|image| {
            bmp[pixel..].copy_from_slice(&(image as u32).to_le_bytes());
            bmp.clone()
        })));
        let labels = rows.map(|image| (image / PER_CLASS) as i64);
        let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(labels));
        let columns = [("key", names), ("image", images), ("label", labels)];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let writer = writer.get_or_insert_with(|| {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(Default::default()))
                .set_max_row_group_row_count(Some(ROWS));
            let properties = Some(properties.build());
            ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), properties).unwrap()
        });
        writer.write(&batch).unwrap();
    }
    writer.unwrap().close().unwrap();
}

fn shard(input: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_s4l-shard"));
    command.arg("--in").arg(input).args(["--threads", "2"]);
    command
}

/// The peak memory of a command in MB, from its closing line.
fn peak(command: &mut Command) -> f64 {
    let output = command.output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    let (_, peak) = words.rsplit_once("peak memory ").unwrap();
    peak.split(' ').next().unwrap().parse().unwrap()
}

fn open(shards: &Path) {
    let split = Shards::open(shards).unwrap().split("train").unwrap();
    assert_eq!(split.len(), IMAGES);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("peak memory {} MB", kilobytes / 1024);
}
