//! The fast CPU trunk: whole-network forward and backward in NHWC over one preallocated arena.
//! Batch norm and ReLU are fused into the convolutions; only the convolutions' outputs are stored.

mod arena;
mod backward;
mod buffers;
mod conv;
mod convolve;
mod element;
mod elementwise;
mod geometry;
mod inference;
mod isa;
mod multiply;
mod norm;
mod pool;
mod products;
mod registers;
mod winograd;
mod workers;

pub use element::Element;
pub use isa::Isa;

use super::engine::{Gradients, Pass, Trunk};
use super::layout::{Layout, Norm};
use crate::error::{Error, Result};
use arena::Arena;
use backward::{Downstream, UnitGradient, Upstream};
use buffers::{Sizes, Slots, UnitSizes};
use conv::{Input, Output, Then};
use geometry::{Direction, Group};
use inference::Inference;
use norm::{Affine, BatchStatistics};
use pool::{Pool, pooled_features, spread_features};
use rayon::prelude::*;
use workers::{Shared, Workers};

/// The convolutions and norms of one bottleneck unit.
struct Unit {
    /// conv1 and, where there is one, the shortcut; conv2; conv3.
    groups: [Group; 3],
    affine: [Affine; 3],
    /// Pixels of an image before and after the stride.
    pixels: (usize, usize),
}

/// See the module. Activations and their gradients are stored as `E`. Holds the tape of its last
/// forward pass.
pub struct CpuTrunk<E> {
    layout: Layout,
    workers: Workers<E>,
    stem: Group,
    pool: Option<Pool>,
    units: Vec<Unit>,
    affine: Affine,
    /// Values of one image; pixels of the first unit's input.
    image_values: usize,
    y0_pixels: usize,
    sizes: Sizes,
    slots: Slots,
    arena: Arena<E>,
    /// Packed weights of one group, and its weight gradient's partial sums.
    packed: Arena<f32>,
    partial: Vec<f32>,
    /// The last forward pass.
    images: Vec<f32>,
    inference: Option<Inference<E>>,
}

impl<E: Element> CpuTrunk<E> {
    /// A trunk for images of `height` x `width`, on the given instruction set.
    pub fn new(layout: &Layout, height: usize, width: usize, isa: Isa) -> CpuTrunk<E> {
        let pairs = E::PAIRS && isa.has_pairs();
        let stem = &layout.stem;
        let (mut h, mut w) = (stem.output(height), stem.output(width));
        let mut sizes = Sizes::default();
        let pool = layout.pool.then(|| {
            let input = (h, w);
            (h, w) = ((h - 1) / 2 + 1, (w - 1) / 2 + 1);
            sizes.stem = input.0 * input.1 * stem.outputs;
            Pool { input, output: (h, w) }
        });
        let y0_pixels = h * w;
        sizes.y0 = y0_pixels * stem.outputs;
        let units = layout.units.iter().map(|u| {
            let [c1, c2, c3] = &u.convs;
            let (oh, ow) = (c2.output(h), c2.output(w));
            let first: Vec<_> = std::iter::once(c1).chain(&u.shortcut).collect();
            let unit = Unit {
                groups: [
                    Group::new(&first, h, w, pairs),
                    Group::new(&[c2], h, w, pairs),
                    Group::new(&[c3], oh, ow, pairs),
                ],
                affine: [0, 1, 2].map(|i| Affine::new(u.norms[i].channels)),
                pixels: (h * w, oh * ow),
            };
            sizes.units.push(UnitSizes {
                z1: h * w * c1.outputs,
                z2: oh * ow * c1.outputs,
                y: oh * ow * c3.outputs,
                projects: u.shortcut.is_some(),
            });
            (h, w) = (oh, ow);
            unit
        });
        let units = units.collect();
        CpuTrunk {
            workers: Workers::new(isa),
            stem: Group::new(&[stem], height, width, pairs),
            pool,
            units,
            affine: Affine::new(layout.norm.channels),
            image_values: height * width * stem.inputs,
            y0_pixels,
            slots: Slots::new(&sizes),
            sizes,
            arena: Arena::default(),
            packed: Arena::default(),
            partial: Vec::new(),
            images: Vec::new(),
            inference: None,
            layout: layout.clone(),
        }
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        std::iter::once(&self.stem).chain(self.units.iter().flat_map(|u| &u.groups))
    }

    /// Words of the packed weights of the largest group.
    fn packed_words(&self) -> usize {
        let words = self.groups().flat_map(|g| {
            let of = |direction| g.packed_words(direction);
            [of(Direction::Forward), of(Direction::Backward)]
        });
        words.max().unwrap_or(0)
    }

    /// Bytes of the buffers for training on `n` images at once, without the threads' scratch.
    pub fn bytes(&self, n: usize) -> usize {
        let activations = n * self.slots.total * size_of::<E>();
        activations + (n * self.image_values + self.packed_words()) * size_of::<f32>()
    }

    /// Makes room for `n` images.
    fn reserve(&mut self, n: usize) -> Result<()> {
        self.inference = None;
        self.packed.reserve(self.packed_words())?;
        self.arena.reserve(n * self.slots.total)
    }
}

/// Prepares a norm for a pass, with the statistics of the batch.
fn normalize(
    affine: &mut Affine,
    norm: &Norm,
    parameters: &[f32],
    moving: &mut [f32],
    batch: Option<BatchStatistics>,
    pass: Pass,
) {
    if let Some(batch) = batch {
        affine.set_batch(norm, parameters, &batch);
        if let Pass::Train { keep } = pass {
            norm::move_statistics(norm, moving, &batch, keep);
        }
    }
}

impl<E: Element> Trunk for CpuTrunk<E> {
    fn forward(
        &mut self,
        parameters: &[f32],
        moving: &mut [f32],
        images: &[f32],
        pass: Pass,
    ) -> Result<Vec<f32>> {
        let n = images.len() / self.image_values;
        self.reserve(n)?;
        self.images.clear();
        self.images.extend_from_slice(images);
        let (workers, isa) = (&self.workers, self.workers.isa);
        let memory = self.arena.shared();
        // SAFETY: buffers that live at the same time lie apart (see `buffers`), and each step
        // takes those that it uses once.
        let slot = |slot| unsafe { memory.slot(slot, n) };
        let words = self.packed.shared();
        let pack = |g: &Group| -> &[f32] {
            // SAFETY: the next call comes after this group's convolutions.
            let out = unsafe { words.slice(0, g.packed_words(Direction::Forward)) };
            g.pack(isa, parameters, Direction::Forward, out);
            out
        };
        let y0 = slot(self.slots.y0);
        let input = Input::Images(images);
        let weights = pack(&self.stem);
        let mut statistics = match &self.pool {
            None => {
                let out = Output::new(y0, Then::Statistics);
                let mut all = self.stem.forward(workers, n, input, weights, &[out]);
                all.pop()
            }
            Some(pool) => {
                let values = slot(self.slots.stem);
                let out = Output::new(values, Then::Nothing);
                self.stem.forward(workers, n, input, weights, &[out]);
                Some(pool.forward(isa, values, y0, self.layout.stem.outputs))
            }
        };
        let mut input = &*y0;
        let layers = self.layout.units.iter().zip(&self.slots.units);
        for (u, (layer, slots)) in self.units.iter_mut().zip(layers) {
            let [g1, g2, g3] = &u.groups;
            let [n1, n2, n3] = &layer.norms;
            let [a1, a2, a3] = &mut u.affine;
            let (z1, z2, y) = (slot(slots.z1), slot(slots.z2), slot(slots.y));
            let project = layer.shortcut.is_some();
            normalize(a1, n1, parameters, moving, statistics, pass);
            let outs = [Output::new(z1, Then::Statistics), Output::new(y, Then::Nothing)];
            let outs = &outs[..g1.convs.len()];
            let units = g1.units(n, u.pixels.0);
            let from = Input::Activations(input, Some(a1));
            let batch = g1.forward(workers, units, from, pack(g1), outs).pop();
            normalize(a2, n2, parameters, moving, batch, pass);
            let out = Output::new(z2, Then::Statistics);
            let from = Input::Activations(z1, Some(a2));
            let batch = g2.forward(workers, n, from, pack(g2), &[out]).pop();
            normalize(a3, n3, parameters, moving, batch, pass);
            let residual = if project { y.as_ptr() } else { input.as_ptr() };
            let out = Output { residual: Some(residual), ..Output::new(y, Then::Statistics) };
            let units = g3.units(n, u.pixels.1);
            let from = Input::Activations(z2, Some(a3));
            statistics = g3.forward(workers, units, from, pack(g3), &[out]).pop();
            input = y;
        }
        let norm = &self.layout.norm;
        normalize(&mut self.affine, norm, parameters, moving, statistics, pass);
        let mut features = vec![0f32; n * norm.channels];
        features
            .par_chunks_mut(norm.channels)
            .zip(input.par_chunks(input.len() / n))
            .for_each(|(out, y)| pooled_features(isa, &self.affine, y, out));
        Ok(features)
    }

    fn backward(
        &mut self,
        parameters: &[f32],
        features: &[f32],
        mut wanted: Gradients,
    ) -> Result<()> {
        let n = self.images.len() / self.image_values;
        let (workers, isa) = (&self.workers, self.workers.isa);
        let memory = self.arena.shared();
        // SAFETY: as in `forward`.
        let slot = |slot| unsafe { memory.slot(slot, n) };
        let words = self.packed.shared();
        let pack = |g: &Group| -> &[f32] {
            // SAFETY: as in `forward`.
            let out = unsafe { words.slice(0, g.packed_words(Direction::Backward)) };
            g.pack(isa, parameters, Direction::Backward, out);
            out
        };
        let partial = &mut self.partial;
        let y0 = &*slot(self.slots.y0);
        // `g`: gradient behind the norm of the current output; `residual`: the gradient of what this
        // output is added to.
        let mut g = slot(self.slots.gradient);
        let mut residual: Option<&[E]> = None;
        let y = self.slots.units.last().map_or(y0, |u| slot(u.y));
        let norm = &self.layout.norm;
        let pixels = y.len() / n / norm.channels;
        let sums = spread_features(isa, &self.affine, features, y, g, pixels);
        self.affine.set_backward(norm, &sums, n * pixels, wanted.parameters.as_deref_mut());
        let mut affine = &self.affine;
        let mut later = &mut self.units[..];
        for (i, layer) in self.layout.units.iter().enumerate().rev() {
            let (u, before) = later.split_last_mut().expect("a state for each unit");
            later = before;
            let slots = &self.slots.units[i];
            let input = match i {
                0 => y0,
                _ => slot(self.slots.units[i - 1].y),
            };
            let (z1, z2, y) = (&*slot(slots.z1), &*slot(slots.z2), &*slot(slots.y));
            let (g3, g2) = (slot(slots.g3), slot(slots.g2));
            let [a1, a2, a3] = &mut u.affine;
            let [group1, group2, group3] = &u.groups;
            let (inner, outer) = (n * u.pixels.0, n * u.pixels.1);
            let mut weights = wanted.parameters.as_deref_mut();
            let upstream =
                UnitGradient { masked: Shared::new(g), values: y, norm: affine, residual };
            let sums = group3.backward(
                workers,
                group3.units(n, u.pixels.1),
                Input::Activations(z2, Some(a3)),
                pack(group3),
                &[Upstream::Unit(upstream)],
                weights.as_deref_mut().map(|w| (w, &mut *partial)),
                &Downstream::Norm(Shared::new(g3), z2, a3),
            );
            a3.set_backward(&layer.norms[2], &sums, outer, weights.as_deref_mut());
            let sums = group2.backward(
                workers,
                n,
                Input::Activations(z1, Some(a2)),
                pack(group2),
                &[Upstream::Norm(g3, z2, a3)],
                weights.as_deref_mut().map(|w| (w, &mut *partial)),
                &Downstream::Norm(Shared::new(g2), z1, a2),
            );
            a2.set_backward(&layer.norms[1], &sums, inner, weights.as_deref_mut());
            let mut upstream = vec![Upstream::Norm(g2, z1, a2)];
            if layer.shortcut.is_some() {
                upstream.push(Upstream::Direct(g));
            }
            let next = slot(slots.input_gradient);
            let sums = group1.backward(
                workers,
                group1.units(n, u.pixels.0),
                Input::Activations(input, Some(a1)),
                pack(group1),
                &upstream,
                weights.as_deref_mut().map(|w| (w, &mut *partial)),
                &Downstream::Norm(Shared::new(next), input, a1),
            );
            a1.set_backward(&layer.norms[0], &sums, inner, weights);
            residual = layer.shortcut.is_none().then_some(g);
            g = next;
            affine = a1;
        }
        let upstream = UnitGradient { masked: Shared::new(g), values: y0, norm: affine, residual };
        let upstream = match &self.pool {
            None => Upstream::Unit(upstream),
            Some(pool) => {
                let pooled = upstream.compute_all(isa, n * self.y0_pixels);
                let out = slot(self.slots.stem_gradient);
                let values = slot(self.slots.stem);
                pool.backward(isa, values, (y0, pooled), out, self.layout.stem.outputs);
                Upstream::Direct(out)
            }
        };
        let downstream = match wanted.images {
            Some(images) => Downstream::Images(Shared::new(images)),
            None => Downstream::Nowhere,
        };
        self.stem.backward(
            workers,
            n,
            Input::Images(&self.images),
            pack(&self.stem),
            &[upstream],
            wanted.parameters.map(|w| (w, partial)),
            &downstream,
        );
        Ok(())
    }

    fn prepare(&mut self, parameters: &[f32], moving: &[f32]) -> Result<()> {
        self.inference = None;
        self.inference = Some(Inference::new(self, parameters, moving)?);
        Ok(())
    }

    fn infer(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        match &self.inference {
            Some(inference) => inference.run(self, images),
            None => Err(Error::Internal("inference without weights".into())),
        }
    }
}
