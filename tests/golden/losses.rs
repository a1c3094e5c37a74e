//! Each loss and its gradient, in float64 and in float32.

use crate::{close, float, floats, rows, singles, whole};
use candle_core::{DType, Device, Tensor, Var};
use s4l::error::Result;
use s4l::methods::entropy_minimization::entropy;
use s4l::methods::exemplar::exemplar_loss;
use s4l::methods::rotation::rotation_loss;
use s4l::methods::supervised::{cross_entropy, soft_cross_entropy};
use s4l::methods::vat::{self, Clean};
use s4l::network::Network;
use s4l::network::engine::{Inner, Precision};
use s4l::network::layout::{Architecture, Layout, Stem};
use s4l::network::weights::Weights;
use serde_json::Value;

/// A matrix.
fn tensor(value: &Value, dtype: DType) -> Tensor {
    let rows = value.as_array().unwrap().len();
    let data = floats(value);
    let shape = (rows, data.len() / rows);
    let tensor = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
    tensor.to_dtype(dtype).unwrap()
}

fn loss(case: &Value, x: &Tensor) -> Result<Tensor> {
    let matrix = |name: &str| tensor(&case[name], x.dtype());
    match case["loss"].as_str().unwrap() {
        "cross_entropy" => {
            let labels = floats(&case["labels"]).into_iter().map(|l| l as u32);
            let labels = Tensor::new(labels.collect::<Vec<_>>(), &Device::Cpu)?;
            cross_entropy(x, &labels)
        }
        "soft_cross_entropy" => soft_cross_entropy(x, &matrix("targets")),
        "rotation" => rotation_loss(x, whole(&case["unlabelled"])),
        "exemplar" => exemplar_loss(x, whole(&case["unlabelled"]), whole(&case["patches"])),
        "entropy" => entropy(x),
        "divergence" => vat::divergence(x, &matrix("clean")),
        other => panic!("loss {other}"),
    }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn losses_and_gradients_are_tensorflow_s() {
    let cases = rows("losses.json");
    let mut seen = 0;
    for case in cases.iter().filter(|c| c["loss"] != "perturbation") {
        for (dtype, bound) in [(DType::F64, 1e-10), (DType::F32, 1e-5)] {
            let name = format!("{} {dtype:?}", case["loss"].as_str().unwrap());
            let x = Var::from_tensor(&tensor(&case["inputs"], dtype)).unwrap();
            let loss = loss(case, &x).unwrap();
            close(&name, &doubles(&loss), &[float(&case["value"])], bound);
            let gradient = loss.backward().unwrap().get(&x).unwrap().clone();
            let expected = floats(&case["gradient"]);
            close(&format!("{name} gradient"), &doubles(&gradient), &expected, bound);
            seen += 1;
        }
    }
    assert_eq!(seen, 18);
}

/// Without a power iteration the perturbation is `tf.nn.l2_normalize` of the keyed noise, times the
/// radius.
#[test]
fn a_perturbation_is_normalized_as_by_tensorflow() {
    let cases = rows("losses.json");
    let case = cases.iter().find(|c| c["loss"] == "perturbation").unwrap();
    let mut images = singles(&case["inputs"]);
    let values = images.len() / case["inputs"].as_array().unwrap().len();
    let architecture = Architecture {
        channels: 1,
        units: vec![1],
        width_factor: 1,
        stem: Stem::Small,
        heads: vec![],
    };
    let (size, cpu) = ((5, values / 5), s4l::network::device::Device::Cpu);
    let weights = Weights::initial(&Layout::new(&architecture), 0);
    let mut network = Network::new(&architecture, size, cpu, Precision::F32, weights).unwrap();
    network.engine.images(&mut images);
    let logits = Tensor::zeros((3, 2), DType::F32, &Device::Cpu).unwrap();
    let clean = Clean { logits: Some(logits), every: 1, parts: [3, 0] };
    let key = (case["seed"].as_u64().unwrap(), case["step"].as_u64().unwrap());
    vat::perturb(&mut network, &clean, float(&case["radius"]), 0, key).unwrap();
    let moved = network.engine.read(Inner::Moved).unwrap();
    close("perturbation", &moved, &floats(&case["moved"]), 1e-6);
}
