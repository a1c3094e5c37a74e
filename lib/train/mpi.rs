//! Ranks over MPI, as `mpirun` and `srun --mpi=pmix` start them. ferrompi: Rust over a shim in C, so that any MPI does
//! and no libclang is needed.

use crate::cli;
use crate::error::{Error, Result};
use crate::ranks::{Communicator, Ranks};
use ferrompi::{Mpi, ThreadLevel};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The number of processes in variables of those who start them.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// All processes of the job.
struct World {
    communicator: ferrompi::Communicator,
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

/// A process among others. MPI ends when it is dropped.
pub struct Joined {
    ranks: Ranks,
    mpi: Mpi,
}

/// Joins the other processes, if there are any.
pub fn join(patience: Duration) -> Result<Option<Joined>> {
    let sizes = SIZES.iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
    let sizes = sizes.filter_map(|(name, size)| Some((name, size.parse::<usize>().ok()?)));
    let Some((name, size)) = sizes.max_by_key(|&(_, size)| size).filter(|&(_, size)| size > 1)
    else {
        return Ok(None);
    };
    let mpi = Mpi::init_thread(ThreadLevel::Funneled).map_err(failed)?;
    let communicator = mpi.world();
    if communicator.size() as usize != size {
        return Err(Error::Usage(format!(
            "{name} says {size} processes, and MPI sees {}; start them by this MPI's own mpirun, or by srun \
             --mpi=pmix",
            communicator.size()
        )));
    }
    if communicator.rank() > 0 {
        cli::silence();
    }
    let watch = Arc::new(Watch {
        start: Instant::now(),
        since: AtomicU64::new(0),
        spent: AtomicU64::new(0),
        armed: AtomicBool::new(false),
    });
    let watching = watch.clone();
    let name = name_of(&communicator);
    std::thread::spawn(move || watching.run(&name, patience));
    Ok(Some(Joined { ranks: Arc::new(World { communicator, watch }), mpi }))
}

impl Joined {
    /// Does the work of this rank. If the others do not know of its error, all end.
    pub fn work(self, work: impl FnOnce(&Ranks) -> Result<()>) -> Result<()> {
        let result = work(&self.ranks);
        match &result {
            Ok(()) => {}
            // The first one says so before another one's end makes MPI end it.
            Err(e @ (Error::Rank { .. } | Error::Stopped { .. })) => cli::last_words(e),
            // All have seen the same loss.
            Err(Error::Diverged { .. }) if self.ranks.rank() > 0 => {}
            Err(e) => {
                let world = self.mpi.world();
                eprint!("{}: {}", name_of(&world), cli::error_line(e));
                world.abort(e.exit_code().into())
            }
        }
        result
    }
}

fn name_of(communicator: &ferrompi::Communicator) -> String {
    let host = communicator.processor_name().unwrap_or_default();
    format!("rank {} on {host}", communicator.rank())
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

    /// Does what may have to wait for the others.
    fn over<T>(&self, call: impl FnOnce() -> ferrompi::Result<T>) -> Result<T> {
        if self.armed.load(Ordering::Relaxed) {
            self.since.store(self.now(), Ordering::Relaxed);
        }
        let begun = Instant::now();
        let result = call();
        self.since.store(0, Ordering::Relaxed);
        self.spent.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result.map_err(failed)
    }
}

impl Communicator for World {
    fn rank(&self) -> usize {
        self.communicator.rank() as usize
    }

    fn size(&self) -> usize {
        self.communicator.size() as usize
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.watch.over(|| self.communicator.allgather(own, all))
    }

    fn spent(&self) -> Duration {
        Duration::from_nanos(self.watch.spent.load(Ordering::Relaxed))
    }

    fn exchange(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.watch.armed.store(true, Ordering::Relaxed);
        self.watch.over(|| self.communicator.alltoall(own, all))
    }
}
