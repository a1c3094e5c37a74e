//! The network: a trunk (images → pre-logits) behind one seam, and linear heads in candle.

pub mod candle;
pub mod cpu;
pub mod device;
pub mod engine;
pub mod layout;

use crate::error::{Error, Result};
use candle::CandleTrunk;
use candle_core::{DType, Device, Tensor, Var};
use cpu::{CpuTrunk, Isa};
use engine::{Gradients, Pass, Precision, Trunk};
use half::bf16;
use layout::{Architecture, Layout};

/// Outputs of the heads for a batch, as parts of candle's graph.
pub struct Outputs {
    features: Tensor,
    heads: Vec<(String, Var, Var)>,
}

impl Outputs {
    /// The named head's output, `[n, outputs]`.
    pub fn head(&self, name: &str) -> Result<Tensor> {
        let (_, kernel, bias) = self
            .heads
            .iter()
            .find(|(n, ..)| n == name)
            .ok_or_else(|| Error::Internal(format!("the network has no head {name:?}")))?;
        Ok(self.features.matmul(kernel)?.broadcast_add(bias)?)
    }
}

/// A network that stays as it is while it infers.
pub struct Inference<'a> {
    network: &'a mut Network,
}

impl Inference<'_> {
    /// Outputs of a head by the moving statistics: `[n, outputs]`, row-major.
    pub fn run(&mut self, images: &[f32], head: &str) -> Result<Vec<f32>> {
        let Network { layout, parameters, trunk, .. } = &mut *self.network;
        let out = outputs(layout, parameters, &trunk.infer(images)?)?.head(head)?;
        Ok(out.flatten_all()?.to_vec1()?)
    }
}

/// Parameters, moving statistics and the trunk that computes with them.
pub struct Network {
    pub layout: Layout,
    pub parameters: Vec<f32>,
    pub moving: Vec<f32>,
    trunk: Box<dyn Trunk>,
    /// For gradients of images where `trunk` is too coarse for them: VAT looks along a perturbation
    /// that would be rounded away.
    exact: Option<Box<dyn Trunk>>,
}

impl Network {
    /// A network for images of (height, width): the fast trunk on the CPU, candle's in float32
    /// elsewhere.
    pub fn new(
        architecture: &Architecture,
        (height, width): (usize, usize),
        device: &Device,
        precision: Precision,
        seed: u64,
    ) -> Network {
        let layout = Layout::new(architecture);
        let single = || -> Box<dyn Trunk> {
            match device {
                Device::Cpu => Box::new(CpuTrunk::<f32>::new(&layout, height, width, Isa::best())),
                other => {
                    let device = other.clone();
                    Box::new(CandleTrunk::new(&layout, height, width, device, DType::F32))
                }
            }
        };
        let (trunk, exact): (Box<dyn Trunk>, _) = match precision {
            Precision::F32 => (single(), None),
            Precision::Bf16 => {
                let trunk = CpuTrunk::<bf16>::new(&layout, height, width, Isa::best());
                (Box::new(trunk), Some(single()))
            }
        };
        Network {
            parameters: layout.initial_parameters(seed),
            moving: layout.initial_moving(),
            layout,
            trunk,
            exact,
        }
    }

    /// Takes the network as it is to infer with.
    pub fn inference(&mut self) -> Result<Inference<'_>> {
        self.trunk.prepare(&self.parameters, &self.moving)?;
        Ok(Inference { network: self })
    }

    /// Sets the moving statistics to the mean over batches of those of this one, the `index`-th.
    pub fn recompute_statistics(&mut self, images: &[f32], index: usize) -> Result<()> {
        let keep = index as f32 / (index + 1) as f32;
        let pass = Pass::Train { keep };
        self.trunk.forward(&self.parameters, &mut self.moving, images, pass)?;
        Ok(())
    }

    /// One pass forward and backward: `loss` makes a scalar of the heads' outputs, its gradients go
    /// where they are `wanted`. Returns the loss.
    pub fn differentiate(
        &mut self,
        images: &[f32],
        pass: Pass,
        loss: impl FnOnce(&Outputs) -> Result<Tensor>,
        mut wanted: Gradients,
    ) -> Result<f32> {
        let trunk = match &mut self.exact {
            Some(exact) if wanted.images.is_some() => exact,
            _ => &mut self.trunk,
        };
        let features = trunk.forward(&self.parameters, &mut self.moving, images, pass)?;
        let outputs = outputs(&self.layout, &self.parameters, &features)?;
        let features = Var::from_tensor(&outputs.features)?;
        let outputs = Outputs { features: features.as_tensor().clone(), ..outputs };
        let loss = loss(&outputs)?;
        let gradients = loss.backward()?;
        let Some(upstream) = gradients.get(&features) else {
            return Err(Error::Internal("a loss that does not depend on the images".into()));
        };
        if let Some(parameters) = wanted.parameters.as_deref_mut() {
            for (head, (_, kernel, bias)) in self.layout.heads.iter().zip(&outputs.heads) {
                let kernel = (self.layout.head_kernel(head), gradients.get(kernel));
                let bias = (self.layout.head_bias(head), gradients.get(bias));
                for (range, gradient) in [kernel, bias] {
                    let Some(gradient) = gradient else { continue };
                    let gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
                    for (p, g) in parameters[range].iter_mut().zip(gradient) {
                        *p += g;
                    }
                }
            }
        }
        let upstream = upstream.flatten_all()?.to_vec1::<f32>()?;
        trunk.backward(&self.parameters, &upstream, wanted)?;
        Ok(loss.to_scalar()?)
    }
}

fn outputs(layout: &Layout, parameters: &[f32], features: &[f32]) -> Result<Outputs> {
    let width = layout.features;
    let features = Tensor::from_slice(features, (features.len() / width, width), &Device::Cpu)?;
    let heads = layout.heads.iter().map(|h| {
        let kernel = &parameters[layout.head_kernel(h)];
        let bias = &parameters[layout.head_bias(h)];
        Ok((
            h.name.clone(),
            Var::from_slice(kernel, (width, h.outputs), &Device::Cpu)?,
            Var::from_slice(bias, h.outputs, &Device::Cpu)?,
        ))
    });
    Ok(Outputs { features, heads: heads.collect::<Result<_>>()? })
}
