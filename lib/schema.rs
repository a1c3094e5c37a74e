//! The contract between the stages, once: names of files, columns, metrics and metadata keys, and the
//! Arrow schemas of the tables.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

// ---- Columns.

/// Unique and stable name of an image: in every table with a row per image.
pub const KEY: &str = "key";
/// Index of a class: the known one, in `labels.parquet` the one to train on.
pub const LABEL: &str = "label";

// Of shards.
pub const IMAGE: &str = "image";
/// The leaf of `IMAGE` that holds the file.
pub const IMAGE_BYTES: &str = "image.bytes";
pub const PIXELS: &str = "pixels";
pub const HEIGHT: &str = "height";
pub const WIDTH: &str = "width";
/// `short_hash` of an image's bytes, which are the file when images are encoded. Text, which every
/// reader of parquet takes.
pub const HASH: &str = "hash";

// Of `rejects.parquet`.
pub const SPLIT: &str = "split";
pub const PATH: &str = "path";
pub const REASON: &str = "reason";

// Of `labels.parquet`.
/// Whether `LABEL` is the known label.
pub const KNOWN: &str = "known";
/// Argmax of the centre view.
pub const LABEL_SINGLE: &str = "label_single";
/// Largest of `PROBS`.
pub const CONFIDENCE: &str = "confidence";
/// Of `PROBS`, in nats.
pub const ENTROPY: &str = "entropy";
/// Share of views whose argmax is `LABEL`.
pub const AGREEMENT: &str = "agreement";
/// Softmax of the mean logits over the views.
pub const PROBS: &str = "probs";

// Of `eval.parquet`.
pub const PREDICTION: &str = "prediction";
pub const TOP5: &str = "top5";
pub const NLL: &str = "nll";
pub const LOGITS: &str = "logits";
/// Of its pieces and parts alone: the mean over the four rotations of an image.
pub const AVERAGED_LOGITS: &str = "averaged_logits";

// Of a table of predictions: `PATH`, `LABEL`, which is the name of a class here, and this.
pub const PROBABILITY: &str = "probability";

// Of `metrics.parquet` and the lines of `metrics.jsonl`.
pub const STEP: &str = "step";
pub const NAME: &str = "name";
pub const VALUE: &str = "value";

/// Names of the metrics of a run: the loss of a step, its unweighted terms, accuracies. A method names
/// a term that only it has.
pub mod metric {
    pub const LOSS: &str = "loss";
    /// Before the name of each term.
    pub const LOSS_TERM: &str = "loss/";
    pub const LOSS_SUPERVISED: &str = "loss/supervised";
    pub const LOSS_ROTATION: &str = "loss/rotation";
    pub const LOSS_EXEMPLAR: &str = "loss/exemplar";
    pub const LOSS_VAT: &str = "loss/vat";
    pub const LOSS_ENTMIN: &str = "loss/entmin";
    pub const TRAIN_TOP1: &str = "train/top1";
    pub const VALIDATION_TOP1: &str = "validation/top1";
    pub const LEARNING_RATE: &str = "learning_rate";
}

/// Heads of a network, as `config.json` and the names of the tensors have them.
pub mod head {
    pub const CLASSES: &str = "classes";
    pub const ROTATIONS: &str = "rotations";
    pub const EMBEDDINGS: &str = "embeddings";
}

/// Tensors of an ONNX file beside the logits, which have the name of their head.
pub mod onnx {
    pub const IMAGES: &str = "images";
    /// What the network is given.
    pub const PREPARED: &str = "prepared";
    /// Pre-logits.
    pub const REPRESENTATION: &str = "representation";
}

// ---- Metadata: keys of parquet footers and safetensors headers.

/// Keys of the lineage, and of what this project alone writes, begin so.
pub const METADATA_PREFIX: &str = "s4l.";
pub const TOOL_KEY: &str = "s4l.tool";
pub const VERSION_KEY: &str = "s4l.version";
/// `recipe::hash` of the settings.
pub const RECIPE_KEY: &str = "s4l.recipe";
pub const SEED_KEY: &str = "s4l.seed";
/// Before the name of an input; the value is the hash of its content.
pub const INPUT_PREFIX: &str = "s4l.input.";
/// Format of a table of this project.
pub const FORMAT_KEY: &str = "s4l.format";
/// Hash of a whole table or safetensors file, with zeros in place of its digits.
pub const HASH_KEY: &str = "s4l.hash";
/// `short_hash` of the `config.json` that belongs to the weights.
pub const CONFIG_KEY: &str = "s4l.config";
/// The `EvalSummary` (JSON) of `eval.parquet`.
pub const SUMMARY_KEY: &str = "s4l.summary";
/// `3/8` if a table has the third of eight parts of the rows.
pub const PART_KEY: &str = "s4l.part";
/// Of a part: what its stage is to know of the whole when it is joined (JSON).
pub const ABOUT_KEY: &str = "s4l.about";
/// Of an ONNX file: the names of the classes (a JSON list), and the pipe that prepares images.
pub const CLASSES_KEY: &str = "s4l.classes";
pub const PREPARATION_KEY: &str = "s4l.augment_eval";
/// What was done to the images of shards.
pub const RESIZED_KEY: &str = "s4l.resized";
/// Under which Hugging Face datasets keep the features.
pub const HUGGING_FACE: &str = "huggingface";
/// Says to Hugging Face's loaders that tensors are PyTorch's.
pub const PYTORCH: (&str, &str) = ("format", "pt");

/// Names of inputs, after `INPUT_PREFIX`. Those of a report, and the images of predictions, are paths.
pub mod input {
    pub const IMAGES: &str = "images";
    pub const SHARDS: &str = "shards";
    pub const LABELS: &str = "labels";
    pub const LABELLED: &str = "labelled";
    pub const LIST: &str = "list";
    pub const NESTED_IN: &str = "nested_in";
    pub const VALIDATION: &str = "validation";
    pub const INIT: &str = "init";
    pub const MODEL: &str = "model";
    pub const EVALUATION: &str = "evaluation";
    /// From the images on, of what a report compares.
    pub const ALL: [&str; 9] =
        [IMAGES, SHARDS, LIST, NESTED_IN, LABELLED, LABELS, VALIDATION, INIT, MODEL];
}

// ---- Files.

/// Outputs, when `--out` does not say otherwise.
pub const SHARDS: &str = "shards";
pub const LABELLED: &str = "labelled.parquet";
pub const LABELS: &str = "labels.parquet";
pub const MODEL: &str = "model";
pub const EVAL: &str = "eval.parquet";
pub const REPORT: &str = "report";
pub const AUDIT: &str = "audit.html";
pub const HUGGINGFACE: &str = "huggingface";
pub const ONNX: &str = "onnx";

/// After the name of an output: what varies between runs that give the same bytes.
pub const PROVENANCE: &str = ".prov.json";
/// The keys in it for the words of the command, the directory that it was run in, and the commit that the
/// program was built from.
pub const COMMAND: &str = "command";
pub const DIRECTORY: &str = "directory";
pub const COMMIT: &str = "commit";
/// The key for the instructions that the kernels ran with.
pub const INSTRUCTIONS: &str = "instructions";
/// The key in that of a merged output for those of its parts.
pub const PARTS: &str = "parts";
/// After the name of an output, while a run makes it: the file that it locks.
pub const LOCK: &str = ".lock";
/// Begin and end of the name under which an output is written.
pub const TEMPORARY: (&str, &str) = (".s4l-", ".tmp");

/// Names inside a shard folder.
pub const DATASET_JSON: &str = "dataset.json";
pub const MANIFEST: &str = "MANIFEST.b3";
/// There when some images of the input are not in the shards.
pub const REJECTS: &str = "rejects.parquet";

/// After the name of an output: the folder in which it is made.
pub const PARTIAL: &str = ".partial";
/// Names inside that of shards: what is being made; the future shard folder; a record of each finished file.
pub const PLAN: &str = "plan.json";
pub const FILES: &str = "files";
pub const RECORDS: &str = "records";
/// After the name of a file: the name of its record.
pub const RECORD: &str = ".json";

/// Names inside a model folder. `WEIGHTS` is written last: a folder that has it is complete.
pub const CONFIG_JSON: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
/// Instead of `WEIGHTS` in folders that other programs write, and no stage reads.
pub const PYTORCH_WEIGHTS: &str = "pytorch_model.bin";
pub const METRICS_JSONL: &str = "metrics.jsonl";
pub const METRICS: &str = "metrics.parquet";
/// TensorBoard finds files by `tfevents` in their names.
pub const EVENTS: &str = "events.out.tfevents.0.s4l";
pub const MODEL_CARD: &str = "README.md";
/// The weights and all else in an ONNX folder.
pub const ONNX_MODEL: &str = "model.onnx";
/// There while the stage runs: a folder, and the last two states in it.
pub const CHECKPOINT: &str = "checkpoint";
pub const STATE: &str = "state.safetensors";
pub const PREVIOUS_STATE: &str = "previous.safetensors";

/// Names inside a report. `PAGE` is written last: a folder that has it is complete.
pub const TABLE_MD: &str = "table.md";
pub const TABLE_CSV: &str = "table.csv";
pub const TABLE: &str = "table.parquet";
pub const PAGE: &str = "index.html";

/// Name of a shard file: `train-00000-of-00004.parquet`.
pub fn shard_file(split: &str, file: usize, files: usize) -> String {
    format!("{split}-{file:05}-of-{files:05}.parquet")
}

/// Name of a piece of a table in the making, counted from 1: `000003.parquet`.
pub fn piece_file(piece: usize) -> String {
    format!("{piece:06}.parquet")
}

/// The piece that has a name.
pub fn piece_of(name: &str) -> Option<usize> {
    let piece = name.strip_suffix(".parquet")?.parse().ok()?;
    (piece_file(piece) == name).then_some(piece)
}

/// Errors with what is wrong with the name of a split, which begins names of files.
pub fn check_split(name: &str) -> Result<(), String> {
    match name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        true => Err(format!("{name:?}, which is no name of a file")),
        false => Ok(()),
    }
}

/// The split of a shard file by its name; the stem of any other file.
pub fn split_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let first = stem.rsplit_once("-of-").map(|(part, _)| part);
    let split = first.and_then(|part| part.rsplit_once('-'));
    split.map_or(stem.to_string(), |(split, _)| split.to_string())
}

/// After the name of an output: part I of N of it, from 1, is `.part-I-of-N`.
pub const PART: &str = ".part-";
/// After the name of shards that are made in parts: what all parts need of the input.
pub const SURVEY: &str = ".survey";

/// The first 16 hexadecimal digits of a BLAKE3 hash: its form in columns and metadata.
pub fn short_hash(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_string()
}

/// What stands in a file for the digits of its own hash while that is computed.
pub const NO_HASH: &str = "0000000000000000";

/// The `short_hash` of a file with `NO_HASH` where its digits are.
pub fn hash_around(bytes: &[u8], digits: &Range<usize>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(&bytes[..digits.start]).update(NO_HASH.as_bytes());
    hasher.update_rayon(&bytes[digits.end..]);
    short_hash(&hasher.finalize())
}

// ---- Tables.

/// Shards: `pixels` of so many bytes when `size` is given, else encoded images (the Hugging Face
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

/// The fields of the struct `image`.
pub fn image_fields() -> Fields {
    Fields::from(vec![
        Field::new("bytes", DataType::Binary, true),
        Field::new("path", DataType::Utf8, true),
    ])
}

/// `rejects.parquet`: one row per image that is not in the shards.
pub fn rejects() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new(SPLIT, DataType::Utf8, false),
        Field::new(PATH, DataType::Utf8, false),
        Field::new(REASON, DataType::Utf8, false),
    ]))
}

/// The columns of shards as features of Hugging Face datasets, which then show images and names of
/// classes. They have no type for pixels of a fixed size, and read them as `binary` when these
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
        Field::new(KNOWN, DataType::Boolean, false),
        Field::new(LABEL_SINGLE, DataType::Int64, false),
        Field::new(CONFIDENCE, DataType::Float32, false),
        Field::new(ENTROPY, DataType::Float32, false),
        Field::new(AGREEMENT, DataType::Float32, false),
        Field::new(PROBS, float_list(classes), false),
    ]))
}

/// `eval.parquet`: one row per evaluated image.
pub fn eval(classes: usize) -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(KEY, DataType::Utf8, false),
        Field::new(LABEL, DataType::Int64, false),
        Field::new(PREDICTION, DataType::Int64, false),
        Field::new(TOP5, DataType::Boolean, false),
        Field::new(NLL, DataType::Float32, false),
        Field::new(LOGITS, float_list(classes), false),
    ]))
}

/// Pieces and parts of `eval`: all that its summary is computed from.
pub fn eval_piece(classes: usize, rotated: bool) -> Arc<Schema> {
    let mut fields = eval(classes).fields().to_vec();
    if rotated {
        fields.push(Arc::new(Field::new(AVERAGED_LOGITS, float_list(classes), false)));
    }
    Arc::new(Schema::new(fields))
}

/// Predictions: the labels of each image; none of one that could not be read.
pub fn predictions() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(PATH, DataType::Utf8, false),
        Field::new(LABEL, DataType::Utf8, true),
        Field::new(PROBABILITY, DataType::Float32, true),
    ]))
}

/// `metrics.parquet`: the learning curves of a run, one row per (step, name).
pub fn metrics() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new(STEP, DataType::Int64, false),
        Field::new(NAME, DataType::Utf8, false),
        Field::new(VALUE, DataType::Float64, false),
    ]))
}

/// `table.parquet` and `table.csv`: one row per row of the report. Names say the unit unless it is a
/// fraction or nats; an unknown figure is null.
pub fn report() -> Arc<Schema> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let count = |name| Field::new(name, DataType::Int64, false);
    let figure = |name| Field::new(name, DataType::Float64, true);
    Arc::new(Schema::new(vec![
        text("row"),
        text("title"),
        text("method"),
        text("split"),
        count("images"),
        count("seeds"),
        figure("top1_percent"),
        figure("top1_sd_percent"),
        figure("top1_low_percent"),
        figure("top1_high_percent"),
        figure("top1_to_supervised_points"),
        figure("top1_to_supervised_low_points"),
        figure("top1_to_supervised_high_points"),
        figure("top1_rotation_averaged_percent"),
        figure("balanced_accuracy_percent"),
        figure("balanced_accuracy_sd_percent"),
        figure("top5_percent"),
        figure("top5_sd_percent"),
        figure("nll"),
        figure("nll_sd"),
        figure("ece_percent"),
        figure("ece_sd_percent"),
        figure("labels_seen"),
        figure("images_seen"),
        figure("imagenet_resnet50v2_paper_top5_percent"),
        figure("imagenet_resnet50v2_rerun_top5_percent"),
        figure("imagenet_resnet50v2_paper_top1_percent"),
        figure("imagenet_resnet50v2_rerun_top1_percent"),
        text("notes"),
    ]))
}

fn float_list(len: usize) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Float32, false)), len as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_what_stands_before_the_part() {
        let split = |name: &str| split_of(Path::new(name));
        assert_eq!(split(&shard_file("train", 0, 4)), "train");
        assert_eq!(split("a/train-00000-of-00004.parquet"), "train");
        assert_eq!(split("my-test-00000-of-00001.parquet"), "my-test");
        assert_eq!(split("other.parquet"), "other");
    }
}
