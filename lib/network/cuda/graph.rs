//! A convolution as a graph of cuDNN's, the engines that can compute it, and a plan of one of them.

use super::descriptor::{Descriptor, Knob, Note, Pointer, failure};
use super::runtime::{Address, Convolution, Products};
use crate::error::Result;
use crate::network::engine::Precision;
use cudarc::cudnn::sys;
use std::fmt::Write;
use std::rc::Rc;
use sys::cudnnBackendAttributeName_t as Name;
use sys::cudnnBackendDescriptorType_t as Kind;
use sys::cudnnBackendHeurMode_t as Mode;
use sys::cudnnDataType_t as DataType;
use sys::cudnnStatus_t as Status;

/// Numbers of a graph's tensors: images, kernel and outputs, or their gradients.
const TENSORS: [i64; 3] = [1, 2, 3];

/// The statuses by which cuDNN says that an engine cannot do what is asked of it.
const NOT_SUPPORTED: std::ops::Range<u32> = 3000..4000;

/// More notes and knobs than an engine has.
const MOST: usize = 64;

/// The GPU that plans are made for.
pub enum Target {
    /// One that is there.
    Card(sys::cudnnHandle_t),
    /// One that is described. Its plans can be made anywhere, and not run.
    Described(Rc<Descriptor>),
}

impl Target {
    /// By cuDNN's own description of a GPU, in JSON.
    pub fn described(json: &str) -> Result<Target> {
        let properties = Descriptor::new(Kind::CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR)?;
        let name = Name::CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION;
        Ok(Target::Described(properties.set(name, json.as_bytes())?.finish()?))
    }
}

/// A convolution, or one of its gradients, for a GPU.
pub struct Graph<'a> {
    target: &'a Target,
    raw: Rc<Descriptor>,
}

impl Graph<'_> {
    pub fn new<'a>(target: &'a Target, shape: &Convolution, what: Products) -> Result<Graph<'a>> {
        let operation = operation(shape, what)?;
        let raw = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
            .part(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &operation)?;
        let raw = match target {
            Target::Card(card) => raw.set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, &[*card])?,
            Target::Described(_) => raw,
        };
        Ok(Graph { target, raw: raw.finish()? })
    }

    /// Engines with their knobs, the one that cuDNN thinks is the fastest first.
    pub fn engines(&self, mode: Mode) -> Result<Vec<Engine>> {
        let asked = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .part(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &self.raw)?
            .set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, &[mode])?;
        let asked = match self.target {
            Target::Card(_) => asked,
            Target::Described(card) => asked.part(Name::CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, card)?,
        };
        let kind = Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
        let found = asked.finish()?.parts(Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, kind)?;
        Ok(found.into_iter().map(|raw| Engine { raw: Rc::new(raw) }).collect())
    }

    /// The plan of an engine; `None` if the engine cannot do this.
    pub fn plan(&self, engine: &Engine) -> Result<Option<Plan>> {
        let raw = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .part(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &engine.raw)?;
        let raw = match self.target {
            Target::Card(card) => raw.set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, &[*card])?,
            Target::Described(card) => {
                raw.part(Name::CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, card)?
            }
        };
        match raw.finalize() {
            Status::CUDNN_STATUS_SUCCESS => {}
            failed if NOT_SUPPORTED.contains(&(failed as u32)) => return Ok(None),
            failed => return Err(failure(failed, "cudnnBackendFinalize of a plan")),
        }
        let bytes = raw.get::<i64>(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 1)?;
        let workspace = bytes.first().map_or(0, |&bytes| bytes as usize);
        Ok(Some(Plan { raw, workspace, engine: engine.name()? }))
    }
}

/// An engine of cuDNN's, with a setting of its knobs.
pub struct Engine {
    raw: Rc<Descriptor>,
}

impl Engine {
    fn engine(&self) -> Result<Descriptor> {
        let kind = Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR;
        self.raw.first(Name::CUDNN_ATTR_ENGINECFG_ENGINE, kind)
    }

    /// What it does to numbers.
    pub fn notes(&self) -> Result<Vec<Note>> {
        self.engine()?.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, MOST)
    }

    /// Its number and its knobs, as other programs write them: `eng45_k2=3`.
    fn name(&self) -> Result<String> {
        let number = self.engine()?.get::<i64>(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, 1)?;
        let mut name = format!("eng{}", number.first().copied().unwrap_or(-1));
        let kind = Kind::CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR;
        for knob in self.raw.parts(Name::CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, kind)? {
            let which = knob.get::<Knob>(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, 1)?;
            let value = knob.get::<i64>(Name::CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, 1)?;
            for (Knob(which), value) in which.into_iter().zip(value) {
                let _ = write!(name, "_k{which}={value}");
            }
        }
        Ok(name)
    }
}

/// A way to compute a graph.
pub struct Plan {
    raw: Descriptor,
    /// Bytes of memory that it needs while it runs.
    pub workspace: usize,
    /// Its engine and knobs.
    pub engine: String,
}

impl Plan {
    /// Runs it on a card, on images, kernel and outputs.
    pub fn run(&self, card: sys::cudnnHandle_t, data: [Address; 3], work: Address) -> Result<()> {
        let given = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &TENSORS)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &data.map(pointer))?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, &[pointer(work)])?
            .finish()?;
        match self.raw.execute(card, &given) {
            Status::CUDNN_STATUS_SUCCESS => Ok(()),
            failed => Err(failure(failed, "cudnnBackendExecute")),
        }
    }
}

fn pointer(address: Address) -> Pointer {
    Pointer(address.0)
}

fn data_type(precision: Precision) -> DataType {
    match precision {
        Precision::F32 => DataType::CUDNN_DATA_FLOAT,
        Precision::Bf16 => DataType::CUDNN_DATA_BFLOAT16,
    }
}

fn size(value: usize) -> i64 {
    value as i64
}

/// A tensor of (n, channels, height, width), whose channels lie together.
fn tensor(number: i64, shape: [usize; 4], precision: Precision) -> Result<Rc<Descriptor>> {
    let [_, channels, height, width] = shape;
    let strides = [height * width * channels, 1, width * channels, channels];
    Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[number])?
        .set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[data_type(precision)])?
        .set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[16i64])?
        .set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &shape.map(size))?
        .set(Name::CUDNN_ATTR_TENSOR_STRIDES, &strides.map(size))?
        .finish()
}

/// How the kernel moves, over images that are padded on each side. Sums are made in float32.
fn movement(shape: &Convolution) -> Result<Rc<Descriptor>> {
    let mode = sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let both = |value: usize| [size(value); 2];
    Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, &[DataType::CUDNN_DATA_FLOAT])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE, &[mode])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2i64])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &both(1))?
        .set(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &both(shape.stride))?
        .set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &both(shape.kernel / 2))?
        .set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &both(shape.kernel / 2))?
        .finish()
}

/// The names of an operation's attributes: how the kernel moves; images, kernel, outputs; their factors.
fn names(what: Products) -> (Kind, Name, [Name; 3], [Name; 2]) {
    use Name::*;
    match what {
        Products::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            ],
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Products::InputGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            ],
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Products::WeightGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
            ],
            [
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    }
}

fn operation(shape: &Convolution, what: Products) -> Result<Rc<Descriptor>> {
    let (kind, moves, operands, factors) = names(what);
    let (height, width) = (shape.output(shape.height), shape.output(shape.width));
    let shapes = [
        [shape.n, shape.channels, shape.height, shape.width],
        [shape.outputs, shape.channels, shape.kernel, shape.kernel],
        [shape.n, shape.outputs, height, width],
    ];
    let mut operation = Descriptor::new(kind)?.part(moves, &movement(shape)?)?;
    for ((number, shape_of), name) in TENSORS.into_iter().zip(shapes).zip(operands) {
        operation = operation.part(name, &tensor(number, shape_of, shape.precision)?)?;
    }
    // The product replaces what is there.
    operation.set(factors[0], &[1f32])?.set(factors[1], &[0f32])?.finish()
}
