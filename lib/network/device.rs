//! `--device`.

use crate::cli::Common;
use crate::error::{Error, Result};
use candle_core::Device;

/// `cpu` or `cuda:N` as candle's device.
pub fn device(common: &Common) -> Result<Device> {
    if common.device == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal =
        common.device.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(|| {
            Error::Usage(format!("--device {}: expected cpu or cuda:N", common.device))
        })?;
    Device::new_cuda(ordinal).map_err(|e| {
        Error::Usage(format!(
            "--device {}: {e}; is this a build with --features cuda on a machine with that GPU?",
            common.device
        ))
    })
}
