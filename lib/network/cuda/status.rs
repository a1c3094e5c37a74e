//! What went wrong on a GPU, as an error of one line.

use crate::error::Error;
use crate::memory;
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::CUresult;

/// What to do about a GPU that fails. The last checkpoint stays.
const HINT: &str = "nvidia-smi and the kernel's log say more, with CUDA_LAUNCH_BLOCKING=1 the call is the right one; \
                    run the same command again to go on from the last checkpoint";

/// The error of a call that failed while the GPU was in use.
pub fn failed(what: &str) -> Error {
    Error::Device { what: what.trim_end().to_string(), hint: HINT.to_string() }
}

/// For `map_err`: the error of a call of the driver's.
pub fn driver(call: &str) -> impl FnOnce(DriverError) -> Error + '_ {
    move |e| failed(&format!("{call}: {}", words(e)))
}

/// The error of an allocation of so many bytes on the GPU or, pinned, beside it.
pub fn allocating(bytes: usize) -> impl FnOnce(DriverError) -> Error {
    move |e| match e.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => memory::refused(
            format!("the GPU has no {} MB of memory more", bytes.div_ceil(1 << 20)),
            "lower batch, unlabelled_batch or width_factor, or train with --precision bf16".into(),
        ),
        _ => driver("cuMemAlloc")(e),
    }
}

/// The name of an error of the driver's, and its meaning.
pub fn words(e: DriverError) -> String {
    match e.error_string() {
        Ok(text) => format!("{:?} ({})", e.0, text.to_string_lossy()),
        Err(_) => format!("{:?}", e.0),
    }
}
