//! The way of host memory to the GPU: through pinned memory, from which the GPU fetches it while the host goes on.

use super::runtime::Address;
use super::status::{allocating, driver};
use crate::error::Result;
use cudarc::driver::{result, sys};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

/// Bytes that one thread copies at a time.
const PIECE: usize = 1 << 20;

/// Pinned memory for one copy at a time.
pub struct Staging {
    at: *mut u8,
    bytes: usize,
    /// Comes after the last copy to the GPU.
    sent: Event,
}

/// A moment in the work of a stream. One that was not recorded yet is over.
pub struct Event(sys::CUevent);

impl Event {
    pub fn new() -> Result<Event> {
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        Ok(Event(result::event::create(flags).map_err(driver("cuEventCreate"))?))
    }

    /// After all that was given to the stream so far.
    pub fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: both are there.
        unsafe { result::event::record(self.0, stream) }.map_err(driver("cuEventRecord"))
    }

    /// What is given to the stream from now on comes after this.
    pub fn hold(&self, stream: sys::CUstream) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are there.
        unsafe { result::stream::wait_event(stream, self.0, flags) }
            .map_err(driver("cuStreamWaitEvent"))
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: it is there.
        unsafe { result::event::synchronize(self.0) }.map_err(driver("cuEventSynchronize"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody else has it.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

impl Staging {
    pub fn new() -> Result<Staging> {
        Ok(Staging { at: std::ptr::null_mut(), bytes: 0, sent: Event::new()? })
    }

    /// Copies `from`, and lets the GPU fetch the copy in its turn. The event comes after that.
    pub fn send(&mut self, from: &[u8], to: Address, stream: sys::CUstream) -> Result<&Event> {
        self.sent.wait()?;
        if self.bytes < from.len() {
            self.free();
            // SAFETY: the content is undefined; it is written before it is read.
            let at = unsafe { result::malloc_host(from.len(), 0) };
            self.at = at.map_err(allocating(from.len()))?.cast();
            self.bytes = from.len();
        }
        if from.is_empty() {
            return Ok(&self.sent);
        }
        // SAFETY: there are at least so many bytes, and the GPU is done with the last ones.
        let copy = unsafe { std::slice::from_raw_parts_mut(self.at, from.len()) };
        match from.len() <= PIECE {
            true => copy.copy_from_slice(from),
            false => copy
                .par_chunks_mut(PIECE)
                .zip(from.par_chunks(PIECE))
                .for_each(|(to, from)| to.copy_from_slice(from)),
        }
        // SAFETY: the copy stays until the event, which every later change waits for.
        unsafe { result::memcpy_htod_async(to.0, copy, stream) }
            .map_err(driver("cuMemcpyHtoDAsync"))?;
        self.sent.record(stream)?;
        Ok(&self.sent)
    }

    fn free(&mut self) {
        if !self.at.is_null() {
            // SAFETY: it was allocated, and the GPU is done with it. If that fails, it is lost.
            let _ = unsafe { result::free_host(self.at.cast()) };
            (self.at, self.bytes) = (std::ptr::null_mut(), 0);
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = self.sent.wait();
        self.free();
    }
}
