//! How long recipes take on this machine: the rate of a short real run of the engine, times their work.

use crate::cli;
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::methods::batch::{Batch, Half, Labels, Rows};
use crate::methods::main_pass::At;
use crate::methods::{self, views::Views};
use crate::network::Network;
use crate::network::device::Device;
use crate::network::layout::Layout;
use crate::network::update::Update;
use crate::network::weights::Weights;
use crate::rng::{RngExt, Stream, rng};
use crate::settings::{Method, Settings};
use crate::train::schedule::Schedule;
use std::path::Path;
use std::time::{Duration, Instant};

/// The engine runs so long, and at least so many steps, after one that warms it up.
const MEASURED: Duration = Duration::from_secs(2);
const STEPS: u64 = 2;

fn rows(s: &Settings, views: &Views) -> Rows {
    Rows {
        unlabelled: Half { images: s.unlabelled_batch, views: views.unlabelled.count() },
        labelled: Half { images: s.batch, views: views.labelled.count() },
    }
}

/// Images that go forward and backward in a step. VAT's two passes see the unlabelled ones again.
fn passes(s: &Settings, rows: &Rows) -> usize {
    match s.method {
        Method::Moam => rows.all() + 2 * rows.unlabelled.rows(),
        _ => rows.all(),
    }
}

/// Images a second that go forward and backward in the steps of a recipe.
pub fn measure(s: &Settings, channels: usize, classes: usize) -> Result<f64> {
    let views = methods::views(s, channels)?;
    let (rows, first) = (rows(s, &views), views.labelled.first());
    let architecture = methods::architecture(s, channels, classes);
    let weights = Weights::initial(&Layout::new(&architecture), 0);
    let size = (first.height, first.width);
    let mut network = Network::new(&architecture, size, Device::Cpu, s.precision, weights)?;
    let mut noise = rng(0, Stream::Init, 0, 0);
    let values = rows.all() * first.height * first.width * channels;
    let images: Vec<f32> = (0..values).map(|_| noise.random_range(-1.0..1.0)).collect();
    let labels = Labels::Hard((0..s.batch).map(|image| (image % classes) as u32).collect());
    let update = Update { learning_rate: 1e-3, momentum: 0.9, weight_decay: 0.0, half_life: 0.0 };
    let mut step = |step| -> Result<()> {
        let mut batch = Batch { images: images.clone(), rows, labels: labels.clone() };
        methods::step(&mut network, s, &mut batch, At { seed: 0, step, ramp: 1.0 })?;
        network.engine.update(&update)
    };
    step(0)?;
    let (start, mut steps) = (Instant::now(), 0);
    while steps < STEPS || start.elapsed() < MEASURED {
        if cli::stop_requested() {
            return Err(Error::Interrupted { path: Path::new("measuring").to_path_buf() });
        }
        steps += 1;
        step(steps)?;
    }
    Ok((steps as usize * passes(s, &rows)) as f64 / start.elapsed().as_secs_f64())
}

/// Seconds of one thread to decode an image.
pub fn decoding(samples: &[Vec<u8>]) -> f64 {
    let (mut decoder, start) = (Decoder::default(), Instant::now());
    for sample in samples {
        // Training reports images that are damaged inside.
        let _ = decoder.whole(sample);
    }
    start.elapsed().as_secs_f64() / samples.len().max(1) as f64
}

/// Seconds that a recipe computes and decodes with so many labelled images, at so many images a second and
/// seconds to decode one.
pub fn seconds(
    s: &Settings,
    channels: usize,
    labelled: usize,
    rate: f64,
    decode: f64,
) -> Result<[f64; 2]> {
    let rows = rows(s, &methods::views(s, channels)?);
    let decoded = (rows.labelled.images + rows.unlabelled.images) as f64;
    let steps = Schedule::new(s, labelled).total_steps as f64;
    Ok([steps * passes(s, &rows) as f64 / rate, steps * decoded * decode])
}
