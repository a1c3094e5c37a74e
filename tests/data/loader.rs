//! The batches of the training loader: their rows, and their random numbers.

use s4l::augment::{Mode, Pipe};
use s4l::methods::batch::{Half, Labels};
use s4l::methods::views::ImageViews;
use s4l::ranks::Share;
use s4l::rng::{Stream, permutation, rng};
use s4l::shards::{Shards, Split};
use s4l::train::loader::{ImageSet, TrainingImages};
use std::sync::Arc;

const SEED: u64 = 7;
const VALUES: usize = 28 * 28;
const PLAIN: &str = "resize(28)|flip_lr|-1_to_1";
const WEAK: &str = "inception_crop|resize(28)|flip_lr|-1_to_1";
const STRONG: &str = "inception_crop|resize(28)|-1_to_1|rotate";

fn set(rows: Vec<u32>, batch: usize, pipes: &[&str], order: Stream, augment: Stream) -> ImageSet {
    ImageSet { rows, batch, views: ImageViews::new(pipes, 1).unwrap(), order, augment }
}

/// The views of the `nth` image that a set draws. Its pipes use one generator in turn.
fn expected(split: &Split, set: &ImageSet, pipes: &[&str], nth: usize) -> Vec<f32> {
    let (epoch, position) = (nth / set.rows.len(), nth % set.rows.len());
    let order = permutation(&mut rng(SEED, set.order, epoch as u64, 0), set.rows.len());
    let row = set.rows[order[position] as usize];
    let mut rng = rng(SEED, set.augment, epoch as u64, row.into());
    let mut views = Vec::new();
    for text in pipes {
        let pipe = Pipe::parse(text, Mode::Train).unwrap();
        let mut out = vec![0.0; pipe.output(1).unwrap().values()];
        split.augment(row as usize, &pipe, &mut rng, &mut out).unwrap();
        views.extend(out);
    }
    views
}

#[test]
fn a_batch_has_unlabelled_rows_first_and_the_views_of_all_pipes_of_an_image_together() {
    let scratch = crate::common::smoke_shards();
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    let strong_and_weak = [WEAK, STRONG];
    let labelled =
        set(vec![3, 1, 4, 15, 9], 3, &[PLAIN], Stream::LabelledOrder, Stream::LabelledAugment);
    let unlabelled = set(
        (20..27).collect(),
        2,
        &strong_and_weak,
        Stream::UnlabelledOrder,
        Stream::UnlabelledAugment,
    );
    let images = Arc::new(TrainingImages {
        split: split.clone(),
        labelled: labelled.clone(),
        labels: Labels::Hard(vec![0, 1, 2, 3, 4]),
        unlabelled: unlabelled.clone(),
        seed: SEED,
        share: Share::WHOLE,
    });
    // Over the ends of both epochs, and starting at another step.
    for first in [0, 3] {
        let mut batches = images.batches(first, 6);
        for step in first as usize..6 {
            let batch = batches.advance().unwrap();
            assert_eq!(batch.rows.unlabelled, Half { images: 2, views: 5 });
            assert_eq!(batch.rows.labelled, Half { images: 3, views: 1 });
            assert_eq!(batch.images.len(), (2 * 5 + 3) * VALUES);
            let u = (2 * step..2 * step + 2)
                .flat_map(|nth| expected(&split, &unlabelled, &strong_and_weak, nth));
            let l =
                (3 * step..3 * step + 3).flat_map(|nth| expected(&split, &labelled, &[PLAIN], nth));
            assert!(batch.images == u.chain(l).collect::<Vec<f32>>(), "step {step}");
        }
    }
}

#[test]
fn labels_are_those_of_the_drawn_images() {
    let scratch = crate::common::smoke_shards();
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    let labelled =
        set((0..5).collect(), 2, &[PLAIN], Stream::LabelledOrder, Stream::LabelledAugment);
    let order = permutation(&mut rng(SEED, Stream::LabelledOrder, 0, 0), 5);
    let images = |labels| {
        let unlabelled = ImageSet { batch: 0, ..labelled.clone() };
        let (split, labelled) = (split.clone(), labelled.clone());
        Arc::new(TrainingImages {
            split,
            labelled,
            labels,
            unlabelled,
            seed: SEED,
            share: Share::WHOLE,
        })
    };
    let hard = images(Labels::Hard(vec![10, 11, 12, 13, 14]));
    match &hard.batches(1, 2).advance().unwrap().labels {
        Labels::Hard(labels) => assert_eq!(labels[..], [10 + order[2], 10 + order[3]]),
        soft => panic!("{soft:?}"),
    }
    let probabilities = (0..10).map(|v| v as f32).collect();
    let soft = images(Labels::Soft { probabilities, classes: 2 });
    match &soft.batches(1, 2).advance().unwrap().labels {
        Labels::Soft { probabilities, classes: 2 } => {
            let of = |i: u32| [2.0 * i as f32, 2.0 * i as f32 + 1.0];
            assert_eq!(probabilities[..], [of(order[2]), of(order[3])].concat());
        }
        other => panic!("{other:?}"),
    }
}
