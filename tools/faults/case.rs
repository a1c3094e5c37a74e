//! One fault of a campaign, and its name: `kill/pretrain/force/17`.

use super::calls::Counted;
use super::smoke::Stage;
use super::world::Mode;
use nix::sys::signal::Signal;
use std::fmt;
use std::time::Duration;

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Kills at a file-changing call
    Kill,
    /// Calls that fail, and short writes
    Fail,
    /// Changed bits and cut files
    Flip,
    /// Signals, one or two
    Signal,
    /// Two runs at once with one output
    Race,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub stage: &'static Stage,
    pub mode: Mode,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    /// Killed before a call. With `other`, a run for another output is then killed before that call too.
    Kill {
        at: usize,
        other: Option<usize>,
    },
    /// A call fails with this error, or is a short write.
    Fail {
        counted: Counted,
        at: usize,
        error: Error,
        onwards: bool,
    },
    Flip {
        at: u64,
        bit: u8,
        file: String,
    },
    Cut {
        at: u64,
        file: String,
    },
    /// Signals before a call; 0 stands for the first open of a file of the user.
    Signal {
        at: usize,
        signals: Vec<Signal>,
        pause: Duration,
    },
    /// Another run starts at a call of the first run. With `held`, the first run waits there for the
    /// other's end.
    Race {
        at: usize,
        output: bool,
        held: bool,
    },
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    Short,
    Errno(nix::Error),
}

const MODES: [(Mode, &str); 3] =
    [(Mode::Plain, "plain"), (Mode::Force, "force"), (Mode::Make, "make")];
const COUNTED: [(Counted, &str); 3] =
    [(Counted::Changes, "changes"), (Counted::Opens, "opens"), (Counted::Words, "words")];
const ERRORS: [(Error, &str); 6] = [
    (Error::Short, "short"),
    (Error::Errno(nix::Error::ENOSPC), "ENOSPC"),
    (Error::Errno(nix::Error::EIO), "EIO"),
    (Error::Errno(nix::Error::EDQUOT), "EDQUOT"),
    (Error::Errno(nix::Error::EACCES), "EACCES"),
    (Error::Errno(nix::Error::EPIPE), "EPIPE"),
];

fn name<T: PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names.iter().find(|n| n.0 == value).map_or("?", |n| n.1)
}

fn value<T: Copy>(names: &[(T, &'static str)], name: &str) -> Option<T> {
    names.iter().find(|n| n.1 == name).map(|n| n.0)
}

/// An error by its name in C.
pub fn errno(name: &str) -> Option<nix::Error> {
    // Debug prints this name; 133 is the last error on Linux.
    (1..=133).map(nix::Error::from_raw).find(|errno| format!("{errno:?}") == name)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (stage, mode) = (self.stage.name, name(&MODES, self.mode));
        match &self.what {
            What::Kill { at, other: None } => write!(f, "kill/{stage}/{mode}/{at}"),
            What::Kill { at, other: Some(other) } => {
                write!(f, "kill/{stage}/{mode}/{at}+{other}")
            }
            What::Fail { counted, at, error, onwards } => {
                let (counted, error) = (name(&COUNTED, *counted), name(&ERRORS, *error));
                let often = if *onwards { "onwards" } else { "once" };
                write!(f, "fail/{stage}/{mode}/{counted}/{at}/{error}/{often}")
            }
            What::Flip { at, bit, file } => write!(f, "flip/{stage}/{mode}/{at}.{bit}/{file}"),
            What::Cut { at, file } => write!(f, "cut/{stage}/{mode}/{at}/{file}"),
            What::Signal { at, signals, pause } => {
                let signals: Vec<_> = signals.iter().map(|s| s.as_str()).collect();
                let (signals, pause) = (signals.join("+"), pause.as_millis());
                write!(f, "signal/{stage}/{mode}/{at}/{signals}/{pause}")
            }
            What::Race { at, output, held } => {
                let output = if *output { "other" } else { "same" };
                let held = if *held { "held" } else { "beside" };
                write!(f, "race/{stage}/{mode}/{at}/{output}/{held}")
            }
        }
    }
}

impl std::str::FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Case, String> {
        parse(text).ok_or_else(|| format!("{text}: no such case"))
    }
}

fn parse(text: &str) -> Option<Case> {
    let mut fields = text.splitn(5, '/');
    let (kind, stage, mode, at) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let rest = fields.next().unwrap_or_default();
    let what = match kind {
        "kill" => match at.split_once('+') {
            Some((at, other)) => {
                What::Kill { at: at.parse().ok()?, other: Some(other.parse().ok()?) }
            }
            None => What::Kill { at: at.parse().ok()?, other: None },
        },
        "fail" => {
            let (counted, mut rest) = (value(&COUNTED, at)?, rest.split('/'));
            What::Fail {
                counted,
                at: rest.next()?.parse().ok()?,
                error: value(&ERRORS, rest.next()?)?,
                onwards: rest.next()? == "onwards",
            }
        }
        "flip" => {
            let (at, bit) = at.split_once('.')?;
            What::Flip { at: at.parse().ok()?, bit: bit.parse().ok()?, file: rest.to_string() }
        }
        "cut" => What::Cut { at: at.parse().ok()?, file: rest.to_string() },
        "signal" => {
            let (signals, pause) = rest.split_once('/')?;
            let signals = signals.split('+').map(|signal| signal.parse().ok());
            What::Signal {
                at: at.parse().ok()?,
                signals: signals.collect::<Option<_>>()?,
                pause: Duration::from_millis(pause.parse().ok()?),
            }
        }
        "race" => {
            let (output, held) = rest.split_once('/')?;
            let (output, held) = (output == "other", held == "held");
            What::Race { at: at.parse().ok()?, output, held }
        }
        _ => return None,
    };
    Some(Case { stage: Stage::named(stage)?, mode: value(&MODES, mode)?, what })
}
