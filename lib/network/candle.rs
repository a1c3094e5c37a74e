//! The trunk in plain candle operations: runs on any candle device, and is the oracle of the tests.

use super::engine::{BATCH_NORM_EPSILON, Gradients, Pass, Trunk};
use super::layout::{Conv, Layout, Norm};
use crate::error::{Error, Result};
use candle_core::{D, DType, Device, Tensor, Var};

/// See the module.
pub struct CandleTrunk {
    layout: Layout,
    size: (usize, usize),
    device: Device,
    dtype: DType,
    tape: Option<Tape>,
    /// Parameters and moving statistics to infer with.
    prepared: Option<(Tensor, Tensor)>,
}

/// The last forward pass.
struct Tape {
    images: Var,
    parameters: Var,
    features: Tensor,
}

impl CandleTrunk {
    pub fn new(
        layout: &Layout,
        height: usize,
        width: usize,
        device: Device,
        dtype: DType,
    ) -> CandleTrunk {
        CandleTrunk {
            layout: layout.clone(),
            size: (height, width),
            device,
            dtype,
            tape: None,
            prepared: None,
        }
    }

    fn images(&self, images: &[f32]) -> candle_core::Result<Tensor> {
        let channels = self.layout.stem.inputs;
        let n = images.len() / (self.size.0 * self.size.1 * channels);
        let shape = (n, self.size.0, self.size.1, channels);
        Tensor::from_slice(images, shape, &self.device)?.to_dtype(self.dtype)
    }

    fn vector(&self, values: &[f32]) -> candle_core::Result<Tensor> {
        Tensor::from_slice(values, values.len(), &self.device)?.to_dtype(self.dtype)
    }

    /// Pre-logits `[n, features]` of images `[n, height, width, channels]`, and the batch mean and
    /// variance of each norm, concatenated like the moving statistics.
    pub fn graph(
        &self,
        parameters: &Tensor,
        images: &Tensor,
        moving: Option<&Tensor>,
    ) -> candle_core::Result<(Tensor, Vec<Tensor>)> {
        let l = &self.layout;
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
            // candle's backward pass of a strided convolution takes height and width for alike.
            if h % c.stride == w % c.stride {
                return x.conv2d(&kernel, c.kernel / 2, c.stride, 1, 1);
            }
            every(&x.conv2d(&kernel, c.kernel / 2, 1, 1, 1)?, c.stride, (0, 0), (h, w))
        };
        let mut x = conv(&images.permute((0, 3, 1, 2))?.contiguous()?, &l.stem)?;
        if l.pool {
            x = max_pool(&x)?;
        }
        for u in &l.units {
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
        let x = norm_relu(&x, &l.norm)?;
        Ok((x.flatten_from(2)?.mean(D::Minus1)?, statistics))
    }
}

fn slice(x: &Tensor, range: std::ops::Range<usize>) -> candle_core::Result<Tensor> {
    x.narrow(0, range.start, range.len())
}

fn per_channel(x: &Tensor) -> candle_core::Result<Tensor> {
    x.reshape((1, x.elem_count(), 1, 1))
}

/// Every `stride`-th row and column from `first` on, `size / stride` of them, rounded up.
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

/// 3x3 stride-2 max over zero padding of 1, as the maximum of nine shifted grids: candle's own max
/// pool has no backward pass where kernel and stride differ.
fn max_pool(x: &Tensor) -> candle_core::Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let padded = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
    let mut best = every(&padded, 2, (0, 0), (h, w))?;
    for t in 1..9 {
        best = best.maximum(&every(&padded, 2, (t / 3, t % 3), (h, w))?)?;
    }
    Ok(best)
}

impl Trunk for CandleTrunk {
    fn forward(
        &mut self,
        parameters: &[f32],
        moving: &mut [f32],
        images: &[f32],
        pass: Pass,
    ) -> Result<Vec<f32>> {
        let trunk = &parameters[..self.layout.trunk_parameters];
        let images = Var::from_tensor(&self.images(images)?)?;
        let parameters = Var::from_tensor(&self.vector(trunk)?)?;
        let (features, statistics) = self.graph(&parameters, &images, None)?;
        if let Pass::Train { keep } = pass {
            let keep = f64::from(keep);
            let batch = Tensor::cat(&statistics, 0)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            for (m, b) in moving.iter_mut().zip(batch) {
                *m = (keep * f64::from(*m) + (1.0 - keep) * b) as f32;
            }
        }
        let out = features.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        self.tape = Some(Tape { images, parameters, features });
        Ok(out)
    }

    fn backward(&mut self, _: &[f32], features: &[f32], wanted: Gradients) -> Result<()> {
        let Some(tape) = self.tape.take() else {
            return Err(Error::Internal("backward before forward".into()));
        };
        let up = Tensor::from_slice(features, tape.features.shape(), &self.device)?
            .to_dtype(self.dtype)?;
        let gradients = (tape.features * up)?.sum_all()?.backward()?;
        let add = |out: &mut [f32], var: &Var| -> Result<()> {
            if let Some(g) = gradients.get(var) {
                let g = g.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                for (o, g) in out.iter_mut().zip(g) {
                    *o += g;
                }
            }
            Ok(())
        };
        if let Some(out) = wanted.parameters {
            add(out, &tape.parameters)?;
        }
        if let Some(out) = wanted.images {
            out.fill(0.0);
            add(out, &tape.images)?;
        }
        Ok(())
    }

    fn prepare(&mut self, parameters: &[f32], moving: &[f32]) -> Result<()> {
        let trunk = &parameters[..self.layout.trunk_parameters];
        self.prepared = Some((self.vector(trunk)?, self.vector(moving)?));
        Ok(())
    }

    fn infer(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        let Some((parameters, moving)) = &self.prepared else {
            return Err(Error::Internal("inference without weights".into()));
        };
        let (features, _) = self.graph(parameters, &self.images(images)?, Some(moving))?;
        Ok(features.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }
}
