//! Batch norm, and the distribution of initial weights.

use crate::images::{bound, distance};
use crate::network::{gradients, with_identity};
use crate::{Tensors, close, float, floats, rows};
use candle_core::{DType, Device};
use s4l::network::candle::CandleEngine;
use s4l::network::cpu::{self, Isa};
use s4l::network::engine::{Engine, Precision};
use s4l::network::layout::{Architecture, Layout, Stem};
use s4l::network::update::Update;
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

/// A network without units, whose stem passes its 16 channels on unchanged. What remains is the last norm,
/// ReLU and the mean over pixels. TensorFlow's op computes in float32, as the fast trunk does.
#[test]
fn batch_norm_is_tensorflow_s() {
    let golden = Tensors::read("batch_norm.safetensors");
    let (layout, mut weights) = with_identity(architecture(16, &[], 1, Stem::Small));
    for channel in 0..16 {
        let centre = (4 * 16 + channel) * 16 + channel;
        weights.parameters[layout.stem.offset + centre] = 1.0;
    }
    weights.parameters[layout.norm.gamma()].copy_from_slice(&golden.singles("gamma"));
    weights.parameters[layout.norm.beta()].copy_from_slice(&golden.singles("beta"));
    let fast = cpu::engine(&layout, (5, 6), weights.clone(), Precision::F32, Isa::best());
    let candle = CandleEngine::new(&layout, (5, 6), weights, Device::Cpu, DType::F64);
    let engines: [(&str, Box<dyn Engine>); 2] = [("fast", fast), ("candle", Box::new(candle))];
    for (name, mut engine) in engines {
        for batch in 0..3 {
            let of = |what: &str| format!("{batch}.{what}");
            let is = |what: &str, got: &[f32]| {
                let expected = golden.doubles(&of(what));
                close(&format!("{name} engine, {batch}, {what}"), got, expected, 1e-5);
            };
            let (images, upstream) = (golden.singles(&of("images")), golden.singles("upstream"));
            let (features, [gradient, image_gradient]) =
                gradients(&mut *engine, &images, &upstream);
            is("features", &features);
            let moving = engine.get().unwrap().moving;
            is("moving_mean", &moving[layout.norm.mean()]);
            is("moving_variance", &moving[layout.norm.variance()]);
            is("gradient_images", &image_gradient);
            is("gradient_gamma", &gradient[layout.norm.gamma()]);
            is("gradient_beta", &gradient[layout.norm.beta()]);
            // The gradient starts again from zero; the weights stay.
            let still =
                Update { learning_rate: 0.0, momentum: 0.0, weight_decay: 0.0, half_life: 0.0 };
            engine.update(&still).unwrap();
        }
    }
}

/// Two-sample Kolmogorov-Smirnov tests of every kind of kernel against draws of `GlorotUniform`, and that
/// both have the same range.
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
        // The largest of n uniform draws is within 20 / n of the limit, except with probability e^-20.
        assert!((ratio - 1.0).abs() < 20.0 / ours.len() as f64, "{shape:?}: {ratio}");
    }
}
