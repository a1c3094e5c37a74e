//! Which instructions the kernels are compiled for, chosen at run time.

use pulp::WithSimd;

/// An instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Isa {
    arch: pulp::Arch,
    /// AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    pairs: Option<pulp::x86::V4>,
}

impl Isa {
    /// The best that this machine has.
    pub fn best() -> Isa {
        Isa::all()[0]
    }

    /// All that this machine has, the best first.
    pub fn all() -> Vec<Isa> {
        let only = |arch| Isa {
            arch,
            #[cfg(target_arch = "x86_64")]
            pairs: None,
        };
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(v4) = pulp::x86::V4::try_new() {
                let pairs = std::arch::is_x86_feature_detected!("avx512bf16").then_some(v4);
                all.extend(pairs.map(|v4| Isa { arch: pulp::Arch::V4(v4), pairs }));
                all.push(only(pulp::Arch::V4(v4)));
            }
            all.extend(pulp::x86::V3::try_new().map(|v3| only(pulp::Arch::V3(v3))));
        }
        #[cfg(target_arch = "aarch64")]
        all.extend(pulp::aarch64::Neon::try_new().map(|neon| only(pulp::Arch::Neon(neon))));
        all.push(only(pulp::Arch::Scalar));
        all
    }

    /// The usual name.
    pub fn name(self) -> &'static str {
        match self.arch {
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(_) if self.has_pairs() => "AVX512-BF16",
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V3(_) => "AVX2",
            #[cfg(target_arch = "aarch64")]
            pulp::Arch::Neon(_) => "NEON",
            _ => "any",
        }
    }

    /// Whether products of pairs of bfloat16 are supported.
    pub fn has_pairs(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.pairs.is_some();
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    pub fn dispatch<O: WithSimd>(self, op: O) -> O::Output {
        self.arch.dispatch(op)
    }

    /// Runs a kernel that multiplies pairs; only if `has_pairs`.
    pub fn dispatch_pairs<O: WithSimd>(self, op: O) -> O::Output {
        #[cfg(target_arch = "x86_64")]
        if let Some(v4) = self.pairs {
            // SAFETY: V4 and `pairs` show that the machine has these instructions.
            return unsafe { with_pairs(v4, op) };
        }
        _ = op;
        unreachable!("pairs without AVX512-BF16")
    }
}

// pulp's V4 and AVX512-BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse,sse2,fxsr,sse3,ssse3,sse4.1,sse4.2,popcnt,avx,avx2,bmi1,bmi2,fma")]
#[target_feature(enable = "lzcnt,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16")]
unsafe fn with_pairs<O: WithSimd>(v4: pulp::x86::V4, op: O) -> O::Output {
    op.with_simd(v4)
}
