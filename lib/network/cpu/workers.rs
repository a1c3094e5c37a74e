//! What the layers share: threads' scratch buffers, the instruction set, and buffers that several
//! threads write.

use super::isa::Isa;
use super::winograd::Buffers;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// A buffer that several threads write, each its own part.
#[derive(Clone, Copy)]
pub struct Shared<T>(*mut T, usize);

// SAFETY: `slice` is called with ranges that are disjoint between threads.
unsafe impl<T: Send> Send for Shared<T> {}
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub fn new(buffer: &mut [T]) -> Shared<T> {
        Shared(buffer.as_mut_ptr(), buffer.len())
    }

    /// # Safety
    /// No other slice of this buffer that overlaps is alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.1);
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }

    /// A pointer to the value at `start`, for a kernel that writes some channels of each pixel of
    /// `len` values, while other threads write others.
    pub fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start + len <= self.1);
        unsafe { self.0.add(start) }
    }
}

/// Buffers of one worker thread, grown as needed. What is stored as `E` is loaded as `E`.
#[derive(Default)]
pub struct Scratch<E> {
    pub(super) input: Vec<E>,
    pub(super) upstream: [Vec<E>; 2],
    pub(super) downstream: Vec<f32>,
    pub(super) patches: Buffers,
    /// Pixels in pairs: of the input, and of the output's gradient.
    pub(super) words: [Vec<f32>; 2],
}

/// What all layers share: the instruction set and the threads' scratch buffers.
pub struct Workers<E> {
    pub isa: Isa,
    scratch: Vec<Mutex<Scratch<E>>>,
}

impl<E: Default + Send> Workers<E> {
    pub fn new(isa: Isa) -> Workers<E> {
        let threads = rayon::current_num_threads();
        Workers { isa, scratch: (0..threads).map(|_| Mutex::default()).collect() }
    }

    /// Runs `task(0)`, `task(1)`, .. on the threads of the pool.
    pub(super) fn run(&self, tasks: usize, task: impl Fn(usize, &mut Scratch<E>) + Sync) {
        (0..tasks).into_par_iter().with_max_len(1).for_each(|t| {
            let thread = rayon::current_thread_index().unwrap_or(0);
            // A poisoned scratch holds no state: its content is overwritten by each task.
            let mut scratch = self.scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
            task(t, &mut scratch);
        });
    }
}

pub(super) fn grown<T: Default + Clone>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
