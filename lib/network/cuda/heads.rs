//! The heads: linear layers on the pre-logits, in float32.

use super::buffer::{download, upload};
use super::layers::Layers;
use super::room::Room;
use super::runtime::{Address, Product, Runtime};
use super::vectors::DeviceWeights;
use crate::error::{Error, Result};
use crate::network::layout::Head;

/// The heads of one pass.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    pub runtime: &'a dyn Runtime,
    pub layers: &'a Layers,
    pub weights: &'a DeviceWeights,
    pub room: &'a Room,
}

/// out = a * b, of rows, columns and what is summed over.
const fn product(rows: usize, columns: usize, inner: usize) -> Product {
    Product { rows, columns, inner, transposed_a: false, transposed_b: false, add: false }
}

impl Heads<'_> {
    /// The logits `[n, outputs]` of one head from `Room::features`.
    pub fn logits(&self, head: &Head) -> Result<Vec<f32>> {
        let Heads { runtime, room, .. } = *self;
        let (n, features, outputs) = (room.n, self.layers.layout.features, head.outputs);
        let (kernel, bias) = self.places(self.weights.parameters(), head);
        runtime.multiply(&product(n, outputs, 1), room.ones, bias, room.logits)?;
        let added = Product { add: true, ..product(n, outputs, features) };
        runtime.multiply(&added, room.features, kernel, room.logits)?;
        download(runtime, room.logits, n * outputs)
    }

    /// The tangent of one head's logits, `[n, outputs]`, from `Room::features_tangent`.
    pub fn tangents(&self, head: &Head) -> Result<Vec<f32>> {
        let Heads { runtime, room, .. } = *self;
        let (n, features, outputs) = (room.n, self.layers.layout.features, head.outputs);
        let (kernel, _) = self.places(self.weights.parameters(), head);
        let product = product(n, outputs, features);
        runtime.multiply(&product, room.features_tangent, kernel, room.logits)?;
        download(runtime, room.logits, n * outputs)
    }

    /// From the gradients of all heads' logits to `Room::features_back`. Adds the gradients of kernels and
    /// biases to that of the parameters, if wanted.
    pub fn backward(&self, logits: &[Option<Vec<f32>>], of_parameters: bool) -> Result<()> {
        let Heads { runtime, room, .. } = *self;
        let (n, features) = (room.n, self.layers.layout.features);
        runtime.clear(room.features_back, n * features * size_of::<f32>())?;
        for (head, logits) in self.layers.layout.heads.iter().zip(logits) {
            let Some(logits) = logits else { continue };
            if logits.len() != n * head.outputs {
                return Err(Error::Internal("gradients of other logits".into()));
            }
            upload(runtime, logits, room.logits)?;
            let (kernel, _) = self.places(self.weights.parameters(), head);
            let back =
                Product { transposed_b: true, add: true, ..product(n, features, head.outputs) };
            runtime.multiply(&back, room.logits, kernel, room.features_back)?;
            if of_parameters {
                let (kernel, bias) = self.places(self.weights.gradient(), head);
                let of_kernel =
                    Product { transposed_a: true, add: true, ..product(features, head.outputs, n) };
                runtime.multiply(&of_kernel, room.features, room.logits, kernel)?;
                let of_bias = Product { add: true, ..product(1, head.outputs, n) };
                runtime.multiply(&of_bias, room.ones, room.logits, bias)?;
            }
        }
        Ok(())
    }

    /// A head's kernel and bias in a vector of the parameters.
    fn places(&self, vector: Address, head: &Head) -> (Address, Address) {
        let layout = &self.layers.layout;
        let [kernel, bias] = [layout.head_kernel(head), layout.head_bias(head)];
        (vector.float(kernel.start), vector.float(bias.start))
    }
}
