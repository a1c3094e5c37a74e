//! Training: from files and settings to a model folder.

pub mod check;
pub mod checkpoint;
pub mod dry_run;
pub mod loader;
pub mod prepare;
pub mod schedule;
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

/// A dry run of a recipe that says for which data it was written, where there is none: prints its
/// plan and returns true. Such recipes are for colour photographs.
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
        cli::print(&dry_run::describe(s, &data)?)?;
    }
    Ok(without)
}

/// Prepares a training run, then prints its plan or trains it.
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
