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

    /// Begins to add up each value over the ranks, in their order, while this rank goes on with other work.
    fn begin_sum(&self, own: Vec<f32>) -> Result<()>;

    /// Waits for the first of the sums that were begun and have not been asked for.
    fn end_sum(&self) -> Result<Vec<f32>>;

    /// Time that this rank has waited in these calls up to now, for ranks that come later too.
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

    fn begin_sum(&self, _own: Vec<f32>) -> Result<()> {
        Err(nobody())
    }

    fn end_sum(&self) -> Result<Vec<f32>> {
        Err(nobody())
    }

    fn spent(&self) -> Duration {
        Duration::ZERO
    }
}

fn nobody() -> Error {
    Error::Internal("a sum over one rank".into())
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

/// Adds up a gradient over the ranks, from its end on, beside the backward pass that makes it.
pub struct GradientSum {
    ranks: Ranks,
    /// The sums of the values from here on have begun.
    begun: usize,
    values: usize,
}

/// Values of one sum: enough that its time is more than the messages' latency, few enough that a small
/// network has several.
const BUCKET: usize = 1 << 18;

impl GradientSum {
    /// Of a gradient of so many values.
    pub fn new(ranks: Ranks, values: usize) -> GradientSum {
        GradientSum { ranks, begun: values, values }
    }

    /// The gradient is whole from this value on: nothing will be added there before the sum.
    pub fn whole_from(&mut self, gradient: &[f32], from: usize) -> Result<()> {
        if self.ranks.size() == 1 {
            return Ok(());
        }
        while self.begun > from && (self.begun - from >= BUCKET || from == 0) {
            let start = self.begun.saturating_sub(BUCKET);
            self.ranks.begin_sum(gradient[start..self.begun].to_vec())?;
            self.begun = start;
        }
        Ok(())
    }

    /// Puts the sums in the place of all values.
    pub fn end(&mut self, gradient: &mut [f32]) -> Result<()> {
        self.whole_from(gradient, 0)?;
        let mut end = self.values;
        while end > self.begun {
            let start = end.saturating_sub(BUCKET);
            gradient[start..end].copy_from_slice(&self.ranks.end_sum()?);
            end = start;
        }
        self.begun = self.values;
        Ok(())
    }
}
