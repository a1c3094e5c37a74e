//! Many cases, several at a time, and a summary line.

use super::case::Case;
use super::perform::perform;
use super::verdict::{Class, Verdict};
use super::world::World;
use std::fmt;
use std::io::{Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Counts of verdicts.
#[derive(Debug, Default)]
pub struct Summary {
    pub runs: usize,
    pub equal: usize,
    pub refused: usize,
    /// Number of cases with each class.
    classes: [usize; Class::ALL.len()],
    /// One line per failed case.
    pub failing: Vec<String>,
}

impl Summary {
    fn add(&mut self, case: &Case, verdict: &Verdict) {
        self.runs += 1;
        self.equal += usize::from(verdict.equal);
        self.refused += usize::from(verdict.refused);
        for (count, class) in self.classes.iter_mut().zip(Class::ALL) {
            *count += usize::from(verdict.found.iter().any(|found| found.0 == class));
        }
        let lines = verdict.lines(case);
        self.failing.extend(lines);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "runs={} equal={}", self.runs, self.equal)?;
        let counts = Class::ALL.iter().zip(self.classes);
        counts.into_iter().try_for_each(|(class, count)| write!(f, " {class}={count}"))?;
        write!(f, " refused={}", self.refused)
    }
}

/// Runs cases, `jobs` at a time. `failed` gets the lines of a failed case at once.
pub fn run(
    world: &World,
    cases: &[Case],
    jobs: usize,
    failed: &(dyn Fn(&str) + Sync),
) -> Result<Summary> {
    let (next, summary) = (AtomicUsize::new(0), Mutex::new(Summary::default()));
    let work = || -> Result<()> {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = perform(world, case, false)
                .map_err(|e| Error::new(e.kind(), format!("{case}: {e}")))?;
            let mut summary = summary.lock().map_err(|e| Error::other(e.to_string()))?;
            let before = summary.failing.len();
            summary.add(case, &verdict);
            summary.failing[before..].iter().for_each(|line| failed(line));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let ends = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ends.collect::<Result<Vec<()>>>()
    })?;
    summary.into_inner().map_err(|e| Error::other(e.to_string()))
}
