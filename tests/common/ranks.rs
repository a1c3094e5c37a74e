//! Ranks as threads of one process.

use s4l::error::Result;
use s4l::ranks::{Communicator, Ranks};
use std::collections::VecDeque;
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
    /// Sums that nobody has asked for.
    sums: Mutex<VecDeque<Vec<f32>>>,
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

    fn begin_sum(&self, own: Vec<f32>) -> Result<()> {
        let mut sum = vec![0f32; own.len()];
        self.swap(bytemuck::cast_slice(&own), |_, given| {
            let given = bytemuck::pod_collect_to_vec::<u8, f32>(given);
            sum.iter_mut().zip(given).for_each(|(sum, value)| *sum += value);
        })?;
        self.sums.lock().unwrap().push_back(sum);
        Ok(())
    }

    fn end_sum(&self) -> Result<Vec<f32>> {
        Ok(self.sums.lock().unwrap().pop_front().expect("a sum that was begun"))
    }
}

/// What each of `size` ranks makes, in their order.
pub fn together<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let given = (0..size).map(|_| Mutex::default()).collect();
    let table = Arc::new(Table { barrier: Barrier::new(size), given });
    let rank =
        |rank| -> Ranks { Arc::new(Thread { rank, table: table.clone(), sums: Mutex::default() }) };
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
