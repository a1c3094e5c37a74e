//! Where a pass has its values: one block of device memory for all of them.

use super::layers::Layers;
use super::runtime::Address;
use super::vectors::bytes_of;
use crate::network::buffers::UnitSlots;
use crate::network::engine::Precision;
use crate::network::slots::Slot;

/// Alignment of every place.
const ALIGNMENT: usize = 256;

/// The places of a pass over some images. Values are stored in the pass's precision unless float32 is said.
#[derive(Clone, Copy)]
pub struct Room {
    pub n: usize,
    pub precision: Precision,
    /// Outputs of convolutions and gradients, by their slots.
    slots: Address,
    /// The images with channels of padding; in the end, their gradient.
    pub images: Address,
    /// relu(norm(z)), the input of a convolution.
    pub activation: Address,
    /// A shortcut's output; on the way back, the gradient of its input.
    pub residual: Address,
    /// Which taps of the max pool's windows gave its output, a byte each.
    pub taps: Address,
    /// The gradient of one convolution's kernel.
    pub kernel: Address,
    /// Vectors of all norms, in float32.
    pub norms: Address,
    /// Sums of parts of the rows, in float32.
    pub partial: Address,
    /// Pre-logits `[n, features]` and their gradient, in float32.
    pub features: Address,
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
    pub fn new(layers: &Layers, n: usize, precision: Precision, from: Address) -> Room {
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
        Room {
            n,
            precision,
            slots: places.take(n * layers.slots.total * value),
            images: places.take(n * images * value),
            activation: places.take(n * layers.activation * value),
            residual: places.take(n * layers.residual * value),
            taps: places.take(n * taps),
            kernel: places.take(kernels.max().unwrap_or(0) * value),
            norms: places.take(layers.norm_values * float),
            partial: places.take(partial.max().unwrap_or(0) * float),
            features: places.take(n * layout.features * float),
            features_back: places.take(n * layout.features * float),
            logits: places.take(n * logits * float),
            ones: places.take(n * float),
            end: places.0,
        }
    }

    /// Bytes of a room.
    pub fn bytes(layers: &Layers, n: usize, precision: Precision) -> usize {
        Room::new(layers, n, precision, Address(0)).end.0 as usize
    }

    pub fn slot(&self, slot: Slot) -> Address {
        self.slots.after(slot.start * self.n * bytes_of(self.precision))
    }

    /// The output of the stem or the pool, or of the unit before: the input of the `unit`-th unit.
    pub fn input(&self, layers: &Layers, unit: usize) -> Address {
        let slots = &layers.slots;
        self.slot(unit.checked_sub(1).map_or(slots.y0, |before| slots.units[before].y))
    }

    /// The gradient of the output of the `unit`-th unit.
    pub fn output_gradient(&self, layers: &Layers, unit: usize) -> Address {
        let next = layers.slots.units.get(unit + 1);
        self.slot(next.map_or(layers.slots.gradient, |next: &UnitSlots| next.input_gradient))
    }
}
