//! `--dry-run` of the ImageNet recipes, which needs no images: steps and parameters are the
//! reference's.

mod common;

use common::Scratch;

#[test]
fn imagenet_recipes_have_the_reference_s_steps_and_parameters() {
    // Recipe, steps, parameters, effective learning rate, images in main passes.
    let table = [
        ("supervised_1p", 50_000, 25_549_352, "0.01", 12_800_000),
        ("supervised_10p", 100_000, 25_549_352, "0.1", 25_600_000),
        ("pseudo_labels", 500_400, 25_549_352, "0.1", 128_102_400),
        ("vat", 100_000, 25_549_352, "0.03", 51_200_000),
        ("vat_entmin", 100_000, 25_549_352, "0.03", 51_200_000),
        ("s4l_rotation", 100_000, 25_557_548, "0.03", 204_800_000),
        ("s4l_exemplar", 50_000, 27_598_352, "0.1", 409_600_000),
        ("moam_step1", 200_000, 383_573_228, "0.1", 204_800_000),
        ("moam_step2", 180_162, 383_573_228, "0.1", 184_485_888),
        ("moam_step3", 20_000, 383_573_228, "0.0005", 20_480_000),
    ];
    let scratch = Scratch::new();
    for (row, steps, parameters, learning_rate, images) in table {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/imagenet");
        let recipe = format!("{folder}/{row}.toml");
        let (binary, step): (_, &[&str]) = match row {
            "moam_step2" => (env!("CARGO_BIN_EXE_s4l-moam"), &["--step", "retrain"]),
            "moam_step3" => (env!("CARGO_BIN_EXE_s4l-moam"), &["--step", "finetune"]),
            _ => (env!("CARGO_BIN_EXE_s4l-pretrain"), &[]),
        };
        let plan = scratch
            .run(
                binary,
                &[step, &["--recipe", &recipe, "--dry-run"]].concat(),
            )
            .ok()
            .stdout;
        let has = |name: &str, value: String| {
            let found = plan.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            let first = found.split_whitespace().next().unwrap();
            assert_eq!(first, value, "{row}: {name}");
        };
        has("steps", steps.to_string());
        has("parameters", parameters.to_string());
        has("learning rate", learning_rate.to_string());
        has("images seen", images.to_string());
    }
    assert!(scratch.names().is_empty(), "a dry run wrote something");
}
