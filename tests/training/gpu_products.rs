//! Convolutions, their gradients, and products of matrices of a GPU against float64, at places drawn at random. On a
//! real one (S4L_GPU) the shapes are those of ResNet-50 at 224 with 256 images, elsewhere they are an eighth of that.

use crate::common::gpu::gpu;
use half::bf16;
use s4l::network::cuda::runtime::{Convolution, Memory, Operands, Product, Products, Runtime};
use s4l::network::engine::Precision::{self, Bf16, F32};
use s4l::rng::{RngExt, Stream, rng};

/// Height, channels, outputs, kernel and stride.
const SHAPES: [(usize, usize, usize, usize, usize); 9] = [
    (224, 64, 512, 7, 2),
    (56, 512, 512, 1, 1),
    (56, 64, 64, 3, 1),
    (56, 256, 128, 1, 1),
    (56, 256, 512, 1, 2),
    (56, 128, 128, 3, 2),
    (28, 128, 512, 1, 1),
    (14, 256, 256, 3, 1),
    (7, 512, 512, 3, 1),
];

/// Places of each result that are compared.
const DRAWN: usize = 40;

fn is_real() -> bool {
    std::env::var_os("S4L_GPU").is_some()
}

/// Values as they are stored, a third of them 0 as behind a ReLU.
fn values(n: usize, precision: Precision, sample: u64) -> Vec<f32> {
    let mut rng = rng(11, Stream::Init, 5, sample);
    let value = |v: f32| if v < -0.3 { 0.0 } else { v };
    let values = (0..n).map(|_| value(rng.random::<f32>() * 2.0 - 1.0));
    match precision {
        F32 => values.collect(),
        Bf16 => values.map(|v| bf16::from_f32(v).to_f32()).collect(),
    }
}

fn put(gpu: &dyn Runtime, values: &[f32], precision: Precision) -> Memory {
    let halves: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let bytes: &[u8] = match precision {
        F32 => bytemuck::cast_slice(values),
        Bf16 => bytemuck::cast_slice(bf16_bits(&halves)),
    };
    let memory = gpu.allocate(bytes.len()).unwrap();
    gpu.upload(bytes, memory.address()).unwrap();
    memory
}

fn bf16_bits(values: &[bf16]) -> &[u16] {
    half::slice::HalfFloatSliceExt::reinterpret_cast(values)
}

fn take(gpu: &dyn Runtime, from: &Memory, n: usize, precision: Precision) -> Vec<f32> {
    match precision {
        F32 => {
            let mut to = vec![0f32; n];
            gpu.download(from.address(), bytemuck::cast_slice_mut(&mut to)).unwrap();
            to
        }
        Bf16 => {
            let mut to = vec![0u16; n];
            gpu.download(from.address(), bytemuck::cast_slice_mut(&mut to)).unwrap();
            to.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
        }
    }
}

/// A convolution's three tensors, on the host.
struct Tensors {
    images: Vec<f32>,
    weights: Vec<f32>,
    outputs: Vec<f32>,
}

/// Calls `visit` with each pixel of the images that an output pixel is made from, and its tap.
fn taps(
    c: &Convolution,
    image: usize,
    (y, x): (usize, usize),
    visit: &mut dyn FnMut(usize, usize),
) {
    let pad = c.kernel / 2;
    for i in 0..c.kernel {
        for j in 0..c.kernel {
            let (row, column) = (y * c.stride + i, x * c.stride + j);
            if (pad..c.height + pad).contains(&row) && (pad..c.width + pad).contains(&column) {
                let pixel = (image * c.height + row - pad) * c.width + column - pad;
                visit(pixel, i * c.kernel + j);
            }
        }
    }
}

/// The value at a place of a result, and how far rounding may put it off: float32's in no known order, or that of
/// tensor cores, which cut bits off.
fn expected(c: &Convolution, t: &Tensors, what: Products, place: usize) -> (f64, f64) {
    let (height, width) = (c.output(c.height), c.output(c.width));
    let area = c.kernel * c.kernel;
    let (mut sum, mut size, mut count) = (0.0, 0.0, 0f64);
    let mut add = |a: f32, b: f32| {
        sum += f64::from(a) * f64::from(b);
        size += (f64::from(a) * f64::from(b)).abs();
        count += 1.0;
    };
    match what {
        Products::Forward => {
            let (output, pixel) = (place % c.outputs, place / c.outputs);
            let (image, y, x) = (pixel / (height * width), pixel / width % height, pixel % width);
            taps(c, image, (y, x), &mut |from, tap| {
                for k in 0..c.channels {
                    let weight = t.weights[(output * area + tap) * c.channels + k];
                    add(t.images[from * c.channels + k], weight);
                }
            });
        }
        Products::InputGradient => {
            let (channel, pixel) = (place % c.channels, place / c.channels);
            let image = pixel / (c.height * c.width);
            let (row, column) = (pixel / c.width % c.height, pixel % c.width);
            let near = |at: usize, end: usize| {
                let most = (at + c.kernel / 2) / c.stride;
                most.saturating_sub(c.kernel)..(most + 1).min(end)
            };
            for (y, x) in near(row, height).flat_map(|y| near(column, width).map(move |x| (y, x))) {
                taps(c, image, (y, x), &mut |from, tap| {
                    if from == pixel {
                        let to = (image * height + y) * width + x;
                        for output in 0..c.outputs {
                            let weight = t.weights[(output * area + tap) * c.channels + channel];
                            add(t.outputs[to * c.outputs + output], weight);
                        }
                    }
                });
            }
        }
        Products::WeightGradient => {
            let (channel, tap, output) =
                (place % c.channels, place / c.channels % area, place / c.channels / area);
            for pixel in 0..c.n * height * width {
                let (image, y, x) =
                    (pixel / (height * width), pixel / width % height, pixel % width);
                taps(c, image, (y, x), &mut |from, at| {
                    if at == tap {
                        let gradient = t.outputs[pixel * c.outputs + output];
                        add(t.images[from * c.channels + channel], gradient);
                    }
                });
            }
        }
    }
    let (stored, rounding) = match c.precision {
        F32 => (1e-7, 1e-6 + 6e-8 * count.sqrt()),
        Bf16 => (1.0 / 256.0, 1e-5 + 1e-6 * count.sqrt()),
    };
    (sum, rounding * size + stored * sum.abs() + 1e-9)
}

#[test]
fn gpu_convolutions_and_their_gradients() {
    let gpu = gpu(false);
    let (n, part) = if is_real() { (256, 1) } else { (2, 8) };
    for (index, (height, channels, outputs, kernel, stride)) in SHAPES.into_iter().enumerate() {
        for precision in [F32, Bf16] {
            // The stem has 8 channels.
            let channels = if kernel == 7 { 8 } else { channels / part };
            let (height, outputs) = (height.div_ceil(part), outputs / part);
            let c = Convolution {
                n,
                height,
                width: height,
                channels,
                outputs,
                kernel,
                stride,
                precision,
            };
            judge_convolution(&*gpu, &c, index as u64);
        }
    }
}

fn judge_convolution(gpu: &dyn Runtime, c: &Convolution, sample: u64) {
    let pixels = c.n * c.output(c.height) * c.output(c.width);
    let t = Tensors {
        images: values(c.n * c.height * c.width * c.channels, c.precision, 10 * sample),
        weights: values(c.outputs * c.kernel * c.kernel * c.channels, c.precision, 10 * sample + 1),
        outputs: values(pixels * c.outputs, c.precision, 10 * sample + 2),
    };
    let all = [&t.images, &t.weights, &t.outputs];
    for (what, written) in
        [(Products::Forward, 2), (Products::InputGradient, 0), (Products::WeightGradient, 1)]
    {
        let run = || {
            let memory = all.map(|values| put(gpu, values, c.precision));
            let [images, weights, outputs] = [0, 1, 2].map(|i| memory[i].address());
            gpu.convolve(c, what, &Operands { images, weights, outputs }).unwrap();
            take(gpu, &memory[written], all[written].len(), c.precision)
        };
        let got = run();
        assert!(got == run(), "{what:?} of {c:?}: other bits the second time");
        let mut rng = rng(11, Stream::Init, 6, sample);
        for _ in 0..DRAWN {
            let place = rng.random_range(0..got.len());
            let (value, bound) = expected(c, &t, what, place);
            let error = (f64::from(got[place]) - value).abs();
            assert!(error <= bound, "{what:?} of {c:?} at {place}: {} for {value}", got[place]);
        }
    }
}

#[test]
fn gpu_products_of_matrices() {
    let gpu = gpu(false);
    for (index, (rows, columns, inner)) in
        [(1, 10, 64), (37, 1, 128), (64, 10, 1), (256, 1000, 2048), (5, 3, 7)]
            .into_iter()
            .enumerate()
    {
        for flags in 0..8 {
            let [transposed_a, transposed_b, add] = [1, 2, 4].map(|flag| flags & flag != 0);
            let shape = Product { rows, columns, inner, transposed_a, transposed_b, add };
            let sample = 1000 + 10 * index as u64;
            let (a, b) =
                (values(rows * inner, F32, sample), values(inner * columns, F32, sample + 1));
            let before = values(rows * columns, F32, sample + 2);
            let memory = [&a, &b, &before].map(|values| put(&*gpu, values, F32));
            let [at_a, at_b, out] = [0, 1, 2].map(|i| memory[i].address());
            gpu.multiply(&shape, at_a, at_b, out).unwrap();
            let got = take(&*gpu, &memory[2], before.len(), F32);
            let mut rng = rng(11, Stream::Init, 7, sample);
            for _ in 0..DRAWN {
                let (i, j) = (rng.random_range(0..rows), rng.random_range(0..columns));
                let start = if add { f64::from(before[i * columns + j]) } else { 0.0 };
                let (mut sum, mut size) = (start, start.abs());
                for k in 0..inner {
                    let left = if transposed_a { a[k * rows + i] } else { a[i * inner + k] };
                    let right = if transposed_b { b[j * inner + k] } else { b[k * columns + j] };
                    sum += f64::from(left) * f64::from(right);
                    size += (f64::from(left) * f64::from(right)).abs();
                }
                let error = (f64::from(got[i * columns + j]) - sum).abs();
                assert!(error <= 2e-6 * size + 1e-9, "{shape:?} at {i}, {j}: {error:e}");
            }
        }
    }
}
