//! From files and settings to a training run: everything is checked here, before the first step.

use crate::artifact::{self, Lineage};
use crate::augment::{Mode, Output, Pipe};
use crate::cli::Common;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::loader::{Part, PartLabels, Source};
use crate::methods;
use crate::model::{Config, Model};
use crate::network::Network;
use crate::network::layout::{Architecture, largest_kernel};
use crate::optimizer::Schedule;
use crate::plan::{Method, Precision, Settings};
use crate::recipe;
use crate::rng::Stream;
use crate::shards::{Shards, Split};
use crate::table::{self, Table};
use crate::trainer::{Run, Validation};
use candle_core::Device;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the labels come from.
pub enum LabelFile {
    /// `labelled.parquet`.
    Known(PathBuf),
    /// `labels.parquet` of `s4l-pseudolabel`: its labels, or its class probabilities.
    Pseudo { path: PathBuf, soft: bool },
}

/// The files of a training stage.
pub struct Inputs {
    pub tool: &'static str,
    pub shards: PathBuf,
    pub labels: LabelFile,
    pub validation: Option<PathBuf>,
    pub init: Option<PathBuf>,
    pub out: PathBuf,
}

/// `cpu` or `cuda:N` as candle's device.
pub fn device(common: &Common) -> Result<Device> {
    if common.device == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal =
        common.device.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(|| {
            Error::Usage(format!("--device {}: expected cpu or cuda:N", common.device))
        })?;
    Device::new_cuda(ordinal).map_err(|e| {
        Error::Usage(format!(
            "--device {}: {e}; is this a build with --features cuda on a machine with that GPU?",
            common.device
        ))
    })
}

/// Reads and checks all inputs of a training stage.
pub fn run(common: &Common, settings: Settings, inputs: &Inputs) -> Result<Run> {
    check(common, &settings)?;
    let shards = Shards::open(&inputs.shards)?;
    let split = shards.split("train")?;
    let classes = shards.classes().len();
    let mut lineage = Lineage::new(inputs.tool, common.seed, recipe::hash(&settings))
        .input("shards", split.content_hash());
    let validation = match &inputs.validation {
        Some(path) => {
            let table = table::read(path, "s4l-subset --val-out")?;
            lineage = lineage.input("validation", artifact::hash_file(path)?);
            Some(labelled_rows(&table, &split, classes, "label")?)
        }
        None => None,
    };
    let held_out: HashSet<u32> = validation.iter().flat_map(|v| v.0.iter().copied()).collect();
    let (path, rows, labels) = labels(&inputs.labels, &settings, &split, classes, &held_out)?;
    lineage = lineage.input("labels", artifact::hash_file(path)?);
    let pipe = |text: &str, mode| Pipe::parse(text, mode);
    let labelled = Part {
        rows,
        labels,
        batch: settings.batch,
        pipe: pipe(&settings.augment_labelled, Mode::Train)?,
        order: Stream::LabelledOrder,
        augment: Stream::LabelledAugment,
    };
    let unlabelled = Part {
        rows: (0..split.len() as u32).filter(|r| !held_out.contains(r)).collect(),
        labels: PartLabels::Hard(Vec::new()),
        batch: settings.unlabelled_batch,
        pipe: pipe(&settings.augment_unlabelled, Mode::Train)?,
        order: Stream::UnlabelledOrder,
        augment: Stream::UnlabelledAugment,
    };
    let channels = split.channels()?;
    let output = labelled.pipe.output(channels)?;
    check_views(common, &settings, &output, &unlabelled.pipe.output(channels)?)?;
    let architecture = Architecture {
        channels: output.channels,
        units: settings.units.clone(),
        width_factor: settings.width_factor,
        stem: settings.stem,
        heads: methods::heads(settings.method, classes, settings.embedding_dim),
    };
    let device = device(common)?;
    if settings.precision == Precision::Bf16 && !device.is_cpu() {
        let what = "--precision bf16 is for --device cpu only; leave one of them out";
        return Err(Error::Usage(what.into()));
    }
    let (height, width) = (output.height, output.width);
    let size = (height, width);
    let precision = settings.precision;
    let mut network = Network::new(&architecture, size, &device, precision, common.seed);
    if let Some(path) = &inputs.init {
        let init = Model::open(path, &device)?;
        init.check_classes(shards.classes(), &inputs.shards)?;
        warm_start(&mut network, &architecture, &init)?;
        lineage = lineage.input("init", init.hash);
    }
    let schedule = Schedule::new(&settings, labelled.rows.len());
    let config = Config {
        architecture,
        height,
        width,
        classes: shards.classes().to_vec(),
        seed: common.seed,
        settings,
    };
    let eval_pipe = pipe(&config.settings.augment_eval, Mode::Eval)?;
    evaluate::check_size(&config, &split, &eval_pipe)?;
    let validation = validation.map(|(rows, labels)| Validation {
        split: split.clone(),
        rows,
        labels,
        pipe: eval_pipe,
    });
    Ok(Run {
        out: inputs.out.clone(),
        config,
        lineage,
        network,
        source: Arc::new(Source { split, labelled, unlabelled, seed: common.seed }),
        schedule,
        validation,
    })
}

fn recipe_error(common: &Common, what: String, hint: &str) -> Error {
    let recipe = common.recipe.as_ref().map(|p| p.display().to_string());
    Error::Recipe { recipe: recipe.unwrap_or_else(|| "settings".into()), what, hint: hint.into() }
}

/// Values of a kernel, and units of a network, beyond which there is no network that anybody trains.
const MAX_KERNEL: usize = 1_000_000_000;
const MAX_UNITS: usize = 10_000;

/// Settings that cannot be meant.
pub fn check(common: &Common, s: &Settings) -> Result<()> {
    let bad = |what: String, hint: &str| Err(recipe_error(common, what, hint));
    let ascending = s.schedule.windows(2).all(|w| w[0] < w[1]);
    if s.schedule.len() < 2 || !ascending || s.schedule[0] < 0.0 {
        return bad(
            format!("schedule {:?}", s.schedule),
            "give ascending epochs: end of warm-up, decays, end of training",
        );
    }
    for (key, value) in [
        ("batch", s.batch),
        ("width_factor", s.width_factor),
        ("units", s.units.iter().copied().min().unwrap_or(0)),
        ("log_every", s.log_every as usize),
        ("checkpoint_every", s.checkpoint_every as usize),
    ] {
        if value == 0 {
            return bad(format!("{key} is 0"), "it must be at least 1");
        }
    }
    let largest = largest_kernel(s.units.len(), s.width_factor);
    let units = s.units.iter().fold(0, |sum: usize, &n| sum.saturating_add(n));
    // Below, nothing in the layout overflows.
    if largest.is_none_or(|n| n > MAX_KERNEL) || units > MAX_UNITS {
        let kernels = largest.map_or("too many to count".to_string(), |n| n.to_string());
        return bad(
            format!("a network of {units} units and kernels of up to {kernels} values"),
            "lower width_factor or units",
        );
    }
    let consistency = s.weight_vat != 0.0 || s.weight_entmin != 0.0;
    if consistency && !matches!(s.method, Method::Vat | Method::Moam) {
        return bad(
            format!("weight_vat and weight_entmin have no effect in {:?}", s.method),
            "set them to 0, or method to vat or moam",
        );
    }
    if s.method == Method::Vat && !s.vat_labelled && s.unlabelled_batch == 0 {
        return bad(
            "vat has no images: vat_labelled is false and unlabelled_batch is 0".into(),
            "set one of them",
        );
    }
    if s.method == Method::Moam && s.unlabelled_batch == 0 {
        return bad("unlabelled_batch is 0".into(), "moam trains on unlabelled images");
    }
    if s.method == Method::Exemplar {
        for (key, value) in [("batch", s.batch), ("unlabelled_batch", s.unlabelled_batch)] {
            if value == 1 {
                return bad(format!("{key} is 1"), "the exemplar loss compares two images or more");
            }
        }
    }
    if !matches!(s.label_column.as_str(), "label" | "label_single") {
        return bad(format!("label_column {:?}", s.label_column), "use label or label_single");
    }
    Ok(())
}

/// Views must be those that the method's losses are about, and alike in both parts.
fn check_views(
    common: &Common,
    s: &Settings,
    labelled: &Output,
    unlabelled: &Output,
) -> Result<()> {
    let bad = |what: &str, hint: &str| Err(recipe_error(common, what.into(), hint));
    if s.unlabelled_batch > 0 && labelled != unlabelled {
        return bad(
            "augment_labelled and augment_unlabelled give images of different size or views",
            "end both in the same steps",
        );
    }
    let turned = matches!(s.method, Method::Rotation | Method::Moam);
    if turned && !(labelled.rotated && labelled.views == 4) {
        return bad(
            "this method predicts rotations",
            "end augment_labelled and augment_unlabelled in |rotate",
        );
    }
    if s.method == Method::Exemplar && labelled.views < 2 {
        return bad(
            "the exemplar loss needs several patches of an image",
            "begin augment_labelled with crop_inception_patches(n,size)",
        );
    }
    Ok(())
}

/// Rows of the split and labels that a table with `key` and a label column names.
pub fn labelled_rows(
    table: &Table,
    split: &Split,
    classes: usize,
    column: &str,
) -> Result<(Vec<u32>, Vec<u32>)> {
    let keys = table.strings("key")?;
    let labels = table.ints(column)?;
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(keys.len());
    for (key, &label) in keys.iter().zip(&labels) {
        let row = split.row(key).ok_or_else(|| {
            Error::bad_data(
                &table.path,
                format!("keys of {}", split.path().display()),
                format!("unknown key {key:?}"),
                "make it again from these shards",
            )
        })?;
        if !(0..classes as i64).contains(&label) {
            return Err(Error::bad_data(
                &table.path,
                format!("labels 0 to {}", classes - 1),
                format!("{column} {label} of {key:?}"),
                "make it again from these shards",
            ));
        }
        if !seen.insert(row) {
            return Err(Error::bad_data(
                &table.path,
                "each key once",
                format!("{key:?} twice"),
                "remove one of the rows",
            ));
        }
        rows.push(row as u32);
    }
    if rows.is_empty() {
        return Err(Error::bad_data(
            &table.path,
            "labelled images",
            "no rows",
            "label some images",
        ));
    }
    Ok((rows, labels.iter().map(|&l| l as u32).collect()))
}

/// Path, rows and labels of the images to train on; held-out images are left out.
fn labels<'a>(
    file: &'a LabelFile,
    settings: &Settings,
    split: &Split,
    classes: usize,
    held_out: &HashSet<u32>,
) -> Result<(&'a Path, Vec<u32>, PartLabels)> {
    let (path, made_by) = match file {
        LabelFile::Known(path) => (path, "s4l-subset"),
        LabelFile::Pseudo { path, .. } => (path, "s4l-pseudolabel"),
    };
    let table = table::read(path, made_by)?;
    let (rows, mut labels) = labelled_rows(&table, split, classes, "label")?;
    let mut confidence = vec![1.0; rows.len()];
    match file {
        LabelFile::Known(_) => {
            if let Some(&row) = rows.iter().find(|r| held_out.contains(r)) {
                return Err(Error::bad_data(
                    path,
                    "images that are not in the validation set",
                    format!("{:?}", split.key(row as usize)),
                    "draw both with one call of s4l-subset",
                ));
            }
        }
        LabelFile::Pseudo { .. } => {
            let pseudo_confidence = table.floats("confidence")?;
            let (_, pseudo) = labelled_rows(&table, split, classes, &settings.label_column)?;
            // A known label is kept, whatever the model makes of its image.
            for (i, known) in table.bools("known")?.into_iter().enumerate() {
                if !known {
                    labels[i] = pseudo[i];
                    confidence[i] = pseudo_confidence[i];
                }
            }
        }
    }
    let keep: Vec<usize> = (0..rows.len())
        .filter(|&i| {
            !held_out.contains(&rows[i]) && f64::from(confidence[i]) >= settings.min_confidence
        })
        .collect();
    if keep.is_empty() {
        return Err(Error::bad_data(
            path,
            format!("labels with a confidence of at least {}", settings.min_confidence),
            "none",
            "lower min_confidence",
        ));
    }
    let labels = match file {
        LabelFile::Pseudo { soft: true, .. } => {
            let (probs, width) = table.float_lists("probs")?;
            if width != classes {
                return Err(Error::bad_data(
                    path,
                    format!("probs of {classes} classes"),
                    format!("{width}"),
                    "make it again from these shards",
                ));
            }
            let picked = keep.iter().flat_map(|&i| &probs[i * width..(i + 1) * width]);
            PartLabels::Soft(picked.copied().collect(), width)
        }
        _ => PartLabels::Hard(keep.iter().map(|&i| labels[i]).collect()),
    };
    Ok((path, keep.iter().map(|&i| rows[i]).collect(), labels))
}

/// Takes over the trunk and the heads that both networks have; other heads stay as initialized.
fn warm_start(network: &mut Network, wanted: &Architecture, init: &Model) -> Result<()> {
    let found = &init.config.architecture;
    let trunk = |a: &Architecture| (a.channels, a.units.clone(), a.width_factor, a.stem);
    if trunk(wanted) != trunk(found) {
        return Err(Error::bad_data(
            &init.path,
            format!("a network of (channels, units, width factor, stem) {:?}", trunk(wanted)),
            format!("{:?}", trunk(found)),
            "start from a model of the recipe's network",
        ));
    }
    let trunk = network.layout.trunk_parameters;
    network.parameters[..trunk].copy_from_slice(&init.network.parameters[..trunk]);
    network.moving.copy_from_slice(&init.network.moving);
    for head in &network.layout.heads {
        let Some(old) = init.network.layout.head(&head.name) else {
            continue;
        };
        if old.outputs != head.outputs {
            continue;
        }
        for (to, from) in [
            (network.layout.head_kernel(head), init.network.layout.head_kernel(old)),
            (network.layout.head_bias(head), init.network.layout.head_bias(old)),
        ] {
            network.parameters[to].copy_from_slice(&init.network.parameters[from]);
        }
    }
    Ok(())
}
