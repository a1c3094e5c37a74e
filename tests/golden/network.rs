//! ResNet-v2 forward and backward, by the fast engine in float32 and by candle's in float64. The only head
//! passes the pre-logits on unchanged, so logits are features.

use crate::{Tensors, close};
use candle_core::{DType, Device};
use s4l::network::candle::CandleEngine;
use s4l::network::cpu::{self, Isa};
use s4l::network::engine::{BATCH_NORM_MOMENTUM, Engine, Inner, Pass, Precision};
use s4l::network::layout::{Architecture, Layout, Stem};
use s4l::network::weights::Weights;

/// The layout of an architecture with a head as wide as the pre-logits. The kernel of the head is the
/// identity; all other weights are 0.
pub fn with_identity(mut architecture: Architecture) -> (Layout, Weights) {
    let features = Layout::new(&architecture).features;
    architecture.heads = vec![("features".into(), features)];
    let layout = Layout::new(&architecture);
    let mut weights = Weights { moving: layout.initial_moving(), ..Weights::zeros(&layout) };
    let kernel = &mut weights.parameters[layout.head_kernel(&layout.heads[0])];
    kernel.iter_mut().step_by(features + 1).for_each(|w| *w = 1.0);
    (layout, weights)
}

/// A step's forward and backward pass. Returns the features, the gradient of the parameters, and the
/// gradient of the images.
pub fn gradients(
    engine: &mut dyn Engine,
    images: &[f32],
    upstream: &[f32],
) -> (Vec<f32>, [Vec<f32>; 2]) {
    engine.images(&mut images.to_vec());
    let pass = Pass::Train { keep: BATCH_NORM_MOMENTUM };
    let features = engine.forward(pass).unwrap().remove(0);
    engine.backward(&[Some(upstream.to_vec())], true).unwrap();
    // The same images, with a zero perturbation.
    engine.direction(vec![1.0; images.len()], 1);
    engine.along(0.0);
    engine.forward(Pass::Direction).unwrap();
    engine.backward(&[Some(upstream.to_vec())], true).unwrap();
    (features, [Inner::Gradient, Inner::Direction].map(|inner| engine.read(inner).unwrap()))
}

fn agrees(file: &str, units: &[usize], stem: Stem) {
    let golden = Tensors::read(file);
    let shape = golden.shape("images");
    let (layout, mut weights) = with_identity(Architecture {
        channels: shape[3],
        units: units.to_vec(),
        width_factor: 1,
        stem,
        heads: vec![],
    });
    let tensors = layout.tensors();
    let tensors = tensors.iter().filter(|t| !t.0.starts_with("heads."));
    for (name, shape, range) in tensors.clone() {
        assert_eq!(golden.shape(name), shape, "{name}");
        weights.parameters[range.clone()].copy_from_slice(&golden.singles(name));
    }
    let images = golden.singles("images");
    let size = (shape[1], shape[2]);
    let candle = CandleEngine::new(&layout, size, weights.clone(), Device::Cpu, DType::F64);
    let fast = cpu::engine(&layout, size, weights, Precision::F32, Isa::best());
    // Candle's results are returned as float32, and the momentum is rounded too: 0.99 + 1e-8.
    let engines: [(&str, Box<dyn Engine>, f64); 2] =
        [("fast", fast, 1e-5), ("candle", Box::new(candle), 1e-6)];
    for (name, mut engine, bound) in engines {
        let is = |what: &str, got: &[f32]| {
            close(&format!("{file}, {name} engine, {what}"), got, golden.doubles(what), bound);
        };
        let (features, [gradient, image_gradient]) =
            gradients(&mut *engine, &images, &golden.singles("upstream"));
        is("features", &features);
        let moving = engine.get().unwrap().moving;
        for (tensor, _, range) in layout.moving_tensors() {
            is(&tensor, &moving[range]);
        }
        is("gradient.images", &image_gradient);
        for (tensor, _, range) in tensors.clone() {
            is(&format!("gradient.{tensor}"), &gradient[range.clone()]);
        }
        engine.prepare().unwrap();
        is("inferred", &engine.infer(&images, 0).unwrap());
    }
}

#[test]
fn a_resnet_with_the_imagenet_stem() {
    agrees("network_imagenet.safetensors", &[1, 1], Stem::Imagenet);
}

#[test]
fn a_resnet_with_the_small_stem() {
    agrees("network_small.safetensors", &[2], Stem::Small);
}

#[test]
fn a_resnet_with_the_small_stem_of_stride_2() {
    agrees("network_small_stride2.safetensors", &[1, 1], Stem::SmallStride2);
}
