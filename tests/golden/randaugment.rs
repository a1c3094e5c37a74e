//! RandAugment's transformations and cutout, compared with Pillow byte for byte.

use crate::{float, floats, rows, whole};
use s4l::augment::randaugment::{KINDS, Transform, cutout};
use s4l::pixels::Image;
use serde_json::Value;
use std::collections::BTreeSet;

fn bytes(hex: &Value) -> Vec<f32> {
    let digits = hex.as_str().unwrap().as_bytes().as_chunks::<2>().0.iter();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
    digits.map(|pair| f32::from(byte(pair).unwrap())).collect()
}

#[test]
fn transformations_are_those_of_pillow() {
    let rows = rows("randaugment.json");
    let (images, cases): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.get("shape").is_some());
    let mut seen = BTreeSet::new();
    let mut changed = 0;
    for case in cases {
        let source = &images[whole(&case["image"])];
        let shape: Vec<usize> = floats(&source["shape"]).iter().map(|&n| n as usize).collect();
        let before = bytes(&source["pixels"]);
        let mut image =
            Image { height: shape[0], width: shape[1], channels: shape[2], data: before.clone() };
        let name = case["kind"].as_str().unwrap();
        match KINDS.into_iter().find(|kind| format!("{kind:?}") == name) {
            Some(kind) => {
                let level = whole(&case["level"]) as u32;
                let negative = case["negative"].as_bool().unwrap();
                Transform { kind, level, negative }.apply(&mut image);
            }
            None => {
                let centre = [float(&case["y"]), float(&case["x"])];
                cutout(&mut image, whole(&case["side"]), centre);
            }
        }
        let expected = bytes(&case["output"]);
        let differ = image.data.iter().zip(&expected).filter(|(a, b)| a != b).count();
        let case = format!("{name} {} {} of {shape:?}", case["level"], case["negative"]);
        assert_eq!((image.data.len(), differ), (expected.len(), 0), "{case}");
        changed += usize::from(expected != before);
        seen.insert(name.to_string());
    }
    assert_eq!(seen.len(), KINDS.len() + 1);
    assert!(changed > 150, "{changed}");
}
