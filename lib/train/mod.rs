//! Training: from files and settings to a model folder. What only a training stage does lives here.
//!
//! In the order of a run: `options` are those of the command line; `check` refuses settings that
//! cannot be meant; `prepare` reads and checks every input, the labels by `labels`, and `warm_start` takes
//! the weights of `--init`; `dry_run` says
//! what the settings come to; `trainer` is the loop, over the batches of `loader`, at the rates of
//! `schedule`; `log`, `tfevents` and `checkpoint` write while it runs, the last under the run's
//! `identity`, and `progress` tells of it. `join` finds the other processes of a training; `mpi` connects them, by
//! calls that `messenger` makes on a thread of its own.

pub mod check;
pub mod checkpoint;
pub mod dry_run;
pub mod identity;
pub mod join;
pub mod labels;
pub mod loader;
pub mod log;
#[cfg(feature = "mpi")]
mod messenger;
#[cfg(feature = "mpi")]
mod mpi;
pub mod options;
pub mod prepare;
pub mod progress;
pub mod schedule;
pub mod tfevents;
pub mod trainer;
mod warm_start;

use crate::artifact::{self, Target};
use crate::cli;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::memory;
use crate::model::config::Config;
use crate::model::folder;
use crate::ranks::Ranks;
use crate::recipe;
use crate::schema;
use crate::settings::Settings;
use dry_run::Data;
use options::TrainingOptions;
use prepare::Inputs;
use std::collections::HashMap;
use std::path::Path;
use trainer::Run;

/// A dry run of a recipe that says for which data it was written, when no labels are named or there are
/// no shards: prints what it comes to and returns true. Such recipes are for colour photographs.
pub fn dry_run_without_data(
    options: &TrainingOptions,
    s: &Settings,
    names_labels: bool,
) -> Result<bool> {
    let described = s.classes > 0 && s.labelled_images > 0;
    let has_data = names_labels && artifact::exists(&options.shards.path)?;
    let without = options.output.dry_run && described && !has_data;
    if without {
        let data = Data {
            channels: 3,
            classes: s.classes,
            labelled: s.labelled_images,
            unlabelled: s.unlabelled_images,
            ranks: 1,
            device: options.computing.device.parse()?,
        };
        check::settings(&options.recipe, s)?;
        check::views(&options.recipe, s, data.channels)?;
        cli::print(&dry_run::describe(s, &data)?)?;
    }
    Ok(without)
}

/// Prepares a training run, then prints its plan or trains, as one of the ranks.
pub fn train(
    options: &TrainingOptions,
    settings: Settings,
    inputs: Inputs,
    ranks: &Ranks,
) -> Result<()> {
    memory::preparing(true);
    let files = [&options.val, &options.init, &options.recipe.file].map(|path| path.as_deref());
    let read = [Some(options.shards.path.as_path()), Some(inputs.labels.path())];
    artifact::refuse_inputs(&inputs.out, read.into_iter().chain(files))?;
    let run = ranks.agree(prepare::run(options, settings, &inputs, ranks))?;
    if options.output.dry_run {
        return match run.writes() {
            true => cli::print(&dry_run::describe(&run.config.settings, &run.data())?),
            false => Ok(()),
        };
    }
    let taken = run.writes().then(|| take(options, &inputs.out, &run)).transpose();
    let taken = ranks.agree(taken)?;
    if ranks.any(matches!(taken, Some((_, Target::UpToDate))))? {
        return Ok(());
    }
    let (settings, data) = (&run.config.settings, run.data());
    if options.recipe.is_absent() {
        cli::info("no --recipe and no --set: every setting has its default, see --settings");
    }
    dry_run::say_plan(settings, &data)?;
    let of_device = run.network.engine.most_bytes();
    ranks.agree(of_device.and_then(|most| dry_run::check_memory(settings, &data, most)))?;
    run.train(&options.output)
}

/// Takes the output, which is locked from then on, and says whether it has to be made.
fn take(options: &TrainingOptions, out: &Path, run: &Run) -> Result<(Lock, Target)> {
    let lock = Lock::of(out, options.output.update)?;
    folder::refuse_others(out)?;
    artifact::remove_left_over(out);
    artifact::remove_left_over(&out.join(schema::CHECKPOINT));
    let weights = out.join(schema::WEIGHTS);
    // What is replaced in any case need not be readable.
    let found = if options.output.force { None } else { finished(out, run)? };
    let target = artifact::target(&options.output, &weights, &run.lineage, found);
    let target = target.map_err(|e| of_another_schedule(e, out, run))?;
    if matches!(target, Target::UpToDate) {
        run.clear()?;
    }
    Ok((lock, target))
}

/// Tells a user who trains a finished model for longer how to do that.
fn of_another_schedule(e: Error, out: &Path, run: &Run) -> Error {
    let config = folder::describe(out).ok().map(|described| described.config);
    let config = config.and_then(|json| serde_json::from_slice::<Config>(&json).ok());
    let wanted = &run.config.settings.schedule;
    match (e, config) {
        (Error::Exists { path }, Some(found)) if found.settings.schedule != *wanted => {
            Error::Trained { path, model: out.to_path_buf() }
        }
        (e, _) => e,
    }
}

/// What a finished model was made from. Its recipe is the wanted one too if it is so with the defaults of
/// the settings that came after the model was made, and with another `checkpoint_every`.
fn finished(out: &Path, run: &Run) -> Result<Option<HashMap<String, String>>> {
    let Some(described) = Error::unless_unreadable(folder::describe(out))? else {
        return Ok(None);
    };
    let mut header = described.metadata;
    let Ok(mut config) = serde_json::from_slice::<Config>(&described.config) else {
        return Ok(None);
    };
    // It changes no finished model.
    config.settings.checkpoint_every = run.config.settings.checkpoint_every;
    if recipe::hash(&config.settings) == run.lineage.recipe {
        header.insert(schema::RECIPE_KEY.to_string(), run.lineage.recipe.clone());
    }
    if config.classes != run.config.classes {
        header.insert(format!("{}classes", schema::INPUT_PREFIX), String::new());
    }
    Ok(Some(header))
}
