//! A stage in a folder of its own: run with a fault, run again, compared.

use super::calls::Counted;
use super::smoke::Stage;
use super::trace::{self, Fault, Ran, Watch};
use super::verdict::{Class, Verdict, last_line};
use super::world::{self, LIMIT, Mode, Tree, World};
use std::io::Result;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Trial<'w> {
    world: &'w World,
    pub stage: &'static Stage,
    mode: Mode,
    folder: TempDir,
}

/// The output that a stage has to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Its,
    Other,
}

impl<'w> Trial<'w> {
    pub fn new(world: &'w World, stage: &'static Stage, mode: Mode) -> Result<Trial<'w>> {
        Ok(Trial { world, stage, mode, folder: world.scratch(stage, mode)? })
    }

    pub fn path(&self, name: &Path) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Keeps the folder after the end.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    pub fn run(
        &self,
        output: Output,
        counted: Counted,
        fault: &Fault,
        watch: Watch,
    ) -> Result<Ran> {
        let mut words = match output {
            Output::Its => self.stage.words(),
            Output::Other => self.stage.other_words(),
        };
        words.extend(self.mode.option());
        let command = self.world.command(self.stage.program, &words, self.folder.path());
        trace::run(command, counted, fault, LIMIT, watch)
    }

    /// Runs the stage with a fault at a call that changes files.
    pub fn disturbed(&self, fault: &Fault) -> Result<Ran> {
        self.run(Output::Its, Counted::Changes, fault, &mut |_, _| ())
    }

    /// Runs the same command undisturbed; the result must be as without the fault.
    pub fn again(&self, verdict: &mut Verdict) -> Result<Ran> {
        let ran = self.undisturbed(Output::Its, verdict)?;
        self.others_as_before(Output::Its, verdict)?;
        Ok(ran)
    }

    /// Runs the same command undisturbed, then that of the other output, whose unfinished work the first
    /// command must leave alone; the result must be as without the fault.
    pub fn both_again(&self, verdict: &mut Verdict) -> Result<()> {
        self.undisturbed(Output::Its, verdict)?;
        let equal = verdict.equal;
        self.undisturbed(Output::Other, verdict)?;
        verdict.equal &= equal;
        self.others_as_before(Output::Other, verdict)
    }

    fn undisturbed(&self, output: Output, verdict: &mut Verdict) -> Result<Ran> {
        let ran = self.run(output, Counted::Changes, &Fault::None, &mut |_, _| ())?;
        if verdict.crashed("the same command again", &ran) {
            return Ok(ran);
        }
        if ran.end.code() != 0 {
            let said = last_line(&ran.stderr);
            let words = format!("the same command again: exit {}: {said}", ran.end.code());
            verdict.wrong(Class::Lost, words);
            return Ok(ran);
        }
        self.compare(output, verdict)?;
        Ok(ran)
    }

    /// The inputs must be unchanged, except for the parts that a merge removes, and the only other file may
    /// be an output.
    fn others_as_before(&self, output: Output, verdict: &mut Verdict) -> Result<()> {
        let outputs = self.expected(output)?;
        let mut inputs = self.world.inputs(self.stage)?;
        if self.stage.is_merge() {
            inputs.retain(|path, _| !path.to_string_lossy().contains(".part-"));
        }
        let there = world::everything(self.folder.path())?;
        let changed = inputs.iter().filter(|(path, hash)| there.get(*path) != Some(hash));
        let changed: Vec<_> = changed.map(|(path, _)| path).collect();
        if !changed.is_empty() {
            verdict.wrong(Class::Lost, format!("inputs changed: {}", names(&changed)));
        }
        let known = |path: &Path| outputs.contains_key(path) || inputs.contains_key(path);
        let left: Vec<_> = there.keys().filter(|path| !known(path)).collect();
        if !left.is_empty() {
            verdict.wrong(Class::Leftover, format!("left over: {}", names(&left)));
        }
        Ok(())
    }

    fn expected(&self, output: Output) -> Result<Tree> {
        match output {
            Output::Its => self.world.expected(self.stage),
            Output::Other => self.world.old_output(self.stage),
        }
    }

    /// Compares the outputs with those of an undisturbed run.
    pub fn compare(&self, output: Output, verdict: &mut Verdict) -> Result<()> {
        let expected = self.expected(output)?;
        let there = world::everything(self.folder.path())?;
        let missing = expected.keys().filter(|path| !there.contains_key(*path));
        let missing: Vec<_> = missing.collect();
        let other = expected
            .iter()
            .filter(|(path, hash)| there.get(*path).is_some_and(|found| found != *hash));
        let other: Vec<_> = other.map(|(path, _)| path).collect();
        if !missing.is_empty() {
            verdict.wrong(Class::Lost, format!("exit 0, and not there: {}", names(&missing)));
        }
        if !other.is_empty() {
            verdict.wrong(Class::Silent, format!("exit 0, other bytes: {}", names(&other)));
        }
        verdict.equal = missing.is_empty() && other.is_empty();
        Ok(())
    }

    /// The output that exists undamaged, if any. A folder with neither output must not pass as undamaged.
    pub fn standing(&self, verdict: &mut Verdict) -> Result<Option<Output>> {
        let there = world::outputs(self.folder.path(), self.stage)?;
        let holds = |tree: &Tree| {
            !tree.is_empty() && tree.iter().all(|(path, hash)| there.get(path) == Some(hash))
        };
        if holds(&self.world.expected(self.stage)?) {
            return Ok(Some(Output::Its));
        }
        if self.mode == Mode::Force && holds(&self.world.old_output(self.stage)?) {
            return Ok(Some(Output::Other));
        }
        for out in self.stage.outputs {
            let folder = self.path(Path::new(out));
            if folder.is_dir() && self.verifies(out)? {
                let what = format!("{out} is neither the old nor the new, and --verify exits 0");
                verdict.wrong(Class::Silent, what);
            }
        }
        Ok(None)
    }

    /// Whether a file passes as undamaged, with the shards or the model to which it belongs.
    pub fn verifies(&self, file: &str) -> Result<bool> {
        let folder = Path::new(file).parent().filter(|folder| {
            let marked = ["dataset.json", "config.json"].map(|name| self.path(&folder.join(name)));
            marked.iter().any(|mark| mark.exists())
        });
        let path = folder.map_or(file.to_string(), |folder| folder.display().to_string());
        let words = ["--verify".to_string(), path];
        let mut command = self.world.command("s4l-inspect", &words, self.folder.path());
        Ok(command.output()?.status.success())
    }
}

fn names(paths: &[impl AsRef<Path>]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.as_ref().display().to_string()).collect();
    names.join(", ")
}
