//! The trunk's way forward: images → pre-logits. Only the outputs of convolutions stay; what a convolution
//! reads, relu(norm(z)), is made just before it in a place that all of them share.

use super::launches::Launches;
use super::layers::{ConvLayer, Layers, NormLayer, UnitLayers};
use super::room::Room;
use super::runtime::{Address, Operands, Products};
use super::vectors::DeviceWeights;
use crate::error::Result;
use crate::network::layout::Norm;

/// By which statistics batch norms normalize.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistics {
    /// Those of the batch.
    Batch,
    /// Those of the batch; the moving ones follow and keep this share of themselves.
    Moved { keep: f32 },
    /// The moving ones.
    Moving,
}

/// One pass over the images of a room.
#[derive(Clone, Copy)]
pub struct Trunk<'a> {
    pub launches: Launches<'a>,
    pub layers: &'a Layers,
    pub weights: &'a DeviceWeights,
    pub room: &'a Room,
}

impl Trunk<'_> {
    /// From images `[n, height, width, channels]` in float32 to `Room::features`. With a direction of each image,
    /// of length 1 or 0, the tangent along it to `Room::features_tangent`.
    pub fn forward(
        &self,
        images: Address,
        direction: Option<Address>,
        statistics: Statistics,
    ) -> Result<()> {
        let Trunk { launches, layers, room, .. } = *self;
        self.images_in(images)?;
        self.stem()?;
        self.normalize(self.norm_of_output(None), room.input(layers, 0), None, statistics)?;
        if let Some(direction) = direction {
            self.stem_tangent(direction)?;
        }
        for (i, unit) in layers.units.iter().enumerate() {
            self.unit(i, unit, statistics)?;
            if direction.is_some() {
                self.unit_tangent(i, unit)?;
            }
        }
        let (norm, y) = (&layers.norm, room.input(layers, layers.units.len()));
        let (vectors, rows) = (self.vectors(norm), norm.rows(room.n));
        if direction.is_some() {
            self.features_tangent()?;
        }
        launches.mean_pixels(y, vectors, room.features, norm.pixels, rows)
    }

    /// Images in float32 to `Room::images`.
    pub fn images_in(&self, images: Address) -> Result<()> {
        let Trunk { launches, layers, room, .. } = *self;
        let channels = (layers.stem.weights.inputs, layers.stem.weights.padded);
        launches.images_in(images, room.images, room.n * layers.image_pixels, channels)
    }

    /// The vectors of a norm.
    pub fn vectors(&self, norm: &NormLayer) -> Address {
        self.room.norms.float(norm.vectors)
    }

    /// Gamma and beta in a vector of the parameters.
    pub fn affine(&self, vector: Address, norm: &Norm) -> [Address; 2] {
        [norm.gamma(), norm.beta()].map(|range| vector.float(range.start))
    }

    /// The norm that reads the output of a unit, or `None`: of the stem or the pool.
    pub fn norm_of_output(&self, unit: Option<usize>) -> &NormLayer {
        let next = self.layers.units.get(unit.map_or(0, |unit| unit + 1));
        next.map_or(&self.layers.norm, |next| &next.norms[0])
    }

    pub fn convolve(&self, conv: &ConvLayer, what: Products, at: [Address; 2]) -> Result<()> {
        let Room { n, precision, kernel, .. } = *self.room;
        let weights = match what {
            Products::WeightGradient => kernel,
            _ => self.weights.stored(precision, conv),
        };
        let [images, outputs] = at;
        let operands = Operands { images, weights, outputs };
        self.launches.runtime.convolve(&conv.shape(n, precision), what, &operands)
    }

    /// The stem, and the pool if there is one.
    fn stem(&self) -> Result<()> {
        let Trunk { layers, room, .. } = *self;
        let (stem, y0) = (&layers.stem, room.input(layers, 0));
        if !layers.layout.pool {
            return self.convolve(stem, Products::Forward, [room.images, y0]);
        }
        let z = room.slot(room.slots(layers).stem);
        self.convolve(stem, Products::Forward, [room.images, z])?;
        let places = [z, y0, room.taps];
        self.launches.max_pool(places, room.n, stem.output(), stem.weights.outputs)
    }

    /// Adds `residual` to a convolution's output, and prepares the norm that reads it.
    fn normalize(
        &self,
        norm: &NormLayer,
        z: Address,
        residual: Option<Address>,
        statistics: Statistics,
    ) -> Result<()> {
        let (launches, partial, rows) = (self.launches, self.room.partial, norm.rows(self.room.n));
        match (residual, statistics) {
            (Some(residual), _) => launches.add_stats(z, residual, partial, rows)?,
            (None, Statistics::Moving) => {}
            (None, _) => launches.bn_stats(z, partial, rows)?,
        }
        let affine = self.affine(self.weights.parameters(), &norm.norm);
        let vectors = self.vectors(norm);
        let moving = self.weights.moving().float(norm.norm.moving);
        let moved = match statistics {
            Statistics::Moving => {
                return launches.bn_moving(moving, affine, vectors, rows.channels);
            }
            Statistics::Moved { keep } => (moving, keep),
            Statistics::Batch => (Address::NONE, 1.0),
        };
        launches.bn_finish(partial, affine, vectors, moved, rows)
    }

    /// relu(norm(z)), in the place of all activations.
    fn activate(&self, norm: &NormLayer, z: Address) -> Result<Address> {
        let a = self.room.activation;
        self.launches.bn_relu(z, self.vectors(norm), a, norm.rows(self.room.n))?;
        Ok(a)
    }

    /// The `i`-th bottleneck unit.
    fn unit(&self, i: usize, unit: &UnitLayers, statistics: Statistics) -> Result<()> {
        let room = self.room;
        let slots = &room.slots(self.layers).units[i];
        let [norm1, norm2, norm3] = &unit.norms;
        let [conv1, conv2, conv3] = &unit.convs;
        let (x, z1, z2) = (room.input(self.layers, i), room.slot(slots.z1), room.slot(slots.z2));
        let y = room.slot(slots.y);

        let a = self.activate(norm1, x)?;
        self.convolve(conv1, Products::Forward, [a, z1])?;
        let residual = match &unit.shortcut {
            Some(shortcut) => {
                self.convolve(shortcut, Products::Forward, [a, room.residual])?;
                room.residual
            }
            None => x,
        };
        self.normalize(norm2, z1, None, statistics)?;

        let a = self.activate(norm2, z1)?;
        self.convolve(conv2, Products::Forward, [a, z2])?;
        self.normalize(norm3, z2, None, statistics)?;

        let a = self.activate(norm3, z2)?;
        self.convolve(conv3, Products::Forward, [a, y])?;
        self.normalize(self.norm_of_output(Some(i)), y, Some(residual), statistics)
    }
}
