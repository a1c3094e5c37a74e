//! What a step would take on more threads than this machine has: its loops over threads are recorded, with the tasks
//! that they have for so many threads, and each loop is laid out on the threads.
//!
//! Time is what a thread computed. A core's share of the memory's bandwidth is taken to stay what it is here, and the
//! start and end of a loop to cost nothing.

use s4l::tasks::{Loop, record};
use std::collections::HashMap;
use std::panic::Location;
use std::time::{Duration, Instant};

/// Numbers of threads, and how many of them are also run for real.
const THREADS: [usize; 6] = [1, 2, 8, 16, 32, 64];
const REAL: usize = 2;
const STEPS: usize = 5;

/// One recorded step.
struct Step(Vec<Loop>);

/// Prints the predicted rates of a network, and where the time goes at 32 threads. `network` makes a step of `images`
/// images for the threads of the pool that it is called in.
pub fn predict(images: usize, network: impl Fn() -> Box<dyn FnMut() + Send> + Sync) {
    println!(
        "| threads | loops | tasks | work | one thread only % | idle % | images/s | efficiency | run |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let mut single = None;
    for threads in THREADS {
        let (steps, real) = recorded(pool(threads).install(&network), threads);
        let step = median(steps, |step| step.seconds(threads));
        let seconds = step.seconds(threads);
        let (single, work) = *single.get_or_insert((seconds, step.work()));
        let run = (threads <= REAL).then(|| format!("{:.1}", images as f64 / real));
        println!(
            "| {threads} | {} | {} | {:.2} | {:.1} | {:.1} | {:.1} | {:.2} | {} |",
            step.0.len(),
            step.0.iter().map(|l| l.tasks.len()).sum::<usize>(),
            step.work() / work,
            100.0 * step.alone() / seconds,
            100.0 * (1.0 - (step.alone() + step.work() / threads as f64) / seconds),
            images as f64 / seconds,
            single / seconds / threads as f64,
            run.unwrap_or_default(),
        );
        if threads == 32 {
            step.print_losses(threads);
        }
    }
}

/// Steps that have the tasks for so many threads, on as many threads as the machine has cores for, so that none takes
/// the cache of another; and the seconds of one that is not recorded.
fn recorded(mut step: Box<dyn FnMut() + Send>, threads: usize) -> (Vec<Step>, f64) {
    pool(threads.min(REAL)).install(|| {
        (0..2).for_each(|_| step());
        let times = (0..STEPS).map(|_| {
            let begun = Instant::now();
            step();
            begun.elapsed().as_secs_f64()
        });
        let real = median(times.collect(), |time| *time);
        ((0..STEPS).map(|_| Step(record(&mut step))).collect(), real)
    })
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool")
}

fn median<T>(mut of: Vec<T>, by: impl Fn(&T) -> f64) -> T {
    of.sort_by(|a, b| by(a).total_cmp(&by(b)));
    of.swap_remove(of.len() / 2)
}

impl Step {
    /// On so many threads, each of which takes the next task when it is free.
    fn seconds(&self, threads: usize) -> f64 {
        self.alone() + self.0.iter().map(|l| laid_out(l, threads)).sum::<f64>()
    }

    /// Between the loops.
    fn alone(&self) -> f64 {
        self.0.iter().map(|l| l.before.as_secs_f64()).sum()
    }

    /// All tasks.
    fn work(&self) -> f64 {
        self.0.iter().flat_map(|l| &l.tasks).sum::<Duration>().as_secs_f64()
    }

    /// The loops of the code that lose most of the threads' time, and what comes before them.
    fn print_losses(&self, threads: usize) {
        let mut lost: HashMap<&Location, (usize, usize, f64, f64)> = HashMap::new();
        for l in &self.0 {
            let work = l.tasks.iter().sum::<Duration>().as_secs_f64() / threads as f64;
            let of = lost.entry(l.place).or_default();
            of.0 += 1;
            of.1 += l.tasks.len();
            of.2 += laid_out(l, threads) - work;
            of.3 += l.before.as_secs_f64();
        }
        let mut lost: Vec<_> = lost.into_iter().collect();
        lost.sort_by(|(_, a), (_, b)| (b.2 + b.3).total_cmp(&(a.2 + a.3)));
        let all = self.seconds(threads);
        for (place, (loops, tasks, idle, before)) in lost.into_iter().take(8) {
            eprintln!(
                "{}:{}: {loops} loops, {tasks} tasks, {:.1}% idle, {:.1}% before",
                place.file(),
                place.line(),
                100.0 * idle / all,
                100.0 * before / all,
            );
        }
    }
}

/// Seconds until the last task has ended. A thread that has no tasks left takes the next one, or the second half of the most
/// that another has, as rayon's do.
fn laid_out(of: &Loop, threads: usize) -> f64 {
    let mut left = vec![0..0; threads];
    left[0] = 0..of.tasks.len();
    let mut free = vec![Duration::ZERO; threads];
    for _ in &of.tasks {
        let next = (0..threads).min_by_key(|&thread| free[thread]).expect("a thread");
        if left[next].is_empty() && !of.in_order {
            let most = left.iter_mut().max_by_key(|tasks| tasks.len()).expect("a thread");
            let half = most.start + most.len() / 2;
            let taken = half..std::mem::replace(&mut most.end, half);
            left[next] = taken;
        }
        let from = if of.in_order { 0 } else { next };
        free[next] += of.tasks[left[from].next().expect("a task")];
    }
    free.iter().max().expect("a thread").as_secs_f64()
}
