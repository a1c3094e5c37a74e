//! Training: from files and settings to a model folder. What only a training stage does lives here.
//!
//! In the order of a run: `check` refuses settings that cannot be meant; `prepare` reads and checks
//! every input, the labels by `labels`; `dry_run` says what the settings come to; `trainer` is the
//! loop, over the batches of `loader`, with the updates of `optimizer`; `log` and `checkpoint` write
//! while it runs, `tfevents` at its end.

pub mod check;
pub mod checkpoint;
pub mod dry_run;
pub mod labels;
pub mod loader;
pub mod log;
pub mod optimizer;
pub mod prepare;
pub mod tfevents;
pub mod trainer;

use crate::artifact::{self, Target};
use crate::cli::{self, Common};
use crate::error::Result;
use crate::model::folder;
use crate::schema;
use crate::settings::Settings;
use dry_run::Data;
use prepare::Inputs;
use std::path::Path;

/// A dry run of a recipe that says for which data it was written, when there is none: prints what it
/// comes to and returns true. Such recipes are for colour photographs.
pub fn dry_run_without_data(common: &Common, s: &Settings, shards: &Path) -> Result<bool> {
    let without = common.dry_run && s.classes > 0 && s.labelled_images > 0 && !shards.exists();
    if without {
        let data = Data {
            channels: 3,
            classes: s.classes,
            labelled: s.labelled_images,
            unlabelled: s.unlabelled_images,
        };
        check::settings(common, s)?;
        check::views(common, s, data.channels)?;
        cli::print(&dry_run::describe(s, &data)?)?;
    }
    Ok(without)
}

/// Prepares a training run, then says what it comes to or trains it.
pub fn train(common: &Common, settings: Settings, inputs: Inputs) -> Result<()> {
    let run = prepare::run(common, settings, &inputs)?;
    if common.dry_run {
        return cli::print(&dry_run::describe(&run.config.settings, &run.data())?);
    }
    let weights = inputs.out.join(schema::WEIGHTS);
    let found = folder::header(&inputs.out);
    match artifact::target(common, &weights, &run.lineage, found)? {
        Target::UpToDate => Ok(()),
        Target::Write => run.train(common),
    }
}
