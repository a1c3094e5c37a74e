//! Batch norm, and the distribution of initial weights.

use crate::images::{bound, distance};
use crate::{Tensors, close, float, floats, rows};
use candle_core::{DType, Device};
use s4l::network::candle::CandleTrunk;
use s4l::network::cpu::{CpuTrunk, Isa};
use s4l::network::engine::{BATCH_NORM_MOMENTUM, Gradients, Pass, Trunk};
use s4l::network::layout::Stem;
use s4l::network::layout::{Architecture, Layout};
use std::collections::BTreeMap;

fn architecture(channels: usize, units: &[usize], width_factor: usize, stem: Stem) -> Architecture {
    Architecture {
        channels,
        units: units.to_vec(),
        width_factor,
        stem,
        heads: vec![("classes".into(), 10)],
    }
}

/// A network without units, whose stem passes its 16 channels on as they are: all that is left is the
/// last norm, ReLU and the mean over pixels. TensorFlow's op computes in float32, as the fast trunk.
#[test]
fn batch_norm_is_tensorflow_s() {
    let golden = Tensors::read("batch_norm.safetensors");
    let layout = Layout::new(&architecture(16, &[], 1, Stem::Small));
    let mut parameters = vec![0f32; layout.parameters];
    for channel in 0..16 {
        let centre = (4 * 16 + channel) * 16 + channel;
        parameters[layout.stem.offset + centre] = 1.0;
    }
    parameters[layout.norm.gamma()].copy_from_slice(&golden.singles("gamma"));
    parameters[layout.norm.beta()].copy_from_slice(&golden.singles("beta"));
    let trunks: [(&str, Box<dyn Trunk>); 2] = [
        ("fast", Box::new(CpuTrunk::<f32>::new(&layout, 5, 6, Isa::best()))),
        ("candle", Box::new(CandleTrunk::new(&layout, 5, 6, Device::Cpu, DType::F64))),
    ];
    for (name, mut trunk) in trunks {
        let mut moving = layout.initial_moving();
        for batch in 0..3 {
            let of = |what: &str| format!("{batch}.{what}");
            let is = |what: &str, got: &[f32]| {
                let expected = golden.doubles(&of(what));
                close(&format!("{name} trunk, {batch}, {what}"), got, expected, 1e-5);
            };
            let images = golden.singles(&of("images"));
            let pass = Pass::Train { keep: BATCH_NORM_MOMENTUM };
            let features = trunk.forward(&parameters, &mut moving, &images, pass).unwrap();
            is("features", &features);
            is("moving_mean", &moving[layout.norm.mean()]);
            is("moving_variance", &moving[layout.norm.variance()]);
            let mut gradient = vec![0f32; layout.parameters];
            let mut image_gradient = vec![0f32; images.len()];
            let wanted =
                Gradients { parameters: Some(&mut gradient), images: Some(&mut image_gradient) };
            trunk.backward(&parameters, &golden.singles("upstream"), wanted).unwrap();
            is("gradient_images", &image_gradient);
            is("gradient_gamma", &gradient[layout.norm.gamma()]);
            is("gradient_beta", &gradient[layout.norm.beta()]);
        }
    }
}

/// Two-sample Kolmogorov-Smirnov tests of every kind of kernel against draws of `GlorotUniform`, and
/// that both go as far.
#[test]
fn initial_kernels_have_the_distribution_of_tensorflow() {
    let layouts = [
        Layout::new(&architecture(3, &[1], 4, Stem::Imagenet)),
        Layout::new(&architecture(1, &[1], 1, Stem::Small)),
    ];
    let cases = rows("glorot.json");
    for case in &cases {
        let shape: Vec<usize> = floats(&case["shape"]).into_iter().map(|n| n as usize).collect();
        let ours = layouts.iter().find_map(|layout| {
            let tensors = layout.tensors();
            let (.., range) = tensors.iter().find(|t| t.1 == shape)?;
            Some(layout.initial_parameters(0)[range.clone()].to_vec())
        });
        let ours = ours.unwrap_or_else(|| panic!("no kernel of {shape:?}"));
        let mut counts = BTreeMap::<i64, u64>::new();
        for w in &ours {
            *counts.entry((w * 1000.0).floor() as i64).or_default() += 1;
        }
        let values = floats(&case["values"]).into_iter().map(|v| v as i64);
        let theirs = values.zip(floats(&case["counts"]).into_iter().map(|n| n as u64));
        let far = distance(&counts, &theirs.collect());
        let bound = bound(ours.len(), cases.len());
        println!("{shape:?}: {far:.4}, bound {bound:.4}");
        assert!(far < bound, "{shape:?}: {far} >= {bound}");
        let largest = ours.iter().fold(0f32, |m, w| m.max(w.abs()));
        let ratio = f64::from(largest) / float(&case["largest"]);
        // The largest of n uniform draws is within 20 / n of the limit, but once in e^20.
        assert!((ratio - 1.0).abs() < 20.0 / ours.len() as f64, "{shape:?}: {ratio}");
    }
}
