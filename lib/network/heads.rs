//! The linear layers on the pre-logits, by candle's matrix products.

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::tasks;
use candle_core::{Device, Storage, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Values that one task copies or adds.
const TASK: usize = 16 << 10;

/// Kernel `[features, outputs]` and bias `[outputs]` of a head.
struct Linear {
    kernel: Tensor,
    bias: Tensor,
}

/// All heads of a network, in the order of its layout.
#[derive(Default)]
pub struct Heads {
    /// Copies of the parameters; empty until they are needed.
    layers: Vec<Linear>,
    /// Pre-logits `[n, features]` of the last `forward`.
    features: Option<Tensor>,
}

impl Heads {
    /// Must be called after the parameters have changed.
    pub fn forget(&mut self) {
        *self = Heads::default();
    }

    /// The logits of each head, `[n, outputs]`.
    pub fn forward(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        features: Vec<f32>,
    ) -> Result<Vec<Vec<f32>>> {
        self.copy(layout, parameters)?;
        let features = rows(features, layout)?;
        let logits = self.layers.iter().map(|layer| layer.logits(&features)).collect();
        self.features = Some(features);
        logits
    }

    /// The tangents of each head's logits, `[n, outputs]`, from that of the pre-logits.
    pub fn tangents(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        features: &[f32],
    ) -> Result<Vec<Vec<f32>>> {
        self.copy(layout, parameters)?;
        let features = rows(features.to_vec(), layout)?;
        let products = self.layers.iter().map(|layer| features.matmul(&layer.kernel));
        products.map(|tangents| Ok(tangents?.flatten_all()?.to_vec1()?)).collect()
    }

    /// The gradient of the pre-logits `[n, features]` from the gradients of all heads' logits. Adds the
    /// gradients of kernels and biases to `gradient`, if wanted.
    pub fn backward(
        &self,
        layout: &Layout,
        logits: &[Option<Vec<f32>>],
        mut gradient: Option<&mut [f32]>,
    ) -> Result<Vec<f32>> {
        let Some(features) = &self.features else {
            return Err(Error::Internal("backward before forward".into()));
        };
        let mut upstream = vec![0f32; features.elem_count()];
        for ((head, layer), logits) in layout.heads.iter().zip(&self.layers).zip(logits) {
            let Some(logits) = logits else { continue };
            let logits =
                Tensor::from_slice(logits, (features.dim(0)?, head.outputs), &Device::Cpu)?;
            add(&mut upstream, &logits.matmul(&layer.kernel.t()?)?)?;
            if let Some(gradient) = gradient.as_deref_mut() {
                let kernel = features.t()?.matmul(&logits)?;
                add(&mut gradient[layout.head_kernel(head)], &kernel)?;
                add(&mut gradient[layout.head_bias(head)], &logits.sum_keepdim(0)?)?;
            }
        }
        Ok(upstream)
    }

    /// The logits of the head at an index of the layout.
    pub fn infer(
        &mut self,
        layout: &Layout,
        parameters: &[f32],
        features: Vec<f32>,
        head: usize,
    ) -> Result<Vec<f32>> {
        self.copy(layout, parameters)?;
        self.layers[head].logits(&rows(features, layout)?)
    }

    /// Copies the heads' parameters into tensors.
    fn copy(&mut self, layout: &Layout, parameters: &[f32]) -> Result<()> {
        if self.layers.is_empty() {
            let heads = layout.heads.iter().map(|head| {
                let copied = |range: Range<usize>| -> Vec<f32> {
                    parameters[range].par_iter().copied().collect()
                };
                let kernel = copied(layout.head_kernel(head));
                let bias = copied(layout.head_bias(head));
                let shape = (layout.features, head.outputs);
                Ok(Linear {
                    kernel: Tensor::from_vec(kernel, shape, &Device::Cpu)?,
                    bias: Tensor::from_vec(bias, head.outputs, &Device::Cpu)?,
                })
            });
            self.layers = heads.collect::<Result<_>>()?;
        }
        Ok(())
    }
}

impl Linear {
    fn logits(&self, features: &Tensor) -> Result<Vec<f32>> {
        let logits = features.matmul(&self.kernel)?.broadcast_add(&self.bias)?;
        Ok(logits.flatten_all()?.to_vec1()?)
    }
}

/// Pre-logits as a tensor.
fn rows(features: Vec<f32>, layout: &Layout) -> Result<Tensor> {
    let shape = (features.len() / layout.features, layout.features);
    Ok(Tensor::from_vec(features, shape, &Device::Cpu)?)
}

/// Adds the values of a contiguous tensor, on all threads.
fn add(to: &mut [f32], tensor: &Tensor) -> Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
    else {
        return Err(Error::Internal("a head's gradient is not in one piece".into()));
    };
    let values = &storage.as_slice::<f32>()?[start..end];
    let parts = to.par_chunks_mut(TASK).zip(values.par_chunks(TASK));
    tasks::each(parts, |(to, values)| {
        for (t, &v) in to.iter_mut().zip(values) {
            *t += v;
        }
    });
    Ok(())
}
