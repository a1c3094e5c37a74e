//! Convolutions over tiles of whole images (1x1 convolutions: of pixels). The forward pass applies batch
//! norm and ReLU on load and gathers the statistics of the output on store. The backward pass is in
//! `backward`.
//!
//! The work is split into tiles, and into blocks of channels if there are few tiles. Sums over pixels are
//! added up tile by tile in a fixed order.

use super::convolve::{Convolve, Epilogue, Moments, Operand, Sink};
use super::element::{Element, Native};
use super::elementwise::{NormRelu, NormTangent};
use super::geometry::{Group, Part, TiledConv};
use super::isa::Isa;
use super::multiply::{Pairs, Single};
use super::norm::{Affine, BatchStatistics, merge};
use super::packing::Way;
use super::shared::{Shared, grown};
use super::split::BLOCK;
use super::tile::{Job, Tile};
use super::winograd::PatchBuffers;
use super::workers::{Scratch, Workers};
use std::ops::Range;

/// One pass of a group over its input.
pub struct Forward<'a, E> {
    /// Number of input items.
    pub items: usize,
    pub input: LayerInput<'a, E>,
    /// Packed for this pass.
    pub weights: &'a [f32],
    /// One per convolution.
    pub outputs: &'a [LayerOutput<'a, E>],
}

/// The input of a group of convolutions.
#[derive(Clone, Copy)]
pub enum LayerInput<'a, E> {
    Images(&'a [f32]),
    /// relu(norm(x)), or x itself without a norm.
    Activations(&'a [E], Option<&'a Affine>),
    /// The tangent of relu(norm(x)), from that of x, and x; all channels at once.
    Tangent(&'a [E], &'a [E], &'a Affine),
}

/// Where a convolution's output goes, and what is applied to it.
pub struct LayerOutput<'a, E> {
    pub values: Shared<E>,
    /// Added to the output; it may be the old content of the output.
    pub residual: Option<*const E>,
    pub then: Then<'a>,
}

pub enum Then<'a> {
    Nothing,
    /// Gathers the statistics of the output. At most one output of a group has this.
    Statistics,
    /// Stores relu(norm(output)).
    Activate(&'a Affine),
}

// SAFETY: the residual is only read. If it is the old content of the output, the thread that writes there
// reads it.
unsafe impl<E: Sync> Sync for LayerOutput<'_, E> {}

impl<'a, E> LayerOutput<'a, E> {
    pub fn new(values: &mut [E], then: Then<'a>) -> LayerOutput<'a, E> {
        LayerOutput { values: Shared::new(values), residual: None, then }
    }

    /// The epilogue of a tile whose values start at `start`. `moments`: of the tile, if statistics are
    /// gathered.
    fn epilogue(&self, start: usize, moments: Option<Moments<'a>>) -> Epilogue<'a, E> {
        // SAFETY: the residual has the layout of the output.
        let residual = self.residual.map(|r| unsafe { r.add(start) });
        match (&self.then, moments, residual) {
            (Then::Activate(n), ..) => Epilogue::Activate { scale: &n.scale, shift: &n.shift },
            (Then::Statistics, Some(moments), residual) => {
                Epilogue::Statistics { residual, moments, empty: true }
            }
            (_, _, Some(residual)) => Epilogue::Residual(residual),
            _ => Epilogue::Store,
        }
    }
}

impl Group {
    /// Convolves the input with each convolution of the group. Returns the statistics of the output that
    /// has `Then::Statistics`.
    pub fn forward<E: Element>(
        &self,
        workers: &Workers<E>,
        pass: &Forward<E>,
    ) -> Option<BatchStatistics> {
        let columns = self.columns();
        let tiles = pass.items.div_ceil(self.tile);
        let block = Group::block(tiles, workers.threads(), columns);
        let blocks = columns.div_ceil(block);
        let mut asking = self.convs.iter().zip(pass.outputs);
        let asking = asking.find(|(_, out)| matches!(out.then, Then::Statistics)).map(|a| a.0);
        let channels = asking.map_or(0, |conv| conv.conv.outputs);
        let mut moments = vec![0f32; tiles * 3 * channels];
        let shared = Shared::new(&mut moments);
        workers.run(tiles * blocks, |task, scratch| {
            let (t, b) = (task % tiles, task / tiles);
            let block = b * block..(b + 1) * block;
            self.forward_tile(workers.isa, scratch, pass, self.tile(t, pass.items), block, shared);
        });
        asking.map(|conv| {
            let counts = (0..tiles).map(|t| self.tile(t, pass.items).count * conv.out_pixels);
            merge(&moments, channels, counts)
        })
    }

    /// `forward` on this thread only, for outputs without statistics.
    pub fn infer<E: Element>(&self, isa: Isa, scratch: &mut Scratch<E>, pass: &Forward<E>) {
        for t in 0..pass.items.div_ceil(self.tile) {
            let (tile, columns) = (self.tile(t, pass.items), 0..self.columns());
            self.forward_tile(isa, scratch, pass, tile, columns, Shared::new(&mut []));
        }
    }

    /// Convolves a block of columns of a tile. `moments`: of all tiles, for the output with statistics.
    fn forward_tile<E: Element>(
        &self,
        isa: Isa,
        scratch: &mut Scratch<E>,
        pass: &Forward<E>,
        tile: Tile,
        block: Range<usize>,
        moments: Shared<f32>,
    ) {
        let Scratch { input: loaded, kernels, .. } = scratch;
        let input = match pass.input {
            LayerInput::Activations(x, None) => &x[tile.first * self.item_pixels() * self.inputs..],
            input => {
                let loaded = grown(loaded, tile.count * self.bordered_pixels() * self.inputs);
                self.load(isa, input, tile, 0..self.inputs, loaded);
                loaded
            }
        };
        let mut rest = pass.weights;
        let mut before = 0;
        for (conv, out) in self.convs.iter().zip(pass.outputs) {
            let (weights, after) = rest.split_at(conv.packed_words(Way::Forward));
            rest = after;
            let all = conv.conv.outputs;
            let columns = block.start.max(before)..block.end.min(before + all);
            let columns = columns.start - before..columns.end.saturating_sub(before);
            before += all.next_multiple_of(BLOCK);
            if columns.is_empty() {
                continue;
            }
            let start = tile.first * conv.out_pixels * all;
            let moments = matches!(out.then, Then::Statistics).then(|| {
                // SAFETY: tiles are disjoint, and so are the columns of blocks.
                let of = |k| unsafe { moments.slice((tile.index * 3 + k) * all, all) };
                Moments { around: of(0), sums: of(1), squares: of(2) }
            });
            let job = Job {
                inputs: &[input],
                items: tile.count,
                weights,
                columns,
                output: out.values.pointer(start, tile.count * conv.out_pixels * all),
                epilogue: out.epilogue(start, moments),
            };
            let convs = std::slice::from_ref(conv);
            convolve(isa, &mut kernels.patches, convs, &conv.forward, Way::Forward, job);
        }
    }

    /// The tile of this index, of `items` items.
    pub fn tile(&self, index: usize, items: usize) -> Tile {
        let first = index * self.tile;
        Tile { index, first, count: self.tile.min(items - first) }
    }

    /// Columns of all convolutions side by side, each starting at a block boundary.
    fn columns(&self) -> usize {
        let outputs = self.convs.iter().map(|c| c.conv.outputs);
        outputs.map(|o| o.next_multiple_of(BLOCK)).sum()
    }

    /// Loads these channels of a tile, as relu(norm(x)) or as x itself, inside the group's border.
    pub fn load<E: Element>(
        &self,
        isa: Isa,
        input: LayerInput<E>,
        tile: Tile,
        channels: Range<usize>,
        loaded: &mut [E],
    ) {
        let values = self.item_pixels() * self.inputs;
        let (start, c) = (tile.first * values, channels.len());
        match input {
            LayerInput::Activations(x, norm) => E::dispatch(
                isa,
                NormRelu {
                    input: &x[start + channels.start..][..tile.count * values - channels.start],
                    stride: self.inputs,
                    output: loaded,
                    channels: c,
                    norm: norm.map(|n| (&n.scale[channels.clone()], &n.shift[channels])),
                },
            ),
            LayerInput::Tangent(tangent, x, norm) => E::dispatch(
                isa,
                NormTangent {
                    tangent: &tangent[start..][..tile.count * values],
                    x: &x[start..],
                    norm: norm.tangent(),
                    output: loaded,
                },
            ),
            LayerInput::Images(x) => {
                let (b, row) = (self.border * c, self.width * c);
                let images = x[start..].chunks_exact(self.height * row).take(tile.count);
                let bordered = loaded.chunks_exact_mut(self.bordered_pixels() * c);
                for (loaded, x) in bordered.zip(images) {
                    loaded.fill(E::default());
                    let inner = loaded.chunks_exact_mut(row + 2 * b).skip(self.border);
                    for (loaded, x) in inner.zip(x.chunks_exact(row)) {
                        for (l, &x) in loaded[b..].iter_mut().zip(x) {
                            *l = E::narrow(x);
                        }
                    }
                }
            }
        }
    }
}

/// Runs a job by the tables of its `parts`, with one operand per convolution.
pub fn convolve<E: Element, O: Element>(
    isa: Isa,
    buffers: &mut PatchBuffers,
    convs: &[TiledConv],
    parts: &[Part],
    way: Way,
    mut job: Job<E, O>,
) {
    if let Some(patches) = &convs[0].patches {
        return patches.convolve(isa, buffers, job);
    }
    for part in parts {
        let pixels = job.items * part.per_item;
        let mut rest = job.weights;
        let operands = convs.iter().zip(job.inputs).zip(&part.from);
        let operands = operands.map(|((conv, input), (from, taps))| {
            let (weights, after) = rest.split_at(conv.packed_words(way));
            rest = after;
            Operand {
                input: input.as_ptr(),
                pixels: &from[..pixels],
                taps,
                weights,
                rows: conv.rows(way),
            }
        });
        let operands: Vec<_> = operands.collect();
        let (output, columns) = (job.output, job.columns.clone());
        let sink = Sink { output, to: &part.to[..pixels], epilogue: job.epilogue.reborrow() };
        if convs[0].pairs {
            // E is `Native`.
            let operands: Vec<_> = operands.iter().map(|o| o.cast::<Native>()).collect();
            isa.dispatch_pairs(Convolve::<Pairs, O> { operands: &operands, columns, sink });
        } else {
            E::dispatch(isa, Convolve::<Single<E>, O> { operands: &operands, columns, sink });
        }
        job.epilogue.begun();
    }
}
