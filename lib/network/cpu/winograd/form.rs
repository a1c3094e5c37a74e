//! How a tile is cut into patches.

use std::ops::Range;

/// Values of a block's transformed patches, for the inputs or for the outputs.
const BLOCK_VALUES: usize = 64 << 10;
/// Patches of a block, per channel: at least as many as the matrix product of each position needs rows.
const CHANNEL_VALUES: Range<usize> = 1008..4096;
/// A pixel outside the image.
pub const OUTSIDE: u32 = u32::MAX;

/// The patches of a tile of whole images: `OUT` x `OUT` outputs of `IN` x `IN` inputs.
pub struct Form<const IN: usize, const OUT: usize> {
    /// Input pixels of each patch.
    pub inputs: Vec<[[u32; IN]; IN]>,
    /// Output pixels of each patch.
    pub outputs: Vec<[[u32; OUT]; OUT]>,
    /// Offsets of the outputs inside the image, patch by patch, and the index of each patch's first one.
    pub to: Vec<u32>,
    pub first: Vec<u32>,
    /// Patches per image.
    per_image: usize,
    /// Input and output channels.
    pub channels: usize,
    /// Patches per block.
    block: usize,
}

impl<const IN: usize, const OUT: usize> Form<IN, OUT> {
    /// Positions of a transformed patch.
    pub const POSITIONS: usize = IN * IN;

    /// For tiles of `tile` images of (height, width).
    pub fn new(channels: usize, (h, w): (usize, usize), tile: usize) -> Form<IN, OUT> {
        let (ph, pw) = (h.div_ceil(OUT), w.div_ceil(OUT));
        let pixel = |image: usize, y: usize, x: usize| match y < h && x < w {
            true => ((image * h + y) * w + x) as u32,
            false => OUTSIDE,
        };
        let all =
            (0..tile).flat_map(|i| (0..ph * pw).map(move |p| (i, p / pw * OUT, p % pw * OUT)));
        let outputs = all.clone().map(|(image, y, x)| {
            std::array::from_fn(|i| std::array::from_fn(|j| pixel(image, y + i, x + j)))
        });
        let outputs: Vec<[[u32; OUT]; OUT]> = outputs.collect();
        let mut to = Vec::new();
        let mut first = Vec::new();
        for patch in &outputs {
            first.push(to.len() as u32);
            let inside = patch.as_flattened().iter().filter(|&&p| p != OUTSIDE);
            to.extend(inside.map(|p| p * channels as u32));
        }
        // A row or column before the first wraps around and is outside.
        let before = |i: usize, j: usize| (i + j).wrapping_sub(1);
        let inputs = all.map(|(image, y, x)| {
            std::array::from_fn(|i| {
                std::array::from_fn(|j| pixel(image, before(y, i), before(x, j)))
            })
        });
        Form {
            inputs: inputs.collect(),
            outputs,
            to,
            first,
            per_image: ph * pw,
            channels,
            block: (BLOCK_VALUES / channels).clamp(CHANNEL_VALUES.start, CHANNEL_VALUES.end)
                / Self::POSITIONS,
        }
    }

    /// Values from one position to the next: an odd number of cache lines.
    pub fn position(&self, channels: usize) -> usize {
        self.block * channels + 16
    }

    /// Blocks of the patches of `images` images, of nearly equal size.
    pub fn blocks(&self, images: usize) -> impl Iterator<Item = Range<usize>> {
        let all = images * self.per_image;
        let block = all.div_ceil(all.div_ceil(self.block));
        (0..all).step_by(block).map(move |p| p..(p + block).min(all))
    }
}
