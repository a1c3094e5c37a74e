//! The trunk: images → pre-logits, and the backward pass, with the statistics of the batch. Only the
//! outputs of the convolutions are stored; batch norm and ReLU are applied to them on load.

use super::arena::Arena;
use super::backward::{Backward, Downstream, ParameterGradient, UnitGradient, Upstream};
use super::conv::{Forward, LayerInput, LayerOutput, Then};
use super::element::Element;
use super::geometry::Group;
use super::isa::Isa;
use super::layers::Layers;
use super::norm::{Affine, BatchStatistics, move_statistics};
use super::packing::Way;
use super::pool::{pooled_features, spread_features};
use super::shared::Shared;
use super::workers::Workers;
use crate::error::Result;
use crate::network::buffers::Slots;
use crate::network::host::{Moving, TrunkBackward, TrunkForward, Wanted};
use crate::network::layout::{Layout, Norm};
use crate::network::slots::Slot;
use crate::ranks::Communicator;
use crate::tasks;
use rayon::prelude::*;

/// Activations and their gradients are stored as `E`. Keeps what the backward pass of the last forward pass
/// needs, except for the images.
pub struct Trunk<E> {
    pub layers: Layers,
    pub workers: Workers<E>,
    /// The norms of each unit, and the final norm.
    norms: Vec<[Affine; 3]>,
    last_norm: Affine,
    /// Without and with places for tangents.
    slots: [Slots; 2],
    /// Whether the last `forward` had a direction.
    along: bool,
    arena: Arena<E>,
    /// Packed weights of one group, and its weight gradient's partial sums.
    packed: Arena<f32>,
    partial: Vec<f32>,
}

impl<E: Element> Trunk<E> {
    /// For images of (height, width).
    pub fn new(layout: &Layout, size: (usize, usize), isa: Isa) -> Trunk<E> {
        let layers = Layers::new(layout, size, E::PAIRS);
        let units = layout.units.iter();
        Trunk {
            workers: Workers::new(isa),
            norms: units.map(|u| [0, 1, 2].map(|i| Affine::new(u.norms[i].channels))).collect(),
            last_norm: Affine::new(layout.norm.channels),
            slots: Slots::without_and_with_tangents(&layers.sizes),
            along: false,
            arena: Arena::default(),
            packed: Arena::default(),
            partial: Vec::new(),
            layers,
        }
    }

    /// Bytes of the buffers for training on `n` images at once, of which `moved` have directions, and of the
    /// images, without the threads' scratch.
    pub fn bytes(&self, (n, moved): (usize, usize)) -> usize {
        let [without, with_tangents] = &self.slots;
        let activations = (n * without.total).max(moved * with_tangents.total) * size_of::<E>();
        let partial = self.layers.groups().map(Group::partial_values).max().unwrap_or(0);
        let words = n * self.layers.image_values + self.layers.packed_words() + partial;
        activations + words * size_of::<f32>()
    }

    /// Pre-logits `[n, features]`, and their tangent, which is empty if there are no directions.
    pub fn forward(&mut self, from: TrunkForward) -> Result<(Vec<f32>, Vec<f32>)> {
        let TrunkForward { parameters, images, direction, mut moving, ranks } = from;
        let n = images.len() / self.layers.image_values;
        self.packed.reserve(self.layers.packed_words())?;
        self.along = direction.is_some();
        let slots = &self.slots[usize::from(self.along)];
        self.arena.reserve(n * slots.total)?;
        let steps = Steps {
            layers: &self.layers,
            slots,
            workers: &self.workers,
            parameters,
            n,
            ranks,
            arena: self.arena.shared(),
            packed: self.packed.shared(),
        };
        let mut output = steps.stem(images);
        let mut tangent = direction.map(|direction| steps.stem_tangent(direction));
        for (i, norms) in self.norms.iter_mut().enumerate() {
            let input = output.values;
            output = steps.unit(i, norms, output, &mut moving)?;
            if let Some(of_input) = tangent {
                tangent = Some(steps.unit_tangent(i, norms, input, of_input)?);
            }
        }
        let (norm, y) = (&self.layers.layout.norm, output.values);
        steps.normalize(&mut self.last_norm, norm, output.statistics, &mut moving)?;
        let features = steps.features(&self.last_norm, y);
        let tangent = match tangent {
            Some(of_y) => steps.features_tangent(&mut self.last_norm, y, of_y)?,
            None => Vec::new(),
        };
        Ok((features, tangent))
    }

    /// The backward pass of the last `forward`.
    pub fn backward(&mut self, from: TrunkBackward) -> Result<()> {
        let TrunkBackward { parameters, images, features, wanted, ranks } = from;
        let steps = Steps {
            layers: &self.layers,
            slots: &self.slots[usize::from(self.along)],
            workers: &self.workers,
            parameters,
            n: images.len() / self.layers.image_values,
            ranks,
            arena: self.arena.shared(),
            packed: self.packed.shared(),
        };
        let (sums, over_ranks, image_gradient) = match wanted {
            Wanted::Parameters(sums, over_ranks) => (Some(sums), over_ranks, None),
            Wanted::Images(gradient) => (None, None, Some(gradient)),
        };
        let mut gradient = ParameterGradient { sums, over_ranks, partial: &mut self.partial };
        let mut upstream =
            steps.features_backward(&mut self.last_norm, &features, &mut gradient)?;
        let layout = &self.layers.layout;
        gradient.whole_from(layout.norm.offset)?;
        let mut norms = &mut self.norms[..];
        for i in (0..norms.len()).rev() {
            let (own, before) = norms.split_last_mut().expect("norms of each unit");
            norms = before;
            upstream = steps.unit_backward(i, own, upstream, &mut gradient)?;
            gradient.whole_from(layout.units[i].norms[0].offset)?;
        }
        steps.stem_backward(images, upstream, image_gradient, &mut gradient);
        gradient.whole_from(0)
    }
}

/// The steps of one pass over `n` images, and their shared state.
pub(super) struct Steps<'a, E> {
    pub(super) layers: &'a Layers,
    pub(super) slots: &'a Slots,
    pub(super) workers: &'a Workers<E>,
    parameters: &'a [f32],
    pub(super) n: usize,
    pub(super) ranks: &'a dyn Communicator,
    arena: Shared<E>,
    packed: Shared<f32>,
}

/// A layer's output, with its statistics if a norm follows.
struct Activations<'a, E> {
    values: &'a [E],
    statistics: Option<BatchStatistics>,
}

impl<E: Element> Steps<'_, E> {
    #[allow(clippy::mut_from_ref)]
    pub(super) fn slot(&self, slot: Slot) -> &mut [E] {
        // SAFETY: buffers of the same time do not overlap (see `buffers`), and each step writes only its
        // own buffers.
        unsafe { self.arena.slot(slot, self.n) }
    }

    /// The slot of the input of the `unit`-th unit: the output of the previous one.
    fn input(&self, unit: usize) -> Slot {
        unit.checked_sub(1).map_or(self.slots.y0, |before| self.slots.units[before].y)
    }

    /// The slot of the gradient of a unit's output.
    fn output_gradient(&self, unit: usize) -> Slot {
        self.slots.units.get(unit + 1).map_or(self.slots.gradient, |next| next.input_gradient)
    }

    /// The packed weights of a group, valid until the next call.
    fn pack(&self, group: &Group, way: Way) -> &[f32] {
        // SAFETY: the next call comes after this group's convolutions.
        let out = unsafe { self.packed.slice(0, group.packed_words(way)) };
        group.pack(self.workers.isa, self.parameters, way, out);
        out
    }

    pub(super) fn convolve(
        &self,
        group: &Group,
        input: LayerInput<E>,
        outputs: &[LayerOutput<E>],
    ) -> Option<BatchStatistics> {
        let weights = self.pack(group, Way::Forward);
        let items = self.n * group.image_items;
        group.forward(self.workers, &Forward { items, input, weights, outputs })
    }

    fn convolve_backward(
        &self,
        group: &Group,
        input: LayerInput<E>,
        upstream: &[Upstream<E>],
        downstream: Downstream<E>,
        gradient: &mut ParameterGradient,
    ) -> [Vec<f64>; 2] {
        let weights = self.pack(group, Way::Backward);
        let items = self.n * group.image_items;
        let pass = Backward { items, input, weights, upstream, downstream };
        group.backward(self.workers, pass, gradient)
    }

    /// Prepares a norm with the statistics of the batch of all ranks, and updates the moving statistics.
    fn normalize(
        &self,
        affine: &mut Affine,
        norm: &Norm,
        statistics: Option<BatchStatistics>,
        moving: &mut Option<Moving>,
    ) -> Result<()> {
        let Some(own) = statistics else { return Ok(()) };
        let batch = own.of_all(self.ranks)?;
        affine.set_batch(norm, self.parameters, &batch);
        if let Some(moving) = moving {
            move_statistics(norm, moving.statistics, &batch, moving.keep);
        }
        Ok(())
    }

    /// The stem, and the pool if there is one.
    fn stem(&self, images: &[f32]) -> Activations<'_, E> {
        let y0 = self.slot(self.slots.y0);
        let (stem, input) = (&self.layers.stem, LayerInput::Images(images));
        let statistics = match &self.layers.pool {
            None => self.convolve(stem, input, &[LayerOutput::new(y0, Then::Statistics)]),
            Some(pool) => {
                let values = self.slot(self.slots.stem);
                self.convolve(stem, input, &[LayerOutput::new(values, Then::Nothing)]);
                let channels = self.layers.layout.stem.outputs;
                Some(pool.forward(self.workers.isa, values, y0, channels))
            }
        };
        Activations { values: y0, statistics }
    }

    /// The `i`-th bottleneck unit.
    fn unit<'a>(
        &'a self,
        i: usize,
        norms: &mut [Affine; 3],
        input: Activations<E>,
        moving: &mut Option<Moving>,
    ) -> Result<Activations<'a, E>> {
        let (unit, slots) = (&self.layers.layout.units[i], &self.slots.units[i]);
        let [group1, group2, group3] = &self.layers.units[i].groups;
        let [norm1, norm2, norm3] = &unit.norms;
        let [a1, a2, a3] = norms;
        let (z1, z2, y) = (self.slot(slots.z1), self.slot(slots.z2), self.slot(slots.y));

        self.normalize(a1, norm1, input.statistics, moving)?;
        let outputs = [LayerOutput::new(z1, Then::Statistics), LayerOutput::new(y, Then::Nothing)];
        let outputs = &outputs[..group1.convs.len()];
        let from = LayerInput::Activations(input.values, Some(a1));
        let statistics = self.convolve(group1, from, outputs);

        self.normalize(a2, norm2, statistics, moving)?;
        let output = LayerOutput::new(z2, Then::Statistics);
        let from = LayerInput::Activations(z1, Some(a2));
        let statistics = self.convolve(group2, from, &[output]);

        self.normalize(a3, norm3, statistics, moving)?;
        // The shortcut's convolution left its output in the place of the sum.
        let residual = match unit.shortcut {
            Some(_) => y.as_ptr(),
            None => input.values.as_ptr(),
        };
        let output =
            LayerOutput { residual: Some(residual), ..LayerOutput::new(y, Then::Statistics) };
        let from = LayerInput::Activations(z2, Some(a3));
        let statistics = self.convolve(group3, from, &[output]);
        Ok(Activations { values: y, statistics })
    }

    /// The pre-logits.
    fn features(&self, norm: &Affine, y: &[E]) -> Vec<f32> {
        let channels = self.layers.layout.features;
        let mut features = vec![0f32; self.n * channels];
        let images = features.par_chunks_mut(channels).zip(y.par_chunks(y.len() / self.n));
        tasks::each(images, |(out, y)| pooled_features(self.workers.isa, norm, y, out));
        features
    }

    /// From the gradient of the pre-logits to the gradient of the last unit's output.
    fn features_backward<'a>(
        &'a self,
        affine: &'a mut Affine,
        features: &[f32],
        gradient: &mut ParameterGradient,
    ) -> Result<UnitGradient<'a, E>> {
        let norm = &self.layers.layout.norm;
        let y = &*self.slot(self.input(self.layers.units.len()));
        let masked = self.slot(self.slots.gradient);
        let pixels = y.len() / self.n / norm.channels;
        let sums = spread_features(self.workers.isa, affine, features, y, masked, pixels);
        let sums_wanted = gradient.sums.as_deref_mut();
        affine.set_backward(norm, &sums, self.n * pixels, sums_wanted, self.ranks)?;
        Ok(UnitGradient { masked: Shared::new(masked), values: y, norm: affine, residual: None })
    }

    /// From the gradient of the `i`-th unit's output to the gradient of its input, which is the output of
    /// the previous unit.
    fn unit_backward<'a>(
        &'a self,
        i: usize,
        norms: &'a mut [Affine; 3],
        upstream: UnitGradient<'a, E>,
        gradient: &mut ParameterGradient,
    ) -> Result<UnitGradient<'a, E>> {
        let (unit, slots) = (&self.layers.layout.units[i], &self.slots.units[i]);
        let [group1, group2, group3] = &self.layers.units[i].groups;
        let [norm1, norm2, norm3] = &unit.norms;
        let [a1, a2, a3] = norms;
        let pixels = self.layers.units[i].pixels;
        let (inner, outer) = (self.n * pixels.0, self.n * pixels.1);
        let (z1, z2) = (&*self.slot(slots.z1), &*self.slot(slots.z2));
        let (g2, g3) = (self.slot(slots.g2), self.slot(slots.g3));

        let from = LayerInput::Activations(z2, Some(a3));
        let to = Downstream::Norm(Shared::new(g3), z2, a3);
        let upstream = [Upstream::Unit(upstream)];
        let sums = self.convolve_backward(group3, from, &upstream, to, gradient);
        a3.set_backward(norm3, &sums, outer, gradient.sums.as_deref_mut(), self.ranks)?;

        let from = LayerInput::Activations(z1, Some(a2));
        let to = Downstream::Norm(Shared::new(g2), z1, a2);
        let upstream = [Upstream::Norm(g3, z2, a3)];
        let sums = self.convolve_backward(group2, from, &upstream, to, gradient);
        a2.set_backward(norm2, &sums, inner, gradient.sums.as_deref_mut(), self.ranks)?;

        let (input, next) = (&*self.slot(self.input(i)), self.slot(slots.input_gradient));
        // The third convolution computed the gradient in the place of the masked one.
        let output_gradient = &*self.slot(self.output_gradient(i));
        let from = LayerInput::Activations(input, Some(a1));
        let to = Downstream::Norm(Shared::new(next), input, a1);
        let upstream = [Upstream::Norm(g2, z1, a2), Upstream::Direct(output_gradient)];
        let upstream = &upstream[..group1.convs.len()];
        let sums = self.convolve_backward(group1, from, upstream, to, gradient);
        a1.set_backward(norm1, &sums, inner, gradient.sums.as_deref_mut(), self.ranks)?;
        Ok(UnitGradient {
            masked: Shared::new(next),
            values: input,
            norm: a1,
            residual: unit.shortcut.is_none().then_some(output_gradient),
        })
    }

    /// From the gradient of the first unit's input to the gradient of the images, if wanted.
    fn stem_backward(
        &self,
        images: &[f32],
        upstream: UnitGradient<E>,
        image_gradient: Option<&mut [f32]>,
        gradient: &mut ParameterGradient,
    ) {
        let isa = self.workers.isa;
        let upstream = match &self.layers.pool {
            None => Upstream::Unit(upstream),
            Some(pool) => {
                let pooled = upstream.compute_all(isa, self.n * self.layers.y0_pixels);
                let out = self.slot(self.slots.stem_gradient);
                let (values, y0) = (self.slot(self.slots.stem), self.slot(self.slots.y0));
                pool.backward(isa, values, (y0, pooled), out, self.layers.layout.stem.outputs);
                Upstream::Direct(out)
            }
        };
        let to = match image_gradient {
            Some(images) => Downstream::Images(Shared::new(images)),
            None => Downstream::Nowhere,
        };
        let from = LayerInput::Images(images);
        self.convolve_backward(&self.layers.stem, from, &[upstream], to, gradient);
    }
}
