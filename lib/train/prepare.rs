//! From files and settings to a training run: everything is checked here, before the first step.

use super::check;
use super::labels::{LabelFile, training_labels};
use crate::augment::Pipe;
use crate::error::Result;
use crate::evaluate::logits;
use crate::labelled::rows::labelled_rows;
use crate::lineage::Lineage;
use crate::methods;
use crate::model::config::Config;
use crate::model::folder::Model;
use crate::network::Network;
use crate::network::device::Device;
use crate::network::layout::Layout;
use crate::network::weights::Weights;
use crate::ranks::{Ranks, Share};
use crate::recipe;
use crate::rng::Stream;
use crate::schema;
use crate::settings::Settings;
use crate::shards::{Shards, Split};
use crate::tables::table;
use crate::train::identity::Identity;
use crate::train::loader::{ImageSet, TrainingImages};
use crate::train::options::TrainingOptions;
use crate::train::schedule::Schedule;
use crate::train::trainer::{Run, Validation};
use crate::train::warm_start::warm_start;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// The files of a training stage.
pub struct Inputs {
    pub tool: &'static str,
    pub labels: LabelFile,
    pub out: PathBuf,
}

/// Reads and checks all inputs of a training stage.
pub fn run(
    options: &TrainingOptions,
    settings: Settings,
    inputs: &Inputs,
    ranks: &Ranks,
) -> Result<Run> {
    check::settings(&options.recipe, &settings)?;
    check::divides(&settings, ranks.size())?;
    let shards = Shards::open(&options.shards.path)?;
    let split = shards.split("train")?;
    let classes = shards.classes().len();
    let held_out = held_out(options, &split, classes)?;
    let (mut images, labels) =
        training_images(options, &settings, inputs, &split, classes, &held_out)?;
    images.share = ranks.share();
    let config = config(settings, shards.classes(), &images);
    let device: Device = options.computing.device.parse()?;
    let layout = Layout::new(&config.architecture);
    let mut weights = Weights::initial(&layout, config.seed);
    let mut lineage = Lineage::new(inputs.tool, config.seed, recipe::hash(&config.settings))
        .of_ranks(ranks.size())
        .input(schema::input::SHARDS, split.content_hash())
        .input(schema::input::LABELS, labels);
    if let Some(held_out) = &held_out {
        lineage = lineage.input(schema::input::VALIDATION, &*held_out.hash);
    }
    if let Some(path) = &options.init {
        let init = Model::open(path)?;
        warm_start(&mut weights, &layout, &config, &init, &options.shards.path)?;
        lineage = lineage.input(schema::input::INIT, init.hash);
    }
    if config.settings.polyak_half_life > 0.0 {
        weights.average.clone_from(&weights.parameters);
    }
    let network = network(&config, device, weights, ranks)?;
    let pipe = Pipe::for_evaluation(&config.settings.augment_eval)?;
    logits::check_size(&config, split.channels(), split.path(), &pipe)?;
    Ok(Run {
        out: inputs.out.clone(),
        schedule: Schedule::new(&config.settings, images.labelled.rows.len()),
        identity: Identity::new(&config.settings, &lineage, inputs.labels.kind())?,
        config,
        lineage,
        network,
        device,
        ranks: ranks.clone(),
        images: Arc::new(images),
        validation: held_out.map(|HeldOut { rows, labels, .. }| Validation {
            split,
            rows,
            labels,
            pipe,
        }),
        wall_times: options.wall_times,
        checkpoint_after: options.checkpoint_minutes,
        began: Instant::now(),
        saved: Instant::now(),
    })
}

/// The network on its device, as one of the ranks.
fn network(config: &Config, device: Device, weights: Weights, ranks: &Ranks) -> Result<Network> {
    let (size, precision) = ((config.height, config.width), config.settings.precision);
    let mut network = Network::new(&config.architecture, size, device, precision, weights)?;
    network.join(ranks, config.settings.sync_batch_norm)?;
    Ok(network)
}

/// Rows of the validation images, their labels, and the hash of the file.
struct HeldOut {
    rows: Vec<u32>,
    labels: Vec<u32>,
    hash: String,
}

fn held_out(options: &TrainingOptions, split: &Split, classes: usize) -> Result<Option<HeldOut>> {
    let Some(path) = &options.val else {
        return Ok(None);
    };
    let table = table::read(path, "s4l-subset --val-out")?;
    let (rows, labels) = labelled_rows(&table, split, classes, schema::LABEL)?;
    Ok(Some(HeldOut { rows, labels, hash: table.hash }))
}

/// What batches are made from: the labelled images, and all that are not held out; and the hash of the
/// labels' file.
fn training_images(
    options: &TrainingOptions,
    settings: &Settings,
    inputs: &Inputs,
    split: &Split,
    classes: usize,
    held_out: &Option<HeldOut>,
) -> Result<(TrainingImages, String)> {
    let held_out: HashSet<u32> = held_out.iter().flat_map(|held| &held.rows).copied().collect();
    let (rows, labels, hash) =
        training_labels(&inputs.labels, settings, split, classes, &held_out)?;
    let views = check::views(&options.recipe, settings, split.channels())?;
    let images = TrainingImages {
        labelled: ImageSet {
            rows,
            batch: settings.batch,
            views: views.labelled,
            order: Stream::LabelledOrder,
            augment: Stream::LabelledAugment,
        },
        labels,
        unlabelled: ImageSet {
            rows: (0..split.len() as u32).filter(|row| !held_out.contains(row)).collect(),
            batch: settings.unlabelled_batch,
            views: views.unlabelled,
            order: Stream::UnlabelledOrder,
            augment: Stream::UnlabelledAugment,
        },
        split: split.clone(),
        seed: options.computing.seed.value,
        share: Share::WHOLE,
    };
    Ok((images, hash))
}

fn config(settings: Settings, classes: &[String], images: &TrainingImages) -> Config {
    let output = images.labelled.views.first();
    Config {
        architecture: methods::architecture(&settings, output.channels, classes.len()),
        height: output.height,
        width: output.width,
        classes: classes.to_vec(),
        seed: images.seed,
        settings,
    }
}
