//! How a pass over a layer is split into tasks for the threads: tiles, which its sums follow, and blocks of channels,
//! which no sum crosses. So any number of blocks gives the same bytes, and the fastest is taken.

use super::geometry::Group;
use std::ops::Range;

/// Channels per block are a multiple of this: a whole number of weight panels of any instruction set.
pub const BLOCK: usize = 32;
/// The time in which a task loads a tile, if all channels of a tile take 1 to compute.
const LOAD: f64 = 0.25;
/// The pixels are split into at most this many chunks for the weight gradient. The order of the sums depends on this
/// number, and so do the bytes of trained models.
const CHUNKS: usize = 64;
const PARTIAL_WEIGHTS: usize = 512 << 10;

/// The tasks of a backward pass: chunks of tiles, each with its own partial sums, and blocks of input channels.
#[derive(Clone, Copy)]
pub struct Grid {
    pub tiles: usize,
    pub chunks: usize,
    /// Tiles per chunk.
    pub chunk: usize,
    pub blocks: usize,
    /// Channels per block.
    pub block: usize,
    /// The gradient of the input has tasks of its own, one for each tile, after those of the chunks.
    pub apart: bool,
}

impl Grid {
    pub fn tasks(&self) -> usize {
        (self.chunks + if self.apart { self.tiles } else { 0 }) * self.blocks
    }

    /// The block and the tiles of a task, and whether it computes their gradient of the weights, and of the input.
    pub fn task(&self, task: usize) -> (usize, Range<usize>, bool, bool) {
        match task.checked_sub(self.chunks * self.blocks) {
            Some(task) => {
                let tile = task % self.tiles;
                (task / self.tiles, tile..tile + 1, false, true)
            }
            None => {
                let first = task % self.chunks * self.chunk;
                let tiles = first..(first + self.chunk).min(self.tiles);
                (task / self.chunks, tiles, true, !self.apart)
            }
        }
    }

    /// The time of a pass of `gradients` gradients over `inputs` channels on so many threads.
    fn time(&self, gradients: f64, inputs: usize, threads: usize) -> f64 {
        let share = self.block as f64 / inputs as f64;
        if !self.apart {
            let chunk = self.chunk as f64 * (gradients * share + LOAD);
            return rounds(self.chunks * self.blocks, threads) * chunk;
        }
        let tile = share + LOAD;
        let all = (2 * self.tiles * self.blocks) as f64 * tile;
        (self.chunk as f64 * tile).max(all / threads as f64) + tile
    }
}

impl Group {
    /// Channels per block, for `parts` parts that have all blocks of the `channels` each.
    pub fn block(parts: usize, threads: usize, channels: usize) -> usize {
        fastest(blocks(channels), |&block| {
            let share = block as f64 / channels as f64;
            rounds(parts * channels.div_ceil(block), threads) * (share + LOAD)
        })
    }

    /// The tasks of a backward pass over this many tiles: `weights` and `input` are the gradients that it computes.
    pub fn grid(&self, tiles: usize, threads: usize, weights: bool, input: bool) -> Grid {
        let chunk = tiles.div_ceil(self.most_chunks().min(tiles));
        let chunks = tiles.div_ceil(chunk);
        let grids = blocks(self.inputs).flat_map(|block| {
            let blocks = self.inputs.div_ceil(block);
            let ways: &[bool] = if weights && input { &[false, true] } else { &[false] };
            ways.iter().map(move |&apart| Grid { tiles, chunks, chunk, blocks, block, apart })
        });
        let gradients = f64::from(u8::from(weights) + u8::from(input));
        fastest(grids, |grid| grid.time(gradients, self.inputs, threads))
    }

    fn most_chunks(&self) -> usize {
        CHUNKS.min(PARTIAL_WEIGHTS.div_ceil(self.gradient_values()))
    }

    /// The most values of the partial sums of all chunks.
    pub fn partial_values(&self) -> usize {
        self.most_chunks() * self.gradient_values()
    }
}

/// Sizes of blocks, from the largest.
fn blocks(channels: usize) -> impl Iterator<Item = usize> {
    (1..=channels.div_ceil(BLOCK)).rev().map(|blocks| blocks * BLOCK)
}

/// The tasks of the thread that has the most.
fn rounds(tasks: usize, threads: usize) -> f64 {
    tasks.div_ceil(threads) as f64
}

/// The first of the fastest.
fn fastest<T>(of: impl Iterator<Item = T>, time: impl Fn(&T) -> f64) -> T {
    of.min_by(|a, b| time(a).total_cmp(&time(b))).expect("a layer has channels")
}
