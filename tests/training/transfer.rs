//! `--init` from a model of other classes, or of the same classes in another order.

use crate::common::training::{PRETRAIN, recipe, words};
use crate::common::{Scratch, photos, shard};
use s4l::model::folder::Model;
use s4l::schema::head::CLASSES;

/// Trains on all labels of `shards` with a learning rate that changes nothing; returns its messages.
fn train(scratch: &Scratch, shards: &str, out: &str, more: &str) -> String {
    let labelled = format!("{out}.parquet");
    let subset = env!("CARGO_BIN_EXE_s4l-subset");
    scratch.run(subset, &words(&format!("--in {shards} --all --out {labelled}"))).ok();
    let line = format!(
        "--in {shards} --labelled {labelled} --recipe {} -s units=[1] -s stem=small_stride2 -s batch=4 \
         -s schedule=[0,1] -s learning_rate=1e-60 --threads 1 --out {out} {more}",
        recipe("s4l_rotation")
    );
    scratch.run(PRETRAIN, &words(&line)).ok().stderr
}

/// Parameters of the trunk, and per output of a head its kernel and bias.
fn parameters(scratch: &Scratch, model: &str, head: &str) -> (Vec<f32>, Vec<Vec<f32>>) {
    let Model { layout, weights, .. } = Model::open(&scratch.path(model)).unwrap();
    let all = &weights.parameters;
    let head = layout.head(head).unwrap();
    let (kernel, bias) = (&all[layout.head_kernel(head)], &all[layout.head_bias(head)]);
    let output = |nth: usize| {
        let of_features = kernel.iter().skip(nth).step_by(head.outputs);
        of_features.chain([&bias[nth]]).copied().collect()
    };
    (all[..layout.trunk_parameters].to_vec(), (0..head.outputs).map(output).collect())
}

#[test]
fn the_trunk_of_a_model_of_other_classes() {
    let scratch = Scratch::new();
    photos(&scratch);
    let shards = |name: &str, more: &[&str]| {
        shard(&scratch, &[&["--in", "photos", "--out", name, "-q"], more].concat()).ok();
    };
    shards("three", &[]);
    scratch.write("order", "shirt\nbag\ncoat\n");
    shards("ordered", &["--classes", "order"]);
    std::fs::rename(scratch.path("photos/shirt"), scratch.path("photos/Shirt")).unwrap();
    shards("renamed", &[]);
    std::fs::remove_dir_all(scratch.path("photos/bag")).unwrap();
    shards("two", &[]);
    let one = "--init one --seed 9";
    assert!(!train(&scratch, "three", "one", "--seed 1").contains("class head"));
    let (trunk, heads) = parameters(&scratch, "one", CLASSES);
    let rotations = parameters(&scratch, "one", "rotations").1;

    assert!(!train(&scratch, "three", "same", one).contains("class head"));
    assert_eq!(parameters(&scratch, "same", CLASSES), (trunk.clone(), heads.clone()));

    let said = train(&scratch, "ordered", "reordered", one);
    assert!(said.contains("one: has the classes of ordered in another order; "), "{said}");
    // Of bag, coat, shirt.
    let moved = vec![heads[2].clone(), heads[0].clone(), heads[1].clone()];
    assert_eq!(parameters(&scratch, "reordered", CLASSES), (trunk.clone(), moved));

    for (shards, words) in [
        (
            "renamed",
            "3 classes that are not the 3 of renamed, \"bag\" for \"Shirt\"; its trunk is kept",
        ),
        ("two", "3 classes that are not the 2 of two, \"bag\" for \"Shirt\"; its trunk is kept"),
    ] {
        let said = train(&scratch, shards, &format!("{shards}-out"), one);
        assert!(said.contains(words), "{said}");
        train(&scratch, shards, "scratch", "--seed 9 --force");
        let (kept, head) = parameters(&scratch, &format!("{shards}-out"), CLASSES);
        assert_eq!(kept, trunk, "{shards}");
        // The head is that of a fresh start; everything that both networks have is taken over.
        assert_eq!(head, parameters(&scratch, "scratch", CLASSES).1, "{shards}");
        assert_eq!(parameters(&scratch, &format!("{shards}-out"), "rotations").1, rotations);
        std::fs::remove_file(scratch.path("scratch.parquet")).unwrap();
    }
}
