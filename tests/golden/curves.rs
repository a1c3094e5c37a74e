//! `s4l-pretrain` against an independent training loop: the same images, initial weights, batches and
//! noise, without augmentation.

use crate::common::training::{PRETRAIN, curve, words, write_labels};
use crate::common::{IMAGES, LABELS, Scratch, shard, smoke};
use crate::{floats, path, rows};
use s4l::rng::{RngExt, Stream, rng};
use s4l::shards::Shards;

/// Number of labelled images: the first ones.
const LABELLED: usize = 100;

/// Shards of the embedded images with noise of up to 64 grey levels; curves.py says why.
fn rough_shards() -> Scratch {
    let scratch = Scratch::new();
    let mut images = smoke(IMAGES);
    for (row, image) in images[16..].chunks_exact_mut(28 * 28).enumerate() {
        let mut rng = rng(0, Stream::Init, 1, row as u64);
        for pixel in image {
            let moved = (i32::from(*pixel) + rng.random_range(0..129usize) as i32 - 64).abs();
            *pixel = if moved > 255 { 510 - moved } else { moved } as u8;
        }
    }
    scratch.write(&format!("data/{IMAGES}"), images);
    scratch.write(&format!("data/{LABELS}"), smoke(LABELS));
    shard(&scratch, &["--in", "data", "--out", "shards", "-q"]).ok();
    scratch
}

/// The loss at each of 50 steps within 1e-3. Its terms within 1e-2, since a step near a ReLU's kink moves
/// them more, and most of all that of VAT, which is small.
#[test]
fn training_follows_pytorch_step_by_step() {
    let scratch = rough_shards();
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    let labels: Vec<(&str, i64)> = (0..LABELLED)
        .map(|row| (split.key(row), i64::from(split.labels().unwrap()[row].unwrap())))
        .collect();
    write_labels(&scratch, "labelled.parquet", &labels);
    for golden in rows("curves.json") {
        let recipe = golden["recipe"].as_str().unwrap();
        let line = format!(
            "--in shards --labelled labelled.parquet --recipe {} --out {recipe} -q",
            path(recipe)
        );
        scratch.run(PRETRAIN, &words(&line)).ok();
        let names = golden.as_object().unwrap().keys();
        for name in names.filter(|n| *n != "recipe") {
            let metric = match name.as_str() {
                "loss" => "loss".to_string(),
                term => format!("loss/{term}"),
            };
            let (ours, theirs) = (curve(&scratch, recipe, &metric), floats(&golden[name]));
            assert_eq!((ours.len(), theirs.len()), (50, 50), "{recipe}, {metric}");
            let off = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / b);
            let worst = off.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            println!("{recipe}, {metric}: {:.1e} at step {}", worst.1, worst.0);
            let bound = match name.as_str() {
                "loss" => 1e-3,
                "vat" => 5e-2,
                _ => 1e-2,
            };
            assert!(worst.1 < bound, "{recipe}, {metric}: {worst:?}");
        }
    }
}
