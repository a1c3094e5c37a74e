//! Numbers of names, found by the hashes of the names: 12 bytes per name; a map takes up to 34.

use rayon::prelude::*;

#[derive(Debug, Default)]
pub struct Index {
    /// Hashes of the names, in order.
    hashes: Vec<u64>,
    /// The number of the name of each hash; equal hashes are in the order of their numbers.
    numbers: Vec<u32>,
    /// The start of the hashes whose first bits are 0, 1, ..: about 16 hashes each.
    starts: Vec<u32>,
}

impl Index {
    pub fn new(hashes: Vec<u64>) -> Index {
        let mut pairs: Vec<(u64, u32)> = hashes.into_iter().zip(0..).collect();
        pairs.par_sort_unstable();
        let (hashes, numbers): (Vec<u64>, Vec<u32>) = pairs.into_iter().unzip();
        let places = (hashes.len() / 16).next_power_of_two().max(2);
        let mut index = Index { hashes, numbers, starts: vec![0; places + 1] };
        for i in 0..index.hashes.len() {
            let place = index.place(index.hashes[i]);
            index.starts[place + 1] = i as u32 + 1;
        }
        // A range without hashes begins at the end of the range before.
        for place in 1..index.starts.len() {
            index.starts[place] = index.starts[place].max(index.starts[place - 1]);
        }
        index
    }

    /// The first bits of a hash.
    fn place(&self, hash: u64) -> usize {
        (hash >> (64 - (self.starts.len() - 1).ilog2())) as usize
    }

    /// The numbers of all names with a hash, in order.
    pub fn all(&self, hash: u64) -> impl DoubleEndedIterator<Item = usize> + '_ {
        let place = match self.starts.len() {
            0 => 0..0,
            _ => self.starts[self.place(hash)] as usize..self.starts[self.place(hash) + 1] as usize,
        };
        let hashes = &self.hashes[place.clone()];
        let first = hashes.partition_point(|&other| other < hash);
        let count = hashes[first..].iter().take_while(|&&other| other == hash).count();
        let start = place.start + first;
        self.numbers[start..start + count].iter().map(|&number| number as usize)
    }

    /// Numbers of two names, one before the other, that have one hash.
    pub fn repeated(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let pairs = self.numbers.windows(2).zip(self.hashes.windows(2));
        let pairs = pairs.filter(|(_, hashes)| hashes[0] == hashes[1]);
        pairs.map(|(numbers, _)| (numbers[0] as usize, numbers[1] as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_their_hashes() {
        let few = |count: u64| (0..count).map(|i| hash_of(i / 2)).collect::<Vec<u64>>();
        for count in [0, 1, 2, 31, 32, 1000] {
            let index = Index::new(few(count));
            for i in 0..count {
                let (first, second) = (i / 2 * 2, (i / 2 * 2 + 1).min(count - 1));
                let expected: Vec<usize> = (first as usize..=second as usize).collect();
                assert_eq!(index.all(hash_of(i / 2)).collect::<Vec<_>>(), expected, "{count}");
            }
            for absent in [0, 1, u64::MAX, hash_of(count)] {
                assert_eq!(index.all(absent).count(), 0, "{count} {absent}");
            }
            assert_eq!(index.repeated().count() as u64, count / 2);
        }
    }

    fn hash_of(i: u64) -> u64 {
        (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
