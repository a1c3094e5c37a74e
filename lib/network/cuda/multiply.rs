//! Products of float32 matrices by cuBLASLt: those of the heads.

use super::runtime::{Address, Product};
use super::status::failed;
use crate::error::{Error, Result};
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use std::collections::HashMap;
use std::ffi::c_void;
use sys::cublasLtMatmulDescAttributes_t as Attribute;
use sys::cublasLtMatmulPreferenceAttributes_t as Preference;

/// Bytes to which matrices are aligned: heads have any number of outputs.
const ALIGNMENT: u32 = 4;

fn failure(call: &str) -> impl Fn(CublasError) -> Error + '_ {
    move |e| failed(&format!("{call}: {e}"))
}

/// cuBLASLt on a GPU, and what it said about each product.
pub struct Multiplier {
    handle: sys::cublasLtHandle_t,
    made: HashMap<Product, Multiplication>,
}

impl Multiplier {
    pub fn new() -> Result<Multiplier> {
        let handle = result::create_handle().map_err(failure("cublasLtCreate"))?;
        Ok(Multiplier { handle, made: HashMap::new() })
    }

    /// # Safety
    /// The matrices lie at these addresses of the GPU, and its stream is one.
    pub unsafe fn run(
        &mut self,
        shape: &Product,
        [a, b, out]: [Address; 3],
        stream: sys::cudaStream_t,
    ) -> Result<()> {
        if !self.made.contains_key(shape) {
            self.made.insert(*shape, Multiplication::new(self.handle, shape)?);
        }
        let how = &self.made[shape];
        let (one, beta) = (1f32, if shape.add { 1f32 } else { 0f32 });
        let pointer = |address: Address| address.0 as *mut c_void;
        // SAFETY: as the caller promises; the descriptors are those of the product.
        let run = unsafe {
            result::matmul(
                self.handle,
                how.shape.raw,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                pointer(b),
                how.b.raw,
                pointer(a),
                how.a.raw,
                pointer(out),
                how.out.raw,
                pointer(out),
                how.out.raw,
                &how.algorithm,
                std::ptr::null_mut(),
                0,
                stream,
            )
        };
        run.map_err(failure("cublasLtMatmul"))
    }
}

impl Drop for Multiplier {
    fn drop(&mut self) {
        // SAFETY: it was created, and is not used any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// How a product is computed. cuBLASLt's matrices are column-major, and so read, our row-major ones are transposed:
/// it computes the transpose of `out` from those of b and a, in this order.
struct Multiplication {
    shape: Owned<sys::cublasLtMatmulDesc_t>,
    b: Owned<sys::cublasLtMatrixLayout_t>,
    a: Owned<sys::cublasLtMatrixLayout_t>,
    out: Owned<sys::cublasLtMatrixLayout_t>,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Multiplication {
    fn new(handle: sys::cublasLtHandle_t, product: &Product) -> Result<Multiplication> {
        let Product { rows, columns, inner, transposed_a, transposed_b, .. } = *product;
        let shape = shape(transposed_b, transposed_a)?;
        let b = matrix(columns, inner, transposed_b)?;
        let a = matrix(inner, rows, transposed_a)?;
        let out = matrix(columns, rows, false)?;
        let wish = wish()?;
        // SAFETY: all descriptors are there.
        let found = unsafe {
            result::get_matmul_algo_heuristic(
                handle, shape.raw, b.raw, a.raw, out.raw, out.raw, wish.raw,
            )
        };
        let found = found.map_err(failure("cublasLtMatmulAlgoGetHeuristic"))?;
        Ok(Multiplication { shape, b, a, out, algorithm: found.algo })
    }
}

/// A descriptor of cuBLASLt's.
struct Owned<T: Copy> {
    raw: T,
    destroy: unsafe fn(T) -> std::result::Result<(), CublasError>,
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it was created, and is not used any more.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

/// The product of two matrices, each transposed or not. `COMPUTE_32F` does not round to TF32.
fn shape(first: bool, second: bool) -> Result<Owned<sys::cublasLtMatmulDesc_t>> {
    let (computes, values) =
        (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType_t::CUDA_R_32F);
    let raw = result::create_matmul_desc(computes, values);
    let raw = raw.map_err(failure("cublasLtMatmulDescCreate"))?;
    let shape = Owned { raw, destroy: result::destroy_matmul_desc };
    for (name, transposed) in [
        (Attribute::CUBLASLT_MATMUL_DESC_TRANSA, first),
        (Attribute::CUBLASLT_MATMUL_DESC_TRANSB, second),
    ] {
        let is = i32::from(transposed);
        // SAFETY: the attribute is a number of 32 bits.
        let set = unsafe {
            result::set_matmul_desc_attribute(raw, name, (&raw const is).cast(), size_of_val(&is))
        };
        set.map_err(failure("cublasLtMatmulDescSetAttribute"))?;
    }
    Ok(shape)
}

/// A column-major matrix, which is stored the other way round if it is `transposed`.
fn matrix(
    rows: usize,
    columns: usize,
    transposed: bool,
) -> Result<Owned<sys::cublasLtMatrixLayout_t>> {
    let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
    let values = sys::cudaDataType_t::CUDA_R_32F;
    let raw = result::create_matrix_layout(values, rows as u64, columns as u64, rows.max(1) as i64);
    let raw = raw.map_err(failure("cublasLtMatrixLayoutCreate"))?;
    Ok(Owned { raw, destroy: result::destroy_matrix_layout })
}

/// What an algorithm must do: no memory beside the matrices, and no sum that is split among blocks, whose parts
/// could be added in any order.
fn wish() -> Result<Owned<sys::cublasLtMatmulPreference_t>> {
    let raw = result::create_matmul_pref().map_err(failure("cublasLtMatmulPreferenceCreate"))?;
    let wish = Owned { raw, destroy: result::destroy_matmul_pref };
    let set = |name, value: &u32| {
        // SAFETY: these attributes are numbers of 32 bits.
        let set = unsafe {
            let value = std::ptr::from_ref(value);
            result::set_matmul_pref_attribute(raw, name, value.cast(), size_of::<u32>())
        };
        set.map_err(failure("cublasLtMatmulPreferenceSetAttribute"))
    };
    let none = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_NONE as u32;
    set(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none)?;
    for matrix in [
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ] {
        set(matrix, &ALIGNMENT)?;
    }
    Ok(wish)
}
