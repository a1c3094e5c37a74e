//! What a convolution needs to know of its tiles before the first image: which input values meet
//! which weights at which pixels, in both directions, and its packed weights.
//!
//! Taps that fall on the zero padding are left out: pixels are sorted into parts by the taps that
//! they have.

use super::kernels::{LANES, Tap, pack, padded};
use super::winograd::{POSITIONS, Patches};
use crate::network::layout::Conv;
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

/// One convolution with its packed weights and the tables of a tile.
pub(super) struct Planned {
    pub(super) conv: Conv,
    pub(super) forward: Vec<Part>,
    pub(super) weight_taps: Vec<WeightTap>,
    /// Output pixels of a unit.
    pub(super) out_pixels: usize,
    pub(super) packed: Vec<f32>,
    pub(super) packed_transposed: Vec<f32>,
    /// In place of all the tables and packed weights above.
    pub(super) patches: Option<Patches>,
}

impl Planned {
    fn new(conv: &Conv, (h, w): (usize, usize), border: usize, tile: usize) -> Planned {
        let weights = conv.kernel * conv.kernel * conv.inputs * conv.outputs;
        let transposed = weights / conv.inputs * padded(conv.inputs);
        let out_pixels = conv.output(h) * conv.output(w);
        let patches = Patches::new(conv, (h, w), tile);
        let direct = patches.is_none();
        Planned {
            conv: conv.clone(),
            forward: if direct {
                forward(conv, (h, w), border, tile)
            } else {
                Vec::new()
            },
            weight_taps: if direct {
                weight_taps(conv, (h, w), border, tile)
            } else {
                Vec::new()
            },
            out_pixels,
            packed: vec![0.0; if direct { weights } else { 0 }],
            packed_transposed: vec![0.0; if direct { transposed } else { 0 }],
            patches,
        }
    }

    /// Values of the weight gradient's partial sums.
    pub(super) fn gradient_values(&self) -> usize {
        match self.patches {
            Some(_) => POSITIONS * self.conv.inputs * self.conv.outputs,
            None => self.conv.range().len(),
        }
    }

    /// Rows of the kernel as a matrix.
    pub(super) fn rows(&self) -> usize {
        self.conv.kernel * self.conv.kernel * self.conv.inputs
    }

    pub(super) fn rows_transposed(&self) -> usize {
        self.conv.kernel * self.conv.kernel * self.conv.outputs
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
    pub fn new(convs: &[&Conv], height: usize, width: usize) -> Group {
        let (kernel, inputs) = (convs[0].kernel, convs[0].inputs);
        assert!(
            convs
                .iter()
                .all(|c| (c.kernel, c.inputs) == (kernel, inputs))
        );
        let pixels = convs.iter().all(|c| c.kernel == 1 && c.stride == 1);
        let border = if inputs < LANES { kernel / 2 } else { 0 };
        let unit = if pixels { 1 } else { height * width };
        let tile = (TILE_VALUES / inputs)
            .clamp(TILE_PIXELS.start, TILE_PIXELS.end)
            .div_ceil(unit);
        let (h, w) = if pixels { (1, 1) } else { (height, width) };
        let originals = convs;
        let convs: Vec<_> = convs
            .iter()
            .map(|conv| Planned::new(conv, (h, w), border, tile))
            .collect();
        Group {
            height: h,
            width: w,
            inputs,
            border,
            pixels,
            tile,
            backward: match &convs[..] {
                [
                    Planned {
                        patches: Some(_), ..
                    },
                ] => Vec::new(),
                _ => backward(originals, (h, w), tile),
            },
            convs,
        }
    }

    pub(super) fn units(&self, images: usize, image_pixels: usize) -> usize {
        if self.pixels {
            images * image_pixels
        } else {
            images
        }
    }

    /// Pixels of a unit of the input, and of a tile's.
    pub(super) fn unit_pixels(&self) -> usize {
        self.height * self.width
    }

    pub(super) fn bordered_pixels(&self) -> usize {
        (self.height + 2 * self.border) * (self.width + 2 * self.border)
    }

    /// Takes over the weights of a step; `backward`: for the input gradient, too.
    pub fn pack(&mut self, arch: pulp::Arch, parameters: &[f32], backward: bool) {
        let inputs = self.inputs;
        for p in &mut self.convs {
            let (taps, outputs) = (p.conv.kernel * p.conv.kernel, p.conv.outputs);
            let w = &parameters[p.conv.range()];
            if let Some(patches) = &mut p.patches {
                patches.pack(arch, w, backward);
                continue;
            }
            pack(arch, taps * inputs, outputs, &mut p.packed, |row, o| {
                w[row * outputs + o]
            });
            if backward {
                let packed = &mut p.packed_transposed;
                pack(arch, taps * outputs, inputs, packed, |row, i| {
                    let (tap, o) = (taps - 1 - row / outputs, row % outputs);
                    w[(tap * inputs + i) * outputs + o]
                });
            }
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
            to: all()
                .map(|(u, y, x)| (((u * oh + y) * ow + x) * co) as u32)
                .collect(),
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
        all.push(WeightTap {
            row: t * ci,
            depth: ci,
            per_unit: runs.len() / tile,
            runs,
            width,
        });
    }
    all
}
