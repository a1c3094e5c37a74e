//! The engine's state, and the order of its work for each call.

use super::back::Wanted;
use super::buffer::{Buffer, download, upload};
use super::heads::Heads;
use super::launches::Launches;
use super::layers::Layers;
use super::room::Room;
use super::runtime::{Address, Runtime};
use super::trunk::{Statistics, Trunk};
use super::vectors::{DeviceWeights, bytes_of};
use crate::error::{Error, Result};
use crate::memory;
use crate::network::engine::{Engine, Inner, Pass, Precision};
use crate::network::layout::Layout;
use crate::network::update::Update;
use crate::network::weights::Weights;
use crate::ranks::Ranks;

/// Images that go through the network at a time in inference, whatever comes, so that results do not depend on
/// how many come at once.
const INFERRED: usize = 64;

/// An engine on what `runtime` stands for. Images are of (height, width).
///
/// Errors: `Memory` if the weights do not fit.
pub fn engine(
    runtime: Box<dyn Runtime>,
    layout: &Layout,
    size: (usize, usize),
    weights: Weights,
    precision: Precision,
) -> Result<Box<dyn Engine>> {
    let layers = Layers::new(layout, size);
    let weights = DeviceWeights::new(&*runtime, &layers, &weights)?;
    Ok(Box::new(GpuEngine {
        layers,
        precision,
        weights,
        images: Images::default(),
        inferred: Buffer::default(),
        room: Buffer::default(),
        last: None,
        failed: None,
        runtime,
    }))
}

/// Bytes of device memory for training on `n` images at once, of which `moved` are moved by VAT. What the libraries
/// take is not counted.
pub fn training_bytes(
    layout: &Layout,
    size: (usize, usize),
    precision: Precision,
    (n, moved): (usize, usize),
) -> usize {
    let layers = Layers::new(layout, size);
    let room =
        Room::bytes(&layers, n, precision, false).max(Room::bytes(&layers, moved, precision, true));
    // Parameters, velocity, gradient, average, and the kernels as they are stored.
    let weights = layout.parameters * (4 * size_of::<f32>() + bytes_of(precision));
    // The images of two steps, directions and moved images.
    weights + room + 2 * (n + moved) * layers.image_values * size_of::<f32>()
}

/// See the module.
struct GpuEngine {
    layers: Layers,
    precision: Precision,
    weights: DeviceWeights,
    images: Images,
    /// The images of an inference.
    inferred: Buffer,
    room: Buffer,
    /// The last `forward`.
    last: Option<(Pass, Room)>,
    /// The error of a call that could not return it; the next `forward` does.
    failed: Option<Error>,
    runtime: Box<dyn Runtime>,
}

/// The images of a step and VAT's, in float32.
#[derive(Default)]
struct Images {
    step: Buffer,
    n: usize,
    /// Those of the step before, in whose place the next come.
    before: Buffer,
    /// The direction of each `every`-th image, and the images moved along it.
    direction: Buffer,
    moved: Buffer,
    moves: usize,
    every: usize,
}

impl Images {
    /// Takes the images of a step while the step before is under way.
    fn take(&mut self, runtime: &dyn Runtime, images: &[f32], values: usize) -> Result<()> {
        self.n = images.len() / values;
        std::mem::swap(&mut self.step, &mut self.before);
        self.step.reserve(runtime, size_of_val(images))?;
        match images.is_empty() {
            true => Ok(()),
            false => runtime.upload_ahead(bytemuck::cast_slice(images), self.step.address()),
        }
    }

    fn along(&mut self, launches: Launches, layers: &Layers, length: f64) -> Result<()> {
        let values = layers.image_values;
        if self.moves > 0 && (self.moves - 1) * self.every >= self.n {
            return Err(Error::Internal("more directions than images".into()));
        }
        self.moved.reserve(launches.runtime, self.moves * values * size_of::<f32>())?;
        let places = [&self.step, &self.direction, &self.moved].map(Buffer::address);
        launches.move_images(places, (self.moves, values), self.every, length)
    }
}

impl GpuEngine {
    fn launches(&self) -> Launches<'_> {
        Launches { runtime: &*self.runtime, precision: self.precision }
    }

    fn trunk<'a>(&'a self, room: &'a Room) -> Trunk<'a> {
        Trunk { launches: self.launches(), layers: &self.layers, weights: &self.weights, room }
    }

    fn heads<'a>(&'a self, room: &'a Room) -> Heads<'a> {
        let GpuEngine { layers, weights, .. } = self;
        Heads { runtime: &*self.runtime, layers, weights, room }
    }

    /// Keeps an error for the next `forward`.
    fn keep(&mut self, done: Result<()>) {
        self.failed = self.failed.take().or(done.err());
    }

    /// Memory for `n` images, with or without tangents, and the convolutions' kernels, for a pass.
    fn enter(&mut self, n: usize, along: bool) -> Result<Room> {
        let bytes = Room::bytes(&self.layers, n, self.precision, along);
        if bytes > self.room.bytes() {
            self.check_memory((n, along), bytes)?;
        }
        self.room.reserve(&*self.runtime, bytes)?;
        let room = Room::new(&self.layers, n, self.precision, along, self.room.address());
        upload(&*self.runtime, &vec![1.0; n], room.ones)?;
        let launches = Launches { runtime: &*self.runtime, precision: self.precision };
        self.weights.store(launches, &self.layers)?;
        Ok(room)
    }

    /// Errors: `Memory` if `n` images do not fit, with how many would.
    fn check_memory(&self, (n, along): (usize, bool), bytes: usize) -> Result<()> {
        let free = self.runtime.free_bytes()? + self.room.bytes();
        if bytes <= free && n <= self.layers.most_images() {
            return Ok(());
        }
        let fits = |n: &usize| Room::bytes(&self.layers, *n, self.precision, along) <= free;
        // Bytes rise with the images.
        let (mut most, mut too_many) = (0, n.min(self.layers.most_images() + 1));
        while too_many - most > 1 {
            let middle = (most + too_many) / 2;
            let half = if fits(&middle) { &mut most } else { &mut too_many };
            *half = middle;
        }
        let what = format!(
            "{n} images at once need {} MB of the memory of {}, which has {} MB left",
            bytes >> 20,
            self.runtime.name(),
            free >> 20,
        );
        let hint = format!(
            "lower batch and unlabelled_batch so that all views are at most {most} images, or width_factor"
        );
        Err(memory::refused(what, hint))
    }
}

impl Engine for GpuEngine {
    fn join(&mut self, ranks: Ranks, _: bool) -> Result<()> {
        match ranks.size() {
            1 => Ok(()),
            _ => Err(Error::Usage("several ranks train with --device cpu only".into())),
        }
    }

    fn most_bytes(&self) -> Result<Option<usize>> {
        Ok(Some(self.runtime.free_bytes()? + self.weights.allocated() + self.room.bytes()))
    }

    fn put(&mut self, weights: Weights) -> Result<()> {
        self.weights.put(&*self.runtime, &weights)
    }

    fn get(&self) -> Result<Weights> {
        self.weights.get(&*self.runtime)
    }

    /// They are copied, so their buffer stays the caller's.
    fn images(&mut self, images: &mut Vec<f32>) {
        let done = self.images.take(&*self.runtime, images, self.layers.image_values);
        self.keep(done);
    }

    fn direction(&mut self, direction: Vec<f32>, every: usize) {
        self.images.moves = direction.len() / self.layers.image_values;
        self.images.every = every;
        let GpuEngine { images, runtime, .. } = self;
        let done = images.direction.reserve(&**runtime, size_of_val(&direction[..]));
        let done = done.and_then(|_| upload(&**runtime, &direction, images.direction.address()));
        self.keep(done);
    }

    fn along(&mut self, length: f64) {
        let launches = Launches { runtime: &*self.runtime, precision: Precision::F32 };
        let done = self.images.along(launches, &self.layers, length);
        self.keep(done);
    }

    fn forward(&mut self, pass: Pass) -> Result<Vec<Vec<f32>>> {
        self.last = None;
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let (n, statistics) = match pass {
            Pass::Train { keep } => (self.images.n, Statistics::Moved { keep }),
            Pass::Perturbed | Pass::Direction => (self.images.moves, Statistics::Batch),
        };
        if n == 0 {
            return Err(Error::Internal("a pass without images".into()));
        }
        let room = self.enter(n, pass == Pass::Direction)?;
        let images = match pass {
            Pass::Train { .. } => self.images.step.address(),
            Pass::Perturbed | Pass::Direction => self.images.moved.address(),
        };
        let direction = match pass {
            Pass::Direction => {
                let direction = self.images.direction.address();
                let shape = (n, self.layers.image_values);
                let places = [Address::NONE, direction, direction];
                self.launches().move_images(places, shape, 1, 1.0)?;
                Some(direction)
            }
            Pass::Train { .. } | Pass::Perturbed => None,
        };
        self.trunk(&room).forward(images, direction, statistics)?;
        let heads = self.layers.layout.heads.iter();
        let logits = heads.map(|head| self.heads(&room).logits(head)).collect();
        self.last = Some((pass, room));
        logits
    }

    fn tangents(&mut self) -> Result<Vec<Vec<f32>>> {
        let Some((Pass::Direction, room)) = &self.last else {
            return Err(Error::Internal("a pass without directions".into()));
        };
        let heads = self.layers.layout.heads.iter();
        heads.map(|head| self.heads(room).tangents(head)).collect()
    }

    fn backward(&mut self, logits: &[Option<Vec<f32>>], _: bool) -> Result<()> {
        let Some((pass, room)) = self.last.take() else {
            return Err(Error::Internal("backward before forward".into()));
        };
        let wanted = match pass {
            Pass::Direction => Wanted::Images(self.images.direction.address()),
            Pass::Train { .. } | Pass::Perturbed => Wanted::Parameters,
        };
        self.heads(&room).backward(logits, wanted == Wanted::Parameters)?;
        self.trunk(&room).backward(wanted)
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        let launches = Launches { runtime: &*self.runtime, precision: self.precision };
        self.weights.update(launches, update)
    }

    /// Nothing: the weights are where inference reads them.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    fn infer(&mut self, images: &[f32], head: usize) -> Result<Vec<f32>> {
        self.last = None;
        let values = self.layers.image_values;
        self.inferred.reserve(&*self.runtime, INFERRED * values * size_of::<f32>())?;
        let mut all = Vec::new();
        for images in images.chunks(INFERRED * values) {
            // Where fewer come, the others are those of before.
            upload(&*self.runtime, images, self.inferred.address())?;
            let room = self.enter(INFERRED, false)?;
            self.trunk(&room).forward(self.inferred.address(), None, Statistics::Moving)?;
            let head = &self.layers.layout.heads[head];
            let logits = self.heads(&room).logits(head)?;
            all.extend_from_slice(&logits[..images.len() / values * head.outputs]);
        }
        Ok(all)
    }

    fn read(&self, inner: Inner) -> Result<Vec<f32>> {
        let moved = self.images.moves * self.layers.image_values;
        let (from, values): (Address, usize) = match inner {
            Inner::Gradient => (self.weights.gradient(), self.layers.layout.parameters),
            Inner::Direction => (self.images.direction.address(), moved),
            Inner::Moved => (self.images.moved.address(), moved),
        };
        download(&*self.runtime, from, values)
    }
}
