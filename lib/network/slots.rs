//! Where buffers lie in one block of memory: those that are never needed at the same time share it. The layout
//! is computed before the first step, for one image; a batch scales it.

use std::ops::RangeInclusive;

/// A buffer's place in the block, in values per image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    pub start: usize,
    pub len: usize,
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
