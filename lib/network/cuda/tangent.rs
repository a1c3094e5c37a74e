//! The trunk's tangent, beside the way forward: how activations change per unit of length along a direction of
//! each image. It passes a norm by the sums and coefficients of the way back, with the ReLU's mask behind them
//! and not before.

use super::layers::{NormLayer, UnitLayers};
use super::runtime::{Address, Products};
use super::trunk::Trunk;
use crate::error::Result;

impl Trunk<'_> {
    /// From a direction of each image in float32 to the tangent of the first unit's input, after the stem.
    pub fn stem_tangent(&self, direction: Address) -> Result<()> {
        let Trunk { launches, layers, room, .. } = *self;
        let (stem, slots) = (&layers.stem, room.slots(layers));
        let y0 = room.slot(slots.y0_tangent);
        self.images_in(direction)?;
        if !layers.layout.pool {
            return self.convolve(stem, Products::Forward, [room.images, y0]);
        }
        let tangent = room.slot(slots.stem_tangent);
        self.convolve(stem, Products::Forward, [room.images, tangent])?;
        let places = [tangent, room.taps, y0];
        launches.max_pool_tangent(places, room.n, stem.output(), stem.weights.outputs)
    }

    /// From the tangent of the `i`-th unit's input to that of its output, after the unit.
    pub fn unit_tangent(&self, i: usize, unit: &UnitLayers) -> Result<()> {
        let room = self.room;
        let slots = &room.slots(self.layers).units[i];
        let [norm1, norm2, norm3] = &unit.norms;
        let [conv1, conv2, conv3] = &unit.convs;
        let (x, z1, z2) = (room.input(self.layers, i), room.slot(slots.z1), room.slot(slots.z2));
        let [t1, t2, ty] = [slots.t1, slots.t2, slots.ty].map(|slot| room.slot(slot));
        let tangent = self.input_tangent(i);

        let a = self.norm_tangent(norm1, [tangent, x])?;
        self.convolve(conv1, Products::Forward, [a, t1])?;
        if let Some(shortcut) = &unit.shortcut {
            self.convolve(shortcut, Products::Forward, [a, ty])?;
        }
        let a = self.norm_tangent(norm2, [t1, z1])?;
        self.convolve(conv2, Products::Forward, [a, t2])?;

        let a = self.norm_tangent(norm3, [t2, z2])?;
        self.convolve(conv3, Products::Forward, [a, room.residual])?;
        // The residual is there: of the projection, or else the input's tangent. The statistics are not needed.
        let rows = self.norm_of_output(Some(i)).rows(room.n);
        self.launches.add_stats(ty, room.residual, room.partial, rows)
    }

    /// From the tangent of the last unit's output to that of the pre-logits.
    pub fn features_tangent(&self) -> Result<()> {
        let Trunk { launches, layers, room, .. } = *self;
        let (norm, last) = (&layers.norm, layers.units.len());
        let places = [self.input_tangent(last), room.input(layers, last)];
        self.coefficients(norm, places)?;
        let (vectors, rows) = (self.vectors(norm), norm.rows(room.n));
        launches.mean_tangents(places, vectors, room.features_tangent, norm.pixels, rows)
    }

    /// The tangent of the `unit`-th unit's input.
    fn input_tangent(&self, unit: usize) -> Address {
        let slots = self.room.slots(self.layers);
        self.room
            .slot(unit.checked_sub(1).map_or(slots.y0_tangent, |before| slots.units[before].ty))
    }

    /// The tangent of relu(norm(z)), in the place of all activations, from that of z, and z.
    fn norm_tangent(&self, norm: &NormLayer, places: [Address; 2]) -> Result<Address> {
        let a = self.room.activation;
        self.coefficients(norm, places)?;
        self.launches.bn_tangent(places, self.vectors(norm), a, norm.rows(self.room.n))?;
        Ok(a)
    }

    /// Gives a norm the coefficients for the tangent of z.
    fn coefficients(&self, norm: &NormLayer, places: [Address; 2]) -> Result<()> {
        let (vectors, partial, rows) =
            (self.vectors(norm), self.room.partial, norm.rows(self.room.n));
        self.launches.bn_tangent_sums(places, vectors, partial, rows)?;
        self.launches.bn_back_finish(partial, vectors, [Address::NONE; 2], rows)
    }
}
