//! This project against other frameworks. Each module reads numbers made by the script of the same name
//! (`tools/golden.sh` makes them again): TensorFlow's own operations if there are any, or Pillow's, else
//! PyTorch in float64, written from the formulas.

#[path = "../common/mod.rs"]
mod common;

mod curves;
mod images;
mod keyed;
mod layers;
mod losses;
mod network;
mod optimizer;
mod randaugment;
mod steps;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::collections::HashMap;

fn path(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The rows of a JSON file.
fn rows(name: &str) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

fn whole(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// The numbers of nested lists, row-major.
fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(floats).collect(),
        number => vec![float(number)],
    }
}

/// The numbers as this project takes them: float32.
fn singles(value: &Value) -> Vec<f32> {
    floats(value).into_iter().map(|v| v as f32).collect()
}

/// The tensors of a file, each with its shape.
struct Tensors(HashMap<String, (Vec<usize>, Vec<f64>)>);

impl Tensors {
    fn read(name: &str) -> Tensors {
        let bytes = std::fs::read(path(name)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let values = |dtype: Dtype, data: &[u8]| -> Vec<f64> {
            let quads = data.as_chunks().0.iter();
            let eights = data.as_chunks().0.iter();
            match dtype {
                Dtype::F32 => quads.map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
                Dtype::F64 => eights.map(|b| f64::from_le_bytes(*b)).collect(),
                Dtype::I64 => eights.map(|b| i64::from_le_bytes(*b) as f64).collect(),
                other => panic!("{other:?}"),
            }
        };
        let all = tensors.iter().map(|(name, view)| {
            let values = values(view.dtype(), view.data());
            (name.to_string(), (view.shape().to_vec(), values))
        });
        Tensors(all.collect())
    }

    fn shape(&self, name: &str) -> &[usize] {
        &self.0[name].0
    }

    fn doubles(&self, name: &str) -> &[f64] {
        &self.0[name].1
    }

    fn singles(&self, name: &str) -> Vec<f32> {
        self.doubles(name).iter().map(|&v| v as f32).collect()
    }
}

/// |a - b| / |b| over all values.
fn error<T: Copy + Into<f64>>(got: &[T], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let pairs = got.iter().zip(expected);
    let difference: f64 = pairs.map(|(&a, b)| (a.into() - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| b * b).sum();
    (difference / norm).sqrt()
}

/// Fails if the error is above `bound`, or not a number.
#[track_caller]
fn close<T: Copy + Into<f64>>(what: &str, got: &[T], expected: &[f64], bound: f64) {
    let far = error(got, expected);
    println!("{what}: {far:.1e}");
    assert!(far <= bound, "{what} is off by {far:e}, more than {bound:e}");
}
