//! The tangent of the forward pass: how activations change per unit of length along a direction of each image.
//! A convolution is linear. The Jacobian of a batch norm is symmetric, so a tangent goes through it by the sums
//! and coefficients of the backward pass, with the ReLU's mask behind them and not before.

use super::conv::{LayerInput, LayerOutput, Then};
use super::convolve::channel;
use super::element::Element;
use super::elementwise::{TangentNorm, tangent_at};
use super::norm::{Affine, fold_sums};
use super::registers::LANES;
use super::shared::Shared;
use super::trunk::Steps;
use crate::error::Result;
use crate::network::layout::Norm;
use crate::tasks;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

impl<E: Element> Steps<'_, E> {
    /// From a direction of each image to the tangent of the first unit's input, after the stem.
    pub fn stem_tangent(&self, direction: &[f32]) -> &[E] {
        let (layers, slots) = (self.layers, self.slots);
        let (stem, from) = (&layers.stem, LayerInput::Images(direction));
        let y0 = self.slot(slots.y0_tangent);
        match &layers.pool {
            None => {
                self.convolve(stem, from, &[LayerOutput::new(y0, Then::Nothing)]);
            }
            Some(pool) => {
                let tangent = self.slot(slots.stem_tangent);
                self.convolve(stem, from, &[LayerOutput::new(tangent, Then::Nothing)]);
                let (values, pooled) = (&*self.slot(slots.stem), &*self.slot(slots.y0));
                let channels = layers.layout.stem.outputs;
                pool.tangent(self.workers.isa, (values, tangent), pooled, y0, channels);
            }
        }
        y0
    }

    /// From the tangent of the `i`-th unit's input x to that of its output, after the unit.
    pub fn unit_tangent(
        &self,
        i: usize,
        norms: &mut [Affine; 3],
        x: &[E],
        tangent: &[E],
    ) -> Result<&[E]> {
        let (unit, slots) = (&self.layers.layout.units[i], &self.slots.units[i]);
        let [group1, group2, group3] = &self.layers.units[i].groups;
        let [norm1, norm2, norm3] = &unit.norms;
        let [a1, a2, a3] = norms;
        let (z1, z2) = (&*self.slot(slots.z1), &*self.slot(slots.z2));
        let [t1, t2] = [slots.t1, slots.t2].map(|slot| self.slot(slot));

        self.along(norm1, a1, tangent, x)?;
        let mut outputs = vec![LayerOutput::new(t1, Then::Nothing)];
        if unit.shortcut.is_some() {
            outputs.push(LayerOutput::new(self.slot(slots.ty), Then::Nothing));
        }
        self.convolve(group1, LayerInput::Tangent(tangent, x, a1), &outputs);

        self.along(norm2, a2, t1, z1)?;
        let output = LayerOutput::new(t2, Then::Nothing);
        self.convolve(group2, LayerInput::Tangent(t1, z1, a2), &[output]);

        self.along(norm3, a3, t2, z2)?;
        // The residual is there: of the projection, or else the input's tangent, which nothing else needs now.
        let ty = self.slot(slots.ty);
        let residual = Some(ty.as_ptr());
        let output = LayerOutput { values: Shared::new(ty), residual, then: Then::Nothing };
        self.convolve(group3, LayerInput::Tangent(t2, z2, a3), &[output]);
        Ok(ty)
    }

    /// The tangent of the pre-logits from that of y, the last unit's output.
    pub fn features_tangent(
        &self,
        affine: &mut Affine,
        y: &[E],
        tangent: &[E],
    ) -> Result<Vec<f32>> {
        let (layout, image) = (&self.layers.layout, y.len() / self.n);
        self.along(&layout.norm, affine, tangent, y)?;
        let (isa, norm) = (self.workers.isa, affine.tangent());
        let mut features = vec![0f32; self.n * layout.features];
        let images = features.par_chunks_mut(layout.features).zip(y.par_chunks(image));
        tasks::each(images.zip(tangent.par_chunks(image)), |((out, y), tangent)| {
            E::dispatch(isa, MeanTangent { norm, y, tangent, out });
        });
        Ok(features)
    }

    /// Gives a norm the coefficients for the tangent of x.
    fn along(&self, norm: &Norm, affine: &mut Affine, tangent: &[E], x: &[E]) -> Result<()> {
        let (isa, c, image) = (self.workers.isa, norm.channels, x.len() / self.n);
        let mut sums = vec![0f32; self.n * 2 * c];
        let images = tangent.par_chunks(image).zip(x.par_chunks(image));
        tasks::each(images.zip(sums.par_chunks_mut(2 * c)), |((tangent, x), sums)| {
            E::dispatch(isa, TangentSums { tangent, x, mean: &affine.mean, sums });
        });
        affine.set_backward(norm, &fold_sums(&sums, c), x.len() / c, None, self.ranks)
    }
}

/// Per channel: the sums of the tangent of x, and of that times (x - mean).
struct TangentSums<'a, E> {
    tangent: &'a [E],
    x: &'a [E],
    mean: &'a [f32],
    sums: &'a mut [f32],
}

impl<E: Element> WithSimd for TangentSums<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.mean.len();
        assert!(c.is_multiple_of(LANES) && self.sums.len() == 2 * c);
        assert!(self.tangent.len() == self.x.len());
        for j in (0..c).step_by(S::F32_LANES) {
            // SAFETY: j + lanes <= c, the channels of each pixel.
            unsafe {
                let mean = channel::<S>(self.mean, j);
                let (mut s0, mut s1) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
                for p in (0..self.x.len() / c * c).step_by(c) {
                    let t = E::load::<S>(self.tangent.as_ptr().add(p + j));
                    let x = E::load::<S>(self.x.as_ptr().add(p + j));
                    s0 = simd.add_f32s(s0, t);
                    s1 = simd.mul_add_f32s(t, simd.sub_f32s(x, mean), s1);
                }
                f32::store::<S>(self.sums.as_mut_ptr().add(j), s0);
                f32::store::<S>(self.sums.as_mut_ptr().add(c + j), s1);
            }
        }
    }
}

/// The mean over the pixels of one image of the tangent of relu(norm(y)), from that of y.
struct MeanTangent<'a, E> {
    norm: TangentNorm<'a>,
    y: &'a [E],
    tangent: &'a [E],
    out: &'a mut [f32],
}

impl<E: Element> WithSimd for MeanTangent<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.out.len();
        let pixels = self.y.len() / c;
        assert!(c.is_multiple_of(LANES) && self.tangent.len() == self.y.len());
        for j in (0..c).step_by(S::F32_LANES) {
            // SAFETY: j + lanes <= c, the channels of each pixel and of the norm.
            unsafe {
                let mut sum = simd.splat_f32s(0.0);
                for i in (0..pixels).map(|p| p * c + j) {
                    let from = (self.y.as_ptr().add(i), self.tangent.as_ptr().add(i));
                    sum = simd.add_f32s(sum, tangent_at(simd, self.norm, from, j));
                }
                let share = simd.splat_f32s(1.0 / pixels as f32);
                f32::store::<S>(self.out.as_mut_ptr().add(j), simd.mul_f32s(sum, share));
            }
        }
    }
}
