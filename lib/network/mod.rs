//! The network: images → logits of the heads. An engine computes it and owns its weights; the losses are
//! candle's, on the host.

mod buffers;
pub mod candle;
pub mod cpu;
pub mod cuda;
pub mod device;
pub mod engine;
mod heads;
mod host;
pub mod layout;
mod slots;
pub mod update;
pub mod weights;

use crate::error::{Error, Result};
use crate::ranks::{Alone, Parts, Ranks};
use candle_core::{Tensor, Var};
use cpu::Isa;
use cuda::device::Card;
use cuda::runtime::Runtime;
use device::Device;
use engine::{Engine, Pass, Precision};
use layout::{Architecture, Layout};
use std::sync::Arc;
use weights::Weights;

/// The heads' logits of a pass. A loss is made from them, and candle differentiates it.
pub struct Outputs {
    heads: Vec<(String, Var)>,
    /// Of each head, after `Pass::Direction`.
    tangents: Vec<Tensor>,
}

impl Outputs {
    /// The named head's logits, `[n, outputs]`.
    pub fn head(&self, name: &str) -> Result<Tensor> {
        Ok(self.heads[self.place(name)?].1.as_tensor().clone())
    }

    /// How the named head's logits change along the directions of `Pass::Direction`, `[n, outputs]`.
    pub fn tangent(&self, name: &str) -> Result<Tensor> {
        let tangent = self.tangents.get(self.place(name)?);
        tangent.cloned().ok_or_else(|| Error::Internal("a pass without directions".into()))
    }

    fn place(&self, name: &str) -> Result<usize> {
        self.heads.iter().position(|(head, _)| head == name).ok_or_else(|| no_head(name))
    }

    /// The gradient of each head's logits.
    fn gradients(&self, loss: &Tensor) -> Result<Vec<Option<Vec<f32>>>> {
        let gradients = loss.backward()?;
        let values = |gradient: &Tensor| gradient.flatten_all()?.to_vec1();
        let heads = self.heads.iter().map(|(_, logits)| gradients.get(logits).map(values));
        Ok(heads.map(Option::transpose).collect::<candle_core::Result<_>>()?)
    }
}

fn no_head(name: &str) -> Error {
    Error::Internal(format!("the network has no head {name:?}"))
}

/// A network that does not change while it infers.
pub struct Inference<'a> {
    network: &'a mut Network,
}

impl Inference<'_> {
    /// Logits of a head with the moving statistics: `[n, outputs]`, row-major.
    pub fn run(&mut self, images: &[f32], head: &str) -> Result<Vec<f32>> {
        let Network { layout, engine, .. } = &mut *self.network;
        let place = layout.heads.iter().position(|h| h.name == head);
        engine.infer(images, place.ok_or_else(|| no_head(head))?)
    }
}

/// An engine, and what it computes.
pub struct Network {
    pub layout: Layout,
    /// Values per image.
    pub image_values: usize,
    pub engine: Box<dyn Engine>,
    ranks: Ranks,
}

impl Network {
    /// A network for images of (height, width). Errors: `Usage` if the device does not exist or cannot compute in
    /// this precision.
    pub fn new(
        architecture: &Architecture,
        size: (usize, usize),
        device: Device,
        precision: Precision,
        weights: Weights,
    ) -> Result<Network> {
        let layout = Layout::new(architecture);
        let engine: Box<dyn Engine> = match device {
            Device::Cpu => cpu::engine(&layout, size, weights, precision, Isa::best()),
            Device::Cuda(number) => {
                let card = Box::new(Card::open(number, precision)?);
                device::computes_on(card.name());
                cuda::engine(card, &layout, size, weights, precision)?
            }
        };
        let image_values = size.0 * size.1 * architecture.channels;
        Ok(Network { image_values, layout, engine, ranks: Arc::new(Alone) })
    }

    /// From now on, losses are those of the rows of all ranks, and with `sync_batch_norm` so are batch statistics;
    /// without it, each rank has its own.
    ///
    /// Errors: `Usage` if the engine cannot do that.
    pub fn join(&mut self, ranks: &Ranks, sync_batch_norm: bool) -> Result<()> {
        self.ranks = ranks.clone();
        self.engine.join(ranks.clone(), sync_batch_norm)
    }

    /// Those that train this network.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Borrows the network for inference.
    pub fn inference(&mut self) -> Result<Inference<'_>> {
        self.engine.prepare()?;
        Ok(Inference { network: self })
    }

    /// Sets the moving statistics to the mean over batches of the batch statistics; this batch is the
    /// `index`-th. As `Engine::images`, leaves another buffer in place of the images.
    pub fn recompute_statistics(&mut self, images: &mut Vec<f32>, index: usize) -> Result<()> {
        self.engine.images(images);
        let keep = index as f32 / (index + 1) as f32;
        self.engine.forward(Pass::Train { keep })?;
        Ok(())
    }

    /// One pass forward. `parts`: the rows of all ranks.
    pub fn forward(&mut self, pass: Pass, parts: Parts) -> Result<Outputs> {
        let own = self.engine.forward(pass)?;
        let logits = self.of_all(own, parts)?;
        let heads = self.layout.heads.iter().zip(logits);
        let heads = heads.map(|(head, logits)| Ok((head.name.clone(), Var::from_tensor(&logits)?)));
        let heads = heads.collect::<Result<_>>()?;
        let tangents = match pass {
            Pass::Direction => {
                let own = self.engine.tangents()?;
                self.of_all(own, parts)?
            }
            Pass::Train { .. } | Pass::Perturbed => Vec::new(),
        };
        Ok(Outputs { heads, tangents })
    }

    /// The values of each head, `[n, outputs]` of all ranks, from those of this one.
    fn of_all(&self, own: Vec<Vec<f32>>, parts: Parts) -> Result<Vec<Tensor>> {
        let heads = self.layout.heads.iter().zip(own);
        let all = heads.map(|(head, own)| {
            let all = self.ranks.gathered_rows(own, head.outputs, parts)?;
            let shape = (all.len() / head.outputs, head.outputs);
            Ok(Tensor::from_vec(all, shape, &candle_core::Device::Cpu)?)
        });
        all.collect()
    }

    /// One pass forward and backward. `loss` makes a scalar of the heads' logits of all ranks, and the engine
    /// keeps the gradient that flows through the rows of this one. Returns the loss. `parts`: the rows of all
    /// ranks. `last`: as in `Engine::backward`.
    pub fn differentiate(
        &mut self,
        pass: Pass,
        last: bool,
        parts: Parts,
        loss: impl FnOnce(&Outputs) -> Result<Tensor>,
    ) -> Result<f32> {
        let outputs = self.forward(pass, parts)?;
        let loss = loss(&outputs)?;
        let gradients = outputs.gradients(&loss)?;
        if gradients.iter().all(Option::is_none) {
            return Err(Error::Internal("a loss that does not depend on the images".into()));
        }
        let heads = self.layout.heads.iter().zip(gradients);
        let own = heads.map(|(head, all)| Some(self.ranks.own_rows(all?, head.outputs, parts)));
        self.engine.backward(&own.collect::<Vec<_>>(), last)?;
        Ok(loss.to_scalar()?)
    }
}
