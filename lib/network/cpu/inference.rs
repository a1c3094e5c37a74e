//! Inference: a few images at a time go through the whole network on one thread, so that their
//! activations stay in its cache.

use super::CpuTrunk;
use super::arena::Arena;
use super::buffers::Slots;
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
const WEIGHTS_TO_ACTIVATIONS: usize = 8;

/// A network's weights, packed, and its norms with the moving statistics.
pub struct Inference<E> {
    packed: Arena<f32>,
    /// Of the stem, and of the three groups of each unit.
    ranges: Vec<Range<usize>>,
    affine: Vec<[Affine; 3]>,
    last: Affine,
    slots: Slots,
    /// Images that go through at a time.
    images: usize,
    threads: Vec<Mutex<(Scratch<E>, Arena<E>)>>,
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
        let units = trunk.layout.units.iter();
        let slots = Slots::for_inference(&trunk.sizes);
        Ok(Inference {
            affine: units
                .map(|u| [0, 1, 2].map(|i| fixed(&u.norms[i])))
                .collect(),
            last: fixed(&trunk.layout.norm),
            images: (end / slots.total / WEIGHTS_TO_ACTIVATIONS).clamp(1, IMAGES),
            slots,
            packed,
            ranges,
            threads: (0..rayon::current_num_threads())
                .map(|_| Mutex::default())
                .collect(),
        })
    }

    /// Pre-logits `[n, features]` of images.
    pub fn run(&self, trunk: &CpuTrunk<E>, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / trunk.image_values;
        let features = trunk.layout.features;
        let mut out = vec![0f32; n * features];
        // As many as are worth reading the weights for, and no thread without any.
        let count = self.images.min(n.div_ceil(self.threads.len())).max(1);
        out.par_chunks_mut(count * features)
            .zip(images.par_chunks(count * trunk.image_values))
            .with_max_len(1)
            .try_for_each(|(out, images)| {
                let thread = rayon::current_thread_index().unwrap_or(0);
                let mut thread = self.threads[thread]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let (scratch, arena) = &mut *thread;
                self.images(trunk, scratch, arena, images, out)
            })?;
        Ok(out)
    }

    /// The same for a few images, on this thread.
    fn images(
        &self,
        trunk: &CpuTrunk<E>,
        scratch: &mut Scratch<E>,
        arena: &mut Arena<E>,
        images: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        let (isa, layout) = (trunk.workers.isa, &trunk.layout);
        let n = images.len() / trunk.image_values;
        arena.reserve(n * self.slots.total)?;
        let memory = arena.shared();
        // SAFETY: as in `CpuTrunk::forward`.
        let slot = |slot| unsafe { memory.slot(slot, n) };
        let words = self.packed.values();
        let mut weights = self.ranges.iter().map(|r| &words[r.clone()]);
        let mut next = || weights.next().unwrap_or(&[]);
        let y0 = slot(self.slots.y0);
        let input = Input::Images(images);
        match &trunk.pool {
            None => {
                let out = Output::new(y0, Then::Nothing);
                trunk.stem.infer(isa, scratch, n, input, next(), &[out]);
            }
            Some(pool) => {
                let values = slot(self.slots.stem);
                let out = Output::new(values, Then::Nothing);
                trunk.stem.infer(isa, scratch, n, input, next(), &[out]);
                let mut moments = vec![0f32; 3 * layout.stem.outputs];
                let each = y0.chunks_exact_mut(trunk.sizes.y0);
                for (y0, values) in each.zip(values.chunks_exact(trunk.sizes.stem)) {
                    pool.image(isa, values, y0, &mut moments);
                }
            }
        }
        let mut input = &*y0;
        for (i, u) in trunk.units.iter().enumerate() {
            let [g1, g2, g3] = &u.groups;
            let [a1, a2, a3] = &self.affine[i];
            let slots = &self.slots.units[i];
            let (z1, z2, y) = (slot(slots.z1), slot(slots.z2), slot(slots.y));
            let outs = [
                Output::new(z1, Then::Activate(a2)),
                Output::new(y, Then::Nothing),
            ];
            let project = g1.convs.len() > 1;
            let units = g1.units(n, u.pixels.0);
            let from = Input::Activations(input, Some(a1));
            g1.infer(isa, scratch, units, from, next(), &outs[..g1.convs.len()]);
            let from = Input::Activations(z1, None);
            let out = Output::new(z2, Then::Activate(a3));
            g2.infer(isa, scratch, n, from, next(), &[out]);
            let residual = if project { y.as_ptr() } else { input.as_ptr() };
            let out = Output {
                residual: Some(residual),
                ..Output::new(y, Then::Nothing)
            };
            let units = g3.units(n, u.pixels.1);
            let from = Input::Activations(z2, None);
            g3.infer(isa, scratch, units, from, next(), &[out]);
            input = y;
        }
        let features = out.chunks_exact_mut(layout.features);
        for (out, y) in features.zip(input.chunks_exact(input.len() / n)) {
            pooled_features(isa, &self.last, y, out);
        }
        Ok(())
    }
}
