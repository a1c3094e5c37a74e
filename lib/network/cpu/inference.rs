//! Inference: a few images at a time go through a stage of the network on one thread, so that their
//! activations stay in its cache.

use super::CpuTrunk;
use super::arena::Arena;
use super::conv::{Input, Output, Then};
use super::element::Element;
use super::geometry::Direction;
use super::norm::Affine;
use super::pool::pooled_features;
use super::workers::Scratch;
use crate::error::Result;
use crate::network::layout::Norm;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Most images that go through at a time, and how many times as large as their activations the
/// weights may be that they share: reading these again costs less than leaving the cache.
const IMAGES: usize = 64;
const WEIGHTS_TO_ACTIVATIONS: usize = 3;

/// Units with outputs of one size. The first one's shortcut is a convolution; the others add to
/// its output in place.
struct Stage {
    units: Range<usize>,
    /// Images that go through at a time.
    images: usize,
    /// Values an image: of the input, of the largest first and second convolutions' outputs
    /// together, of the output.
    input: usize,
    inner: usize,
    output: usize,
}

/// A network's weights, packed, and its norms with the moving statistics.
pub struct Inference<E> {
    packed: Arena<f32>,
    /// Of the stem, and of the three groups of each unit.
    ranges: Vec<Range<usize>>,
    affine: Vec<[Affine; 3]>,
    last: Affine,
    stages: Vec<Stage>,
    threads: Vec<Mutex<Room<E>>>,
}

/// What one thread works in.
#[derive(Default)]
struct Room<E> {
    scratch: Scratch<E>,
    /// The stem's output before the pool, or a unit's first and second convolutions' outputs.
    inner: Arena<E>,
    /// The output of the stem and of each stage.
    outputs: Vec<Arena<E>>,
}

impl<E: Element> Inference<E> {
    pub fn new(trunk: &CpuTrunk<E>, parameters: &[f32], moving: &[f32]) -> Result<Inference<E>> {
        let mut end = 0;
        let ranges: Vec<_> = trunk
            .groups()
            .map(|g| {
                let start = end;
                end += g.packed_words(Direction::Forward);
                start..end
            })
            .collect();
        let mut packed = Arena::default();
        packed.reserve(end)?;
        let words = packed.shared();
        for (group, range) in trunk.groups().zip(&ranges) {
            // SAFETY: ranges are disjoint.
            let out = unsafe { words.slice(range.start, range.len()) };
            group.pack(trunk.workers.isa, parameters, Direction::Forward, out);
        }
        let fixed = |norm: &Norm| {
            let mut affine = Affine::new(norm.channels);
            affine.set_moving(norm, parameters, moving);
            affine
        };
        let mut stages: Vec<Stage> = Vec::new();
        let mut input = trunk.sizes.y0;
        for (i, u) in trunk.sizes.units.iter().enumerate() {
            match stages.last_mut() {
                Some(stage) if !u.projects => {
                    stage.units.end = i + 1;
                    stage.inner = stage.inner.max(u.z1 + u.z2);
                }
                _ => stages.push(Stage {
                    units: i..i + 1,
                    images: 1,
                    input,
                    inner: u.z1 + u.z2,
                    output: u.y,
                }),
            }
            input = u.y;
        }
        for s in &mut stages {
            let weights = ranges[1 + 3 * s.units.end - 1].end - ranges[1 + 3 * s.units.start].start;
            let activations = s.input + s.inner + s.output;
            let images = weights.div_ceil(activations * WEIGHTS_TO_ACTIVATIONS);
            s.images = images.min(IMAGES);
        }
        let units = trunk.layout.units.iter();
        Ok(Inference {
            affine: units.map(|u| [0, 1, 2].map(|i| fixed(&u.norms[i]))).collect(),
            last: fixed(&trunk.layout.norm),
            stages,
            packed,
            ranges,
            threads: (0..rayon::current_num_threads()).map(|_| Mutex::default()).collect(),
        })
    }

    /// Pre-logits `[n, features]` of images.
    pub fn run(&self, trunk: &CpuTrunk<E>, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / trunk.image_values;
        let features = trunk.layout.features;
        let mut out = vec![0f32; n * features];
        // As many as are worth reading the weights for, and as much work for each thread.
        let most = self.stages.iter().map(|s| s.images).max().unwrap_or(1);
        let chunks = n.div_ceil(most).next_multiple_of(self.threads.len());
        let count = n.div_ceil(chunks.max(1)).max(1);
        out.par_chunks_mut(count * features)
            .zip(images.par_chunks(count * trunk.image_values))
            .with_max_len(1)
            .try_for_each(|(out, images)| -> Result<()> {
                let thread = rayon::current_thread_index().unwrap_or(0);
                let mut room = self.threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
                let mut outputs = std::mem::take(&mut room.outputs);
                outputs.resize_with(self.stages.len() + 1, Arena::default);
                let (last, inputs) = outputs.split_last_mut().expect("the stem's");
                let values = self.stages.last().map_or(trunk.sizes.y0, |s| s.output);
                let y = last.room(out.len() / features * values)?;
                self.stages(trunk, &mut room, &self.stages, inputs, images, y)?;
                for (out, y) in out.chunks_exact_mut(features).zip(y.chunks_exact(values)) {
                    pooled_features(trunk.workers.isa, &self.last, y, out);
                }
                room.outputs = outputs;
                Ok(())
            })?;
        Ok(out)
    }

    /// What the stem and the `stages` make of a few images, on this thread. `inputs`: of the stages.
    fn stages(
        &self,
        trunk: &CpuTrunk<E>,
        room: &mut Room<E>,
        stages: &[Stage],
        inputs: &mut [Arena<E>],
        images: &[f32],
        out: &mut [E],
    ) -> Result<()> {
        let (Some((stage, before)), Some((input, inputs))) =
            (stages.split_last(), inputs.split_last_mut())
        else {
            return self.stem(trunk, room, images, out);
        };
        let n = images.len() / trunk.image_values;
        let count = n.div_ceil(n.div_ceil(stage.images));
        let chunks = images.chunks(count * trunk.image_values);
        for (images, out) in chunks.zip(out.chunks_mut(count * stage.output)) {
            let n = images.len() / trunk.image_values;
            let input = input.room(n * stage.input)?;
            self.stages(trunk, room, before, inputs, images, input)?;
            self.units(trunk, room, stage, input, out)?;
        }
        Ok(())
    }

    /// A unit's packed weights for its `group`-th convolutions; the stem's before all.
    fn weights(&self, unit: usize, group: usize) -> &[f32] {
        &self.packed.values()[self.ranges[1 + 3 * unit + group].clone()]
    }

    /// The first stage's input.
    fn stem(
        &self,
        trunk: &CpuTrunk<E>,
        room: &mut Room<E>,
        images: &[f32],
        y0: &mut [E],
    ) -> Result<()> {
        let isa = trunk.workers.isa;
        let Room { scratch, inner, .. } = room;
        let n = images.len() / trunk.image_values;
        let weights = &self.packed.values()[self.ranges[0].clone()];
        let input = Input::Images(images);
        match &trunk.pool {
            None => {
                let out = Output::new(y0, Then::Nothing);
                trunk.stem.infer(isa, scratch, n, input, weights, &[out]);
            }
            Some(pool) => {
                let values = inner.room(n * trunk.sizes.stem)?;
                let out = Output::new(values, Then::Nothing);
                trunk.stem.infer(isa, scratch, n, input, weights, &[out]);
                let mut moments = vec![0f32; 3 * trunk.layout.stem.outputs];
                let each = y0.chunks_exact_mut(trunk.sizes.y0);
                for (y0, values) in each.zip(values.chunks_exact(trunk.sizes.stem)) {
                    pool.image(isa, values, y0, &mut moments);
                }
            }
        }
        Ok(())
    }

    /// A stage's output.
    fn units(
        &self,
        trunk: &CpuTrunk<E>,
        room: &mut Room<E>,
        stage: &Stage,
        input: &[E],
        out: &mut [E],
    ) -> Result<()> {
        let isa = trunk.workers.isa;
        let Room { scratch, inner, .. } = room;
        let n = input.len() / stage.input;
        for i in stage.units.clone() {
            let (u, sizes) = (&trunk.units[i], &trunk.sizes.units[i]);
            let [g1, g2, g3] = &u.groups;
            let [a1, a2, a3] = &self.affine[i];
            let (z1, z2) = inner.room(n * (sizes.z1 + sizes.z2))?.split_at_mut(n * sizes.z1);
            let units = g1.units(n, u.pixels.0);
            let mut outs = vec![Output::new(z1, Then::Activate(a2))];
            let from = if sizes.projects {
                outs.push(Output::new(out, Then::Nothing));
                input
            } else {
                &*out
            };
            let from = Input::Activations(from, Some(a1));
            g1.infer(isa, scratch, units, from, self.weights(i, 0), &outs);
            let from = Input::Activations(z1, None);
            let outs = [Output::new(z2, Then::Activate(a3))];
            g2.infer(isa, scratch, n, from, self.weights(i, 1), &outs);
            // Where the shortcut left its values, the sum takes their place.
            let outs = [Output { residual: Some(out.as_ptr()), ..Output::new(out, Then::Nothing) }];
            let units = g3.units(n, u.pixels.1);
            let from = Input::Activations(z2, None);
            g3.infer(isa, scratch, units, from, self.weights(i, 2), &outs);
        }
        Ok(())
    }
}
