//! An NVIDIA GPU: the runtime of the engine by CUDA.

use super::compile::Unit;
use super::graph::Target;
use super::kernels::{Kernel, Source, THREADS};
use super::multiply::Multiplier;
use super::plans::Plans;
use super::runtime::{
    Address, Argument, Convolution, Memory, Operands, Product, Products, Runtime,
};
use super::staging::{Event, Staging};
use super::status::{allocating, driver, failed};
use super::{descriptor, libraries};
use crate::error::{Error, Result};
use crate::network::engine::Precision;
use cudarc::cudnn::sys as cudnn;
use cudarc::driver::{CudaContext, CudaStream, result, sys};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

/// Compute capability of the first GPUs with bfloat16.
const BF16: i32 = 80;

/// A GPU with its libraries, kernels and plans. All work is on one stream, but for copies ahead of it.
pub struct Card {
    name: String,
    kernels: HashMap<(Kernel, Precision), sys::CUfunction>,
    /// Memory that plans work in, as much as one of them needed so far.
    workspace: RefCell<(usize, Option<Memory>)>,
    staging: RefCell<Staging>,
    ahead: RefCell<Staging>,
    /// All work before the last copy ahead, and the stream of these copies.
    before: Event,
    copies: Arc<CudaStream>,
    multiplier: RefCell<Multiplier>,
    plans: RefCell<Plans>,
    cudnn: Cudnn,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
}

// SAFETY: handles of CUDA may be used by any thread, one at a time, if it has bound the context, which every call
// does. The pointers and counted references inside are the card's own: none leaves it.
unsafe impl Send for Card {}

impl Card {
    /// The GPU of this number, with its kernels compiled.
    ///
    /// Errors: `Usage` if the machine lacks it or something that it needs.
    pub fn open(number: usize, precision: Precision) -> Result<Card> {
        libraries::check(number)?;
        Card::start(number, precision).map_err(|e| match e {
            Error::Device { what, .. } => libraries::unusable(number, what),
            other => other,
        })
    }

    fn start(number: usize, precision: Precision) -> Result<Card> {
        let context = CudaContext::new(number).map_err(driver("cuDevicePrimaryCtxRetain"))?;
        let (major, minor) =
            context.compute_capability().map_err(driver("cuDeviceGetAttribute"))?;
        let architecture = 10 * major + minor;
        let card = context.name().map_err(driver("cuDeviceGetName"))?;
        let precisions = match precision {
            Precision::F32 => vec![Precision::F32],
            Precision::Bf16 if architecture >= BF16 => vec![Precision::F32, Precision::Bf16],
            Precision::Bf16 => {
                let why = format!("{card} has no bfloat16; leave out --precision bf16");
                return Err(libraries::unusable(number, why));
            }
        };
        let stream = context.new_stream().map_err(driver("cuStreamCreate"))?;
        let mut kernels = HashMap::new();
        for precision in precisions {
            load(&mut kernels, precision, architecture)?;
        }
        let cudnn = Cudnn::new(&stream)?;
        Ok(Card {
            name: format!("{card}, {}", libraries::names()),
            kernels,
            workspace: RefCell::new((0, None)),
            staging: RefCell::new(Staging::new()?),
            ahead: RefCell::new(Staging::new()?),
            before: Event::new()?,
            copies: context.new_stream().map_err(driver("cuStreamCreate"))?,
            multiplier: RefCell::new(Multiplier::new()?),
            plans: RefCell::new(Plans::new(Target::Card(cudnn.0))),
            cudnn,
            stream,
            context,
        })
    }

    /// To be called before all else: another thread may have made the last call.
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(driver("cuCtxSetCurrent"))
    }

    /// The place of at least so many bytes for a plan to work in.
    fn workspace(&self, bytes: usize) -> Result<Address> {
        let mut workspace = self.workspace.borrow_mut();
        if workspace.0 < bytes {
            // The old one is freed first, once the GPU is done with it.
            *workspace = (0, None);
            *workspace = (bytes, Some(self.allocate(bytes)?));
        }
        Ok(workspace.1.as_ref().map_or(Address::NONE, Memory::address))
    }
}

impl Runtime for Card {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn free_bytes(&self) -> Result<usize> {
        let (free, _) = self.context.mem_get_info().map_err(driver("cuMemGetInfo"))?;
        Ok(free)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        self.bind()?;
        // SAFETY: the content is undefined, as promised. CUDA aligns to 256 bytes.
        let at = unsafe { result::malloc_sync(bytes.max(1)) }.map_err(allocating(bytes))?;
        Ok(Memory::new(Address(at), Block { at, context: self.context.clone() }))
    }

    fn upload(&self, from: &[u8], to: Address) -> Result<()> {
        self.bind()?;
        self.staging.borrow_mut().send(from, to, self.stream.cu_stream())?;
        Ok(())
    }

    fn upload_ahead(&self, from: &[u8], to: Address) -> Result<()> {
        self.bind()?;
        let (work, copies) = (self.stream.cu_stream(), self.copies.cu_stream());
        self.before.hold(copies)?;
        self.ahead.borrow_mut().send(from, to, copies)?.hold(work)?;
        self.before.record(work)
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: both are of this length, and the copy is waited for.
        unsafe { result::memcpy_dtoh_async(to, from.0, self.stream.cu_stream()) }
            .map_err(driver("cuMemcpyDtoHAsync"))?;
        self.stream.synchronize().map_err(driver("cuStreamSynchronize"))
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller's memory, of this length.
        unsafe { result::memset_d8_async(at.0, 0, bytes, self.stream.cu_stream()) }
            .map_err(driver("cuMemsetD8Async"))
    }

    fn launch(
        &self,
        kernel: Kernel,
        precision: Precision,
        blocks: u32,
        arguments: &[Argument],
    ) -> Result<()> {
        self.bind()?;
        let function = self.kernels.get(&(kernel, precision));
        let function = function.ok_or_else(|| {
            Error::Internal(format!("{} is not compiled for {precision:?}", kernel.place().0))
        })?;
        let mut pointers: Vec<*mut c_void> = arguments.iter().map(pointer).collect();
        let (grid, block) = ((blocks, 1, 1), (THREADS as u32, 1, 1));
        // SAFETY: the function is loaded; the arguments are read before this returns. The kernel stays inside the
        // memory that they name: the tests of the engine run the same kernels on the CPU.
        unsafe {
            result::launch_kernel(*function, grid, block, 0, self.stream.cu_stream(), &mut pointers)
        }
        .map_err(driver(&format!("cuLaunchKernel of {}", kernel.place().0)))
    }

    fn convolve(&self, shape: &Convolution, what: Products, at: &Operands) -> Result<()> {
        self.bind()?;
        let mut plans = self.plans.borrow_mut();
        let plan = plans.get(shape, what)?;
        let workspace = self.workspace(plan.workspace)?;
        plan.run(self.cudnn.0, [at.images, at.weights, at.outputs], workspace)
    }

    fn multiply(&self, shape: &Product, a: Address, b: Address, out: Address) -> Result<()> {
        self.bind()?;
        let stream = self.stream.cu_stream().cast();
        // SAFETY: the caller's matrices, on the stream of this card.
        unsafe { self.multiplier.borrow_mut().run(shape, [a, b, out], stream) }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // What it is made of is freed next, perhaps by a thread that has made no call yet.
        let _ = self.bind();
    }
}

/// Memory of a card.
struct Block {
    at: sys::CUdeviceptr,
    context: Arc<CudaContext>,
}

impl Drop for Block {
    fn drop(&mut self) {
        // A card that is lost has no memory to free.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was allocated, and waits until the GPU is done with it.
            let _ = unsafe { result::free_sync(self.at) };
        }
    }
}

/// cuDNN on a card.
struct Cudnn(cudnn::cudnnHandle_t);

impl Cudnn {
    fn new(stream: &CudaStream) -> Result<Cudnn> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: it writes one pointer.
        let made = unsafe { cudnn::cudnnCreate(&mut handle) };
        if made != cudnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS {
            return Err(descriptor::failure(made, "cudnnCreate"));
        }
        let cudnn = Cudnn(handle);
        // SAFETY: the stream outlives the handle in `Card`.
        let set = unsafe { cudnn::cudnnSetStream(handle, stream.cu_stream().cast()) };
        match set {
            cudnn::cudnnStatus_t::CUDNN_STATUS_SUCCESS => Ok(cudnn),
            failed => Err(descriptor::failure(failed, "cudnnSetStream")),
        }
    }
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // SAFETY: it was created, and its plans are gone, for they stand before it in `Card`.
        unsafe { cudnn::cudnnDestroy(self.0) };
    }
}

/// Loads all kernels for a precision. They stay for as long as the context.
fn load(
    kernels: &mut HashMap<(Kernel, Precision), sys::CUfunction>,
    precision: Precision,
    architecture: i32,
) -> Result<()> {
    let mut modules = HashMap::new();
    for source in Source::ALL {
        let cubin = Unit { source: &source.text(), precision, architecture }.cubin()?;
        // SAFETY: a whole object file, as NVRTC made it.
        let module = unsafe { result::module::load_data(cubin.as_ptr().cast()) };
        modules.insert(source, module.map_err(driver("cuModuleLoadData"))?);
    }
    for kernel in Kernel::ALL {
        let (name, source) = kernel.place();
        let c_name = CString::new(name).map_err(|e| failed(&e.to_string()))?;
        // SAFETY: a module that was loaded.
        let function = unsafe { result::module::get_function(modules[&source], c_name) };
        let function = function.map_err(driver(&format!("cuModuleGetFunction {name}")))?;
        kernels.insert((kernel, precision), function);
    }
    Ok(())
}

/// Where a launch finds the value of an argument.
fn pointer(argument: &Argument) -> *mut c_void {
    match argument {
        Argument::Address(Address(value)) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::I32(value) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
        Argument::F64(value) => std::ptr::from_ref(value).cast_mut().cast(),
    }
}
