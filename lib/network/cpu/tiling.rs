//! How a layer's input is cut into tiles, and whether the offsets in them fit in 32 bits.

use super::registers::{LANES, padded};
use crate::network::layout::Conv;
use std::ops::Range;

/// Pixels per tile: enough to amortize the tile's set-up and the reading of the weights, if the inner cache
/// has room.
const TILE_PIXELS: Range<usize> = 128..512;
/// Most input values of a tile, unless the tile has the least number of pixels.
const TILE_VALUES: usize = 96 << 10;

/// How a group cuts its input into tiles.
#[derive(Debug, Clone, Copy)]
pub struct Tiling {
    /// Size of an input item.
    pub height: usize,
    pub width: usize,
    /// Zeros around an image in the tile: only for the stem, whose few channels make its taps long.
    pub border: usize,
    /// A tile's items are single pixels, not whole images.
    pub pixels: bool,
    /// Items per tile.
    pub tile: usize,
}

impl Tiling {
    /// For convolutions that read the same images of (height, width).
    pub fn new(convs: &[&Conv], (height, width): (usize, usize)) -> Tiling {
        let (kernel, inputs) = (convs[0].kernel, convs[0].inputs);
        assert!(convs.iter().all(|c| (c.kernel, c.inputs) == (kernel, inputs)));
        let pixels = convs.iter().all(|c| c.kernel == 1 && c.stride == 1);
        let border = if inputs < LANES { kernel / 2 } else { 0 };
        let (height, width) = if pixels { (1, 1) } else { (height, width) };
        let tile_pixels = (TILE_VALUES / inputs).clamp(TILE_PIXELS.start, TILE_PIXELS.end);
        Tiling { height, width, border, pixels, tile: tile_pixels.div_ceil(height * width) }
    }

    /// The most values that a tile has, of the input or of an output. All offsets are below this.
    pub fn values(self, convs: &[&Conv]) -> usize {
        let Tiling { height: h, width: w, border, .. } = self;
        let input = (h + 2 * border) * (w + 2 * border) * padded(convs[0].inputs);
        let outputs = convs.iter().map(|c| c.output(h) * c.output(w) * c.outputs);
        self.tile * outputs.fold(input, usize::max)
    }
}

/// Whether the offsets in the tiles of these convolutions, which read the same images of (height, width),
/// fit in 32 bits. They do not depend on the batch.
pub fn is_addressable(convs: &[&Conv], size: (usize, usize)) -> bool {
    u32::try_from(Tiling::new(convs, size).values(convs)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::layout::{Architecture, Layout, Stem};

    fn convs(stem: Stem, width_factor: usize) -> Layout {
        let units = vec![1, 1, 1, 1];
        Layout::new(&Architecture { channels: 3, units, width_factor, stem, heads: vec![] })
    }

    #[test]
    fn a_tile_too_large_for_its_offsets_is_found() {
        let stem = |width_factor| convs(Stem::Small, width_factor).stem;
        // 2^28 pixels of 16 channels are one value too many, as the offset u32::MAX means outside.
        assert!(!is_addressable(&[&stem(1)], (1 << 14, 1 << 14)));
        assert!(is_addressable(&[&stem(1)], ((1 << 14) - 4, (1 << 14) - 4)));
        // Each image of the widest published network has a tile of its own, whatever the batch.
        let wide = convs(Stem::Imagenet, 16);
        assert!(wide.convs().all(|conv| is_addressable(&[conv], (224, 224))));
        assert!(!is_addressable(&[&convs(Stem::Small, 658).stem], (640, 640)));
    }
}
