//! A GPU on the CPU: the engine's own kernels, compiled by a C compiler, and plain loops in place of the
//! libraries. What it cannot show is speed, and whether CUDA's libraries do what they are asked for.

use half::bf16;
use s4l::error::Result;
use s4l::memory;
use s4l::network::cuda::device::Card;
use s4l::network::cuda::kernels::{Kernel, Source};
use s4l::network::cuda::runtime::{
    Address, Argument, Convolution, Memory, Operands, Product, Products, Runtime,
};
use s4l::network::engine::Precision::{self, Bf16, F32};
use std::alloc::Layout;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// See the module.
pub struct Simulated {
    /// Whether blocks and their threads run from the last to the first one. Only a race shows it.
    pub descending: bool,
    /// Bytes of its memory.
    pub memory: usize,
    /// The place of the last `upload_ahead`.
    ahead: Cell<(u64, u64)>,
    used: Arc<AtomicUsize>,
}

impl Simulated {
    pub fn new(descending: bool) -> Simulated {
        Simulated { descending, memory: 4 << 30, ahead: Cell::default(), used: Arc::default() }
    }
}

/// A simulated GPU; or the one whose number is in $S4L_GPU, so that the same tests check a real one.
pub fn gpu(descending: bool) -> Box<dyn Runtime> {
    match std::env::var("S4L_GPU") {
        Ok(number) => Box::new(Card::open(number.parse().unwrap(), Bf16).unwrap()),
        Err(_) => Box::new(Simulated::new(descending)),
    }
}

/// Bytes of a known pattern on each side of memory: whatever writes there is found when the memory is freed.
const GUARD: usize = 256;
const PATTERN: u8 = 0xa5;

/// What memory has before it is written: not a number, in both precisions.
const POISON: u8 = 0xff;

/// Memory between guards.
struct Block {
    start: *mut u8,
    layout: Layout,
    used: Arc<AtomicUsize>,
}

// SAFETY: the block is this value's own.
unsafe impl Send for Block {}

impl Block {
    fn new(bytes: usize, used: &Arc<AtomicUsize>) -> Block {
        let layout = Layout::from_size_align(bytes + 2 * GUARD, GUARD).unwrap();
        // SAFETY: the size is not 0; the memory is then written as a whole.
        let start = unsafe { std::alloc::alloc(layout) };
        assert!(!start.is_null());
        used.fetch_add(layout.size(), Ordering::Relaxed);
        let mut block = Block { start, layout, used: used.clone() };
        let all = block.bytes();
        all.fill(PATTERN);
        all[GUARD..GUARD + bytes].fill(POISON);
        block
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: as allocated.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.layout.size()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let end = self.layout.size() - GUARD;
        let all = self.bytes();
        let whole = all[..GUARD].iter().chain(&all[end..]).all(|&byte| byte == PATTERN);
        self.used.fetch_sub(self.layout.size(), Ordering::Relaxed);
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.start, self.layout) };
        assert!(whole || std::thread::panicking(), "a kernel wrote outside of its memory");
    }
}

/// Values at an address.
///
/// # Safety
/// So many bytes there belong to memory of the runtime, which no one else uses now.
unsafe fn at<'a, T>(address: Address, values: usize) -> &'a mut [T] {
    assert!((address.0 as usize).is_multiple_of(align_of::<T>()));
    unsafe { std::slice::from_raw_parts_mut(address.0 as *mut T, values) }
}

/// Stored values in float64.
fn load(address: Address, values: usize, precision: Precision) -> Vec<f64> {
    // SAFETY: the engine gives the places of operands.
    unsafe {
        match precision {
            F32 => at::<f32>(address, values).iter().map(|&v| f64::from(v)).collect(),
            Bf16 => at::<bf16>(address, values).iter().map(|&v| f64::from(v)).collect(),
        }
    }
}

fn store(values: &[f64], address: Address, precision: Precision) {
    // SAFETY: as in `load`.
    unsafe {
        match precision {
            F32 => at::<f32>(address, values.len())
                .iter_mut()
                .zip(values)
                .for_each(|(to, v)| *to = *v as f32),
            Bf16 => at::<bf16>(address, values.len())
                .iter_mut()
                .zip(values)
                .for_each(|(to, v)| *to = bf16::from_f32(*v as f32)),
        }
    }
}

type Entry = unsafe extern "C" fn(*const *const c_void, c_uint, c_int) -> c_int;

/// A compiled kernel, and the types of its parameters.
struct Compiled {
    entry: Entry,
    parameters: Vec<String>,
}

/// A kernel in its source: the types of its parameters, and whether its threads wait for one another.
struct Signature {
    name: String,
    parameters: Vec<String>,
    barriers: bool,
}

fn signatures(text: &str) -> Vec<Signature> {
    let of_kernel = |part: &str| {
        let (name, rest) = part.split_once('(').unwrap();
        let (list, body) = rest.split_once(')').unwrap();
        let parameters = list.split(',').map(|parameter| {
            let start = parameter.rfind(|c: char| !c.is_alphanumeric() && c != '_').unwrap() + 1;
            parameter[..start].trim().to_string()
        });
        Signature {
            name: name.to_string(),
            parameters: parameters.collect(),
            barriers: body.contains("SHARED("),
        }
    };
    text.split("\nKERNEL ").skip(1).map(of_kernel).collect()
}

/// The kernels of a source, with a function for each that takes pointers to its arguments, as CUDA does.
fn compile(source: Source, precision: Precision) -> Vec<(String, Compiled)> {
    let folder = tempfile::tempdir().unwrap();
    let (file, object) = (folder.path().join("kernels.c"), folder.path().join("kernels.so"));
    let text = source.text();
    let mut program = format!("{}{text}", include_str!("gpu.h"));
    let signatures = signatures(&text);
    for Signature { name, parameters, barriers } in &signatures {
        let arguments = parameters.iter().enumerate();
        let arguments = arguments.map(|(i, kind)| format!("*({kind} *)a[{i}]"));
        let arguments = arguments.collect::<Vec<_>>().join(", ");
        program += &format!(
            "static void body_{name}(void **a) {{ {name}({arguments}); }}\n\
             int run_{name}(void **a, unsigned blocks, int descending) {{\n\
             return host_run(body_{name}, a, blocks, {}, descending); }}\n",
            i32::from(*barriers)
        );
    }
    std::fs::write(&file, program).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O2", "-march=native", "-ffp-contract=off", "-shared", "-fPIC", "-w"]);
    if precision == Bf16 {
        cc.arg("-DS4L_BF16");
    }
    let done = cc.arg(&file).arg("-o").arg(&object).arg("-lm").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let library = open(&object);
    let entries = signatures.into_iter().map(|Signature { name, parameters, .. }| {
        let entry = symbol(library, &format!("run_{name}"));
        (name, Compiled { entry, parameters })
    });
    entries.collect()
}

fn open(path: &Path) -> *mut c_void {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a library that was just made, without constructors.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!library.is_null(), "dlopen");
    library
}

fn symbol(library: *mut c_void, name: &str) -> Entry {
    let name = CString::new(name).unwrap();
    let name: *const c_char = name.as_ptr();
    // SAFETY: the library is never closed, and `compile` wrote the function with this type.
    unsafe {
        let symbol = libc::dlsym(library, name);
        assert!(!symbol.is_null(), "dlsym");
        std::mem::transmute::<*mut c_void, Entry>(symbol)
    }
}

/// All kernels in both precisions.
static KERNELS: LazyLock<HashMap<(Kernel, bool), Compiled>> = LazyLock::new(|| {
    let mut kernels = HashMap::new();
    for (source, precision) in Source::ALL.into_iter().flat_map(|s| [(s, F32), (s, Bf16)]) {
        for (name, compiled) in compile(source, precision) {
            let kernel = Kernel::ALL.into_iter().find(|k| k.place() == (&*name, source));
            let kernel = kernel.unwrap_or_else(|| panic!("{name} has no name in kernels.rs"));
            kernels.insert((kernel, precision == Bf16), compiled);
        }
    }
    assert_eq!(kernels.len(), 2 * Kernel::ALL.len());
    kernels
});

/// The C type that an argument may have.
fn fits(argument: &Argument, parameter: &str) -> bool {
    match argument {
        Argument::Address(_) => parameter.ends_with('*'),
        Argument::I32(_) => parameter == "int" || parameter == "u32",
        Argument::F32(_) => parameter == "float",
        Argument::F64(_) => parameter == "double",
    }
}

impl Runtime for Simulated {
    fn name(&self) -> String {
        "a simulated GPU".into()
    }

    fn free_bytes(&self) -> Result<usize> {
        Ok(self.memory.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    fn allocate(&self, bytes: usize) -> Result<Memory> {
        if bytes > self.free_bytes()? {
            return Err(memory::lacking("the test needs", bytes as u64));
        }
        let block = Block::new(bytes, &self.used);
        Ok(Memory::new(Address(block.start as u64).after(GUARD), block))
    }

    fn upload(&self, from: &[u8], to: Address) -> Result<()> {
        // SAFETY: the engine gives a place with so much room.
        unsafe { at::<u8>(to, from.len()) }.copy_from_slice(from);
        Ok(())
    }

    /// The calls before may be under way, with what the last one brought.
    fn upload_ahead(&self, from: &[u8], to: Address) -> Result<()> {
        let place = (to.0, to.0 + from.len() as u64);
        let last = self.ahead.replace(place);
        assert!(place.1 <= last.0 || last.1 <= place.0, "a copy into images that are in use");
        self.upload(from, to)
    }

    fn download(&self, from: Address, to: &mut [u8]) -> Result<()> {
        // SAFETY: as in `upload`.
        to.copy_from_slice(unsafe { at::<u8>(from, to.len()) });
        Ok(())
    }

    fn clear(&self, at_: Address, bytes: usize) -> Result<()> {
        // SAFETY: as in `upload`.
        unsafe { at::<u8>(at_, bytes) }.fill(0);
        Ok(())
    }

    fn launch(
        &self,
        kernel: Kernel,
        precision: Precision,
        blocks: u32,
        arguments: &[Argument],
    ) -> Result<()> {
        let compiled = &KERNELS[&(kernel, precision == Bf16)];
        assert_eq!(arguments.len(), compiled.parameters.len(), "arguments of {kernel:?}");
        for (argument, parameter) in arguments.iter().zip(&compiled.parameters) {
            assert!(fits(argument, parameter), "{kernel:?}: {argument:?} for {parameter}");
        }
        let pointers: Vec<*const c_void> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Address(v) => (&raw const v.0).cast(),
                Argument::I32(v) => (&raw const *v).cast(),
                Argument::F32(v) => (&raw const *v).cast(),
                Argument::F64(v) => (&raw const *v).cast(),
            })
            .collect();
        // SAFETY: the arguments have the types of the parameters; the engine gives places with enough room,
        // and guards tell if it does not.
        let torn =
            unsafe { (compiled.entry)(pointers.as_ptr(), blocks, i32::from(self.descending)) };
        assert_eq!(torn, 0, "{kernel:?}: not all threads come to a barrier");
        Ok(())
    }

    fn convolve(&self, shape: &Convolution, what: Products, at: &Operands) -> Result<()> {
        let s = shape;
        let outputs = s.n * s.output(s.height) * s.output(s.width) * s.outputs;
        let images = s.n * s.height * s.width * s.channels;
        let weights = s.outputs * s.kernel * s.kernel * s.channels;
        for place in [at.images, at.weights, at.outputs] {
            assert_eq!(place.0 % 256, 0, "an operand that is not aligned");
        }
        assert!(s.channels.is_multiple_of(8) && s.outputs.is_multiple_of(8));
        let load = |address, values| load(address, values, s.precision);
        let (to, made) = match what {
            Products::Forward => {
                let (x, w) = (load(at.images, images), load(at.weights, weights));
                (at.outputs, convolved(s, &x, &w, outputs))
            }
            Products::InputGradient => {
                let (w, g) = (load(at.weights, weights), load(at.outputs, outputs));
                (at.images, input_gradient(s, &w, &g, images))
            }
            Products::WeightGradient => {
                let (x, g) = (load(at.images, images), load(at.outputs, outputs));
                (at.weights, weight_gradient(s, &x, &g, weights))
            }
        };
        store(&made, to, s.precision);
        Ok(())
    }

    fn multiply(&self, p: &Product, a: Address, b: Address, out: Address) -> Result<()> {
        // SAFETY: the engine gives the places of matrices of these shapes.
        let (a, b, out) = unsafe {
            let (a, b) = (at::<f32>(a, p.rows * p.inner), at::<f32>(b, p.inner * p.columns));
            (a, b, at::<f32>(out, p.rows * p.columns))
        };
        for (i, out) in out.iter_mut().enumerate() {
            let (row, column) = (i / p.columns, i % p.columns);
            let terms = (0..p.inner).map(|k| {
                let a = a[if p.transposed_a { k * p.rows + row } else { row * p.inner + k }];
                let b =
                    b[if p.transposed_b { column * p.inner + k } else { k * p.columns + column }];
                f64::from(a) * f64::from(b)
            });
            let sum: f64 = terms.sum();
            *out = if p.add { (f64::from(*out) + sum) as f32 } else { sum as f32 };
        }
        Ok(())
    }
}

/// Calls `each` with the offsets of an output pixel, an input pixel and the tap between them.
fn each_tap(s: &Convolution, mut each: impl FnMut(usize, usize, usize)) {
    let (rows, columns) = (s.output(s.height), s.output(s.width));
    let pixels = (0..s.n).flat_map(|n| (0..rows).map(move |y| (n, y)));
    for ((n, y), x) in pixels.flat_map(|ny| (0..columns).map(move |x| (ny, x))) {
        let out = ((n * rows + y) * columns + x) * s.outputs;
        for tap in 0..s.kernel * s.kernel {
            let row = (y * s.stride + tap / s.kernel).checked_sub(s.kernel / 2);
            let column = (x * s.stride + tap % s.kernel).checked_sub(s.kernel / 2);
            let (Some(row), Some(column)) = (row, column) else { continue };
            if row < s.height && column < s.width {
                each(out, ((n * s.height + row) * s.width + column) * s.channels, tap);
            }
        }
    }
}

fn convolved(s: &Convolution, x: &[f64], w: &[f64], outputs: usize) -> Vec<f64> {
    let taps = s.kernel * s.kernel;
    // [taps, channels, outputs], so that the inner loop runs over outputs.
    let mut turned = vec![0.0; w.len()];
    for (i, &w) in w.iter().enumerate() {
        let (output, row) = (i / (taps * s.channels), i % (taps * s.channels));
        turned[row * s.outputs + output] = w;
    }
    let mut made = vec![0.0; outputs];
    each_tap(s, |out, from, tap| {
        let rows = turned[tap * s.channels * s.outputs..].chunks_exact(s.outputs);
        for (x, w) in x[from..from + s.channels].iter().zip(rows) {
            made[out..out + s.outputs].iter_mut().zip(w).for_each(|(m, w)| *m += x * w);
        }
    });
    made
}

fn input_gradient(s: &Convolution, w: &[f64], g: &[f64], images: usize) -> Vec<f64> {
    let taps = s.kernel * s.kernel;
    let mut made = vec![0.0; images];
    each_tap(s, |out, to, tap| {
        for (k, g) in g[out..out + s.outputs].iter().enumerate() {
            let w = &w[(k * taps + tap) * s.channels..][..s.channels];
            made[to..to + s.channels].iter_mut().zip(w).for_each(|(m, w)| *m += g * w);
        }
    });
    made
}

fn weight_gradient(s: &Convolution, x: &[f64], g: &[f64], weights: usize) -> Vec<f64> {
    let taps = s.kernel * s.kernel;
    let mut made = vec![0.0; weights];
    each_tap(s, |out, from, tap| {
        let x = &x[from..from + s.channels];
        for (k, g) in g[out..out + s.outputs].iter().enumerate() {
            let made = &mut made[(k * taps + tap) * s.channels..][..s.channels];
            made.iter_mut().zip(x).for_each(|(m, x)| *m += g * x);
        }
    });
    made
}
