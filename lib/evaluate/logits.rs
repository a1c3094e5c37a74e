//! Inference: the logits of whole sets of images.

use crate::augment::Pipe;
use crate::cli;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::network::Network;
use crate::rng::{Stream, rng};
use crate::schema;
use crate::shards::Split;
use indicatif::ProgressBar;
use rayon::prelude::*;
use std::path::Path;

/// Views that go through the network at once.
const BATCH_VIEWS: usize = 256;

/// Logits `[rows, views, classes]` of the given rows of a split.
pub fn logits(
    network: &mut Network,
    split: &Split,
    rows: &[u32],
    pipe: &Pipe,
    what: &'static str,
) -> Result<Vec<f32>> {
    let bar = cli::progress(rows.len() as u64, what);
    let mut all = Vec::new();
    visit(network, split, rows, pipe, &bar, |_, logits| all.extend_from_slice(logits))?;
    bar.finish_and_clear();
    Ok(all)
}

/// As `logits`, some rows at a time: `each` gets those rows and their logits `[rows, views, classes]`, in
/// order.
pub fn visit(
    network: &mut Network,
    split: &Split,
    rows: &[u32],
    pipe: &Pipe,
    bar: &ProgressBar,
    mut each: impl FnMut(&[u32], &[f32]),
) -> Result<()> {
    let output = pipe.output(split.channels())?;
    let (views, size) = (output.views, output.values());
    let mut inference = network.inference()?;
    for rows in rows.chunks((BATCH_VIEWS / views).max(1)) {
        if cli::stop_requested() {
            return Err(Error::Interrupted { path: split.path().to_path_buf() });
        }
        rows.iter().for_each(|&row| split.prefetch(row as usize));
        let mut images = vec![0.0; rows.len() * size];
        images.par_chunks_exact_mut(size).zip(rows).try_for_each(|(out, &row)| {
            // Evaluation pipes draw nothing; the key only completes the call.
            let mut rng = rng(0, Stream::LabelledAugment, 0, u64::from(row));
            split.augment(row as usize, pipe, &mut rng, out)
        })?;
        each(rows, &inference.run(&images, schema::head::CLASSES)?);
        bar.inc(rows.len() as u64);
    }
    Ok(())
}

/// Errors unless the pipe makes images that the model takes from images of this many channels. `images`
/// is their path.
pub fn check_size(config: &Config, channels: usize, images: &Path, pipe: &Pipe) -> Result<()> {
    let out = pipe.output(channels)?;
    let wanted = (config.height, config.width, config.architecture.channels);
    if (out.height, out.width, out.channels) == wanted {
        return Ok(());
    }
    Err(Error::bad_data(
        images,
        format!("images that become {}x{}x{}, as the model takes", wanted.0, wanted.1, wanted.2),
        format!("{}x{}x{}", out.height, out.width, out.channels),
        "name the model that was trained on such images, or change the pipe",
    ))
}

/// Mean over the views of an image: `[classes]` of `[views, classes]`.
pub fn mean_over_views(logits: &[f32], classes: usize) -> Vec<f32> {
    let views = logits.len() / classes;
    let mean = |c| {
        let sum: f64 = (0..views).map(|v| f64::from(logits[v * classes + c])).sum();
        (sum / views as f64) as f32
    };
    (0..classes).map(mean).collect()
}
