//! NVIDIA's driver and libraries, which are loaded when a GPU is asked for, and what a machine needs for that.

use super::status::words;
use crate::error::{Error, Result};
use cudarc::driver::{result, sys as driver};
use cudarc::{cublaslt, cudnn, nvrtc};
use std::ffi::{CStr, CString};

/// The oldest cuDNN whose graphs are used.
const OLDEST_CUDNN: usize = 90_000;

/// A library, by the name of its file on most machines; cudarc tries others too.
struct Library {
    what: &'static str,
    file: &'static str,
    is_present: unsafe fn() -> bool,
}

const DRIVER: Library =
    Library { what: "the driver", file: "libcuda.so.1", is_present: driver::is_culib_present };

const LIBRARIES: [Library; 3] = [
    Library { what: "NVRTC", file: "libnvrtc.so.13", is_present: nvrtc::sys::is_culib_present },
    Library { what: "cuDNN", file: "libcudnn.so.9", is_present: cudnn::sys::is_culib_present },
    Library {
        what: "cuBLASLt",
        file: "libcublasLt.so.13",
        is_present: cublaslt::sys::is_culib_present,
    },
];

impl Library {
    fn is_present(&self) -> bool {
        // SAFETY: it loads a library of NVIDIA's and lets go of it.
        unsafe { (self.is_present)() }
    }

    /// Its name, with the system's words if there is more to say than that there is no such file.
    fn missing(&self) -> String {
        let file = CString::new(self.file).unwrap_or_default();
        // SAFETY: the name and the answer are strings; a library that loads after all stays loaded.
        let said = unsafe {
            match libc::dlopen(file.as_ptr(), libc::RTLD_LAZY).is_null() {
                true => CStr::from_ptr(libc::dlerror()).to_string_lossy().into_owned(),
                false => String::new(),
            }
        };
        let absent = said.starts_with(self.file) && said.contains("No such file");
        match absent || said.is_empty() {
            true => format!("{} ({})", self.what, self.file),
            false => format!("{} ({})", self.what, said.replace('\n', " ")),
        }
    }
}

/// GPUs that this process may use; 0 without a driver.
pub fn gpus() -> usize {
    match DRIVER.is_present() && result::init().is_ok() {
        true => result::device::get_count().map_or(0, |count| count.max(0) as usize),
        false => 0,
    }
}

/// Loads everything. The words of an error follow `--device cuda:N: `.
pub fn load() -> std::result::Result<(), String> {
    let all = std::iter::once(&DRIVER).chain(&LIBRARIES);
    let missing: Vec<_> =
        all.filter(|library| !library.is_present()).map(Library::missing).collect();
    if !missing.is_empty() {
        return Err(format!(
            "cannot load {}, also not as libNAME.so or with another number; the driver comes with the GPU, the \
             libraries with CUDA and cuDNN or by pip install nvidia-cuda-nvrtc nvidia-cudnn-cu13 nvidia-cublas, and \
             LD_LIBRARY_PATH must name their folders",
            missing.join(", ")
        ));
    }
    result::init().map_err(|e| {
        format!(
            "cuInit: {}; see whether nvidia-smi finds a GPU, and CUDA_VISIBLE_DEVICES",
            words(e)
        )
    })?;
    let found = Versions::found();
    if found.cudnn < OLDEST_CUDNN {
        return Err(format!("{} is too old; install cuDNN 9", cudnn_name(found.cudnn)));
    }
    for (library, made_for) in
        [("NVRTC", found.nvrtc), ("cuDNN", found.cudnn_for), ("cuBLASLt", found.cublaslt_for)]
    {
        if made_for / 1000 > found.driver / 1000 {
            return Err(format!(
                "the driver is for CUDA {}, and {library} is for CUDA {}; install a newer driver, or libraries for \
                 CUDA {}",
                release(found.driver),
                release(made_for),
                found.driver / 1000
            ));
        }
    }
    Ok(())
}

/// What the libraries are called in messages and in what is written about a run.
pub fn names() -> String {
    let found = Versions::found();
    format!(
        "driver for CUDA {}, {}, NVRTC {}, cuBLASLt {}",
        release(found.driver),
        cudnn_name(found.cudnn),
        release(found.nvrtc),
        found.cublaslt
    )
}

/// NVRTC's version: 1000 times the major number, 10 times the minor one.
pub fn nvrtc() -> usize {
    Versions::found().nvrtc
}

/// Numbers as the libraries tell them. Those of CUDA are 1000 times the major number and 10 times the minor one.
struct Versions {
    driver: usize,
    nvrtc: usize,
    cudnn: usize,
    cudnn_for: usize,
    cublaslt: usize,
    cublaslt_for: usize,
}

impl Versions {
    /// All libraries must be there.
    fn found() -> Versions {
        let (mut driver, mut major, mut minor) = (0, 0, 0);
        // SAFETY: each call writes a number or tells one. A failed one leaves 0.
        unsafe {
            let _ = driver::cuDriverGetVersion(&mut driver);
            let _ = nvrtc::sys::nvrtcVersion(&mut major, &mut minor);
            Versions {
                driver: driver as usize,
                nvrtc: (1000 * major + 10 * minor) as usize,
                cudnn: cudnn::sys::cudnnGetVersion(),
                cudnn_for: cudnn::sys::cudnnGetCudartVersion(),
                cublaslt: cublaslt::sys::cublasLtGetVersion(),
                cublaslt_for: cublaslt::sys::cublasLtGetCudartVersion(),
            }
        }
    }
}

/// `13.0` of 13000.
fn release(version: usize) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// cuDNN counted by thousands before release 9.
fn cudnn_name(version: usize) -> String {
    let (unit, version) = if version < 10_000 { (1000, version) } else { (10_000, version) };
    format!("cuDNN {}.{}.{}", version / unit, version % unit / 100, version % 100)
}

/// The error of a GPU that cannot be used.
pub fn unusable(number: usize, why: String) -> Error {
    Error::Usage(format!("--device cuda:{number}: {why}"))
}

/// Checks that the machine has this GPU.
pub fn check(number: usize) -> Result<()> {
    load().map_err(|why| unusable(number, format!("{why}; or use --device cpu")))?;
    match gpus() {
        0 => {
            Err(unusable(number, "there is no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES".into()))
        }
        count if number >= count => {
            Err(unusable(number, format!("there are {count} GPUs, numbered from 0")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_people_write_them() {
        assert_eq!(release(13_000), "13.0");
        assert_eq!(release(12_080), "12.8");
        assert_eq!(cudnn_name(92_001), "cuDNN 9.20.1");
        assert_eq!(cudnn_name(8_907), "cuDNN 8.9.7");
    }
}
