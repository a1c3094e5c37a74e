//! Ranks over MPI, as `mpirun` and `srun --mpi=pmix` start them. ferrompi: Rust over a shim in C, so that any MPI does
//! and no libclang is needed.

use super::messenger::{Call, Messenger, Place};
use crate::cli;
use crate::error::{Error, Result};
use crate::ranks::{Communicator, Ranks};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The number of processes, and the number of this one, in variables of those who start them.
const STARTERS: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
];

/// All processes of the job.
struct World {
    place: Place,
    calls: Sender<Call>,
    gathered: Mutex<Receiver<ferrompi::Result<Vec<u8>>>>,
    summed: Mutex<Receiver<ferrompi::Result<Vec<f32>>>>,
    /// Whether this rank waits for a sum.
    awaits: Arc<AtomicBool>,
    watch: Arc<Watch>,
}

/// When this rank began to wait for the others, in milliseconds since the start; 0 while it does not.
struct Watch {
    start: Instant,
    since: AtomicU64,
    /// Nanoseconds of all waits.
    spent: AtomicU64,
    /// From the first sum of gradients on: before, the first rank may wait for another run.
    armed: AtomicBool,
}

/// A process among others.
pub struct Joined {
    world: Arc<World>,
    messenger: JoinHandle<()>,
}

/// The number of processes and this one's, and the variable that says so, if there are others.
fn started() -> Option<(usize, usize, &'static str)> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
    let all =
        STARTERS.iter().filter_map(|&(size, rank)| Some((number(size)?, number(rank)?, size)));
    all.max().filter(|&(size, ..)| size > 1)
}

/// As those who start the processes say, before MPI does.
pub fn is_first() -> bool {
    started().is_none_or(|(_, rank, _)| rank == 0)
}

/// Joins the other processes, if there are any.
pub fn join(patience: Duration) -> Result<Option<Joined>> {
    let Some((size, _, name)) = started() else {
        return Ok(None);
    };
    let (calls, to_answer) = channel();
    let (to_gather, gathered) = channel();
    let (to_sum, summed) = channel();
    let (to_join, joined) = channel();
    let awaits = Arc::new(AtomicBool::new(false));
    let messenger = Messenger {
        calls: to_answer,
        gathered: to_gather,
        summed: to_sum,
        awaited: awaits.clone(),
    };
    let messenger = std::thread::spawn(move || messenger.run(&to_join));
    // A transport of MPI's that does not work can hang here.
    let place = joined.recv_timeout(patience).map_err(|_| {
        Error::Usage(format!(
            "MPI has not connected the {size} processes in {} s; try another transport of its, such as \
             OMPI_MCA_btl=tcp,self",
            patience.as_secs()
        ))
    })?;
    let place = place.map_err(failed)?;
    if place.size != size {
        return Err(Error::Usage(format!(
            "{name} says {size} processes, and MPI sees {}; start them by this MPI's own mpirun, or by srun \
             --mpi=pmix",
            place.size
        )));
    }
    if place.rank > 0 {
        cli::silence();
    }
    let watch = Arc::new(Watch {
        start: Instant::now(),
        since: AtomicU64::new(0),
        spent: AtomicU64::new(0),
        armed: AtomicBool::new(false),
    });
    let (watching, name) = (watch.clone(), place.to_string());
    std::thread::spawn(move || watching.run(&name, patience));
    let (gathered, summed) = (Mutex::new(gathered), Mutex::new(summed));
    let world = Arc::new(World { place, calls, gathered, summed, awaits, watch });
    Ok(Some(Joined { world, messenger }))
}

impl Joined {
    /// Does the work of this rank. If the others do not know of its error, all end.
    pub fn work(self, work: impl FnOnce(&Ranks) -> Result<()>) -> Result<()> {
        let ranks: Ranks = self.world.clone();
        let result = work(&ranks);
        match &result {
            Ok(()) => {}
            // The first one says so before another one's end makes MPI end it.
            Err(e @ (Error::Rank { .. } | Error::Stopped { .. })) => cli::last_words(e),
            // All have seen the same loss.
            Err(Error::Diverged { .. }) if ranks.rank() > 0 => {}
            Err(e) => {
                eprint!("{}: {}", self.world.place, cli::error_line(e));
                let _ = self.world.calls.send(Call::Abort(e.exit_code()));
            }
        }
        // MPI ends with the last that could call.
        drop((ranks, self.world));
        let _ = self.messenger.join();
        result
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "rank {} on {}", self.rank, self.host)
    }
}

/// The messenger's answer. It lives as long as its callers.
fn received<T>(from: &Receiver<ferrompi::Result<T>>) -> Result<T> {
    let answer = from.recv().map_err(|e| Error::Internal(format!("the thread of MPI: {e}")))?;
    answer.map_err(failed)
}

fn failed(e: ferrompi::Error) -> Error {
    Error::Usage(format!("MPI: {e}; start again, it goes on from the last checkpoint"))
}

impl Watch {
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }

    /// Ends the process if it waits too long; then mpirun ends the others.
    fn run(&self, name: &str, patience: Duration) {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let since = self.since.load(Ordering::Relaxed);
            let waited = Duration::from_millis(self.now().saturating_sub(since));
            if since > 0 && waited > patience {
                eprintln!(
                    "error: {name}: waited {} s for the other ranks; one of them hangs",
                    waited.as_secs()
                );
                std::process::exit(74);
            }
        }
    }

    /// Waits for the others.
    fn over<T>(&self, wait: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.armed.load(Ordering::Relaxed) {
            self.since.store(self.now(), Ordering::Relaxed);
        }
        let begun = Instant::now();
        let result = wait();
        self.since.store(0, Ordering::Relaxed);
        self.spent.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl World {
    fn call(&self, call: Call) -> Result<()> {
        self.calls.send(call).map_err(|e| Error::Internal(format!("the thread of MPI: {e}")))
    }
}

impl Communicator for World {
    fn rank(&self) -> usize {
        self.place.rank
    }

    fn size(&self) -> usize {
        self.place.size
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.call(Call::Gather(own.to_vec()))?;
        let gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        all.copy_from_slice(&self.watch.over(|| received(&gathered))?);
        Ok(())
    }

    fn begin_sum(&self, own: Vec<f32>) -> Result<()> {
        self.watch.armed.store(true, Ordering::Relaxed);
        self.call(Call::Sum(own))
    }

    fn end_sum(&self) -> Result<Vec<f32>> {
        let summed = self.summed.lock().unwrap_or_else(PoisonError::into_inner);
        self.awaits.store(true, Ordering::Relaxed);
        let sum = self.watch.over(|| received(&summed));
        self.awaits.store(false, Ordering::Relaxed);
        sum
    }

    fn spent(&self) -> Duration {
        Duration::from_nanos(self.watch.spent.load(Ordering::Relaxed))
    }
}
