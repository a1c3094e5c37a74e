//! timm's format of a network: the tensors of `ResNetV2(stem_type="fixed")` with batch norm
//! (timm/models/resnetv2.py), and the `config.json` from which `timm.create_model("local-dir:DIR",
//! pretrained=True)` builds it.
//!
//! The two networks are the same except for the epsilon of batch norm. timm's configuration has no epsilon,
//! so the difference is folded into the variances. Of the heads, timm's format has only `classes`.

use super::config::Config;
use super::tensors::{Place, Tensor, can_hold};
use super::timm_preparation::{Preparation, Pretrained};
use crate::error::{Error, Result};
use crate::network::engine::BATCH_NORM_EPSILON;
use crate::network::layout::{Architecture, Layout, Stem};
use crate::pixels::Size;
use crate::schema::head;
use crate::settings::Settings;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::path::Path;

/// Added to the variance by PyTorch's batch norm by default.
const EPSILON: f64 = 1e-5;

/// timm's networks that differ from ours only in width and depth, once the stem is "fixed".
const ARCHITECTURES: [&str; 3] = ["resnetv2_50", "resnetv2_101", "resnetv2_152"];

/// Arguments of timm's constructor that the shapes of the tensors also tell.
const ARGUMENTS: [&str; 7] =
    ["layers", "channels", "stem_chs", "width_factor", "in_chans", "num_classes", "output_stride"];

/// Every tensor of timm's network.
pub fn tensors(layout: &Layout) -> Vec<Tensor> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, place: Place| {
        all.push(Tensor { name, shape, place });
    };
    for c in layout.convs() {
        let [k, i, o] = [c.kernel, c.inputs, c.outputs];
        let place = Place::Transposed(c.range(), [k, k, i, o]);
        add(name(&c.name, "weight"), vec![o, i, k, k], place);
    }
    for n in layout.norms() {
        let variance = Place::Variance(n.variance(), BATCH_NORM_EPSILON - EPSILON);
        for (part, place) in [
            ("weight", Place::Parameters(n.gamma())),
            ("bias", Place::Parameters(n.beta())),
            ("running_mean", Place::Moving(n.mean())),
            ("running_var", variance),
        ] {
            add(name(&n.name, part), vec![n.channels], place);
        }
    }
    if let Some(head) = layout.head(head::CLASSES) {
        let [i, o] = [layout.features, head.outputs];
        let place = Place::Transposed(layout.head_kernel(head), [1, 1, i, o]);
        add("head.fc.weight".into(), vec![o, i, 1, 1], place);
        let place = Place::Parameters(layout.head_bias(head));
        add("head.fc.bias".into(), vec![o], place);
    }
    all
}

/// PyTorch's batch norm counts its steps. The count has no use here, but transformers warns if it is
/// missing.
pub fn counters(layout: &Layout) -> Vec<String> {
    layout.norms().map(|n| name(&n.name, COUNTER)).collect()
}

const COUNTER: &str = "num_batches_tracked";

/// timm's name for a tensor of ours: `blocks.0.1.shortcut` → `stages.0.blocks.1.downsample.conv`, then
/// `part`.
fn name(ours: &str, part: &str) -> String {
    let unit = ours.strip_prefix("blocks.").and_then(|n| n.split_once('.'));
    match unit {
        Some((block, rest)) => {
            let rest = rest.replace("shortcut", "downsample.conv");
            format!("stages.{block}.blocks.{rest}.{part}")
        }
        None => format!("{ours}.{part}"),
    }
}

/// The lineage of the weights in `config.json`. timm ignores it, and we read it back.
#[derive(Serialize, Deserialize)]
struct Origin {
    seed: u64,
    settings: Settings,
}

/// timm's `config.json` for a model, which Hugging Face's transformers also read, and the differences of
/// timm's preparation. `path` names the model in errors.
///
/// Errors: `Recipe` if timm cannot express the network or its preparation.
pub fn to_config(path: &Path, config: &Config) -> Result<(Value, Vec<String>)> {
    let a = &config.architecture;
    if a.stem != Stem::Imagenet {
        let stem = serde_json::to_value(a.stem).unwrap_or_default();
        return Err(Error::Recipe {
            recipe: path.display().to_string(),
            what: format!("timm's ResNetV2 has the stem \"imagenet\", this model has {stem}"),
            hint: "--to onnx takes every stem".to_string(),
        });
    }
    let size = Size { height: config.height, width: config.width };
    let preparation = Preparation::of(&config.settings.augment_eval, size)?;
    let layout = Layout::new(a);
    let channels: Vec<usize> = (0..a.units.len()).map(|b| (4 * layout.stem.outputs) << b).collect();
    let origin = Origin { seed: config.seed, settings: config.settings.clone() };
    let mut pretrained = preparation.to_json(a.channels, size);
    pretrained["num_classes"] = config.classes.len().into();
    pretrained["first_conv"] = "stem.conv".into();
    pretrained["classifier"] = "head.fc".into();
    let json = json!({
        "architecture": ARCHITECTURES[0],
        "num_classes": config.classes.len(),
        "num_features": layout.features,
        "global_pool": "avg",
        "label_names": config.classes,
        "model_args": {
            "layers": a.units,
            "channels": channels,
            "stem_chs": layout.stem.outputs,
            "stem_type": "fixed",
            "in_chans": a.channels,
            "output_stride": output_stride(a),
        },
        "pretrained_cfg": pretrained,
        "s4l": origin,
    });
    Ok((json, preparation.notes))
}

/// The stride from input to pre-logits: with it timm does not use dilation instead of stride.
fn output_stride(a: &Architecture) -> usize {
    2 << a.units.len()
}

/// Whether a `config.json` is timm's: timm's names its architecture, ours describes it.
pub fn is_config(config: &Value) -> bool {
    config["architecture"].is_string()
}

/// The entries that are read from timm's `config.json`.
#[derive(Deserialize)]
struct Found {
    architecture: String,
    #[serde(default)]
    label_names: Vec<String>,
    #[serde(default)]
    model_args: Map<String, Value>,
    pretrained_cfg: Pretrained,
    s4l: Option<Origin>,
}

/// The configuration of a model in timm's format. The network comes from the shapes of the tensors. `path`
/// is that of `config.json`. Errors: `BadData` if we do not have this network.
pub fn config(path: &Path, json: Value, tensors: &SafeTensors) -> Result<Config> {
    let bad =
        |expected: &str, found: String, hint: &str| Error::bad_data(path, expected, found, hint);
    let found: Found = serde_json::from_value(json).map_err(|e| {
        let hint = "s4l-export and timm.models.save_for_hf write one";
        bad("timm's config.json", e.to_string(), hint)
    })?;
    let ours = "s4l trains timm's resnetv2_50, 101 and 152 with stem_type \"fixed\"";
    if !ARCHITECTURES.contains(&&found.architecture[..]) {
        return Err(bad(&ARCHITECTURES.join(" or "), found.architecture, ours));
    }
    let stem = found.model_args.get("stem_type").and_then(Value::as_str);
    if stem != Some("fixed") {
        let stem = stem.unwrap_or_default();
        return Err(bad("stem_type \"fixed\"", format!("{stem:?}"), ours));
    }
    let is_ours = |key: &str, value: &Value| match key {
        "stem_type" => true,
        "global_pool" => value == "avg",
        _ => ARGUMENTS.contains(&key),
    };
    let mut arguments = found.model_args.iter();
    if let Some((key, value)) = arguments.find(|(k, v)| !is_ours(k, v)) {
        return Err(bad("the default of every other model_args", format!("{key} {value}"), ours));
    }
    let cfg = found.pretrained_cfg;
    let labels = [&found.label_names, &cfg.label_names];
    let Some(classes) = labels.into_iter().find(|names| !names.is_empty()) else {
        let hint = "add the names of the classes in the order of the head, as in dataset.json";
        return Err(bad("label_names", "none".into(), hint));
    };
    let architecture = architecture(tensors, classes.len())
        .ok_or_else(|| bad("tensors of ResNetV2", "others".into(), ours))?;
    let stride = found.model_args.get("output_stride").map_or(Some(32), Value::as_u64);
    if stride.is_none_or(|s| s < output_stride(&architecture) as u64) {
        return Err(bad("no dilation", "a smaller output_stride".into(), ours));
    }
    let expected: HashSet<String> =
        self::tensors(&Layout::new(&architecture)).into_iter().map(|t| t.name).collect();
    let names = tensors.names();
    let mut others = names.iter().filter(|n| !n.ends_with(COUNTER));
    if let Some(name) = others.find(|name| !expected.contains(&name[..])) {
        return Err(bad("tensors of ResNetV2", format!("also {name}"), ours));
    }
    let [_, height, width] = cfg.input_size;
    let (seed, settings) = match found.s4l {
        Some(origin) => (origin.seed, origin.settings),
        None => (0, settings(path, &cfg, &architecture)?),
    };
    Ok(Config { architecture, height, width, classes: classes.clone(), seed, settings })
}

/// `None` unless the tensors are those of a ResNet-v2 of bottleneck units.
fn architecture(tensors: &SafeTensors, classes: usize) -> Option<Architecture> {
    let has = |block: usize, unit: usize| {
        let name = format!("stages.{block}.blocks.{unit}.conv3.weight");
        tensors.tensor(&name).is_ok()
    };
    let units: Vec<usize> = (0..)
        .map(|block| (0..).take_while(|&unit| has(block, unit)).count())
        .take_while(|&units| units > 0)
        .collect();
    let stem = tensors.tensor("stem.conv.weight").ok()?;
    let &[base, channels, ..] = stem.shape() else {
        return None;
    };
    let found = Architecture {
        channels,
        units,
        width_factor: base / 16,
        stem: Stem::Imagenet,
        heads: vec![(head::CLASSES.to_string(), classes)],
    };
    // With more blocks than this, any image would shrink to less than a pixel.
    let whole = found.units.len() <= 12 && base % 16 == 0 && can_hold(tensors, &found);
    whole.then_some(found)
}

/// Settings of a model that timm trained: its network, and the nearest evaluation that our steps allow.
fn settings(path: &Path, cfg: &Pretrained, a: &Architecture) -> Result<Settings> {
    Ok(Settings {
        units: a.units.clone(),
        width_factor: a.width_factor,
        stem: a.stem,
        augment_eval: cfg.pipe(path)?,
        ..Settings::default()
    })
}
