//! What the threads of a training step do, for `benches/engine.rs`: each loop over threads, and how long its tasks take.
//! Nothing is recorded unless it is asked for; then a loop costs a look at a flag.

use rayon::iter::ParallelIterator;
use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// In the order in which they ended.
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
pub fn each<I: ParallelIterator>(items: I, work: impl Fn(I::Item) + Sync + Send) {
    let place = Location::caller();
    let recorded = RECORDING.load(Ordering::Relaxed).then(|| Recorded {
        place,
        before: clock().saturating_sub(ENDED.get()),
        tasks: Mutex::default(),
    });
    items.for_each(|item| match &recorded {
        None => work(item),
        Some(recorded) => recorded.time(|| work(item)),
    });
}

struct Recorded {
    place: &'static Location<'static>,
    before: Duration,
    tasks: Mutex<Vec<Duration>>,
}

impl Recorded {
    fn time(&self, work: impl FnOnce()) {
        let begun = clock();
        work();
        let spent = clock() - begun;
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(spent);
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut self.tasks).into_inner();
        let tasks = tasks.unwrap_or_else(PoisonError::into_inner);
        let of = Loop { place: self.place, before: self.before, tasks };
        LOOPS.lock().unwrap_or_else(PoisonError::into_inner).push(of);
        ENDED.set(clock());
    }
}

/// What this thread has computed so far.
fn clock() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
