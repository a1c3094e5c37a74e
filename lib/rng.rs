//! Randomness by key, not by order: a generator is a pure function of
//! (seed, stream, epoch, sample), so adding a stream never shifts another one and any position of
//! a run can be resumed.

use rand::SeedableRng;
pub use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

/// What a random number is used for. The discriminants are part of the results: never renumber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    Init = 0,
    Subset = 1,
    Validation = 2,
    LabelledOrder = 3,
    UnlabelledOrder = 4,
    LabelledAugment = 5,
    UnlabelledAugment = 6,
    VatDirection = 7,
    BatchNormOrder = 8,
    BatchNormAugment = 9,
    Bootstrap = 10,
    Sheet = 11,
}

/// ChaCha8 keyed with the four numbers themselves (4 x 64 bit = its 256-bit key).
pub fn rng(seed: u64, stream: Stream, epoch: u64, sample: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip([seed, stream as u64, epoch, sample]) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A uniform permutation of `0..n` (Fisher-Yates).
pub fn permutation(rng: &mut impl Rng, n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, rng.random_range(0..=i));
    }
    order
}
