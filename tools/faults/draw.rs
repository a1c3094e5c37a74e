//! The cases of a campaign: all crash points in an order drawn by a seed, or a sample of faults without a
//! finite list.

use super::calls::{Call, Counted};
use super::case::{Case, Error, Kind, What};
use super::perform::is_users;
use super::smoke::Stage;
use super::world::{Mode, World};
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::Result;
use std::time::Duration;

const FULL: [nix::Error; 4] =
    [nix::Error::ENOSPC, nix::Error::EIO, nix::Error::EDQUOT, nix::Error::EACCES];
const SIGNALS: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
const PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(20)];

/// At most `runs` cases of a kind.
pub fn cases(
    world: &World,
    kind: Kind,
    stages: &[&'static Stage],
    runs: usize,
    seed: u64,
) -> Result<Vec<Case>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cases = Vec::new();
    let reading = stages.iter().filter(|stage| !stage.inputs.is_empty()).count().max(1);
    for &stage in stages {
        let mut add = |mode, what| cases.push(Case { stage, mode, what });
        match kind {
            Kind::Kill => kills(world, stage, &mut rng, &mut add)?,
            Kind::Fail => fails(world, stage, &mut rng, &mut add)?,
            Kind::Flip => flips(world, stage, runs.div_ceil(reading), &mut rng, &mut add)?,
            Kind::Signal => signals(world, stage, &mut rng, &mut add)?,
            Kind::Race => races(world, stage, &mut rng, &mut add)?,
        }
    }
    for i in (1..cases.len()).rev() {
        cases.swap(i, rng.random_range(0..=i));
    }
    cases.truncate(runs);
    Ok(cases)
}

/// The calls to use: all, except that of several equal calls in a row, such as the writes of one file, only
/// the first, the last and one between are used.
fn points(calls: &[Call], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut points = Vec::new();
    let mut first = 1;
    for row in calls.chunk_by(|a, b| a == b) {
        let last = first + row.len() - 1;
        points.push(first);
        if last > first + 1 {
            points.push(rng.random_range(first + 1..last));
        }
        points.extend((last > first).then_some(last));
        first = last + 1;
    }
    points
}

type Add<'a> = &'a mut dyn FnMut(Mode, What);

/// Each crash point without and with `--force`; and a quarter as many runs A, B, A, except of merges.
fn kills(world: &World, stage: &'static Stage, rng: &mut ChaCha8Rng, add: Add) -> Result<()> {
    let mut points =
        |mode| world.calls(stage, mode, Counted::Changes).map(|calls| points(&calls, rng));
    let (plain, force, make) = (points(Mode::Plain)?, points(Mode::Force)?, points(Mode::Make)?);
    for (mode, points) in [(Mode::Plain, &plain), (Mode::Force, &force)] {
        points.iter().for_each(|&at| add(mode, What::Kill { at, other: None }));
    }
    // A merge removes its parts: after another output took its place, it cannot be made again.
    let others = if stage.is_merge() { 0 } else { make.len().div_ceil(4) };
    for _ in 0..others {
        let at = make[rng.random_range(0..make.len())];
        let other = Some(force[rng.random_range(0..force.len())]);
        add(Mode::Make, What::Kill { at, other });
    }
    Ok(())
}

/// Each call that changes a file with each error, once and from there on; each write cut short; messages
/// that cannot be written; inputs that cannot be opened.
fn fails(world: &World, stage: &'static Stage, rng: &mut ChaCha8Rng, add: Add) -> Result<()> {
    let mut fail = |mode, counted, at, error, onwards| {
        add(mode, What::Fail { counted, at, error, onwards });
    };
    for mode in [Mode::Plain, Mode::Force] {
        let calls = world.calls(stage, mode, Counted::Changes)?;
        for at in points(&calls, rng) {
            let name = calls[at - 1].name;
            for errno in FULL {
                for onwards in [false, true] {
                    fail(mode, Counted::Changes, at, Error::Errno(errno), onwards);
                }
            }
            if name.contains("write") || name == "copy_file_range" {
                fail(mode, Counted::Changes, at, Error::Short, false);
            }
        }
    }
    let words = world.calls(stage, Mode::Plain, Counted::Words)?.len();
    for at in 1..=words {
        for errno in [nix::Error::EPIPE, nix::Error::EIO, nix::Error::ENOSPC] {
            fail(Mode::Plain, Counted::Words, at, Error::Errno(errno), true);
        }
    }
    let opens = world.calls(stage, Mode::Plain, Counted::Opens)?;
    for (at, call) in (1..).zip(opens.iter()) {
        if call.name.starts_with("open") && is_users(&call.path) {
            for errno in [nix::Error::EIO, nix::Error::EACCES] {
                fail(Mode::Plain, Counted::Opens, at, Error::Errno(errno), false);
            }
        }
    }
    Ok(())
}

/// Bits of the files that a stage reads, four per cut file.
fn flips(
    world: &World,
    stage: &'static Stage,
    runs: usize,
    rng: &mut ChaCha8Rng,
    add: Add,
) -> Result<()> {
    let files = world.read_by(stage)?;
    for i in 0..if files.is_empty() { 0 } else { runs } {
        let (file, bytes) = &files[rng.random_range(0..files.len())];
        let file = file.clone();
        let at = rng.random_range(0..*bytes);
        let bit = rng.random_range(0..8);
        // A checkpoint is read with --update too.
        let update = stage.begun.is_some() && rng.random_range(0..2) == 0;
        let mode = if update { Mode::Make } else { Mode::Plain };
        add(mode, if i % 5 == 4 { What::Cut { at, file } } else { What::Flip { at, bit, file } });
    }
    Ok(())
}

/// Every signal and every pair of signals, early and in the middle.
fn signals(world: &World, stage: &'static Stage, rng: &mut ChaCha8Rng, add: Add) -> Result<()> {
    let calls = world.calls(stage, Mode::Plain, Counted::Changes)?;
    let points = points(&calls, rng);
    let pairs = SIGNALS.iter().flat_map(|&a| SIGNALS.iter().map(move |&b| vec![a, b]));
    for signals in SIGNALS.iter().map(|&signal| vec![signal]).chain(pairs) {
        for at in [0, points[rng.random_range(0..points.len())]] {
            for pause in &PAUSES[..signals.len()] {
                let (signals, pause) = (signals.clone(), *pause);
                add(Mode::Plain, What::Signal { at, signals, pause });
            }
        }
    }
    Ok(())
}

/// A second run at each call of the first: with the same command, also while the first is held there; or
/// for another output with `--update`, which waits for the first.
fn races(world: &World, stage: &'static Stage, rng: &mut ChaCha8Rng, add: Add) -> Result<()> {
    for (mode, output, held) in
        [(Mode::Plain, false, false), (Mode::Plain, false, true), (Mode::Make, true, false)]
    {
        let calls = world.calls(stage, mode, Counted::Changes)?;
        points(&calls, rng).into_iter().for_each(|at| add(mode, What::Race { at, output, held }));
    }
    Ok(())
}
