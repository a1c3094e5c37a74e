//! The device that a network computes on: the value of `--device`.

use super::cpu::Isa;
use super::cuda::{libraries, plans};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// The GPU that this process computes on, with its driver and libraries.
static GPU: OnceLock<String> = OnceLock::new();

/// Where a network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// An NVIDIA GPU by its number.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = Error;

    /// Of `cpu`, `cuda:N`, `cuda` for the first GPU, or `auto` for that if there is one, else the CPU.
    fn from_str(text: &str) -> Result<Device> {
        let number = text.strip_prefix("cuda:").map(str::parse);
        match (text, number) {
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            ("auto", _) if libraries::gpus() > 0 => Ok(Device::Cuda(0)),
            ("auto", _) => Ok(Device::Cpu),
            (_, Some(Ok(number))) => Ok(Device::Cuda(number)),
            _ => {
                let expected = "expected cpu, cuda, cuda:N or auto";
                Err(Error::Usage(format!("--device {text}: {expected}")))
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Says that this process computes on a GPU of this name.
pub fn computes_on(gpu: String) {
    GPU.get_or_init(|| gpu);
}

/// What this process computes with: a GPU, or instructions of the CPU. With another one the bytes may differ.
pub fn instructions() -> &'static str {
    GPU.get().map_or(Isa::best().name(), String::as_str)
}

/// Which engine of cuDNN's computes which convolution in this process, one of the engines a line. Empty without a GPU.
pub fn engines() -> Vec<String> {
    plans::chosen()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_cpu_and_cuda_with_a_number() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(7)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        let found = if libraries::gpus() > 0 { Device::Cuda(0) } else { Device::Cpu };
        assert_eq!("auto".parse::<Device>().unwrap(), found);
        for text in ["", "tpu", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            let error = text.parse::<Device>().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let expected = format!("--device {text}: expected cpu, cuda, cuda:N or auto");
            assert_eq!(error.to_string(), expected);
        }
    }
}
