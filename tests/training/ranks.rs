//! Several ranks that train one network: the same numbers as one, for every method.

use crate::common::ranks::together;
use crate::common::smoke_shards;
use s4l::methods::batch::Labels;
use s4l::methods::main_pass::At;
use s4l::methods::{architecture, needs_soft_labels, step, views};
use s4l::network::Network;
use s4l::network::device::Device;
use s4l::network::engine::{Inner, Pass, Precision};
use s4l::network::layout::Layout;
use s4l::network::update::Update;
use s4l::network::weights::Weights;
use s4l::ranks::{Alone, GradientSum, Ranks};
use s4l::rng::{RngExt, Stream, rng};
use s4l::settings::Settings;
use s4l::shards::Split;
use s4l::train::loader::{ImageSet, TrainingImages};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const CLASSES: usize = 10;
const STEPS: u64 = 10;
const SHIFT: f32 = 4.0;

/// The settings of a recipe of the smoke pipeline.
fn settings(row: &str) -> Settings {
    let path = format!("{}/pipelines/smoke/{row}.toml", env!("CARGO_MANIFEST_DIR"));
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// 100 labelled images, the others unlabelled.
fn images(split: &Split, s: &Settings, ranks: &Ranks) -> Arc<TrainingImages> {
    let views = views(s, 1).unwrap();
    let labels = match needs_soft_labels(s.method) {
        false => Labels::Hard((0..100).map(|i| i % CLASSES as u32).collect()),
        true => {
            let mut rng = rng(3, Stream::Init, 0, 0);
            let sure = |_| [rng.random::<f32>(), 0.0].map(|p| 0.1 * p + 0.05).map(|p| [p; 5]);
            let probabilities = (0..100).flat_map(sure).flatten().collect();
            Labels::Soft { probabilities, classes: CLASSES }
        }
    };
    Arc::new(TrainingImages {
        split: split.clone(),
        labelled: ImageSet {
            rows: (0..100).collect(),
            batch: s.batch,
            views: views.labelled,
            order: Stream::LabelledOrder,
            augment: Stream::LabelledAugment,
        },
        labels,
        unlabelled: ImageSet {
            rows: (100..split.len() as u32).collect(),
            batch: s.unlabelled_batch,
            views: views.unlabelled,
            order: Stream::UnlabelledOrder,
            augment: Stream::UnlabelledAugment,
        },
        seed: 5,
        share: ranks.share(),
    })
}

/// Where training begins: weights changed by up to this share of themselves.
pub fn first_weights(layout: &Layout, change: f32) -> Weights {
    let mut weights = Weights::initial(layout, 5);
    let mut rng = rng(5, Stream::Init, 1, 0);
    weights.parameters.iter_mut().for_each(|p| *p += 0.1 * (rng.random::<f32>() - 0.5));
    // Where no value is near the kink of a ReLU, rounding stays rounding: else it decides on which side some are.
    for norm in layout.units.iter().flat_map(|unit| &unit.norms).chain([&layout.norm]) {
        weights.parameters[norm.beta()].iter_mut().for_each(|beta| *beta += SHIFT);
    }
    // Which would make large logits, whose rounding would drown VAT's small step.
    for head in &layout.heads {
        let kernel = weights.parameters[layout.head_kernel(head)].to_vec();
        for (output, bias) in weights.parameters[layout.head_bias(head)].iter_mut().enumerate() {
            *bias -= SHIFT * kernel.iter().skip(output).step_by(head.outputs).sum::<f32>();
        }
    }
    weights.parameters.iter_mut().for_each(|p| *p *= 1.0 + change * (rng.random::<f32>() - 0.5));
    weights
}

/// What a network has after some steps: all that was measured, and the weights.
pub type Trained = (Vec<(&'static str, f64)>, Weights);

/// Trains with this rank's part of each batch.
pub fn train(network: &mut Network, split: &Split, s: &Settings, steps: u64) -> Trained {
    let mut batches = images(split, s, network.ranks()).batches(0, steps);
    let mut measured = Vec::new();
    for number in 0..steps {
        let at = At { seed: 5, step: number, ramp: 1.0 };
        let record = step(network, s, batches.advance().unwrap(), at).unwrap();
        measured.extend(record.iter().map(|value| (value.name, value.value)));
        let update =
            Update { learning_rate: 1e-3, momentum: 0.9, weight_decay: 1e-3, half_life: 0.0 };
        network.engine.update(&update).unwrap();
    }
    (measured, network.engine.get().unwrap())
}

/// What one rank has after some steps from changed weights.
fn trained(split: &Split, s: &Settings, change: f32, ranks: Ranks) -> Trained {
    let architecture = architecture(s, 1, CLASSES);
    let weights = first_weights(&Layout::new(&architecture), change);
    let mut network =
        Network::new(&architecture, (28, 28), Device::Cpu, Precision::F32, weights).unwrap();
    network.join(&ranks, s.sync_batch_norm).unwrap();
    train(&mut network, split, s, STEPS)
}

/// The largest difference in what was measured under each name.
pub fn differences(
    a: &[(&'static str, f64)],
    b: &[(&'static str, f64)],
) -> BTreeMap<&'static str, f64> {
    let mut most = BTreeMap::new();
    for (&(name, a), (_, b)) in a.iter().zip(b) {
        let most: &mut f64 = most.entry(name).or_default();
        *most = most.max((a - b).abs());
    }
    most
}

/// The largest difference of two weights.
pub fn apart(a: &Weights, b: &Weights) -> f32 {
    let pairs = a.parameters.iter().zip(&b.parameters);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Batch statistics, losses over pairs of images, VAT's directions: all are those of the whole batch. What is
/// left is the rounding of sums in another order: as much as rounding the first weights makes.
#[test]
fn two_and_four_ranks_train_as_one() {
    let scratch = smoke_shards();
    let shards = s4l::shards::Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    let of = |row: &'static str| (row, settings(row));
    let cases = [
        (
            "moam_step1, upright classes",
            Settings { upright_classes: true, ..settings("moam_step1") },
        ),
        ("vat, unlabelled images", Settings { vat_labelled: false, ..settings("vat") }),
        of("supervised_10p"),
        of("s4l_exemplar"),
        of("s4l_rotation"),
        of("vat_entmin"),
        of("moam_step1"),
        of("fixmatch"),
        of("distill"),
    ];
    for (nth, (row, s)) in cases.into_iter().enumerate() {
        let run = |size, change| together(size, |ranks| trained(&split, &s, change, ranks));
        let alone = run(1, 0.0).remove(0);
        let rounded = run(1, 1e-7).remove(0);
        let rounded_weights = apart(&rounded.1, &alone.1);
        let rounded = differences(&rounded.0, &alone.0);
        // Twice as many add nothing but time in most cases.
        for &size in if nth < 4 { &[2, 4][..] } else { &[2] } {
            let all = run(size, 0.0);
            let (measured, weights) = &all[0];
            assert!(all.iter().all(|other| other == &all[0]), "{row}: the ranks differ");
            for (name, off) in differences(measured, &alone.0) {
                let most = 1e-5 + 4.0 * rounded[name];
                assert!(off <= most, "{row}, {size} ranks: {name} is off by {off}, {most}");
            }
            let off = apart(weights, &alone.1);
            let most = 1e-5 + 4.0 * rounded_weights;
            assert!(off < most, "{row}, {size} ranks: a weight is off by {off}, {most}");
        }
    }
}

/// Without synchronized batch norms, the passes of a rank are those of a process with its images alone, and the
/// moving statistics are the mean over the ranks.
#[test]
fn ranks_may_have_statistics_of_their_own() {
    let s = settings("supervised_10p");
    let architecture = architecture(&s, 1, CLASSES);
    let layout = Layout::new(&architecture);
    let images = random(0, 2 * 6 * 28 * 28);
    let upstream = random(1, 6 * CLASSES);
    let passes = |ranks: &Ranks, half: usize| {
        let weights = Weights::initial(&layout, 5);
        let mut network =
            Network::new(&architecture, (28, 28), Device::Cpu, Precision::F32, weights).unwrap();
        network.join(ranks, false).unwrap();
        network.engine.images(&mut images[half * 6 * 28 * 28..][..6 * 28 * 28].to_vec());
        network.engine.forward(Pass::Train { keep: 0.9 }).unwrap();
        network.engine.backward(&[Some(upstream.clone())], true).unwrap();
        let gradient = network.engine.read(Inner::Gradient).unwrap();
        let update =
            Update { learning_rate: 1e-3, momentum: 0.9, weight_decay: 1e-3, half_life: 0.0 };
        network.engine.update(&update).unwrap();
        (gradient, network.engine.get().unwrap())
    };
    let alone: Ranks = Arc::new(Alone);
    let [(first, a), (second, b)] = [0, 1].map(|half| passes(&alone, half));
    let both = together(2, |ranks| passes(&ranks, ranks.rank()));
    assert!(both[0].0 == first && both[1].0 == second);
    assert_eq!(both[0].1, both[1].1);
    assert!(first != second && a.moving != b.moving);
    let mean = a.moving.iter().zip(&b.moving).map(|(a, b)| 0.5 * a + 0.5 * b);
    assert_eq!(both[0].1.moving, mean.collect::<Vec<_>>());
}

/// A gradient is added up in pieces from its end on, as soon as a piece is whole.
#[test]
fn a_gradient_is_added_up_in_pieces() {
    const VALUES: usize = 600_001;
    let gradient = |rank| random(rank, VALUES);
    let mut expected = gradient(0);
    for rank in [1, 2] {
        expected.iter_mut().zip(gradient(rank)).for_each(|(sum, own)| *sum += own);
    }
    together(3, |ranks| {
        let mut sum = GradientSum::new(ranks.clone(), VALUES);
        // A pass that is not the last one tells nothing.
        for whole in [&[599_000, 300_000, 299_999, 5, 0][..], &[], &[0]] {
            let mut all = gradient(ranks.rank() as u64);
            for &from in whole {
                let mut so_far = all.clone();
                so_far[..from].fill(f32::NAN);
                sum.whole_from(&so_far, from).unwrap();
            }
            sum.end(&mut all).unwrap();
            assert!(all == expected);
        }
    });
}

/// Values from 0 to 1.
fn random(number: u64, values: usize) -> Vec<f32> {
    let mut rng = rng(7, Stream::Init, 0, number);
    (0..values).map(|_| rng.random()).collect()
}
