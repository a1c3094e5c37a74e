//! A training step of each method on a real network: its terms and their weights; and the adversarial
//! direction of VAT. Values and gradients are compared with PyTorch's in `golden`.

use candle_core::{DType, Tensor, Var};
use rand_distr::{Distribution, StandardNormal};
use s4l::methods::batch::{Batch, Half, Labels, Rows};
use s4l::methods::entropy_minimization::entropy;
use s4l::methods::main_pass::{At, Record};
use s4l::methods::supervised::cross_entropy;
use s4l::methods::vat::{self, Clean};
use s4l::methods::{architecture, step};
use s4l::network::candle::graph;
use s4l::network::device::Device;
use s4l::network::engine::{Inner, Pass, Precision};
use s4l::network::layout::{Layout, Stem};
use s4l::network::weights::Weights;
use s4l::network::{Network, Outputs};
use s4l::rng::{Stream, rng};
use s4l::settings::{Method, Settings};

const SIDE: usize = 28;
const VALUES: usize = SIDE * SIDE;
const CLASSES: usize = 10;
const AT: At = At { seed: 5, step: 3, ramp: 0.5 };
const STEP: Pass = Pass::Train { keep: 0.99 };

fn initial(method: Method) -> Weights {
    let architecture = architecture(&settings(method), 1, CLASSES);
    Weights::initial(&Layout::new(&architecture), 11)
}

fn with(method: Method, weights: Weights, precision: Precision) -> Network {
    let architecture = architecture(&settings(method), 1, CLASSES);
    Network::new(&architecture, (SIDE, SIDE), Device::Cpu, precision, weights).unwrap()
}

/// A network away from its initial values, many of which are 0 or 1.
fn network(method: Method) -> Network {
    let mut weights = initial(method);
    let mut rng = rng(1, Stream::Init, 9, 0);
    for p in &mut weights.parameters {
        let noise: f32 = StandardNormal.sample(&mut rng);
        *p += 0.1 * noise;
    }
    with(method, weights, Precision::F32)
}

/// A real image in [-1, 1].
fn image(row: usize) -> Vec<f32> {
    let pixels = crate::common::real(row).0;
    pixels.iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect()
}

/// A real image with noise: on a flat background, all pixels would cross a kink of the network together.
fn rough_image(row: usize) -> Vec<f32> {
    let mut rng = rng(2, Stream::Init, 9, row as u64);
    let mut noise = || -> f32 { StandardNormal.sample(&mut rng) };
    image(row).iter().map(|p| p + 0.3 * noise()).collect()
}

/// 3 unlabelled and 2 labelled images. The views are other images, which makes no difference here.
fn batch(views: usize) -> Batch {
    let half = |images| Half { images, views };
    Batch {
        images: (0..3 * views).chain(20..20 + 2 * views).flat_map(rough_image).collect(),
        rows: Rows { unlabelled: half(3), labelled: half(2) },
        labels: Labels::Hard(vec![3, 7]),
    }
}

fn settings(method: Method) -> Settings {
    Settings {
        method,
        units: vec![1],
        width_factor: 1,
        stem: Stem::SmallStride2,
        embedding_dim: 6,
        weight_supervised: 0.7,
        weight_rotation: 0.4,
        weight_exemplar: 0.6,
        weight_vat: 0.3,
        weight_entmin: 0.2,
        weight_fixmatch: 0.9,
        fixmatch_threshold: 0.1,
        vat_eps: 8.0,
        ..Settings::default()
    }
}

fn value(record: &Record, name: &str) -> f64 {
    let found = record.iter().find(|v| v.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {record:?}")).value
}

/// The record of one step.
fn run(network: &mut Network, s: &Settings, batch: &Batch) -> Record {
    let (images, labels) = (batch.images.clone(), batch.labels.clone());
    step(network, s, &mut Batch { images, rows: batch.rows, labels }, AT).unwrap()
}

const METHODS: [(Method, usize); 6] = [
    (Method::Supervised, 1),
    (Method::Rotation, 4),
    (Method::Exemplar, 2),
    (Method::Vat, 1),
    (Method::Fixmatch, 2),
    (Method::Moam, 4),
];

#[test]
fn the_loss_is_the_weighted_sum_of_the_terms_of_the_method() {
    for (method, views) in METHODS {
        let s = settings(method);
        let record = run(&mut network(method), &s, &batch(views));
        let weights: &[(&str, f64)] = match method {
            Method::Rotation => &[("loss/rotation", 0.4)],
            Method::Exemplar => &[("loss/exemplar", 0.6)],
            Method::Fixmatch => &[("loss/fixmatch", 0.9)],
            // At half of the ramp.
            Method::Vat => &[("loss/vat", 0.15), ("loss/entmin", 0.1)],
            Method::Moam => &[("loss/rotation", 0.4), ("loss/vat", 0.15), ("loss/entmin", 0.1)],
            _ => &[],
        };
        let mut sum = 0.7 * value(&record, "loss/supervised");
        for (name, weight) in weights {
            assert!(value(&record, name) > 0.0, "{method:?}: {name}");
            sum += weight * value(&record, name);
        }
        let loss = value(&record, "loss");
        assert!((loss - sum).abs() < 1e-5, "{method:?}: {loss} is not {sum}");
        let terms = record.iter().filter(|v| v.name.starts_with("loss/")).count();
        assert_eq!(terms, 1 + weights.len(), "{method:?}: {record:?}");
    }
}

/// MOAM uses only unlabelled images for VAT and entropy minimization. VAT uses all images, unless
/// `vat_labelled` is off.
#[test]
fn entropy_is_minimized_on_the_images_of_the_method() {
    let cases =
        [(Method::Moam, true, 4, 12), (Method::Vat, true, 1, 5), (Method::Vat, false, 1, 3)];
    for (method, vat_labelled, views, rows) in cases {
        let s = Settings { vat_labelled, ..settings(method) };
        let batch = batch(views);
        let mut other = network(method);
        other.engine.images(&mut batch.images.clone());
        let loss = |out: &Outputs| entropy(&out.head("classes")?.narrow(0, 0, rows)?);
        let expected = other.differentiate(STEP, true, batch.rows.parts(), loss).unwrap();
        let got = value(&run(&mut network(method), &s, &batch), "loss/entmin");
        assert!((got - f64::from(expected)).abs() < 1e-6, "{method:?}: {got}, {expected}");
    }
}

/// Takes these images as the images of the step. Returns their logits with the statistics of their batch.
fn logits(network: &mut Network, images: &[f32]) -> Tensor {
    network.engine.images(&mut images.to_vec());
    let mut clean = None;
    let keep = |out: &Outputs| {
        let logits = out.head("classes")?;
        clean = Some(logits.detach());
        Ok(logits.sum_all()?)
    };
    network.differentiate(STEP, true, [images.len() / VALUES, 0], keep).unwrap();
    clean.unwrap()
}

/// Takes these images as the images of the step, which are all moved.
fn all_moved(network: &mut Network, images: &[f32]) -> Clean {
    network.engine.images(&mut images.to_vec());
    Clean { logits: None, every: 1, parts: [images.len() / VALUES, 0] }
}

/// The class terms use the first of the four views of an image.
#[test]
fn upright_classes_are_those_of_the_first_view() {
    for method in [Method::Rotation, Method::Moam] {
        let s = Settings { upright_classes: true, ..settings(method) };
        let batch = batch(4);
        let mut trained = network(method);
        let record = run(&mut trained, &s, &batch);
        let logits = logits(&mut network(method), &batch.images);
        let tensor = |numbers: &[u32]| Tensor::new(numbers, logits.device()).unwrap();
        let rows = |numbers: &[u32]| logits.index_select(&tensor(numbers), 0).unwrap();
        let mut terms =
            vec![("loss/supervised", cross_entropy(&rows(&[12, 16]), &tensor(&[3, 7])))];
        if method == Method::Moam {
            terms.push(("loss/entmin", entropy(&rows(&[0, 4, 8]))));
            // VAT has moved these images, each by the radius.
            let moved = trained.engine.read(Inner::Moved).unwrap();
            let radius = vat::radius(s.vat_eps, VALUES);
            assert_eq!(moved.len(), 3 * VALUES);
            for (moved, image) in moved.chunks(VALUES).zip([0, 4, 8]) {
                let from = &batch.images[image * VALUES..][..VALUES];
                let squares = moved.iter().zip(from).map(|(a, b)| f64::from(a - b).powi(2));
                let norm = squares.sum::<f64>().sqrt();
                assert!((norm / radius - 1.0).abs() < 1e-5, "{norm} in place of {radius}");
            }
        }
        for (name, expected) in terms {
            let expected: f32 = expected.unwrap().to_scalar().unwrap();
            let got = value(&record, name);
            assert!(
                (got - f64::from(expected)).abs() < 1e-6,
                "{method:?} {name}: {got}, {expected}"
            );
        }
    }
}

#[test]
fn vat_leaves_the_moving_statistics_alone() {
    let batch = batch(1);
    let moving = |weight_vat: f64, power_iterations: usize| {
        let s = Settings {
            weight_vat,
            vat_power_iterations: power_iterations,
            ..settings(Method::Vat)
        };
        let mut network = network(Method::Vat);
        let before = network.engine.get().unwrap().moving;
        run(&mut network, &s, &batch);
        let moving = network.engine.get().unwrap().moving;
        assert_ne!(moving, before);
        moving
    };
    assert_eq!(moving(0.3, 2), moving(0.0, 0));
}

#[test]
fn the_radius_scales_with_the_size_of_the_image() {
    assert_eq!(vat::radius(40.0, 150_528), 40.0);
    assert_eq!(vat::radius(40.0, 150_528 / 4), 20.0);
    assert!((vat::radius(8.0, VALUES) - 8.0 * (784f64 / 150_528.0).sqrt()).abs() < 1e-12);
}

/// Four photographs, a grey and a black image.
fn images_and_flat_ones() -> Vec<f32> {
    let mut images: Vec<f32> = (0..4).flat_map(image).collect();
    images.extend([0.25; VALUES]);
    images.extend([-1.0; VALUES]);
    images
}

#[test]
fn every_image_is_moved_by_the_radius_flat_ones_too() {
    let images = images_and_flat_ones();
    let mut network = network(Method::Vat);
    let clean = all_moved(&mut network, &images);
    for (radius, iterations) in [(0.5, 1), (0.5, 3), (40.0, 1), (0.5, 0)] {
        vat::perturb(&mut network, &clean, radius, iterations, (5, 3)).unwrap();
        let moved = network.engine.read(Inner::Moved).unwrap();
        for (i, (a, b)) in moved.chunks(VALUES).zip(images.chunks(VALUES)).enumerate() {
            let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
            let norm = squares.sum::<f64>().sqrt();
            // Rounding of x + r to float32.
            assert!((norm / radius - 1.0).abs() < 1e-5, "image {i}: {norm} for {radius}");
        }
    }
}

/// The same power iteration by candle in float64, with the reference's step of norm 1e-6. In bfloat16 the logits before
/// a move must be those of the same precision: their rounding is far larger than what such a step changes.
#[test]
fn the_direction_is_the_limit_of_small_steps() {
    let images: Vec<f32> = (0..6).flat_map(rough_image).collect();
    let n = images.len() / VALUES;
    let weights = initial(Method::Vat);
    let cpu = candle_core::Device::Cpu;
    let f64s = |v: &[f32]| Tensor::new(v, &cpu).unwrap().to_dtype(DType::F64).unwrap();
    let layout = with(Method::Vat, weights.clone(), Precision::F32).layout;
    let head = layout.head("classes").unwrap();
    let kernel = f64s(&weights.parameters[layout.head_kernel(head)]);
    let kernel = kernel.reshape((layout.features, CLASSES)).unwrap();
    let bias = f64s(&weights.parameters[layout.head_bias(head)]);
    let parameters = f64s(&weights.parameters);
    let logits = |images: &Tensor| -> Tensor {
        let (features, _) = graph(&layout, &parameters, images, None).unwrap();
        features.matmul(&kernel).unwrap().broadcast_add(&bias).unwrap()
    };
    let x = f64s(&images).reshape((n, SIDE, SIDE, 1)).unwrap();
    for key in 3..7 {
        let direction: Vec<f64> = (0..n)
            .flat_map(|i| {
                let mut rng = rng(5, Stream::VatDirection, key, i as u64);
                let d: Vec<f32> = (0..VALUES).map(|_| StandardNormal.sample(&mut rng)).collect();
                let d: Vec<f64> = d.into_iter().map(f64::from).collect();
                let norm = d.iter().map(|v| v * v).sum::<f64>().sqrt();
                d.into_iter().map(move |v| 1e-6 * v / norm)
            })
            .collect();
        let d = Tensor::from_vec(direction, x.shape(), &cpu).unwrap();
        let d = Var::from_tensor(&d).unwrap();
        let loss = vat::divergence(&logits(&(&x + d.as_tensor()).unwrap()), &logits(&x)).unwrap();
        let gradient = loss.backward().unwrap().get(&d).unwrap().clone();
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (precision, least) in [(Precision::F32, 0.999_999), (Precision::Bf16, 0.95)] {
            let mut network = with(Method::Vat, weights.clone(), precision);
            let clean = all_moved(&mut network, &images);
            vat::perturb(&mut network, &clean, 0.5, 1, (5, key)).unwrap();
            let moved = network.engine.read(Inner::Moved).unwrap();
            for i in 0..n {
                let (mut dot, mut a2, mut b2) = (0.0, 0.0, 0.0);
                for j in i * VALUES..(i + 1) * VALUES {
                    let (a, b) = (f64::from(moved[j] - images[j]), gradient[j]);
                    dot += a * b;
                    a2 += a * a;
                    b2 += b * b;
                }
                let cosine = dot / (a2 * b2).sqrt();
                assert!(cosine > least, "{precision:?}, key {key}, image {i}: {cosine}");
            }
        }
    }
}

#[test]
fn the_ramp_starts_at_nothing() {
    for (method, views) in [(Method::Vat, 1), (Method::Moam, 4)] {
        let mut network = network(method);
        let at = At { ramp: 0.0, ..AT };
        let record = step(&mut network, &settings(method), &mut batch(views), at).unwrap();
        let mut sum = 0.7 * value(&record, "loss/supervised");
        if method == Method::Moam {
            sum += 0.4 * value(&record, "loss/rotation");
        }
        let loss = value(&record, "loss");
        assert!((loss - sum).abs() < 1e-5, "{method:?}: {loss} is not {sum}");
    }
}
