//! Too little memory: one line with what is needed and what to lower.

use crate::common::training::{EVAL, PRETRAIN, SUBSET, labelled_shards, pretrain, words};

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

/// Offsets inside an image of a layer have 32 bits; nothing is made of more.
#[test]
fn a_layer_with_too_many_values_is_refused() {
    let scratch = labelled_shards();
    let message = "an image of 16384x16384 has 2^32 values or more in a layer; lower width_factor";
    let pipe = |key: &str| format!("-s {key}=resize(16384)|-1_to_1");
    let large = format!("{} {}", pipe("augment_labelled"), pipe("augment_eval"));
    for more in ["", " --dry-run"] {
        let more = format!("{large} -s batch=8{more}");
        pretrain(&scratch, "supervised_10p", "model", &more).fails(78, &[message]);
    }
    // The batch plays no part: 1,024 images of the widest published network, in either precision. In bfloat16
    // the working memory of the weights depends on the machine's instructions.
    let wide = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/imagenet/moam_step1.toml");
    for (precision, megabytes) in [("f32", 175_000..175_400), ("bf16", 96_800..97_400)] {
        let line =
            format!("--in none --recipe {wide} --dry-run --threads 2 --precision {precision}");
        let ran = scratch.run(PRETRAIN, &words(&line));
        let said = ran.stdout.lines().find(|line| line.starts_with("memory")).unwrap();
        let said = said.split_whitespace().rev().nth(1).unwrap().parse::<u64>().unwrap();
        assert!(megabytes.contains(&said), "{precision}: {said}");
    }
}

/// The batch that an error suggests trains within the limit, and a slightly larger one is refused.
#[test]
fn the_largest_batch_that_fits_does() {
    let scratch = labelled_shards();
    for (row, precision, limit, batches) in [
        ("supervised_10p", "f32", 100, "batch=20000"),
        ("vat_entmin", "f32", 150, "batch=4000 -s unlabelled_batch=8000"),
        ("s4l_rotation", "f32", 200, "batch=4000 -s unlabelled_batch=1000"),
        // VAT's tangents take places of their own.
        ("vat", "bf16", 150, "batch=4000 -s unlabelled_batch=8000"),
    ] {
        let run = |batches: &str| {
            let limits = format!("--precision {precision} --max-memory {limit}");
            let more = format!("-s {batches} {limits} -s schedule=[0,2]");
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

/// A process begins with the peak of the one that started it, in what `getrusage` counts.
#[test]
fn the_peak_that_is_recorded_is_of_the_stage_alone() {
    let scratch = labelled_shards();
    let held = vec![1u8; 400 << 20];
    let line = "--in shards --all --out all.parquet";
    let ran = scratch.run(SUBSET, &words(line)).ok();
    let (_, peak) = ran.stderr.split_once("peak memory ").unwrap();
    let peak: usize = peak.split(' ').next().unwrap().parse().unwrap();
    assert!(peak < held.len() >> 21, "{peak} MB");
}
