//! The transforms of Winograd's algorithm along one side of a patch, by Toom-Cook's construction.

use super::form::Form;
use pulp::Simd;
use std::f32::consts::{FRAC_1_SQRT_2 as A, SQRT_2 as B};

/// The matrices A, B and G of F(OUT, 3) (Lavin & Gray, arXiv 1509.09308, section 4).
pub trait Transforms<const IN: usize, const OUT: usize> {
    /// B' d of the values d.
    fn input<S: Simd>(simd: S, d: [S::f32s; IN]) -> [S::f32s; IN];
    /// A' m of the products m.
    fn output<S: Simd>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT];
    /// A g of the outputs' gradients g.
    fn gradient<S: Simd>(simd: S, g: [S::f32s; OUT]) -> [S::f32s; IN];
    /// G w of the weights w.
    fn weights<S: Simd>(simd: S, w: [S::f32s; 3]) -> [S::f32s; IN];
    /// G' v of the products v.
    fn fold<S: Simd>(simd: S, v: [S::f32s; IN]) -> [S::f32s; 3];
}

/// One vector per value; not by `map`: a closure is compiled without the instruction set of the function
/// around it.
#[inline(always)]
fn splats<S: Simd, const N: usize>(simd: S, values: [f32; N]) -> [S::f32s; N] {
    let mut all = [simd.splat_f32s(0.0); N];
    for (to, value) in all.iter_mut().zip(values) {
        *to = simd.splat_f32s(value);
    }
    all
}

/// Points 0, 1, -1, infinity.
impl Transforms<4, 2> for Form<4, 2> {
    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
        [
            simd.sub_f32s(d[0], d[2]),
            simd.add_f32s(d[1], d[2]),
            simd.sub_f32s(d[2], d[1]),
            simd.sub_f32s(d[1], d[3]),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
        let (plus, minus) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
        [simd.add_f32s(m[0], plus), simd.sub_f32s(minus, m[3])]
    }

    #[inline(always)]
    fn gradient<S: Simd>(simd: S, g: [S::f32s; 2]) -> [S::f32s; 4] {
        let zero = simd.splat_f32s(0.0);
        [g[0], simd.add_f32s(g[0], g[1]), simd.sub_f32s(g[0], g[1]), simd.sub_f32s(zero, g[1])]
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; 4] {
        let half = simd.splat_f32s(0.5);
        let plus = simd.add_f32s(simd.add_f32s(a, b), c);
        let minus = simd.add_f32s(simd.sub_f32s(a, b), c);
        [a, simd.mul_f32s(plus, half), simd.mul_f32s(minus, half), c]
    }

    #[inline(always)]
    fn fold<S: Simd>(simd: S, v: [S::f32s; 4]) -> [S::f32s; 3] {
        let half = simd.splat_f32s(0.5);
        let plus = simd.mul_f32s(simd.add_f32s(v[1], v[2]), half);
        let minus = simd.mul_f32s(simd.sub_f32s(v[1], v[2]), half);
        [simd.add_f32s(v[0], plus), minus, simd.add_f32s(plus, v[3])]
    }
}

/// Points 0, A, -A, B, -B, infinity with A = sqrt(1/2), B = sqrt(2): half the rounding error of the usual 1
/// and 2.
impl Transforms<6, 4> for Form<6, 4> {
    #[inline(always)]
    fn input<S: Simd>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        let [a, b] = splats(simd, [A, B]);
        let [minus_half, minus_two, minus] = splats(simd, [-0.5, -2.0, -2.5]);
        let even_a = simd.mul_add_f32s(minus_two, d[2], d[4]);
        let odd_a = simd.sub_f32s(simd.mul_f32s(a, d[3]), simd.mul_f32s(b, d[1]));
        let even_b = simd.mul_add_f32s(minus_half, d[2], d[4]);
        let odd_b = simd.sub_f32s(simd.mul_f32s(b, d[3]), simd.mul_f32s(a, d[1]));
        [
            simd.mul_add_f32s(minus, d[2], simd.add_f32s(d[0], d[4])),
            simd.add_f32s(even_a, odd_a),
            simd.sub_f32s(even_a, odd_a),
            simd.add_f32s(even_b, odd_b),
            simd.sub_f32s(even_b, odd_b),
            simd.mul_add_f32s(minus, d[3], simd.add_f32s(d[1], d[5])),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let [a, b, a3, b3] = splats(simd, [A, B, A * 0.5, B * 2.0]);
        let [half, two] = splats(simd, [0.5, 2.0]);
        let (even_a, odd_a) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
        let (even_b, odd_b) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
        [
            simd.add_f32s(m[0], simd.add_f32s(even_a, even_b)),
            simd.mul_add_f32s(a, odd_a, simd.mul_f32s(b, odd_b)),
            simd.mul_add_f32s(half, even_a, simd.mul_f32s(two, even_b)),
            simd.mul_add_f32s(a3, odd_a, simd.mul_add_f32s(b3, odd_b, m[5])),
        ]
    }

    #[inline(always)]
    fn gradient<S: Simd>(simd: S, g: [S::f32s; 4]) -> [S::f32s; 6] {
        let [a, b, a3, b3] = splats(simd, [A, B, A * 0.5, B * 2.0]);
        let [half, two] = splats(simd, [0.5, 2.0]);
        let even_a = simd.mul_add_f32s(half, g[2], g[0]);
        let odd_a = simd.mul_add_f32s(a3, g[3], simd.mul_f32s(a, g[1]));
        let even_b = simd.mul_add_f32s(two, g[2], g[0]);
        let odd_b = simd.mul_add_f32s(b3, g[3], simd.mul_f32s(b, g[1]));
        [
            g[0],
            simd.add_f32s(even_a, odd_a),
            simd.sub_f32s(even_a, odd_a),
            simd.add_f32s(even_b, odd_b),
            simd.sub_f32s(even_b, odd_b),
            g[3],
        ]
    }

    #[inline(always)]
    fn weights<S: Simd>(simd: S, [w0, w1, w2]: [S::f32s; 3]) -> [S::f32s; 6] {
        let [a, b, half, two] = splats(simd, [A, B, 0.5, 2.0]);
        let [ra, rb] = splats(simd, [-2.0 / 3.0, 1.0 / 6.0]);
        // Not by mul_add: the bytes of trained models depend on this rounding.
        let even_a = simd.add_f32s(w0, simd.mul_f32s(half, w2));
        let even_b = simd.add_f32s(w0, simd.mul_f32s(two, w2));
        let (odd_a, odd_b) = (simd.mul_f32s(a, w1), simd.mul_f32s(b, w1));
        [
            w0,
            simd.mul_f32s(simd.add_f32s(even_a, odd_a), ra),
            simd.mul_f32s(simd.sub_f32s(even_a, odd_a), ra),
            simd.mul_f32s(simd.add_f32s(even_b, odd_b), rb),
            simd.mul_f32s(simd.sub_f32s(even_b, odd_b), rb),
            w2,
        ]
    }

    #[inline(always)]
    fn fold<S: Simd>(simd: S, v: [S::f32s; 6]) -> [S::f32s; 3] {
        let [a, b, half, two] = splats(simd, [A, B, 0.5, 2.0]);
        let [ra, rb] = splats(simd, [-2.0 / 3.0, 1.0 / 6.0]);
        let even_a = simd.mul_f32s(ra, simd.add_f32s(v[1], v[2]));
        let odd_a = simd.mul_f32s(ra, simd.sub_f32s(v[1], v[2]));
        let even_b = simd.mul_f32s(rb, simd.add_f32s(v[3], v[4]));
        let odd_b = simd.mul_f32s(rb, simd.sub_f32s(v[3], v[4]));
        [
            simd.add_f32s(v[0], simd.add_f32s(even_a, even_b)),
            simd.mul_add_f32s(a, odd_a, simd.mul_f32s(b, odd_b)),
            simd.mul_add_f32s(half, even_a, simd.mul_add_f32s(two, even_b, v[5])),
        ]
    }
}
