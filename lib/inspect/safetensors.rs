//! Weights: `model.safetensors`.

use super::{made_from, section, title};
use crate::error::{Error, Result};
use crate::model::tensors::check_hash;
use indicatif::HumanCount;
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// Type, shape and size of each tensor, lineage.
pub fn describe(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let tensors = parse(path, &bytes)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(path, &e))?;
    let mut views = tensors.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let count = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let values = views.iter().map(|(_, v)| count(v.shape())).sum();
    let lines: Vec<Vec<String>> = views
        .iter()
        .map(|(name, view)| {
            let shape = format!("{:?}", view.shape());
            let values = HumanCount(count(view.shape())).to_string();
            vec![name.clone(), format!("{:?}", view.dtype()), shape, values]
        })
        .collect();
    let more = format!(
        ", {} in {}",
        super::count(values, "value"),
        super::count(views.len() as u64, "tensor")
    );
    let pairs = header.metadata().iter().flatten();
    let pairs = pairs.map(|(k, v)| (k.clone(), v.clone())).collect();
    Ok(title(path, "safetensors", &more)? + &section("tensors", &lines) + &made_from(&pairs))
}

/// The bytes are as written, header and sizes agree, and every value is finite.
pub fn verify(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    check_hash(&bytes)
        .map_err(|e| Error::bad_data(path, "the bytes that were written", e, "make it again"))?;
    for (name, view) in parse(path, &bytes)?.tensors() {
        if let Some(index) = not_finite(view.dtype(), view.data()) {
            let found = format!("a value that is not finite, at {index} of tensor {name}");
            return Err(Error::bad_data(path, "finite values", found, "train again"));
        }
    }
    Ok(())
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| bad(path, &e))
}

fn bad(path: &Path, e: &safetensors::SafeTensorError) -> Error {
    Error::bad_data(path, "a safetensors file", e.to_string(), "make it again")
}

/// Index of the first infinity or NaN: a float whose exponent bits are all set.
fn not_finite(dtype: Dtype, data: &[u8]) -> Option<usize> {
    // The upper half of a little-endian float has sign, exponent and (unused here) mantissa.
    let (size, exponent) = match dtype {
        Dtype::F16 => (2, 0x7c00),
        Dtype::BF16 => (2, 0x7f80),
        Dtype::F32 => (4, 0x7f80),
        Dtype::F64 => (8, 0x7ff0),
        _ => return None,
    };
    data.chunks_exact(size).position(|value| {
        let top = u16::from_le_bytes([value[size - 2], value[size - 1]]);
        top & exponent == exponent
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn infinities_and_nans_are_found_in_every_float_type() {
        let f32s = |values: [f32; 2]| values.map(f32::to_le_bytes).concat();
        let f64s = |values: [f64; 2]| values.map(f64::to_le_bytes).concat();
        assert_eq!(not_finite(Dtype::F32, &f32s([f32::MAX, -0.0])), None);
        assert_eq!(not_finite(Dtype::F32, &f32s([1.0, f32::NAN])), Some(1));
        assert_eq!(not_finite(Dtype::F64, &f64s([f64::MIN, 1.0])), None);
        assert_eq!(not_finite(Dtype::F64, &f64s([f64::INFINITY, 1.0])), Some(0));
        // Largest finite float16 and bfloat16, then their infinities.
        assert_eq!(not_finite(Dtype::F16, &[0xff, 0x7b]), None);
        assert_eq!(not_finite(Dtype::F16, &[0x00, 0xfc]), Some(0));
        assert_eq!(not_finite(Dtype::BF16, &[0x7f, 0x7f]), None);
        assert_eq!(not_finite(Dtype::BF16, &[0x80, 0x7f]), Some(0));
    }
}
