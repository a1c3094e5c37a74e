//! `s4l-shard` against `cp` and `b3sum` on the same tar, and its memory by number of images. Run by
//! `benches/shard.sh`.

use image::ExtendedColorType::Rgb8;
use image::codecs::jpeg::JpegEncoder;
use rand::{RngExt, SeedableRng};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 5;
const SHARD: &str = env!("CARGO_BIN_EXE_s4l-shard");

fn main() {
    let folder = tempfile::tempdir_in("target").unwrap();
    let path = |name: &str| folder.path().join(name);
    // 110 KB each, as ImageNet's are on average.
    let tar = path("train.tar");
    let bytes = write_tar(&tar, 20_000, &photos(500, 375));
    let mut times: [Vec<f64>; 3] = Default::default();
    // The first round is a warm-up.
    for round in 0..=ROUNDS {
        for (case, times) in times.iter_mut().enumerate() {
            clean(&[&path("shards"), &path("copy.tar")]);
            let start = Instant::now();
            if case == 0 {
                shard(&tar, &path("shards"));
            } else {
                run(Command::new("cp").arg(&tar).arg(path("copy.tar")));
                if case == 2 {
                    run(Command::new("sync").arg(path("copy.tar")));
                }
                run(Command::new("b3sum").args(["--num-threads", "2"]).arg(path("copy.tar")));
            }
            if round > 0 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let speed = times.map(|times| bytes as f64 / 1e6 / median(times));
    line("shard", speed[0], speed[1], "cp+b3sum");
    line("shard_synced", speed[0], speed[2], "cp+sync+b3sum");

    let small = photos(64, 48);
    let peaks = [200_000, 2_000].map(|images| {
        clean(&[&path("shards")]);
        write_tar(&tar, images, &small);
        shard(&tar, &path("shards"))
    });
    line("shard_memory", peaks[0], peaks[1], "2000-images");
}

fn line(case: &str, ours: f64, peer: f64, peer_is: &str) {
    let ratio = ours / peer;
    println!("BENCH data/{case} ours={ours:.0} peer={peer:.0} ratio={ratio:.2} peer_is={peer_is}");
}

/// Different JPEGs with the detail of photographs: soft colours under noise.
fn photos(width: u32, height: u32) -> Vec<Vec<u8>> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let photo = |_| {
        let mut soft = image::RgbImage::new(width / 16 + 1, height / 16 + 1);
        soft.iter_mut().for_each(|value| *value = rng.random());
        let filter = image::imageops::FilterType::Triangle;
        let mut photo = image::imageops::resize(&soft, width, height, filter);
        for value in photo.iter_mut() {
            *value = value.saturating_add(rng.random_range(0..26));
        }
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 90);
        encoder.encode(&photo, width, height, Rgb8).unwrap();
        bytes
    };
    (0..64).map(photo).collect()
}

/// Returns the bytes of all images.
fn write_tar(path: &Path, images: usize, photos: &[Vec<u8>]) -> usize {
    let file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut tar = tar::Builder::new(file);
    let mut bytes = 0;
    for i in 0..images {
        let photo = &photos[i % photos.len()];
        bytes += photo.len();
        let mut header = tar::Header::new_ustar();
        header.set_size(photo.len() as u64);
        let name = format!("class{}/{i:07}.jpg", i % 10);
        tar.append_data(&mut header, name, &photo[..]).unwrap();
    }
    tar.into_inner().unwrap().into_inner().unwrap();
    bytes
}

/// Returns the peak memory in MB.
fn shard(input: &Path, out: &Path) -> f64 {
    let mut command = Command::new(SHARD);
    command.arg("--in").arg(input).arg("--out").arg(out);
    let output = command.args(["--threads", "2"]).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    let (_, peak) = words.split_once("peak memory ").unwrap();
    peak.split(' ').next().unwrap().parse().unwrap()
}

fn run(command: &mut Command) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
}

/// Removes what the last round left, and waits until the disk is idle.
fn clean(paths: &[&Path]) {
    for path in paths {
        let _ = std::fs::remove_file(path);
        let _ = std::fs::remove_dir_all(path);
    }
    run(&mut Command::new("sync"));
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
