//! A training step of each method: every term, the total loss, its gradients, the moving statistics.

use crate::{Tensors, close};
use s4l::methods::batch::{Batch, Half, Labels, Rows};
use s4l::methods::main_pass::{At, Value};
use s4l::methods::{architecture, step};
use s4l::network::Network;
use s4l::network::device::Device;
use s4l::network::engine::{Inner, Precision};
use s4l::network::layout::{Layout, Stem};
use s4l::network::weights::Weights;
use s4l::settings::{Method, Settings};

const CLASSES: usize = 5;
const EMBEDDING: usize = 6;

fn agrees(name: &str, method: Method, views: usize, iterations: usize) {
    const BOUND: f64 = 1e-5;
    let golden = Tensors::read(&format!("step_{name}.safetensors"));
    let settings = Settings {
        method,
        units: vec![1],
        width_factor: 1,
        stem: Stem::SmallStride2,
        embedding_dim: EMBEDDING,
        weight_supervised: 0.7,
        weight_rotation: 0.4,
        weight_exemplar: 0.6,
        weight_vat: 0.3,
        weight_entmin: 0.2,
        weight_fixmatch: 0.9,
        fixmatch_threshold: 0.42,
        vat_eps: 40.0,
        vat_power_iterations: iterations,
        ..Settings::default()
    };
    let shape = golden.shape("images");
    let architecture = architecture(&settings, shape[3], CLASSES);
    let layout = Layout::new(&architecture);
    let mut weights = Weights::initial(&layout, 0);
    for (name, shape, range) in layout.tensors() {
        assert_eq!(golden.shape(&name), shape, "{name}");
        weights.parameters[range].copy_from_slice(&golden.singles(&name));
    }
    let size = (shape[1], shape[2]);
    let mut network =
        Network::new(&architecture, size, Device::Cpu, Precision::F32, weights).unwrap();
    let labelled = golden.shape("labels")[0];
    let labels = golden.doubles("labels").iter();
    let labels = match method {
        Method::Distill => {
            Labels::Soft { probabilities: labels.map(|&p| p as f32).collect(), classes: CLASSES }
        }
        _ => Labels::Hard(labels.map(|&l| l as u32).collect()),
    };
    let of_labelled = if method == Method::Fixmatch { 1 } else { views };
    let rows = Rows {
        unlabelled: Half { images: (shape[0] - labelled * of_labelled) / views, views },
        labelled: Half { images: labelled, views: of_labelled },
    };
    let mut batch = Batch { images: golden.singles("images"), rows, labels };
    let at = At { seed: 5, step: 3, ramp: 1.0 };
    let record = step(&mut network, &settings, &mut batch, at).unwrap();
    let gradient = network.engine.read(Inner::Gradient).unwrap();
    let moving = network.engine.get().unwrap().moving;

    let mut terms = 0;
    for Value { name: term, value } in record.iter().filter(|v| v.name.starts_with("loss")) {
        let key = format!("terms.{}", term.trim_start_matches("loss/"));
        close(&format!("{name}, {term}"), &[*value], golden.doubles(&key), BOUND);
        terms += 1;
    }
    assert_eq!(terms, golden.0.keys().filter(|k| k.starts_with("terms.")).count());
    for (tensor, _, range) in layout.tensors() {
        let key = format!("gradient.{tensor}");
        let (got, expected) = (&gradient[range], golden.doubles(&key));
        close(&format!("{name}, {key}"), got, expected, BOUND);
    }
    for (tensor, _, range) in layout.moving_tensors() {
        let expected = golden.doubles(&tensor);
        close(&format!("{name}, {tensor}"), &moving[range], expected, BOUND);
    }
}

#[test]
fn supervised() {
    agrees("supervised", Method::Supervised, 1, 1);
}

#[test]
fn distillation() {
    agrees("distill", Method::Distill, 2, 1);
}

#[test]
fn rotation() {
    agrees("rotation", Method::Rotation, 4, 1);
}

#[test]
fn exemplar() {
    agrees("exemplar", Method::Exemplar, 3, 1);
}

#[test]
fn fixmatch() {
    agrees("fixmatch", Method::Fixmatch, 2, 1);
}

/// In the direction of the keyed noise.
#[test]
fn vat_and_entropy_minimization() {
    agrees("vat_noise", Method::Vat, 1, 0);
}

#[test]
fn moam() {
    agrees("moam_noise", Method::Moam, 4, 0);
}

/// In the adversarial direction: the reference takes a step of norm 1e-6 in float64, we take the tangent.
#[test]
fn vat_with_a_power_iteration() {
    agrees("vat", Method::Vat, 1, 1);
}

#[test]
fn moam_with_a_power_iteration() {
    agrees("moam", Method::Moam, 4, 1);
}
