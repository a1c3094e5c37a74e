//! Ranks as threads of one process.

use s4l::error::Result;
use s4l::ranks::{Communicator, Ranks};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

/// Where the threads leave what they give to each other.
struct Table {
    barrier: Barrier,
    given: Vec<Mutex<Vec<u8>>>,
}

struct Thread {
    rank: usize,
    table: Arc<Table>,
}

impl Thread {
    /// Gives `own`, then takes of what each rank has given.
    fn swap(&self, own: &[u8], mut take: impl FnMut(usize, &[u8])) -> Result<()> {
        *self.table.given[self.rank].lock().unwrap() = own.to_vec();
        self.table.barrier.wait();
        self.table.given.iter().enumerate().for_each(|(r, given)| take(r, &given.lock().unwrap()));
        self.table.barrier.wait();
        Ok(())
    }
}

impl Communicator for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.given.len()
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.swap(own, |r, given| {
            all[r * given.len()..(r + 1) * given.len()].copy_from_slice(given);
        })
    }

    fn spent(&self) -> Duration {
        Duration::ZERO
    }

    fn exchange(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        let block = own.len() / self.size();
        self.swap(own, |r, given| {
            all[r * block..][..block].copy_from_slice(&given[self.rank * block..][..block]);
        })
    }
}

/// What each of `size` ranks makes, in their order.
pub fn together<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let given = (0..size).map(|_| Mutex::default()).collect();
    let table = Arc::new(Table { barrier: Barrier::new(size), given });
    let rank = |rank| -> Ranks { Arc::new(Thread { rank, table: table.clone() }) };
    std::thread::scope(|scope| {
        let spawned = |r| {
            scope.spawn({
                let (own, work) = (rank(r), &work);
                move || work(own)
            })
        };
        let all: Vec<_> = (0..size).map(spawned).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
