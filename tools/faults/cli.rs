//! The command line.

use super::calls::{Call, Counted};
use super::campaign;
use super::case::{self, Case, Kind};
use super::damage;
use super::draw;
use super::perform::perform;
use super::smoke::{STAGES, Stage};
use super::trace::{self, End, Fault, Ran};
use super::world::World;
use clap::Parser;
use nix::sys::signal::Signal;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const EXAMPLES: &str = "\
EXAMPLES
  faults count --list -- s4l-eval --in shards --model model
  faults kill --at 17 -- s4l-pretrain --in shards --labelled labelled.parquet --recipe R.toml --out model
  faults fail --at 5 --errno ENOSPC --onwards -- s4l-shard --in photos --out shards
  faults signal --at 9 --signal TERM --signal INT -- s4l-pretrain ...
  faults flip --at 4000 --bit 3 model/model.safetensors
  faults campaign kill --bin target/release --runs 1000
  faults case kill/shard/force/61 --bin target/release
Calls that change a file are numbered from 1, over all threads and children of the command. Exit code:
that of the command, 128 and the number of the signal that ended it, or 125 when this program fails;
of campaigns and cases 0, or 3 when something is wrong. Words of this program are on stderr, with
\"faults: \" before them.";

/// Let something go wrong at a moment of your choice
#[derive(Debug, Parser)]
#[command(name = "faults", before_help = EXAMPLES)]
enum Args {
    /// Count the calls of a command
    Count {
        /// Print each call
        #[arg(long)]
        list: bool,
        #[command(flatten)]
        run: Run,
    },
    /// Kill the process group at a call
    Kill {
        #[arg(long, value_name = "N")]
        at: usize,
        /// Kill after the call returns, instead of before it
        #[arg(long)]
        after: bool,
        #[command(flatten)]
        run: Run,
    },
    /// Let a call fail
    Fail {
        #[arg(long, value_name = "N")]
        at: usize,
        /// ENOSPC, EIO, EDQUOT, EACCES ...
        #[arg(long, value_name = "NAME", value_parser = errno)]
        errno: nix::Error,
        /// All later calls fail too
        #[arg(long)]
        onwards: bool,
        #[command(flatten)]
        run: Run,
    },
    /// Let a call write half of what it should
    Short {
        #[arg(long, value_name = "N")]
        at: usize,
        #[command(flatten)]
        run: Run,
    },
    /// Send signals before a call
    Signal {
        #[arg(long, value_name = "N")]
        at: usize,
        /// TERM, INT, HUP, USR1, USR2 ...; repeatable
        #[arg(long, required = true, value_name = "NAME", value_parser = signal)]
        signal: Vec<Signal>,
        /// Milliseconds between the signals
        #[arg(long, value_name = "MS", default_value_t = 0)]
        pause: u64,
        #[command(flatten)]
        run: Run,
    },
    /// Change a bit of a file
    Flip {
        #[arg(long, value_name = "BYTE")]
        at: u64,
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..8))]
        bit: u8,
        file: PathBuf,
    },
    /// Leave the first bytes of a file
    Cut {
        #[arg(long, value_name = "BYTE")]
        at: u64,
        file: PathBuf,
    },
    /// Do one kind of fault to the stages of the smoke pipeline, many times
    Campaign(Campaign),
    /// Repeat one fault of a campaign, print the commands, and keep the folder
    Case {
        case: Case,
        /// Folder of the programs
        #[arg(long, value_name = "DIR")]
        bin: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Campaign {
    kind: Kind,
    /// Folder of the programs
    #[arg(long, value_name = "DIR")]
    bin: PathBuf,
    /// Most cases; if there are fewer crash points, each is used once
    #[arg(long, value_name = "N")]
    runs: usize,
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Cases at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Stages [default: all]
    #[arg(value_parser = stage)]
    stages: Vec<&'static Stage>,
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Calls to count
    #[arg(long, value_enum, default_value_t = Counted::Changes)]
    calls: Counted,
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

fn errno(name: &str) -> std::result::Result<nix::Error, String> {
    case::errno(name).ok_or_else(|| "no such error".to_string())
}

fn signal(name: &str) -> std::result::Result<Signal, String> {
    let name = name.trim_start_matches("SIG");
    format!("SIG{name}").parse().map_err(|_| "no such signal".to_string())
}

fn stage(name: &str) -> std::result::Result<&'static Stage, String> {
    let names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
    Stage::named(name).ok_or_else(|| format!("one of {}", names.join(", ")))
}

pub fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("faults: {e}");
            ExitCode::from(125)
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    match args {
        Args::Count { list, run } => {
            let ran = inject(&run, &Fault::None)?;
            for (number, call) in (1..).zip(&ran.calls) {
                if list {
                    eprintln!("faults: {}", line(number, call));
                }
            }
            eprintln!("faults: {} calls", ran.calls.len());
            Ok(code(&ran))
        }
        Args::Kill { at, after, run } => {
            injected(&run, at, "killed at", &Fault::Kill { at, after })
        }
        Args::Fail { at, errno, onwards, run } => {
            let fault = Fault::Fail { at, errno: errno as i32, onwards };
            injected(&run, at, &format!("{errno:?} at"), &fault)
        }
        Args::Short { at, run } => injected(&run, at, "half of", &Fault::Short { at }),
        Args::Signal { at, signal, pause, run } => {
            let pause = Duration::from_millis(pause);
            let fault = Fault::Signal { at, signals: signal, pause };
            injected(&run, at, "signalled at", &fault)
        }
        Args::Flip { at, bit, file } => damage::flip(&file, at, bit).map(|()| ExitCode::SUCCESS),
        Args::Cut { at, file } => damage::cut(&file, at).map(|()| ExitCode::SUCCESS),
        Args::Campaign(campaign) => campaign.run(),
        Args::Case { case, bin } => one(&case, &bin),
    }
}

impl Campaign {
    fn run(self) -> Result<ExitCode> {
        let all = || STAGES.iter().collect();
        let stages = if self.stages.is_empty() { all() } else { self.stages };
        let world = World::new(&self.bin, &stages)?;
        let cases = draw::cases(&world, self.kind, &stages, self.runs, self.seed)?;
        let failed = |line: &str| println!("FAIL {line}");
        let summary = campaign::run(&world, &cases, self.jobs, &failed)?;
        if !summary.failing.is_empty() {
            println!("each again: faults case NAME --bin {}", self.bin.display());
        }
        println!("CHECK {} {summary}", format!("{:?}", self.kind).to_lowercase());
        Ok(verdict(summary.failing.is_empty()))
    }
}

fn one(case: &Case, bin: &Path) -> Result<ExitCode> {
    let mut world = World::new(bin, &[case.stage])?;
    world.keep();
    let found = perform(&world, case, true)?;
    found.steps.iter().for_each(|step| println!("{step}"));
    let lines = found.lines(case);
    lines.iter().for_each(|line| println!("FAIL {line}"));
    Ok(verdict(lines.is_empty()))
}

fn verdict(good: bool) -> ExitCode {
    ExitCode::from(if good { 0 } else { 3 })
}

/// Runs a command with the streams of this program.
fn inject(run: &Run, fault: &Fault) -> Result<Ran> {
    let mut command = Command::new(&run.command[0]);
    command.args(&run.command[1..]);
    trace::run(command, run.calls, fault, Duration::MAX, &mut |_, _| ())
}

fn injected(run: &Run, at: usize, what: &str, fault: &Fault) -> Result<ExitCode> {
    if at == 0 {
        return Err(Error::other("calls are numbered from 1"));
    }
    let ran = inject(run, fault)?;
    match ran.calls.get(at - 1) {
        Some(call) => eprintln!("faults: {what} {}; {} in all", line(at, call), ran.injected),
        None => eprintln!("faults: nothing done, there were {} calls", ran.calls.len()),
    }
    Ok(code(&ran))
}

fn line(number: usize, call: &Call) -> String {
    format!("{number} {} {}", call.name, call.path.display())
}

fn code(ran: &Ran) -> ExitCode {
    ExitCode::from(match ran.end {
        End::Exit(code) => code as u8,
        killed => killed.code() as u8,
    })
}
