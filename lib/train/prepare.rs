//! From files and settings to a training run: everything is checked here, before the first step.

use super::check;
use crate::artifact::{self, Lineage};
use crate::augment::{Mode, Pipe};
use crate::cli::Common;
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::labelled::rows::labelled_rows;
use crate::methods;
use crate::model::config::Config;
use crate::model::folder::Model;
use crate::network::Network;
use crate::network::device::Device;
use crate::network::layout::{Architecture, Layout};
use crate::network::weights::Weights;
use crate::recipe;
use crate::rng::Stream;
use crate::settings::Settings;
use crate::shards::{Shards, Split};
use crate::tables::table;
use crate::train::loader::{Part, PartLabels, Source};
use crate::train::schedule::Schedule;
use crate::train::trainer::{Run, Validation};
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

/// Reads and checks all inputs of a training stage.
pub fn run(common: &Common, settings: Settings, inputs: &Inputs) -> Result<Run> {
    check::settings(common, &settings)?;
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
    check::views(common, &settings, &output, &unlabelled.pipe.output(channels)?)?;
    let architecture = Architecture {
        channels: output.channels,
        units: settings.units.clone(),
        width_factor: settings.width_factor,
        stem: settings.stem,
        heads: methods::heads(settings.method, classes, settings.embedding_dim),
    };
    let device: Device = common.device.parse()?;
    let layout = Layout::new(&architecture);
    let mut weights = Weights::initial(&layout, common.seed);
    if let Some(path) = &inputs.init {
        let init = Model::open(path)?;
        init.check_classes(shards.classes(), &inputs.shards)?;
        warm_start(&mut weights, &layout, &architecture, &init)?;
        lineage = lineage.input("init", init.hash);
    }
    if settings.polyak_half_life > 0.0 {
        weights.average.clone_from(&weights.parameters);
    }
    let (height, width) = (output.height, output.width);
    let (size, precision) = ((height, width), settings.precision);
    let network = Network::new(&architecture, size, device, precision, weights)?;
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
    logits::check_size(&config, &split, &eval_pipe)?;
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
fn warm_start(
    weights: &mut Weights,
    layout: &Layout,
    wanted: &Architecture,
    init: &Model,
) -> Result<()> {
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
    let trunk = layout.trunk_parameters;
    weights.parameters[..trunk].copy_from_slice(&init.weights.parameters[..trunk]);
    weights.moving.copy_from_slice(&init.weights.moving);
    for head in &layout.heads {
        let Some(old) = init.layout.head(&head.name) else {
            continue;
        };
        if old.outputs != head.outputs {
            continue;
        }
        for (to, from) in [
            (layout.head_kernel(head), init.layout.head_kernel(old)),
            (layout.head_bias(head), init.layout.head_bias(old)),
        ] {
            weights.parameters[to].copy_from_slice(&init.weights.parameters[from]);
        }
    }
    Ok(())
}
