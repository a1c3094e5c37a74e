//! The tensors of a weights file, and their places among a network's weights.

use crate::error::{Error, Result};
use crate::network::layout::{Architecture, Layout, largest_kernel};
use crate::network::weights::Weights;
use crate::schema::{self, NO_HASH};
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Whether a file has at least as many tensors and values as the layers of a network need. Then no number
/// in the network's layout overflows.
pub fn can_hold(tensors: &SafeTensors, a: &Architecture) -> bool {
    let values: usize = tensors.iter().map(|(_, view)| view.data().len() / 4).sum();
    let total = |numbers: &[usize]| numbers.iter().fold(0usize, |sum, n| sum.saturating_add(*n));
    let outputs: Vec<usize> = a.heads.iter().map(|(_, outputs)| *outputs).collect();
    let largest = largest_kernel(a.units.len(), a.width_factor);
    a.units.iter().min().is_some_and(|&least| least > 0)
        && total(&a.units).max(outputs.len()) <= tensors.len()
        && largest.is_some_and(|n| (1..=values).contains(&n))
        && (1..=values).contains(&a.channels)
        && total(&outputs) <= values
}

/// A tensor of a weights file.
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub place: Place,
}

/// The place of a tensor among a network's weights, and how it is stored.
pub enum Place {
    /// As stored in the parameter vector.
    Parameters(Range<usize>),
    /// As stored in the moving statistics.
    Moving(Range<usize>),
    /// A kernel `[height, width, inputs, outputs]` of the parameter vector, written as `[outputs,
    /// inputs, height, width]`.
    Transposed(Range<usize>, [usize; 4]),
    /// A moving variance, written plus this constant.
    Variance(Range<usize>, f64),
}

impl Place {
    pub fn get<'a>(&self, weights: &'a Weights) -> Cow<'a, [f32]> {
        match self {
            Place::Parameters(r) => Cow::Borrowed(&weights.parameters[r.clone()]),
            Place::Moving(r) => Cow::Borrowed(&weights.moving[r.clone()]),
            Place::Transposed(r, shape) => {
                let kernel = &weights.parameters[r.clone()];
                transposed(*shape).map(|i| kernel[i]).collect()
            }
            Place::Variance(r, added) => {
                let variance = weights.moving[r.clone()].iter();
                variance.map(|v| (f64::from(*v) + added) as f32).collect()
            }
        }
    }

    pub fn set(&self, weights: &mut Weights, values: impl Iterator<Item = f32>) {
        let vector = match self {
            Place::Parameters(r) | Place::Transposed(r, _) => &mut weights.parameters[r.clone()],
            Place::Moving(r) | Place::Variance(r, _) => &mut weights.moving[r.clone()],
        };
        match self {
            Place::Parameters(_) | Place::Moving(_) => {
                vector.iter_mut().zip(values).for_each(|(w, v)| *w = v);
            }
            Place::Transposed(_, shape) => {
                transposed(*shape).zip(values).for_each(|(i, v)| vector[i] = v);
            }
            Place::Variance(_, added) => {
                let values = values.map(|v| (f64::from(v) - added) as f32);
                vector.iter_mut().zip(values).for_each(|(w, v)| *w = v);
            }
        }
    }
}

/// Indices into a kernel `[height, width, inputs, outputs]`, in the order `[outputs, inputs, height,
/// width]`.
fn transposed([h, w, i, o]: [usize; 4]) -> impl Iterator<Item = usize> {
    let planes = (0..o).flat_map(move |out| (0..i).map(move |input| input * o + out));
    planes.flat_map(move |plane| (0..h * w).map(move |pixel| pixel * i * o + plane))
}

/// Every tensor of one of our model files.
pub fn tensors(layout: &Layout) -> Vec<Tensor> {
    let parameters = layout.tensors().into_iter().map(|(name, shape, r)| Tensor {
        name,
        shape,
        place: Place::Parameters(r),
    });
    let moving = layout.moving_tensors().into_iter();
    parameters
        .chain(moving.map(|(name, len, r)| Tensor {
            name,
            shape: vec![len],
            place: Place::Moving(r),
        }))
        .collect()
}

/// A safetensors file of float32 tensors. Its header has the hash of the file, and keys in a fixed order
/// (the safetensors library writes metadata in varying order).
pub fn to_safetensors(
    tensors: &[(String, Vec<usize>, &[f32])],
    metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    with_counters(tensors, &[], metadata)
}

/// A tensor in the making. Its bytes are made when it is written, so that not all are in memory twice.
struct Unwritten<'a> {
    shape: &'a [usize],
    /// `None`: the integer 0.
    values: Option<&'a [f32]>,
}

impl View for Unwritten<'_> {
    fn dtype(&self) -> Dtype {
        self.values.map_or(Dtype::I64, |_| Dtype::F32)
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.values.map_or(Cow::Borrowed(&[0; 8]), |values| Cow::Owned(bytes(values)))
    }

    fn data_len(&self) -> usize {
        self.values.map_or(8, size_of_val)
    }
}

/// As `to_safetensors`, plus integer tensors with these names and the value 0.
pub fn with_counters(
    tensors: &[(String, Vec<usize>, &[f32])],
    counters: &[String],
    mut metadata: BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let internal = |e: String| Error::Internal(format!("safetensors: {e}"));
    if let Some((name, ..)) =
        tensors.iter().find(|(_, s, v)| s.iter().product::<usize>() != v.len())
    {
        return Err(internal(format!("{name} has not the values of its shape")));
    }
    let floats = tensors
        .iter()
        .map(|(name, shape, values)| (name, Unwritten { shape, values: Some(values) }));
    let counters = counters.iter().map(|name| (name, Unwritten { shape: &[], values: None }));
    let bytes = safetensors::serialize(floats.chain(counters), None);
    let mut bytes = bytes.map_err(|e| internal(e.to_string()))?;
    let (n, _) = SafeTensors::read_metadata(&bytes).map_err(|e| internal(e.to_string()))?;
    let mut header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + n]).map_err(|e| internal(e.to_string()))?;
    metadata.insert(schema::HASH_KEY.to_string(), NO_HASH.to_string());
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut header = serde_json::to_vec(&header).map_err(|e| internal(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    // Otherwise the room for some gigabytes would be doubled.
    bytes.reserve_exact(header.len().saturating_sub(n));
    bytes.splice(..8 + n, length.into_iter().chain(header));
    if let Some(digits) = digits(&bytes) {
        let hash = schema::hash_around(&bytes, &digits);
        bytes[digits].copy_from_slice(hash.as_bytes());
    }
    Ok(bytes)
}

/// Errors with what was expected and found if the bytes have changed. A file of another program has no hash
/// and passes.
pub fn check_hash(bytes: &[u8]) -> std::result::Result<(), String> {
    let Some(digits) = digits(bytes) else {
        return Ok(());
    };
    let (found, written) = (schema::hash_around(bytes, &digits), &bytes[digits]);
    if found.as_bytes() == written {
        return Ok(());
    }
    let written = String::from_utf8_lossy(written);
    Err(format!("changed bytes (hash {found}, written as {written})"))
}

/// The position of the hash in the header of a safetensors file.
fn digits(bytes: &[u8]) -> Option<Range<usize>> {
    let length = u64::from_le_bytes(*bytes.first_chunk()?);
    let header = bytes[8..].get(..usize::try_from(length).ok()?)?;
    // Not inside a value: there the quotes of the key would be escaped.
    let key = format!("\"{}\":\"", schema::HASH_KEY);
    let at = header.windows(key.len()).position(|window| window == key.as_bytes())?;
    let start = at + key.len();
    header.get(start..start + NO_HASH.len())?;
    Some(8 + start..8 + start + NO_HASH.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_an_error() {
        let metadata = BTreeMap::from([("s4l.tool".to_string(), "\"s4l.hash\":\"".to_string())]);
        let values = [1.0, -2.0, 3.0];
        let whole = to_safetensors(&[("w".into(), vec![3], &values)], metadata).unwrap();
        assert_eq!(check_hash(&whole), Ok(()));
        SafeTensors::deserialize(&whole).unwrap();
        let key = whole.windows(8).position(|w| w == b"s4l.hash").unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            // Without the length, or without the key, the file is of another program, or damaged.
            let is_found = check_hash(&bytes).is_err() || SafeTensors::deserialize(&bytes).is_err();
            assert!(is_found || (key..key + 8).contains(&at), "byte {at}");
        }
    }
}
