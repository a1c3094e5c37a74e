//! The fast CPU trunk against the candle trunk in float64: values, gradients, moving statistics.

use candle_core::{DType, Device};
use half::bf16;
use s4l::network::candle::CandleTrunk;
use s4l::network::cpu::{CpuTrunk, Element, Isa};
use s4l::network::engine::{Gradients, Pass, Trunk};
use s4l::network::layout::Stem;
use s4l::network::layout::{Architecture, Layout};
use s4l::rng::{RngExt, Stream, rng};

struct Case {
    architecture: Architecture,
    size: (usize, usize),
    images: usize,
    draw: u64,
    /// Amplitude of noise on the images.
    noise: f32,
}

/// The `i`-th random configuration.
fn case(i: u64) -> Case {
    let mut rng = rng(7, Stream::Init, 2, i);
    let stems = [Stem::Small, Stem::SmallStride2, Stem::Imagenet];
    let units = [vec![1, 1, 1], vec![2, 1], vec![1, 2, 1], vec![1]];
    Case {
        architecture: Architecture {
            channels: rng.random_range(1..=4),
            units: units[rng.random_range(0..units.len())].clone(),
            width_factor: rng.random_range(1..=2),
            stem: stems[i as usize % 3],
            heads: vec![],
        },
        size: (rng.random_range(5..24), rng.random_range(5..24)),
        images: rng.random_range(2..5),
        draw: 0,
        noise: 0.0,
    }
}

struct Results {
    features: Vec<f32>,
    moving: Vec<f32>,
    parameters: Vec<f32>,
    images: Vec<f32>,
    inferred: Vec<f32>,
}

fn random(n: usize, scale: f32, sample: u64) -> Vec<f32> {
    let mut rng = rng(7, Stream::Init, 1, sample);
    (0..n).map(|_| (rng.random::<f32>() - 0.5) * 2.0 * scale).collect()
}

fn run(trunk: &mut dyn Trunk, case: &Case) -> Results {
    let layout = Layout::new(&case.architecture);
    let mut parameters = layout.initial_parameters(3);
    for n in layout.norms() {
        let noise = random(2 * n.channels, 0.3, 9);
        for (p, e) in parameters[n.gamma().start..n.beta().end].iter_mut().zip(noise) {
            *p += e;
        }
    }
    let values = case.size.0 * case.size.1 * case.architecture.channels;
    let mut images = random(case.images * values, 1.0, 100 + case.draw);
    for (x, e) in images.iter_mut().zip(random(case.images * values, case.noise, 3)) {
        *x += e;
    }
    let mut moving = layout.initial_moving();
    let pass = Pass::Train { keep: 0.99 };
    let features = trunk.forward(&parameters, &mut moving, &images, pass).unwrap();
    let upstream = random(features.len(), 1.0, 2);
    let mut gradient = vec![0.0; layout.trunk_parameters];
    let mut image_gradient = vec![0.0; images.len()];
    let wanted = Gradients { parameters: Some(&mut gradient), images: Some(&mut image_gradient) };
    trunk.backward(&parameters, &upstream, wanted).unwrap();
    trunk.prepare(&parameters, &moving).unwrap();
    let inferred = trunk.infer(&images).unwrap();
    Results { features, moving, parameters: gradient, images: image_gradient, inferred }
}

/// |a - b| / |b| over all values.
fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / norm).sqrt()
}

fn cpu<E: Element>(case: &Case, isa: Isa) -> Results {
    let layout = Layout::new(&case.architecture);
    run(&mut CpuTrunk::<E>::new(&layout, case.size.0, case.size.1, isa), case)
}

/// The case with images that have no value within rounding of a ReLU's kink, which would turn a
/// whole pixel's gradient on or off, and the oracle's results for it.
fn judged(mut case: Case) -> (Case, Results) {
    loop {
        let expected = oracle(&case);
        let steady = [2e-6, -2e-6, 4e-6].into_iter().all(|noise| {
            case.noise = noise;
            error(&oracle(&case).parameters, &expected.parameters) < 1e-4
        });
        case.noise = 0.0;
        if steady {
            return (case, expected);
        }
        case.draw += 1;
        assert!(case.draw < 100, "every draw is at a kink");
    }
}

fn oracle(case: &Case) -> Results {
    let layout = Layout::new(&case.architecture);
    let (h, w) = case.size;
    run(&mut CandleTrunk::new(&layout, h, w, Device::Cpu, DType::F64), case)
}

fn architectures() -> Vec<(&'static str, pulp::Arch)> {
    let mut all = vec![("best", pulp::Arch::new()), ("portable", pulp::Arch::Scalar)];
    #[cfg(target_arch = "x86_64")]
    if let Some(v3) = pulp::x86::V3::try_new() {
        all.push(("avx2", pulp::Arch::V3(v3)));
    }
    all
}

#[test]
fn agrees_with_candle() {
    for i in 0..20 {
        let (case, expected) = judged(case(i));
        for (name, arch) in architectures() {
            let got = cpu::<f32>(&case, arch.into());
            for (what, a, b) in [
                ("features", &got.features, &expected.features),
                ("moving statistics", &got.moving, &expected.moving),
                ("parameter gradient", &got.parameters, &expected.parameters),
                ("image gradient", &got.images, &expected.images),
                ("inferred features", &got.inferred, &expected.inferred),
            ] {
                let e = error(a, b);
                assert!(e < 1e-4, "case {i}, {name}: {what} is off by {e:e}");
            }
        }
    }
}

#[test]
fn every_layer_s_gradient_agrees() {
    let (case, expected) = judged(case(0));
    let got = cpu::<f32>(&case, Isa::best());
    for (name, _, range) in Layout::new(&case.architecture).tensors() {
        let e = error(&got.parameters[range.clone()], &expected.parameters[range]);
        assert!(e < 1e-4, "{name} is off by {e:e}");
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for i in [0, 1, 2, 5] {
        same_for_all_threads::<f32>(&case(i));
        same_for_all_threads::<bf16>(&case(i));
    }
}

fn same_for_all_threads<E: Element>(case: &Case) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| cpu::<E>(case, Isa::best()))
    };
    let one = on(1);
    for other in [on(2), on(4)] {
        assert!(other.features == one.features);
        assert!(other.moving == one.moving);
        assert!(other.parameters == one.parameters);
        assert!(other.images == one.images);
        assert!(other.inferred == one.inferred);
    }
}

#[test]
fn bfloat16_is_float32_but_for_rounding() {
    for i in 0..6 {
        let (case, expected) = judged(case(i));
        let mut isas: Vec<(&str, Isa)> =
            architectures().into_iter().map(|(name, arch)| (name, arch.into())).collect();
        isas.push(("best, pairs", Isa::best()));
        for (name, isa) in isas {
            let got = cpu::<bf16>(&case, isa);
            // bfloat16 keeps 8 bits; where it turns a ReLU on or off, a pixel's gradient follows.
            for (what, a, b, least) in [
                ("features", &got.features, &expected.features, 0.99),
                ("moving statistics", &got.moving, &expected.moving, 0.999),
                ("parameter gradient", &got.parameters, &expected.parameters, 0.8),
                ("inferred features", &got.inferred, &expected.inferred, 0.999),
            ] {
                let c = cosine(a, b);
                assert!(c > least, "case {i}, {name}: {what} has cosine {c}");
            }
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
