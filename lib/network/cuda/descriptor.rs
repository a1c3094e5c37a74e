//! Descriptors of cuDNN's backend: everything there is one. It is created, gets its attributes, is finished,
//! and then tells others.

use super::status;
use crate::error::{Error, Result};
use cudarc::cudnn::sys;
use std::ffi::{CStr, c_char};
use std::rc::Rc;
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendAttributeType_t as Type;
use sys::cudnnBackendDescriptorType_t as Kind;
use sys::cudnnStatus_t as Status;

/// A value of an attribute, as it lies in memory.
pub trait Value: Copy {
    const TYPE: Type;
}

/// What an engine does to numbers. A number, because a newer cuDNN may have notes that are unknown here.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(transparent)]
pub struct Note(u32);

impl Note {
    pub const TENSOR_CORE: Note = Note(0);
    pub const DOWN_CONVERT_INPUTS: Note = Note(1);
    pub const REDUCED_PRECISION_REDUCTION: Note = Note(2);
    pub const NONDETERMINISTIC: Note = Note(4);
}

/// The number of a knob of an engine.
#[derive(Debug, Clone, Copy, Default)]
#[repr(transparent)]
pub struct Knob(pub u32);

/// A place in the memory of a GPU.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Pointer(pub u64);

macro_rules! values {
    ($($value:ty: $name:ident),+) => {
        $(impl Value for $value {
            const TYPE: Type = Type::$name;
        })+
    };
}

values! {
    i64: CUDNN_TYPE_INT64,
    f32: CUDNN_TYPE_FLOAT,
    u8: CUDNN_TYPE_CHAR,
    Note: CUDNN_TYPE_NUMERICAL_NOTE,
    Knob: CUDNN_TYPE_KNOB_TYPE,
    Pointer: CUDNN_TYPE_VOID_PTR,
    sys::cudnnHandle_t: CUDNN_TYPE_HANDLE,
    sys::cudnnBackendDescriptor_t: CUDNN_TYPE_BACKEND_DESCRIPTOR,
    sys::cudnnDataType_t: CUDNN_TYPE_DATA_TYPE,
    sys::cudnnConvolutionMode_t: CUDNN_TYPE_CONVOLUTION_MODE,
    sys::cudnnBackendHeurMode_t: CUDNN_TYPE_HEUR_MODE
}

/// A descriptor of cuDNN.
pub struct Descriptor {
    raw: sys::cudnnBackendDescriptor_t,
    /// Those that it names, for they must not end before it.
    parts: Vec<Rc<Descriptor>>,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: it was created, and nobody uses it any more. If cuDNN fails, there is nothing to do.
        unsafe { sys::cudnnBackendDestroyDescriptor(self.raw) };
    }
}

impl Descriptor {
    pub fn new(kind: Kind) -> Result<Descriptor> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: it writes one pointer.
        let made = unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) };
        check(made, "cudnnBackendCreateDescriptor", kind)?;
        Ok(Descriptor { raw, parts: Vec::new() })
    }

    pub fn set<T: Value>(self, name: Name, values: &[T]) -> Result<Descriptor> {
        let (count, values) = (values.len() as i64, values.as_ptr().cast());
        // SAFETY: `values` are `count` values of this type.
        let set = unsafe { sys::cudnnBackendSetAttribute(self.raw, name, T::TYPE, count, values) };
        check(set, "cudnnBackendSetAttribute", name)?;
        Ok(self)
    }

    pub fn part(mut self, name: Name, part: &Rc<Descriptor>) -> Result<Descriptor> {
        self.parts.push(part.clone());
        self.set(name, &[part.raw])
    }

    pub fn finish(self) -> Result<Rc<Descriptor>> {
        check(self.finalize(), "cudnnBackendFinalize", "")?;
        Ok(Rc::new(self))
    }

    pub fn finalize(&self) -> Status {
        // SAFETY: a descriptor that was created.
        unsafe { sys::cudnnBackendFinalize(self.raw) }
    }

    /// Runs a plan on a card.
    pub fn execute(&self, card: sys::cudnnHandle_t, pack: &Descriptor) -> Status {
        // SAFETY: both are finished, and the card is the one that the plan was made for. The memory is that of the
        // engine's, of the sizes that the plan knows.
        unsafe { sys::cudnnBackendExecute(card, self.raw, pack.raw) }
    }

    /// At most `most` values of an attribute.
    pub fn get<T: Value + Default>(&self, name: Name, most: usize) -> Result<Vec<T>> {
        let mut values = vec![T::default(); most];
        self.fill(name, &mut values)?;
        Ok(values)
    }

    /// Fills `values`, and cuts off those that there are not.
    fn fill<T: Value>(&self, name: Name, values: &mut Vec<T>) -> Result<()> {
        let (room, mut count) = (values.len() as i64, 0);
        let to = values.as_mut_ptr().cast();
        // SAFETY: there is room for that many values of this type, and any bits are one.
        let got =
            unsafe { sys::cudnnBackendGetAttribute(self.raw, name, T::TYPE, room, &mut count, to) };
        check(got, "cudnnBackendGetAttribute", name)?;
        values.truncate(count.max(0) as usize);
        Ok(())
    }

    /// The descriptors that are an attribute.
    pub fn parts(&self, name: Name, kind: Kind) -> Result<Vec<Descriptor>> {
        let mut count = 0;
        let (none, raw) = (std::ptr::null_mut(), sys::cudnnBackendDescriptor_t::TYPE);
        // SAFETY: it writes the number alone, as there is no room for values.
        let got =
            unsafe { sys::cudnnBackendGetAttribute(self.raw, name, raw, 0, &mut count, none) };
        check(got, "cudnnBackendGetAttribute", name)?;
        let mut parts = (0..count).map(|_| Descriptor::new(kind)).collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<_> = parts.iter().map(|part| part.raw).collect();
        if !raw.is_empty() {
            self.fill(name, &mut raw)?;
        }
        parts.truncate(raw.len());
        Ok(parts)
    }

    pub fn first(&self, name: Name, kind: Kind) -> Result<Descriptor> {
        let part = Descriptor::new(kind)?;
        self.fill(name, &mut vec![part.raw])?;
        Ok(part)
    }
}

fn check(status: Status, call: &str, what: impl std::fmt::Debug) -> Result<()> {
    match status {
        Status::CUDNN_STATUS_SUCCESS => Ok(()),
        failed => Err(failure(failed, &format!("{call} {what:?}"))),
    }
}

/// The error of a call of cuDNN's.
pub fn failure(failed: Status, call: &str) -> Error {
    let mut text = [0 as c_char; 512];
    // SAFETY: it writes a string that fits and ends with 0.
    let said = unsafe {
        sys::cudnnGetLastErrorString(text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr()).to_string_lossy()
    };
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    status::failed(&format!("{call}: {failed:?} {said}"))
}
