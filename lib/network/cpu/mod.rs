//! The fast CPU trunk: whole-network forward and backward in NHWC over preallocated buffers.
//! Batch norm and ReLU are fused into the convolutions' loads; only the convolutions' outputs are
//! stored.

mod conv;
mod geometry;
mod kernels;
mod norm;
mod pool;
mod workers;

use super::layout::{Layout, Norm};
use super::{Gradients, Pass, Trunk};
use crate::error::Result;
use conv::{Output, Upstream};
use geometry::Group;
use kernels::{NormBackward, padded};
use norm::{Affine, BatchStatistics};
use pool::{Pool, pooled_features, spread_features};
use rayon::prelude::*;
use workers::{Shared, Workers};

/// Values of a pass over large buffers that one task takes.
const TASK_VALUES: usize = 64 << 10;

/// Geometry and buffers of one bottleneck unit.
struct UnitState {
    /// conv1 and, where there is one, the shortcut; conv2; conv3.
    groups: [Group; 3],
    affine: [Affine; 3],
    /// Outputs of conv1, conv2 and of the unit.
    z1: Vec<f32>,
    z2: Vec<f32>,
    y: Vec<f32>,
    /// Pixels of an image before and after the stride; channels of z1 and y.
    pixels: (usize, usize),
    middle: usize,
    outputs: usize,
}

/// See the module. Holds the tape of its last forward pass.
pub struct CpuTrunk {
    layout: Layout,
    workers: Workers,
    stem: Group,
    pool: Option<Pool>,
    /// Output of stem and pool: the first unit's input.
    y0: Vec<f32>,
    base: usize,
    units: Vec<UnitState>,
    affine: Affine,
    /// Values of one image at: the image, y0.
    image_values: usize,
    y0_pixels: usize,
    capacity: usize,
    /// The last forward pass.
    images: Vec<f32>,
    count: usize,
    /// Gradients on their way back: two of unit size, and of units' inside.
    gradients: [Vec<f32>; 5],
}

impl CpuTrunk {
    /// A trunk for images of `height` x `width`, on the given instruction set.
    pub fn new(layout: &Layout, height: usize, width: usize, arch: pulp::Arch) -> CpuTrunk {
        let stem = &layout.stem;
        let (mut h, mut w) = (stem.output(height), stem.output(width));
        let pool = layout.pool.then(|| {
            let input = (h, w);
            (h, w) = ((h - 1) / 2 + 1, (w - 1) / 2 + 1);
            Pool {
                input,
                output: (h, w),
                values: Vec::new(),
                argmax: Vec::new(),
            }
        });
        let y0_pixels = h * w;
        let units = layout.units.iter().map(|u| {
            let [c1, c2, c3] = &u.convs;
            let (oh, ow) = (c2.output(h), c2.output(w));
            let first: Vec<_> = std::iter::once(c1).chain(&u.shortcut).collect();
            let state = UnitState {
                groups: [
                    Group::new(&first, padded(c1.inputs), h, w),
                    Group::new(&[c2], padded(c2.inputs), h, w),
                    Group::new(&[c3], padded(c3.inputs), oh, ow),
                ],
                affine: [0, 1, 2].map(|i| Affine::new(u.norms[i].channels)),
                z1: Vec::new(),
                z2: Vec::new(),
                y: Vec::new(),
                pixels: (h * w, oh * ow),
                middle: padded(c1.outputs),
                outputs: padded(c3.outputs),
            };
            (h, w) = (oh, ow);
            state
        });
        CpuTrunk {
            workers: Workers::new(arch),
            stem: Group::new(&[stem], layout.stem.inputs, height, width),
            pool,
            y0: Vec::new(),
            base: padded(stem.outputs),
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

    /// Grows the buffers to hold `n` images.
    fn reserve(&mut self, n: usize) {
        if n <= self.capacity {
            return;
        }
        self.capacity = n;
        self.y0.resize(n * self.y0_pixels * self.base, 0.0);
        if let Some(p) = &mut self.pool {
            p.values.resize(n * p.input.0 * p.input.1 * self.base, 0.0);
            p.argmax.resize(n * p.output.0 * p.output.1 * self.base, 0);
        }
        let mut outer = self.y0_pixels * self.base;
        let mut inner = 0;
        for u in &mut self.units {
            u.z1.resize(n * u.pixels.0 * u.middle, 0.0);
            u.z2.resize(n * u.pixels.1 * u.middle, 0.0);
            u.y.resize(n * u.pixels.1 * u.outputs, 0.0);
            outer = outer.max(u.pixels.1 * u.outputs);
            inner = inner.max(u.pixels.0 * u.middle);
        }
        if let Some(p) = &self.pool {
            inner = inner.max(p.input.0 * p.input.1 * self.base);
        }
        for (i, g) in self.gradients.iter_mut().enumerate() {
            g.resize(n * if i < 3 { outer } else { inner }, 0.0);
        }
    }

    /// Bytes of the buffers for `n` images, without the threads' scratch.
    pub fn bytes(&self, n: usize) -> usize {
        let mut outer = self.y0_pixels * self.base;
        let mut inner = 0;
        let mut values = self.image_values + outer;
        if let Some(p) = &self.pool {
            inner = p.input.0 * p.input.1 * self.base;
            values += inner + p.output.0 * p.output.1 * self.base / 4;
        }
        for u in &self.units {
            outer = outer.max(u.pixels.1 * u.outputs);
            inner = inner.max(u.pixels.0 * u.middle);
            values += (u.pixels.0 + u.pixels.1) * u.middle + u.pixels.1 * u.outputs;
        }
        n * (values + 3 * outer + 2 * inner) * size_of::<f32>()
    }

    fn pack(&mut self, parameters: &[f32]) {
        let arch = self.workers.arch;
        let groups = self.units.iter_mut().flat_map(|u| &mut u.groups);
        std::iter::once(&mut self.stem)
            .chain(groups)
            .collect::<Vec<_>>()
            .into_par_iter()
            .for_each(|g| g.pack(arch, parameters));
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

impl Trunk for CpuTrunk {
    fn forward(
        &mut self,
        parameters: &[f32],
        moving: &mut [f32],
        images: &[f32],
        pass: Pass,
    ) -> Result<Vec<f32>> {
        let n = images.len() / self.image_values;
        self.reserve(n);
        self.pack(parameters);
        self.count = n;
        self.images.clear();
        self.images.extend_from_slice(images);
        let batch = pass != Pass::Inference;
        let workers = &self.workers;
        let plain = |values: &mut [f32], statistics: bool| Output {
            values: Shared::new(values),
            residual: None,
            accumulate: false,
            statistics,
        };
        let mut statistics = match &mut self.pool {
            None => {
                let out = plain(&mut self.y0, batch);
                self.stem.forward(workers, n, images, None, &[out]).pop()
            }
            Some(pool) => {
                let out = plain(&mut pool.values, false);
                self.stem.forward(workers, n, images, None, &[out]);
                pool.forward(workers.arch, &mut self.y0, self.base, n, batch)
            }
        };
        let mut input = &self.y0;
        let mut pixels = self.y0_pixels;
        for (u, layer) in self.units.iter_mut().zip(&self.layout.units) {
            let [g1, g2, g3] = &u.groups;
            let [n1, n2, n3] = &layer.norms;
            normalize(&mut u.affine[0], n1, parameters, moving, statistics, pass);
            let project = layer.shortcut.is_some();
            let mut outs = vec![plain(&mut u.z1, batch)];
            if project {
                outs.push(plain(&mut u.y, false));
            }
            statistics = g1
                .forward(workers, n, input, Some(&u.affine[0]), &outs)
                .pop();
            normalize(&mut u.affine[1], n2, parameters, moving, statistics, pass);
            let out = plain(&mut u.z2, batch);
            statistics = g2
                .forward(workers, n, &u.z1, Some(&u.affine[1]), &[out])
                .pop();
            normalize(&mut u.affine[2], n3, parameters, moving, statistics, pass);
            let out = Output {
                values: Shared::new(&mut u.y),
                residual: (!project).then_some(input),
                accumulate: project,
                statistics: batch,
            };
            statistics = g3
                .forward(workers, n, &u.z2, Some(&u.affine[2]), &[out])
                .pop();
            input = &u.y;
            pixels = u.pixels.1;
        }
        normalize(
            &mut self.affine,
            &self.layout.norm,
            parameters,
            moving,
            statistics,
            pass,
        );
        Ok(pooled_features(
            &self.affine,
            input,
            n,
            pixels,
            self.layout.features,
        ))
    }

    fn backward(&mut self, _: &[f32], features: &[f32], mut wanted: Gradients) -> Result<()> {
        let n = self.count;
        let workers = &self.workers;
        let arch = workers.arch;
        let [gy, gx, g1, g2, g3] = &mut self.gradients;
        let last = self.units.last();
        let y = last.map_or(&self.y0, |u| &u.y);
        let pixels = last.map_or(self.y0_pixels, |u| u.pixels.1);
        let sums = spread_features(arch, &self.affine, features, y, g1, n, pixels);
        let norm = &self.layout.norm;
        self.affine
            .set_backward(norm, &sums, n * pixels, wanted.parameters.as_deref_mut());
        norm_backward(arch, &self.affine, g1, y, None, gy, n * pixels);
        for i in (0..self.units.len()).rev() {
            let (before, rest) = self.units.split_at_mut(i);
            let u = &mut rest[0];
            let layer = &self.layout.units[i];
            let input = before.last().map_or(&self.y0, |u| &u.y);
            let [a1, a2, a3] = &mut u.affine;
            let [group1, group2, group3] = &u.groups;
            let (inner, outer) = (n * u.pixels.0, n * u.pixels.1);
            let mut weights = wanted.parameters.as_deref_mut();
            let sums = group3.backward(
                workers,
                n,
                &u.z2,
                Some(a3),
                &[Upstream::Direct(gy)],
                weights.as_deref_mut(),
                Some(Shared::new(g3)),
            );
            a3.set_backward(&layer.norms[2], &sums, outer, weights.as_deref_mut());
            let sums = group2.backward(
                workers,
                n,
                &u.z1,
                Some(a2),
                &[Upstream::Norm(g3, &u.z2, a3)],
                weights.as_deref_mut(),
                Some(Shared::new(g2)),
            );
            a2.set_backward(&layer.norms[1], &sums, inner, weights.as_deref_mut());
            let mut upstream = vec![Upstream::Norm(g2, &u.z1, a2)];
            if layer.shortcut.is_some() {
                upstream.push(Upstream::Direct(gy));
            }
            let down = Some(Shared::new(g1));
            let sums = group1.backward(
                workers,
                n,
                input,
                Some(a1),
                &upstream,
                weights.as_deref_mut(),
                down,
            );
            a1.set_backward(&layer.norms[0], &sums, inner, weights);
            let identity = layer.shortcut.is_none().then_some(&gy[..]);
            norm_backward(arch, a1, g1, input, identity, gx, inner);
            std::mem::swap(gy, gx);
        }
        let stem = match &self.pool {
            None => &*gy,
            Some(pool) => {
                pool.backward(gy, g2, self.base, n);
                &*g2
            }
        };
        let down = wanted.images.map(Shared::new);
        self.stem.backward(
            workers,
            n,
            &self.images,
            None,
            &[Upstream::Direct(stem)],
            wanted.parameters,
            down,
        );
        Ok(())
    }
}

/// `out` = gradient with respect to the norm's input `values`, plus `residual`.
fn norm_backward(
    arch: pulp::Arch,
    norm: &Affine,
    gradient: &[f32],
    values: &[f32],
    residual: Option<&[f32]>,
    out: &mut [f32],
    pixels: usize,
) {
    let c = norm.scale.len();
    let task = (TASK_VALUES / c).max(1) * c;
    out[..pixels * c]
        .par_chunks_mut(task)
        .enumerate()
        .for_each(|(i, output)| {
            let range = i * task..i * task + output.len();
            arch.dispatch(NormBackward {
                gradient: &gradient[range.clone()],
                values: &values[range.clone()],
                residual: residual.map(|r| &r[range]),
                output,
                g: &norm.g,
                x: &norm.x,
                one: &norm.one,
            });
        });
}
