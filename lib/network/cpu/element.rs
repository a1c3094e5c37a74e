//! Storage of activations and their gradients: float32, or bfloat16 with arithmetic in float32 or in pairs.

use super::isa::Isa;
use half::bf16;
use pulp::{Simd, WithSimd};

/// A stored value. Arithmetic is in float32, but for products of pairs.
pub trait Element: Copy + Default + Send + Sync + 'static {
    fn widen(self) -> f32;
    /// Rounds to nearest, ties to even.
    fn narrow(value: f32) -> Self;

    /// Reads `S::F32_LANES` values from `p`.
    ///
    /// # Safety
    /// The values are readable.
    unsafe fn load<S: Simd>(p: *const Self) -> S::f32s;

    /// Writes `S::F32_LANES` values to `p`.
    ///
    /// # Safety
    /// The values are writable.
    unsafe fn store<S: Simd>(p: *mut Self, v: S::f32s);

    /// Whether values are multiplied in pairs (see `multiply`).
    const PAIRS: bool;

    /// The values themselves if they are multiplied in pairs, else none.
    fn as_pairs(_: &[Self]) -> &[Native] {
        &[]
    }

    /// Runs a kernel that loads or stores these values.
    fn dispatch<O: WithSimd>(isa: Isa, op: O) -> O::Output;
}

impl Element for f32 {
    const PAIRS: bool = false;

    fn dispatch<O: WithSimd>(isa: Isa, op: O) -> O::Output {
        isa.dispatch(op)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> f32 {
        value
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::f32s {
        unsafe { p.cast::<S::f32s>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut f32, v: S::f32s) {
        unsafe { p.cast::<S::f32s>().write_unaligned(v) }
    }
}

impl Element for bf16 {
    const PAIRS: bool = false;

    fn dispatch<O: WithSimd>(isa: Isa, op: O) -> O::Output {
        isa.dispatch(op)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(value: f32) -> bf16 {
        let bits = value.to_bits();
        let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        // A NaN stays a NaN: rounding could clear its lowest bits or carry out of them.
        let nan = (bits >> 16) | 0x40;
        let is_nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
        bf16::from_bits(if is_nan { nan } else { rounded } as u16)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const bf16) -> S::f32s {
        let mut wide = [0f32; super::registers::LANES];
        for (i, w) in wide[..S::F32_LANES].iter_mut().enumerate() {
            *w = unsafe { (*p.add(i)).widen() };
        }
        unsafe { f32::load::<S>(wide.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut bf16, v: S::f32s) {
        let mut wide = [0f32; super::registers::LANES];
        unsafe { f32::store::<S>(wide.as_mut_ptr(), v) };
        for (i, &w) in wide[..S::F32_LANES].iter().enumerate() {
            unsafe { *p.add(i) = bf16::narrow(w) };
        }
    }
}

/// bfloat16 on a machine that has AVX512-BF16, by its instructions. They take numbers below the least normal
/// one for 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(transparent)]
pub struct Native(pub bf16);

impl Element for Native {
    const PAIRS: bool = true;

    fn as_pairs(values: &[Native]) -> &[Native] {
        values
    }

    fn dispatch<O: WithSimd>(isa: Isa, op: O) -> O::Output {
        isa.dispatch_pairs(op)
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self.0.widen()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Native {
        Native(bf16::narrow(value))
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Native) -> S::f32s {
        unsafe { bf16::load::<S>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut Native, v: S::f32s) {
        #[cfg(target_arch = "x86_64")]
        if size_of::<S::f32s>() == 64 {
            use std::arch::x86_64::{__m256bh, __m512, _mm512_cvtneps_pbh};
            use std::mem::transmute_copy;
            // SAFETY: vectors of 64 bytes; `dispatch` runs this only if the instruction exists.
            return unsafe {
                let v = _mm512_cvtneps_pbh(transmute_copy::<S::f32s, __m512>(&v));
                p.cast::<__m256bh>().write_unaligned(v);
            };
        }
        _ = (p, v);
        unreachable!("native bfloat16 without AVX512-BF16")
    }
}
