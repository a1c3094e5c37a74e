//! SIMD kernels over one tile, written once over `pulp::Simd` and compiled for each instruction
//! set. Channels are the vector dimension: every activation has a multiple of `LANES` channels.
//!
//! The kernels take raw pointers, since tiles of one buffer are written by several threads; each
//! one states what it reads and writes.

use pulp::{Simd, WithSimd};

/// Activations are padded to a multiple of this many channels: the widest vector.
pub const LANES: usize = 16;

/// `channels` rounded up to a whole number of vectors.
pub fn padded(channels: usize) -> usize {
    channels.next_multiple_of(LANES)
}

#[inline(always)]
unsafe fn load<S: Simd>(p: *const f32) -> S::f32s {
    unsafe { p.cast::<S::f32s>().read_unaligned() }
}

#[inline(always)]
unsafe fn store<S: Simd>(p: *mut f32, v: S::f32s) {
    unsafe { p.cast::<S::f32s>().write_unaligned(v) }
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

/// Calls `$f::<S, M, V>` with `M = $m` in 1..=8.
macro_rules! for_rows {
    ($m:expr, $f:ident::<$S:ident, $V:literal>($($a:expr),*)) => {
        match $m {
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

/// Rows of a register tile: as many as leave registers for two vectors and a broadcast.
const fn register_rows<S: Simd>() -> usize {
    if S::F32_LANES >= 16 { 8 } else { 6 }
}

/// One input position of a convolution: its offset from the pixel's own, and its first row in a
/// weight panel.
#[derive(Debug, Clone, Copy)]
pub struct Tap {
    pub offset: usize,
    pub row: usize,
}

/// `output[output_offsets[m] + j] (+)= sum over taps, c of input[input_offsets[m] + tap + c] *
/// weights[tap row + c, j]` for all `padded(outputs)` columns j.
///
/// Reads `input` at the given offsets, writes `output` at the given offsets, `outputs` wide.
pub struct Convolve<'a> {
    pub input: *const f32,
    pub input_offsets: &'a [u32],
    pub taps: &'a [Tap],
    /// Channels that are summed over, of each tap.
    pub depth: usize,
    /// Packed panels of `rows` rows.
    pub weights: &'a [f32],
    pub rows: usize,
    pub output: *mut f32,
    pub output_offsets: &'a [u32],
    /// A multiple of `LANES`.
    pub outputs: usize,
    pub accumulate: bool,
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut start = 0;
        while start < self.outputs {
            let panel = self.weights[start * self.rows..].as_ptr();
            let mut m = 0;
            let two = self.outputs - start >= 2 * S::F32_LANES;
            while m < self.input_offsets.len() {
                let count = (self.input_offsets.len() - m).min(register_rows::<S>());
                // SAFETY: offsets lie inside the tile (see `conv::Plan`), the panel has `rows` rows.
                unsafe {
                    if two {
                        for_rows!(count, convolve_rows::<S, 2>(simd, &self, m, panel, start));
                    } else {
                        for_rows!(count, convolve_rows::<S, 1>(simd, &self, m, panel, start));
                    }
                }
                m += count;
            }
            start += if two { 2 } else { 1 } * S::F32_LANES;
        }
    }
}

#[inline(always)]
unsafe fn convolve_rows<S: Simd, const M: usize, const V: usize>(
    simd: S,
    k: &Convolve,
    first: usize,
    panel: *const f32,
    column: usize,
) {
    unsafe {
        let mut acc = [[simd.splat_f32s(0.0); V]; M];
        let mut pixel = [k.input; M];
        for (m, p) in pixel.iter_mut().enumerate() {
            *p = k
                .input
                .add(*k.input_offsets.get_unchecked(first + m) as usize);
        }
        for tap in k.taps {
            let mut b = panel.add(tap.row * V * S::F32_LANES);
            for c in 0..k.depth {
                let mut w = [simd.splat_f32s(0.0); V];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = load::<S>(b.add(v * S::F32_LANES));
                }
                for m in 0..M {
                    let x = simd.splat_f32s(*pixel[m].add(tap.offset + c));
                    for v in 0..V {
                        acc[m][v] = simd.mul_add_f32s(x, w[v], acc[m][v]);
                    }
                }
                b = b.add(V * S::F32_LANES);
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            let out = *k.output_offsets.get_unchecked(first + m) as usize + column;
            for (v, &a) in acc.iter().enumerate() {
                let p = k.output.add(out + v * S::F32_LANES);
                let a = if k.accumulate {
                    simd.add_f32s(a, load::<S>(p))
                } else {
                    a
                };
                store::<S>(p, a);
            }
        }
    }
}

/// Weight gradient of one tap: `gradient[i, j] += sum over rows r, x of input[rows[r].0 + x *
/// input_step + i] * output[rows[r].1 + x * outputs + j]`.
pub struct WeightGradient<'a> {
    pub input: *const f32,
    pub input_step: usize,
    /// Input channels.
    pub inputs: usize,
    /// Gradient of the convolution's output.
    pub output: *const f32,
    /// A multiple of `LANES`; also the pixel stride of `output`.
    pub outputs: usize,
    /// Offsets of matching pixel rows in `input` and `output`.
    pub rows: &'a [(u32, u32)],
    /// Pixels of a row.
    pub width: usize,
    /// `[inputs, outputs]`.
    pub gradient: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut i = 0;
        while i < self.inputs {
            let count = (self.inputs - i).min(register_rows::<S>());
            let mut j = 0;
            while j < self.outputs {
                let two = self.outputs - j >= 2 * S::F32_LANES;
                // SAFETY: row offsets lie inside the tiles (see `conv::Plan`).
                unsafe {
                    if two {
                        for_rows!(count, weight_rows::<S, 2>(simd, &mut self, i, j));
                    } else {
                        for_rows!(count, weight_rows::<S, 1>(simd, &mut self, i, j));
                    }
                }
                j += if two { 2 } else { 1 } * S::F32_LANES;
            }
            i += count;
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
        for &(a, b) in k.rows {
            let mut a = k.input.add(a as usize + i);
            let mut b = k.output.add(b as usize + j);
            for _ in 0..k.width {
                let mut g = [simd.splat_f32s(0.0); V];
                for (v, g) in g.iter_mut().enumerate() {
                    *g = load::<S>(b.add(v * S::F32_LANES));
                }
                for (m, acc) in acc.iter_mut().enumerate() {
                    let x = simd.splat_f32s(*a.add(m));
                    for v in 0..V {
                        acc[v] = simd.mul_add_f32s(x, g[v], acc[v]);
                    }
                }
                // The last step leaves the row; the pointer is not read there.
                a = a.wrapping_add(k.input_step);
                b = b.wrapping_add(k.outputs);
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (v, &a) in acc.iter().enumerate() {
                let p = k.gradient[(i + m) * k.outputs + j + v * S::F32_LANES..].as_mut_ptr();
                store::<S>(p, simd.add_f32s(a, load::<S>(p)));
            }
        }
    }
}

/// `output = max(0, scale * input + shift)` for whole pixels of `scale.len()` channels.
pub struct NormRelu<'a> {
    pub input: &'a [f32],
    pub output: &'a mut [f32],
    pub scale: &'a [f32],
    pub shift: &'a [f32],
}

impl WithSimd for NormRelu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.scale.len();
        let zero = simd.splat_f32s(0.0);
        let (scale, _) = S::as_simd_f32s(self.scale);
        let (shift, _) = S::as_simd_f32s(self.shift);
        for (x, y) in self
            .input
            .chunks_exact(c)
            .zip(self.output.chunks_exact_mut(c))
        {
            let (x, _) = S::as_simd_f32s(x);
            let (y, _) = S::as_mut_simd_f32s(y);
            for (((y, &x), &a), &b) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                *y = simd.max_f32s(simd.mul_add_f32s(x, a, b), zero);
            }
        }
    }
}

/// Adds `residual` (where given) to `values`, then mean and sum of squared deviations of each
/// channel over the tile's pixels: two passes, so that no digits are lost to cancellation.
pub struct Moments<'a> {
    pub values: &'a mut [f32],
    pub residual: Option<&'a [f32]>,
    /// Per channel; their length is the number of channels. `None`: only the addition.
    pub statistics: Option<(&'a mut [f32], &'a mut [f32])>,
    pub channels: usize,
}

impl WithSimd for Moments<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.channels;
        if let Some(residual) = self.residual {
            let (v, _) = S::as_mut_simd_f32s(&mut *self.values);
            let (r, _) = S::as_simd_f32s(residual);
            for (v, &r) in v.iter_mut().zip(r) {
                *v = simd.add_f32s(*v, r);
            }
        }
        let Some((mean, squares)) = self.statistics else {
            return;
        };
        let count = simd.splat_f32s((c as f32) / self.values.len() as f32);
        for j in (0..c).step_by(S::F32_LANES) {
            let (mut s0, mut s1) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
            let pairs = self.values.chunks_exact(2 * c);
            let rest = pairs.remainder();
            // SAFETY: j + lanes <= c; a pair has 2c values and the rest c or none.
            unsafe {
                for p in pairs {
                    s0 = simd.add_f32s(s0, load::<S>(p.as_ptr().add(j)));
                    s1 = simd.add_f32s(s1, load::<S>(p.as_ptr().add(c + j)));
                }
                if !rest.is_empty() {
                    s0 = simd.add_f32s(s0, load::<S>(rest.as_ptr().add(j)));
                }
                let m = simd.mul_f32s(simd.add_f32s(s0, s1), count);
                let (mut q0, mut q1) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
                for p in self.values.chunks_exact(2 * c) {
                    let a = simd.sub_f32s(load::<S>(p.as_ptr().add(j)), m);
                    let b = simd.sub_f32s(load::<S>(p.as_ptr().add(c + j)), m);
                    q0 = simd.mul_add_f32s(a, a, q0);
                    q1 = simd.mul_add_f32s(b, b, q1);
                }
                if !rest.is_empty() {
                    let a = simd.sub_f32s(load::<S>(rest.as_ptr().add(j)), m);
                    q0 = simd.mul_add_f32s(a, a, q0);
                }
                store::<S>(mean[j..j + S::F32_LANES].as_mut_ptr(), m);
                store::<S>(
                    squares[j..j + S::F32_LANES].as_mut_ptr(),
                    simd.add_f32s(q0, q1),
                );
            }
        }
    }
}

/// Backward of relu(norm(x)) up to the batch sums: `gradient = upstream` where `scale * x + shift >
/// 0`, else 0; per channel the sums of `gradient` and of `gradient * (x - mean)`.
pub struct MaskedGradient<'a> {
    pub upstream: &'a [f32],
    pub x: &'a [f32],
    pub gradient: &'a mut [f32],
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub mean: &'a [f32],
    /// Added to, per channel.
    pub sums: (&'a mut [f32], &'a mut [f32]),
}

impl WithSimd for MaskedGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.scale.len();
        let zero = simd.splat_f32s(0.0);
        let pixels = self.x.len() / c;
        assert!(self.upstream.len() == self.x.len() && self.gradient.len() == self.x.len());
        assert!(self.shift.len() == c && self.mean.len() == c);
        for j in (0..c).step_by(S::F32_LANES) {
            // SAFETY: j + lanes <= c and all images have pixels * c values.
            unsafe {
                let a = load::<S>(self.scale.as_ptr().add(j));
                let b = load::<S>(self.shift.as_ptr().add(j));
                let mean = load::<S>(self.mean.as_ptr().add(j));
                let (mut s0, mut s1) = (zero, zero);
                for p in 0..pixels {
                    let o = p * c + j;
                    let x = load::<S>(self.x.as_ptr().add(o));
                    let on = simd.greater_than_f32s(simd.mul_add_f32s(x, a, b), zero);
                    let up = load::<S>(self.upstream.as_ptr().add(o));
                    let g = simd.select_f32s(on, up, zero);
                    store::<S>(self.gradient.as_mut_ptr().add(o), g);
                    s0 = simd.add_f32s(s0, g);
                    s1 = simd.mul_add_f32s(g, simd.sub_f32s(x, mean), s1);
                }
                let p0 = self.sums.0[j..j + S::F32_LANES].as_mut_ptr();
                let p1 = self.sums.1[j..j + S::F32_LANES].as_mut_ptr();
                store::<S>(p0, simd.add_f32s(s0, load::<S>(p0)));
                store::<S>(p1, simd.add_f32s(s1, load::<S>(p1)));
            }
        }
    }
}

/// Backward of a batch norm with its sums folded into three coefficients a channel:
/// `output = g * gradient + x * values + one (+ residual)`.
pub struct NormBackward<'a> {
    pub gradient: &'a [f32],
    pub values: &'a [f32],
    pub output: &'a mut [f32],
    pub residual: Option<&'a [f32]>,
    pub g: &'a [f32],
    pub x: &'a [f32],
    pub one: &'a [f32],
}

impl WithSimd for NormBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let c = self.g.len();
        let (g, _) = S::as_simd_f32s(self.g);
        let (x, _) = S::as_simd_f32s(self.x);
        let (one, _) = S::as_simd_f32s(self.one);
        for (p, out) in self.output.chunks_exact_mut(c).enumerate() {
            let (out, _) = S::as_mut_simd_f32s(out);
            let (d, _) = S::as_simd_f32s(&self.gradient[p * c..(p + 1) * c]);
            let (z, _) = S::as_simd_f32s(&self.values[p * c..(p + 1) * c]);
            for i in 0..out.len() {
                let constant = simd.mul_add_f32s(z[i], x[i], one[i]);
                out[i] = simd.mul_add_f32s(d[i], g[i], constant);
            }
            if let Some(r) = self.residual {
                let (r, _) = S::as_simd_f32s(&r[p * c..(p + 1) * c]);
                for (out, &r) in out.iter_mut().zip(r) {
                    *out = simd.add_f32s(*out, r);
                }
            }
        }
    }
}
