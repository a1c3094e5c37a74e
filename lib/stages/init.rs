//! `s4l-init`: from a folder of photographs to a pipeline that make runs.

use crate::artifact;
use crate::cli::{self, Limits, Messages, Stage};
use crate::error::{Error, Result};
use crate::plan::choice::{self, MARK, Plan};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
EXAMPLES
  s4l-init photos pets                             then: make moam_step3 PIPELINE=./pets
  s4l-init photos.tar pets --minutes 10
  s4l-init photos pets --dry-run                   what it would write
Put labelled images in one folder per class, all other images in unlabeled/, and test images in test/<class>/.
Anything else that s4l-shard reads works too. s4l-init writes recipes and a pipeline.mk, with the reason for each
choice: the image size, network, batch and steps that fit the images, the memory and the time. A short run of the
engine measures the speed, so another machine, or a busier one, gets another plan. Images from which nothing can
be learnt are refused (65).
Memory: as much as training takes; the plan says how much.";

/// Plan the training of a classifier for a folder of images
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-init", version, before_help = EXAMPLES)]
pub struct Args {
    /// Images in any form that s4l-shard reads
    photos: PathBuf,
    /// Folder to write the pipeline to
    dir: PathBuf,
    /// Minutes that all stages of make moam_step3 may take together
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    minutes: f64,
    /// Replace an existing output
    #[arg(short, long)]
    force: bool,
    /// Print the plan and stop
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    messages: Messages,
}

/// What the Makefile includes; written last.
const PIPELINE: &str = "pipeline.mk";

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn run(self) -> Result<()> {
        if !(self.minutes > 0.0 && self.minutes.is_finite()) {
            return Err(Error::Usage(format!("--minutes {}: give a number above 0", self.minutes)));
        }
        self.refuse_folder()?;
        let Plan { recipes, pipeline, summary } =
            choice::plan(&self.photos, self.minutes, self.limits.threads())?;
        if self.dry_run {
            return cli::print(&pipeline);
        }
        for recipe in &recipes {
            let path = self.dir.join(format!("{}.toml", recipe.row));
            artifact::write_bytes(&path, recipe.text.as_bytes())?;
        }
        artifact::write_bytes(&self.dir.join(PIPELINE), pipeline.as_bytes())?;
        let dir = self.dir.display();
        cli::info(&format!("{dir}: {summary}"));
        let slash = if self.dir.components().count() > 1 { "" } else { "./" };
        cli::info(&format!("next: make moam_step3 PIPELINE={slash}{dir}"));
        Ok(())
    }
}

impl Args {
    /// Errors unless this program may write to the folder.
    fn refuse_folder(&self) -> Result<()> {
        let dir = &self.dir;
        let not_ours = |what: &str| Error::NotOurs { path: dir.clone(), what: what.into() };
        artifact::refuse_inputs(dir, [Some(self.photos.as_path())])?;
        if artifact::exists(dir)? && !artifact::is_folder(dir)? {
            return Err(not_ours("a folder"));
        }
        if is_empty(dir)? {
            return Ok(());
        }
        let found = std::fs::read_to_string(dir.join(PIPELINE)).unwrap_or_default();
        match (found.starts_with(MARK), self.force) {
            (false, _) => Err(not_ours("a pipeline that s4l-init has written")),
            (true, false) => Err(Error::Exists { path: dir.clone() }),
            (true, true) => Ok(()),
        }
    }
}

fn is_empty(dir: &Path) -> Result<bool> {
    match artifact::is_folder(dir)? {
        true => Ok(std::fs::read_dir(dir).map_err(Error::io(dir))?.next().is_none()),
        false => Ok(true),
    }
}
