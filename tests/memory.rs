//! Too little memory: one line with what was needed and what to lower.

mod common;

use common::training::{EVAL, labelled_shards, pretrain, words};

#[test]
fn a_step_that_is_too_large_is_refused_before_it() {
    let scratch = labelled_shards();
    let before = scratch.names();
    let ran = pretrain(&scratch, "supervised_10p", "model", "-s batch=20000 --max-memory 300");
    let message =
        ["training needs about ", " MB of memory, and --max-memory allows 300 MB", "lower batch"];
    ran.fails(78, &message);
    // Weights that nobody can hold, before it is known how large a step is.
    let wide = "-s width_factor=60 -s units=[1,1,1,1] --max-memory 300";
    pretrain(&scratch, "supervised_10p", "model", wide)
        .fails(78, &["no memory for ", " bytes more", "width_factor"]);
    assert_eq!(scratch.names(), before);
    // With room for it, the limit changes nothing.
    pretrain(&scratch, "supervised_10p", "model", "--max-memory 300").ok();
}

#[test]
fn an_evaluation_without_memory_is_an_error_of_the_system() {
    let scratch = labelled_shards();
    // Weights of 3 MB, and 6 MB of activations.
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
