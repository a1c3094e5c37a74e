//! The fast CPU engine against the candle engine in float64: values, gradients, moving statistics. The only
//! head passes the pre-logits on unchanged, so logits are features.

use candle_core::{DType, Device};
use s4l::network::candle::CandleEngine;
use s4l::network::cpu::{self, Isa};
use s4l::network::engine::Precision::{self, Bf16, F32};
use s4l::network::engine::{Engine, Inner, Pass};
use s4l::network::layout::{Architecture, Layout, Stem};
use s4l::network::weights::Weights;
use s4l::rng::{RngExt, Stream, rng};
use std::sync::OnceLock;

pub struct Case {
    pub architecture: Architecture,
    pub size: (usize, usize),
    pub images: usize,
    pub draw: u64,
    /// Amplitude of noise on the images.
    pub noise: f32,
}

/// The `i`-th random configuration.
pub fn case(i: u64) -> Case {
    let mut rng = rng(7, Stream::Init, 2, i);
    let stems = [Stem::Small, Stem::SmallStride2, Stem::Imagenet];
    let units = [vec![1, 1, 1], vec![2, 1], vec![1, 2, 1], vec![1]];
    let mut architecture = Architecture {
        channels: rng.random_range(1..=4),
        units: units[rng.random_range(0..units.len())].clone(),
        width_factor: rng.random_range(1..=2),
        stem: stems[i as usize % 3],
        heads: vec![],
    };
    let features = Layout::new(&architecture).features;
    architecture.heads.push(("features".into(), features));
    Case {
        architecture,
        size: (rng.random_range(5..24), rng.random_range(5..24)),
        images: rng.random_range(2..5),
        draw: 0,
        noise: 0.0,
    }
}

pub struct Results {
    pub features: Vec<f32>,
    pub moving: Vec<f32>,
    pub parameters: Vec<f32>,
    pub images: Vec<f32>,
    pub tangent: Vec<f32>,
    pub inferred: Vec<f32>,
}

pub fn random(n: usize, scale: f32, sample: u64) -> Vec<f32> {
    let mut rng = rng(7, Stream::Init, 1, sample);
    (0..n).map(|_| (rng.random::<f32>() - 0.5) * 2.0 * scale).collect()
}

/// Weights of a case: those of norms away from 1 and 0, those of the head the identity.
pub fn weights(layout: &Layout) -> Weights {
    let mut weights = Weights::initial(layout, 3);
    for n in layout.norms() {
        let noise = random(2 * n.channels, 0.3, 9);
        let range = n.gamma().start..n.beta().end;
        for (p, e) in weights.parameters[range].iter_mut().zip(noise) {
            *p += e;
        }
    }
    let kernel = &mut weights.parameters[layout.head_kernel(&layout.heads[0])];
    kernel.fill(0.0);
    kernel.iter_mut().step_by(layout.features + 1).for_each(|w| *w = 1.0);
    weights
}

fn images(case: &Case) -> Vec<f32> {
    let n = case.images * case.size.0 * case.size.1 * case.architecture.channels;
    let noise = random(n, case.noise, 3);
    random(n, 1.0, 100 + case.draw).iter().zip(noise).map(|(x, e)| x + e).collect()
}

/// A step's forward and backward pass. Returns the features, and the gradient that the backward pass
/// received.
fn pass(engine: &mut dyn Engine, case: &Case) -> (Vec<f32>, Vec<f32>) {
    engine.images(&mut images(case));
    let features = engine.forward(Pass::Train { keep: 0.99 }).unwrap().remove(0);
    let upstream = random(features.len(), 1.0, 2);
    engine.backward(&[Some(upstream.clone())], true).unwrap();
    (features, upstream)
}

/// The gradient of the parameters without the head's, which would outweigh the rest.
pub fn trunk_gradient(engine: &dyn Engine, case: &Case) -> Vec<f32> {
    let mut gradient = engine.read(Inner::Gradient).unwrap();
    gradient.truncate(Layout::new(&case.architecture).trunk_parameters);
    gradient
}

pub fn run(engine: &mut dyn Engine, case: &Case) -> Results {
    let (features, upstream) = pass(engine, case);
    // The same images, with a zero perturbation.
    let images = images(case);
    engine.direction(random(images.len(), 1.0, 4), 1);
    engine.along(0.0);
    engine.forward(Pass::Direction).unwrap();
    let tangent = engine.tangents().unwrap().remove(0);
    engine.backward(&[Some(upstream)], true).unwrap();
    engine.prepare().unwrap();
    Results {
        features,
        moving: engine.get().unwrap().moving,
        parameters: trunk_gradient(engine, case),
        images: engine.read(Inner::Direction).unwrap(),
        tangent,
        inferred: engine.infer(&images, 0).unwrap(),
    }
}

/// |a - b| / |b| over all values.
pub fn error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / norm).sqrt()
}

pub fn on_cpu(case: &Case, precision: Precision, isa: Isa) -> Results {
    let layout = Layout::new(&case.architecture);
    run(&mut *cpu::engine(&layout, case.size, weights(&layout), precision, isa), case)
}

fn oracle(case: &Case) -> CandleEngine {
    let layout = Layout::new(&case.architecture);
    CandleEngine::new(&layout, case.size, weights(&layout), Device::Cpu, DType::F64)
}

/// A case without values within rounding of a ReLU's kink, which would turn a whole pixel's gradient on or
/// off; and the candle engine's results for it.
fn judge(mut case: Case) -> (Case, Results) {
    loop {
        let expected = run(&mut oracle(&case), &case);
        let steady = [2e-6, -2e-6, 4e-6].into_iter().all(|noise| {
            case.noise = noise;
            let mut engine = oracle(&case);
            pass(&mut engine, &case);
            error(&trunk_gradient(&engine, &case), &expected.parameters) < 1e-4
        });
        case.noise = 0.0;
        if steady {
            return (case, expected);
        }
        case.draw += 1;
        assert!(case.draw < 100, "every draw is at a kink");
    }
}

/// The `i`-th random configuration, judged once for all tests.
pub fn judged(i: usize) -> &'static (Case, Results) {
    static CASES: [OnceLock<(Case, Results)>; 20] = [const { OnceLock::new() }; 20];
    CASES[i].get_or_init(|| judge(case(i as u64)))
}

#[test]
fn agrees_with_candle() {
    for i in 0..20 {
        let (case, expected) = judged(i);
        for isa in Isa::all() {
            let got = on_cpu(case, F32, isa);
            let name = isa.name();
            for (what, a, b) in [
                ("features", &got.features, &expected.features),
                ("moving statistics", &got.moving, &expected.moving),
                ("parameter gradient", &got.parameters, &expected.parameters),
                ("image gradient", &got.images, &expected.images),
                ("tangent", &got.tangent, &expected.tangent),
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
    let (case, expected) = judged(0);
    layers_agree(case, &on_cpu(case, F32, Isa::best()), expected);
}

/// Whether the gradient of each layer of the trunk is the same in both.
pub fn layers_agree(case: &Case, got: &Results, expected: &Results) {
    let tensors = Layout::new(&case.architecture).tensors();
    for (name, _, range) in tensors.into_iter().filter(|t| !t.0.starts_with("heads.")) {
        let e = error(&got.parameters[range.clone()], &expected.parameters[range]);
        assert!(e < 1e-4, "the gradient of {name} is off by {e:e}");
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for i in [0, 1, 2, 5] {
        same_for_all_threads(&case(i), F32);
        same_for_all_threads(&case(i), Bf16);
    }
}

/// A run may begin on one machine and end on another.
#[test]
fn the_same_bits_for_every_instruction_set() {
    for i in [0, 1, 2, 5] {
        let case = case(i);
        let best = on_cpu(&case, F32, Isa::best());
        for isa in Isa::all() {
            let (other, name) = (on_cpu(&case, F32, isa), isa.name());
            assert!(other.features == best.features, "case {i}, {name}");
            assert!(other.moving == best.moving, "case {i}, {name}");
            assert!(other.parameters == best.parameters, "case {i}, {name}");
            assert!(other.images == best.images, "case {i}, {name}");
            assert!(other.tangent == best.tangent, "case {i}, {name}");
            assert!(other.inferred == best.inferred, "case {i}, {name}");
        }
    }
}

fn same_for_all_threads(case: &Case, precision: Precision) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| on_cpu(case, precision, Isa::best()))
    };
    let one = on(1);
    for other in [on(2), on(4), on(64)] {
        assert!(other.features == one.features);
        assert!(other.moving == one.moving);
        assert!(other.parameters == one.parameters);
        assert!(other.images == one.images);
        assert!(other.tangent == one.tangent);
        assert!(other.inferred == one.inferred);
    }
}

#[test]
fn bfloat16_is_float32_but_for_rounding() {
    for i in 0..6 {
        let (case, expected) = judged(i);
        for isa in Isa::all() {
            let (got, name) = (on_cpu(case, Bf16, isa), isa.name());
            // bfloat16 keeps 8 bits; if this turns a ReLU on or off, a pixel's gradient follows.
            for (what, a, b, least) in [
                ("features", &got.features, &expected.features, 0.99),
                ("moving statistics", &got.moving, &expected.moving, 0.999),
                ("parameter gradient", &got.parameters, &expected.parameters, 0.8),
                ("image gradient", &got.images, &expected.images, 0.8),
                ("tangent", &got.tangent, &expected.tangent, 0.8),
                ("inferred features", &got.inferred, &expected.inferred, 0.999),
            ] {
                let c = cosine(a, b);
                assert!(c > least, "case {i}, {name}: {what} has cosine {c}");
            }
        }
    }
}

pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
