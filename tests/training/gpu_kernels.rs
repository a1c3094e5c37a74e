//! Each kernel of the GPU engine against float64, in both precisions and two orders of threads. Memory is poisoned
//! before it is written, and guarded (tests/common/gpu.rs).

use crate::common::gpu::gpu;
use half::bf16;
use s4l::network::cuda::launches::{Launches, NORM_VECTORS, Rows, Vectors, Weights};
use s4l::network::cuda::runtime::{Address, Memory, Runtime};
use s4l::network::engine::Precision::{self, Bf16, F32};
use s4l::network::update::Update;
use s4l::rng::{RngExt, Stream, rng};

/// A GPU and a precision.
struct Card {
    gpu: Box<dyn Runtime>,
    precision: Precision,
}

/// What a kernel has made, and what it should have.
struct Made {
    what: String,
    got: Vec<f32>,
    expected: Vec<f64>,
    /// Of each value, and of the largest one.
    tolerance: f64,
}

impl Card {
    fn launches(&self) -> Launches<'_> {
        Launches { runtime: &*self.gpu, precision: self.precision }
    }

    /// As the values are stored.
    fn round(&self, values: &[f32]) -> Vec<f32> {
        match self.precision {
            F32 => values.to_vec(),
            Bf16 => values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(),
        }
    }

    fn bytes(&self) -> usize {
        if self.precision == F32 { 4 } else { 2 }
    }

    /// Room for stored values.
    fn room(&self, values: usize) -> Memory {
        self.gpu.allocate(values * self.bytes()).unwrap()
    }

    fn room_for_floats(&self, values: usize) -> Memory {
        self.gpu.allocate(values * 4).unwrap()
    }

    /// Stored values that are round already.
    fn put(&self, values: &[f32]) -> Memory {
        let memory = self.room(values.len());
        match self.precision {
            F32 => self.gpu.upload(bytemuck::cast_slice(values), memory.address()).unwrap(),
            Bf16 => {
                let bits: Vec<u16> = values.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
                self.gpu.upload(bytemuck::cast_slice(&bits), memory.address()).unwrap();
            }
        }
        memory
    }

    fn put_floats(&self, values: &[f32]) -> Memory {
        let memory = self.room_for_floats(values.len());
        self.gpu.upload(bytemuck::cast_slice(values), memory.address()).unwrap();
        memory
    }

    fn take(&self, from: &Memory, values: usize) -> Vec<f32> {
        match self.precision {
            F32 => self.take_floats(from, values),
            Bf16 => {
                let mut bits = vec![0u16; values];
                self.gpu.download(from.address(), bytemuck::cast_slice_mut(&mut bits)).unwrap();
                bits.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
            }
        }
    }

    fn take_floats(&self, from: &Memory, values: usize) -> Vec<f32> {
        let mut to = vec![0f32; values];
        self.gpu.download(from.address(), bytemuck::cast_slice_mut(&mut to)).unwrap();
        to
    }

    /// Stored values beside those in float64.
    fn stored(&self, what: &str, from: &Memory, expected: Vec<f64>) -> Made {
        let tolerance = if self.precision == F32 { 1e-6 } else { 1.0 / 256.0 };
        Made { what: what.into(), got: self.take(from, expected.len()), expected, tolerance }
    }

    fn floats(&self, what: &str, from: &Memory, expected: Vec<f64>, tolerance: f64) -> Made {
        Made { what: what.into(), got: self.take_floats(from, expected.len()), expected, tolerance }
    }
}

/// Runs kernels in each precision and order of threads. What they make is the same bits in both orders, and what
/// it should be.
fn judge(kernels: impl Fn(&Card) -> Vec<Made>) {
    for precision in [F32, Bf16] {
        let run = |descending| kernels(&Card { gpu: gpu(descending), precision });
        let (ascending, descending) = (run(false), run(true));
        for (made, other) in ascending.into_iter().zip(descending) {
            let Made { what, got, expected, tolerance } = made;
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert!(bits(&got) == bits(&other.got), "{what}, {precision:?}: a race");
            let largest = expected.iter().fold(0f64, |largest, v| largest.max(v.abs()));
            for (i, (&got, &expected)) in got.iter().zip(&expected).enumerate() {
                let most = tolerance * (expected.abs() + 0.1 * largest) + 1e-30;
                let off = (f64::from(got) - expected).abs();
                assert!(off <= most, "{what}, {precision:?}: [{i}] is {got}, not {expected}");
            }
        }
    }
}

fn random(n: usize, sample: u64) -> Vec<f32> {
    let mut rng = rng(11, Stream::Init, 3, sample);
    (0..n).map(|_| (rng.random::<f32>() - 0.5) * 2.0).collect()
}

/// Rows and channels: one row, fewer rows than threads, a few and many parts, more than one block of channels,
/// and channels that are no power of two.
const SHAPES: [Rows; 7] = [
    Rows { rows: 1, channels: 8 },
    Rows { rows: 3, channels: 16 },
    Rows { rows: 517, channels: 24 },
    Rows { rows: 4501, channels: 16 },
    Rows { rows: 2391, channels: 256 },
    Rows { rows: 131, channels: 264 },
    Rows { rows: 300, channels: 520 },
];

/// Mean and biased variance of each channel.
fn moments(z: &[f32], channels: usize) -> Vec<(f64, f64)> {
    let rows = (z.len() / channels) as f64;
    let of_channel = |c: usize| {
        let values = || z.iter().skip(c).step_by(channels).map(|&v| f64::from(v));
        let mean = values().sum::<f64>() / rows;
        (mean, values().map(|v| (v - mean).powi(2)).sum::<f64>() / rows)
    };
    (0..channels).map(of_channel).collect()
}

/// The first four vectors of a norm.
fn vectors(moments: &[(f64, f64)], gamma: &[f32], beta: &[f32]) -> Vec<f64> {
    let mut all = vec![Vec::new(); 4];
    for ((&(mean, variance), &gamma), &beta) in moments.iter().zip(gamma).zip(beta) {
        let inverse = 1.0 / (variance + 1e-3).sqrt();
        let scale = f64::from(gamma) * inverse;
        let values = [mean, inverse, scale, f64::from(beta) - mean * scale];
        all.iter_mut().zip(values).for_each(|(vector, value)| vector.push(value));
    }
    all.concat()
}

/// A norm's vectors on the card for values z.
fn norm(card: &Card, z: &[f32], channels: usize) -> (Memory, Vec<f64>) {
    let (gamma, beta) = (random(channels, 21), random(channels, 22));
    let mut vectors = vectors(&moments(z, channels), &gamma, &beta);
    vectors.iter_mut().for_each(|v| *v = f64::from(*v as f32));
    let mut all: Vec<f32> = vectors.iter().map(|&v| v as f32).collect();
    all.resize(NORM_VECTORS * channels, f32::NAN);
    (card.put_floats(&all), vectors)
}

#[test]
fn gpu_statistics() {
    for (of, center) in SHAPES.into_iter().flat_map(|of| [(of, 0.0), (of, 300.0)]) {
        judge(|card| {
            let Rows { rows, channels } = of;
            // bfloat16 has no digits left for such a variance, but its rounded values have one too.
            let z: Vec<f32> = random(rows * channels, 1).iter().map(|v| v + center).collect();
            let z = card.round(&z);
            let (gamma, beta) = (random(channels, 2), random(channels, 3));
            let moving: Vec<f32> = random(2 * channels, 4);
            let on_card = card.put_floats(&moving);
            let (z_on_card, norm) = (card.put(&z), card.room_for_floats(NORM_VECTORS * channels));
            let partial = card.room_for_floats(3 * of.parts() * channels);
            let affine = [card.put_floats(&gamma), card.put_floats(&beta)];
            let launches = card.launches();
            let at = affine.each_ref().map(Memory::address);
            launches.bn_stats(z_on_card.address(), partial.address(), of).unwrap();
            let moves = (on_card.address(), 0.75);
            launches.bn_finish(partial.address(), at, norm.address(), moves, of).unwrap();
            let moments = moments(&z, channels);
            let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
            let moved = |i: usize, batch: f64| 0.75 * f64::from(moving[i]) + 0.25 * batch;
            let means = moments.iter().enumerate().map(|(c, m)| moved(c, m.0));
            let variances =
                moments.iter().enumerate().map(|(c, m)| moved(channels + c, m.1 * unbiased));
            let moved: Vec<f64> = means.chain(variances).collect();
            let all = vectors(&moments, &gamma, &beta);
            let name = |what: &str| format!("{what} of {of:?} around {center}");
            let got = card.take_floats(&norm, all.len());
            let vector = |i: usize, what: &str| Made {
                what: name(what),
                got: got[i * channels..(i + 1) * channels].to_vec(),
                expected: all[i * channels..(i + 1) * channels].to_vec(),
                tolerance: 1e-5,
            };
            vec![
                // Values around 0 cancel in their mean.
                Made { tolerance: 1e-4, ..vector(0, "means") },
                vector(1, "inverse deviations"),
                vector(2, "scales"),
                vector(3, "shifts"),
                card.floats(&name("moving statistics"), &on_card, moved, 1e-5),
            ]
        });
    }
}

#[test]
fn gpu_residual_sums_and_their_statistics() {
    for of in SHAPES {
        judge(|card| {
            let Rows { rows, channels } = of;
            let z = card.round(&random(rows * channels, 1));
            let added = card.round(&random(rows * channels, 2));
            let sum: Vec<f32> = z.iter().zip(&added).map(|(a, b)| a + b).collect();
            let sum = card.round(&sum);
            let (one, none) = (vec![1.0; channels], vec![0.0; channels]);
            let (z, added) = (card.put(&z), card.put(&added));
            let norm = card.room_for_floats(NORM_VECTORS * channels);
            let partial = card.room_for_floats(3 * of.parts() * channels);
            let affine = [card.put_floats(&one), card.put_floats(&none)];
            let launches = card.launches();
            launches.add_stats(z.address(), added.address(), partial.address(), of).unwrap();
            let at = affine.each_ref().map(Memory::address);
            let still = (Address::NONE, 1.0);
            launches.bn_finish(partial.address(), at, norm.address(), still, of).unwrap();
            let expected = vectors(&moments(&sum, channels), &one, &none);
            let doubles = sum.iter().map(|&v| f64::from(v)).collect();
            vec![
                card.stored(&format!("sum of {of:?}"), &z, doubles),
                card.floats(&format!("norm of a sum of {of:?}"), &norm, expected, 1e-5),
            ]
        });
    }
}

#[test]
fn gpu_norms_by_moving_statistics() {
    judge(|card| {
        let channels = 264;
        let mean = random(channels, 1);
        let variance: Vec<f32> = random(channels, 2).iter().map(|v| v.abs()).collect();
        let (gamma, beta) = (random(channels, 3), random(channels, 4));
        let moving = card.put_floats(&[&mean[..], &variance].concat());
        let affine = [card.put_floats(&gamma), card.put_floats(&beta)];
        let norm = card.room_for_floats(NORM_VECTORS * channels);
        let at = affine.each_ref().map(Memory::address);
        card.launches().bn_moving(moving.address(), at, norm.address(), channels).unwrap();
        let pairs = mean.iter().zip(&variance).map(|(&m, &v)| (f64::from(m), f64::from(v)));
        let expected = vectors(&pairs.collect::<Vec<_>>(), &gamma, &beta);
        vec![card.floats("moving norm", &norm, expected, 1e-6)]
    });
}

#[test]
fn gpu_norm_and_relu() {
    for of in SHAPES {
        judge(|card| {
            let Rows { rows, channels } = of;
            let z = card.round(&random(rows * channels, 1));
            let (norm, vectors) = norm(card, &z, channels);
            let (on_card, a) = (card.put(&z), card.room(z.len()));
            card.launches().bn_relu(on_card.address(), norm.address(), a.address(), of).unwrap();
            let expected = activations(&z, &vectors, channels);
            vec![card.stored(&format!("activations of {of:?}"), &a, expected)]
        });
    }
}

fn activations(z: &[f32], vectors: &[f64], channels: usize) -> Vec<f64> {
    let (scale, shift) = (&vectors[2 * channels..3 * channels], &vectors[3 * channels..]);
    let value = |(i, &z): (usize, &f32)| f64::from(z) * scale[i % channels] + shift[i % channels];
    z.iter().enumerate().map(value).map(|v| v.max(0.0)).collect()
}

/// The gradient of z, of gamma and of beta from that of relu(norm(z)).
fn norm_back(
    g: &[f32],
    z: &[f32],
    vectors: &[f64],
    gamma_and_beta: bool,
    channels: usize,
) -> (Vec<f64>, Vec<f64>) {
    let rows = (z.len() / channels) as f64;
    let on = activations(z, vectors, channels);
    let masked = |i: usize| if on[i] > 0.0 { f64::from(g[i]) } else { 0.0 };
    let vector = |v: usize, i: usize| vectors[v * channels + i % channels];
    let normal = |i: usize| (f64::from(z[i]) - vector(0, i)) * vector(1, i);
    let of_channel = |c: usize| {
        let each = || (c..z.len()).step_by(channels);
        (each().map(|i| masked(i) * normal(i)).sum::<f64>(), each().map(masked).sum::<f64>())
    };
    let sums: Vec<(f64, f64)> = (0..channels).map(of_channel).collect();
    let back = |i: usize| {
        let (gamma, beta) = sums[i % channels];
        vector(2, i) * (masked(i) - beta / rows - normal(i) * gamma / rows)
    };
    let weights = sums.iter().map(|s| s.0).chain(sums.iter().map(|s| s.1));
    let weights = if gamma_and_beta { weights.collect() } else { Vec::new() };
    ((0..z.len()).map(back).collect(), weights)
}

#[test]
fn gpu_norm_and_relu_on_the_way_back() {
    let cases = [(false, false, true), (true, false, false), (false, true, true)];
    for (of, (more, residual, weights)) in
        SHAPES.into_iter().flat_map(|of| cases.map(|case| (of, case)))
    {
        judge(|card| {
            let Rows { rows, channels } = of;
            let values = rows * channels;
            let draw = |sample| card.round(&random(values, sample));
            let (z, g, added, past) = (draw(1), draw(2), draw(3), draw(4));
            let (norm, vectors) = norm(card, &z, channels);
            let [on_card, gradient, added_on_card, past_on_card] =
                [&z, &g, &added, &past].map(|v| card.put(v));
            let a = card.room(values);
            let partial = card.room_for_floats(2 * of.parts() * channels);
            let before = [random(channels, 5), random(channels, 6)];
            let affine = before.each_ref().map(|v| card.put_floats(v));
            let given =
                |yes: bool, memory: &Memory| if yes { memory.address() } else { Address::NONE };
            let (z_at, norm_at) = (on_card.address(), norm.address());
            let gradients = [gradient.address(), given(more, &added_on_card)];
            let launches = card.launches();
            let (a_at, partial_at) = (given(weights, &a), partial.address());
            launches.bn_back_sums(gradients, z_at, norm_at, a_at, partial_at, of).unwrap();
            let at = affine.each_ref().map(|memory| given(weights, memory));
            launches.bn_back_finish(partial_at, norm_at, at, of).unwrap();
            let past_at = given(residual, &past_on_card);
            launches.bn_back_apply(gradients[0], z_at, past_at, norm_at, of).unwrap();

            let both: Vec<f32> = g.iter().zip(&added).map(|(a, b)| a + b).collect();
            let g = if more { card.round(&both) } else { g };
            let (mut expected, sums) = norm_back(&g, &z, &vectors, weights, channels);
            if residual {
                expected.iter_mut().zip(&past).for_each(|(e, p)| *e += f64::from(*p));
            }
            let name = |what: &str| format!("{what} of {of:?}, {more} {residual} {weights}");
            let mut made = vec![card.stored(&name("gradient"), &gradient, expected)];
            // A row alone has a gradient of 0, and what is left is the rounding of its parts.
            made[0].tolerance *= 4.0;
            if rows == 1 {
                let largest = made[0].got.iter().fold(0f32, |most, v| most.max(v.abs()));
                assert!(residual || largest < 1e-4, "{largest}");
                made.clear();
            }
            if weights {
                let sums = sums.iter().zip(before.concat()).map(|(s, b)| s + f64::from(b));
                let got = affine.map(|memory| card.take_floats(&memory, channels)).concat();
                let what = name("gamma and beta");
                made.push(Made { what, got, expected: sums.collect(), tolerance: 1e-5 });
                let expected = activations(&z, &vectors, channels);
                made.push(card.stored(&name("activations"), &a, expected));
            }
            made
        });
    }
}

/// The tangent of relu(norm(z)) in float64 from that of z: the backward pass's formula, with the mask behind it.
fn tangent_of(t: &[f32], z: &[f32], vectors: &[f64], channels: usize) -> Vec<f64> {
    let rows = (z.len() / channels) as f64;
    let vector = |which: usize, i: usize| vectors[which * channels + i % channels];
    let normal = |i: usize| (f64::from(z[i]) - vector(0, i)) * vector(1, i);
    let of_channel = |c: usize| {
        let each = || (c..z.len()).step_by(channels);
        let product = |i: usize| f64::from(t[i]) * normal(i);
        (each().map(|i| f64::from(t[i])).sum::<f64>(), each().map(product).sum::<f64>())
    };
    let sums: Vec<(f64, f64)> = (0..channels).map(of_channel).collect();
    let tangent = |i: usize| {
        let (sum, product) = sums[i % channels];
        let on = f64::from(z[i]) * vector(2, i) + vector(3, i) > 0.0;
        let moved = f64::from(t[i]) - sum / rows - normal(i) * product / rows;
        if on { vector(2, i) * moved } else { 0.0 }
    };
    (0..z.len()).map(tangent).collect()
}

#[test]
fn gpu_tangents_through_norm_and_relu() {
    // A row alone has a tangent of 0, and what is left is the rounding of its parts.
    for of in SHAPES.into_iter().filter(|of| of.rows > 1) {
        judge(|card| {
            let Rows { rows, channels } = of;
            let draw = |sample| card.round(&random(rows * channels, sample));
            let (z, t) = (draw(1), draw(2));
            let (norm, vectors) = norm(card, &z, channels);
            let [z_on_card, t_on_card] = [&z, &t].map(|v| card.put(v));
            let (a, partial) =
                (card.room(z.len()), card.room_for_floats(2 * of.parts() * channels));
            let (at, norm_at) = ([&t_on_card, &z_on_card].map(Memory::address), norm.address());
            let launches = card.launches();
            launches.bn_tangent_sums(at, norm_at, partial.address(), of).unwrap();
            let none = [Address::NONE; 2];
            launches.bn_back_finish(partial.address(), norm_at, none, of).unwrap();
            launches.bn_tangent(at, norm_at, a.address(), of).unwrap();
            let features = card.room_for_floats(rows * channels);
            // Each row is an image of one pixel.
            launches.mean_tangents(at, norm_at, features.address(), 1, of).unwrap();
            let expected = tangent_of(&t, &z, &vectors, channels);
            let mut made = card.stored(&format!("tangent of {of:?}"), &a, expected.clone());
            made.tolerance *= 4.0;
            let features = card.floats(&format!("means of {of:?}"), &features, expected, 1e-5);
            vec![made, features]
        });
    }
}

/// Height, width and channels of images.
const IMAGES: [(usize, usize, usize); 4] = [(1, 1, 8), (5, 8, 16), (8, 5, 24), (7, 7, 264)];

/// Calls `each` with the place of an output of the max pool and of the input that gives it, if that is no padding.
fn each_maximum(
    z: &[f32],
    (h, w, c): (usize, usize, usize),
    mut each: impl FnMut(usize, f32, Option<usize>),
) {
    let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
    for out in 0..z.len() / (h * w * c) * oh * ow * c {
        let (n, y, x, channel) = (out / c / ow / oh, out / c / ow % oh, out / c % ow, out % c);
        let mut best: Option<(f32, Option<usize>)> = None;
        for tap in 0..9 {
            let (row, column) = (2 * y + tap / 3, 2 * x + tap % 3);
            let inside = (1..=h).contains(&row) && (1..=w).contains(&column);
            let from = inside.then(|| ((n * h + row - 1) * w + column - 1) * c + channel);
            let value = from.map_or(0.0, |from| z[from]);
            if best.is_none_or(|(best, _)| value > best) {
                best = Some((value, from));
            }
        }
        let (value, from) = best.unwrap();
        each(out, value, from);
    }
}

#[test]
fn gpu_max_pool_and_back() {
    for image in IMAGES {
        judge(|card| {
            let ((h, w, c), n) = (image, 3);
            // A few values, so that there are ties, most of them below the padding's 0.
            let z: Vec<f32> =
                random(n * h * w * c, 1).iter().map(|v| (v * 3.0).round() - 1.0).collect();
            let outputs = n * h.div_ceil(2) * w.div_ceil(2) * c;
            let g = card.round(&random(outputs, 2));
            let (z_on_card, out) = (card.put(&z), card.room(outputs));
            let taps = card.gpu.allocate(outputs).unwrap();
            let (gradient, back) = (card.put(&g), card.room(z.len()));
            let t = card.round(&random(z.len(), 3));
            let (t_on_card, t_out) = (card.put(&t), card.room(outputs));
            let launches = card.launches();
            let at = [&z_on_card, &out, &taps].map(Memory::address);
            launches.max_pool(at, n, (h, w), c).unwrap();
            let at = [&gradient, &taps, &back].map(Memory::address);
            launches.max_pool_back(at, n, (h, w), c).unwrap();
            let at = [&t_on_card, &taps, &t_out].map(Memory::address);
            launches.max_pool_tangent(at, n, (h, w), c).unwrap();
            let (mut expected, mut expected_back) = (vec![0.0; outputs], vec![0.0; z.len()]);
            let mut expected_tangent = vec![0.0; outputs];
            each_maximum(&z, image, |out, value, from| {
                expected[out] = f64::from(value);
                if let Some(from) = from {
                    expected_back[from] += f64::from(g[out]);
                    expected_tangent[out] = f64::from(t[from]);
                }
            });
            vec![
                card.stored(&format!("maxima of {image:?}"), &out, expected),
                card.stored(&format!("gradient of maxima of {image:?}"), &back, expected_back),
                card.stored(&format!("tangent of maxima of {image:?}"), &t_out, expected_tangent),
            ]
        });
    }
}

#[test]
fn gpu_means_of_pixels_and_back() {
    for image in IMAGES {
        judge(|card| {
            let ((h, w, c), n) = (image, 3);
            let (pixels, of) = (h * w, Rows { rows: n * h * w, channels: c });
            let y = card.round(&random(n * pixels * c, 1));
            let (norm, vectors) = norm(card, &y, c);
            let f = random(n * c, 2);
            let (on_card, features) = (card.put(&y), card.room_for_floats(n * c));
            let (gradient, f_on_card) = (card.room(y.len()), card.put_floats(&f));
            let launches = card.launches();
            let (y_at, norm_at) = (on_card.address(), norm.address());
            launches.mean_pixels(y_at, norm_at, features.address(), pixels, of).unwrap();
            let (f_at, gradient_at) = (f_on_card.address(), gradient.address());
            launches.mean_pixels_back(f_at, gradient_at, pixels, of).unwrap();
            let mut means = vec![0.0; n * c];
            for (i, a) in activations(&y, &vectors, c).into_iter().enumerate() {
                means[i / c / pixels * c + i % c] += a / pixels as f64;
            }
            let share = |i: usize| f64::from(f[i / c / pixels * c + i % c]) / pixels as f64;
            vec![
                card.floats(&format!("means of {image:?}"), &features, means, 1e-5),
                card.stored("gradient of means", &gradient, (0..y.len()).map(share).collect()),
            ]
        });
    }
}

#[test]
fn gpu_images_in_and_out() {
    for channels in [1usize, 3, 8, 12] {
        judge(|card| {
            let (pixels, padded) = (77usize, channels.next_multiple_of(8));
            let images = random(pixels * channels, 1);
            let (on_card, stored) = (card.put_floats(&images), card.room(pixels * padded));
            let out = card.room_for_floats(images.len());
            let launches = card.launches();
            let sizes = (channels, padded);
            launches.images_in(on_card.address(), stored.address(), pixels, sizes).unwrap();
            launches.images_out(stored.address(), out.address(), pixels, sizes).unwrap();
            let value = |i: usize| match i % padded < channels {
                true => images[i / padded * channels + i % padded],
                false => 0.0,
            };
            let expected: Vec<f32> = (0..pixels * padded).map(value).collect();
            let exact = |values: &[f32]| card.round(values).iter().map(|&v| f64::from(v)).collect();
            let what = format!("images of {channels} channels");
            vec![
                Made { tolerance: 0.0, ..card.stored(&what, &stored, exact(&expected)) },
                card.floats(&what, &out, exact(&images), 0.0),
            ]
        });
    }
}

#[test]
fn gpu_moves_along_directions() {
    for (values, every, scale) in [(5, 1, 1.0), (1000, 3, 1.0), (300, 2, 1e-30)] {
        judge(|card| {
            let n = 4;
            let images = random(n * every * values, 1);
            let mut direction: Vec<f32> = random(n * values, 2).iter().map(|v| v * scale).collect();
            direction[values..2 * values].fill(0.0);
            let (images_on_card, on_card) = (card.put_floats(&images), card.put_floats(&direction));
            let moved = card.room_for_floats(direction.len());
            let at = [&images_on_card, &on_card, &moved].map(Memory::address);
            card.launches().move_images(at, (n, values), every, 0.75).unwrap();
            // The moves alone, in the directions' place.
            let at = [Address::NONE, on_card.address(), on_card.address()];
            card.launches().move_images(at, (n, values), 1, 0.75).unwrap();
            let norm = |i: usize| {
                let own = &direction[i / values * values..][..values];
                own.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>().sqrt()
            };
            let moves = (0..direction.len()).map(|i| match norm(i) {
                0.0 => 0.0,
                norm => 0.75 * f64::from(direction[i]) / norm,
            });
            let moves: Vec<f64> = moves.collect();
            let image = |i: usize| f64::from(images[i / values * every * values + i % values]);
            let expected = moves.iter().enumerate().map(|(i, moved)| image(i) + moved).collect();
            vec![
                card.floats(&format!("moved by {scale}"), &moved, expected, 1e-6),
                card.floats(&format!("moves by {scale}"), &on_card, moves, 1e-6),
            ]
        });
    }
}

#[test]
fn gpu_weights_in_and_gradients_out() {
    for (taps, inputs, outputs) in [(9, 3usize, 16), (1, 40, 72), (49, 1, 16), (9, 33, 8)] {
        judge(|card| {
            let padded = inputs.next_multiple_of(8);
            let of = Weights { taps, inputs, padded, outputs };
            let (w, g) = (random(taps * inputs * outputs, 1), random(of.values(), 2));
            let (g, before) = (card.round(&g), random(w.len(), 3));
            let (on_card, stored) = (card.put_floats(&w), card.room(of.values()));
            let (g_on_card, gradient) = (card.put(&g), card.put_floats(&before));
            let launches = card.launches();
            launches.weights_in(on_card.address(), stored.address(), of).unwrap();
            launches.gradient_in(g_on_card.address(), gradient.address(), of).unwrap();
            let mut expected = vec![0.0; of.values()];
            let mut expected_back: Vec<f64> = before.iter().map(|&v| f64::from(v)).collect();
            for (i, &w) in card.round(&w).iter().enumerate() {
                let (tap, input, output) =
                    (i / outputs / inputs, i / outputs % inputs, i % outputs);
                let at = (output * taps + tap) * padded + input;
                expected[at] = f64::from(w);
                expected_back[i] += f64::from(g[at]);
            }
            let what = format!("weights of {of:?}");
            vec![
                Made { tolerance: 0.0, ..card.stored(&what, &stored, expected) },
                card.floats(&what, &gradient, expected_back, 1e-6),
            ]
        });
    }
}

#[test]
fn gpu_optimizer() {
    for (n, half_life) in [(8, 0.0), (2000, 10.0), (264, 10.0)] {
        judge(|card| {
            let [w, v, g, a] = [1, 2, 3, 4].map(|sample| random(n, sample));
            let decayed: Vec<u8> = (0..n).map(|i| u8::from(i % 5 < 2)).collect();
            let [w_on_card, v_on_card, g_on_card, a_on_card] =
                [&w, &v, &g, &a].map(|values| card.put_floats(values));
            let decays = card.gpu.allocate(n).unwrap();
            card.gpu.upload(&decayed, decays.address()).unwrap();
            let vectors = Vectors {
                parameters: w_on_card.address(),
                velocity: v_on_card.address(),
                gradient: g_on_card.address(),
                average: a_on_card.address(),
                decayed: decays.address(),
            };
            let by = Update { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.01, half_life };
            card.launches().sgd_polyak(&vectors, n, &by).unwrap();
            let keep = if half_life > 0.0 { 0.5f64.powf(1.0 / half_life) } else { 1.0 };
            let [w, v, g, a] =
                [w, v, g, a].map(|values| values.into_iter().map(f64::from).collect::<Vec<f64>>());
            let decay = |i: usize| 0.01 * f64::from(decayed[i]) * w[i];
            let velocity: Vec<f64> = (0..n).map(|i| 0.9 * v[i] + g[i] + decay(i)).collect();
            let parameters: Vec<f64> = (0..n).map(|i| w[i] - 0.1 * velocity[i]).collect();
            let average = (0..n).map(|i| keep * a[i] + (1.0 - keep) * parameters[i]).collect();
            vec![
                card.floats("velocity", &v_on_card, velocity, 1e-6),
                card.floats("parameters", &w_on_card, parameters, 1e-6),
                card.floats("average", &a_on_card, average, 1e-6),
                card.floats("gradient", &g_on_card, vec![0.0; n], 0.0),
            ]
        });
    }
}
