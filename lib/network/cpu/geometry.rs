//! What a convolution must know about its tiles before the first image: which input values meet which
//! weights at which pixels, for forward and backward.
//!
//! Taps that fall on the zero padding are left out: pixels with the same taps form one part.

use super::convolve::Tap;
use super::isa::Isa;
use super::packing::{KernelMatrix, Way};
use super::registers::padded;
use super::tiling::{Tiling, is_addressable};
use super::winograd::Patches;
use crate::network::layout::Conv;
use std::collections::BTreeMap;
use std::ops::Range;

/// Pixels with the same taps.
pub struct Part {
    /// Offset in the output tile.
    pub to: Vec<u32>,
    /// Per operand: the pixel's offset in the tile of the operand, and its taps.
    pub from: Vec<(Vec<u32>, Vec<Tap>)>,
    /// Pixels per item of the tile.
    pub per_item: usize,
}

/// Pixels that meet one position of the kernel.
pub struct WeightTap {
    /// Consecutive rows of the kernel.
    pub row: usize,
    pub depth: usize,
    /// Runs of pixels: the first pixel in the input, and in the gradient.
    pub runs: Vec<(u32, u32)>,
    pub per_item: usize,
    pub width: usize,
}

/// One convolution with the tables of a tile.
pub struct TiledConv {
    pub conv: Conv,
    pub forward: Vec<Part>,
    pub weight_taps: Vec<WeightTap>,
    /// Output pixels per item.
    pub out_pixels: usize,
    /// Used in place of the tables above.
    pub patches: Option<Patches>,
    /// Values are multiplied in pairs (see `multiply::Pairs`).
    pub pairs: bool,
}

impl TiledConv {
    fn new(
        conv: &Conv,
        (h, w): (usize, usize),
        border: usize,
        tile: usize,
        pairs: bool,
    ) -> TiledConv {
        let patches = Patches::new(conv, (h, w), tile, pairs);
        let (forward, weight_taps) = match patches {
            None => {
                (forward_parts(conv, (h, w), border, tile), weight_taps(conv, (h, w), border, tile))
            }
            Some(_) => Default::default(),
        };
        TiledConv {
            conv: conv.clone(),
            forward,
            weight_taps,
            out_pixels: conv.output(h) * conv.output(w),
            pairs: pairs && border == 0 && patches.is_none(),
            patches,
        }
    }

    /// Values of the weight gradient's partial sums.
    pub fn gradient_values(&self) -> usize {
        match &self.patches {
            Some(patches) => patches.gradient_values(),
            None => self.conv.range().len(),
        }
    }

    fn matrix(&self) -> KernelMatrix<'_> {
        KernelMatrix { conv: &self.conv, pairs: self.pairs }
    }

    /// Rows of packed words.
    pub fn rows(&self, way: Way) -> usize {
        self.matrix().rows(way)
    }

    /// Words of the packed weights.
    pub fn packed_words(&self, way: Way) -> usize {
        match &self.patches {
            Some(patches) => patches.packed_words(),
            None => self.matrix().words(way),
        }
    }

    fn pack(&self, isa: Isa, weights: &[f32], way: Way, packed: &mut [f32]) {
        match &self.patches {
            Some(patches) => patches.pack(isa, weights, way, packed),
            None => self.matrix().pack(isa, weights, way, packed),
        }
    }
}

/// One or two convolutions that read the same input.
pub struct Group {
    /// Size of an input item.
    pub height: usize,
    pub width: usize,
    pub inputs: usize,
    /// Zeros around an image in the tile: only for the stem, whose few channels make its taps long.
    pub border: usize,
    /// A tile's items are single pixels, not whole images.
    pub pixels: bool,
    /// Items per image.
    pub image_items: usize,
    /// Items per tile.
    pub tile: usize,
    pub convs: Vec<TiledConv>,
    /// Input gradient: one operand per convolution.
    pub backward: Vec<Part>,
}

/// Kernel positions along one axis that meet an input inside the image.
fn inside(conv: &Conv, at: usize, size: usize, pad: usize) -> Range<usize> {
    let first = at * conv.stride;
    pad.saturating_sub(first)..conv.kernel.min((size + pad).saturating_sub(first))
}

/// Kernel positions along one axis through which an input row meets an output row, descending, and the
/// first of these output rows.
fn reaching(conv: &Conv, at: usize, size: usize) -> (Vec<usize>, usize) {
    let pad = conv.kernel / 2;
    let taps: Vec<usize> = (0..conv.kernel)
        .rev()
        .filter(|k| at + pad >= *k && (at + pad - k).is_multiple_of(conv.stride))
        .filter(|k| (at + pad - k) / conv.stride < conv.output(size))
        .collect();
    let first = taps.first().map_or(0, |k| (at + pad - k) / conv.stride);
    (taps, first)
}

/// Joins each tap that continues the previous one.
fn joined(taps: impl Iterator<Item = Tap>) -> Vec<Tap> {
    let mut all: Vec<Tap> = Vec::new();
    for tap in taps {
        match all.last_mut() {
            Some(t) if (t.offset + t.depth, t.row + t.depth) == (tap.offset, tap.row) => {
                t.depth += tap.depth;
            }
            _ => all.push(tap),
        }
    }
    all
}

impl Group {
    /// `pairs`: values are multiplied in pairs if possible.
    pub fn new(convs: &[&Conv], (height, width): (usize, usize), pairs: bool) -> Group {
        assert!(is_addressable(convs, (height, width)));
        let tiling = Tiling::new(convs, (height, width));
        let Tiling { height: h, width: w, border, pixels, tile } = tiling;
        let originals = convs;
        let convs: Vec<_> =
            convs.iter().map(|conv| TiledConv::new(conv, (h, w), border, tile, pairs)).collect();
        Group {
            height: h,
            width: w,
            inputs: originals[0].inputs,
            border,
            pixels,
            image_items: height * width / (h * w),
            tile,
            backward: match &convs[..] {
                [TiledConv { patches: Some(_), .. }] => Vec::new(),
                _ => backward_parts(originals, (h, w), tile),
            },
            convs,
        }
    }

    /// Pixels per input item, without and with the border around it.
    pub fn item_pixels(&self) -> usize {
        self.height * self.width
    }

    pub fn bordered_pixels(&self) -> usize {
        (self.height + 2 * self.border) * (self.width + 2 * self.border)
    }

    /// Words of the packed weights of all convolutions.
    pub fn packed_words(&self, way: Way) -> usize {
        self.convs.iter().map(|p| p.packed_words(way)).sum()
    }

    /// Values of the partial sums of the weight gradients, for one chunk.
    pub fn gradient_values(&self) -> usize {
        self.convs.iter().map(TiledConv::gradient_values).sum()
    }

    /// Packs the kernels among `parameters`, one convolution after the other, into
    /// `packed_words` words.
    pub fn pack(&self, isa: Isa, parameters: &[f32], way: Way, packed: &mut [f32]) {
        let mut rest = packed;
        for p in &self.convs {
            let (packed, after) = rest.split_at_mut(p.packed_words(way));
            p.pack(isa, &parameters[p.conv.range()], way, packed);
            rest = after;
        }
    }
}

/// Output pixels by their taps.
fn forward_parts(conv: &Conv, (h, w): (usize, usize), border: usize, tile: usize) -> Vec<Part> {
    let (k, s, ci, co) = (conv.kernel, conv.stride, conv.inputs, conv.outputs);
    let (oh, ow) = (conv.output(h), conv.output(w));
    let (h, w, pad) = (h + 2 * border, w + 2 * border, k / 2 - border);
    let mut classes: BTreeMap<_, Vec<(usize, usize)>> = BTreeMap::new();
    for y in 0..oh {
        for x in 0..ow {
            let (ky, kx) = (inside(conv, y, h, pad), inside(conv, x, w, pad));
            let class = (ky.start, ky.end, kx.start, kx.end);
            classes.entry(class).or_default().push((y, x));
        }
    }
    let part = |((ky0, ky1, kx0, kx1), pixels): (_, Vec<(usize, usize)>)| {
        let all = || (0..tile).flat_map(|i| pixels.iter().map(move |&(y, x)| (i, y, x)));
        let from = |(i, y, x)| ((i * h + y * s + ky0 - pad) * w + x * s + kx0 - pad) * ci;
        let taps = (ky0..ky1).flat_map(|ky| {
            (kx0..kx1).map(move |kx| Tap {
                offset: ((ky - ky0) * w + kx - kx0) * ci,
                depth: ci,
                row: (ky * k + kx) * ci,
            })
        });
        Part {
            to: all().map(|(i, y, x)| (((i * oh + y) * ow + x) * co) as u32).collect(),
            from: vec![(all().map(|p| from(p) as u32).collect(), joined(taps))],
            per_item: pixels.len(),
        }
    };
    classes.into_iter().map(part).collect()
}

/// Kernel rows and columns through which a pixel receives gradient.
type Reaching = (Vec<usize>, Vec<usize>);

/// Input pixels by the taps through which they receive gradient from each convolution.
fn backward_parts(convs: &[&Conv], (h, w): (usize, usize), tile: usize) -> Vec<Part> {
    let mut classes: BTreeMap<_, Vec<(usize, usize)>> = BTreeMap::new();
    for y in 0..h {
        for x in 0..w {
            let taps = |c: &&Conv| (reaching(c, y, h).0, reaching(c, x, w).0);
            let class: Vec<_> = convs.iter().map(taps).collect();
            classes.entry(class).or_default().push((y, x));
        }
    }
    let part = |(class, pixels): (Vec<Reaching>, Vec<(usize, usize)>)| {
        let all = || (0..tile).flat_map(|i| pixels.iter().map(move |&(y, x)| (i, y, x)));
        let from = convs.iter().zip(&class).map(|(c, (kys, kxs))| {
            let (k, s, co) = (c.kernel, c.stride, c.outputs);
            let (oh, ow) = (c.output(h), c.output(w));
            let from = |(i, y, x)| {
                let (y, x) = (reaching(c, y, h).1, reaching(c, x, w).1);
                (((i * oh + y) * ow + x) * co) as u32
            };
            let taps = kys.iter().flat_map(|ky| {
                kxs.iter().map(move |kx| Tap {
                    offset: ((kys[0] - ky) / s * ow + (kxs[0] - kx) / s) * co,
                    depth: co,
                    row: (k * k - 1 - (ky * k + kx)) * co,
                })
            });
            (all().map(from).collect(), joined(taps))
        });
        Part {
            to: all()
                .map(|(i, y, x)| (((i * h + y) * w + x) * padded(convs[0].inputs)) as u32)
                .collect(),
            from: from.collect(),
            per_item: pixels.len(),
        }
    };
    classes.into_iter().map(part).collect()
}

/// The pixels that meet each kernel position.
fn weight_taps(conv: &Conv, (h, w): (usize, usize), border: usize, tile: usize) -> Vec<WeightTap> {
    let (k, s, ci) = (conv.kernel, conv.stride, conv.inputs);
    let (oh, ow) = (conv.output(h), conv.output(w));
    let (h, w, pad) = (h + 2 * border, w + 2 * border, k / 2 - border);
    let outputs = |tap: usize, size: usize, out: usize| -> Range<usize> {
        let all = (0..out).filter(|o| (pad..size + pad).contains(&(o * s + tap)));
        let first = all.clone().next().unwrap_or(0);
        first..first + all.count()
    };
    let mut all: Vec<WeightTap> = Vec::new();
    for t in 0..k * k {
        let (ky, kx) = (t / k, t % k);
        let (rows, columns) = (outputs(ky, h, oh), outputs(kx, w, ow));
        if border > 0 && kx > 0 {
            // Inside the border all positions of a kernel row meet all pixels.
            if let Some(last) = all.last_mut() {
                last.depth += ci;
                continue;
            }
        }
        // Rows as long as the image continue in the next row.
        let (starts, width) = if s == 1 && columns.len() == w && !rows.is_empty() {
            (rows.start..rows.start + 1, rows.len() * w)
        } else {
            (rows, columns.len())
        };
        let runs = (0..tile).flat_map(|i| {
            let x = columns.start;
            starts.clone().map(move |y| {
                let input = (i * h + y * s + ky - pad) * w + x * s + kx - pad;
                (input as u32, ((i * oh + y) * ow + x) as u32)
            })
        });
        let runs: Vec<_> = match columns.is_empty() {
            true => Vec::new(),
            false => runs.collect(),
        };
        all.push(WeightTap { row: t * ci, depth: ci, per_item: runs.len() / tile, runs, width });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::layout::{Architecture, Layout, Stem};

    fn convs(stem: Stem, width_factor: usize) -> Layout {
        let units = vec![1, 1, 1, 1];
        Layout::new(&Architecture { channels: 3, units, width_factor, stem, heads: vec![] })
    }

    /// All offsets in the tables of a group, with the values that are read or written there.
    fn offsets(group: &Group) -> Vec<(u32, usize)> {
        let mut all = Vec::new();
        let of_parts = |parts: &[Part], columns: usize, all: &mut Vec<_>| {
            for part in parts {
                all.extend(part.to.iter().map(|&to| (to, columns)));
                for (from, taps) in &part.from {
                    let reach = taps.iter().map(|t| t.offset + t.depth).max().unwrap_or(0);
                    all.extend(from.iter().map(|&from| (from, reach)));
                }
            }
        };
        of_parts(&group.backward, padded(group.inputs), &mut all);
        for conv in &group.convs {
            let c = conv.conv.outputs;
            of_parts(&conv.forward, c, &mut all);
            match &conv.patches {
                Some(Patches::Small(form)) => all.extend(form.to.iter().map(|&to| (to, c))),
                Some(Patches::Large(form)) => all.extend(form.to.iter().map(|&to| (to, c))),
                None => {}
            }
        }
        all
    }

    #[test]
    fn offsets_stay_inside_the_values_of_a_tile() {
        for (stem, width_factor, size) in [
            (Stem::Small, 1, (9, 13)),
            (Stem::Imagenet, 2, (20, 20)),
            (Stem::SmallStride2, 1, (32, 8)),
        ] {
            let layout = convs(stem, width_factor);
            for conv in layout.convs() {
                let values = Tiling::new(&[conv], size).values(&[conv]);
                let group = Group::new(&[conv], size, false);
                let last = offsets(&group).iter().map(|&(at, len)| at as usize + len).max();
                assert!(last.unwrap() <= values, "{}: {last:?}, {values}", conv.name);
            }
        }
    }
}
