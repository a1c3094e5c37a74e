//! Training: from files and settings to a model folder. What only a training stage does lives here.
//!
//! In the order of a run: `options` are those of the command line; `check` refuses settings that
//! cannot be meant; `prepare` reads and checks every input, the labels by `labels`, and `warm_start` takes
//! the weights of `--init`; `dry_run` says
//! what the settings come to; `trainer` is the loop, over the batches of `loader`, at the rates of
//! `schedule`; `log` and `checkpoint` write while it runs, the latter under the run's `identity`,
//! `tfevents` at its end.

pub mod check;
pub mod checkpoint;
pub mod dry_run;
pub mod identity;
pub mod labels;
pub mod loader;
pub mod log;
pub mod options;
pub mod prepare;
pub mod schedule;
pub mod tfevents;
pub mod trainer;
mod warm_start;

use crate::artifact::{self, Target};
use crate::cli;
use crate::error::Result;
use crate::lock::Lock;
use crate::memory;
use crate::model::config::Config;
use crate::model::folder;
use crate::network::device::Device;
use crate::recipe;
use crate::schema;
use crate::settings::Settings;
use dry_run::Data;
use options::TrainingOptions;
use prepare::Inputs;
use std::collections::HashMap;
use std::path::Path;
use trainer::Run;

/// A dry run of a recipe that says for which data it was written, when there is none: prints what it
/// comes to and returns true. Such recipes are for colour photographs.
pub fn dry_run_without_data(options: &TrainingOptions, s: &Settings) -> Result<bool> {
    let described = s.classes > 0 && s.labelled_images > 0;
    let without = options.output.dry_run && described && !options.shards.path.exists();
    if without {
        let data = Data {
            channels: 3,
            classes: s.classes,
            labelled: s.labelled_images,
            unlabelled: s.unlabelled_images,
        };
        check::settings(&options.recipe, s)?;
        check::views(&options.recipe, s, data.channels)?;
        cli::print(&dry_run::describe(s, &data)?)?;
    }
    Ok(without)
}

/// Prepares a training run, then says what it comes to or trains it.
pub fn train(options: &TrainingOptions, settings: Settings, inputs: Inputs) -> Result<()> {
    memory::preparing(true);
    let run = prepare::run(options, settings, &inputs)?;
    if options.output.dry_run {
        return cli::print(&dry_run::describe(&run.config.settings, &run.data())?);
    }
    let out = &inputs.out;
    let _lock = Lock::of(out, options.output.update)?;
    artifact::remove_left_over(out);
    artifact::remove_left_over(&out.join(schema::CHECKPOINT));
    let weights = out.join(schema::WEIGHTS);
    let found = finished(out, &run);
    match artifact::target(&options.output, &weights, &run.lineage, found)? {
        Target::UpToDate => run.clear(),
        Target::Write => {
            if options.computing.device.parse::<Device>()? == Device::Cpu {
                let bytes = dry_run::memory(&run.config.settings, &run.data())?;
                memory::check("training", bytes as u64)?;
            }
            run.train(&options.output)
        }
    }
}

/// What a finished model was made from. Its recipe is the wanted one too if it is so with the defaults of
/// the settings that came after the model was made.
fn finished(out: &Path, run: &Run) -> Option<HashMap<String, String>> {
    let described = folder::describe(out).ok()?;
    let mut header = described.metadata;
    let config: Config = serde_json::from_slice(&described.config).ok()?;
    if recipe::hash(&config.settings) == run.lineage.recipe {
        header.insert(schema::RECIPE_KEY.to_string(), run.lineage.recipe.clone());
    }
    if config.classes != run.config.classes {
        header.insert(format!("{}classes", schema::INPUT_PREFIX), String::new());
    }
    Some(header)
}
