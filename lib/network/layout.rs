//! ResNet-v2 with bottleneck units (reference models/resnet.py) as a list of layers over one flat
//! parameter vector: trunk first, then heads.

use crate::rng::{RngExt, Stream, rng};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The first layers of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Stem {
    /// 7x7 stride 2, then 3x3 stride-2 max pool over zero padding: for 224 x 224.
    Imagenet,
    /// 3x3 stride 1: for small images.
    Small,
    /// 3x3 stride 2: small images at a quarter of the work.
    SmallStride2,
}

/// What fixes the network: two equal architectures have the same parameter vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Architecture {
    pub channels: usize,
    /// Bottleneck units of each block.
    pub units: Vec<usize>,
    /// Base width is 16 times this.
    pub width_factor: usize,
    pub stem: Stem,
    /// Name and outputs of each head.
    pub heads: Vec<(String, usize)>,
}

/// Values of the largest kernels of a network with this many blocks, the 3x3 kernels of the last block;
/// `None` if the number overflows.
pub fn largest_kernel(blocks: usize, width_factor: usize) -> Option<usize> {
    let widest = 1usize.checked_shl(blocks.try_into().ok()?)?;
    let widest = widest.checked_mul(8)?.checked_mul(width_factor)?;
    widest.checked_mul(widest)?.checked_mul(9)
}

/// A convolution without bias, zero-padded by `kernel / 2` on each side. The kernel is
/// `[kernel, kernel, inputs, outputs]` in the parameter vector.
#[derive(Debug, Clone)]
pub struct Conv {
    pub name: String,
    pub kernel: usize,
    pub stride: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub offset: usize,
}

impl Conv {
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.kernel * self.kernel * self.inputs * self.outputs
    }

    /// Output rows (or columns) for `size` input rows.
    pub fn output(&self, size: usize) -> usize {
        (size + 2 * (self.kernel / 2) - self.kernel) / self.stride + 1
    }
}

/// A batch norm: gamma then beta at `offset` of the parameters, moving mean then moving variance
/// at `moving` of the moving statistics.
#[derive(Debug, Clone)]
pub struct Norm {
    pub name: String,
    pub channels: usize,
    pub offset: usize,
    pub moving: usize,
}

impl Norm {
    pub fn gamma(&self) -> Range<usize> {
        self.offset..self.offset + self.channels
    }

    pub fn beta(&self) -> Range<usize> {
        self.offset + self.channels..self.offset + 2 * self.channels
    }

    pub fn mean(&self) -> Range<usize> {
        self.moving..self.moving + self.channels
    }

    pub fn variance(&self) -> Range<usize> {
        self.moving + self.channels..self.moving + 2 * self.channels
    }
}

/// A pre-activation bottleneck unit: 1x1, 3x3 (with the stride), 1x1.
#[derive(Debug, Clone)]
pub struct Unit {
    pub norms: [Norm; 3],
    pub convs: [Conv; 3],
    /// 1x1 projection of relu(norm(x)) if stride or channels change.
    pub shortcut: Option<Conv>,
}

/// A linear layer on the pre-logits: kernel `[features, outputs]`, then bias `[outputs]`.
#[derive(Debug, Clone)]
pub struct Head {
    pub name: String,
    pub outputs: usize,
    pub offset: usize,
}

/// Every layer with its place in the parameter vector.
#[derive(Debug, Clone)]
pub struct Layout {
    pub stem: Conv,
    /// 3x3 stride-2 max pool over zero padding after the stem.
    pub pool: bool,
    pub units: Vec<Unit>,
    pub norm: Norm,
    pub heads: Vec<Head>,
    /// Dimensions of the pre-logits.
    pub features: usize,
    /// Length of the parameter vector up to the heads.
    pub trunk_parameters: usize,
    pub parameters: usize,
    /// Length of the vector of moving statistics.
    pub moving: usize,
}

/// Hands out consecutive places of the parameter vector.
#[derive(Default)]
struct Allocator {
    parameters: usize,
    moving: usize,
}

impl Allocator {
    fn conv(&mut self, name: String, k: usize, stride: usize, io: (usize, usize)) -> Conv {
        let conv =
            Conv { name, kernel: k, stride, inputs: io.0, outputs: io.1, offset: self.parameters };
        self.parameters = conv.range().end;
        conv
    }

    fn norm(&mut self, name: String, channels: usize) -> Norm {
        let norm = Norm { name, channels, offset: self.parameters, moving: self.moving };
        self.parameters += 2 * channels;
        self.moving += 2 * channels;
        norm
    }
}

impl Layout {
    /// Rows (or columns) of the last unit's output for images of `size` of them.
    pub fn last_side(&self, size: usize) -> usize {
        let stem = self.stem.output(size);
        let first = if self.pool { stem.div_ceil(2) } else { stem };
        self.units.iter().fold(first, |size, unit| unit.convs[1].output(size))
    }

    pub fn new(a: &Architecture) -> Layout {
        let mut at = Allocator::default();
        let base = 16 * a.width_factor;
        let (kernel, stride, pool) = match a.stem {
            Stem::Imagenet => (7, 2, true),
            Stem::Small => (3, 1, false),
            Stem::SmallStride2 => (3, 2, false),
        };
        let stem = at.conv("stem.conv".into(), kernel, stride, (a.channels, base));
        let mut units = Vec::new();
        let mut inputs = base;
        for (block, &count) in a.units.iter().enumerate() {
            let middle = base << block;
            let outputs = 4 * middle;
            for unit in 0..count {
                let stride = if block > 0 && unit == 0 { 2 } else { 1 };
                let name = |part: &str| format!("blocks.{block}.{unit}.{part}");
                let norm1 = at.norm(name("norm1"), inputs);
                let shortcut = (stride > 1 || inputs != outputs)
                    .then(|| at.conv(name("shortcut"), 1, stride, (inputs, outputs)));
                let conv1 = at.conv(name("conv1"), 1, 1, (inputs, middle));
                let norm2 = at.norm(name("norm2"), middle);
                let conv2 = at.conv(name("conv2"), 3, stride, (middle, middle));
                let norm3 = at.norm(name("norm3"), middle);
                let conv3 = at.conv(name("conv3"), 1, 1, (middle, outputs));
                units.push(Unit {
                    norms: [norm1, norm2, norm3],
                    convs: [conv1, conv2, conv3],
                    shortcut,
                });
                inputs = outputs;
            }
        }
        let norm = at.norm("norm".into(), inputs);
        let trunk_parameters = at.parameters;
        let heads = a
            .heads
            .iter()
            .map(|(name, outputs)| {
                let head = Head { name: name.clone(), outputs: *outputs, offset: at.parameters };
                at.parameters += (inputs + 1) * outputs;
                head
            })
            .collect();
        Layout {
            stem,
            pool,
            units,
            norm,
            heads,
            features: inputs,
            trunk_parameters,
            parameters: at.parameters,
            moving: at.moving,
        }
    }

    /// All convolutions in the order of the parameter vector.
    pub fn convs(&self) -> impl Iterator<Item = &Conv> {
        std::iter::once(&self.stem)
            .chain(self.units.iter().flat_map(|u| u.shortcut.iter().chain(&u.convs)))
    }

    pub fn norms(&self) -> impl Iterator<Item = &Norm> {
        self.units.iter().flat_map(|u| &u.norms).chain(std::iter::once(&self.norm))
    }

    /// Parameters under weight decay: convolution and head kernels, no biases, no batch norm.
    pub fn decayed(&self) -> Vec<Range<usize>> {
        let heads = self.heads.iter().map(|h| self.head_kernel(h));
        self.convs().map(Conv::range).chain(heads).collect()
    }

    pub fn head_kernel(&self, head: &Head) -> Range<usize> {
        head.offset..head.offset + self.features * head.outputs
    }

    pub fn head_bias(&self, head: &Head) -> Range<usize> {
        let end = self.head_kernel(head).end;
        end..end + head.outputs
    }

    pub fn head(&self, name: &str) -> Option<&Head> {
        self.heads.iter().find(|h| h.name == name)
    }

    /// Name, shape and place of every tensor of the parameter vector.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>, Range<usize>)> {
        let mut all = Vec::new();
        for c in self.convs() {
            let shape = vec![c.kernel, c.kernel, c.inputs, c.outputs];
            all.push((format!("{}.kernel", c.name), shape, c.range()));
        }
        for n in self.norms() {
            all.push((format!("{}.gamma", n.name), vec![n.channels], n.gamma()));
            all.push((format!("{}.beta", n.name), vec![n.channels], n.beta()));
        }
        for h in &self.heads {
            let shape = vec![self.features, h.outputs];
            all.push((format!("heads.{}.kernel", h.name), shape, self.head_kernel(h)));
            all.push((format!("heads.{}.bias", h.name), vec![h.outputs], self.head_bias(h)));
        }
        all
    }

    /// Name, length and place of every tensor of the moving statistics.
    pub fn moving_tensors(&self) -> Vec<(String, usize, Range<usize>)> {
        self.norms()
            .flat_map(|n| {
                [
                    (format!("{}.moving_mean", n.name), n.channels, n.mean()),
                    (format!("{}.moving_variance", n.name), n.channels, n.variance()),
                ]
            })
            .collect()
    }

    /// Initial parameters: Glorot-uniform kernels, gamma 1, all else 0 (TensorFlow's defaults).
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut p = vec![0.0; self.parameters];
        let mut fill = |index: usize, range: Range<usize>, fans: usize| {
            let limit = (6.0 / fans as f64).sqrt() as f32;
            let mut rng = rng(seed, Stream::Init, 0, index as u64);
            for w in &mut p[range] {
                *w = (rng.random::<f32>() * 2.0 - 1.0) * limit;
            }
        };
        for (i, c) in self.convs().enumerate() {
            let fans = c.kernel * c.kernel * (c.inputs + c.outputs);
            fill(i, c.range(), fans);
        }
        let convs = self.convs().count();
        for (i, h) in self.heads.iter().enumerate() {
            fill(convs + i, self.head_kernel(h), self.features + h.outputs);
        }
        for n in self.norms() {
            p[n.gamma()].fill(1.0);
        }
        p
    }

    /// Initial moving statistics: mean 0, variance 1.
    pub fn initial_moving(&self) -> Vec<f32> {
        let mut m = vec![0.0; self.moving];
        for n in self.norms() {
            m[n.variance()].fill(1.0);
        }
        m
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(width_factor: usize, heads: &[(&str, usize)]) -> usize {
        Layout::new(&Architecture {
            channels: 3,
            units: vec![3, 4, 6, 3],
            width_factor,
            stem: Stem::Imagenet,
            heads: heads.iter().map(|(n, o)| (n.to_string(), *o)).collect(),
        })
        .parameters
    }

    #[test]
    fn parameter_counts_are_the_references() {
        let classes = ("classes", 1000);
        let rotations = ("rotations", 4);
        assert_eq!(parameters(4, &[classes]), 25_549_352);
        assert_eq!(parameters(4, &[classes, rotations]), 25_557_548);
        assert_eq!(parameters(4, &[classes, ("embeddings", 1000)]), 27_598_352);
        assert_eq!(parameters(8, &[classes, rotations]), 98_005_100);
        assert_eq!(parameters(16, &[classes, rotations]), 383_573_228);
    }
}
