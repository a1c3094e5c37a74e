//! Device memory that grows, and values copied to and from it.

use super::runtime::{Address, Memory, Runtime};
use crate::error::Result;

/// Memory that is allocated when it is needed.
#[derive(Default)]
pub struct Buffer {
    memory: Option<Memory>,
    bytes: usize,
}

impl Buffer {
    /// Makes room for so many bytes. If the memory grows, its content is lost. Says whether it did.
    pub fn reserve(&mut self, runtime: &dyn Runtime, bytes: usize) -> Result<bool> {
        if self.memory.is_some() && bytes <= self.bytes {
            return Ok(false);
        }
        // The old memory is freed first.
        *self = Buffer::default();
        self.memory = Some(runtime.allocate(bytes)?);
        self.bytes = bytes;
        Ok(true)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `NONE` before the first `reserve`.
    pub fn address(&self) -> Address {
        self.memory.as_ref().map_or(Address::NONE, Memory::address)
    }
}

pub fn upload(runtime: &dyn Runtime, from: &[f32], to: Address) -> Result<()> {
    match from.is_empty() {
        true => Ok(()),
        false => runtime.upload(bytemuck::cast_slice(from), to),
    }
}

pub fn download(runtime: &dyn Runtime, from: Address, values: usize) -> Result<Vec<f32>> {
    let mut to = vec![0f32; values];
    if values > 0 {
        runtime.download(from, bytemuck::cast_slice_mut(&mut to))?;
    }
    Ok(to)
}
