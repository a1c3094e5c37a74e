//! Convolutions over tiles of whole images (or, for 1x1, of pixels): forward with batch norm and
//! ReLU applied on load and the statistics of the output gathered on store. `backward` has the way
//! back.
//!
//! Work is split into tiles, and where there are few, into blocks of channels. Sums over pixels are
//! added up tile by tile in a fixed order.

use super::convolve::{Convolve, Epilogue, Moments, Operand, Sink};
use super::element::Element;
use super::elementwise::NormRelu;
use super::geometry::{Direction, Group};
use super::isa::Isa;
use super::multiply::{Pairs, Single};
use super::norm::{Affine, BatchStatistics, merge};
use super::workers::{Scratch, Shared, Workers, grown};
use half::bf16;
use std::ops::Range;

/// Tasks of a layer that can be told apart, at least, where the layer is large enough.
const TASKS: usize = 8;
/// Channels of a block: whole weight panels of any instruction set, and enough to be worth loading
/// the tile for.
const BLOCK: usize = 64;

/// What a group of convolutions reads.
#[derive(Clone, Copy)]
pub enum Input<'a, E> {
    Images(&'a [f32]),
    /// relu(norm(x)); without a norm x as it is.
    Activations(&'a [E], Option<&'a Affine>),
}

/// Where a convolution's output goes, and what is done on the way.
pub struct Output<'a, E> {
    pub values: Shared<E>,
    /// Added to the output; it may be the output's own old content.
    pub residual: Option<*const E>,
    pub then: Then<'a>,
}

impl<'a, E> Output<'a, E> {
    pub fn new(values: &mut [E], then: Then<'a>) -> Output<'a, E> {
        Output { values: Shared::new(values), residual: None, then }
    }
}

pub enum Then<'a> {
    Nothing,
    /// Statistics of the output are gathered.
    Statistics,
    /// relu(norm(output)) is stored.
    Activate(&'a Affine),
}

// SAFETY: the residual is only read, and where it is the output's old content, by the thread that
// writes there.
unsafe impl<E: Sync> Sync for Output<'_, E> {}

impl Group {
    /// Tiles, and blocks of channels to split them into, `channels` wide together.
    pub(super) fn split(&self, units: usize, chunks: usize, channels: usize) -> (usize, usize) {
        let tiles = units.div_ceil(self.tile);
        let tasks = if chunks > 0 { chunks } else { tiles };
        let blocks = TASKS.div_ceil(tasks).min(channels.div_ceil(BLOCK));
        (tiles, channels.div_ceil(blocks).next_multiple_of(BLOCK / 2))
    }

    /// The units of the `t`-th tile: the first and their number.
    pub(super) fn tile_units(&self, t: usize, units: usize) -> (usize, usize) {
        (t * self.tile, self.tile.min(units - t * self.tile))
    }

    /// Loads the channels of a tile of `units` units from the `first` on: relu(norm(x)), or x as it is, inside
    /// the group's border.
    pub(super) fn load<E: Element>(
        &self,
        isa: Isa,
        input: Input<E>,
        (first, units): (usize, usize),
        channels: Range<usize>,
        tile: &mut [E],
    ) {
        let (start, c) = (first * self.unit_pixels() * self.inputs, channels.len());
        match input {
            Input::Activations(x, norm) => isa.dispatch(NormRelu {
                input: &x[start + channels.start..]
                    [..units * self.unit_pixels() * self.inputs - channels.start],
                stride: self.inputs,
                output: tile,
                channels: c,
                norm: norm.map(|n| (&n.scale[channels.clone()], &n.shift[channels])),
            }),
            Input::Images(x) => {
                let (b, row) = (self.border * c, self.width * c);
                let images = x[start..].chunks_exact(self.height * row);
                for (tile, x) in
                    tile.chunks_exact_mut(self.bordered_pixels() * c).zip(images).take(units)
                {
                    tile.fill(E::default());
                    let inner = tile.chunks_exact_mut(row + 2 * b).skip(self.border);
                    for (tile, x) in inner.zip(x.chunks_exact(row)) {
                        for (t, &x) in tile[b..].iter_mut().zip(x) {
                            *t = E::narrow(x);
                        }
                    }
                }
            }
        }
    }

    /// Convolves the input with each convolution of the group. `weights`: packed for this
    /// direction. Returns the statistics of the outputs that ask for them, in order.
    pub fn forward<E: Element>(
        &self,
        workers: &Workers<E>,
        units: usize,
        input: Input<E>,
        weights: &[f32],
        outputs: &[Output<E>],
    ) -> Vec<BatchStatistics> {
        let columns = self.columns();
        let (tiles, block) = self.split(units, 0, columns);
        let blocks = columns.div_ceil(block);
        let mut moments: Vec<Vec<f32>> = self
            .convs
            .iter()
            .zip(outputs)
            .map(|(p, o)| match o.then {
                Then::Statistics => vec![0.0; tiles * 3 * p.conv.outputs],
                _ => Vec::new(),
            })
            .collect();
        let shared: Vec<Shared<f32>> = moments.iter_mut().map(|s| Shared::new(s)).collect();
        workers.run(tiles * blocks, |task, scratch| {
            let (t, b) = (task / blocks, task % blocks);
            self.forward_tile(
                workers.isa,
                scratch,
                (t, self.tile_units(t, units)),
                b * block..(b + 1) * block,
                input,
                weights,
                outputs,
                &shared,
            );
        });
        self.convs
            .iter()
            .zip(&moments)
            .filter(|(_, m)| !m.is_empty())
            .map(|(p, m)| {
                let counts = (0..tiles).map(|t| self.tile_units(t, units).1 * p.out_pixels);
                merge(m, p.conv.outputs, counts)
            })
            .collect()
    }

    /// The same on this thread alone, for outputs without statistics.
    pub fn infer<E: Element>(
        &self,
        isa: Isa,
        scratch: &mut Scratch<E>,
        units: usize,
        input: Input<E>,
        weights: &[f32],
        outputs: &[Output<E>],
    ) {
        for t in 0..units.div_ceil(self.tile) {
            let tile = (t, self.tile_units(t, units));
            let columns = 0..self.columns();
            self.forward_tile(isa, scratch, tile, columns, input, weights, outputs, &[]);
        }
    }

    /// Columns of all convolutions side by side, each starting at a block's.
    fn columns(&self) -> usize {
        let outputs = self.convs.iter().map(|p| p.conv.outputs);
        outputs.map(|o| o.next_multiple_of(BLOCK)).sum()
    }

    #[allow(clippy::too_many_arguments)]
    fn forward_tile<E: Element>(
        &self,
        isa: Isa,
        scratch: &mut Scratch<E>,
        (t, (first, count)): (usize, (usize, usize)),
        block: Range<usize>,
        input: Input<E>,
        mut weights: &[f32],
        outputs: &[Output<E>],
        moments: &[Shared<f32>],
    ) {
        let Scratch { input: loaded, patches: buffers, .. } = scratch;
        let tile = match input {
            Input::Activations(x, None) => &x[first * self.unit_pixels() * self.inputs..],
            _ => {
                let size = count * self.bordered_pixels() * self.inputs;
                let tile = grown(loaded, size);
                self.load(isa, input, (first, count), 0..self.inputs, tile);
                tile
            }
        };
        let mut before = 0;
        for (i, (p, out)) in self.convs.iter().zip(outputs).enumerate() {
            let (packed, rest) = weights.split_at(p.packed_words(Direction::Forward));
            weights = rest;
            let all = p.conv.outputs;
            let columns = block.start.max(before)..block.end.min(before + all);
            let columns = columns.start - before..columns.end.saturating_sub(before);
            before += all.next_multiple_of(BLOCK);
            if columns.is_empty() {
                continue;
            }
            let start = first * p.out_pixels * all;
            let output = out.values.pointer(start, count * p.out_pixels * all);
            let residual = out.residual.map(|r| unsafe { r.add(start) });
            let mut epilogue = match (&out.then, residual) {
                (Then::Nothing, None) => Epilogue::Store,
                (Then::Nothing, Some(r)) => Epilogue::Residual(r),
                (Then::Statistics, residual) => {
                    // SAFETY: tiles are disjoint, and so are the columns of blocks.
                    let of = |k| unsafe { moments[i].slice((t * 3 + k) * all, all) };
                    Epilogue::Statistics {
                        residual,
                        moments: Moments { around: of(0), sums: of(1), squares: of(2) },
                        empty: true,
                    }
                }
                (Then::Activate(n), _) => Epilogue::Activate { scale: &n.scale, shift: &n.shift },
            };
            if let Some(patches) = &p.patches {
                let tile = (tile, count);
                patches.convolve(isa, buffers, tile, packed, columns, output, epilogue);
                continue;
            }
            for part in &p.forward {
                let pixels = count * part.per_unit;
                let (from, taps) = &part.from[0];
                let operand = Operand {
                    input: tile.as_ptr(),
                    pixels: &from[..pixels],
                    taps,
                    weights: packed,
                    rows: p.rows(Direction::Forward),
                };
                let sink = Sink { output, to: &part.to[..pixels], epilogue: epilogue.reborrow() };
                convolve(isa, p.pairs, &[operand], columns.clone(), sink);
                epilogue.begun();
            }
        }
    }
}

pub(super) fn convolve<E: Element, O: Element>(
    isa: Isa,
    pairs: bool,
    operands: &[Operand<E>],
    columns: Range<usize>,
    sink: Sink<O>,
) {
    if E::PAIRS && pairs {
        // E is bfloat16.
        let operands = operands.iter().map(|o| o.cast::<bf16>());
        isa.dispatch_pairs(Convolve::<Pairs, O> {
            operands: &operands.collect::<Vec<_>>(),
            columns,
            sink,
        });
    } else {
        isa.dispatch(Convolve::<Single<E>, O> { operands, columns, sink });
    }
}
