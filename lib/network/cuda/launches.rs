//! A function for each kernel of `kernels/*.cu`, which says there what it does: its arguments, and how many
//! blocks it takes. That follows from the problem, never from the card, so that sums are the same on all cards.

use super::kernels::{Kernel, LANE, THREADS};
use super::runtime::{Address, Argument, Runtime};
use crate::error::Result;
use crate::network::engine::{BATCH_NORM_EPSILON, Precision};
use crate::network::update::Update;

/// Channels of a block of the kernels that finish sums. `CHANNELS` of norm.cu.
const FINISHED: usize = 16;

/// Side of the tiles of weights. `SIDE` of weights.cu.
const SIDE: usize = 32;

/// Groups of 8 channels that a block takes at most in sums per channel.
const GROUPS: usize = 32;

/// Rows that a thread adds up at least, and the parts that the rows are cut in at most.
const DEPTH: usize = 16;
const PARTS: usize = 2048;

/// Vectors that belong to a norm. `VECTORS` of gpu.h.
pub const NORM_VECTORS: usize = 7;

/// Launches kernels for values stored in a precision.
#[derive(Clone, Copy)]
pub struct Launches<'a> {
    pub runtime: &'a dyn Runtime,
    pub precision: Precision,
}

/// Values of `rows` pixels of so many channels.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    pub rows: usize,
    /// A multiple of 8.
    pub channels: usize,
}

impl Rows {
    /// Rows that one block adds up.
    fn per_block(self) -> usize {
        let depth = THREADS / self.groups().min(GROUPS);
        self.rows.div_ceil(PARTS).max(DEPTH * depth).next_multiple_of(depth)
    }

    /// Parts that the rows are cut in.
    pub fn parts(self) -> usize {
        self.rows.div_ceil(self.per_block())
    }

    fn groups(self) -> usize {
        self.channels / LANE
    }

    fn values(self) -> usize {
        self.rows * self.channels
    }

    /// Blocks of a kernel that makes sums.
    fn blocks(self) -> usize {
        self.parts() * self.groups().div_ceil(GROUPS)
    }
}

/// A kernel in the parameter vector, `[taps, inputs, outputs]`, and as convolutions read it, `[outputs, taps,
/// padded]`.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    pub taps: usize,
    pub inputs: usize,
    pub padded: usize,
    pub outputs: usize,
}

impl Weights {
    /// Values as convolutions read it.
    pub fn values(self) -> usize {
        self.outputs * self.taps * self.padded
    }

    fn blocks(self) -> usize {
        (self.taps * self.padded).div_ceil(SIDE) * self.outputs.div_ceil(SIDE)
    }
}

/// The optimizer's vectors, each padded to a multiple of 8 values, and which parameters decay, a byte each.
#[derive(Debug, Clone, Copy)]
pub struct Vectors {
    pub parameters: Address,
    pub velocity: Address,
    pub gradient: Address,
    /// May be `NONE`.
    pub average: Address,
    pub decayed: Address,
}

/// An argument that is a count.
fn int(count: usize) -> Argument {
    // The engine refuses batches with more of anything (`Layers::most_images`).
    Argument::I32(i32::try_from(count).expect("a count below 2^31"))
}

fn at(address: Address) -> Argument {
    Argument::Address(address)
}

impl Launches<'_> {
    fn blocks(&self, kernel: Kernel, blocks: usize, arguments: &[Argument]) -> Result<()> {
        match u32::try_from(blocks).expect("fewer than 2^32 blocks") {
            0 => Ok(()),
            blocks => self.runtime.launch(kernel, self.precision, blocks, arguments),
        }
    }

    /// With a thread for each of so many things.
    fn each(&self, kernel: Kernel, things: usize, arguments: &[Argument]) -> Result<()> {
        self.blocks(kernel, things.div_ceil(THREADS), arguments)
    }

    pub fn bn_stats(&self, z: Address, partial: Address, of: Rows) -> Result<()> {
        let arguments = [at(z), at(partial), int(of.rows), int(of.channels), int(of.per_block())];
        self.blocks(Kernel::BnStats, of.blocks(), &arguments)
    }

    pub fn add_stats(&self, z: Address, added: Address, partial: Address, of: Rows) -> Result<()> {
        let arguments =
            [at(z), at(added), at(partial), int(of.rows), int(of.channels), int(of.per_block())];
        self.blocks(Kernel::AddStats, of.blocks(), &arguments)
    }

    /// `affine`: gamma and beta. `moving`: the moving statistics, or `NONE`, and the share that they keep.
    pub fn bn_finish(
        &self,
        partial: Address,
        affine: [Address; 2],
        norm: Address,
        moving: (Address, f32),
        of: Rows,
    ) -> Result<()> {
        let arguments = [
            at(partial),
            at(affine[0]),
            at(affine[1]),
            at(norm),
            at(moving.0),
            int(of.rows),
            int(of.channels),
            int(of.per_block()),
            Argument::F32(moving.1),
            Argument::F64(BATCH_NORM_EPSILON),
        ];
        self.blocks(Kernel::BnFinish, of.channels.div_ceil(FINISHED), &arguments)
    }

    pub fn bn_moving(
        &self,
        moving: Address,
        affine: [Address; 2],
        norm: Address,
        channels: usize,
    ) -> Result<()> {
        let epsilon = Argument::F64(BATCH_NORM_EPSILON);
        let arguments =
            [at(moving), at(affine[0]), at(affine[1]), at(norm), int(channels), epsilon];
        self.each(Kernel::BnMoving, channels, &arguments)
    }

    pub fn bn_relu(&self, z: Address, norm: Address, a: Address, of: Rows) -> Result<()> {
        let groups = of.values() / LANE;
        let arguments = [at(z), at(norm), at(a), int(groups), int(of.channels)];
        self.each(Kernel::BnRelu, groups, &arguments)
    }

    /// `more` and `a` may be `NONE`.
    pub fn bn_back_sums(
        &self,
        [gradient, more]: [Address; 2],
        z: Address,
        norm: Address,
        a: Address,
        partial: Address,
        of: Rows,
    ) -> Result<()> {
        self.bn_sums([gradient, more, z, norm, a, partial], true, of)
    }

    /// The sums for a tangent of z.
    pub fn bn_tangent_sums(
        &self,
        [tangent, z]: [Address; 2],
        norm: Address,
        partial: Address,
        of: Rows,
    ) -> Result<()> {
        self.bn_sums([tangent, Address::NONE, z, norm, Address::NONE, partial], false, of)
    }

    fn bn_sums(&self, places: [Address; 6], masked: bool, of: Rows) -> Result<()> {
        let [gradient, more, z, norm, a, partial] = places;
        let arguments = [
            at(gradient),
            at(more),
            at(z),
            at(norm),
            at(a),
            at(partial),
            int(usize::from(masked)),
            int(of.rows),
            int(of.channels),
            int(of.per_block()),
        ];
        self.blocks(Kernel::BnBackSums, of.blocks(), &arguments)
    }

    /// `affine`: gradients of gamma and beta, or `NONE`.
    pub fn bn_back_finish(
        &self,
        partial: Address,
        norm: Address,
        affine: [Address; 2],
        of: Rows,
    ) -> Result<()> {
        let arguments = [
            at(partial),
            at(norm),
            at(affine[0]),
            at(affine[1]),
            int(of.rows),
            int(of.channels),
            int(of.parts()),
        ];
        self.blocks(Kernel::BnBackFinish, of.channels.div_ceil(FINISHED), &arguments)
    }

    /// `residual` may be `NONE`.
    pub fn bn_back_apply(
        &self,
        gradient: Address,
        z: Address,
        residual: Address,
        norm: Address,
        of: Rows,
    ) -> Result<()> {
        let groups = of.values() / LANE;
        let arguments =
            [at(gradient), at(z), at(residual), at(norm), int(groups), int(of.channels)];
        self.each(Kernel::BnBackApply, groups, &arguments)
    }

    pub fn bn_tangent(
        &self,
        [tangent, z]: [Address; 2],
        norm: Address,
        a: Address,
        of: Rows,
    ) -> Result<()> {
        let groups = of.values() / LANE;
        let arguments = [at(tangent), at(z), at(norm), at(a), int(groups), int(of.channels)];
        self.each(Kernel::BnTangent, groups, &arguments)
    }

    /// Of images of so many pixels.
    pub fn mean_tangents(
        &self,
        [tangent, y]: [Address; 2],
        norm: Address,
        features: Address,
        pixels: usize,
        of: Rows,
    ) -> Result<()> {
        let groups = of.values() / pixels / LANE;
        let arguments = [
            at(tangent),
            at(y),
            at(norm),
            at(features),
            int(groups),
            int(pixels),
            int(of.channels),
        ];
        self.each(Kernel::MeanTangents, groups, &arguments)
    }

    /// `n` images of (height, width).
    pub fn max_pool(
        &self,
        [z, out, taps]: [Address; 3],
        n: usize,
        (height, width): (usize, usize),
        channels: usize,
    ) -> Result<()> {
        let groups = n * height.div_ceil(2) * width.div_ceil(2) * channels / LANE;
        self.pool(Kernel::MaxPool, [z, out, taps], groups, (height, width), channels)
    }

    pub fn max_pool_back(
        &self,
        [gradient, taps, out]: [Address; 3],
        n: usize,
        (height, width): (usize, usize),
        channels: usize,
    ) -> Result<()> {
        let groups = n * height * width * channels / LANE;
        let places = [gradient, taps, out];
        self.pool(Kernel::MaxPoolBack, places, groups, (height, width), channels)
    }

    pub fn max_pool_tangent(
        &self,
        [tangent, taps, out]: [Address; 3],
        n: usize,
        (height, width): (usize, usize),
        channels: usize,
    ) -> Result<()> {
        let groups = n * height.div_ceil(2) * width.div_ceil(2) * channels / LANE;
        let places = [tangent, taps, out];
        self.pool(Kernel::MaxPoolTangent, places, groups, (height, width), channels)
    }

    fn pool(
        &self,
        kernel: Kernel,
        places: [Address; 3],
        groups: usize,
        (height, width): (usize, usize),
        channels: usize,
    ) -> Result<()> {
        let [first, second, third] = places.map(at);
        let counts = [groups, height, width, channels].map(int);
        self.each(kernel, groups, &[&[first, second, third], &counts[..]].concat())
    }

    /// Of images of so many pixels.
    pub fn mean_pixels(
        &self,
        y: Address,
        norm: Address,
        features: Address,
        pixels: usize,
        of: Rows,
    ) -> Result<()> {
        let groups = of.values() / pixels / LANE;
        let arguments = [at(y), at(norm), at(features), int(groups), int(pixels), int(of.channels)];
        self.each(Kernel::MeanPixels, groups, &arguments)
    }

    pub fn mean_pixels_back(
        &self,
        features: Address,
        gradient: Address,
        pixels: usize,
        of: Rows,
    ) -> Result<()> {
        let groups = of.values() / LANE;
        let arguments = [at(features), at(gradient), int(groups), int(pixels), int(of.channels)];
        self.each(Kernel::MeanPixelsBack, groups, &arguments)
    }

    /// `pixels`: of all images.
    pub fn images_in(
        &self,
        images: Address,
        out: Address,
        pixels: usize,
        (channels, padded): (usize, usize),
    ) -> Result<()> {
        let groups = pixels * padded / LANE;
        let arguments = [at(images), at(out), int(groups), int(channels), int(padded)];
        self.each(Kernel::ImagesIn, groups, &arguments)
    }

    pub fn images_out(
        &self,
        gradient: Address,
        out: Address,
        pixels: usize,
        (channels, padded): (usize, usize),
    ) -> Result<()> {
        let values = pixels * channels;
        let arguments = [at(gradient), at(out), int(values), int(channels), int(padded)];
        self.each(Kernel::ImagesOut, values, &arguments)
    }

    /// Of the images, each `every`-th, `n` of them of so many values. Without images (`NONE`): the moves themselves.
    pub fn move_images(
        &self,
        [images, direction, moved]: [Address; 3],
        (n, values): (usize, usize),
        every: usize,
        length: f64,
    ) -> Result<()> {
        let length = Argument::F64(length);
        let arguments = [at(images), at(direction), at(moved), int(values), int(every), length];
        self.blocks(Kernel::MoveImages, n, &arguments)
    }

    pub fn weights_in(&self, parameters: Address, weights: Address, of: Weights) -> Result<()> {
        self.weights(Kernel::WeightsIn, parameters, weights, of)
    }

    pub fn gradient_in(&self, weights: Address, gradient: Address, of: Weights) -> Result<()> {
        self.weights(Kernel::GradientIn, weights, gradient, of)
    }

    fn weights(&self, kernel: Kernel, from: Address, to: Address, of: Weights) -> Result<()> {
        let Weights { taps, inputs, padded, outputs } = of;
        let arguments = [at(from), at(to), int(taps), int(inputs), int(padded), int(outputs)];
        self.blocks(kernel, of.blocks(), &arguments)
    }

    pub fn sgd_polyak(&self, of: &Vectors, parameters: usize, by: &Update) -> Result<()> {
        let lanes = parameters.div_ceil(LANE);
        let decay = if by.half_life > 0.0 { 0.5f64.powf(1.0 / by.half_life) } else { 1.0 };
        let average = if by.half_life > 0.0 { of.average } else { Address::NONE };
        let arguments = [
            at(of.parameters),
            at(of.velocity),
            at(of.gradient),
            at(average),
            at(of.decayed),
            int(lanes),
            Argument::F32(by.learning_rate as f32),
            Argument::F32(by.momentum as f32),
            Argument::F32(by.weight_decay as f32),
            Argument::F32(decay as f32),
            Argument::F32((1.0 - decay) as f32),
        ];
        self.each(Kernel::SgdPolyak, lanes, &arguments)
    }
}
