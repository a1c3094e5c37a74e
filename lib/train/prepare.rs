//! From files and settings to a training run: everything is checked here, before the first step.

use super::check;
use crate::artifact::{self, Lineage};
use crate::augment::{Mode, Pipe};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::labelled::rows::labelled_rows;
use crate::methods;
use crate::model::config::Config;
use crate::model::folder::Model;
use crate::network::Network;
use crate::network::device::device;
use crate::network::engine::Precision;
use crate::network::layout::Architecture;
use crate::recipe;
use crate::rng::Stream;
use crate::settings::Settings;
use crate::shards::{Shards, Split};
use crate::tables::table;
use crate::train::loader::{Part, PartLabels, Source};
use crate::train::optimizer::Schedule;
use crate::train::options::TrainingOptions;
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

/// What a training stage adds to its options.
pub struct Inputs {
    pub tool: &'static str,
    pub labels: LabelFile,
    pub out: PathBuf,
}

/// Reads and checks all inputs of a training stage.
pub fn run(options: &TrainingOptions, settings: Settings, inputs: &Inputs) -> Result<Run> {
    check::settings(&options.recipe, &settings)?;
    let seed = options.computing.seed.value;
    let shards = Shards::open(&options.shards.path)?;
    let split = shards.split("train")?;
    let classes = shards.classes().len();
    let mut lineage = Lineage::new(inputs.tool, seed, recipe::hash(&settings))
        .input("shards", split.content_hash());
    let validation = match &options.val {
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
    let pipe = |text: &str| Pipe::parse(text, Mode::Train);
    let labelled = Part {
        rows,
        labels,
        batch: settings.batch,
        pipe: pipe(&settings.augment_labelled)?,
        order: Stream::LabelledOrder,
        augment: Stream::LabelledAugment,
    };
    let unlabelled = Part {
        rows: (0..split.len() as u32).filter(|r| !held_out.contains(r)).collect(),
        labels: PartLabels::Hard(Vec::new()),
        batch: settings.unlabelled_batch,
        pipe: pipe(&settings.augment_unlabelled)?,
        order: Stream::UnlabelledOrder,
        augment: Stream::UnlabelledAugment,
    };
    let channels = split.channels();
    let output = labelled.pipe.output(channels)?;
    check::views(&options.recipe, &settings, &output, &unlabelled.pipe.output(channels)?)?;
    let architecture = Architecture {
        channels: output.channels,
        units: settings.units.clone(),
        width_factor: settings.width_factor,
        stem: settings.stem,
        heads: methods::heads(settings.method, classes, settings.embedding_dim),
    };
    let device = device(&options.computing.device)?;
    if settings.precision == Precision::Bf16 && !device.is_cpu() {
        let what = "--precision bf16 is for --device cpu only; leave one of them out";
        return Err(Error::Usage(what.into()));
    }
    let (height, width) = (output.height, output.width);
    let size = (height, width);
    let precision = settings.precision;
    let mut network = Network::new(&architecture, size, &device, precision, seed);
    if let Some(path) = &options.init {
        let init = Model::open(path, &device)?;
        init.check_classes(shards.classes(), &options.shards.path)?;
        warm_start(&mut network, &architecture, &init)?;
        lineage = lineage.input("init", init.hash);
    }
    let schedule = Schedule::new(&settings, labelled.rows.len());
    let config =
        Config { architecture, height, width, classes: shards.classes().to_vec(), seed, settings };
    let eval_pipe = Pipe::for_evaluation(&config.settings.augment_eval)?;
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
        source: Arc::new(Source { split, labelled, unlabelled, seed }),
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
