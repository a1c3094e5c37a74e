//! `--device`.

use crate::error::{Error, Result};
use candle_core::Device;

/// `cpu` or `cuda:N` as candle's device.
pub fn device(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal = name
        .strip_prefix("cuda:")
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| Error::Usage(format!("--device {name}: expected cpu or cuda:N")))?;
    Device::new_cuda(ordinal).map_err(|e| {
        Error::Usage(format!(
            "--device {name}: {e}; is this a build with --features cuda on a machine with that GPU?"
        ))
    })
}
