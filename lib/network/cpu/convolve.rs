//! The convolution kernel: sums over taps in registers, and the epilogue that stores them.

use super::element::Element;
use super::multiply::Multiply;
use super::registers::{LANES, for_rows, next_rows, register_rows};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Consecutive input values of a convolution: their offset from the pixel, their number, and their first
/// row in a weight panel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tap {
    pub offset: usize,
    pub depth: usize,
    pub row: usize,
}

/// One input of a convolution, with its weights.
#[derive(Clone, Copy)]
pub struct Operand<'a, T> {
    pub input: *const T,
    /// Offset of each pixel in `input`.
    pub pixels: &'a [u32],
    pub taps: &'a [Tap],
    /// Packed panels of `rows` rows.
    pub weights: &'a [f32],
    pub rows: usize,
}

impl<'a, T: Copy> Operand<'a, T> {
    /// The same operand with the input's values seen as `U`, which must have the same size.
    pub fn cast<U>(self) -> Operand<'a, U> {
        Operand {
            input: self.input.cast(),
            pixels: self.pixels,
            taps: self.taps,
            weights: self.weights,
            rows: self.rows,
        }
    }
}

/// Per channel, the sums of value - around and of its square.
pub struct Moments<'a> {
    pub around: &'a mut [f32],
    pub sums: &'a mut [f32],
    pub squares: &'a mut [f32],
}

/// What is done with the sums of a convolution. Per-channel vectors have one value per output channel;
/// other tensors have the layout of the output.
pub enum Epilogue<'a, E> {
    Store,
    /// Adds the residual, stores, and adds to the moments. If the moments are `empty`, they are computed
    /// around the pixel of `to[0]`.
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
    /// Stores the sum if scale * x + shift > 0, else 0. Adds up the stored values, and the stored values
    /// times (x - mean).
    Mask {
        x: *const E,
        scale: &'a [f32],
        shift: &'a [f32],
        mean: &'a [f32],
        sums: (&'a mut [f32], &'a mut [f32]),
    },
}

impl<E> Epilogue<'_, E> {
    /// Notes that part of the output is done.
    pub fn begun(&mut self) {
        if let Epilogue::Statistics { empty, .. } = self {
            *empty = false;
        }
    }

    /// The values that are read at the offsets of the output.
    fn beside(&self) -> Option<*const E> {
        match self {
            Epilogue::Store | Epilogue::Activate { .. } => None,
            Epilogue::Statistics { residual, .. } => *residual,
            Epilogue::Residual(beside) | Epilogue::Mask { x: beside, .. } => Some(*beside),
        }
    }

    /// The same epilogue, for the next part of the output.
    pub fn reborrow(&mut self) -> Epilogue<'_, E> {
        match self {
            Epilogue::Store => Epilogue::Store,
            Epilogue::Residual(residual) => Epilogue::Residual(*residual),
            Epilogue::Statistics { residual, moments, empty } => Epilogue::Statistics {
                residual: *residual,
                moments: Moments {
                    around: moments.around,
                    sums: moments.sums,
                    squares: moments.squares,
                },
                empty: *empty,
            },
            Epilogue::Activate { scale, shift } => Epilogue::Activate { scale, shift },
            Epilogue::Mask { x, scale, shift, mean, sums } => {
                Epilogue::Mask { x: *x, scale, shift, mean, sums: (sums.0, sums.1) }
            }
        }
    }
}

/// `sink[m, j] = epilogue(sum over operands, taps, c of input[pixels[m] + tap + c] *
/// weights[row + c, j])` for the columns j.
///
/// Reads the inputs at the given offsets, writes the columns of `output` at the given offsets.
pub struct Convolve<'a, P: Multiply, E> {
    /// One or two operands.
    pub operands: &'a [Operand<'a, P::Value>],
    /// Starts at a multiple of two vectors, ends at a multiple of `LANES`.
    pub columns: Range<usize>,
    pub sink: Sink<'a, E>,
}

/// Where the sums go: pixel m to `output[to[m]..]`.
pub struct Sink<'a, E> {
    pub output: *mut E,
    pub to: &'a [u32],
    pub epilogue: Epilogue<'a, E>,
}

impl<E> Sink<'_, E> {
    /// Prefetches the cache lines that `finish` needs, while the sums are computed.
    ///
    /// # Safety
    /// The sink has these pixels.
    #[inline(always)]
    unsafe fn prefetch(&self, pixels: Range<usize>, column: usize, columns: usize) {
        let beside = self.epilogue.beside();
        for &at in unsafe { self.to.get_unchecked(pixels) } {
            for j in (0..columns).step_by(LINE / size_of::<E>()) {
                let at = at as usize + column + j;
                fetch(self.output.wrapping_add(at), true);
                if let Some(beside) = beside {
                    fetch(beside.wrapping_add(at), false);
                }
            }
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Prefetches a cache line, if there is an instruction for it.
#[inline(always)]
fn fetch<T>(line: *const T, to_write: bool) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, for any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        match to_write {
            true => _mm_prefetch::<_MM_HINT_ET0>(line.cast()),
            false => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (line, to_write);
}

impl<P: Multiply, E: Element> WithSimd for Convolve<'_, P, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut start = self.columns.start;
        while start < self.columns.end {
            let two = self.columns.end - start >= 2 * S::F32_LANES;
            let most = register_rows::<S>(if two { 2 } else { 1 });
            let mut m = 0;
            while m < self.sink.to.len() {
                let rows = next_rows(self.sink.to.len() - m, most);
                let (k, sink) = (self.operands, &mut self.sink);
                // SAFETY: offsets lie inside the tiles (see `geometry`), panels have `rows` rows.
                unsafe {
                    if const { S::F32_LANES >= LANES } {
                        if two {
                            for_rows!(rows, convolve_rows::<S, P, 2>(simd, k, m, start, sink));
                        } else {
                            for_rows!(rows, convolve_rows::<S, P, 1>(simd, k, m, start, sink));
                        }
                    } else if two {
                        for_rows!(rows, apart::<S, P, 2>(simd, k, m, start, sink));
                    } else {
                        for_rows!(rows, apart::<S, P, 1>(simd, k, m, start, sink));
                    }
                }
                m += rows;
            }
            start += if two { 2 } else { 1 } * S::F32_LANES;
        }
    }
}

/// `convolve_rows` as a separate function: with 16 registers this is faster than one function with all tile
/// sizes.
///
/// # Safety
/// As for `convolve_rows`.
#[inline(never)]
unsafe fn apart<S: Simd, P: Multiply, const M: usize, const V: usize>(
    simd: S,
    operands: &[Operand<P::Value>],
    first: usize,
    column: usize,
    sink: &mut Sink<impl Element>,
) {
    struct Rows<'a, 'b, P: Multiply, E, const M: usize, const V: usize>(
        &'a [Operand<'a, P::Value>],
        usize,
        usize,
        &'a mut Sink<'b, E>,
    );
    impl<P: Multiply, E: Element, const M: usize, const V: usize> WithSimd
        for Rows<'_, '_, P, E, M, V>
    {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            // SAFETY: as the caller promises.
            unsafe { convolve_rows::<S, P, M, V>(simd, self.0, self.1, self.2, self.3) }
        }
    }
    simd.vectorize(Rows::<P, _, M, V>(operands, first, column, sink));
}

/// M pixels from `first` on, and V vectors from `column` on.
///
/// # Safety
/// Offsets lie inside the operands' and the sink's tensors.
#[inline(always)]
unsafe fn convolve_rows<S: Simd, P: Multiply, const M: usize, const V: usize>(
    simd: S,
    operands: &[Operand<P::Value>],
    first: usize,
    column: usize,
    sink: &mut Sink<impl Element>,
) {
    unsafe {
        sink.prefetch(first..first + M, column, V * S::F32_LANES);
        let mut acc = [[simd.splat_f32s(0.0); M]; V];
        for operand in operands {
            let panel = operand.weights.as_ptr().add(column * operand.rows);
            let mut pixel = [operand.input; M];
            for (m, p) in pixel.iter_mut().enumerate() {
                *p = p.add(*operand.pixels.get_unchecked(first + m) as usize);
            }
            for tap in operand.taps {
                let b = panel.add(tap.row / P::DEPTH * V * S::F32_LANES);
                let mut from = pixel;
                for p in &mut from {
                    *p = p.add(tap.offset);
                }
                acc = if const { S::F32_LANES >= LANES } {
                    by_index::<S, P, M, V>(simd, acc, from, b, tap.depth)
                } else {
                    by_pointers::<S, P, M, V>(simd, acc, from, b, tap.depth)
                };
            }
        }
        for (v, sums) in acc.iter().enumerate() {
            finish(simd, sink, sums, first, column + v * S::F32_LANES);
        }
    }
}

/// The sums of M pixels in V vectors.
type Sums<S, const M: usize, const V: usize> = [[<S as Simd>::f32s; M]; V];

/// Adds the products of the `depth` values from each pixel's pointer on with the rows of weights from `w`
/// on. A tile that fills 32 registers stays in registers only if one index counts for all pixels.
///
/// # Safety
/// All values are readable.
#[inline(always)]
unsafe fn by_index<S: Simd, P: Multiply, const M: usize, const V: usize>(
    simd: S,
    mut sums: Sums<S, M, V>,
    from: [*const P::Value; M],
    mut w: *const f32,
    depth: usize,
) -> Sums<S, M, V> {
    unsafe {
        let mut c = 0;
        while c < depth {
            let row = weights::<S, V>(simd, w);
            for m in 0..M {
                let x = P::broadcast(simd, from[m].add(c));
                for v in 0..V {
                    sums[v][m] = P::multiply_add(simd, x, row[v], sums[v][m]);
                }
            }
            w = w.add(V * S::F32_LANES);
            c += P::DEPTH;
        }
    }
    sums
}

/// The same for a tile that fills 16 registers: the compiler needs one moving pointer per pixel.
///
/// # Safety
/// As for `by_index`.
#[inline(always)]
unsafe fn by_pointers<S: Simd, P: Multiply, const M: usize, const V: usize>(
    simd: S,
    mut sums: Sums<S, M, V>,
    mut from: [*const P::Value; M],
    mut w: *const f32,
    depth: usize,
) -> Sums<S, M, V> {
    unsafe {
        for _ in 0..depth / P::DEPTH {
            let row = weights::<S, V>(simd, w);
            for m in 0..M {
                let x = P::broadcast(simd, from[m]);
                for v in 0..V {
                    sums[v][m] = P::multiply_add(simd, x, row[v], sums[v][m]);
                }
                from[m] = from[m].wrapping_add(P::DEPTH);
            }
            w = w.add(V * S::F32_LANES);
        }
    }
    sums
}

/// A row of V vectors of weights.
///
/// # Safety
/// The row is readable.
#[inline(always)]
unsafe fn weights<S: Simd, const V: usize>(simd: S, from: *const f32) -> [S::f32s; V] {
    let mut row = [simd.splat_f32s(0.0); V];
    for (v, w) in row.iter_mut().enumerate() {
        *w = unsafe { f32::load::<S>(from.add(v * S::F32_LANES)) };
    }
    row
}

/// The values of one vector of channels, from the `j`-th on.
///
/// # Safety
/// `values` has that many values.
#[inline(always)]
pub unsafe fn channel<S: Simd>(values: &[f32], j: usize) -> S::f32s {
    unsafe { f32::load::<S>(values.as_ptr().add(j)) }
}

/// The epilogue of one vector of columns, for the pixels from `first` on.
///
/// # Safety
/// The sink's offsets lie inside its tensors.
// Loops, not closures: a closure is compiled without the instruction set of the function around it.
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
            Epilogue::Statistics { residual, moments, empty } => {
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
            Epilogue::Mask { x, scale, shift, mean, sums: (sum0, sum1) } => {
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
