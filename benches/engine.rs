//! Our side of `engine.sh`. Each line of stdin is a number of seconds; for so long a network trains or
//! infers, and answers with a line of JSON. `engine NET train|infer f32|bf16`, or `engine gemm gemm f32`:
//! GFLOP/s of the matrix product that candle uses. `$ISA`: the instruction set, by its name. `$DEVICE`: as `--device`.
//! `$BATCH`: images a step. `engine NET tasks f32|bf16` prints what a step of training would take on more threads.

#[path = "engine/tasks.rs"]
mod tasks;

use candle_core::{DType, Tensor};
use s4l::methods::supervised::cross_entropy;
use s4l::network::cpu::{self, Isa};
use s4l::network::engine::{BATCH_NORM_MOMENTUM, Pass, Precision};
use s4l::network::layout::{Architecture, Layout, Stem};
use s4l::network::update::Update;
use s4l::network::weights::Weights;
use s4l::network::{Network, Outputs};
use s4l::rng::{RngExt, Stream, rng};
use std::io::BufRead;
use std::time::Instant;

const CLASSES: usize = 10;

/// Architecture, image size and batch of training; inference uses 128 images.
fn network(name: &str) -> Option<(Architecture, usize, usize)> {
    let (units, width_factor, stem, size, batch) = match name {
        "a16" => (vec![2, 2, 2, 2], 1, Stem::Small, 32, 128),
        "a32" => (vec![2, 2, 2, 2], 2, Stem::Small, 32, 128),
        "r50_64" => (vec![3, 4, 6, 3], 4, Stem::Imagenet, 64, 32),
        "r50_224" => (vec![3, 4, 6, 3], 4, Stem::Imagenet, 224, 8),
        "wide_224" => (vec![3, 4, 6, 3], 16, Stem::Imagenet, 224, 8),
        _ => return None,
    };
    let architecture = Architecture {
        channels: 3,
        units,
        width_factor,
        stem,
        heads: vec![("classes".into(), CLASSES)],
    };
    Some((architecture, size, batch))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [name, mode @ ("train" | "infer" | "gemm" | "tasks"), precision @ ("f32" | "bf16")] =
        arguments[..]
    else {
        panic!("usage: engine NET train|infer|tasks f32|bf16");
    };
    if mode != "tasks" {
        rayon::ThreadPoolBuilder::new().num_threads(2).build_global().expect("the first pool");
    }
    if mode == "gemm" {
        let n = 2048;
        let cpu = candle_core::Device::Cpu;
        let side = || Tensor::ones((n, n), DType::F32, &cpu).expect("a matrix");
        let (a, b) = (side(), side());
        let work = 2.0 * (n as f64).powi(3) / 1e9;
        return rates(work, &mut || drop(a.matmul(&b).expect("a product")));
    }
    let precision = match precision {
        "bf16" => Precision::Bf16,
        _ => Precision::F32,
    };
    let (architecture, size, mut batch) =
        network(name).expect("a16, a32, r50_64, r50_224 or wide_224");
    if mode == "infer" {
        batch = 128;
    }
    if let Ok(images) = std::env::var("BATCH") {
        batch = images.parse().expect("BATCH");
    }
    if mode == "tasks" {
        return tasks::predict(batch, || step(&architecture, size, batch, false, precision));
    }
    let mut step = step(&architecture, size, batch, mode == "infer", precision);
    rates(batch as f64, &mut step);
}

/// A step of training, or an inference, of `batch` images.
fn step(
    architecture: &Architecture,
    size: usize,
    batch: usize,
    infer: bool,
    precision: Precision,
) -> Box<dyn FnMut() + Send> {
    let device = std::env::var("DEVICE").unwrap_or("cpu".into()).parse().expect("DEVICE");
    let mut rng = rng(0, Stream::Init, 0, 0);
    let mut images: Vec<f32> =
        (0..batch * size * size * 3).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
    let labels: Vec<u32> = (0..batch).map(|_| rng.random_range(0..CLASSES as u32)).collect();
    let labels = Tensor::from_vec(labels, batch, &candle_core::Device::Cpu).expect("labels");
    let weights = Weights::initial(&Layout::new(architecture), 0);
    let mut network =
        Network::new(architecture, (size, size), device, precision, weights).expect("a network");
    if let Some(isa) = forced() {
        let weights = network.engine.get().expect("weights");
        network.engine = cpu::engine(&network.layout, (size, size), weights, precision, isa);
    }
    if infer {
        network.inference().expect("inference");
        return Box::new(move || {
            network.engine.infer(&images, 0).expect("logits");
        });
    }
    let update = Update { learning_rate: 0.01, momentum: 0.9, weight_decay: 1e-3, half_life: 0.0 };
    network.engine.images(&mut images);
    Box::new(move || {
        let pass = Pass::Train { keep: BATCH_NORM_MOMENTUM };
        let loss = |out: &Outputs| cross_entropy(&out.head("classes")?, &labels);
        network.differentiate(pass, true, [batch, 0], loss).expect("a step");
        network.engine.update(&update).expect("an update");
    })
}

/// The instruction set that `$ISA` names.
fn forced() -> Option<Isa> {
    let name = std::env::var("ISA").ok()?;
    let all = Isa::all();
    let names: Vec<_> = all.iter().map(|isa| isa.name()).collect();
    let found = all.iter().find(|isa| isa.name() == name);
    Some(*found.unwrap_or_else(|| panic!("ISA={name}: this machine has {names:?}")))
}

/// Answers each line of stdin: work a second, from the median step, and the peak memory of the process.
fn rates(work: f64, step: &mut dyn FnMut()) {
    (0..3).for_each(|_| step());
    println!("{{}}");
    for line in std::io::stdin().lock().lines() {
        let seconds: f64 = line.expect("stdin").trim().parse().expect("seconds");
        let mut times = Vec::new();
        let start = Instant::now();
        while times.len() < 3 || start.elapsed().as_secs_f64() < seconds {
            let begun = Instant::now();
            step();
            times.push(begun.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let (rate, peak) = (work / times[times.len() / 2], memory("VmHWM:"));
        println!("{{\"rate\": {rate}, \"mib\": {peak}}}");
    }
}

/// A field of this process's status, in MiB.
fn memory(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with(field)).expect(field);
    let kib: f64 = line.split_whitespace().nth(1).map_or(0.0, |v| v.parse().expect("KiB"));
    kib / 1024.0
}
