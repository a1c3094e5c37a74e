//! Weights as the kernels read them: panels of two vectors of columns, one after the other.

use super::element::Element;
use super::isa::Isa;
use super::multiply::pair;
use super::registers::{padded, panel_width};
use crate::network::layout::Conv;
use crate::tasks;
use half::bf16;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

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
    /// Two rows are packed as one row of words (see `multiply::Pairs`).
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
        let (rows, width) = (self.rows(way), panel_width(isa));
        let panels = packed.par_chunks_mut(rows * width).enumerate();
        panels.for_each(tasks::task(|(panel, out): (usize, &mut [f32])| {
            isa.dispatch(Pack {
                matrix: self,
                weights,
                way,
                start: panel * width,
                width: out.len() / rows,
                out,
            });
        }));
    }
}

/// One panel of packed weights.
struct Pack<'a> {
    matrix: KernelMatrix<'a>,
    /// `[kernel, kernel, inputs, outputs]`.
    weights: &'a [f32],
    way: Way,
    /// First column, and number of columns.
    start: usize,
    width: usize,
    out: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (inputs, outputs) = (self.matrix.conv.inputs, self.matrix.conv.outputs);
        let (w, start, width, pairs) = (self.weights, self.start, self.width, self.matrix.pairs);
        match self.way {
            Way::Forward => {
                for (r, out) in self.out.chunks_exact_mut(width).enumerate() {
                    if pairs {
                        let first = &w[2 * r * outputs + start..][..width];
                        let second = &w[(2 * r + 1) * outputs + start..][..width];
                        for c in 0..width {
                            out[c] = pair(bf16::narrow(first[c]), bf16::narrow(second[c]));
                        }
                    } else {
                        out.copy_from_slice(&w[r * outputs + start..][..width]);
                    }
                }
            }
            // The kernel rotated by 180 degrees.
            Way::Backward => {
                self.out.fill(0.0);
                let columns = width.min(inputs.saturating_sub(start));
                for (tap, w) in w.chunks_exact(inputs * outputs).rev().enumerate() {
                    for c in 0..columns {
                        let w = &w[(start + c) * outputs..][..outputs];
                        if pairs {
                            let out = &mut self.out[tap * outputs / 2 * width + c..];
                            for o in 0..outputs / 2 {
                                let (a, b) = (w[2 * o], w[2 * o + 1]);
                                out[o * width] = pair(bf16::narrow(a), bf16::narrow(b));
                            }
                        } else {
                            let out = &mut self.out[tap * outputs * width + c..];
                            for o in 0..outputs {
                                out[o * width] = w[o];
                            }
                        }
                    }
                }
            }
        }
    }
}
