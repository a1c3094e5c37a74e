//! Register tiles: some pixels (rows) by one or two vectors of channels.

use pulp::{Simd, WithSimd};

/// The number of channels of activations is a multiple of this: the widest vector.
pub const LANES: usize = 16;

/// `channels` rounded up to a whole number of vectors.
pub fn padded(channels: usize) -> usize {
    channels.next_multiple_of(LANES)
}

/// Columns of a packed weight panel: two vectors.
pub fn panel_width(isa: super::isa::Isa) -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            2 * S::F32_LANES
        }
    }
    isa.dispatch(Lanes).min(2 * LANES)
}

/// Calls `$f::<S, P, M, V>` with `M = $m`, from 1 to `register_rows::<S>(V)`. Larger tiles are not
/// compiled.
macro_rules! for_rows {
    ($m:expr, $f:ident::<$S:ident, $P:ident, $V:literal>($($a:expr),*)) => {
        match $m {
            16 if const { register_rows::<$S>($V) >= 16 } => $f::<$S, $P, 16, $V>($($a),*),
            15 if const { register_rows::<$S>($V) >= 15 } => $f::<$S, $P, 15, $V>($($a),*),
            14 if const { register_rows::<$S>($V) >= 14 } => $f::<$S, $P, 14, $V>($($a),*),
            13 if const { register_rows::<$S>($V) >= 13 } => $f::<$S, $P, 13, $V>($($a),*),
            12 if const { register_rows::<$S>($V) >= 12 } => $f::<$S, $P, 12, $V>($($a),*),
            11 if const { register_rows::<$S>($V) >= 11 } => $f::<$S, $P, 11, $V>($($a),*),
            10 if const { register_rows::<$S>($V) >= 10 } => $f::<$S, $P, 10, $V>($($a),*),
            9 if const { register_rows::<$S>($V) >= 9 } => $f::<$S, $P, 9, $V>($($a),*),
            8 if const { register_rows::<$S>($V) >= 8 } => $f::<$S, $P, 8, $V>($($a),*),
            7 if const { register_rows::<$S>($V) >= 7 } => $f::<$S, $P, 7, $V>($($a),*),
            6 if const { register_rows::<$S>($V) >= 6 } => $f::<$S, $P, 6, $V>($($a),*),
            5 if const { register_rows::<$S>($V) >= 5 } => $f::<$S, $P, 5, $V>($($a),*),
            4 if const { register_rows::<$S>($V) >= 4 } => $f::<$S, $P, 4, $V>($($a),*),
            3 if const { register_rows::<$S>($V) >= 3 } => $f::<$S, $P, 3, $V>($($a),*),
            2 if const { register_rows::<$S>($V) >= 2 } => $f::<$S, $P, 2, $V>($($a),*),
            _ => $f::<$S, $P, 1, $V>($($a),*),
        }
    };
}

/// Rows of a register tile of `vectors` columns: as many as leave registers for a row of weights and a
/// broadcast value, of 16 with 8 lanes (AVX2), else of 32 (AVX-512, NEON). Without vectors, many rows gain nothing.
pub const fn register_rows<S: Simd>(vectors: usize) -> usize {
    match (S::F32_LANES, vectors) {
        (1, _) => 4,
        (8, 1) => 12,
        (8, _) => 6,
        (_, 1) => 16,
        (_, _) => 14,
    }
}

/// Splits `rows` into the fewest register tiles of nearly equal size: the rows of the next one.
pub fn next_rows(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most))
}

pub(super) use for_rows;
