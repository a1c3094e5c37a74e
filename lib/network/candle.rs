//! The engine in plain candle operations: the reference of the tests, in float64 too. No program trains on it.

use super::engine::{BATCH_NORM_EPSILON, Engine, Inner, Pass};
use super::host::{HostMemory, TrunkBackward, TrunkForward, Wanted};
use super::layout::{Conv, Layout, Norm};
use super::update::Update;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use candle_core::{D, DType, Device, Tensor, Var};

/// See the module. The trunk computes on the device; weights, heads and optimizer are the host's.
pub struct CandleEngine {
    layout: Layout,
    memory: HostMemory,
    upload: Upload,
    tape: Option<Tape>,
    /// Of the last pre-logits.
    tangent: Vec<f32>,
    /// Parameters and moving statistics for inference.
    prepared: Option<(Tensor, Tensor)>,
}

/// How host values become tensors.
struct Upload {
    /// Of one image: height, width, channels.
    shape: (usize, usize, usize),
    device: Device,
    dtype: DType,
}

/// The last forward pass.
struct Tape {
    images: Var,
    parameters: Var,
    features: Tensor,
}

impl Upload {
    fn images(&self, images: &[f32]) -> candle_core::Result<Tensor> {
        let (h, w, c) = self.shape;
        let shape = (images.len() / (h * w * c), h, w, c);
        Tensor::from_slice(images, shape, &self.device)?.to_dtype(self.dtype)
    }

    fn vector(&self, values: &[f32]) -> candle_core::Result<Tensor> {
        Tensor::from_slice(values, values.len(), &self.device)?.to_dtype(self.dtype)
    }
}

impl CandleEngine {
    /// For images of (height, width), computing in `dtype`.
    pub fn new(
        layout: &Layout,
        (height, width): (usize, usize),
        weights: Weights,
        device: Device,
        dtype: DType,
    ) -> CandleEngine {
        CandleEngine {
            layout: layout.clone(),
            memory: HostMemory::new(layout, (height, width), weights),
            upload: Upload { shape: (height, width, layout.stem.inputs), device, dtype },
            tape: None,
            tangent: Vec::new(),
            prepared: None,
        }
    }
}

impl Engine for CandleEngine {
    fn join(&mut self, ranks: Ranks, _: bool) -> Result<()> {
        match ranks.size() {
            1 => Ok(()),
            _ => Err(Error::Usage("several ranks train with --device cpu only".into())),
        }
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
        let TrunkForward { parameters, images, direction, moving, .. } = self.memory.forward(pass);
        let images = Var::from_tensor(&self.upload.images(images)?)?;
        let parameters = &parameters[..self.layout.trunk_parameters];
        let parameters = Var::from_tensor(&self.upload.vector(parameters)?)?;
        let (features, statistics) = graph(&self.layout, &parameters, &images, None)?;
        self.tangent = match direction {
            Some(direction) => {
                let direction = self.upload.images(direction)?;
                singles(&tangent(&self.layout, &parameters, &images, &direction)?)?
            }
            None => Vec::new(),
        };
        if let Some(moving) = moving {
            let keep = f64::from(moving.keep);
            let batch = Tensor::cat(&statistics, 0)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            for (m, b) in moving.statistics.iter_mut().zip(batch) {
                *m = (keep * f64::from(*m) + (1.0 - keep) * b) as f32;
            }
        }
        let values = singles(&features)?;
        self.tape = Some(Tape { images, parameters, features });
        self.memory.logits(values)
    }

    fn tangents(&mut self) -> Result<Vec<Vec<f32>>> {
        self.memory.tangents(&self.tangent)
    }

    fn backward(&mut self, logits: &[Option<Vec<f32>>], last: bool) -> Result<()> {
        let Some(tape) = self.tape.take() else {
            return Err(Error::Internal("backward before forward".into()));
        };
        let TrunkBackward { features, wanted, .. } = self.memory.backward(logits, last)?;
        let upstream = self.upload.vector(&features)?.reshape(tape.features.shape())?;
        let gradients = (tape.features * upstream)?.sum_all()?.backward()?;
        let (out, var) = match wanted {
            Wanted::Parameters(out, _) => (out, tape.parameters),
            Wanted::Images(out) => {
                out.fill(0.0);
                (out, tape.images)
            }
        };
        if let Some(gradient) = gradients.get(&var) {
            for (o, g) in out.iter_mut().zip(singles(gradient)?) {
                *o += g;
            }
        }
        Ok(())
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        self.memory.update(update)
    }

    fn prepare(&mut self) -> Result<()> {
        let weights = &self.memory.weights;
        let parameters = self.upload.vector(&weights.parameters)?;
        self.prepared = Some((parameters, self.upload.vector(&weights.moving)?));
        Ok(())
    }

    fn infer(&mut self, images: &[f32], head: usize) -> Result<Vec<f32>> {
        let Some((parameters, moving)) = &self.prepared else {
            return Err(Error::Internal("inference without weights".into()));
        };
        let images = self.upload.images(images)?;
        let (features, _) = graph(&self.layout, parameters, &images, Some(moving))?;
        self.memory.infer(singles(&features)?, head)
    }

    fn read(&self, inner: Inner) -> Result<Vec<f32>> {
        Ok(self.memory.read(inner))
    }
}

/// The values of a tensor in float32.
fn singles(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// The tangent of the pre-logits, as a difference along the direction, to both sides. It needs float64.
fn tangent(
    layout: &Layout,
    parameters: &Tensor,
    images: &Tensor,
    direction: &Tensor,
) -> candle_core::Result<Tensor> {
    const STEP: f64 = 1e-6;
    let at = |step: f64| graph(layout, parameters, &(images + (direction * step)?)?, None);
    (at(STEP)?.0 - at(-STEP)?.0)? / (2.0 * STEP)
}

/// Pre-logits `[n, features]` of images `[n, height, width, channels]`, and the batch mean and variance of
/// each norm, concatenated in the order of the moving statistics.
pub fn graph(
    layout: &Layout,
    parameters: &Tensor,
    images: &Tensor,
    moving: Option<&Tensor>,
) -> candle_core::Result<(Tensor, Vec<Tensor>)> {
    let mut statistics = Vec::new();
    let mut norm_relu = |x: &Tensor, n: &Norm| -> candle_core::Result<Tensor> {
        let (mean, variance) = match moving {
            Some(m) => (slice(m, n.mean())?, slice(m, n.variance())?),
            None => {
                let mean = x.mean((0, 2, 3))?;
                let centred = x.broadcast_sub(&per_channel(&mean)?)?;
                let variance = centred.sqr()?.mean((0, 2, 3))?;
                let count = (x.elem_count() / n.channels) as f64;
                statistics.push(mean.detach());
                statistics.push((variance.detach() * (count / (count - 1.0).max(1.0)))?);
                (mean, variance)
            }
        };
        let gamma = slice(parameters, n.gamma())?;
        let beta = slice(parameters, n.beta())?;
        let scale = (gamma / (variance + BATCH_NORM_EPSILON)?.sqrt()?)?;
        x.broadcast_sub(&per_channel(&mean)?)?
            .broadcast_mul(&per_channel(&scale)?)?
            .broadcast_add(&per_channel(&beta)?)?
            .relu()
    };
    let conv = |x: &Tensor, c: &Conv| -> candle_core::Result<Tensor> {
        let kernel = slice(parameters, c.range())?
            .reshape((c.kernel, c.kernel, c.inputs, c.outputs))?
            .permute((3, 2, 0, 1))?
            .contiguous()?;
        let (_, _, h, w) = x.dims4()?;
        // candle's backward pass of a strided convolution assumes that height and width are equal.
        if h % c.stride == w % c.stride {
            return x.conv2d(&kernel, c.kernel / 2, c.stride, 1, 1);
        }
        every(&x.conv2d(&kernel, c.kernel / 2, 1, 1, 1)?, c.stride, (0, 0), (h, w))
    };
    let mut x = conv(&images.permute((0, 3, 1, 2))?.contiguous()?, &layout.stem)?;
    if layout.pool {
        x = max_pool(&x)?;
    }
    for u in &layout.units {
        let [n1, n2, n3] = &u.norms;
        let [c1, c2, c3] = &u.convs;
        let h = norm_relu(&x, n1)?;
        let shortcut = match &u.shortcut {
            Some(c) => conv(&h, c)?,
            None => x,
        };
        let h = norm_relu(&conv(&h, c1)?, n2)?;
        let h = norm_relu(&conv(&h, c2)?, n3)?;
        x = (conv(&h, c3)? + shortcut)?;
    }
    let x = norm_relu(&x, &layout.norm)?;
    Ok((x.flatten_from(2)?.mean(D::Minus1)?, statistics))
}

fn slice(x: &Tensor, range: std::ops::Range<usize>) -> candle_core::Result<Tensor> {
    x.narrow(0, range.start, range.len())
}

fn per_channel(x: &Tensor) -> candle_core::Result<Tensor> {
    x.reshape((1, x.elem_count(), 1, 1))
}

/// Every `stride`-th row and column from `first` on: `size / stride` of them, rounded up.
fn every(
    x: &Tensor,
    stride: usize,
    first: (usize, usize),
    size: (usize, usize),
) -> candle_core::Result<Tensor> {
    let grid = |first: usize, size: usize| -> candle_core::Result<Tensor> {
        let at = (0..size.div_ceil(stride)).map(|i| (stride * i + first) as u32);
        Tensor::new(at.collect::<Vec<u32>>(), x.device())
    };
    x.index_select(&grid(first.0, size.0)?, 2)?.index_select(&grid(first.1, size.1)?, 3)
}

/// 3x3 stride-2 max over zero padding of 1, as the maximum of nine shifted grids: candle's own max pool has
/// no backward pass if kernel and stride differ.
fn max_pool(x: &Tensor) -> candle_core::Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let padded = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
    let mut best = every(&padded, 2, (0, 0), (h, w))?;
    for t in 1..9 {
        best = best.maximum(&every(&padded, 2, (t / 3, t % 3), (h, w))?)?;
    }
    Ok(best)
}
