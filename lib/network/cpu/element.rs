//! Storage of activations and their gradients: float32, or bfloat16 with arithmetic in float32.

use half::bf16;
use pulp::Simd;

/// A stored value. All arithmetic is in float32.
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

    /// Whether two values can be multiplied as a pair.
    const PAIRS: bool;

    /// The values themselves if they can be multiplied in pairs, else `None`.
    fn as_pairs(values: &[Self]) -> &[bf16];
}

impl Element for f32 {
    const PAIRS: bool = false;

    fn as_pairs(_: &[f32]) -> &[bf16] {
        &[]
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
    const PAIRS: bool = true;

    fn as_pairs(values: &[bf16]) -> &[bf16] {
        values
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
