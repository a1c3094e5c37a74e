//! The CPU engine: the trunk, or its inference form, over weights in host memory.

use super::element::{Element, Native};
use super::inference::Frozen;
use super::isa::Isa;
use super::trunk::Trunk;
use crate::error::{Error, Result};
use crate::network::engine::{Engine, Inner, Pass, Precision};
use crate::network::host::HostMemory;
use crate::network::layout::Layout;
use crate::network::update::Update;
use crate::network::weights::Weights;
use crate::ranks::Ranks;
use half::bf16;

/// The engine for images of (height, width), on the given instruction set. It is behind the `Engine` seam,
/// so the kernels are compiled once, in this library.
pub fn engine(
    layout: &Layout,
    size: (usize, usize),
    weights: Weights,
    precision: Precision,
    isa: Isa,
) -> Box<dyn Engine> {
    match precision {
        Precision::F32 => Box::new(CpuEngine::<f32>::new(layout, size, weights, isa)),
        Precision::Bf16 if isa.has_pairs() => {
            Box::new(CpuEngine::<Native>::new(layout, size, weights, isa))
        }
        Precision::Bf16 => Box::new(CpuEngine::<bf16>::new(layout, size, weights, isa)),
    }
}

/// Activations and their gradients are stored as `E`.
struct CpuEngine<E> {
    memory: HostMemory,
    trunk: Trunk<E>,
    /// Tangent of the last pre-logits.
    tangent: Vec<f32>,
    frozen: Option<Frozen<E>>,
}

impl<E: Element> CpuEngine<E> {
    fn new(layout: &Layout, size: (usize, usize), weights: Weights, isa: Isa) -> CpuEngine<E> {
        CpuEngine {
            memory: HostMemory::new(layout, size, weights),
            trunk: Trunk::new(layout, size, isa),
            tangent: Vec::new(),
            frozen: None,
        }
    }
}

/// Bytes of the CPU engine's buffers for training on `n` images of (height, width) at once, of which `moved`
/// are moved by VAT, and of the images. Weights and the threads' scratch are not counted.
pub fn training_bytes(
    layout: &Layout,
    size: (usize, usize),
    precision: Precision,
    (n, moved): (usize, usize),
) -> usize {
    let isa = Isa::best();
    // The directions, and the moved images.
    let moves = 2 * moved * size.0 * size.1 * layout.stem.inputs * size_of::<f32>();
    moves
        + match precision {
            Precision::F32 => Trunk::<f32>::new(layout, size, isa).bytes((n, moved)),
            Precision::Bf16 if isa.has_pairs() => {
                Trunk::<Native>::new(layout, size, isa).bytes((n, moved))
            }
            Precision::Bf16 => Trunk::<bf16>::new(layout, size, isa).bytes((n, moved)),
        }
}

impl<E: Element> Engine for CpuEngine<E> {
    fn join(&mut self, ranks: Ranks, sync_batch_norm: bool) -> Result<()> {
        self.memory.join(ranks, sync_batch_norm);
        Ok(())
    }

    fn most_bytes(&self) -> Result<Option<usize>> {
        Ok(None)
    }

    fn put(&mut self, weights: Weights) -> Result<()> {
        self.memory.put(weights);
        Ok(())
    }

    fn get(&self) -> Result<Weights> {
        Ok(self.memory.weights.clone())
    }

    fn images(&mut self, images: &mut Vec<f32>) {
        self.memory.images(images);
    }

    fn direction(&mut self, direction: Vec<f32>, every: usize) {
        self.memory.direction(direction, every);
    }

    fn along(&mut self, length: f64) {
        self.memory.along(length);
    }

    fn forward(&mut self, pass: Pass) -> Result<Vec<Vec<f32>>> {
        self.frozen = None;
        let (features, tangent) = self.trunk.forward(self.memory.forward(pass))?;
        self.tangent = tangent;
        self.memory.average_moving()?;
        self.memory.logits(features)
    }

    fn tangents(&mut self) -> Result<Vec<Vec<f32>>> {
        self.memory.tangents(&self.tangent)
    }

    fn backward(&mut self, logits: &[Option<Vec<f32>>], last: bool) -> Result<()> {
        self.trunk.backward(self.memory.backward(logits, last)?)
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        self.memory.update(update)
    }

    fn prepare(&mut self) -> Result<()> {
        let Weights { parameters, moving, .. } = &self.memory.weights;
        // The old buffers are freed first.
        self.frozen = None;
        let isa = self.trunk.workers.isa;
        self.frozen = Some(Frozen::new(&self.trunk.layers, isa, parameters, moving)?);
        Ok(())
    }

    fn infer(&mut self, images: &[f32], head: usize) -> Result<Vec<f32>> {
        let Some(frozen) = &self.frozen else {
            return Err(Error::Internal("inference without weights".into()));
        };
        let features = frozen.run(&self.trunk.layers, images)?;
        self.memory.infer(features, head)
    }

    fn read(&self, inner: Inner) -> Result<Vec<f32>> {
        Ok(self.memory.read(inner))
    }
}
