//! The GPU engine on a simulated GPU (tests/common/gpu.rs) against the CPU engine: values, gradients, moving
//! statistics, VAT's moves, the optimizer. What is left to a real one is in CUDA's libraries.

use super::trunk::{
    Case, Results, case, cosine, error, judged, layers_agree, on_cpu, random, run, weights,
};
use crate::common::gpu::{Simulated, gpu};
use s4l::network::cpu::{self, Isa};
use s4l::network::cuda;
use s4l::network::cuda::runtime::Runtime;
use s4l::network::engine::Precision::{self, Bf16, F32};
use s4l::network::engine::{Engine, Inner, Pass};
use s4l::network::layout::{Architecture, Layout, Stem};
use s4l::network::update::Update;
use s4l::network::weights::Weights;

fn engine(
    case: &Case,
    weights: Weights,
    precision: Precision,
    on: Box<dyn Runtime>,
) -> Box<dyn Engine> {
    let layout = Layout::new(&case.architecture);
    cuda::engine(on, &layout, case.size, weights, precision).unwrap()
}

fn on_gpu(case: &Case, precision: Precision, descending: bool) -> Results {
    let weights = weights(&Layout::new(&case.architecture));
    run(&mut *engine(case, weights, precision, gpu(descending)), case)
}

#[test]
fn gpu_engine_agrees_with_the_cpu_engine() {
    for i in 0..20 {
        let (case, _) = judged(i);
        let (got, expected) = (on_gpu(case, F32, false), on_cpu(case, F32, Isa::best()));
        for (what, a, b) in [
            ("features", &got.features, &expected.features),
            ("moving statistics", &got.moving, &expected.moving),
            ("parameter gradient", &got.parameters, &expected.parameters),
            ("image gradient", &got.images, &expected.images),
            ("tangent", &got.tangent, &expected.tangent),
            ("inferred features", &got.inferred, &expected.inferred),
        ] {
            let e = error(a, b);
            assert!(e < 1e-4, "case {i}: {what} is off by {e:e}");
        }
        layers_agree(case, &got, &expected);
    }
}

#[test]
fn gpu_engine_in_bfloat16_is_float32_but_for_rounding() {
    for i in 0..6 {
        let (case, expected) = judged(i);
        let got = on_gpu(case, Bf16, false);
        // As in trunk.rs.
        for (what, a, b, least) in [
            ("features", &got.features, &expected.features, 0.99),
            ("moving statistics", &got.moving, &expected.moving, 0.999),
            ("parameter gradient", &got.parameters, &expected.parameters, 0.8),
            ("image gradient", &got.images, &expected.images, 0.8),
            ("tangent", &got.tangent, &expected.tangent, 0.8),
            ("inferred features", &got.inferred, &expected.inferred, 0.999),
        ] {
            let c = cosine(a, b);
            assert!(c > least, "case {i}: {what} has cosine {c}");
        }
    }
}

/// Threads in another order give the same bits: no kernel races, and no place is of two things at once.
#[test]
fn gpu_engine_does_not_depend_on_the_order_of_threads() {
    for (i, precision) in [(0, F32), (1, Bf16), (2, F32), (5, Bf16)] {
        let case = case(i);
        let (one, other) = (on_gpu(&case, precision, false), on_gpu(&case, precision, true));
        assert!(one.features == other.features, "case {i}");
        assert!(one.moving == other.moving, "case {i}");
        assert!(one.parameters == other.parameters, "case {i}");
        assert!(one.images == other.images, "case {i}");
        assert!(one.tangent == other.tangent, "case {i}");
        assert!(one.inferred == other.inferred, "case {i}");
    }
}

/// A network with heads of numbers of outputs that fit nothing.
fn with_heads(stem: Stem) -> Case {
    let heads = [("classes", 7), ("rotations", 4), ("embeddings", 13)];
    let architecture = Architecture {
        channels: 3,
        units: vec![2, 1],
        width_factor: 1,
        stem,
        heads: heads.map(|(name, outputs)| (name.to_string(), outputs)).into(),
    };
    Case { architecture, size: (13, 10), images: 6, draw: 0, noise: 0.0 }
}

/// Weights with an average, and norms without values near the kink of a ReLU, whose rounding would decide.
fn smooth(case: &Case) -> Weights {
    let layout = Layout::new(&case.architecture);
    let mut weights = Weights::initial(&layout, 3);
    for norm in layout.norms() {
        weights.parameters[norm.beta()].iter_mut().for_each(|beta| *beta += 4.0);
    }
    weights.average = random(layout.parameters, 0.1, 4);
    weights.velocity = random(layout.parameters, 0.01, 5);
    weights
}

/// The same calls of both engines; all that they show, in order.
fn both(case: &Case, calls: impl Fn(&mut dyn Engine) -> Vec<(&'static str, Vec<f32>)>) {
    let layout = Layout::new(&case.architecture);
    let mut on_cpu = cpu::engine(&layout, case.size, smooth(case), F32, Isa::best());
    let mut on_gpu = engine(case, smooth(case), F32, gpu(false));
    let (expected, got) = (calls(&mut *on_cpu), calls(&mut *on_gpu));
    for (i, ((what, got), (_, expected))) in got.iter().zip(&expected).enumerate() {
        let e = error(got, expected);
        assert!(e < 1e-4, "{what} ({i}) is off by {e:e}");
    }
}

fn images(case: &Case, n: usize, sample: u64) -> Vec<f32> {
    random(n * case.size.0 * case.size.1 * case.architecture.channels, 1.0, sample)
}

const UPDATE: Update =
    Update { learning_rate: 0.01, momentum: 0.9, weight_decay: 0.01, half_life: 3.0 };

/// A pass with a loss that leaves out the head at an index.
fn pass(engine: &mut dyn Engine, pass: Pass, without: usize) -> Vec<(&'static str, Vec<f32>)> {
    let logits = engine.forward(pass).unwrap();
    let tangents = match pass {
        Pass::Direction => engine.tangents().unwrap(),
        Pass::Train { .. } | Pass::Perturbed => Vec::new(),
    };
    let gradient = |(i, logits): (usize, &Vec<f32>)| {
        (i != without).then(|| random(logits.len(), 0.1, 30 + i as u64))
    };
    let gradients: Vec<_> = logits.iter().enumerate().map(gradient).collect();
    engine.backward(&gradients, true).unwrap();
    let inner = |inner| engine.read(inner).unwrap();
    let mut seen: Vec<_> = logits.into_iter().map(|logits| ("logits", logits)).collect();
    seen.extend(tangents.into_iter().map(|tangents| ("tangents", tangents)));
    if pass == Pass::Direction {
        seen.extend([("direction", inner(Inner::Direction)), ("moved", inner(Inner::Moved))]);
    } else {
        seen.push(("gradient", inner(Inner::Gradient)));
    }
    seen
}

fn state(engine: &dyn Engine) -> Vec<(&'static str, Vec<f32>)> {
    let Weights { parameters, velocity, average, moving } = engine.get().unwrap();
    vec![
        ("parameters", parameters),
        ("velocity", velocity),
        ("average", average),
        ("moving statistics", moving),
    ]
}

#[test]
fn gpu_engine_trains_several_heads_as_the_cpu_engine_does() {
    for stem in [Stem::Small, Stem::Imagenet] {
        let case = with_heads(stem);
        both(&case, |engine| {
            let mut seen = Vec::new();
            // Batches of several sizes: places move, and memory grows.
            for (step, n) in [6, 3, 8, 8].into_iter().enumerate() {
                engine.images(&mut images(&case, n, step as u64));
                seen.extend(pass(engine, Pass::Train { keep: 0.9 }, step));
                engine.update(&UPDATE).unwrap();
                seen.extend(state(engine));
            }
            seen
        });
    }
}

#[test]
fn gpu_engine_moves_images_as_the_cpu_engine_does() {
    let case = with_heads(Stem::SmallStride2);
    for every in [1, 2] {
        both(&case, |engine| {
            engine.images(&mut images(&case, 6, 1));
            let mut seen = pass(engine, Pass::Train { keep: 0.9 }, 1);
            engine.direction(images(&case, 6 / every, 2), every);
            engine.along(1.0);
            seen.extend(pass(engine, Pass::Direction, 1));
            engine.along(2.0);
            seen.push(("moved", engine.read(Inner::Moved).unwrap()));
            seen.extend(pass(engine, Pass::Perturbed, 2));
            // No direction, no move.
            engine.direction(vec![0.0; images(&case, 2, 3).len()], every);
            engine.along(3.0);
            seen.push(("not moved", engine.read(Inner::Moved).unwrap()));
            seen.extend(pass(engine, Pass::Perturbed, 2));
            engine.update(&UPDATE).unwrap();
            seen.extend(state(engine));
            seen
        });
    }
}

#[test]
fn gpu_engine_takes_over_weights_and_infers_as_the_cpu_engine_does() {
    let case = with_heads(Stem::Imagenet);
    both(&case, |engine| {
        engine.images(&mut images(&case, 6, 1));
        let mut seen = pass(engine, Pass::Train { keep: 0.5 }, 0);
        let infer = |engine: &mut dyn Engine| {
            engine.prepare().unwrap();
            let images = images(&case, 5, 2);
            (0..3)
                .map(|head| ("inferred", engine.infer(&images, head).unwrap()))
                .collect::<Vec<_>>()
        };
        seen.extend(infer(engine));
        engine.update(&UPDATE).unwrap();
        seen.extend(infer(engine));
        let mut weights = smooth(&case);
        weights.parameters.iter_mut().for_each(|p| *p *= 1.1);
        weights.average.clear();
        engine.put(weights.clone()).unwrap();
        assert!(engine.get().unwrap() == weights);
        seen.extend(infer(engine));
        seen.extend(pass(engine, Pass::Train { keep: 0.5 }, 1));
        engine.update(&UPDATE).unwrap();
        assert!(engine.get().unwrap().average.is_empty());
        seen.extend(state(engine).into_iter().filter(|(_, values)| !values.is_empty()));
        seen
    });
}

#[test]
fn gpu_inference_does_not_depend_on_how_many_images_come_at_once() {
    let case = Case { size: (5, 4), ..with_heads(Stem::Small) };
    let mut engine = engine(&case, smooth(&case), Bf16, gpu(false));
    engine.prepare().unwrap();
    let images = images(&case, 260, 1);
    let all = engine.infer(&images, 0).unwrap();
    let pieces = images.chunks(100 * 5 * 4 * 3);
    let pieces: Vec<f32> = pieces.flat_map(|piece| engine.infer(piece, 0).unwrap()).collect();
    assert!(all == pieces);
}

/// One line before the step, with the number of images that do fit.
#[test]
fn gpu_engine_says_how_many_images_fit() {
    let case = with_heads(Stem::Small);
    let mut small = Simulated::new(false);
    small.memory = 8 << 20;
    let mut engine = engine(&case, smooth(&case), F32, Box::new(small));
    engine.images(&mut images(&case, 200, 1));
    let error = engine.forward(Pass::Train { keep: 0.9 }).unwrap_err().to_string();
    let words: Vec<&str> = error.split_whitespace().collect();
    let most = words.windows(2).find(|w| w[0] == "most").unwrap()[1].parse::<usize>().unwrap();
    assert!(error.starts_with("200 images at once need") && !error.contains('\n'), "{error}");
    engine.images(&mut images(&case, most, 1));
    engine.forward(Pass::Train { keep: 0.9 }).unwrap();
    engine.images(&mut images(&case, most + 1, 1));
    assert!(engine.forward(Pass::Train { keep: 0.9 }).is_err());
}
