//! SIMD kernels over one tile, written once over `pulp::Simd` and compiled for each instruction
//! set. Channels are the vector dimension: every activation has a multiple of `LANES` channels.
//!
//! The kernels take raw pointers, since several threads write parts of one buffer; each one states
//! what it reads and writes.

use super::element::Element;
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Activations have a multiple of this many channels: the widest vector.
pub const LANES: usize = 16;

/// `channels` rounded up to a whole number of vectors.
pub fn padded(channels: usize) -> usize {
    channels.next_multiple_of(LANES)
}

/// Columns of a packed weight panel: two vectors.
fn panel_width(arch: pulp::Arch) -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    arch.dispatch(Lanes).min(2 * LANES)
}

/// Packs a `[rows, columns]` matrix (element `at(row, column)`) into panels of two vectors of
/// columns; columns up to `padded(columns)` are zero.
pub fn pack(
    arch: pulp::Arch,
    rows: usize,
    columns: usize,
    packed: &mut [f32],
    at: impl Fn(usize, usize) -> f32,
) {
    let width = panel_width(arch);
    let all = padded(columns);
    let mut start = 0;
    while start < all {
        let width = width.min(all - start);
        let panel = &mut packed[start * rows..(start + width) * rows];
        for (row, out) in panel.chunks_exact_mut(width).enumerate() {
            for (c, o) in out.iter_mut().enumerate() {
                *o = if start + c < columns {
                    at(row, start + c)
                } else {
                    0.0
                };
            }
        }
        start += width;
    }
}

/// Calls `$f::<S, M, V>` with `M = $m` in 1..=MAX_ROWS.
macro_rules! for_rows {
    ($m:expr, $f:ident::<$S:ident, $V:literal>($($a:expr),*)) => {
        match $m {
            16 => $f::<$S, 16, $V>($($a),*),
            15 => $f::<$S, 15, $V>($($a),*),
            14 => $f::<$S, 14, $V>($($a),*),
            13 => $f::<$S, 13, $V>($($a),*),
            12 => $f::<$S, 12, $V>($($a),*),
            11 => $f::<$S, 11, $V>($($a),*),
            10 => $f::<$S, 10, $V>($($a),*),
            9 => $f::<$S, 9, $V>($($a),*),
            8 => $f::<$S, 8, $V>($($a),*),
            7 => $f::<$S, 7, $V>($($a),*),
            6 => $f::<$S, 6, $V>($($a),*),
            5 => $f::<$S, 5, $V>($($a),*),
            4 => $f::<$S, 4, $V>($($a),*),
            3 => $f::<$S, 3, $V>($($a),*),
            2 => $f::<$S, 2, $V>($($a),*),
            _ => $f::<$S, 1, $V>($($a),*),
        }
    };
}

/// Most rows of a register tile.
const MAX_ROWS: usize = 16;

/// Rows of a register tile of `vectors` columns: as many as leave registers for a row of weights
/// and a broadcast.
const fn register_rows<S: Simd>(vectors: usize) -> usize {
    match (S::F32_LANES >= 16, vectors) {
        (true, 1) => 16,
        (true, _) => 14,
        (false, 1) => 12,
        (false, _) => 6,
    }
}

/// Splits `rows` into the fewest register tiles, of nearly equal size: the next one's rows.
fn next_rows(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most))
}

/// Consecutive input values of a convolution: their offset from a pixel's own, their number, and
/// their first row in a weight panel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tap {
    pub offset: usize,
    pub depth: usize,
    pub row: usize,
}

/// One input of a convolution, with the weights that it meets.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    pub input: *const f32,
    /// Offset of each pixel in `input`.
    pub pixels: &'a [u32],
    pub taps: &'a [Tap],
    /// Packed panels of `rows` rows.
    pub weights: &'a [f32],
    pub rows: usize,
}

/// Per channel, the sums of value - around and of its square.
pub struct Moments<'a> {
    pub around: &'a mut [f32],
    pub sums: &'a mut [f32],
    pub squares: &'a mut [f32],
}

/// What becomes of a convolution's sums. Per-channel vectors are as long as the output has
/// channels; other tensors lie as the output does.
pub enum Epilogue<'a, E> {
    Store,
    /// Adds the residual, stores, and adds to the moments; where they are `empty`, the pixel of
    /// `to[0]` becomes what they are computed around.
    Statistics {
        residual: Option<*const E>,
        moments: Moments<'a>,
        empty: bool,
    },
    /// Adds the residual and stores.
    Residual(*const E),
    /// Stores relu(scale * sum + shift).
    Activate {
        scale: &'a [f32],
        shift: &'a [f32],
    },
    /// Stores the sum where scale * x + shift > 0, else 0; adds up what it stores, and that times
    /// (x - mean).
    Mask {
        x: *const E,
        scale: &'a [f32],
        shift: &'a [f32],
        mean: &'a [f32],
        sums: (&'a mut [f32], &'a mut [f32]),
    },
}

impl<E> Epilogue<'_, E> {
    /// Says that part of the output is done.
    pub fn begun(&mut self) {
        if let Epilogue::Statistics { empty, .. } = self {
            *empty = false;
        }
    }

    /// The same, for the next part of the output.
    pub fn reborrow(&mut self) -> Epilogue<'_, E> {
        match self {
            Epilogue::Store => Epilogue::Store,
            Epilogue::Residual(residual) => Epilogue::Residual(*residual),
            Epilogue::Statistics {
                residual,
                moments,
                empty,
            } => Epilogue::Statistics {
                residual: *residual,
                moments: Moments {
                    around: moments.around,
                    sums: moments.sums,
                    squares: moments.squares,
                },
                empty: *empty,
            },
            Epilogue::Activate { scale, shift } => Epilogue::Activate { scale, shift },
            Epilogue::Mask {
                x,
                scale,
                shift,
                mean,
                sums,
            } => Epilogue::Mask {
                x: *x,
                scale,
                shift,
                mean,
                sums: (sums.0, sums.1),
            },
        }
    }
}

/// `sink[m, j] = epilogue(sum over operands, taps, c of input[pixels[m] + tap + c] *
/// weights[row + c, j])` for the columns j.
///
/// Reads the inputs at the given offsets, writes the columns of `output` at the given offsets.
pub struct Convolve<'a, E> {
    /// One or two.
    pub operands: &'a [Operand<'a>],
    /// Starts at a multiple of two vectors, ends at one of `LANES`.
    pub columns: Range<usize>,
    pub sink: Sink<'a, E>,
}

/// Where sums go: pixel m to `output[to[m]..]`.
pub struct Sink<'a, E> {
    pub output: *mut E,
    pub to: &'a [u32],
    pub epilogue: Epilogue<'a, E>,
}

impl<E: Element> WithSimd for Convolve<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut sums = [[simd.splat_f32s(0.0); MAX_ROWS]; 2];
        let mut start = self.columns.start;
        while start < self.columns.end {
            let two = self.columns.end - start >= 2 * S::F32_LANES;
            let vectors = if two { 2 } else { 1 };
            let most = register_rows::<S>(vectors);
            let mut m = 0;
            while m < self.sink.to.len() {
                let rows = next_rows(self.sink.to.len() - m, most);
                // SAFETY: offsets lie inside the tiles (see `geometry`), panels have `rows` rows.
                unsafe {
                    let k = self.operands;
                    if two {
                        for_rows!(rows, convolve_rows::<S, 2>(simd, k, m, start, &mut sums));
                    } else {
                        for_rows!(rows, convolve_rows::<S, 1>(simd, k, m, start, &mut sums));
                    }
                    for (v, sums) in sums[..vectors].iter().enumerate() {
                        let column = start + v * S::F32_LANES;
                        finish(simd, &mut self.sink, &sums[..rows], m, column);
                    }
                }
                m += rows;
            }
            start += vectors * S::F32_LANES;
        }
    }
}

/// The sums of M pixels from the `first` and V vectors from the `column` on.
#[inline(always)]
unsafe fn convolve_rows<S: Simd, const M: usize, const V: usize>(
    simd: S,
    operands: &[Operand],
    first: usize,
    column: usize,
    sums: &mut [[S::f32s; MAX_ROWS]; 2],
) {
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        for operand in operands {
            let panel = operand.weights.as_ptr().add(column * operand.rows);
            let mut pixel = [operand.input; M];
            for (m, p) in pixel.iter_mut().enumerate() {
                *p = p.add(*operand.pixels.get_unchecked(first + m) as usize);
            }
            for tap in operand.taps {
                let mut b = panel.add(tap.row * V * S::F32_LANES);
                for c in tap.offset..tap.offset + tap.depth {
                    let mut w = [simd.splat_f32s(0.0); V];
                    for (v, w) in w.iter_mut().enumerate() {
                        *w = f32::load::<S>(b.add(v * S::F32_LANES));
                    }
                    for m in 0..M {
                        let x = simd.splat_f32s(*pixel[m].add(c));
                        for v in 0..V {
                            acc[m][v] = simd.mul_add_f32s(x, w[v], acc[m][v]);
                        }
                    }
                    b = b.add(V * S::F32_LANES);
                }
            }
        }
        for (v, sums) in sums[..V].iter_mut().enumerate() {
            for m in 0..M {
                sums[m] = acc[m][v];
            }
        }
    }
}

/// The values of one vector of channels, from the `j`-th on.
///
/// # Safety
/// `values` has them.
#[inline(always)]
pub unsafe fn channel<S: Simd>(values: &[f32], j: usize) -> S::f32s {
    unsafe { f32::load::<S>(values.as_ptr().add(j)) }
}

/// The epilogue of one vector of columns of the pixels from the `first` on.
///
/// # Safety
/// The sink's offsets lie inside its tensors.
// Loops stand where closures would read better: a closure is compiled without the instruction set
// of the function around it.
#[inline(always)]
pub unsafe fn finish<S: Simd, E: Element>(
    simd: S,
    sink: &mut Sink<E>,
    sums: &[S::f32s],
    first: usize,
    column: usize,
) {
    unsafe {
        let to = sink.to.get_unchecked(first..first + sums.len());
        let zero = simd.splat_f32s(0.0);
        match &mut sink.epilogue {
            Epilogue::Store => {
                for (&y, &at) in sums.iter().zip(to) {
                    E::store::<S>(sink.output.add(at as usize + column), y);
                }
            }
            Epilogue::Residual(residual) => {
                for (&y, &at) in sums.iter().zip(to) {
                    let at = at as usize + column;
                    let y = simd.add_f32s(y, E::load::<S>(residual.add(at)));
                    E::store::<S>(sink.output.add(at), y);
                }
            }
            Epilogue::Statistics {
                residual,
                moments,
                empty,
            } => {
                let around = moments.around[column..].as_mut_ptr();
                if *empty && first == 0 {
                    let mut y = sums[0];
                    if let Some(r) = residual {
                        y = simd.add_f32s(y, E::load::<S>(r.add(to[0] as usize + column)));
                    }
                    f32::store::<S>(around, y);
                }
                let around = f32::load::<S>(around);
                let p0 = moments.sums[column..].as_mut_ptr();
                let p1 = moments.squares[column..].as_mut_ptr();
                let (mut s0, mut s1) = (f32::load::<S>(p0), f32::load::<S>(p1));
                for (&y, &at) in sums.iter().zip(to) {
                    let at = at as usize + column;
                    let mut y = y;
                    if let Some(r) = residual {
                        y = simd.add_f32s(y, E::load::<S>(r.add(at)));
                    }
                    E::store::<S>(sink.output.add(at), y);
                    let d = simd.sub_f32s(y, around);
                    s0 = simd.add_f32s(s0, d);
                    s1 = simd.mul_add_f32s(d, d, s1);
                }
                f32::store::<S>(p0, s0);
                f32::store::<S>(p1, s1);
            }
            Epilogue::Activate { scale, shift } => {
                let (scale, shift) = (channel::<S>(scale, column), channel::<S>(shift, column));
                for (&y, &at) in sums.iter().zip(to) {
                    let y = simd.max_f32s(simd.mul_add_f32s(y, scale, shift), zero);
                    E::store::<S>(sink.output.add(at as usize + column), y);
                }
            }
            Epilogue::Mask {
                x,
                scale,
                shift,
                mean,
                sums: (sum0, sum1),
            } => {
                let (scale, shift) = (channel::<S>(scale, column), channel::<S>(shift, column));
                let mean = channel::<S>(mean, column);
                let (p0, p1) = (sum0[column..].as_mut_ptr(), sum1[column..].as_mut_ptr());
                let (mut s0, mut s1) = (f32::load::<S>(p0), f32::load::<S>(p1));
                for (&g, &at) in sums.iter().zip(to) {
                    let at = at as usize + column;
                    let x = E::load::<S>(x.add(at));
                    let on = simd.greater_than_f32s(simd.mul_add_f32s(x, scale, shift), zero);
                    let g = simd.select_f32s(on, g, zero);
                    E::store::<S>(sink.output.add(at), g);
                    s0 = simd.add_f32s(s0, g);
                    s1 = simd.mul_add_f32s(g, simd.sub_f32s(x, mean), s1);
                }
                f32::store::<S>(p0, s0);
                f32::store::<S>(p1, s1);
            }
        }
    }
}

/// Matrix products: `output[m * columns.len() + j - columns.start] = sum over k < depth of
/// input[m * depth + k] * weights[k, j]` for m < `rows` and the columns j, `count` times: with the
/// inputs, weights and outputs that start a step further each time.
pub struct Products<'a> {
    pub count: usize,
    pub rows: usize,
    pub depth: usize,
    /// Starts at a multiple of two vectors, ends at one of `LANES`.
    pub columns: Range<usize>,
    pub input: &'a [f32],
    pub input_step: usize,
    /// Packed panels of `depth` rows.
    pub weights: &'a [f32],
    pub weights_step: usize,
    pub output: &'a mut [f32],
    pub output_step: usize,
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (width, columns) = (self.columns.len(), self.columns);
        let last = self.count - 1;
        assert!(self.input.len() >= last * self.input_step + self.rows * self.depth);
        assert!(self.weights.len() >= last * self.weights_step + columns.end * self.depth);
        assert!(self.output.len() >= last * self.output_step + self.rows * width);
        for i in 0..self.count {
            let mut j = columns.start;
            while j < columns.end {
                let two = columns.end - j >= 2 * S::F32_LANES;
                let most = register_rows::<S>(if two { 2 } else { 1 });
                let mut m = 0;
                while m < self.rows {
                    let rows = next_rows(self.rows - m, most);
                    // SAFETY: lengths were checked.
                    unsafe {
                        let a = self
                            .input
                            .as_ptr()
                            .add(i * self.input_step + m * self.depth);
                        let b = self
                            .weights
                            .as_ptr()
                            .add(i * self.weights_step + j * self.depth);
                        let at = i * self.output_step + m * width + j - columns.start;
                        let c = self.output.as_mut_ptr().add(at);
                        if two {
                            for_rows!(rows, product_rows::<S, 2>(simd, a, self.depth, b, c, width));
                        } else {
                            for_rows!(rows, product_rows::<S, 1>(simd, a, self.depth, b, c, width));
                        }
                    }
                    m += rows;
                }
                j += if two { 2 } else { 1 } * S::F32_LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn product_rows<S: Simd, const M: usize, const V: usize>(
    simd: S,
    a: *const f32,
    depth: usize,
    mut b: *const f32,
    c: *mut f32,
    width: usize,
) {
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        for k in 0..depth {
            let mut w = [simd.splat_f32s(0.0); V];
            for (v, w) in w.iter_mut().enumerate() {
                *w = f32::load::<S>(b.add(v * S::F32_LANES));
            }
            for (m, acc) in acc.iter_mut().enumerate() {
                let x = simd.splat_f32s(*a.add(m * depth + k));
                for v in 0..V {
                    acc[v] = simd.mul_add_f32s(x, w[v], acc[v]);
                }
            }
            b = b.add(V * S::F32_LANES);
        }
        for (m, acc) in acc.iter().enumerate() {
            for (v, &a) in acc.iter().enumerate() {
                f32::store::<S>(c.add(m * width + v * S::F32_LANES), a);
            }
        }
    }
}

/// Weight gradient of `depth` consecutive rows of a kernel: `out[i, j] (+)= sum over runs r, x < width of
/// input[(runs[r].0 + x * stride) * channels + i] * gradient[(runs[r].1 + x) * outputs + j]`.
pub struct WeightGradient<'a> {
    pub input: *const f32,
    /// Values of a pixel of `input`.
    pub channels: usize,
    /// Pixels from one to the next.
    pub stride: usize,
    pub depth: usize,
    /// Gradient of the convolution's output.
    pub gradient: *const f32,
    /// A multiple of `LANES`; also the pixel stride of `gradient`.
    pub outputs: usize,
    /// First pixels of matching runs in `input` and `gradient`.
    pub runs: &'a [(u32, u32)],
    /// Pixels of a run.
    pub width: usize,
    /// `[depth, outputs]`.
    pub out: &'a mut [f32],
    pub accumulate: bool,
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        assert!(self.out.len() >= self.depth * self.outputs);
        let mut j = 0;
        while j < self.outputs {
            let two = self.outputs - j >= 2 * S::F32_LANES;
            let most = register_rows::<S>(if two { 2 } else { 1 });
            let mut i = 0;
            while i < self.depth {
                let rows = next_rows(self.depth - i, most);
                // SAFETY: runs lie inside the tiles (see `geometry`).
                unsafe {
                    if two {
                        for_rows!(rows, weight_rows::<S, 2>(simd, &mut self, i, j));
                    } else {
                        for_rows!(rows, weight_rows::<S, 1>(simd, &mut self, i, j));
                    }
                }
                i += rows;
            }
            j += if two { 2 } else { 1 } * S::F32_LANES;
        }
    }
}

#[inline(always)]
unsafe fn weight_rows<S: Simd, const M: usize, const V: usize>(
    simd: S,
    k: &mut WeightGradient,
    i: usize,
    j: usize,
) {
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        let step = k.stride * k.channels;
        for &(a, b) in k.runs {
            let mut a = k.input.add(a as usize * k.channels + i);
            let mut b = k.gradient.add(b as usize * k.outputs + j);
            for _ in 0..k.width {
                let mut g = [simd.splat_f32s(0.0); V];
                for (v, g) in g.iter_mut().enumerate() {
                    *g = f32::load::<S>(b.add(v * S::F32_LANES));
                }
                for (m, acc) in acc.iter_mut().enumerate() {
                    let x = simd.splat_f32s(*a.add(m));
                    for v in 0..V {
                        acc[v] = simd.mul_add_f32s(x, g[v], acc[v]);
                    }
                }
                // The last step leaves the run; the pointers are not read there.
                a = a.wrapping_add(step);
                b = b.wrapping_add(k.outputs);
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (v, &a) in acc.iter().enumerate() {
                let p = k
                    .out
                    .as_mut_ptr()
                    .add((i + m) * k.outputs + j + v * S::F32_LANES);
                let a = if k.accumulate {
                    simd.add_f32s(a, f32::load::<S>(p))
                } else {
                    a
                };
                f32::store::<S>(p, a);
            }
        }
    }
}

/// `output = max(0, scale * input + shift)` over pixels, or `input` itself where there is no norm.
/// Reads `scale.len()` channels of each pixel of `stride` values, writes them side by side.
pub struct NormRelu<'a, E> {
    /// From the first channel of the first pixel on.
    pub input: &'a [E],
    pub stride: usize,
    pub output: &'a mut [f32],
    /// Channels that are read.
    pub channels: usize,
    /// Scale and shift of these channels.
    pub norm: Option<(&'a [f32], &'a [f32])>,
}

impl<E: Element> WithSimd for NormRelu<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        let zero = simd.splat_f32s(0.0);
        let input = self.input.chunks(self.stride);
        let pixels = input.zip(self.output.chunks_exact_mut(c));
        match self.norm {
            Some((scale, shift)) => {
                assert!(scale.len() == c && shift.len() == c && c.is_multiple_of(LANES));
                for (x, y) in pixels {
                    assert!(x.len() >= c);
                    for j in (0..c).step_by(S::F32_LANES) {
                        // SAFETY: j + lanes <= c, the length of scale, shift and y, at most x's.
                        unsafe {
                            let (a, b) = (scale.as_ptr().add(j), shift.as_ptr().add(j));
                            let x = E::load::<S>(x.as_ptr().add(j));
                            let x = simd.mul_add_f32s(x, f32::load::<S>(a), f32::load::<S>(b));
                            f32::store::<S>(y.as_mut_ptr().add(j), simd.max_f32s(x, zero));
                        }
                    }
                }
            }
            None => {
                for (x, y) in pixels {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = x.widen();
                    }
                }
            }
        }
    }
}

/// Residual, coefficients of a batch norm's backward pass. See `NormBackward`.
#[derive(Clone, Copy)]
pub struct Coefficients<'a> {
    pub g: &'a [f32],
    pub x: &'a [f32],
    pub one: &'a [f32],
}

/// Backward of a batch norm with its sums folded into three coefficients a channel:
/// `output = g * gradient + x * values + one (+ residual)`.
pub struct NormBackward<'a, E, O> {
    pub gradient: *const E,
    pub values: &'a [E],
    pub residual: Option<&'a [E]>,
    /// May be `gradient`.
    pub output: *mut O,
    pub norm: Coefficients<'a>,
}

impl<E: Element, O: Element> WithSimd for NormBackward<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.norm.g.len();
        assert!(self.norm.x.len() == c && self.norm.one.len() == c && c.is_multiple_of(LANES));
        assert!(self.residual.is_none_or(|r| r.len() == self.values.len()));
        for p in (0..self.values.len() / c * c).step_by(c) {
            for j in (0..c).step_by(S::F32_LANES) {
                // SAFETY: j + lanes <= c; all tensors have values.len() values.
                unsafe {
                    let z = E::load::<S>(self.values.as_ptr().add(p + j));
                    let d = E::load::<S>(self.gradient.add(p + j));
                    let (scale, one) =
                        (channel::<S>(self.norm.x, j), channel::<S>(self.norm.one, j));
                    let constant = simd.mul_add_f32s(z, scale, one);
                    let mut out = simd.mul_add_f32s(d, channel::<S>(self.norm.g, j), constant);
                    if let Some(residual) = self.residual {
                        out = simd.add_f32s(out, E::load::<S>(residual.as_ptr().add(p + j)));
                    }
                    O::store::<S>(self.output.add(p + j), out);
                }
            }
        }
    }
}
