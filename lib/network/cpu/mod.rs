//! The fast CPU trunk: whole-network forward and backward in NHWC over preallocated buffers.
//! Batch norm and ReLU are fused into the convolutions; only the convolutions' outputs are stored.

mod conv;
mod element;
mod geometry;
mod kernels;
mod norm;
mod pool;
mod winograd;
mod workers;

use super::layout::{Layout, Norm};
use super::{Gradients, Pass, Trunk};
use crate::error::Result;
use conv::{Downstream, Input, Output, Then, UnitGradient, Upstream};
use element::Element;
use geometry::Group;
use norm::{Affine, BatchStatistics};
use pool::{Pool, pooled_features, spread_features};
use rayon::prelude::*;
use workers::{Shared, Workers};

/// Geometry and buffers of one bottleneck unit.
struct UnitState<E> {
    /// conv1 and, where there is one, the shortcut; conv2; conv3.
    groups: [Group; 3],
    affine: [Affine; 3],
    /// Outputs of conv1, conv2 and of the unit.
    z1: Vec<E>,
    z2: Vec<E>,
    y: Vec<E>,
    /// Pixels of an image before and after the stride; channels of z1 and y.
    pixels: (usize, usize),
    middle: usize,
    outputs: usize,
}

/// See the module. Activations and their gradients are stored as `E`. Holds the tape of its last
/// forward pass.
pub struct CpuTrunk<E> {
    layout: Layout,
    workers: Workers,
    stem: Group,
    pool: Option<Pool<E>>,
    /// Output of stem and pool: the first unit's input.
    y0: Vec<E>,
    base: usize,
    units: Vec<UnitState<E>>,
    affine: Affine,
    /// Values of one image; pixels of one y0.
    image_values: usize,
    y0_pixels: usize,
    capacity: usize,
    /// The last forward pass.
    images: Vec<f32>,
    count: usize,
    /// Gradients on their way back: two of unit size, and two of units' inside.
    gradients: [Vec<E>; 4],
}

impl<E: Element> CpuTrunk<E> {
    /// A trunk for images of `height` x `width`, on the given instruction set.
    pub fn new(layout: &Layout, height: usize, width: usize, arch: pulp::Arch) -> CpuTrunk<E> {
        let stem = &layout.stem;
        let (mut h, mut w) = (stem.output(height), stem.output(width));
        let pool = layout.pool.then(|| {
            let input = (h, w);
            (h, w) = ((h - 1) / 2 + 1, (w - 1) / 2 + 1);
            Pool {
                input,
                output: (h, w),
                values: Vec::new(),
            }
        });
        let y0_pixels = h * w;
        let units = layout.units.iter().map(|u| {
            let [c1, c2, c3] = &u.convs;
            let (oh, ow) = (c2.output(h), c2.output(w));
            let first: Vec<_> = std::iter::once(c1).chain(&u.shortcut).collect();
            let state = UnitState {
                groups: [
                    Group::new(&first, h, w),
                    Group::new(&[c2], h, w),
                    Group::new(&[c3], oh, ow),
                ],
                affine: [0, 1, 2].map(|i| Affine::new(u.norms[i].channels)),
                z1: Vec::new(),
                z2: Vec::new(),
                y: Vec::new(),
                pixels: (h * w, oh * ow),
                middle: c1.outputs,
                outputs: c3.outputs,
            };
            (h, w) = (oh, ow);
            state
        });
        CpuTrunk {
            workers: Workers::new(arch),
            stem: Group::new(&[stem], height, width),
            pool,
            y0: Vec::new(),
            base: stem.outputs,
            units: units.collect(),
            affine: Affine::new(layout.norm.channels),
            image_values: height * width * stem.inputs,
            y0_pixels,
            capacity: 0,
            images: Vec::new(),
            count: 0,
            gradients: Default::default(),
            layout: layout.clone(),
        }
    }

    /// Values an image of the gradients of unit size, and of those of units' inside.
    fn gradient_values(&self) -> (usize, usize) {
        let outer = self.units.iter().map(|u| u.pixels.1 * u.outputs);
        let inner = self.units.iter().map(|u| u.pixels.0 * u.middle);
        let stem = self.pool.iter().map(|p| p.input.0 * p.input.1 * self.base);
        let y0 = self.y0_pixels * self.base;
        (
            outer.fold(y0, usize::max),
            inner.chain(stem).max().unwrap_or(0),
        )
    }

    /// Grows the buffers to hold `n` images.
    fn reserve(&mut self, n: usize) {
        if n <= self.capacity {
            return;
        }
        self.capacity = n;
        let (outer, inner) = self.gradient_values();
        self.y0.resize(n * self.y0_pixels * self.base, E::default());
        if let Some(p) = &mut self.pool {
            p.values
                .resize(n * p.input.0 * p.input.1 * self.base, E::default());
        }
        for u in &mut self.units {
            u.z1.resize(n * u.pixels.0 * u.middle, E::default());
            u.z2.resize(n * u.pixels.1 * u.middle, E::default());
            u.y.resize(n * u.pixels.1 * u.outputs, E::default());
        }
        for (i, g) in self.gradients.iter_mut().enumerate() {
            g.resize(n * if i < 2 { outer } else { inner }, E::default());
        }
    }

    /// Bytes of the buffers for `n` images, without the threads' scratch.
    pub fn bytes(&self, n: usize) -> usize {
        let (outer, inner) = self.gradient_values();
        let mut values = self.y0_pixels * self.base + 2 * (outer + inner);
        if let Some(p) = &self.pool {
            values += p.input.0 * p.input.1 * self.base;
        }
        for u in &self.units {
            values += (u.pixels.0 + u.pixels.1) * u.middle + u.pixels.1 * u.outputs;
        }
        n * (values * size_of::<E>() + self.image_values * size_of::<f32>())
    }

    fn pack(&mut self, parameters: &[f32], backward: bool) {
        let arch = self.workers.arch;
        let groups = self.units.iter_mut().flat_map(|u| &mut u.groups);
        std::iter::once(&mut self.stem)
            .chain(groups)
            .collect::<Vec<_>>()
            .into_par_iter()
            .for_each(|g| g.pack(arch, parameters, backward));
    }
}

/// Prepares a norm for a pass, with the statistics of the batch or the moving ones.
fn normalize(
    affine: &mut Affine,
    norm: &Norm,
    parameters: &[f32],
    moving: &mut [f32],
    batch: Option<BatchStatistics>,
    pass: Pass,
) {
    match batch {
        Some(batch) => {
            affine.set_batch(norm, parameters, &batch);
            if let Pass::Train { keep } = pass {
                norm::move_statistics(norm, moving, &batch, keep);
            }
        }
        None => affine.set_moving(norm, parameters, moving),
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
        let inference = pass == Pass::Inference;
        self.reserve(n);
        self.pack(parameters, !inference);
        self.count = n;
        self.images.clear();
        self.images.extend_from_slice(images);
        let workers = &self.workers;
        let statistics_too = || match inference {
            true => Then::Nothing,
            false => Then::Statistics,
        };
        let input = Input::Images(images);
        let mut statistics = match &mut self.pool {
            None => {
                let out = Output::new(&mut self.y0, statistics_too());
                self.stem.forward(workers, n, input, &[out]).pop()
            }
            Some(pool) => {
                let out = Output::new(&mut pool.values, Then::Nothing);
                self.stem.forward(workers, n, input, &[out]);
                let statistics = pool.forward(workers.arch, &mut self.y0, self.base, n);
                (!inference).then_some(statistics)
            }
        };
        let mut input = &self.y0;
        let mut pixels = self.y0_pixels;
        for (u, layer) in self.units.iter_mut().zip(&self.layout.units) {
            let [g1, g2, g3] = &u.groups;
            let [n1, n2, n3] = &layer.norms;
            let [a1, a2, a3] = &mut u.affine;
            normalize(a1, n1, parameters, moving, statistics, pass);
            if inference {
                a2.set_moving(n2, parameters, moving);
                a3.set_moving(n3, parameters, moving);
            }
            let project = layer.shortcut.is_some();
            let then = match inference {
                true => Then::Activate(a2),
                false => statistics_too(),
            };
            let outs = [
                Output::new(&mut u.z1, then),
                Output::new(&mut u.y, Then::Nothing),
            ];
            let outs = &outs[..g1.convs.len()];
            let units = g1.units(n, u.pixels.0);
            let from = Input::Activations(&input[..], Some(a1));
            let batch = g1.forward(workers, units, from, outs).pop();
            if !inference {
                normalize(a2, n2, parameters, moving, batch, pass);
            }
            let then = match inference {
                true => Then::Activate(a3),
                false => statistics_too(),
            };
            let out = Output::new(&mut u.z2, then);
            let from = Input::Activations(&u.z1[..], (!inference).then_some(&*a2));
            let batch = g2.forward(workers, n, from, &[out]).pop();
            if !inference {
                normalize(a3, n3, parameters, moving, batch, pass);
            }
            let out = Output {
                residual: Some(if project {
                    u.y.as_ptr()
                } else {
                    input.as_ptr()
                }),
                ..Output::new(&mut u.y, statistics_too())
            };
            let units = g3.units(n, u.pixels.1);
            let from = Input::Activations(&u.z2[..], (!inference).then_some(&*a3));
            statistics = g3.forward(workers, units, from, &[out]).pop();
            input = &u.y;
            pixels = u.pixels.1;
        }
        let norm = &self.layout.norm;
        normalize(&mut self.affine, norm, parameters, moving, statistics, pass);
        let y = &input[..n * pixels * norm.channels];
        Ok(pooled_features(workers.arch, &self.affine, y, n, pixels))
    }

    fn backward(&mut self, _: &[f32], features: &[f32], mut wanted: Gradients) -> Result<()> {
        let n = self.count;
        let workers = &self.workers;
        let arch = workers.arch;
        // `g`: gradient behind the norm of the current output; `spare`: the gradient of the output
        // after it, where that is the residual.
        let [g, spare, g2, g3] = &mut self.gradients;
        let (mut g, mut spare) = (g, spare);
        let mut identity = false;
        let last = self.units.last();
        let y = last.map_or(&self.y0, |u| &u.y);
        let pixels = last.map_or(self.y0_pixels, |u| u.pixels.1);
        let values = n * pixels * self.layout.norm.channels;
        let sums = spread_features(
            arch,
            &self.affine,
            features,
            &y[..values],
            &mut g[..values],
            pixels,
        );
        let norm = &self.layout.norm;
        self.affine
            .set_backward(norm, &sums, n * pixels, wanted.parameters.as_deref_mut());
        let mut affine = &self.affine;
        let mut later = &mut self.units[..];
        for layer in self.layout.units.iter().rev() {
            let (u, before) = later.split_last_mut().expect("a state for each unit");
            later = before;
            let input = later.last().map_or(&self.y0, |u| &u.y);
            let [a1, a2, a3] = &mut u.affine;
            let [group1, group2, group3] = &u.groups;
            let (inner, outer) = (n * u.pixels.0, n * u.pixels.1);
            let mut weights = wanted.parameters.as_deref_mut();
            let upstream = UnitGradient {
                masked: Shared::new(g),
                values: &u.y,
                norm: affine,
                residual: identity.then_some(&spare[..]),
            };
            let sums = group3.backward(
                workers,
                group3.units(n, u.pixels.1),
                Input::Activations(&u.z2[..], Some(a3)),
                &[Upstream::Unit(upstream)],
                weights.as_deref_mut(),
                &Downstream::Norm(Shared::new(g3), &u.z2, a3),
            );
            a3.set_backward(&layer.norms[2], &sums, outer, weights.as_deref_mut());
            let sums = group2.backward(
                workers,
                n,
                Input::Activations(&u.z1[..], Some(a2)),
                &[Upstream::Norm(g3, &u.z2, a3)],
                weights.as_deref_mut(),
                &Downstream::Norm(Shared::new(g2), &u.z1, a2),
            );
            a2.set_backward(&layer.norms[1], &sums, inner, weights.as_deref_mut());
            let mut upstream = vec![Upstream::Norm(g2, &u.z1, a2)];
            if layer.shortcut.is_some() {
                upstream.push(Upstream::Direct(g));
            }
            let sums = group1.backward(
                workers,
                group1.units(n, u.pixels.0),
                Input::Activations(&input[..], Some(a1)),
                &upstream,
                weights.as_deref_mut(),
                &Downstream::Norm(Shared::new(spare), input, a1),
            );
            a1.set_backward(&layer.norms[0], &sums, inner, weights);
            std::mem::swap(&mut g, &mut spare);
            identity = layer.shortcut.is_none();
            affine = a1;
        }
        let upstream = UnitGradient {
            masked: Shared::new(g),
            values: &self.y0,
            norm: affine,
            residual: identity.then_some(&spare[..]),
        };
        let upstream = match &self.pool {
            None => Upstream::Unit(upstream),
            Some(pool) => {
                let pooled = upstream.compute_all(arch, n * self.y0_pixels);
                pool.backward(arch, (&self.y0, pooled), g2, self.base, n);
                Upstream::Direct(g2)
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
            &[upstream],
            wanted.parameters,
            &downstream,
        );
        Ok(())
    }
}
