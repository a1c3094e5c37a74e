//! The preparation of images as nodes: the arithmetic of `augment`, operator by operator, so the network
//! gets the same input as in `s4l-eval`.

use super::graph::{Attribute, Graph, Name};
use super::proto::data_type;
use crate::augment::Act;
use crate::pixels::Size;

/// Rows and columns of `[batch, height, width, channels]`.
const ROWS: i64 = 1;
const COLUMNS: i64 = 2;

/// From bytes `[batch, height, width, channels]` of any size to `[batch, channels, height, width]` of
/// `size`, named `to`. All images of a batch have the same size.
pub fn add(
    graph: &mut Graph,
    from: &str,
    to: &str,
    acts: &[Act],
    (size, channels): (Size, usize),
) -> Name {
    let mut images = cast(graph, from, data_type::FLOAT);
    for act in acts {
        images = match *act {
            Act::Crop(part) => crop(graph, &images, part),
            Act::CropFraction => crop_fraction(graph, &images),
            Act::Resize { size, .. } => {
                let rows = linear(graph, &images, ROWS, size.height);
                linear(graph, &rows, COLUMNS, size.width)
            }
            Act::ResizeSmall(side) => resize_small(graph, &images, side, channels),
            Act::Range { min, max } => range(graph, &images, min, max),
            Act::Gray => {
                let axes = [("axes", Attribute::Ints(&[3])), ("keepdims", Attribute::Int(1))];
                let gray = graph.add("ReduceMean", &[&images], &axes);
                graph.add("Concat", &[&*gray; 3], &[("axis", Attribute::Int(3))])
            }
            Act::Standardize => standardize(graph, &images),
        };
    }
    // The size differs only if a crop did not fit. Then this node fails.
    let shape = [0, size.height, size.width, channels].map(|n| n as i64);
    let shape = graph.ints(&shape);
    let images = graph.add("Reshape", &[&images, &shape], &[]);
    graph.add_named(to, "Transpose", &[&images], &[("perm", Attribute::Ints(&[0, 3, 1, 2]))])
}

fn cast(graph: &mut Graph, from: &str, kind: i32) -> Name {
    graph.add("Cast", &[from], &[("to", Attribute::Int(kind.into()))])
}

/// The lengths of axes `start..end`.
fn lengths(graph: &mut Graph, images: &str, start: i64, end: i64) -> Name {
    let axes = [("start", Attribute::Int(start)), ("end", Attribute::Int(end))];
    graph.add("Shape", &[images], &axes)
}

/// The rows and columns from `start` to `end`.
fn window(graph: &mut Graph, images: &str, start: &str, end: &str) -> Name {
    let axes = graph.ints(&[ROWS, COLUMNS]);
    graph.add("Slice", &[images, start, end, &axes], &[])
}

/// The window of `crop::central`.
fn crop(graph: &mut Graph, images: &str, part: Size) -> Name {
    let whole = lengths(graph, images, ROWS, COLUMNS + 1);
    let part = graph.ints(&[part.height as i64, part.width as i64]);
    let two = graph.int(2);
    let free = graph.add("Sub", &[&whole, &part], &[]);
    let start = graph.add("Div", &[&free, &two], &[]);
    let end = graph.add("Add", &[&start, &part], &[]);
    window(graph, images, &start, &end)
}

/// The window of `crop::central_fraction`.
fn crop_fraction(graph: &mut Graph, images: &str) -> Name {
    let whole = lengths(graph, images, ROWS, COLUMNS + 1);
    let sixteen = graph.int(16);
    let start = graph.add("Div", &[&whole, &sixteen], &[]);
    let end = graph.add("Sub", &[&whole, &start], &[]);
    window(graph, images, &start, &end)
}

/// One axis by `Interpolation::LegacyBilinear`: output index i is at i * n / `output`.
fn linear(graph: &mut Graph, images: &str, axis: i64, output: usize) -> Name {
    let length = lengths(graph, images, axis, axis + 1);
    let indices: Vec<f32> = (0..output).map(|i| i as f32).collect();
    let indices = graph.floats(&format!("indices.{axis}.{output}.{images}"), &[output], &indices);
    let (count, one, unit) = (graph.float(output as f32), graph.float(1.0), graph.int(1));
    let float_length = cast(graph, &length, data_type::FLOAT);
    let scale = graph.add("Div", &[&float_length, &count], &[]);
    let position = graph.add("Mul", &[&indices, &scale], &[]);
    let floor = graph.add("Floor", &[&position], &[]);
    let last = graph.add("Sub", &[&length, &unit], &[]);
    let low = cast(graph, &floor, data_type::INT64);
    let low = graph.add("Min", &[&low, &last], &[]);
    let high = graph.add("Add", &[&low, &unit], &[]);
    let high = graph.add("Min", &[&high, &last], &[]);
    let fraction = graph.add("Sub", &[&position, &floor], &[]);
    // So that the fraction varies along the axis.
    let behind: Vec<i64> = (1..=3 - axis).collect();
    let behind = graph.ints(&behind);
    let fraction = graph.add("Unsqueeze", &[&fraction, &behind], &[]);
    let rest = graph.add("Sub", &[&one, &fraction], &[]);
    let mut part = |index: &str, weight: &str| {
        let part = graph.add("Gather", &[images, index], &[("axis", Attribute::Int(axis))]);
        graph.add("Mul", &[&part, weight], &[])
    };
    let (low, high) = (part(&low, &rest), part(&high, &fraction));
    graph.add("Add", &[&low, &high], &[])
}

/// Resizes the smaller side to `side`, by `resize::smaller_side` and `Interpolation::Area`.
fn resize_small(graph: &mut Graph, images: &str, side: usize, channels: usize) -> Name {
    let whole = lengths(graph, images, ROWS, COLUMNS + 1);
    let whole = cast(graph, &whole, data_type::FLOAT);
    let smaller = graph.add("ReduceMin", &[&whole], &[("keepdims", Attribute::Int(1))]);
    let side = graph.float(side as f32);
    let ratio = graph.add("Div", &[&side, &smaller], &[]);
    let scaled = graph.add("Mul", &[&whole, &ratio], &[]);
    let outputs = graph.add("Round", &[&scaled], &[]);
    let mut shares_of = |nth: i64| {
        let nth = graph.int(nth);
        let [input, output] = [&whole, &outputs].map(|of| graph.add("Gather", &[of, &nth], &[]));
        shares(graph, &input, &output)
    };
    let (rows, columns) = (shares_of(0), shares_of(1));
    let (long, back) = (graph.ints(&[0, 0, -1]), graph.ints(&[0, 0, -1, channels as i64]));
    let images = graph.add("Reshape", &[images, &long], &[]);
    let images = graph.add("MatMul", &[&rows, &images], &[]);
    let images = graph.add("Reshape", &[&images, &back], &[]);
    graph.add("MatMul", &[&columns, &images], &[])
}

/// For each output, the share of its box that each input covers: `[output, input]`.
fn shares(graph: &mut Graph, input: &str, output: &str) -> Name {
    let (zero, one) = (graph.float(0.0), graph.float(1.0));
    // Beyond the last input, its value is repeated.
    let far = graph.ints(&[1]);
    let endless = graph.float(f32::MAX);
    let endless = graph.add("Expand", &[&endless, &far], &[]);
    let scale = graph.add("Div", &[input, output], &[]);
    let indices = graph.add("Range", &[&zero, output, &one], &[]);
    let start = graph.add("Mul", &[&indices, &scale], &[]);
    let next = graph.add("Add", &[&indices, &one], &[]);
    let end = graph.add("Mul", &[&next, &scale], &[]);
    let low = graph.add("Range", &[&zero, input, &one], &[]);
    let high = graph.add("Range", &[&one, input, &one], &[]);
    let high = graph.add("Concat", &[&high, &endless], &[("axis", Attribute::Int(0))]);
    let behind = graph.ints(&[1]);
    let [start, end] = [start, end].map(|of| graph.add("Unsqueeze", &[&of, &behind], &[]));
    let from = graph.add("Max", &[&start, &low], &[]);
    let to = graph.add("Min", &[&end, &high], &[]);
    let covered = graph.add("Sub", &[&to, &from], &[]);
    let covered = graph.add("Relu", &[&covered], &[]);
    graph.add("Div", &[&covered, &scale], &[])
}

/// `color::value_range`.
fn range(graph: &mut Graph, images: &str, min: f32, max: f32) -> Name {
    let [full, width, min] = [255.0, max - min, min].map(|value| graph.float(value));
    let share = graph.add("Div", &[images, &full], &[]);
    let share = graph.add("Mul", &[&share, &width], &[]);
    graph.add("Add", &[&share, &min], &[])
}

/// `color::standardize`.
fn standardize(graph: &mut Graph, images: &str) -> Name {
    let axes = || [("axes", Attribute::Ints(&[1, 2, 3])), ("keepdims", Attribute::Int(1))];
    let mean = graph.add("ReduceMean", &[images], &axes());
    let centred = graph.add("Sub", &[images, &mean], &[]);
    let squares = graph.add("Mul", &[&centred, &centred], &[]);
    let variance = graph.add("ReduceMean", &[&squares], &axes());
    let deviation = graph.add("Sqrt", &[&variance], &[]);
    let values = lengths(graph, images, 1, 4);
    let values = cast(graph, &values, data_type::FLOAT);
    let values = graph.add("ReduceProd", &[&values], &[("keepdims", Attribute::Int(0))]);
    let root = graph.add("Sqrt", &[&values], &[]);
    let least = graph.add("Reciprocal", &[&root], &[]);
    let deviation = graph.add("Max", &[&deviation, &least], &[]);
    graph.add("Div", &[&centred, &deviation], &[])
}
