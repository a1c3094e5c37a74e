//! How kernels multiply the stored values.

use super::element::{Element, Native};
use super::isa::Isa;
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;

/// Multiplications of a register tile: a broadcast value times a vector, added to float32 sums.
pub trait Multiply: Copy + Send + Sync + 'static {
    /// The stored value.
    type Value: Element;
    /// Values that one multiplication takes from each side and adds up.
    const DEPTH: usize;

    /// # Safety
    /// `DEPTH` values are readable.
    unsafe fn broadcast<S: Simd>(simd: S, p: *const Self::Value) -> S::f32s;

    /// # Safety
    /// A vector of values is readable.
    unsafe fn load<S: Simd>(p: *const Self::Value) -> S::f32s;

    fn multiply_add<S: Simd>(simd: S, x: S::f32s, w: S::f32s, sum: S::f32s) -> S::f32s;
}

/// Single values, in float32.
#[derive(Clone, Copy)]
pub struct Single<E>(PhantomData<E>);

impl<E: Element> Multiply for Single<E> {
    type Value = E;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn broadcast<S: Simd>(simd: S, p: *const E) -> S::f32s {
        simd.splat_f32s(unsafe { *p }.widen())
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const E) -> S::f32s {
        unsafe { E::load::<S>(p) }
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::f32s, w: S::f32s, sum: S::f32s) -> S::f32s {
        simd.mul_add_f32s(x, w, sum)
    }
}

/// Two neighbouring bfloat16 values at once, for `Isa::dispatch_pairs`. Vectors are never read directly
/// from the stored values.
#[derive(Clone, Copy)]
pub struct Pairs;

impl Multiply for Pairs {
    type Value = Native;
    const DEPTH: usize = 2;

    #[inline(always)]
    unsafe fn broadcast<S: Simd>(simd: S, p: *const Native) -> S::f32s {
        simd.splat_f32s(unsafe { p.cast::<f32>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Native) -> S::f32s {
        unsafe { f32::load::<S>(p.cast()) }
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::f32s, w: S::f32s, sum: S::f32s) -> S::f32s {
        dot(simd, x, w, sum)
    }
}

/// Pairs of bfloat16 stored as one word each, of two rows (see `Rows`) or two pixels (see `pair`).
#[derive(Clone, Copy)]
pub struct Words;

impl Multiply for Words {
    type Value = f32;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn broadcast<S: Simd>(simd: S, p: *const f32) -> S::f32s {
        simd.splat_f32s(unsafe { *p })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::f32s {
        unsafe { f32::load::<S>(p) }
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::f32s, w: S::f32s, sum: S::f32s) -> S::f32s {
        dot(simd, x, w, sum)
    }
}

/// How rows of float32 values are stored for products that read them as `Self::Value`.
pub trait Rows: Multiply<Value = f32> {
    /// Rows that become one row of words.
    const ROWS: usize;

    /// Runs a kernel that stores or multiplies so.
    fn dispatch<O: WithSimd>(isa: Isa, op: O) -> O::Output;

    /// Stores a vector of a row; rows come in their order and have `width` values.
    /// `out`: the vector's place in the first row.
    ///
    /// # Safety
    /// The vector's place in its own row is readable and writable.
    unsafe fn store<S: Simd>(out: *mut f32, width: usize, row: usize, v: S::f32s);
}

impl Rows for Single<f32> {
    const ROWS: usize = 1;

    fn dispatch<O: WithSimd>(isa: Isa, op: O) -> O::Output {
        isa.dispatch(op)
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(out: *mut f32, width: usize, row: usize, v: S::f32s) {
        unsafe { f32::store::<S>(out.add(row * width), v) }
    }
}

impl Rows for Words {
    const ROWS: usize = 2;

    fn dispatch<O: WithSimd>(isa: Isa, op: O) -> O::Output {
        isa.dispatch_pairs(op)
    }

    /// The first row of a pair waits as float32 for the second.
    #[inline(always)]
    unsafe fn store<S: Simd>(out: *mut f32, width: usize, row: usize, v: S::f32s) {
        unsafe {
            let out = out.add(row / 2 * width);
            let words = match row % 2 {
                0 => v,
                _ => paired::<S>(f32::load::<S>(out), v),
            };
            f32::store::<S>(out, words);
        }
    }
}

/// The word of two values.
#[inline(always)]
pub fn pair(Native(first): Native, Native(second): Native) -> f32 {
    f32::from_bits(u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16)
}

/// sum + x0 * w0 + x1 * w1 for the two halves of each word.
#[inline(always)]
fn dot<S: Simd>(simd: S, x: S::f32s, w: S::f32s, sum: S::f32s) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    if size_of::<S::f32s>() == 64 {
        use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
        use std::mem::transmute_copy;
        // SAFETY: vectors of 64 bytes; `Isa::dispatch_pairs` calls this only if the instruction exists.
        return unsafe {
            let out: __m512 = _mm512_dpbf16_ps(
                transmute_copy::<S::f32s, __m512>(&sum),
                transmute_copy::<S::f32s, __m512bh>(&x),
                transmute_copy::<S::f32s, __m512bh>(&w),
            );
            transmute_copy(&out)
        };
    }
    _ = (simd, x, w, sum);
    unreachable!("pairs without AVX512-BF16")
}

/// The words of two vectors, rounded to bfloat16; numbers below the least normal one become 0.
#[inline(always)]
fn paired<S: Simd>(first: S::f32s, second: S::f32s) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    if size_of::<S::f32s>() == 64 {
        use std::arch::x86_64::{
            __m256bh, __m256i, __m512, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_or_si512,
            _mm512_slli_epi32,
        };
        use std::mem::{transmute, transmute_copy};
        // SAFETY: as for `dot`.
        return unsafe {
            let first = _mm512_cvtneps_pbh(transmute_copy::<S::f32s, __m512>(&first));
            let second = _mm512_cvtneps_pbh(transmute_copy::<S::f32s, __m512>(&second));
            let low = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(first));
            let high = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(second));
            transmute_copy(&_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        };
    }
    _ = (first, second);
    unreachable!("pairs without AVX512-BF16")
}
