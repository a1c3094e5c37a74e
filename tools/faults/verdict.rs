//! The kinds of errors after a fault.

use super::case::Case;
use super::trace::{End, Ran};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The same command fails again, an output or an input is missing, or finished work is done again.
    Lost,
    /// Exit code 0 with other bytes; or a mixture that passes as undamaged.
    Silent,
    /// Exit code 101, or an end by a signal that nobody sent.
    Panic,
    /// A file too many after the next run.
    Leftover,
    /// A signal ended the process, which should have stopped by itself.
    Died,
    /// Not one line with a documented exit code.
    Words,
    /// The run did not end.
    Hang,
}

impl Class {
    pub const ALL: [Class; 7] = [
        Class::Lost,
        Class::Silent,
        Class::Panic,
        Class::Leftover,
        Class::Died,
        Class::Words,
        Class::Hang,
    ];
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Class::Lost => "lost",
            Class::Silent => "silent",
            Class::Panic => "panic",
            Class::Leftover => "leftover",
            Class::Died => "died",
            Class::Words => "words",
            Class::Hang => "hang",
        })
    }
}

/// The result of one case.
#[derive(Debug, Default)]
pub struct Verdict {
    pub found: Vec<(Class, String)>,
    /// In the end, the outputs were those of an undisturbed run.
    pub equal: bool,
    /// Damage was found and reported.
    pub refused: bool,
    /// The call at which the fault was injected.
    pub fault: String,
    /// The commands, and how they ended.
    pub steps: Vec<String>,
}

impl Verdict {
    pub fn wrong(&mut self, class: Class, what: impl Into<String>) {
        self.found.push((class, what.into()));
    }

    pub fn fault_at(&mut self, ran: &Ran, at: usize) {
        if let Some(call) = ran.calls.get(at - 1) {
            let name = call.path.file_name().unwrap_or_default();
            self.fault = format!(" at {} {}", call.name, name.display());
        }
    }

    /// One line per error.
    pub fn lines(&self, case: &Case) -> Vec<String> {
        let fault = &self.fault;
        let lines = self.found.iter().map(|(class, what)| format!("{class} {case}{fault}: {what}"));
        lines.collect()
    }

    /// Notes a run, and ends that are always wrong. Returns whether the end is one of those.
    pub fn crashed(&mut self, what: &str, ran: &Ran) -> bool {
        let said = last_line(&ran.stderr);
        self.steps.push(format!("{what}: exit {}: {said}", ran.end.code()));
        let class = match ran.end {
            _ if ran.hung => Class::Hang,
            End::Exit(101) => Class::Panic,
            _ if ran.stderr.contains("panicked at") => Class::Panic,
            // The caller judges signals that the tool sent.
            End::Killed(signal) if !SENT.contains(&signal.as_str()) => Class::Panic,
            _ => return false,
        };
        self.wrong(class, format!("{what}: exit {}: {said}", ran.end.code()));
        true
    }

    /// An end with one line and one of these exit codes; the caller judges 0.
    pub fn documented(&mut self, what: &str, ran: &Ran, codes: &[i32]) {
        let code = ran.end.code();
        let errors = ran.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        let said = last_line(&ran.stderr);
        if code != 0 && (!codes.contains(&code) || errors != 1 || !said.starts_with("error: ")) {
            let words = format!("{what}: exit {code}, {errors} lines of error: {said}");
            self.wrong(Class::Words, words);
        }
    }
}

/// Signals that the tool sends.
const SENT: [&str; 6] = ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"];

pub fn last_line(text: &str) -> &str {
    text.trim_end().lines().last().unwrap_or_default()
}
