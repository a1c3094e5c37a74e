//! The contract between the stages: file names, column names and Arrow schemas, once.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use std::sync::Arc;

pub const KEY: &str = "key";
pub const LABEL: &str = "label";
pub const IMAGE: &str = "image";
/// The leaf of `IMAGE` that holds the file.
pub const IMAGE_BYTES: &str = "image.bytes";
pub const PIXELS: &str = "pixels";
pub const HEIGHT: &str = "height";
pub const WIDTH: &str = "width";
/// `short_hash` of an image's bytes, which are the file if images are encoded.
pub const HASH: &str = "hash";

/// Names inside a shard folder.
pub const DATASET_JSON: &str = "dataset.json";
pub const MANIFEST: &str = "MANIFEST.b3";
/// There where some images of the input are not in the shards.
pub const REJECTS: &str = "rejects.parquet";

/// The footer's key under which Hugging Face datasets keep the features.
pub const HUGGING_FACE: &str = "huggingface";

/// Names inside a model folder. `WEIGHTS` is written last: a folder that has it is complete.
pub const CONFIG_JSON: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
pub const METRICS_JSONL: &str = "metrics.jsonl";
pub const METRICS: &str = "metrics.parquet";
pub const MODEL_CARD: &str = "README.md";
pub const CHECKPOINT: &str = "checkpoint";

/// Shards: `pixels` of so many bytes where `size` is given, else encoded images (the Hugging Face
/// Image feature).
pub fn shards(size: Option<usize>) -> Arc<Schema> {
    let image = match size {
        Some(size) => Field::new(PIXELS, DataType::FixedSizeBinary(size as i32), false),
        // Nullable, though no image is null: else it is not the Image feature.
        None => Field::new(IMAGE, DataType::Struct(image_fields()), true),
    };
    Arc::new(Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        image,
        Field::new(LABEL, DataType::Int64, true),
        Field::new(HEIGHT, DataType::Int32, false),
        Field::new(WIDTH, DataType::Int32, false),
        Field::new(HASH, DataType::Utf8, false),
    ]))
}

/// A hash as it stands in columns, in lineages and in `dataset.json`: the first 16 hexadecimal digits
/// of BLAKE3. Text, which every reader of parquet takes.
pub fn short_hash(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_string()
}

/// The fields of the struct `image`.
pub fn image_fields() -> Fields {
    Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ])
}

/// `rejects.parquet`: one row an image that is not in the shards.
pub fn rejects() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("path", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
    ]))
}

/// The columns of shards as features of Hugging Face datasets, which then show images and names of
/// classes. They have no type for pixels of a fixed size, and read them as `binary` where these
/// features are handed to them.
pub fn features(pixels: bool, classes: &[String]) -> String {
    let value = |kind: &str| serde_json::json!({"dtype": kind, "_type": "Value"});
    let image = match pixels {
        true => (PIXELS, value("binary")),
        false => (IMAGE, serde_json::json!({"_type": "Image"})),
    };
    let label = match classes {
        [] => value("int64"),
        names => serde_json::json!({"names": names, "_type": "ClassLabel"}),
    };
    let features = serde_json::json!({
        KEY: value("string"), image.0: image.1, LABEL: label,
        HEIGHT: value("int32"), WIDTH: value("int32"), HASH: value("string"),
    });
    serde_json::json!({"info": {"features": features}}).to_string()
}

/// `labelled.parquet` (and `val.parquet`): the only file from which a training stage takes labels.
pub fn labelled() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new(LABEL, DataType::Int64, false),
    ]))
}

/// `labels.parquet`: pseudo labels of all images.
pub fn labels(classes: usize) -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new(LABEL, DataType::Int64, false),
        Field::new("known", DataType::Boolean, false),
        Field::new("label_single", DataType::Int64, false),
        Field::new("confidence", DataType::Float32, false),
        Field::new("entropy", DataType::Float32, false),
        Field::new("agreement", DataType::Float32, false),
        Field::new("probs", float_list(classes), false),
    ]))
}

/// `eval.parquet`: one row an evaluated image.
pub fn eval(classes: usize) -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new(LABEL, DataType::Int64, false),
        Field::new("prediction", DataType::Int64, false),
        Field::new("top5", DataType::Boolean, false),
        Field::new("nll", DataType::Float32, false),
        Field::new("logits", float_list(classes), false),
    ]))
}

/// `metrics.parquet`: the learning curves of a run, one row a (step, name).
pub fn metrics() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("step", DataType::Int64, false),
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::Float64, false),
    ]))
}

fn float_list(len: usize) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Float32, false)), len as i32)
}
