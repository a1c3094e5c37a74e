//! The network's layers as the GPU computes them: shapes, and places in its vectors.

use super::kernels::LANE;
use super::launches::{NORM_VECTORS, Rows, Weights};
use super::runtime::Convolution;
use crate::network::buffers::{Sizes, Slots, UnitSizes};
use crate::network::engine::Precision;
use crate::network::layout::{Conv, Layout, Norm, Unit};

/// Values of which buffers are a multiple for each image, so that they are aligned to 256 bytes.
const ALIGNED: usize = 128;

/// A convolution of images of one size.
pub struct ConvLayer {
    /// Its kernel's place in the parameter vector, and its shapes.
    pub parameters: usize,
    pub weights: Weights,
    /// Place of its kernel in the stored weights.
    pub stored: usize,
    stride: usize,
    kernel: usize,
    /// Of its input: height and width.
    size: (usize, usize),
}

/// A batch norm over images of one size.
pub struct NormLayer {
    pub norm: Norm,
    /// Place of its vectors among those of all norms.
    pub vectors: usize,
    /// Pixels of an image.
    pub pixels: usize,
}

/// A bottleneck unit.
pub struct UnitLayers {
    pub norms: [NormLayer; 3],
    pub convs: [ConvLayer; 3],
    pub shortcut: Option<ConvLayer>,
}

/// All layers, for images of one size.
pub struct Layers {
    pub layout: Layout,
    pub stem: ConvLayer,
    pub units: Vec<UnitLayers>,
    pub norm: NormLayer,
    /// Without and with places for tangents.
    pub slots: [Slots; 2],
    /// Pixels of an image, and values of it in host memory.
    pub image_pixels: usize,
    pub image_values: usize,
    /// Length of the stored weights, and of the vectors of all norms.
    pub stored: usize,
    pub norm_values: usize,
    /// Values of an image: of the largest input of a convolution behind a norm; of the largest input or output
    /// of a shortcut's convolution; of the first unit's input.
    pub activation: usize,
    pub residual: usize,
    pub y0: usize,
    /// The most that kernels count of an image: values of it, or groups of 8 values or pixels of a layer.
    most_counted: usize,
}

/// Hands out places in the stored weights and in the vectors of norms.
#[derive(Default)]
struct Places {
    stored: usize,
    vectors: usize,
}

impl Places {
    /// For input of (height, width).
    fn conv(&mut self, conv: &Conv, size: (usize, usize)) -> ConvLayer {
        let weights = Weights {
            taps: conv.kernel * conv.kernel,
            inputs: conv.inputs,
            padded: conv.inputs.next_multiple_of(LANE),
            outputs: conv.outputs,
        };
        let stored = self.stored;
        self.stored += weights.values().next_multiple_of(ALIGNED);
        let (stride, kernel) = (conv.stride, conv.kernel);
        ConvLayer { parameters: conv.offset, weights, stored, stride, kernel, size }
    }

    fn norm(&mut self, norm: &Norm, pixels: usize) -> NormLayer {
        let vectors = self.vectors;
        self.vectors += NORM_VECTORS * norm.channels;
        NormLayer { norm: norm.clone(), vectors, pixels }
    }

    fn unit(&mut self, unit: &Unit, size: (usize, usize)) -> UnitLayers {
        let [c1, c2, c3] = &unit.convs;
        let output = (c2.output(size.0), c2.output(size.1));
        let [inner, outer] = [size, output].map(|(height, width)| height * width);
        let [n1, n2, n3] = &unit.norms;
        UnitLayers {
            norms: [self.norm(n1, inner), self.norm(n2, inner), self.norm(n3, outer)],
            convs: [self.conv(c1, size), self.conv(c2, size), self.conv(c3, output)],
            shortcut: unit.shortcut.as_ref().map(|conv| self.conv(conv, size)),
        }
    }
}

impl ConvLayer {
    /// For `n` images.
    pub fn shape(&self, n: usize, precision: Precision) -> Convolution {
        Convolution {
            n,
            height: self.size.0,
            width: self.size.1,
            channels: self.weights.padded,
            outputs: self.weights.outputs,
            kernel: self.kernel,
            stride: self.stride,
            precision,
        }
    }

    /// Height and width of its output.
    pub fn output(&self) -> (usize, usize) {
        let shape = self.shape(1, Precision::F32);
        (shape.output(self.size.0), shape.output(self.size.1))
    }

    fn input_values(&self) -> usize {
        self.size.0 * self.size.1 * self.weights.padded
    }

    fn output_values(&self) -> usize {
        let (height, width) = self.output();
        height * width * self.weights.outputs
    }
}

impl NormLayer {
    /// Of `n` images.
    pub fn rows(&self, n: usize) -> Rows {
        Rows { rows: n * self.pixels, channels: self.norm.channels }
    }
}

impl UnitLayers {
    fn sizes(&self) -> UnitSizes {
        let [z1, z2, y] = [0, 1, 2].map(|i| aligned(self.convs[i].output_values()));
        UnitSizes { z1, z2, y, projects: self.shortcut.is_some() }
    }
}

fn aligned(values: usize) -> usize {
    values.next_multiple_of(ALIGNED)
}

impl Layers {
    /// For images of (height, width).
    pub fn new(layout: &Layout, size: (usize, usize)) -> Layers {
        let mut places = Places::default();
        let stem = places.conv(&layout.stem, size);
        let of_stem = stem.output();
        let mut size_now = match layout.pool {
            true => (of_stem.0.div_ceil(2), of_stem.1.div_ceil(2)),
            false => of_stem,
        };
        let y0 = aligned(size_now.0 * size_now.1 * layout.stem.outputs);
        let units = layout.units.iter().map(|unit| {
            let layers = places.unit(unit, size_now);
            size_now = layers.convs[1].output();
            layers
        });
        let units: Vec<UnitLayers> = units.collect();
        let sizes = Sizes {
            stem: if layout.pool { aligned(stem.output_values()) } else { 0 },
            y0,
            units: units.iter().map(UnitLayers::sizes).collect(),
        };
        let outputs = std::iter::once(&stem).chain(units.iter().flat_map(|u| &u.convs));
        let most_values = outputs.map(ConvLayer::output_values).max().unwrap_or(0);
        let behind_norms = units.iter().flat_map(|u| &u.convs).map(ConvLayer::input_values);
        let shortcuts = units.iter().filter_map(|u| u.shortcut.as_ref());
        let residuals = shortcuts.map(|c| c.input_values().max(c.output_values()));
        Layers {
            norm: places.norm(&layout.norm, size_now.0 * size_now.1),
            slots: Slots::without_and_with_tangents(&sizes),
            image_pixels: size.0 * size.1,
            image_values: size.0 * size.1 * layout.stem.inputs,
            stored: places.stored,
            norm_values: places.vectors,
            activation: aligned(behind_norms.max().unwrap_or(0)),
            residual: aligned(residuals.max().unwrap_or(0)),
            y0,
            most_counted: (size.0 * size.1 * layout.stem.inputs).max(most_values / LANE),
            layout: layout.clone(),
            stem,
            units,
        }
    }

    /// All convolutions.
    pub fn convs(&self) -> impl Iterator<Item = &ConvLayer> {
        let of_units = self.units.iter().flat_map(|u| u.shortcut.iter().chain(&u.convs));
        std::iter::once(&self.stem).chain(of_units)
    }

    /// All norms.
    pub fn norms(&self) -> impl Iterator<Item = &NormLayer> {
        self.units.iter().flat_map(|u| &u.norms).chain([&self.norm])
    }

    /// The most images whose parts kernels can count.
    pub fn most_images(&self) -> usize {
        i32::MAX as usize / self.most_counted
    }
}
