//! One block of memory for all activations and their gradients. Buffers that are never needed at the same
//! time share memory. The layout is computed before the first step, for one image; a batch scales it.

use super::shared::Shared;
use crate::error::Result;
use crate::memory;
use memmap2::{Advice, MmapMut};
use std::marker::PhantomData;
use std::ops::RangeInclusive;

/// A buffer's place in the arena, in values per image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    start: usize,
    len: usize,
}

/// Buffers to place: length, and the first and last moment at which each one is needed.
#[derive(Default)]
pub struct Requests {
    buffers: Vec<(usize, RangeInclusive<usize>)>,
}

impl Requests {
    /// Asks for `len` values for the `life`; returns the buffer's number.
    pub fn add(&mut self, len: usize, life: RangeInclusive<usize>) -> usize {
        self.buffers.push((len, life));
        self.buffers.len() - 1
    }

    /// Places the largest buffer first, each at the lowest offset that is free of the buffers of the same
    /// time. Returns the slots by number, and the total number of values per image.
    pub fn place(&self) -> (Vec<Slot>, usize) {
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.buffers[i].0));
        let mut slots = vec![Slot::default(); self.buffers.len()];
        let mut placed: Vec<usize> = Vec::new();
        for i in order {
            let (len, life) = &self.buffers[i];
            let mut taken: Vec<Slot> = placed
                .iter()
                .filter(|&&j| {
                    let other = &self.buffers[j].1;
                    life.start() <= other.end() && other.start() <= life.end()
                })
                .map(|&j| slots[j])
                .collect();
            taken.sort_by_key(|s| s.start);
            let mut start = 0;
            for s in taken {
                if s.start >= start + len {
                    break;
                }
                start = start.max(s.start + s.len);
            }
            slots[i] = Slot { start, len: *len };
            placed.push(i);
        }
        let end = slots.iter().map(|s| s.start + s.len).max().unwrap_or(0);
        (slots, end)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_together_lies_apart() {
        let mut requests = Requests::default();
        let lives = [(10, 0..=3), (20, 1..=2), (30, 3..=5), (5, 0..=5), (20, 4..=5)];
        for (len, life) in &lives {
            requests.add(*len, life.clone());
        }
        let (slots, total) = requests.place();
        for (i, (_, a)) in lives.iter().enumerate() {
            for (j, (_, b)) in lives.iter().enumerate().take(i) {
                let meet = a.start() <= b.end() && b.start() <= a.end();
                let (s, t) = (slots[i], slots[j]);
                assert!(!meet || s.start + s.len <= t.start || t.start + t.len <= s.start);
            }
        }
        // At the end, 30 + 20 + 5 values are needed.
        assert_eq!(total, 55);
    }
}
