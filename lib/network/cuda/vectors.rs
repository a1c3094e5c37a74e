//! What training learns, in device memory: the optimizer's vectors in float32, the moving statistics, and the
//! convolutions' kernels as they are stored for the convolutions.

use super::buffer::{Buffer, download, upload};
use super::kernels::LANE;
use super::launches::{Launches, Vectors};
use super::layers::{ConvLayer, Layers};
use super::runtime::{Address, Runtime};
use crate::error::Result;
use crate::network::engine::Precision;
use crate::network::update::Update;
use crate::network::weights::Weights;

/// See the module.
pub struct DeviceWeights {
    /// Parameters, velocity, gradient and moving statistics, then a byte for each parameter: whether it decays.
    vectors: Buffer,
    /// Empty if there is no average.
    average: Buffer,
    has_average: bool,
    parameters: usize,
    moving: usize,
    /// The kernels of all convolutions as they are stored, and whether they are those of the parameters.
    stored: Buffer,
    fresh: bool,
}

/// Bytes of a value as it is stored.
pub fn bytes_of(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    }
}

impl DeviceWeights {
    pub fn new(runtime: &dyn Runtime, layers: &Layers, weights: &Weights) -> Result<DeviceWeights> {
        let layout = &layers.layout;
        let mut device = DeviceWeights {
            vectors: Buffer::default(),
            average: Buffer::default(),
            has_average: false,
            parameters: layout.parameters,
            moving: layout.moving,
            stored: Buffer::default(),
            fresh: false,
        };
        let bytes = device.bytes();
        device.vectors.reserve(runtime, bytes)?;
        runtime.clear(device.vectors.address(), bytes)?;
        let mut decayed = vec![0u8; layout.parameters];
        layout.decayed().into_iter().for_each(|range| decayed[range].fill(1));
        runtime.upload(&decayed, device.decayed())?;
        device.put(runtime, weights)?;
        Ok(device)
    }

    /// Values of a vector of one value for each parameter, with padding.
    fn padded(&self) -> usize {
        self.parameters.next_multiple_of(64)
    }

    fn bytes(&self) -> usize {
        (3 * self.padded() + self.moving.next_multiple_of(64)) * size_of::<f32>() + self.padded()
    }

    /// Bytes of device memory that they take now.
    pub fn allocated(&self) -> usize {
        self.vectors.bytes() + self.average.bytes() + self.stored.bytes()
    }

    pub fn parameters(&self) -> Address {
        self.vectors.address()
    }

    fn velocity(&self) -> Address {
        self.parameters().float(self.padded())
    }

    pub fn gradient(&self) -> Address {
        self.parameters().float(2 * self.padded())
    }

    pub fn moving(&self) -> Address {
        self.parameters().float(3 * self.padded())
    }

    fn decayed(&self) -> Address {
        self.moving().float(self.moving.next_multiple_of(64))
    }

    pub fn put(&mut self, runtime: &dyn Runtime, weights: &Weights) -> Result<()> {
        self.fresh = false;
        upload(runtime, &weights.parameters, self.parameters())?;
        upload(runtime, &weights.velocity, self.velocity())?;
        upload(runtime, &weights.moving, self.moving())?;
        self.has_average = !weights.average.is_empty();
        if self.has_average {
            let bytes = self.padded() * size_of::<f32>();
            if self.average.reserve(runtime, bytes)? {
                runtime.clear(self.average.address(), bytes)?;
            }
            upload(runtime, &weights.average, self.average.address())?;
        }
        Ok(())
    }

    pub fn get(&self, runtime: &dyn Runtime) -> Result<Weights> {
        let average = if self.has_average { self.parameters } else { 0 };
        Ok(Weights {
            parameters: download(runtime, self.parameters(), self.parameters)?,
            velocity: download(runtime, self.velocity(), self.parameters)?,
            average: download(runtime, self.average.address(), average)?,
            moving: download(runtime, self.moving(), self.moving)?,
        })
    }

    pub fn update(&mut self, launches: Launches, by: &Update) -> Result<()> {
        self.fresh = false;
        let vectors = Vectors {
            parameters: self.parameters(),
            velocity: self.velocity(),
            gradient: self.gradient(),
            average: if self.has_average { self.average.address() } else { Address::NONE },
            decayed: self.decayed(),
        };
        launches.sgd_polyak(&vectors, self.parameters.next_multiple_of(LANE), by)
    }

    /// Brings the stored kernels up to date.
    pub fn store(&mut self, launches: Launches, layers: &Layers) -> Result<()> {
        if self.fresh {
            return Ok(());
        }
        self.stored.reserve(launches.runtime, layers.stored * bytes_of(launches.precision))?;
        for conv in layers.convs() {
            let (from, to) = (self.parameters(), self.stored(launches.precision, conv));
            launches.weights_in(from.float(conv.parameters), to, conv.weights)?;
        }
        self.fresh = true;
        Ok(())
    }

    /// The stored kernel of a convolution, after `store`.
    pub fn stored(&self, precision: Precision, conv: &ConvLayer) -> Address {
        self.stored.address().after(conv.stored * bytes_of(precision))
    }
}
