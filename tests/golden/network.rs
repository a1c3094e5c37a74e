//! ResNet-v2 forward and backward, by the fast trunk in float32 and by candle's in float64.

use crate::{Tensors, close};
use candle_core::{DType, Device};
use s4l::network::candle::CandleTrunk;
use s4l::network::cpu::{CpuTrunk, Isa};
use s4l::network::engine::{BATCH_NORM_MOMENTUM, Gradients, Pass, Trunk};
use s4l::network::layout::Stem;
use s4l::network::layout::{Architecture, Layout};

fn agrees(file: &str, units: &[usize], stem: Stem) {
    let golden = Tensors::read(file);
    let shape = golden.shape("images");
    let layout = Layout::new(&Architecture {
        channels: shape[3],
        units: units.to_vec(),
        width_factor: 1,
        stem,
        heads: vec![],
    });
    let mut parameters = vec![f32::NAN; layout.parameters];
    for (name, shape, range) in layout.tensors() {
        assert_eq!(golden.shape(&name), shape, "{name}");
        parameters[range].copy_from_slice(&golden.singles(&name));
    }
    let images = golden.singles("images");
    let (h, w) = (shape[1], shape[2]);
    let candle =
        |dtype| -> Box<dyn Trunk> { Box::new(CandleTrunk::new(&layout, h, w, Device::Cpu, dtype)) };
    let fast = Box::new(CpuTrunk::<f32>::new(&layout, h, w, Isa::best()));
    // Candle's results pass through float32 on their way out, and the momentum is one: 0.99 + 1e-8.
    for (name, mut trunk, bound) in
        [("fast", fast as Box<dyn Trunk>, 1e-5), ("candle", candle(DType::F64), 1e-6)]
    {
        let is = |what: &str, got: &[f32]| {
            close(&format!("{file}, {name} trunk, {what}"), got, golden.doubles(what), bound);
        };
        let mut moving = layout.initial_moving();
        let pass = Pass::Train { keep: BATCH_NORM_MOMENTUM };
        let features = trunk.forward(&parameters, &mut moving, &images, pass).unwrap();
        is("features", &features);
        for (tensor, _, range) in layout.moving_tensors() {
            is(&tensor, &moving[range]);
        }
        let mut gradient = vec![0f32; layout.parameters];
        let mut image_gradient = vec![0f32; images.len()];
        let wanted =
            Gradients { parameters: Some(&mut gradient), images: Some(&mut image_gradient) };
        trunk.backward(&parameters, &golden.singles("upstream"), wanted).unwrap();
        is("gradient.images", &image_gradient);
        for (tensor, _, range) in layout.tensors() {
            is(&format!("gradient.{tensor}"), &gradient[range]);
        }
        trunk.prepare(&parameters, &moving).unwrap();
        is("inferred", &trunk.infer(&images).unwrap());
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
