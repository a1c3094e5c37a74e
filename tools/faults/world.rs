//! The files of the smoke pipeline as an undisturbed run makes them, and folders in which one of its stages
//! is run again.

use super::calls::{Call, Counted};
use super::smoke::{STAGES, Stage, words};
use super::trace::{self, End, Fault, Ran};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// Ten times longer than any stage needs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The output that exists before a stage runs, and the option for replacing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// No output.
    Plain,
    /// Another output, which `--force` replaces.
    Force,
    /// No output; with `--update`, as make runs it.
    Make,
}

impl Mode {
    /// Options added to a command line.
    pub fn option(self) -> Option<String> {
        match self {
            Mode::Plain => None,
            Mode::Force => Some("--force".to_string()),
            Mode::Make => Some("--update".to_string()),
        }
    }
}

/// The hash of each file below a folder, `None` for a folder.
pub type Tree = BTreeMap<PathBuf, Option<blake3::Hash>>;

/// The calls of one undisturbed stage.
type Known = HashMap<(&'static str, Mode, Counted), Arc<Vec<Call>>>;

pub struct World {
    folder: TempDir,
    pub bin: PathBuf,
    calls: Mutex<Known>,
}

impl World {
    /// Runs the pipeline with the programs in `bin`, and each of `stages` again for another output.
    pub fn new(bin: &Path, stages: &[&'static Stage]) -> Result<World> {
        let folder = tempfile::Builder::new().prefix("s4l-faults-").tempdir()?;
        let world = World { folder, bin: fs::canonicalize(bin)?, calls: Mutex::default() };
        for name in ["world", "old", "cases"] {
            fs::create_dir(world.folder.path().join(name))?;
        }
        for stage in &STAGES {
            for (program, line) in stage.before {
                world.undisturbed(program, &words(line), &world.files())?;
            }
            match stage.begun {
                Some((kept, out)) => world.begin(stage, kept, out)?,
                None => {
                    let kept = world.empty_scratch()?;
                    world.copy_inputs(stage, kept.path())?;
                    world.undisturbed(stage.program, &stage.words(), &world.files())?;
                    // A merge removes its parts.
                    copy(kept.path(), &world.files())?;
                }
            }
        }
        for stage in stages {
            world.make_old(stage)?;
        }
        Ok(world)
    }

    /// Keeps the files after the end.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("world")
    }

    fn old(&self, stage: &Stage) -> PathBuf {
        self.folder.path().join("old").join(stage.name)
    }

    pub fn command(&self, program: &str, words: &[String], folder: &Path) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.args(words).current_dir(folder).env_remove("S4L_MODEL");
        // Set by cargo for tests: the dynamic loader would search for libraries there before the stage
        // begins.
        command.env_remove("LD_LIBRARY_PATH");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn undisturbed(&self, program: &str, words: &[String], folder: &Path) -> Result<()> {
        let ran = self.command(program, words, folder).output()?;
        if ran.status.success() {
            return Ok(());
        }
        let words = words.join(" ");
        let stderr = String::from_utf8_lossy(&ran.stderr);
        Err(Error::other(format!("{program} {words}: {}, undisturbed: {stderr}", ran.status)))
    }

    /// Keeps the output of a training stage that was stopped at its second checkpoint.
    fn begin(&self, stage: &'static Stage, kept: &str, out: &str) -> Result<()> {
        let scratch = self.empty_scratch()?;
        self.copy_inputs(stage, scratch.path())?;
        let run = |fault: &Fault| {
            let command = self.command(stage.program, &stage.words(), scratch.path());
            trace::run(command, Counted::Changes, fault, LIMIT, &mut |_, _| ())
        };
        let calls = run(&Fault::None)?.calls;
        fs::remove_dir_all(scratch.path().join(out))?;
        let Some(&at) = checkpoints(&calls).get(1) else {
            return Err(Error::other(format!("{}: no two checkpoints", stage.name)));
        };
        let signals = vec![Signal::SIGTERM];
        let ran = run(&Fault::Signal { at, signals, pause: Duration::ZERO })?;
        if ran.end != End::Exit(75) {
            return Err(Error::other(format!("{}: not stopped: {}", stage.name, ran.stderr)));
        }
        fs::rename(scratch.path().join(out), self.files().join(kept))
    }

    /// Keeps another output of a stage.
    fn make_old(&self, stage: &'static Stage) -> Result<()> {
        let scratch = self.empty_scratch()?;
        self.copy_inputs(stage, scratch.path())?;
        self.undisturbed(stage.program, &stage.other_words(), scratch.path())?;
        for out in stage.outputs {
            copy(&scratch.path().join(out), &self.old(stage).join(out))?;
        }
        Ok(())
    }

    fn empty_scratch(&self) -> Result<TempDir> {
        tempfile::Builder::new().prefix("").tempdir_in(self.folder.path().join("cases"))
    }

    fn copy_inputs(&self, stage: &Stage, to: &Path) -> Result<()> {
        let inputs = stage.inputs.iter();
        inputs.into_iter().try_for_each(|name| copy(&self.files().join(name), &to.join(name)))
    }

    /// A folder with everything that a stage needs.
    pub fn scratch(&self, stage: &Stage, mode: Mode) -> Result<TempDir> {
        let scratch = self.empty_scratch()?;
        self.copy_inputs(stage, scratch.path())?;
        if mode == Mode::Force {
            copy(&self.old(stage), scratch.path())?;
        }
        if let Some((kept, out)) = stage.begun {
            copy(&self.files().join(kept), &scratch.path().join(out))?;
        }
        Ok(scratch)
    }

    /// The calls of an undisturbed stage.
    pub fn calls(
        &self,
        stage: &'static Stage,
        mode: Mode,
        counted: Counted,
    ) -> Result<Arc<Vec<Call>>> {
        let key = (stage.name, mode, counted);
        let known = || self.calls.lock().map_err(|e| Error::other(e.to_string()));
        if let Some(calls) = known()?.get(&key) {
            return Ok(calls.clone());
        }
        let scratch = self.scratch(stage, mode)?;
        let mut words = stage.words();
        words.extend(mode.option());
        let command = self.command(stage.program, &words, scratch.path());
        let Ran { end, mut calls, stderr, .. } =
            trace::run(command, counted, &Fault::None, LIMIT, &mut |_, _| ())?;
        if end != End::Exit(0) {
            return Err(Error::other(format!("{}: {end:?}, undisturbed: {stderr}", stage.name)));
        }
        let root = fs::canonicalize(scratch.path())?;
        for call in &mut calls {
            let path = call.path.strip_prefix(&root).unwrap_or(&call.path);
            call.path = path.components().collect();
        }
        let calls = Arc::new(calls);
        known()?.insert(key, calls.clone());
        Ok(calls)
    }

    /// The files in its own folder that a stage reads, with their sizes.
    pub fn read_by(&self, stage: &'static Stage) -> Result<Vec<(String, u64)>> {
        let scratch = self.scratch(stage, Mode::Plain)?;
        let calls = self.calls(stage, Mode::Plain, Counted::Opens)?;
        let opened = calls.iter().filter(|call| call.path.is_relative());
        let opened: BTreeSet<_> = opened.map(|call| &call.path).collect();
        let files = opened.into_iter().filter_map(|path| {
            let file = fs::metadata(scratch.path().join(path)).ok()?;
            (file.is_file() && file.len() > 0).then(|| (path.display().to_string(), file.len()))
        });
        Ok(files.collect())
    }

    /// The correct output of a stage.
    pub fn expected(&self, stage: &Stage) -> Result<Tree> {
        outputs(&self.files(), stage)
    }

    /// The output that `--force` replaces.
    pub fn old_output(&self, stage: &Stage) -> Result<Tree> {
        outputs(&self.old(stage), stage)
    }

    /// The inputs of a stage.
    pub fn inputs(&self, stage: &Stage) -> Result<Tree> {
        let mut tree = Tree::new();
        for name in stage.inputs {
            add(&self.files(), name, &mut tree)?;
        }
        Ok(tree)
    }
}

/// The call at which a checkpoint was complete.
pub fn checkpoints(calls: &[Call]) -> Vec<usize> {
    let numbered = (1..).zip(calls);
    let renames = numbered.filter(|(_, call)| {
        let folder = call.path.parent().and_then(Path::file_name);
        call.name.starts_with("rename") && folder.is_some_and(|name| name == "checkpoint")
    });
    renames.map(|(number, _)| number).collect()
}

/// The outputs of a stage that exist in a folder.
pub fn outputs(folder: &Path, stage: &Stage) -> Result<Tree> {
    let mut tree = Tree::new();
    for name in stage.outputs {
        add(folder, name, &mut tree)?;
    }
    Ok(tree)
}

/// All files in a folder.
pub fn everything(folder: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        add(folder, &name.to_string_lossy(), &mut tree)?;
    }
    Ok(tree)
}

/// Adds a file, or all files of a folder. Provenance files have time and host and are left out, as is what a
/// report takes from them, and the survey that parts share until they are merged.
fn add(root: &Path, name: &str, tree: &mut Tree) -> Result<()> {
    if [".prov.json", ".survey", "/cost.csv", "/cost.html"].iter().any(|end| name.ends_with(end)) {
        return Ok(());
    }
    let path = root.join(name);
    if !path.is_dir() {
        if let Ok(bytes) = fs::read(path) {
            tree.insert(name.into(), Some(blake3::hash(&bytes)));
        }
        return Ok(());
    }
    tree.insert(name.into(), None);
    for entry in fs::read_dir(path)? {
        let entry = entry?.file_name();
        add(root, &format!("{name}/{}", entry.to_string_lossy()), tree)?;
    }
    Ok(())
}

/// Copies a file, or a folder into one of that name, keeping existing files: a run that is to replace a
/// model writes nothing under the names of its files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    match to.exists() {
        true => Ok(()),
        false => fs::copy(from, to).map(drop),
    }
}
