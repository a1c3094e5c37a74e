//! Training: from files and settings to a model folder. What only a training stage does lives here.
//!
//! In the order of a run: `options` are those of the command line; `check` refuses settings that
//! cannot be meant; `prepare` reads and checks every input, the labels by `labels`; `dry_run` says
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

use crate::artifact::{self, Target};
use crate::cli;
use crate::error::Result;
use crate::lock::Lock;
use crate::memory;
use crate::model::folder;
use crate::network::device::Device;
use crate::schema;
use crate::settings::Settings;
use dry_run::Data;
use options::TrainingOptions;
use prepare::Inputs;

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
    let _lock = Lock::of(out)?;
    artifact::remove_left_over(out);
    artifact::remove_left_over(&out.join(schema::CHECKPOINT));
    let weights = out.join(schema::WEIGHTS);
    let found = folder::header(out);
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
