//! The seam between the engine and the machine: memory, copies, kernels, products.

use super::kernels::Kernel;
use crate::error::Result;
use crate::network::engine::Precision;

/// What the engine asks of the machine. `device.rs` has CUDA's; tests/common/gpu.rs has a simulated one, on
/// the CPU. Calls are made in order, but for `upload_ahead`; `download` waits for all before it.
pub trait Runtime: Send {
    /// Card, driver and libraries, for messages and for what is written about a run.
    fn name(&self) -> String;

    /// Bytes that may still be allocated.
    fn free_bytes(&self) -> Result<usize>;

    /// Memory aligned to 256 bytes with any content.
    fn allocate(&self, bytes: usize) -> Result<Memory>;

    /// May come back before the copy is made, but then has its own copy of `from`.
    fn upload(&self, from: &[u8], to: Address) -> Result<()>;

    /// As `upload`, but beside all calls since the last `upload_ahead`, none of which uses the place. Later calls come
    /// after it.
    fn upload_ahead(&self, from: &[u8], to: Address) -> Result<()>;

    fn download(&self, from: Address, to: &mut [u8]) -> Result<()>;

    /// Sets every byte to 0.
    fn clear(&self, at: Address, bytes: usize) -> Result<()>;

    /// Runs a kernel, compiled for values stored in this precision, in blocks of `kernels::THREADS` threads.
    fn launch(
        &self,
        kernel: Kernel,
        precision: Precision,
        blocks: u32,
        arguments: &[Argument],
    ) -> Result<()>;

    /// A convolution or one of its gradients, as `what` says. Float32 is exact: no TF32.
    fn convolve(&self, shape: &Convolution, what: Products, at: &Operands) -> Result<()>;

    /// A product of float32 matrices, exact: no TF32. Matrices are aligned to 4 bytes only.
    fn multiply(&self, shape: &Product, a: Address, b: Address, out: Address) -> Result<()>;
}

/// Memory of a runtime, freed when this is dropped.
pub struct Memory {
    address: Address,
    _owner: Box<dyn Send>,
}

impl Memory {
    /// `owner` frees the memory at the address when it is dropped.
    pub fn new(address: Address, owner: impl Send + 'static) -> Memory {
        Memory { address, _owner: Box::new(owner) }
    }

    pub fn address(&self) -> Address {
        self.address
    }
}

/// A place in the memory of a runtime, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    /// In place of an argument that a kernel does without.
    pub const NONE: Address = Address(0);

    /// The place this many bytes further on.
    pub fn after(self, bytes: usize) -> Address {
        Address(self.0 + bytes as u64)
    }

    /// The `index`-th float32 from here.
    pub fn float(self, index: usize) -> Address {
        self.after(index * size_of::<f32>())
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    Address(Address),
    /// For `int` and `u32`.
    I32(i32),
    F32(f32),
    F64(f64),
}

/// A convolution of `n` images `[n, height, width, channels]` with weights `[outputs, kernel, kernel, channels]`,
/// zero-padded by `kernel / 2` on each side. All values are in one precision; sums are in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Convolution {
    pub n: usize,
    pub height: usize,
    pub width: usize,
    /// A multiple of 8, as `outputs` is.
    pub channels: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub precision: Precision,
}

impl Convolution {
    /// Output rows (or columns) for `size` input rows.
    pub fn output(&self, size: usize) -> usize {
        (size + 2 * (self.kernel / 2) - self.kernel) / self.stride + 1
    }
}

/// What a convolution's `Operands` are made from, and which of them is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Products {
    /// Writes `outputs`.
    Forward,
    /// Writes `images`: their gradient, from that of the outputs.
    InputGradient,
    /// Writes `weights`: their gradient, from that of the outputs.
    WeightGradient,
}

/// The images, weights and outputs `[n, height, width, outputs]` of a convolution, aligned to 256 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Operands {
    pub images: Address,
    pub weights: Address,
    pub outputs: Address,
}

/// out = a * b, or out += a * b: a is `[rows, inner]`, b is `[inner, columns]`, out is `[rows, columns]`, all
/// row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Product {
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    /// a is stored as `[inner, rows]`.
    pub transposed_a: bool,
    /// b is stored as `[columns, inner]`.
    pub transposed_b: bool,
    pub add: bool,
}
