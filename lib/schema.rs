//! The contract between the stages, in one place: names of files, columns, metrics and metadata keys, and
//! the Arrow schemas of the tables.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

// ---- Columns.

/// Unique and stable name of an image, in every table with one row per image.
pub const KEY: &str = "key";
/// Index of a class: the known one; in `labels.parquet` the one to train on.
pub const LABEL: &str = "label";

// Of shards.
pub const IMAGE: &str = "image";
/// The leaf of `IMAGE` that has the file.
pub const IMAGE_BYTES: &str = "image.bytes";
pub const PIXELS: &str = "pixels";
pub const HEIGHT: &str = "height";
pub const WIDTH: &str = "width";
/// `short_hash` of an image's bytes, which are the file if images are encoded. Text, which every parquet
/// reader can read.
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
/// Entropy of `PROBS`, in nats.
pub const ENTROPY: &str = "entropy";
/// Share of views whose argmax is `LABEL`.
pub const AGREEMENT: &str = "agreement";
/// Softmax of the mean of the logits over the views.
pub const PROBS: &str = "probs";

// Of `eval.parquet`.
pub const PREDICTION: &str = "prediction";
pub const TOP5: &str = "top5";
pub const NLL: &str = "nll";
pub const LOGITS: &str = "logits";
/// Only in its pieces and parts: the mean over the four rotations of an image.
pub const AVERAGED_LOGITS: &str = "averaged_logits";

// Of a table of predictions, with `PATH` and `LABEL`, which is a class name here.
pub const PROBABILITY: &str = "probability";

// Of `metrics.parquet` and the lines of `metrics.jsonl`.
pub const STEP: &str = "step";
pub const NAME: &str = "name";
pub const VALUE: &str = "value";

/// Names of the metrics of a run: the loss of a step, its unweighted terms, accuracies. A term of only one
/// method is named in the file of the method.
pub mod metric {
    pub const LOSS: &str = "loss";
    /// Prefix of the name of each term.
    pub const LOSS_TERM: &str = "loss/";
    pub const LOSS_SUPERVISED: &str = "loss/supervised";
    pub const LOSS_ROTATION: &str = "loss/rotation";
    pub const LOSS_EXEMPLAR: &str = "loss/exemplar";
    pub const LOSS_VAT: &str = "loss/vat";
    pub const LOSS_FIXMATCH: &str = "loss/fixmatch";
    pub const LOSS_ENTMIN: &str = "loss/entmin";
    pub const TRAIN_TOP1: &str = "train/top1";
    pub const VALIDATION_TOP1: &str = "validation/top1";
    pub const LEARNING_RATE: &str = "learning_rate";
}

/// Heads of a network, as named in `config.json` and in the names of the tensors.
pub mod head {
    pub const CLASSES: &str = "classes";
    pub const ROTATIONS: &str = "rotations";
    pub const EMBEDDINGS: &str = "embeddings";
}

/// Tensors of an ONNX file besides the logits, which are named after their head.
pub mod onnx {
    pub const IMAGES: &str = "images";
    /// The input of the network, after the preparation.
    pub const PREPARED: &str = "prepared";
    /// Pre-logits.
    pub const REPRESENTATION: &str = "representation";
}

// ---- Metadata: keys of parquet footers and safetensors headers.

/// Prefix of the keys of the lineage, and of the other keys that only this project writes.
pub const METADATA_PREFIX: &str = "s4l.";
pub const TOOL_KEY: &str = "s4l.tool";
pub const VERSION_KEY: &str = "s4l.version";
/// `recipe::hash` of the settings.
pub const RECIPE_KEY: &str = "s4l.recipe";
/// Processes that trained together, if there were several.
pub const RANKS_KEY: &str = "s4l.ranks";
pub const SEED_KEY: &str = "s4l.seed";
/// Prefix of the name of an input; the value is the hash of its content.
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
/// In a part: what its stage must know about the whole to join the parts (JSON).
pub const ABOUT_KEY: &str = "s4l.about";
/// In an ONNX file: the names of the classes (a JSON list), and the pipe that prepares images.
pub const CLASSES_KEY: &str = "s4l.classes";
pub const PREPARATION_KEY: &str = "s4l.augment_eval";
/// How the images of shards were changed.
pub const RESIZED_KEY: &str = "s4l.resized";
/// The key under which Hugging Face datasets stores the features.
pub const HUGGING_FACE: &str = "huggingface";
/// Tells Hugging Face's loaders that tensors are in PyTorch's layout.
pub const PYTORCH: (&str, &str) = ("format", "pt");

/// Names of inputs, after `INPUT_PREFIX`. For reports and for the images of predictions, the names are
/// paths.
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
    /// The inputs that a report compares, from the images on.
    pub const ALL: [&str; 9] =
        [IMAGES, SHARDS, LIST, NESTED_IN, LABELLED, LABELS, VALIDATION, INIT, MODEL];
}

// ---- Files.

/// Default outputs, without `--out`.
pub const SHARDS: &str = "shards";
pub const LABELLED: &str = "labelled.parquet";
pub const LABELS: &str = "labels.parquet";
pub const MODEL: &str = "model";
pub const EVAL: &str = "eval.parquet";
pub const REPORT: &str = "report";
pub const AUDIT: &str = "audit.html";
pub const HUGGINGFACE: &str = "huggingface";
pub const ONNX: &str = "onnx";

/// Ending of the provenance file of an output, with everything that varies between runs of the same bytes.
pub const PROVENANCE: &str = ".prov.json";
/// Keys of the provenance file: the arguments of the command, the folder in which the command ran, and the
/// commit from which the program was built.
pub const COMMAND: &str = "command";
pub const DIRECTORY: &str = "directory";
pub const COMMIT: &str = "commit";
/// Keys of the provenance file: what the runs used that made the output, and where. The instruction set is
/// that of the kernels.
pub const SECONDS: &str = "seconds";
pub const CPU_SECONDS: &str = "cpu_seconds";
pub const PEAK_MEMORY: &str = "peak_memory_mb";
pub const THREADS: &str = "threads";
pub const INSTRUCTIONS: &str = "instructions";
pub const RANKS: &str = "ranks";
pub const HOST: &str = "host";
/// Key of the provenance file of a joined output: the provenance of the parts.
pub const PARTS: &str = "parts";
/// Ending of the file that a run locks while it makes an output.
pub const LOCK: &str = ".lock";
/// Prefix and ending of the temporary name under which an output is written.
pub const TEMPORARY: (&str, &str) = (".s4l-", ".tmp");

/// Names inside a shard folder.
pub const DATASET_JSON: &str = "dataset.json";
pub const MANIFEST: &str = "MANIFEST.b3";
/// Exists if some images of the input are not in the shards.
pub const REJECTS: &str = "rejects.parquet";

/// Ending of the folder in which an output is made.
pub const PARTIAL: &str = ".partial";
/// Names inside the folder for shards: the plan; the future shard folder; the records of finished files.
pub const PLAN: &str = "plan.json";
pub const FILES: &str = "files";
pub const RECORDS: &str = "records";
/// Ending of the record of a file.
pub const RECORD: &str = ".json";

/// Names inside a model folder. `WEIGHTS` is written last: a folder that has it is complete.
pub const CONFIG_JSON: &str = "config.json";
pub const WEIGHTS: &str = "model.safetensors";
/// Written by other programs instead of `WEIGHTS`; no stage reads it.
pub const PYTORCH_WEIGHTS: &str = "pytorch_model.bin";
pub const METRICS_JSONL: &str = "metrics.jsonl";
pub const METRICS: &str = "metrics.parquet";
/// TensorBoard recognizes files by `tfevents` in their names.
pub const EVENTS: &str = "events.out.tfevents.0.s4l";
pub const MODEL_CARD: &str = "README.md";
/// The only file with weights in an ONNX folder.
pub const ONNX_MODEL: &str = "model.onnx";
/// Exists while the stage runs: a folder with the last two states.
pub const CHECKPOINT: &str = "checkpoint";
pub const STATE: &str = "state.safetensors";
pub const PREVIOUS_STATE: &str = "previous.safetensors";

/// Names inside a report. `PAGE` is written last: a folder that has it is complete.
pub const TABLE_MD: &str = "table.md";
pub const TABLE_CSV: &str = "table.csv";
pub const TABLE: &str = "table.parquet";
pub const COST_CSV: &str = "cost.csv";
pub const COST_PAGE: &str = "cost.html";
pub const PAGE: &str = "index.html";

/// Name of a shard file: `train-00000-of-00004.parquet`.
pub fn shard_file(split: &str, file: usize, files: usize) -> String {
    format!("{split}-{file:05}-of-{files:05}.parquet")
}

/// Name of a piece of an unfinished table, counted from 1: `000003.parquet`.
pub fn piece_file(piece: usize) -> String {
    format!("{piece:06}.parquet")
}

/// The number of the piece with this name.
pub fn piece_of(name: &str) -> Option<usize> {
    let piece = name.strip_suffix(".parquet")?.parse().ok()?;
    (piece_file(piece) == name).then_some(piece)
}

/// Errors with what is wrong with the name of a split, which file names begin with.
pub fn check_split(name: &str) -> Result<(), String> {
    match name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        true => Err(format!("{name:?}, which is no name of a file")),
        false => Ok(()),
    }
}

/// The split of a shard file, from its name; for any other file, the stem.
pub fn split_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let first = stem.rsplit_once("-of-").map(|(part, _)| part);
    let split = first.and_then(|part| part.rsplit_once('-'));
    split.map_or(stem.to_string(), |(split, _)| split.to_string())
}

/// Infix of the name of a part: part I of N of an output, counted from 1, is `.part-I-of-N`.
pub const PART: &str = ".part-";
/// Ending for shards that are made in parts: the survey of the input that all parts need.
pub const SURVEY: &str = ".survey";

/// The first 16 hexadecimal digits of a BLAKE3 hash: its form in columns and metadata.
pub fn short_hash(hash: &blake3::Hash) -> String {
    hash.to_hex()[..16].to_string()
}

/// The digits that stand for a file's hash while the hash is computed.
pub const NO_HASH: &str = "0000000000000000";

/// The `short_hash` of a file with `NO_HASH` in place of the digits.
pub fn hash_around(bytes: &[u8], digits: &Range<usize>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(&bytes[..digits.start]).update(NO_HASH.as_bytes());
    hasher.update_rayon(&bytes[digits.end..]);
    short_hash(&hasher.finalize())
}

// ---- Tables.

/// Shards: `pixels` of `size` bytes if `size` is given, else encoded images (the Hugging Face Image
/// feature).
pub fn shards(size: Option<usize>) -> Arc<Schema> {
    let image = match size {
        Some(size) => Field::new(PIXELS, DataType::FixedSizeBinary(size as i32), false),
        // Nullable although no image is null: otherwise this is not the Image feature.
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

/// The columns of shards as features of Hugging Face datasets, which can then show images and class names.
/// datasets has no type for pixels of a fixed size; with these features it reads them as `binary`.
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

/// Pieces and parts of `eval`: everything from which its summary is computed.
pub fn eval_piece(classes: usize, rotated: bool) -> Arc<Schema> {
    let mut fields = eval(classes).fields().to_vec();
    if rotated {
        fields.push(Arc::new(Field::new(AVERAGED_LOGITS, float_list(classes), false)));
    }
    Arc::new(Schema::new(fields))
}

/// Predictions: the labels of each image; no label for an image that could not be read.
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

/// `table.parquet` and `table.csv`: one row per row of the report. Column names have the unit, except for
/// fractions and nats. An unknown figure is null.
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
