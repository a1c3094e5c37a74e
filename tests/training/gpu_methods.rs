//! Every method on a simulated GPU follows the CPU engine.

use super::ranks::{CLASSES, Trained, apart, differences, first_weights, train};
use crate::common::gpu::gpu;
use crate::common::smoke_shards;
use s4l::methods::architecture;
use s4l::network::cuda;
use s4l::network::device::Device;
use s4l::network::engine::Precision::F32;
use s4l::network::layout::Layout;
use s4l::network::{Network, weights::Weights};
use s4l::settings::Settings;
use s4l::shards::Split;

const SIZE: (usize, usize) = (12, 12);

/// The settings of a recipe of the smoke pipeline, with smaller images and batches.
fn settings(row: &str) -> Settings {
    let path = format!("{}/pipelines/smoke/{row}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.replace("28)", "12)").replace("cutout(14)", "cutout(6)");
    let text = text.replace("batch = 16", "batch = 6");
    toml::from_str(&text).unwrap()
}

fn trained(split: &Split, s: &Settings, change: f32, steps: u64, on_gpu: bool) -> Trained {
    let architecture = architecture(s, 1, CLASSES);
    let layout = Layout::new(&architecture);
    let weights: Weights = first_weights(&layout, change);
    let mut network = Network::new(&architecture, SIZE, Device::Cpu, F32, weights.clone()).unwrap();
    if on_gpu {
        network.engine = cuda::engine(gpu(false), &layout, SIZE, weights, F32).unwrap();
    }
    train(&mut network, split, s, steps)
}

/// What is left is rounding: as much as rounding the first weights makes, as in ranks.rs.
fn follow(steps: u64) {
    let scratch = smoke_shards();
    let shards = s4l::shards::Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    for row in [
        "supervised_10p",
        "s4l_exemplar",
        "s4l_rotation",
        "vat_entmin",
        "moam_step1",
        "fixmatch",
        "distill",
    ] {
        let s = settings(row);
        let on_cpu = trained(&split, &s, 0.0, steps, false);
        let rounded = trained(&split, &s, 1e-7, steps, false);
        let on_gpu = trained(&split, &s, 0.0, steps, true);
        let rounding = differences(&rounded.0, &on_cpu.0);
        for (name, off) in differences(&on_gpu.0, &on_cpu.0) {
            let most = 1e-5 + 4.0 * rounding[name];
            println!("{row}: {name} is off by {off:.1e}, rounding {:.1e}", rounding[name]);
            assert!(off <= most, "{row}: {name} is off by {off}, {most}");
        }
        let off = apart(&on_gpu.1, &on_cpu.1);
        let most = 1e-5 + 4.0 * apart(&rounded.1, &on_cpu.1);
        println!("{row}: a weight is off by {off:.1e} of {most:.1e}");
        assert!(off < most, "{row}: a weight is off by {off}, {most}");
    }
}

#[test]
fn gpu_follows_the_cpu_engine_in_every_method() {
    follow(5);
}

#[test]
#[ignore = "takes minutes; docs/GPU.md has what it showed"]
fn gpu_follows_the_cpu_engine_for_50_steps() {
    follow(50);
}
