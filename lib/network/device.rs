//! The device that a network computes on: the value of `--device`.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Where a network computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// An NVIDIA GPU by its number, in a build with the feature `cuda`.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = Error;

    /// Of `cpu` or `cuda:N`.
    fn from_str(text: &str) -> Result<Device> {
        let number = text.strip_prefix("cuda:").map(str::parse);
        match (text, number) {
            ("cpu", _) => Ok(Device::Cpu),
            (_, Some(Ok(number))) => Ok(Device::Cuda(number)),
            _ => Err(Error::Usage(format!("--device {text}: expected cpu or cuda:N"))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_cpu_and_cuda_with_a_number() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(7)] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for text in ["", "tpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            let error = text.parse::<Device>().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert_eq!(error.to_string(), format!("--device {text}: expected cpu or cuda:N"));
        }
    }
}
