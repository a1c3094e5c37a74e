//! Several processes that train one model together: ranks, each with its share of every batch. What crosses
//! between them are batch statistics, logits and gradients, and all of it is added in the order of ranks, so
//! the same ranks give the same bytes.

use crate::error::{Error, Result};
use bytemuck::Pod;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// One rank's end of the connections between all ranks. Every rank makes the same calls in the same order.
pub trait Communicator: Send + Sync {
    /// Which of the ranks this is, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Puts what each rank gives, in the order of ranks, into `all`. Every rank gives as much.
    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()>;

    /// Sends the r-th of `size` equal blocks of `own` to rank r, and puts the blocks that come, in the order
    /// of ranks, into `all`.
    fn exchange(&self, own: &[u8], all: &mut [u8]) -> Result<()>;

    /// Time that both have taken up to now, waiting for ranks that come later included.
    fn spent(&self) -> Duration;
}

/// The connections as the parts of a run share them.
pub type Ranks = Arc<dyn Communicator>;

/// One process that trains alone.
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        all.copy_from_slice(own);
        Ok(())
    }

    fn exchange(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        all.copy_from_slice(own);
        Ok(())
    }

    fn spent(&self) -> Duration {
        Duration::ZERO
    }
}

/// Which rank of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub rank: usize,
    pub size: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Share = Share { rank: 0, size: 1 };

    /// This rank's of `n` things, which all ranks share equally.
    pub fn of(self, n: usize) -> Range<usize> {
        let each = n / self.size;
        self.rank * each..(self.rank + 1) * each
    }

    /// This rank's rows of all.
    pub fn rows(self, parts: Parts) -> impl Iterator<Item = usize> {
        let second = self.of(parts[1]);
        self.of(parts[0]).chain(parts[0] + second.start..parts[0] + second.end)
    }
}

/// The rows of a pass on all ranks: the unlabelled ones, then the labelled ones. Each rank has an equal share
/// of both.
pub type Parts = [usize; 2];

impl dyn Communicator + '_ {
    /// Which rank of how many.
    pub fn share(&self) -> Share {
        Share { rank: self.rank(), size: self.size() }
    }

    /// What each rank gives, in the order of ranks. Every rank gives as many values.
    pub fn gathered<T: Pod>(&self, own: &[T]) -> Result<Vec<T>> {
        let mut all = vec![T::zeroed(); own.len() * self.size()];
        self.gather(bytemuck::cast_slice(own), bytemuck::cast_slice_mut(&mut all))?;
        Ok(all)
    }

    /// Of rows of `values` each in the order of this rank, those of all ranks in the order of `parts`.
    pub fn gathered_rows(&self, own: Vec<f32>, values: usize, parts: Parts) -> Result<Vec<f32>> {
        if self.size() == 1 {
            return Ok(own);
        }
        let first = parts[0] / self.size() * values;
        let all = self.gathered(&own)?;
        let part = |range: fn(usize, usize) -> Range<usize>| {
            all.chunks_exact(own.len()).flat_map(move |rank| &rank[range(first, rank.len())])
        };
        Ok(part(|first, _| 0..first).chain(part(|first, end| first..end)).copied().collect())
    }

    /// Of rows of `values` each in the order of `parts`, those of this rank in its order.
    pub fn own_rows(&self, all: Vec<f32>, values: usize, parts: Parts) -> Vec<f32> {
        match self.size() {
            1 => all,
            _ => {
                let rows = self.share().rows(parts);
                rows.flat_map(|row| &all[row * values..(row + 1) * values]).copied().collect()
            }
        }
    }

    /// Adds up each value over the ranks, in their order.
    pub fn sum(&self, values: &mut [f32]) -> Result<()> {
        let size = self.size();
        if size == 1 {
            return Ok(());
        }
        // Each rank adds up one block of a piece.
        let mut own = vec![0f32; PIECE.min(values.len()).next_multiple_of(size)];
        let mut parts = own.clone();
        for piece in values.chunks_mut(PIECE) {
            let padded = piece.len().next_multiple_of(size);
            let (own, parts) = (&mut own[..padded], &mut parts[..padded]);
            own[..piece.len()].copy_from_slice(piece);
            own[piece.len()..].fill(0.0);
            self.exchange(bytemuck::cast_slice(own), bytemuck::cast_slice_mut(parts))?;
            let (sum, others) = parts.split_at_mut(padded / size);
            for other in others.chunks_exact(sum.len()) {
                sum.iter_mut().zip(other).for_each(|(s, o)| *s += o);
            }
            self.gather(bytemuck::cast_slice(sum), bytemuck::cast_slice_mut(own))?;
            piece.copy_from_slice(&own[..piece.len()]);
        }
        Ok(())
    }

    /// Whether any rank says so.
    pub fn any(&self, own: bool) -> Result<bool> {
        match self.size() {
            1 => Ok(own),
            _ => Ok(self.gathered(&[u8::from(own)])?.contains(&1)),
        }
    }

    /// Waits until every rank has come here. If one comes with an error, all end with its exit code.
    pub fn agree<T>(&self, own: Result<T>) -> Result<T> {
        if self.size() == 1 {
            return own;
        }
        let codes = self.gathered(&[own.as_ref().map_or_else(Error::exit_code, |_| 0)])?;
        match codes.iter().position(|&code| code != 0) {
            Some(rank) if rank != self.rank() => Err(Error::Rank { rank, code: codes[rank] }),
            _ => own,
        }
    }
}

/// Values that are added up at once; bounds the memory that it takes.
const PIECE: usize = 1 << 20;
