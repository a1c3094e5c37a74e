//! What a convolution needs to know of its tiles before the first image: which input values meet
//! which weights at which pixels, in both directions, and how its weights are packed.
//!
//! Taps that fall on the zero padding are left out: pixels are sorted into parts by the taps that
//! they have.

use super::convolve::Tap;
use super::element::Element;
use super::isa::Isa;
use super::multiply::pair;
use super::registers::{LANES, padded, panel_width};
use super::winograd::Patches;
use crate::network::layout::Conv;
use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

/// Pixels of a tile: enough to amortize its set-up and the reading of the weights, where the inner
/// cache allows.
const TILE_PIXELS: Range<usize> = 128..512;
/// Input values of a tile of more than the least number of pixels.
const TILE_VALUES: usize = 96 << 10;

/// Pixels with the same taps.
pub(super) struct Part {
    /// Offset in the output tile.
    pub(super) to: Vec<u32>,
    /// For each operand: offset in its tile, and taps.
    pub(super) from: Vec<(Vec<u32>, Vec<Tap>)>,
    /// Pixels of one unit of the tile.
    pub(super) per_unit: usize,
}

/// Pixels that one kernel position meets.
pub(super) struct WeightTap {
    /// Consecutive rows of the kernel.
    pub(super) row: usize,
    pub(super) depth: usize,
    /// Runs of pixels: the first one in the input, and in the gradient.
    pub(super) runs: Vec<(u32, u32)>,
    pub(super) per_unit: usize,
    pub(super) width: usize,
}

/// Which way a convolution's weights are used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Direction {
    Forward,
    /// For the gradient of the input.
    Backward,
}

/// One convolution with the tables of a tile.
pub(super) struct Planned {
    pub(super) conv: Conv,
    pub(super) forward: Vec<Part>,
    pub(super) weight_taps: Vec<WeightTap>,
    /// Output pixels of a unit.
    pub(super) out_pixels: usize,
    /// In place of the tables above.
    pub(super) patches: Option<Patches>,
    /// Values are multiplied in pairs (see `multiply::Pairs`).
    pub(super) pairs: bool,
}

impl Planned {
    fn new(
        conv: &Conv,
        (h, w): (usize, usize),
        border: usize,
        tile: usize,
        pairs: bool,
    ) -> Planned {
        let patches = Patches::new(conv, (h, w), tile);
        let (forward, weight_taps) = match patches {
            None => (forward(conv, (h, w), border, tile), weight_taps(conv, (h, w), border, tile)),
            Some(_) => Default::default(),
        };
        Planned {
            conv: conv.clone(),
            forward,
            weight_taps,
            out_pixels: conv.output(h) * conv.output(w),
            pairs: pairs && border == 0 && patches.is_none(),
            patches,
        }
    }

    /// Values of the weight gradient's partial sums.
    pub(super) fn gradient_values(&self) -> usize {
        match &self.patches {
            Some(patches) => patches.packed_words(),
            None => self.conv.range().len(),
        }
    }

    /// Rows and columns of the kernel as a matrix.
    fn matrix(&self, direction: Direction) -> (usize, usize) {
        let taps = self.conv.kernel * self.conv.kernel;
        match direction {
            Direction::Forward => (taps * self.conv.inputs, self.conv.outputs),
            Direction::Backward => (taps * self.conv.outputs, self.conv.inputs),
        }
    }

    /// Rows of packed words.
    pub(super) fn rows(&self, direction: Direction) -> usize {
        self.matrix(direction).0 / if self.pairs { 2 } else { 1 }
    }

    /// Words of the packed weights.
    pub(super) fn packed_words(&self, direction: Direction) -> usize {
        match &self.patches {
            Some(patches) => patches.packed_words(),
            None => self.rows(direction) * padded(self.matrix(direction).1),
        }
    }

    /// Packs the kernel `w` into panels of two vectors of columns; columns up to a whole number of
    /// vectors are zero.
    fn pack(&self, isa: Isa, w: &[f32], direction: Direction, packed: &mut [f32]) {
        if let Some(patches) = &self.patches {
            return patches.pack(isa, w, direction, packed);
        }
        let (rows, width) = (self.rows(direction), panel_width(isa));
        let panels = packed.par_chunks_mut(rows * width).enumerate();
        panels.for_each(|(panel, out)| {
            isa.dispatch(Pack {
                conv: self,
                weights: w,
                direction,
                start: panel * width,
                width: out.len() / rows,
                out,
            });
        });
    }
}

/// One panel of packed weights.
struct Pack<'a> {
    conv: &'a Planned,
    /// `[kernel, kernel, inputs, outputs]`.
    weights: &'a [f32],
    direction: Direction,
    /// First column, and columns.
    start: usize,
    width: usize,
    out: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (inputs, outputs) = (self.conv.conv.inputs, self.conv.conv.outputs);
        let (w, start, width, pairs) = (self.weights, self.start, self.width, self.conv.pairs);
        match self.direction {
            Direction::Forward => {
                for (r, out) in self.out.chunks_exact_mut(width).enumerate() {
                    if pairs {
                        let first = &w[2 * r * outputs + start..][..width];
                        let second = &w[(2 * r + 1) * outputs + start..][..width];
                        for c in 0..width {
                            out[c] = pair(bf16::narrow(first[c]), bf16::narrow(second[c]));
                        }
                    } else {
                        out.copy_from_slice(&w[r * outputs + start..][..width]);
                    }
                }
            }
            // The kernel turned by half a turn.
            Direction::Backward => {
                self.out.fill(0.0);
                let columns = width.min(inputs.saturating_sub(start));
                for (tap, w) in w.chunks_exact(inputs * outputs).rev().enumerate() {
                    for c in 0..columns {
                        let w = &w[(start + c) * outputs..][..outputs];
                        if pairs {
                            let out = &mut self.out[tap * outputs / 2 * width + c..];
                            for o in 0..outputs / 2 {
                                let (a, b) = (w[2 * o], w[2 * o + 1]);
                                out[o * width] = pair(bf16::narrow(a), bf16::narrow(b));
                            }
                        } else {
                            let out = &mut self.out[tap * outputs * width + c..];
                            for o in 0..outputs {
                                out[o * width] = w[o];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One or two convolutions that read the same input.
pub struct Group {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) inputs: usize,
    /// Zeros around an image in the tile: for the stem, whose few channels make its taps long.
    pub(super) border: usize,
    /// Tiles consist of units: whole images, or single pixels.
    pub(super) pixels: bool,
    pub(super) tile: usize,
    pub(super) convs: Vec<Planned>,
    /// Input gradient: an operand for each convolution.
    pub(super) backward: Vec<Part>,
}

/// Kernel positions along one axis that meet an input inside the image.
fn inside(conv: &Conv, at: usize, size: usize, pad: usize) -> Range<usize> {
    let first = at * conv.stride;
    pad.saturating_sub(first)..conv.kernel.min((size + pad).saturating_sub(first))
}

/// Kernel positions along one axis through which an input row meets an output row, descending, and
/// the first of these output rows.
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

/// Joins taps that go on where the one before ends.
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
    /// `pairs`: values are multiplied in pairs where they can be.
    pub fn new(convs: &[&Conv], height: usize, width: usize, pairs: bool) -> Group {
        let (kernel, inputs) = (convs[0].kernel, convs[0].inputs);
        assert!(convs.iter().all(|c| (c.kernel, c.inputs) == (kernel, inputs)));
        let pixels = convs.iter().all(|c| c.kernel == 1 && c.stride == 1);
        let border = if inputs < LANES { kernel / 2 } else { 0 };
        let unit = if pixels { 1 } else { height * width };
        let tile = (TILE_VALUES / inputs).clamp(TILE_PIXELS.start, TILE_PIXELS.end).div_ceil(unit);
        let (h, w) = if pixels { (1, 1) } else { (height, width) };
        let originals = convs;
        let convs: Vec<_> =
            convs.iter().map(|conv| Planned::new(conv, (h, w), border, tile, pairs)).collect();
        Group {
            height: h,
            width: w,
            inputs,
            border,
            pixels,
            tile,
            backward: match &convs[..] {
                [Planned { patches: Some(_), .. }] => Vec::new(),
                _ => backward(originals, (h, w), tile),
            },
            convs,
        }
    }

    pub(super) fn units(&self, images: usize, image_pixels: usize) -> usize {
        if self.pixels { images * image_pixels } else { images }
    }

    /// Pixels of a unit of the input, and of a tile's.
    pub(super) fn unit_pixels(&self) -> usize {
        self.height * self.width
    }

    pub(super) fn bordered_pixels(&self) -> usize {
        (self.height + 2 * self.border) * (self.width + 2 * self.border)
    }

    /// Words of the packed weights of all convolutions.
    pub fn packed_words(&self, direction: Direction) -> usize {
        self.convs.iter().map(|p| p.packed_words(direction)).sum()
    }

    /// Values of the partial sums of the weight gradients, for one chunk.
    pub(super) fn gradient_values(&self) -> usize {
        self.convs.iter().map(Planned::gradient_values).sum()
    }

    /// Packs the kernels among `parameters`, one convolution after the other, into
    /// `packed_words` words.
    pub fn pack(&self, isa: Isa, parameters: &[f32], direction: Direction, packed: &mut [f32]) {
        let mut rest = packed;
        for p in &self.convs {
            let (packed, after) = rest.split_at_mut(p.packed_words(direction));
            p.pack(isa, &parameters[p.conv.range()], direction, packed);
            rest = after;
        }
    }
}

/// Output pixels by the taps that they have.
fn forward(conv: &Conv, (h, w): (usize, usize), border: usize, tile: usize) -> Vec<Part> {
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
        let all = || (0..tile).flat_map(|u| pixels.iter().map(move |&(y, x)| (u, y, x)));
        let from = |(u, y, x)| ((u * h + y * s + ky0 - pad) * w + x * s + kx0 - pad) * ci;
        let taps = (ky0..ky1).flat_map(|ky| {
            (kx0..kx1).map(move |kx| Tap {
                offset: ((ky - ky0) * w + kx - kx0) * ci,
                depth: ci,
                row: (ky * k + kx) * ci,
            })
        });
        Part {
            to: all().map(|(u, y, x)| (((u * oh + y) * ow + x) * co) as u32).collect(),
            from: vec![(all().map(|p| from(p) as u32).collect(), joined(taps))],
            per_unit: pixels.len(),
        }
    };
    classes.into_iter().map(part).collect()
}

/// Kernel rows and columns through which a pixel gets gradient.
type Reaching = (Vec<usize>, Vec<usize>);

/// Input pixels by the taps through which they get gradient from each convolution.
fn backward(convs: &[&Conv], (h, w): (usize, usize), tile: usize) -> Vec<Part> {
    let mut classes: BTreeMap<_, Vec<(usize, usize)>> = BTreeMap::new();
    for y in 0..h {
        for x in 0..w {
            let taps = |c: &&Conv| (reaching(c, y, h).0, reaching(c, x, w).0);
            let class: Vec<_> = convs.iter().map(taps).collect();
            classes.entry(class).or_default().push((y, x));
        }
    }
    let part = |(class, pixels): (Vec<Reaching>, Vec<(usize, usize)>)| {
        let all = || (0..tile).flat_map(|u| pixels.iter().map(move |&(y, x)| (u, y, x)));
        let from = convs.iter().zip(&class).map(|(c, (kys, kxs))| {
            let (k, s, co) = (c.kernel, c.stride, c.outputs);
            let (oh, ow) = (c.output(h), c.output(w));
            let from = |(u, y, x)| {
                let (y, x) = (reaching(c, y, h).1, reaching(c, x, w).1);
                (((u * oh + y) * ow + x) * co) as u32
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
                .map(|(u, y, x)| (((u * h + y) * w + x) * padded(convs[0].inputs)) as u32)
                .collect(),
            from: from.collect(),
            per_unit: pixels.len(),
        }
    };
    classes.into_iter().map(part).collect()
}

/// The pixels that each kernel position meets.
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
        // Rows as long as the image go on in the next one.
        let (starts, width) = if s == 1 && columns.len() == w && !rows.is_empty() {
            (rows.start..rows.start + 1, rows.len() * w)
        } else {
            (rows, columns.len())
        };
        let runs = (0..tile).flat_map(|u| {
            let x = columns.start;
            starts.clone().map(move |y| {
                let input = (u * h + y * s + ky - pad) * w + x * s + kx - pad;
                (input as u32, ((u * oh + y) * ow + x) as u32)
            })
        });
        let runs: Vec<_> = match columns.is_empty() {
            true => Vec::new(),
            false => runs.collect(),
        };
        all.push(WeightTap { row: t * ci, depth: ci, per_unit: runs.len() / tile, runs, width });
    }
    all
}
