//! What the layers share: threads' scratch buffers, the instruction set, and buffers that several
//! threads write.

use std::sync::Mutex;

/// A buffer that several threads write, each its own tiles.
#[derive(Clone, Copy)]
pub struct Shared(*mut f32, usize);

// SAFETY: `slice` is called with ranges that are disjoint between threads.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(buffer: &mut [f32]) -> Shared {
        Shared(buffer.as_mut_ptr(), buffer.len())
    }

    /// SAFETY: no other slice of this buffer that overlaps is alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start + len <= self.1);
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// Buffers of one worker thread, grown as needed.
#[derive(Default)]
pub struct Scratch {
    pub(super) input: Vec<f32>,
    pub(super) upstream: [Vec<f32>; 2],
    pub(super) downstream: Vec<f32>,
}

/// What all layers share: the instruction set and the threads' scratch buffers.
pub struct Workers {
    pub arch: pulp::Arch,
    scratch: Vec<Mutex<Scratch>>,
}

impl Workers {
    pub fn new(arch: pulp::Arch) -> Workers {
        let threads = rayon::current_num_threads();
        Workers {
            arch,
            scratch: (0..threads).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn scratch(&self) -> std::sync::MutexGuard<'_, Scratch> {
        let thread = rayon::current_thread_index().unwrap_or(0);
        // A poisoned scratch holds no state: its content is overwritten by each tile.
        self.scratch[thread]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub(super) fn grown(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
