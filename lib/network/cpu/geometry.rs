//! What a convolution needs to know of its tiles before the first image: offsets of pixels and taps,
//! in both directions, and its packed weights.

use super::kernels::{Tap, pack, padded};
use crate::network::layout::Conv;

/// Values of the padded input tile that fit the inner cache with room for weights and output.
const TILE_VALUES: usize = 48 << 10;
/// Output pixels a tile: enough to amortize a tile's set-up.
const TILE_PIXELS: usize = 512;

/// Input gradient of the input pixels of one residue class of the stride.
pub(super) struct BackwardPart {
    /// A pixel's offset in the padded gradient tile, and in the unpadded input tile.
    pub(super) gradient_offsets: Vec<u32>,
    pub(super) input_offsets: Vec<u32>,
    pub(super) taps: Vec<Tap>,
    /// Pixels of one unit of the tile.
    pub(super) per_unit: usize,
}

/// One convolution with its packed weights and the offset tables of a tile.
pub(super) struct Planned {
    pub(super) conv: Conv,
    pub(super) outputs: usize,
    pub(super) output_offsets: Vec<u32>,
    pub(super) input_offsets: Vec<u32>,
    pub(super) taps: Vec<Tap>,
    /// Pixel rows of a tile in the padded input and the padded gradient, and their length.
    pub(super) rows: Vec<(u32, u32)>,
    pub(super) row_width: usize,
    pub(super) backward: Vec<BackwardPart>,
    /// Output pixels of a unit, rows of `rows` of a unit (0: one row of as many pixels as units).
    pub(super) out_pixels: usize,
    pub(super) unit_rows: usize,
    /// Padded gradient tile: rows and columns of a unit, zero rows (and columns) before the first.
    pub(super) gradient_size: (usize, usize),
    pub(super) out_size: (usize, usize),
    pub(super) before: usize,
    pub(super) packed: Vec<f32>,
    pub(super) packed_transposed: Vec<f32>,
}

/// One or two convolutions that read the same input.
pub struct Group {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Pixel stride of the input, the channels that are read, and the zero padding of the tile.
    pub(super) channels: usize,
    pub(super) inputs: usize,
    pub(super) pad: usize,
    /// Tiles consist of units: whole images, or single pixels.
    pub(super) pixels: bool,
    pub(super) tile: usize,
    pub(super) convs: Vec<Planned>,
}

impl Group {
    /// `channels`: pixel stride of the input (padded, or 1/3 for images).
    pub fn new(convs: &[&Conv], channels: usize, height: usize, width: usize) -> Group {
        let kernel = convs[0].kernel;
        assert!(
            convs
                .iter()
                .all(|c| c.kernel == kernel && c.inputs == convs[0].inputs)
        );
        let pad = kernel / 2;
        let pixels = convs.iter().all(|c| c.kernel == 1 && c.stride == 1);
        let unit_values = if pixels {
            channels
        } else {
            (height + 2 * pad) * (width + 2 * pad) * channels
        };
        let unit_pixels = if pixels { 1 } else { height * width };
        let tile = (TILE_VALUES / unit_values)
            .min(TILE_PIXELS.div_ceil(unit_pixels))
            .max(1);
        let mut group = Group {
            height,
            width,
            channels,
            inputs: convs[0].inputs,
            pad,
            pixels,
            tile,
            convs: Vec::new(),
        };
        group.convs = convs.iter().map(|c| group.plan(c)).collect();
        group
    }

    /// Height and width of one unit of a tile.
    pub(super) fn unit(&self) -> (usize, usize) {
        if self.pixels {
            (1, 1)
        } else {
            (self.height, self.width)
        }
    }

    pub(super) fn units(&self, images: usize) -> usize {
        if self.pixels {
            images * self.height * self.width
        } else {
            images
        }
    }

    pub(super) fn padded_unit(&self) -> usize {
        let (h, w) = self.unit();
        (h + 2 * self.pad) * (w + 2 * self.pad) * self.channels
    }

    fn plan(&self, conv: &Conv) -> Planned {
        let (h, w) = self.unit();
        let (k, s, pad, ci) = (conv.kernel, conv.stride, self.pad, self.channels);
        let co = padded(conv.outputs);
        let (oh, ow) = (conv.output(h), conv.output(w));
        let (ph, pw) = (h + 2 * pad, w + 2 * pad);
        let mut output_offsets = Vec::new();
        let mut input_offsets = Vec::new();
        for u in 0..self.tile {
            for y in 0..oh {
                for x in 0..ow {
                    input_offsets.push((((u * ph + y * s) * pw + x * s) * ci) as u32);
                    output_offsets.push((((u * oh + y) * ow + x) * co) as u32);
                }
            }
        }
        let taps = (0..k * k)
            .map(|t| Tap {
                offset: ((t / k) * pw + t % k) * ci,
                row: t * self.inputs,
            })
            .collect();
        // Input row i gets gradient from output rows (i + pad - kh) / s, kh = residue, residue + s..
        let before = (k - 1) / s;
        let extent =
            |size: usize, out: usize| ((size - 1 + pad) / s + before + 1).max(out + before);
        let (gh, gw) = (extent(h, oh), extent(w, ow));
        let mut backward = Vec::new();
        for ry in 0..s.min(k) {
            for rx in 0..s.min(k) {
                let (my, mx) = ((k - 1 - ry) / s, (k - 1 - rx) / s);
                let rows = || (0..h).filter(|y| (y + pad) % s == ry);
                let columns = || (0..w).filter(|x| (x + pad) % s == rx);
                let mut part = BackwardPart {
                    gradient_offsets: Vec::new(),
                    input_offsets: Vec::new(),
                    taps: Vec::new(),
                    per_unit: rows().count() * columns().count(),
                };
                for u in 0..self.tile {
                    for y in rows() {
                        for x in columns() {
                            let gy = (y + pad - ry) / s + before - my;
                            let gx = (x + pad - rx) / s + before - mx;
                            part.gradient_offsets
                                .push((((u * gh + gy) * gw + gx) * co) as u32);
                            part.input_offsets
                                .push((((u * h + y) * w + x) * padded(self.inputs)) as u32);
                        }
                    }
                }
                for ty in 0..=my {
                    for tx in 0..=mx {
                        part.taps.push(Tap {
                            offset: ((my - ty) * gw + mx - tx) * co,
                            row: ((ry + ty * s) * k + rx + tx * s) * conv.outputs,
                        });
                    }
                }
                backward.push(part);
            }
        }
        let (rows, row_width, unit_rows) = if self.pixels {
            (vec![(0, 0)], 0, 0)
        } else {
            let rows = (0..self.tile * oh).map(|r| {
                let (u, y) = (r / oh, r % oh);
                let input = (u * ph + y * s) * pw * ci;
                let gradient = ((u * gh + y + before) * gw + before) * co;
                (input as u32, gradient as u32)
            });
            (rows.collect(), ow, oh)
        };
        let weights = k * k * self.inputs * co;
        Planned {
            conv: conv.clone(),
            outputs: co,
            output_offsets,
            input_offsets,
            taps,
            rows,
            row_width,
            backward,
            out_pixels: oh * ow,
            unit_rows,
            gradient_size: (gh, gw),
            out_size: (oh, ow),
            before,
            packed: vec![0.0; weights],
            packed_transposed: vec![0.0; k * k * conv.outputs * padded(self.inputs)],
        }
    }

    /// Takes over the weights of a step.
    pub fn pack(&mut self, arch: pulp::Arch, parameters: &[f32]) {
        let inputs = self.inputs;
        for p in &mut self.convs {
            let (taps, outputs) = (p.conv.kernel * p.conv.kernel, p.conv.outputs);
            let w = &parameters[p.conv.range()];
            pack(arch, taps * inputs, outputs, &mut p.packed, |row, o| {
                w[row * outputs + o]
            });
            pack(
                arch,
                taps * outputs,
                inputs,
                &mut p.packed_transposed,
                |row, i| {
                    let (tap, o) = (row / outputs, row % outputs);
                    w[(tap * inputs + i) * outputs + o]
                },
            );
        }
    }
}
