//! One block of memory for all activations and their gradients, in which buffers have their slots.

use super::shared::Shared;
use crate::error::Result;
use crate::memory;
use crate::network::slots::Slot;
use memmap2::{Advice, MmapMut};
use std::marker::PhantomData;

/// Zeroed memory, on huge pages if the kernel has them, that grows as needed.
pub struct Arena<E> {
    map: Option<MmapMut>,
    len: usize,
    values: PhantomData<E>,
}

impl<E> Default for Arena<E> {
    fn default() -> Arena<E> {
        Arena { map: None, len: 0, values: PhantomData }
    }
}

impl<E: Copy> Arena<E> {
    /// Makes room for `len` values. If the memory grows, its content is lost.
    pub fn reserve(&mut self, len: usize) -> Result<()> {
        if len <= self.len {
            return Ok(());
        }
        // The old memory is freed first.
        *self = Arena::default();
        let bytes = len * size_of::<E>();
        let map = MmapMut::map_anon(bytes)
            .map_err(|_| memory::lacking("activations need", bytes as u64))?;
        // Only a hint: small pages work too.
        let _ = map.advise(Advice::HugePage);
        self.map = Some(map);
        self.len = len;
        Ok(())
    }

    pub fn shared(&mut self) -> Shared<E> {
        Shared::new(self.values_mut())
    }

    /// The first `len` values, with any content.
    pub fn room(&mut self, len: usize) -> Result<&mut [E]> {
        self.reserve(len)?;
        Ok(&mut self.values_mut()[..len])
    }

    fn values_mut(&mut self) -> &mut [E] {
        let start = self.map.as_mut().map(|m| m.as_mut_ptr().cast());
        // SAFETY: the map has `len` values, starts at a page, and all bits are a value of E
        // (float32 or bfloat16).
        start.map_or(&mut [], |start| unsafe { std::slice::from_raw_parts_mut(start, self.len) })
    }

    pub fn values(&self) -> &[E] {
        let start = self.map.as_ref().map(|m| m.as_ptr().cast());
        // SAFETY: as in `values_mut`.
        start.map_or(&[], |start| unsafe { std::slice::from_raw_parts(start, self.len) })
    }
}

impl<E> Shared<E> {
    /// A slot's values for a batch of `n`.
    ///
    /// # Safety
    /// No other slice of this slot is alive; slots of the same time do not overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slot(&self, slot: Slot, n: usize) -> &mut [E] {
        unsafe { self.slice(slot.start * n, slot.len * n) }
    }
}
