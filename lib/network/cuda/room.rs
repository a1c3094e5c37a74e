//! Where a pass has its values: one block of device memory for all of them.

use super::layers::Layers;
use super::runtime::Address;
use super::vectors::bytes_of;
use crate::network::buffers::{Slots, UnitSlots};
use crate::network::engine::Precision;
use crate::network::slots::Slot;

/// Alignment of every place.
const ALIGNMENT: usize = 256;

/// The places of a pass over some images. Values are stored in the pass's precision unless float32 is said.
#[derive(Clone, Copy)]
pub struct Room {
    pub n: usize,
    pub precision: Precision,
    /// Whether there are places for tangents.
    along: bool,
    /// Outputs of convolutions and gradients, by their slots.
    slots: Address,
    /// The images with channels of padding; in the end, their gradient.
    pub images: Address,
    /// relu(norm(z)), the input of a convolution.
    pub activation: Address,
    /// A shortcut's output; of the tangent, what a unit adds to it; on the way back, the gradient of its input.
    pub residual: Address,
    /// Which taps of the max pool's windows gave its output, a byte each.
    pub taps: Address,
    /// The gradient of one convolution's kernel.
    pub kernel: Address,
    /// Vectors of all norms, in float32.
    pub norms: Address,
    /// Sums of parts of the rows, in float32.
    pub partial: Address,
    /// Pre-logits `[n, features]`, their tangent and their gradient, in float32. The last two share a place.
    pub features: Address,
    pub features_tangent: Address,
    pub features_back: Address,
    /// Of one head, and the gradient of its logits, in float32.
    pub logits: Address,
    /// `n` times 1.0, in float32.
    pub ones: Address,
    end: Address,
}

/// Hands out places one after the other.
struct Places(Address);

impl Places {
    fn take(&mut self, bytes: usize) -> Address {
        let at = self.0;
        self.0 = at.after(bytes.next_multiple_of(ALIGNMENT));
        at
    }
}

impl Room {
    /// From this address on.
    pub fn new(
        layers: &Layers,
        n: usize,
        precision: Precision,
        along: bool,
        from: Address,
    ) -> Room {
        let layout = &layers.layout;
        let (value, float) = (bytes_of(precision), size_of::<f32>());
        let logits = layout.heads.iter().map(|head| head.outputs).max().unwrap_or(0);
        let partial = layers.norms().map(|norm| {
            let rows = norm.rows(n);
            3 * rows.parts() * rows.channels
        });
        let kernels = layers.convs().map(|conv| conv.weights.values());
        let images = layers.image_pixels * layers.stem.weights.padded;
        let taps = if layout.pool { layers.y0 } else { 0 };
        let mut places = Places(from);
        let [features, features_back] = [0; 2].map(|_| places.take(n * layout.features * float));
        Room {
            n,
            precision,
            along,
            slots: places.take(n * layers.slots[usize::from(along)].total * value),
            images: places.take(n * images * value),
            activation: places.take(n * layers.activation * value),
            residual: places.take(n * layers.residual * value),
            taps: places.take(n * taps),
            kernel: places.take(kernels.max().unwrap_or(0) * value),
            norms: places.take(layers.norm_values * float),
            partial: places.take(partial.max().unwrap_or(0) * float),
            features,
            features_tangent: features_back,
            features_back,
            logits: places.take(n * logits * float),
            ones: places.take(n * float),
            end: places.0,
        }
    }

    /// Bytes of a room.
    pub fn bytes(layers: &Layers, n: usize, precision: Precision, along: bool) -> usize {
        Room::new(layers, n, precision, along, Address(0)).end.0 as usize
    }

    pub fn slots<'a>(&self, layers: &'a Layers) -> &'a Slots {
        &layers.slots[usize::from(self.along)]
    }

    pub fn slot(&self, slot: Slot) -> Address {
        self.slots.after(slot.start * self.n * bytes_of(self.precision))
    }

    /// The output of the stem or the pool, or of the unit before: the input of the `unit`-th unit.
    pub fn input(&self, layers: &Layers, unit: usize) -> Address {
        let slots = self.slots(layers);
        self.slot(unit.checked_sub(1).map_or(slots.y0, |before| slots.units[before].y))
    }

    /// The gradient of the output of the `unit`-th unit.
    pub fn output_gradient(&self, layers: &Layers, unit: usize) -> Address {
        let slots = self.slots(layers);
        let next = slots.units.get(unit + 1);
        self.slot(next.map_or(slots.gradient, |next: &UnitSlots| next.input_gradient))
    }
}
