//! Runs a case and judges its result.

use super::calls::Counted;
use super::case::{Case, Error, What};
use super::damage;
use super::trace::{End, Fault, Ran, Watch};
use super::trial::{Output, Trial};
use super::verdict::{Class, Verdict, last_line};
use super::world::{self, Mode, World};
use nix::sys::signal::Signal;
use std::io::Result;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The exit codes for damaged input, and for an output that another run makes.
const REFUSALS: [i32; 6] = [2, 3, 65, 66, 74, 78];
const BUSY: [i32; 3] = [73, 74, 75];

/// Runs a case in a folder of its own. With `keep` the folder stays, and the steps of the verdict name it.
pub fn perform(world: &World, case: &Case, keep: bool) -> Result<Verdict> {
    let mut trial = Trial::new(world, case.stage, case.mode)?;
    let mut verdict = Verdict::default();
    let v = &mut verdict;
    match &case.what {
        &What::Kill { at, other } => kill(&trial, at, other, v)?,
        &What::Fail { counted, at, error, onwards } => {
            fail(&trial, counted, at, error, onwards, v)?
        }
        What::Flip { at, bit, file } => {
            damage::flip(&trial.path(Path::new(file)), *at, *bit)?;
            damaged(&trial, file, v)?;
        }
        What::Cut { at, file } => {
            damage::cut(&trial.path(Path::new(file)), *at)?;
            damaged(&trial, file, v)?;
        }
        What::Signal { at, signals, pause } => signal(world, &trial, *at, signals, *pause, v)?,
        &What::Race { at, output, held } => race(&trial, at, output, held, v)?,
    }
    if keep {
        verdict.steps.push(format!("kept: {}", trial.keep().display()));
    }
    Ok(verdict)
}

fn kill(trial: &Trial, at: usize, other: Option<usize>, verdict: &mut Verdict) -> Result<()> {
    let ran = trial.disturbed(&Fault::Kill { at, after: false })?;
    verdict.fault_at(&ran, at);
    verdict.crashed("killed", &ran);
    let had_checkpoint = begun(trial, &ran, at);
    let standing = trial.standing(verdict)?;
    if let Some(at) = other {
        let fault = Fault::Kill { at, after: false };
        let ran = trial.run(Output::Other, Counted::Changes, &fault, &mut |_, _| ())?;
        verdict.crashed("for another output, killed", &ran);
        return trial.both_again(verdict);
    }
    let again = trial.again(verdict)?;
    if had_checkpoint && standing != Some(Output::Its) {
        went_on(&again, verdict);
    }
    Ok(())
}

/// Whether a training stage had a checkpoint before call `at`.
fn begun(trial: &Trial, ran: &Ran, at: usize) -> bool {
    let at_start = trial.stage.begun.is_some();
    trial.stage.trains && (at_start || world::checkpoints(&ran.calls).iter().any(|&n| n < at))
}

/// A run must continue from a checkpoint, or say that the checkpoint is lost.
fn went_on(again: &Ran, verdict: &mut Verdict) {
    let said = ["going on from step", "up to date", "warning"];
    if again.end == End::Exit(0) && !said.iter().any(|words| again.stderr.contains(words)) {
        verdict.wrong(
            Class::Lost,
            "training began anew without a word, and there had to be a checkpoint",
        );
    }
}

fn fail(
    trial: &Trial,
    counted: Counted,
    at: usize,
    error: Error,
    onwards: bool,
    verdict: &mut Verdict,
) -> Result<()> {
    let fault = match error {
        Error::Short => Fault::Short { at },
        Error::Errno(errno) => Fault::Fail { at, errno: errno as i32, onwards },
    };
    let ran = trial.run(Output::Its, counted, &fault, &mut |_, _| ())?;
    verdict.fault_at(&ran, at);
    if !verdict.crashed("failed", &ran) {
        match counted {
            Counted::Changes => verdict.documented("failed", &ran, &[74]),
            Counted::Opens => verdict.documented("failed", &ran, &REFUSALS),
            // The messages cannot be written.
            Counted::Words if [0, 74].contains(&ran.end.code()) => (),
            Counted::Words => {
                verdict.wrong(Class::Words, format!("exit {}", ran.end.code()));
            }
        }
        if error == Error::Short && ran.end.code() != 0 {
            verdict.wrong(Class::Words, "a short write is an error");
        }
    }
    let standing = match ran.end {
        End::Exit(0) => trial.compare(Output::Its, verdict).map(|()| Some(Output::Its))?,
        _ => trial.standing(verdict)?,
    };
    let again = trial.again(verdict)?;
    let had_checkpoint = counted == Counted::Changes && begun(trial, &ran, at);
    if had_checkpoint && standing != Some(Output::Its) {
        went_on(&again, verdict);
    }
    Ok(())
}

/// Runs a stage on damaged input: it must report the damage, or give the result of undamaged input.
fn damaged(trial: &Trial, file: &str, verdict: &mut Verdict) -> Result<()> {
    // Taken before the run, which removes a checkpoint.
    let whole = match trial.verifies(file)? {
        true => "--verify finds nothing",
        false => "--verify finds it",
    };
    let ran = trial.disturbed(&Fault::None)?;
    if verdict.crashed("over damage", &ran) {
        return Ok(());
    }
    verdict.documented("over damage", &ran, &REFUSALS);
    verdict.refused = ran.end.code() != 0;
    if verdict.refused {
        return Ok(());
    }
    let mut compared = Verdict::default();
    trial.compare(Output::Its, &mut compared)?;
    verdict.equal = compared.equal;
    for (class, what) in compared.found {
        verdict.wrong(class, format!("{what}; {whole}"));
    }
    if file.contains("checkpoint/") {
        went_on(&ran, verdict);
    }
    Ok(())
}

fn signal(
    world: &World,
    trial: &Trial,
    at: usize,
    signals: &[Signal],
    pause: Duration,
    verdict: &mut Verdict,
) -> Result<()> {
    let (counted, at) = match at {
        0 => (Counted::Opens, first_open(world, trial)?),
        at => (Counted::Changes, at),
    };
    let fault = Fault::Signal { at, signals: signals.to_vec(), pause };
    let ran = trial.run(Output::Its, counted, &fault, &mut |_, _| ())?;
    verdict.fault_at(&ran, at);
    let interrupts = signals.iter().filter(|&&signal| signal == Signal::SIGINT).count();
    let mut stopped = false;
    if !verdict.crashed("signalled", &ran) {
        match ran.end {
            End::Killed(signal) => verdict.wrong(Class::Died, format!("ended by {signal}")),
            End::Exit(0) => trial.compare(Output::Its, verdict)?,
            // A second interrupt ends the stage at once.
            End::Exit(130) if interrupts == 2 => (),
            _ => {
                stopped = true;
                verdict.documented("signalled", &ran, &[75]);
            }
        }
    }
    let again = trial.again(verdict)?;
    if stopped && trial.stage.trains {
        went_on(&again, verdict);
    }
    Ok(())
}

/// The number of the first open that is not by the dynamic loader.
fn first_open(world: &World, trial: &Trial) -> Result<usize> {
    let calls = world.calls(trial.stage, Mode::Plain, Counted::Opens)?;
    let at = calls.iter().position(|call| is_users(&call.path));
    Ok(at.map_or(1, |at| at + 1))
}

/// Whether a file is one of those that the user named.
pub fn is_users(path: &Path) -> bool {
    !["/lib", "/lib64", "/usr", "/etc"].iter().any(|root| path.starts_with(root))
}

/// How and when the two runs ended.
type Two = [(Ran, Instant); 2];

fn race(trial: &Trial, at: usize, output: bool, held: bool, verdict: &mut Verdict) -> Result<()> {
    let output = if output { Output::Other } else { Output::Its };
    let [(first, first_end), (second, second_end)] = two(trial, output, at, held)?;
    for (name, ran) in [("the first", &first), ("the second", &second)] {
        if !verdict.crashed(name, ran) {
            verdict.documented(name, ran, &BUSY);
            if ran.stderr.contains("No such file") {
                let said = last_line(&ran.stderr);
                verdict.wrong(Class::Words, format!("{name} was disturbed: {said}"));
            }
        }
    }
    match (first.end.code(), second.end.code()) {
        (0, 0) if second_end > first_end => trial.compare(output, verdict)?,
        (0, _) => trial.compare(Output::Its, verdict)?,
        (_, 0) => trial.compare(output, verdict)?,
        _ => verdict.wrong(Class::Lost, "neither run ended with 0"),
    }
    trial.again(verdict).map(drop)
}

/// Runs a stage, and starts a second one for `output` when the first is at a call.
fn two(trial: &Trial, output: Output, at: usize, held: bool) -> Result<Two> {
    let run = |output, watch: Watch| {
        trial.run(output, Counted::Changes, &Fault::None, watch).map(|ran| (ran, Instant::now()))
    };
    let (start, started) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let second = scope.spawn(move || {
            let _ = started.recv();
            let ran = run(output, &mut |_, _| ());
            let _ = end.send(());
            ran
        });
        let first = run(Output::Its, &mut |number, _| {
            if number == at {
                let _ = start.send(());
                if held {
                    let _ = ended.recv();
                }
            }
        });
        // If the first run has not reached the call.
        let _ = start.send(());
        let second = second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok([first?, second?])
    })
}
