//! Weights as the kernels read them: panels of two vectors of columns, one after the other.

use super::convolve::channel;
use super::isa::Isa;
use super::multiply::{Rows, Single, Words};
use super::registers::{LANES, padded, panel_width};
use crate::network::layout::Conv;
use crate::tasks;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::marker::PhantomData;

/// The direction in which a convolution's weights are used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Way {
    Forward,
    /// For the gradient of the input.
    Backward,
}

/// The kernel of a convolution as a matrix: one row per value that meets a pixel, one column per channel of
/// the result.
#[derive(Clone, Copy)]
pub struct KernelMatrix<'a> {
    pub conv: &'a Conv,
    /// Two rows are packed as one row of words (see `multiply::Words`).
    pub pairs: bool,
}

impl KernelMatrix<'_> {
    /// Rows and columns of the matrix.
    fn size(self, way: Way) -> (usize, usize) {
        let taps = self.conv.kernel * self.conv.kernel;
        match way {
            Way::Forward => (taps * self.conv.inputs, self.conv.outputs),
            Way::Backward => (taps * self.conv.outputs, self.conv.inputs),
        }
    }

    /// Rows of packed words.
    pub fn rows(self, way: Way) -> usize {
        self.size(way).0 / if self.pairs { 2 } else { 1 }
    }

    /// Words of the packed weights.
    pub fn words(self, way: Way) -> usize {
        self.rows(way) * padded(self.size(way).1)
    }

    /// Packs the weights `[kernel, kernel, inputs, outputs]`; added columns, up to a whole number of
    /// vectors, are zero.
    pub fn pack(self, isa: Isa, weights: &[f32], way: Way, packed: &mut [f32]) {
        match self.pairs {
            true => self.pack_by::<Words>(isa, weights, way, packed),
            false => self.pack_by::<Single<f32>>(isa, weights, way, packed),
        }
    }

    fn pack_by<P: Rows>(self, isa: Isa, weights: &[f32], way: Way, packed: &mut [f32]) {
        let (rows, width) = (self.rows(way), panel_width(isa));
        let panels = packed.par_chunks_mut(rows * width).enumerate();
        tasks::each(panels, |(panel, out)| {
            P::dispatch(
                isa,
                Pack::<P> {
                    matrix: self,
                    weights,
                    way,
                    start: panel * width,
                    width: out.len() / rows,
                    out,
                    by: PhantomData,
                },
            );
        });
    }
}

/// One panel of packed weights, with the rows of `P`.
struct Pack<'a, P> {
    matrix: KernelMatrix<'a>,
    /// `[kernel, kernel, inputs, outputs]`.
    weights: &'a [f32],
    way: Way,
    /// First column, and number of columns.
    start: usize,
    width: usize,
    out: &'a mut [f32],
    by: PhantomData<P>,
}

impl<P: Rows> WithSimd for Pack<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (inputs, outputs) = (self.matrix.conv.inputs, self.matrix.conv.outputs);
        let (w, start, width) = (self.weights, self.start, self.width);
        let rows = self.matrix.size(self.way).0;
        assert!(width <= 2 * LANES && self.out.len() == rows / P::ROWS * width);
        let out = self.out.as_mut_ptr();
        match self.way {
            Way::Forward => {
                for r in 0..rows {
                    let w = &w[r * outputs + start..][..width];
                    for j in (0..width).step_by(S::F32_LANES) {
                        // SAFETY: j + lanes <= width, the length of w and of the rows of out.
                        unsafe {
                            let v = channel::<S>(w, j);
                            P::store::<S>(out.add(j), width, r, v);
                        }
                    }
                }
            }
            // The kernel rotated by 180 degrees, some rows at a time by way of a block in the inner cache.
            Way::Backward => {
                let columns = width.min(inputs.saturating_sub(start));
                let mut block = [[0f32; 2 * LANES]; LANES];
                for (tap, w) in w.chunks_exact(inputs * outputs).rev().enumerate() {
                    for o in (0..outputs).step_by(LANES) {
                        for c in 0..columns {
                            let w = &w[(start + c) * outputs + o..][..LANES];
                            for (row, &w) in block.iter_mut().zip(w) {
                                row[c] = w;
                            }
                        }
                        for (r, values) in block.iter().enumerate() {
                            let row = tap * outputs + o + r;
                            for j in (0..width).step_by(S::F32_LANES) {
                                // SAFETY: as above.
                                unsafe {
                                    let v = channel::<S>(values, j);
                                    P::store::<S>(out.add(j), width, row, v);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
