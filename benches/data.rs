//! Our side of `data.sh`. Each line of stdin is a number of seconds; for so long it reads images, and
//! answers with a line of JSON, `{"rate": images a second}`. `data CASE SHARDS THREADS`.

use memmap2::Mmap;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};
use s4l::methods::batch::Labels;
use s4l::methods::views::ImageViews;
use s4l::ranks::Share;
use s4l::rng::{Stream, permutation, rng};
use s4l::schema::IMAGE_BYTES;
use s4l::shards::{Shards, Split, Stored};
use s4l::train::loader::{ImageSet, TrainingImages};
use std::fs::File;
use std::io::BufRead;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows per batch in the cases without a pipe.
const BATCH: usize = 32;
/// Rows read after the page cache was emptied, and the number of rows for which reading is requested in
/// advance.
const COLD_ROWS: usize = 2000;
const LOOK_AHEAD: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [case, folder, threads] = arguments[..] else {
        panic!("usage: data CASE SHARDS THREADS");
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.parse().expect("a number of threads"))
        .build_global()
        .expect("the first pool");
    let folder = Path::new(folder);
    match case {
        "rows" => batches(split(folder), "central_crop(28)|-1_to_1", 256),
        "jpeg" => batches(split(folder), "inception_crop|resize(224)|flip_lr|-1_to_1", 64),
        "blobs" => blobs(&split(folder)),
        "cold" => cold(folder, prefetched),
        "mmap" => cold(folder, plain),
        "pread" => cold(folder, pread),
        other => panic!("case {other:?}"),
    }
}

fn split(folder: &Path) -> Split {
    let shards = Shards::open(folder).expect("shards");
    shards.split("train").expect("a split")
}

/// Answers each line of stdin with the rate of `step`, which returns the number of images read.
fn answer(mut step: impl FnMut() -> usize) {
    for line in std::io::stdin().lock().lines() {
        let seconds: f64 = line.expect("a line").parse().expect("seconds");
        let (start, end) = (Instant::now(), Duration::from_secs_f64(seconds));
        let mut images = 0;
        while start.elapsed() < end {
            images += step();
        }
        println!("{{\"rate\": {}}}", images as f64 / start.elapsed().as_secs_f64());
    }
}

/// The training loader's own batches.
fn batches(split: Split, pipe: &str, batch: usize) {
    let channels = split.channels();
    let set = |rows: usize, batch| ImageSet {
        rows: (0..rows as u32).collect(),
        batch,
        views: ImageViews::new(&[pipe], channels).expect("a pipe"),
        order: Stream::LabelledOrder,
        augment: Stream::LabelledAugment,
    };
    let images = Arc::new(TrainingImages {
        labelled: set(split.len(), batch),
        labels: Labels::Hard(vec![0; split.len()]),
        unlabelled: set(0, 0),
        split,
        seed: 0,
        share: Share::WHOLE,
    });
    let mut batches = images.batches(0, u64::MAX);
    answer(|| {
        let made = batches.advance().expect("a batch");
        std::hint::black_box(&made.images);
        batch
    });
}

fn bytes(split: &Split, row: usize) -> &[u8] {
    match split.stored(row).expect("a row") {
        Stored::Pixels(bytes) | Stored::Encoded(bytes) => bytes,
    }
}

fn order(split: &Split, epoch: u64) -> Vec<u32> {
    permutation(&mut rng(0, Stream::LabelledOrder, epoch, 0), split.len())
}

/// Shuffled rows of files in the page cache, copied into the buffers of a batch.
fn blobs(split: &Split) {
    (0..split.len()).for_each(|row| split.prefetch(row));
    let mut epoch = 0..;
    let mut rows = Vec::new();
    let mut buffers = vec![Vec::new(); BATCH];
    answer(|| {
        for buffer in &mut buffers {
            let row = rows.pop().unwrap_or_else(|| {
                rows = order(split, epoch.next().expect("epochs without end"));
                rows.pop().expect("rows")
            });
            buffer.clear();
            buffer.extend_from_slice(bytes(split, row as usize));
        }
        std::hint::black_box(&buffers);
        BATCH
    });
}

/// Copies rows of a split, or rows at their places in the files, into a buffer, one by one.
type Read = fn(&Split, &[Place], &[u32], &mut Vec<u8>);

/// File, offset and length of the page of each row.
type Place = (Arc<File>, u64, usize);

/// Shuffled rows of files that are not in the page cache, copied one by one.
fn cold(folder: &Path, read: Read) {
    let mut buffer = Vec::new();
    for (epoch, line) in std::io::stdin().lock().lines().enumerate() {
        line.expect("a line");
        let places = places(folder);
        let mut files: Vec<_> = places.iter().map(|(file, ..)| file).collect();
        files.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for file in files {
            // SAFETY: advice on an open file; nothing maps it at this point.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
        let split = split(folder);
        let rows = &order(&split, epoch as u64)[..COLD_ROWS];
        let start = Instant::now();
        read(&split, &places, rows, &mut buffer);
        let rate = COLD_ROWS as f64 / start.elapsed().as_secs_f64();
        // The next run cannot drop mapped files from the cache.
        drop(split);
        println!("{{\"rate\": {rate}}}");
    }
}

fn copy(bytes: &[u8], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
    std::hint::black_box(buffer);
}

fn prefetched(split: &Split, _: &[Place], rows: &[u32], buffer: &mut Vec<u8>) {
    for &row in &rows[..LOOK_AHEAD] {
        split.prefetch(row as usize);
    }
    for (i, &row) in rows.iter().enumerate() {
        if let Some(&ahead) = rows.get(i + LOOK_AHEAD) {
            split.prefetch(ahead as usize);
        }
        copy(bytes(split, row as usize), buffer);
    }
}

fn plain(_: &Split, places: &[Place], rows: &[u32], buffer: &mut Vec<u8>) {
    let mut maps: Vec<(&Arc<File>, Mmap)> = Vec::new();
    for &row in rows {
        let (file, offset, length) = &places[row as usize];
        let found = maps.iter().position(|(of, _)| Arc::ptr_eq(of, file));
        let nth = found.unwrap_or_else(|| {
            // SAFETY: nothing writes to existing shards.
            let map = unsafe { Mmap::map(&**file) }.expect("a map");
            maps.push((file, map));
            maps.len() - 1
        });
        copy(&maps[nth].1[*offset as usize..][..*length], buffer);
    }
}

fn pread(_: &Split, places: &[Place], rows: &[u32], buffer: &mut Vec<u8>) {
    for &row in rows {
        let (file, offset, length) = &places[row as usize];
        buffer.resize(*length, 0);
        file.read_exact_at(buffer, *offset).expect("a row");
        std::hint::black_box(&buffer);
    }
}

/// The places of the images, one per page, from the offset index of each file.
fn places(folder: &Path) -> Vec<Place> {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    paths.sort();
    let mut places = Vec::new();
    for path in paths {
        let file = Arc::new(File::open(&path).expect("a file"));
        let options = ReadOptionsBuilder::new().with_page_index().build();
        let reader =
            SerializedFileReader::new_with_options(file.try_clone().expect("a handle"), options)
                .expect("a parquet file");
        let metadata = reader.metadata();
        for group in 0..metadata.num_row_groups() {
            let columns = metadata.row_group(group).columns();
            let image = columns
                .iter()
                .position(|c| c.column_path().string() == IMAGE_BYTES)
                .expect("encoded images");
            let index = metadata.page_index_for_row_group(group);
            for page in index.page_locations(image).expect("an offset index") {
                places.push((file.clone(), page.offset as u64, page.compressed_page_size as usize));
            }
        }
    }
    places
}
