//! What the threads of a training step do, for `benches/engine.rs`: each loop over threads, and how long its tasks take.
//! Nothing is recorded unless it is asked for; then a loop costs a look at a flag.

use rayon::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

static RECORDING: AtomicBool = AtomicBool::new(false);
static LOOPS: Mutex<Vec<Loop>> = Mutex::new(Vec::new());

thread_local! {
    /// The clock of this thread when its last loop ended.
    static ENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// One loop over threads. Times are those that a thread computed, not those that it waited.
pub struct Loop {
    pub place: &'static Location<'static>,
    /// Of the thread that began the loop, since its last one.
    pub before: Duration,
    /// A free thread takes the next task; otherwise it takes half of those that another has left.
    pub in_order: bool,
    /// In the order of the items.
    pub tasks: Vec<Duration>,
}

/// The loops that `work` begins on this thread, in their order.
pub fn record(work: impl FnOnce()) -> Vec<Loop> {
    ENDED.set(clock());
    RECORDING.store(true, Ordering::Relaxed);
    work();
    RECORDING.store(false, Ordering::Relaxed);
    std::mem::take(&mut LOOPS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A loop over threads: does the work of each item on a thread of the pool.
#[track_caller]
pub fn each<I: IndexedParallelIterator>(items: I, work: impl Fn(I::Item) + Sync + Send) {
    let recorded = Recorded::begin(false);
    items.enumerate().for_each(|(index, item)| match &recorded {
        None => work(item),
        Some(recorded) => recorded.time(index, || work(item)),
    });
}

/// A loop over threads: does the work of 0, 1, .. on the threads of the pool. A free thread takes the next.
#[track_caller]
pub fn each_in_order(count: usize, work: impl Fn(usize) + Sync + Send) {
    let recorded = Recorded::begin(true);
    let next = AtomicUsize::new(0);
    (0..count).into_par_iter().with_max_len(1).for_each(|_| {
        let index = next.fetch_add(1, Ordering::Relaxed);
        match &recorded {
            None => work(index),
            Some(recorded) => recorded.time(index, || work(index)),
        }
    });
}

struct Recorded {
    place: &'static Location<'static>,
    before: Duration,
    in_order: bool,
    tasks: Mutex<Vec<Duration>>,
}

impl Recorded {
    /// If this loop is to be recorded.
    #[track_caller]
    fn begin(in_order: bool) -> Option<Recorded> {
        let place = Location::caller();
        RECORDING.load(Ordering::Relaxed).then(|| Recorded {
            place,
            before: clock().saturating_sub(ENDED.get()),
            in_order,
            tasks: Mutex::default(),
        })
    }

    fn time(&self, index: usize, work: impl FnOnce()) {
        let begun = clock();
        work();
        let spent = clock() - begun;
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.len() <= index {
            tasks.resize(index + 1, Duration::ZERO);
        }
        tasks[index] = spent;
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut self.tasks).into_inner();
        let tasks = tasks.unwrap_or_else(PoisonError::into_inner);
        let of = Loop { place: self.place, before: self.before, in_order: self.in_order, tasks };
        LOOPS.lock().unwrap_or_else(PoisonError::into_inner).push(of);
        ENDED.set(clock());
    }
}

/// What this thread has computed so far.
fn clock() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
