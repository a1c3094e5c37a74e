//! A model as an ONNX file: the preparation of `augment_eval`, the trunk, the head of the classes. The
//! metadata has the lineage, the names of the classes, and a hash of the whole file.

mod graph;
mod network;
mod preparation;
pub mod proto;

use crate::augment::{Act, Mode, Pipe};
use crate::error::{Error, Result};
use crate::model::folder::Model;
use crate::pixels::Size;
use crate::schema::{self, NO_HASH, head, onnx as names};
use graph::{Graph, Length};
use prost::Message;
use proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto, data_type};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The version of the operators, and the oldest version of the format that has it.
pub const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// Most bytes that protobuf readers accept.
const MOST_BYTES: usize = (1 << 31) - 1;

/// The bytes of the file. `lineage`: of the export, for the metadata.
///
/// Errors: `Recipe` if the preparation is random, or there are too many weights.
pub fn bytes(model: &Model, lineage: BTreeMap<String, String>) -> Result<Vec<u8>> {
    let (config, layout) = (&model.config, &model.layout);
    let Some(head) = layout.head(head::CLASSES) else {
        let path = model.path.join(schema::CONFIG_JSON);
        return Err(Error::bad_data(&path, "a head of the classes", "none", "train one"));
    };
    let acts = acts(&config.settings.augment_eval)?;
    let size = Size { height: config.height, width: config.width };
    let channels = config.architecture.channels;
    let mut graph = Graph::default();
    let any = Length::Any;
    let images = [any("batch"), any("height"), any("width"), Length::Is(channels)];
    let doc = "Levels 0..255 of images of any one size, as they are decoded; RGB where there are 3 channels.";
    graph.input(names::IMAGES, data_type::UINT8, &images, doc);
    preparation::add(&mut graph, names::IMAGES, names::PREPARED, &acts, (size, channels));
    let weights = (layout, head, &model.weights);
    network::add(&mut graph, names::PREPARED, weights, names::REPRESENTATION);
    for (name, length, doc) in [
        (head::CLASSES, head.outputs, "Logits of the classes."),
        (names::REPRESENTATION, layout.features, "Pre-logits: the mean of the last block."),
    ] {
        graph.output(name, data_type::FLOAT, &[any("batch"), Length::Is(length)], doc);
    }
    let mut metadata = lineage;
    let classes = serde_json::to_string(&config.classes);
    let classes = classes.map_err(|e| Error::Internal(e.to_string()))?;
    metadata.insert(schema::CLASSES_KEY.into(), classes);
    metadata.insert(schema::PREPARATION_KEY.into(), config.settings.augment_eval.clone());
    metadata.insert(schema::HASH_KEY.into(), NO_HASH.into());
    let pair = |(key, value)| StringStringEntryProto { key: Some(key), value: Some(value) };
    let proto = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("s4l".to_string()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_string()),
        doc_string: Some(format!(
            "Prepares images as s4l-eval does, by {}, and classifies them. The tensor \"{}\" is what the \
             network is given.",
            config.settings.augment_eval,
            names::PREPARED
        )),
        graph: Some(graph.finish("s4l")),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(OPSET) }],
        metadata_props: metadata.into_iter().map(pair).collect(),
    };
    check_length(&model.path, proto.encoded_len())?;
    let mut bytes = proto.encode_to_vec();
    if let Some(digits) = digits(&bytes) {
        let hash = schema::hash_around(&bytes, &digits);
        bytes[digits].copy_from_slice(hash.as_bytes());
    }
    Ok(bytes)
}

/// The steps by which `augment_eval` prepares an image.
pub fn acts(augment_eval: &str) -> Result<Vec<Act>> {
    Pipe::parse(augment_eval, Mode::Eval)?.first_view()
}

fn check_length(model: &Path, bytes: usize) -> Result<()> {
    match bytes > MOST_BYTES {
        true => Err(Error::Recipe {
            recipe: model.display().to_string(),
            what: format!("{bytes} bytes, and an ONNX file has at most {MOST_BYTES}"),
            hint: "--to huggingface takes any number".to_string(),
        }),
        false => Ok(()),
    }
}

/// The metadata of a file.
pub struct Described {
    pub proto: ModelProto,
    pub metadata: HashMap<String, String>,
}

/// The ONNX file in a folder, or the file itself.
pub fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(schema::ONNX_MODEL) } else { path.to_path_buf() }
}

/// Reads a file, or the ONNX file in a folder. Errors: `BadData` if its bytes have changed.
pub fn read(path: &Path) -> Result<Described> {
    let path = &file(path);
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let bad =
        |found: String| Error::bad_data(path, "an ONNX file of s4l-export", found, "export again");
    let proto = ModelProto::decode(&bytes[..]).map_err(|e| bad(e.to_string()))?;
    let digits = digits(&bytes).ok_or_else(|| bad("one without a hash".to_string()))?;
    let (found, written) = (schema::hash_around(&bytes, &digits), &bytes[digits]);
    if found.as_bytes() != written {
        let written = String::from_utf8_lossy(written);
        return Err(bad(format!("changed bytes (hash {found}, written as {written})")));
    }
    let pairs = proto.metadata_props.iter().cloned();
    let metadata =
        pairs.map(|pair| (pair.key.unwrap_or_default(), pair.value.unwrap_or_default())).collect();
    Ok(Described { proto, metadata })
}

/// The position of the hash in a file: in the metadata, at the end.
fn digits(bytes: &[u8]) -> Option<Range<usize>> {
    let key = schema::HASH_KEY.as_bytes();
    // The key, then the tag and the length of its value.
    let start = [key, &[0x12, NO_HASH.len() as u8]].concat();
    let at = bytes.windows(start.len()).rposition(|window| window == start)? + start.len();
    bytes.get(at..at + NO_HASH.len())?;
    Some(at..at + NO_HASH.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_beyond_protobuf_are_refused() {
        assert!(check_length(Path::new("m"), MOST_BYTES).is_ok());
        let error = check_length(Path::new("m"), MOST_BYTES + 1).unwrap_err();
        assert_eq!(error.exit_code(), 78);
    }
}
