//! Which process this is among those that train together.

#[cfg(feature = "mpi")]
use super::mpi;
use crate::error::Result;
use crate::ranks::{Alone, Ranks};
use std::sync::Arc;
use std::time::Duration;

/// Whether this program was built with MPI.
pub const ARE_POSSIBLE: bool = cfg!(feature = "mpi");

/// Whether this is the first of the processes that were started together.
pub fn is_first() -> bool {
    #[cfg(feature = "mpi")]
    return mpi::is_first();
    #[cfg(not(feature = "mpi"))]
    true
}

/// Does the work of a training stage, as one of the ranks that this process was started with by `mpirun` or
/// `srun`, or alone. A rank that waits longer than `patience` for the others, to join them or from the first step
/// on, ends; an error that the others do not have ends all of them at once.
///
/// Errors: `Usage` if MPI cannot be had or does not see all of them.
pub fn together(patience: Duration, work: impl FnOnce(&Ranks) -> Result<()>) -> Result<()> {
    #[cfg(feature = "mpi")]
    if let Some(joined) = mpi::join(patience)? {
        return joined.work(work);
    }
    // Nobody to wait for.
    let _ = patience;
    let alone: Ranks = Arc::new(Alone);
    work(&alone)
}
