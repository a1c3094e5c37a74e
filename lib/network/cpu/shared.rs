//! Buffers that several threads write, and buffers that grow.

/// A buffer that several threads write, each in its own range.
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
    /// No other overlapping slice of this buffer is alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start + len <= self.1);
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }

    /// A pointer to the `len` values from `start` on, for a kernel that writes some channels of each pixel
    /// while other threads write the other channels.
    pub fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(start + len <= self.1);
        unsafe { self.0.add(start) }
    }
}

/// The first `len` values of a buffer that grows if it is shorter.
pub fn grown<T: Default + Clone>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
