//! Inference: one thread takes a few images at a time through a block of the network, so that their
//! activations stay in its cache.

use super::arena::Arena;
use super::conv::{Forward, LayerInput, LayerOutput, Then};
use super::element::Element;
use super::geometry::Group;
use super::isa::Isa;
use super::layers::Layers;
use super::norm::Affine;
use super::packing::Way;
use super::pool::pooled_features;
use super::workers::Scratch;
use crate::error::Result;
use crate::network::layout::Norm;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The most images at a time, and how many times as large as the activations the shared weights may be:
/// reading the weights again costs less than leaving the cache.
const IMAGES: usize = 64;
const WEIGHTS_TO_ACTIVATIONS: usize = 3;

/// Units with outputs of the same size. The shortcut of the first one is a convolution; the others add to
/// its output in place.
struct Block {
    units: Range<usize>,
    /// Images at a time.
    images: usize,
    /// Values per image: of the input, of the largest outputs of the first and second convolution together,
    /// of the output.
    input: usize,
    inner: usize,
    output: usize,
}

/// A network's weights, packed, and its norms with the moving statistics.
pub struct Frozen<E> {
    isa: Isa,
    packed: Arena<f32>,
    /// Of the stem, then of the three groups of each unit.
    ranges: Vec<Range<usize>>,
    affine: Vec<[Affine; 3]>,
    last: Affine,
    blocks: Vec<Block>,
    threads: Vec<Mutex<Room<E>>>,
}

/// Working memory of one thread.
#[derive(Default)]
struct Room<E> {
    scratch: Scratch<E>,
    /// The stem's output before the pool, or a unit's first and second convolutions' outputs.
    inner: Arena<E>,
    /// The output of the stem and of each block.
    outputs: Vec<Arena<E>>,
}

impl<E: Element> Frozen<E> {
    pub fn new(layers: &Layers, isa: Isa, parameters: &[f32], moving: &[f32]) -> Result<Frozen<E>> {
        let mut end = 0;
        let ranges: Vec<_> = layers
            .groups()
            .map(|g| {
                let start = end;
                end += g.packed_words(Way::Forward);
                start..end
            })
            .collect();
        let mut packed = Arena::default();
        packed.reserve(end)?;
        let words = packed.shared();
        for (group, range) in layers.groups().zip(&ranges) {
            // SAFETY: ranges are disjoint.
            let out = unsafe { words.slice(range.start, range.len()) };
            group.pack(isa, parameters, Way::Forward, out);
        }
        let fixed = |norm: &Norm| {
            let mut affine = Affine::new(norm.channels);
            affine.set_moving(norm, parameters, moving);
            affine
        };
        let units = layers.layout.units.iter();
        Ok(Frozen {
            isa,
            affine: units.map(|u| [0, 1, 2].map(|i| fixed(&u.norms[i]))).collect(),
            last: fixed(&layers.layout.norm),
            blocks: blocks(layers, &ranges),
            packed,
            ranges,
            threads: (0..rayon::current_num_threads()).map(|_| Mutex::default()).collect(),
        })
    }

    /// Pre-logits `[n, features]` of images.
    pub fn run(&self, layers: &Layers, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / layers.image_values;
        let features = layers.layout.features;
        let mut out = vec![0f32; n * features];
        // Enough images to be worth reading the weights, and equal work for each thread.
        let most = self.blocks.iter().map(|s| s.images).max().unwrap_or(1);
        let chunks = n.div_ceil(most).next_multiple_of(self.threads.len());
        let count = n.div_ceil(chunks.max(1)).max(1);
        out.par_chunks_mut(count * features)
            .zip(images.par_chunks(count * layers.image_values))
            .with_max_len(1)
            .try_for_each(|(out, images)| -> Result<()> {
                let thread = rayon::current_thread_index().unwrap_or(0);
                let mut room = self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
                let mut outputs = std::mem::take(&mut room.outputs);
                outputs.resize_with(self.blocks.len() + 1, Arena::default);
                let (last, inputs) = outputs.split_last_mut().expect("the stem's");
                let values = self.blocks.last().map_or(layers.sizes.y0, |s| s.output);
                let y = last.room(out.len() / features * values)?;
                self.through(layers, &mut room, &self.blocks, inputs, images, y)?;
                for (out, y) in out.chunks_exact_mut(features).zip(y.chunks_exact(values)) {
                    pooled_features(self.isa, &self.last, y, out);
                }
                room.outputs = outputs;
                Ok(())
            })?;
        Ok(out)
    }

    /// Runs the stem and the `blocks` on a few images, on this thread. `inputs`: of the blocks.
    fn through(
        &self,
        layers: &Layers,
        room: &mut Room<E>,
        blocks: &[Block],
        inputs: &mut [Arena<E>],
        images: &[f32],
        out: &mut [E],
    ) -> Result<()> {
        let (Some((block, before)), Some((input, inputs))) =
            (blocks.split_last(), inputs.split_last_mut())
        else {
            return self.stem(layers, room, images, out);
        };
        let n = images.len() / layers.image_values;
        let count = n.div_ceil(n.div_ceil(block.images));
        let chunks = images.chunks(count * layers.image_values);
        for (images, out) in chunks.zip(out.chunks_mut(count * block.output)) {
            let n = images.len() / layers.image_values;
            let input = input.room(n * block.input)?;
            self.through(layers, room, before, inputs, images, input)?;
            self.units(layers, room, block, input, out)?;
        }
        Ok(())
    }

    /// The packed weights of a unit's `group`-th convolutions; the weights of the stem come first.
    fn weights(&self, unit: usize, group: usize) -> &[f32] {
        &self.packed.values()[self.ranges[1 + 3 * unit + group].clone()]
    }

    /// The first block's input.
    fn stem(
        &self,
        layers: &Layers,
        room: &mut Room<E>,
        images: &[f32],
        y0: &mut [E],
    ) -> Result<()> {
        let Room { scratch, inner, .. } = room;
        let n = images.len() / layers.image_values;
        let (stem, input) = (&layers.stem, LayerInput::Images(images));
        let weights = &self.packed.values()[self.ranges[0].clone()];
        let Some(pool) = &layers.pool else {
            let output = LayerOutput::new(y0, Then::Nothing);
            self.convolve(scratch, stem, n, weights, input, &[output]);
            return Ok(());
        };
        let values = inner.room(n * layers.sizes.stem)?;
        let output = LayerOutput::new(values, Then::Nothing);
        self.convolve(scratch, stem, n, weights, input, &[output]);
        let mut moments = vec![0f32; 3 * layers.layout.stem.outputs];
        let each = y0.chunks_exact_mut(layers.sizes.y0);
        for (y0, values) in each.zip(values.chunks_exact(layers.sizes.stem)) {
            pool.image(self.isa, values, y0, &mut moments);
        }
        Ok(())
    }

    /// The convolutions of a group for `n` images.
    fn convolve(
        &self,
        scratch: &mut Scratch<E>,
        group: &Group,
        n: usize,
        weights: &[f32],
        input: LayerInput<E>,
        outputs: &[LayerOutput<E>],
    ) {
        let items = n * group.image_items;
        group.infer(self.isa, scratch, &Forward { items, input, weights, outputs });
    }

    /// A block's output.
    fn units(
        &self,
        layers: &Layers,
        room: &mut Room<E>,
        block: &Block,
        input: &[E],
        out: &mut [E],
    ) -> Result<()> {
        let Room { scratch, inner, .. } = room;
        let n = input.len() / block.input;
        for i in block.units.clone() {
            let sizes = &layers.sizes.units[i];
            let [group1, group2, group3] = &layers.units[i].groups;
            let [a1, a2, a3] = &self.affine[i];
            let (z1, z2) = inner.room(n * (sizes.z1 + sizes.z2))?.split_at_mut(n * sizes.z1);
            let mut outputs = vec![LayerOutput::new(z1, Then::Activate(a2))];
            let from = if sizes.projects {
                outputs.push(LayerOutput::new(out, Then::Nothing));
                input
            } else {
                &*out
            };
            let from = LayerInput::Activations(from, Some(a1));
            self.convolve(scratch, group1, n, self.weights(i, 0), from, &outputs);
            let from = LayerInput::Activations(z1, None);
            let output = LayerOutput::new(z2, Then::Activate(a3));
            self.convolve(scratch, group2, n, self.weights(i, 1), from, &[output]);
            // The sum replaces the values of the shortcut.
            let residual = Some(out.as_ptr());
            let output = LayerOutput { residual, ..LayerOutput::new(out, Then::Nothing) };
            let from = LayerInput::Activations(z2, None);
            self.convolve(scratch, group3, n, self.weights(i, 2), from, &[output]);
        }
        Ok(())
    }
}

/// The blocks of a network whose packed weights are in these ranges.
fn blocks(layers: &Layers, ranges: &[Range<usize>]) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut input = layers.sizes.y0;
    for (i, u) in layers.sizes.units.iter().enumerate() {
        match blocks.last_mut() {
            Some(block) if !u.projects => {
                block.units.end = i + 1;
                block.inner = block.inner.max(u.z1 + u.z2);
            }
            _ => blocks.push(Block {
                units: i..i + 1,
                images: 1,
                input,
                inner: u.z1 + u.z2,
                output: u.y,
            }),
        }
        input = u.y;
    }
    for b in &mut blocks {
        let weights = ranges[1 + 3 * b.units.end - 1].end - ranges[1 + 3 * b.units.start].start;
        let activations = b.input + b.inner + b.output;
        let images = weights.div_ceil(activations * WEIGHTS_TO_ACTIVATIONS);
        b.images = images.min(IMAGES);
    }
    blocks
}
