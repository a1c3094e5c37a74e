//! Shared by all layers: the instruction set, and the threads with their scratch buffers.

use super::isa::Isa;
use super::winograd::PatchBuffers;
use crate::tasks;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Buffers of one worker thread, grown as needed. Values stored as `E` are loaded as `E`.
#[derive(Default)]
pub struct Scratch<E> {
    pub input: Vec<E>,
    pub upstream: [Vec<E>; 2],
    pub kernels: KernelBuffers,
}

/// Working memory of the kernels.
#[derive(Default)]
pub struct KernelBuffers {
    pub patches: PatchBuffers,
    /// Pixels in pairs: of the input, and of the output's gradient.
    pub words: [Vec<f32>; 2],
    /// The gradient of images, with the channels padded to a whole vector.
    pub downstream: Vec<f32>,
}

/// The instruction set and the threads' scratch buffers.
pub struct Workers<E> {
    pub isa: Isa,
    scratch: Vec<Mutex<Scratch<E>>>,
}

impl<E: Default + Send> Workers<E> {
    pub fn new(isa: Isa) -> Workers<E> {
        let threads = rayon::current_num_threads();
        Workers { isa, scratch: (0..threads).map(|_| Mutex::default()).collect() }
    }

    pub fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// Runs `task(0)`, `task(1)`, .. on the threads of the pool. A thread runs neighbours, as far as it can.
    #[track_caller]
    pub fn run(&self, tasks: usize, task: impl Fn(usize, &mut Scratch<E>) + Sync) {
        let all = (0..tasks).into_par_iter().with_max_len(1);
        tasks::each(all, |t| self.with_scratch(|scratch| task(t, scratch)));
    }

    /// Runs `task(0)`, `task(1)`, .. as well, but they begin in this order: for tasks of which the first take longer.
    #[track_caller]
    pub fn run_in_order(&self, tasks: usize, task: impl Fn(usize, &mut Scratch<E>) + Sync) {
        tasks::each_in_order(tasks, |t| self.with_scratch(|scratch| task(t, scratch)));
    }

    fn with_scratch(&self, work: impl FnOnce(&mut Scratch<E>)) {
        let thread = rayon::current_thread_index().unwrap_or(0);
        // A poisoned scratch is safe to use: each task overwrites its content.
        work(&mut self.scratch[thread].lock().unwrap_or_else(PoisonError::into_inner));
    }
}
