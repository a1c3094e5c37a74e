//! What NVIDIA's libraries make of the GPU engine, without a GPU: `tools/check-cuda.sh` runs it.
//!
//! `cuda kernels`: compiles every kernel for three generations of GPUs, and counts spilled registers.
//! `cuda plans CARD.json`: plans every convolution of four networks for the GPU that the file describes.

use s4l::network::cuda::compile::Unit;
use s4l::network::cuda::graph::Target;
use s4l::network::cuda::kernels::{Kernel, Source};
use s4l::network::cuda::plans::{Plans, chosen};
use s4l::network::cuda::runtime::{Convolution, Products};
use s4l::network::engine::Precision;
use s4l::network::layout::{Architecture, Conv, Layout, Stem};
use std::process::ExitCode;
use std::time::Instant;

/// A100, H100, B200.
const ARCHITECTURES: [i32; 3] = [80, 90, 100];
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];
const DIRECTIONS: [Products; 3] =
    [Products::Forward, Products::InputGradient, Products::WeightGradient];

/// Channels of the images in the engine, a multiple of 8.
const CHANNELS: usize = 8;

/// The most memory that a plan in bfloat16 may work in. In float32 without tensor cores, and for the gradient of
/// the images, which VAT alone needs, cuDNN also has its own copies of images, outputs and kernel there.
const WORKSPACE: usize = 64 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let good = match arguments[..] {
        ["kernels"] => kernels(),
        ["plans", card] => plans(card),
        _ => panic!("usage: cuda kernels | plans CARD.json"),
    };
    ExitCode::from(if good { 0 } else { 3 })
}

fn kernels() -> bool {
    let (mut spilled, mut registers, mut bytes, mut compiled) = (0, 0, 0, 0);
    let begun = Instant::now();
    for architecture in ARCHITECTURES {
        for precision in PRECISIONS {
            for source in Source::ALL {
                let unit = Unit { source: &source.text(), precision, architecture };
                let made = unit.compile().unwrap_or_else(|e| panic!("{source:?}: {e}"));
                bytes += made.cubin.len();
                compiled += 1;
                for (number, what) in numbers(&made.log) {
                    match what.as_str() {
                        "bytes spill stores" | "bytes spill loads" => spilled += number,
                        "registers" => registers = registers.max(number),
                        _ => {}
                    }
                }
                if made.log.contains("warning") {
                    println!("{source:?} sm_{architecture} {precision:?}: {}", made.log);
                }
            }
        }
    }
    let (kernels, seconds) = (Kernel::ALL.len(), begun.elapsed().as_secs_f64());
    println!(
        "CHECK kernels={kernels} programs={compiled} spilled_bytes={spilled} most_registers={registers} \
         bytes={bytes} seconds={seconds:.1}"
    );
    spilled == 0 && registers > 0
}

/// Each number of ptxas's report with what it counts, up to the comma.
fn numbers(log: &str) -> Vec<(u64, String)> {
    let parts = log.lines().flat_map(|line| line.split([',', ':']));
    parts
        .filter_map(|part| {
            let part = part.trim().trim_start_matches("Used ");
            let (number, what) = part.split_once(' ')?;
            Some((number.parse().ok()?, what.to_string()))
        })
        .collect()
}

/// Name, architecture, size of the images and batch.
fn networks() -> Vec<(&'static str, Layout, usize, usize)> {
    let layout = |units: &[usize], width_factor, stem| {
        Layout::new(&Architecture {
            channels: CHANNELS,
            units: units.to_vec(),
            width_factor,
            stem,
            heads: vec![("classes".into(), 10)],
        })
    };
    vec![
        ("r50_224", layout(&[3, 4, 6, 3], 4, Stem::Imagenet), 224, 256),
        ("wide_224", layout(&[3, 4, 6, 3], 16, Stem::Imagenet), 224, 64),
        ("a16", layout(&[2, 2, 2, 2], 1, Stem::Small), 32, 128),
        ("a32", layout(&[2, 2, 2, 2], 2, Stem::Small), 32, 128),
    ]
}

/// All convolutions with the size of their images, the stem first.
fn convolutions(layout: &Layout, size: usize) -> Vec<(Conv, usize)> {
    let mut size = size;
    let mut all = vec![(layout.stem.clone(), size)];
    size = layout.stem.output(size);
    if layout.pool {
        size = size.div_ceil(2);
    }
    for unit in &layout.units {
        all.extend(unit.shortcut.iter().map(|shortcut| (shortcut.clone(), size)));
        for conv in &unit.convs {
            all.push((conv.clone(), size));
            size = conv.output(size);
        }
    }
    all
}

/// Bytes of the images, outputs and kernel of a convolution.
fn copies(c: &Convolution) -> usize {
    let value = if c.precision == Precision::F32 { 4 } else { 2 };
    let outputs = c.output(c.height) * c.output(c.width) * c.outputs;
    let kernel = c.kernel * c.kernel * c.channels * c.outputs;
    value * (c.n * (c.height * c.width * c.channels + outputs) + kernel)
}

fn plans(card: &str) -> bool {
    let json = std::fs::read_to_string(card).unwrap_or_else(|e| panic!("{card}: {e}"));
    let mut plans = Plans::new(Target::described(&json).unwrap_or_else(|e| panic!("{card}: {e}")));
    let (mut asked, mut failed, mut large) = (0, 0, 0);
    let begun = Instant::now();
    for (name, layout, size, n) in networks() {
        for precision in PRECISIONS {
            let mut most = [0; 2];
            for (index, (conv, size)) in convolutions(&layout, size).into_iter().enumerate() {
                let shape = Convolution {
                    n,
                    height: size,
                    width: size,
                    channels: conv.inputs,
                    outputs: conv.outputs,
                    kernel: conv.kernel,
                    stride: conv.stride,
                    precision,
                };
                for what in DIRECTIONS {
                    asked += 1;
                    let of_images = index == 0 && what == Products::InputGradient;
                    let copies = match of_images || precision == Precision::F32 {
                        true => copies(&shape),
                        false => 0,
                    };
                    match plans.get(&shape, what) {
                        Ok(plan) => {
                            let most = &mut most[usize::from(of_images)];
                            *most = plan.workspace.max(*most);
                            if plan.workspace > copies + WORKSPACE {
                                large += 1;
                                let megabytes = [plan.workspace, copies].map(|bytes| bytes >> 20);
                                println!(
                                    "{name} {precision:?} {what:?} {}: {megabytes:?} MB",
                                    conv.name
                                );
                            }
                        }
                        Err(e) => {
                            failed += 1;
                            println!("{name} {precision:?} {what:?} {}: {e}", conv.name);
                        }
                    }
                }
            }
            let [most, of_images] = most.map(|bytes| bytes as f64 / 1e6);
            println!(
                "{name} {precision:?}: workspace {most:.1} MB, for the images' gradient {of_images:.1} MB"
            );
        }
    }
    chosen().into_iter().for_each(|line| println!("{line}"));
    println!(
        "CHECK plans={asked} failed={failed} large={large} seconds={:.1}",
        begun.elapsed().as_secs_f64()
    );
    failed + large == 0
}
