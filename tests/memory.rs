//! Too little memory: one line with what is needed and what to lower.

mod common;

use common::training::{EVAL, labelled_shards, pretrain, words};

#[test]
fn a_step_that_is_too_large_is_refused_before_it() {
    let scratch = labelled_shards();
    let before = scratch.names();
    let ran = pretrain(&scratch, "supervised_10p", "model", "-s batch=20000 --max-memory 300");
    let message = [
        "training with batch=20000 needs about ",
        " MB of memory, and --max-memory allows 300 MB; the largest that would fit is -s batch=",
    ];
    ran.fails(78, &message);
    // Weights that fit in no memory: an error before the memory of a step is computed.
    let wide = "-s width_factor=60 -s units=[1,1,1,1] --max-memory 300";
    pretrain(&scratch, "supervised_10p", "model", wide)
        .fails(78, &["no memory for ", " bytes more", "width_factor"]);
    assert_eq!(scratch.names(), before);
    // If the memory suffices, the limit changes nothing.
    pretrain(&scratch, "supervised_10p", "model", "--max-memory 300").ok();
}

/// The batch that an error suggests trains within the limit, and a slightly larger one is refused.
#[test]
fn the_largest_batch_that_fits_does() {
    let scratch = labelled_shards();
    for (row, limit, batches) in [
        ("supervised_10p", 100, "batch=20000"),
        ("vat_entmin", 150, "batch=4000 -s unlabelled_batch=8000"),
        ("s4l_rotation", 200, "batch=4000 -s unlabelled_batch=1000"),
    ] {
        let run = |batches: &str| {
            let more = format!("-s {batches} --max-memory {limit} -s schedule=[0,2]");
            pretrain(&scratch, row, &format!("{row}-{limit}"), &more)
        };
        let refused = run(batches);
        refused.fails(78, &["the largest that would fit is -s batch="]);
        let named = refused.stderr.trim_end().rsplit("fit is -s ").next().unwrap().to_string();
        let more = |count: &str| (count.parse::<usize>().unwrap() * 21).div_ceil(20).to_string();
        let words = named.split('=').map(|word| match word.split_once(' ') {
            Some((count, rest)) => format!("{} {rest}", more(count)),
            None => word.parse::<usize>().map_or(word.to_string(), |_| more(word)),
        });
        let larger: Vec<String> = words.collect();
        run(&larger.join("=")).fails(78, &["the largest that would fit is -s batch="]);
        run(&named).ok();
    }
    // If even one image is too much, the error suggests no batch.
    let large = "-s augment_labelled=resize(224)|-1_to_1 -s augment_eval=resize(224)|-1_to_1";
    let wide = format!("-s batch=8 -s width_factor=24 {large} --max-memory 100");
    pretrain(&scratch, "supervised_10p", "model", &wide)
        .fails(78, &["no batch would fit, lower width_factor"]);
}

#[test]
fn an_evaluation_without_memory_is_an_error_of_the_system() {
    let scratch = labelled_shards();
    // Weights of 3 MB, and activations of 6 MB.
    let more = "-s schedule=[0,0.1] -s batch=4 -s width_factor=12";
    pretrain(&scratch, "supervised_10p", "model", more).ok();
    let line = "--in shards --model model --out e.parquet --threads 1 -q --max-memory 12";
    let ran = scratch.run(EVAL, &words(line));
    ran.fails(74, &["memory", "allow more memory"]);
    assert!(!scratch.path("e.parquet").exists());
}

#[test]
fn more_threads_than_anybody_has_are_as_many_as_help() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "model", "-s schedule=[0,0.2]").ok();
    let line = "--in shards --model model --out e.parquet -q --threads 70000";
    scratch.run(EVAL, &words(line)).ok();
}
