//! ONNX files of `s4l-export`.

use super::{made_from, section, title};
use crate::error::Result;
use crate::model::onnx::{self, proto::ValueInfoProto};
use std::path::Path;

/// Inputs and outputs, numbers of nodes and tensors, lineage.
pub fn describe(path: &Path) -> Result<String> {
    let path = &onnx::file(path);
    let onnx::Described { proto, metadata } = onnx::read(path)?;
    let graph = proto.graph.unwrap_or_default();
    let opset = proto.opset_import.first().and_then(|set| set.version).unwrap_or_default();
    let more = format!(
        ", opset {opset}, {}, {}",
        super::count(graph.node.len() as u64, "node"),
        super::count(graph.initializer.len() as u64, "tensor")
    );
    let lines = |values: &[ValueInfoProto]| values.iter().map(line).collect::<Vec<_>>();
    Ok(title(path, "ONNX", &more)?
        + &section("inputs", &lines(&graph.input))
        + &section("outputs", &lines(&graph.output))
        + &made_from(&metadata.into_iter().collect()))
}

/// Name and shape.
fn line(value: &ValueInfoProto) -> Vec<String> {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let dims = tensor.and_then(|t| t.shape.as_ref()).map_or(&[][..], |shape| &shape.dim);
    let length = |dim: &onnx::proto::DimensionProto| match (dim.dim_value, &dim.dim_param) {
        (Some(n), _) => n.to_string(),
        (None, name) => name.clone().unwrap_or_default(),
    };
    let lengths: Vec<String> = dims.iter().map(length).collect();
    vec![value.name.clone().unwrap_or_default(), format!("[{}]", lengths.join(", "))]
}
