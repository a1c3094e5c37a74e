//! A builder of ONNX graphs. Operators are those of opset 17.

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, attribute, data_type,
};

/// The name of a tensor.
pub type Name = String;

/// An attribute of a node.
pub enum Attribute<'a> {
    Float(f32),
    Int(i64),
    Ints(&'a [i64]),
}

/// A dimension of an input or output: known, or named.
pub enum Length<'a> {
    Is(usize),
    Any(&'a str),
}

/// Nodes in order: a node may use only the outputs of earlier nodes.
#[derive(Default)]
pub struct Graph {
    proto: GraphProto,
}

impl Graph {
    pub fn finish(mut self, name: &str) -> GraphProto {
        self.proto.name = Some(name.to_string());
        self.proto
    }

    /// Adds a node with one output, named after the operator and the node's number.
    pub fn add(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> Name {
        let name = format!("{op}.{}", self.proto.node.len());
        self.add_named(&name, op, inputs, attributes)
    }

    /// Adds a node with one output of the name `name`.
    pub fn add_named(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) -> Name {
        self.proto.node.push(NodeProto {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![name.to_string()],
            name: Some(name.to_string()),
            op_type: Some(op.to_string()),
            attribute: attributes.iter().map(|(name, value)| to_proto(name, value)).collect(),
        });
        name.to_string()
    }

    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Name {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(name, data_type::FLOAT, dims, bytes)
    }

    /// A vector.
    pub fn ints(&mut self, values: &[i64]) -> Name {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let name = self.unnamed();
        self.constant(&name, data_type::INT64, &[values.len()], bytes)
    }

    pub fn int(&mut self, value: i64) -> Name {
        let name = self.unnamed();
        self.constant(&name, data_type::INT64, &[], value.to_le_bytes().to_vec())
    }

    pub fn float(&mut self, value: f32) -> Name {
        let name = self.unnamed();
        self.floats(&name, &[], &[value])
    }

    fn unnamed(&self) -> Name {
        format!("constant.{}", self.proto.initializer.len())
    }

    fn constant(&mut self, name: &str, kind: i32, dims: &[usize], bytes: Vec<u8>) -> Name {
        self.proto.initializer.push(TensorProto {
            dims: dims.iter().map(|&n| n as i64).collect(),
            data_type: Some(kind),
            name: Some(name.to_string()),
            raw_data: Some(bytes),
        });
        name.to_string()
    }

    pub fn input(&mut self, name: &str, kind: i32, shape: &[Length], doc: &str) {
        self.proto.input.push(value(name, kind, shape, doc));
    }

    pub fn output(&mut self, name: &str, kind: i32, shape: &[Length], doc: &str) {
        self.proto.output.push(value(name, kind, shape, doc));
    }
}

fn to_proto(name: &str, value: &Attribute) -> AttributeProto {
    let (mut proto, kind) = (
        AttributeProto::default(),
        match value {
            Attribute::Float(_) => attribute::FLOAT,
            Attribute::Int(_) => attribute::INT,
            Attribute::Ints(_) => attribute::INTS,
        },
    );
    match value {
        Attribute::Float(value) => proto.f = Some(*value),
        Attribute::Int(value) => proto.i = Some(*value),
        Attribute::Ints(values) => proto.ints = values.to_vec(),
    }
    AttributeProto { name: Some(name.to_string()), r#type: Some(kind), ..proto }
}

fn value(name: &str, kind: i32, shape: &[Length], doc: &str) -> ValueInfoProto {
    let dim = |length: &Length| match length {
        Length::Is(n) => DimensionProto { dim_value: Some(*n as i64), dim_param: None },
        Length::Any(name) => DimensionProto { dim_value: None, dim_param: Some(name.to_string()) },
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = TensorTypeProto { elem_type: Some(kind), shape: Some(shape) };
    ValueInfoProto {
        name: Some(name.to_string()),
        r#type: Some(TypeProto { tensor_type: Some(tensor) }),
        doc_string: Some(doc.to_string()),
    }
}
