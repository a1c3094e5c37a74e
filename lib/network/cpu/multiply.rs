//! How kernels multiply the stored values.

use super::element::Element;
use half::bf16;
use pulp::Simd;
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
    type Value = bf16;
    const DEPTH: usize = 2;

    #[inline(always)]
    unsafe fn broadcast<S: Simd>(simd: S, p: *const bf16) -> S::f32s {
        simd.splat_f32s(unsafe { p.cast::<f32>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const bf16) -> S::f32s {
        unsafe { f32::load::<S>(p.cast()) }
    }

    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, x: S::f32s, w: S::f32s, sum: S::f32s) -> S::f32s {
        dot(simd, x, w, sum)
    }
}

/// Pairs of bfloat16 stored as one word each, as `pair` makes them.
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

/// The word of two values.
#[inline(always)]
pub fn pair(first: bf16, second: bf16) -> f32 {
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
