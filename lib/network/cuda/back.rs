//! The trunk's way back. A gradient passes a norm in three steps: sums over the batch, coefficients, and the
//! gradient of z in the place of that of relu(norm(z)), which is made again for the gradient of the kernel.

use super::layers::{ConvLayer, NormLayer, UnitLayers};
use super::runtime::{Address, Products};
use super::trunk::Trunk;
use crate::error::Result;

/// The wanted gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// Of the parameters, added to the one that the weights have.
    Parameters,
    /// Of the images, in float32, into this place.
    Images(Address),
}

/// A gradient on its way back through a norm.
struct Passing<'a> {
    norm: &'a NormLayer,
    /// Of relu(norm(z)); becomes that of z.
    gradient: Address,
    /// Added to it before the norm, or `NONE`.
    more: Address,
    z: Address,
    /// Added to it behind the norm, or `NONE`.
    residual: Address,
}

impl Trunk<'_> {
    /// From `Room::features_back`, after `forward` with the statistics of the batch.
    pub fn backward(&self, wanted: Wanted) -> Result<()> {
        let Trunk { launches, layers, room, .. } = *self;
        let (norm, last) = (&layers.norm, layers.units.len());
        let gradient = room.slot(room.slots(layers).gradient);
        let rows = norm.rows(room.n);
        launches.mean_pixels_back(room.features_back, gradient, norm.pixels, rows)?;
        let z = room.input(layers, last);
        let passing = Passing { norm, gradient, more: Address::NONE, z, residual: Address::NONE };
        self.pass(passing, &[], wanted)?;
        for (i, unit) in layers.units.iter().enumerate().rev() {
            self.unit_back(i, unit, wanted)?;
        }
        self.stem_back(wanted)
    }

    /// Takes a gradient back through a norm, and adds the gradients of the kernels of the convolutions that
    /// read relu(norm(z)), each from the gradient of its output.
    fn pass(&self, from: Passing, convs: &[(&ConvLayer, Address)], wanted: Wanted) -> Result<()> {
        let Passing { norm, gradient, more, z, residual } = from;
        let (launches, partial) = (self.launches, self.room.partial);
        let (vectors, rows) = (self.vectors(norm), norm.rows(self.room.n));
        let of_parameters = wanted == Wanted::Parameters;
        let a = match of_parameters && !convs.is_empty() {
            true => self.room.activation,
            false => Address::NONE,
        };
        launches.bn_back_sums([gradient, more], z, vectors, a, partial, rows)?;
        let affine = match of_parameters {
            true => self.affine(self.weights.gradient(), &norm.norm),
            false => [Address::NONE; 2],
        };
        launches.bn_back_finish(partial, vectors, affine, rows)?;
        if of_parameters {
            convs.iter().try_for_each(|(conv, output)| self.kernel_back(conv, a, *output))?;
        }
        launches.bn_back_apply(gradient, z, residual, vectors, rows)
    }

    /// Adds the gradient of a convolution's kernel.
    fn kernel_back(&self, conv: &ConvLayer, images: Address, outputs: Address) -> Result<()> {
        self.convolve(conv, Products::WeightGradient, [images, outputs])?;
        let gradient = self.weights.gradient().float(conv.parameters);
        self.launches.gradient_in(self.room.kernel, gradient, conv.weights)
    }

    /// From the gradient of the `i`-th unit's output to that of its input.
    fn unit_back(&self, i: usize, unit: &UnitLayers, wanted: Wanted) -> Result<()> {
        let room = self.room;
        let slots = &room.slots(self.layers).units[i];
        let [norm1, norm2, norm3] = &unit.norms;
        let [conv1, conv2, conv3] = &unit.convs;
        let output = room.output_gradient(self.layers, i);
        let [g3, g2, g1] = [slots.g3, slots.g2, slots.input_gradient].map(|slot| room.slot(slot));
        let none = Address::NONE;

        self.convolve(conv3, Products::InputGradient, [g3, output])?;
        let z = room.slot(slots.z2);
        let passing = Passing { norm: norm3, gradient: g3, more: none, z, residual: none };
        self.pass(passing, &[(conv3, output)], wanted)?;

        self.convolve(conv2, Products::InputGradient, [g2, g3])?;
        let z = room.slot(slots.z1);
        let passing = Passing { norm: norm2, gradient: g2, more: none, z, residual: none };
        self.pass(passing, &[(conv2, g3)], wanted)?;

        self.convolve(conv1, Products::InputGradient, [g1, g2])?;
        let z = room.input(self.layers, i);
        let Some(shortcut) = &unit.shortcut else {
            let passing = Passing { norm: norm1, gradient: g1, more: none, z, residual: output };
            return self.pass(passing, &[(conv1, g2)], wanted);
        };
        self.convolve(shortcut, Products::InputGradient, [room.residual, output])?;
        let more = room.residual;
        let passing = Passing { norm: norm1, gradient: g1, more, z, residual: none };
        self.pass(passing, &[(conv1, g2), (shortcut, output)], wanted)
    }

    /// From the gradient of the first unit's input to what is wanted of the stem.
    fn stem_back(&self, wanted: Wanted) -> Result<()> {
        let Trunk { launches, layers, room, .. } = *self;
        let stem = &layers.stem;
        let slots = room.slots(layers);
        let first = slots.units.first();
        let mut gradient = room.slot(first.map_or(slots.gradient, |u| u.input_gradient));
        if layers.layout.pool {
            let out = room.slot(slots.stem_gradient);
            let places = [gradient, room.taps, out];
            launches.max_pool_back(places, room.n, stem.output(), stem.weights.outputs)?;
            gradient = out;
        }
        match wanted {
            Wanted::Parameters => self.kernel_back(stem, room.images, gradient),
            Wanted::Images(to) => {
                self.convolve(stem, Products::InputGradient, [room.images, gradient])?;
                let channels = (stem.weights.inputs, stem.weights.padded);
                launches.images_out(room.images, to, room.n * layers.image_pixels, channels)
            }
        }
    }
}
