//! A training stage that is killed, stopped or diverges, and the same command again.

use crate::common::training::{
    MOAM, PRETRAIN, curve, differing, flip, labelled_shards, moam_words, model, pretrain,
    pretrain_words, pseudolabel, read_labels, rewrite, signalled, words, write_labels,
};
use crate::common::{Ran, Scratch, contents};
use s4l::shards::Shards;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

const NONE: Vec<String> = Vec::new();

/// Kills a stage without warning once it has a checkpoint and runs it again: the bytes are those of an
/// undisturbed run.
fn killed_and_run_again(scratch: &Scratch, program: &str, line: impl Fn(&str) -> String) {
    scratch.run(program, &words(&line("whole"))).ok();
    let whole = model(scratch, "whole");
    let checkpoint = "killed/checkpoint/state.safetensors";
    let ended = signalled(scratch, program, &line("killed"), checkpoint, &[libc::SIGKILL]);
    assert_eq!(ended.status.signal(), Some(libc::SIGKILL));
    assert!(!scratch.path("killed/model.safetensors").exists());
    // A message says that it continues, and from which step.
    let again = line("killed").replace(" -q", "");
    let ran = scratch.run(program, &words(&again)).ok();
    assert!(ran.stderr.contains("killed: going on from step "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("going on from step 0\n"), "{}", ran.stderr);
    assert_eq!(differing(&whole, &model(scratch, "killed")), NONE);
}

#[test]
fn joint_training_survives_a_kill() {
    let scratch = labelled_shards();
    killed_and_run_again(&scratch, PRETRAIN, |out| {
        // Windows of records that straddle the checkpoints.
        pretrain_words("moam_step1", out, "-s checkpoint_every=2 -s log_every=3")
    });
}

#[test]
fn supervised_training_survives_a_kill() {
    let scratch = labelled_shards();
    killed_and_run_again(&scratch, PRETRAIN, |out| {
        let more = "-s checkpoint_every=5 -s schedule=[1,4,8] -s validate_every=0.5";
        pretrain_words("supervised_10p", out, more)
    });
}

/// A checkpoint by the clock, long before the first one by steps.
#[test]
fn a_kill_long_before_the_first_checkpoint_by_steps() {
    let scratch = labelled_shards();
    killed_and_run_again(&scratch, PRETRAIN, |out| {
        let more = "-s checkpoint_every=1000 -s schedule=[1,4,8] --checkpoint-minutes 0.0001";
        pretrain_words("supervised_10p", out, more)
    });
    for minutes in ["0", "-1", "NaN", "soon"] {
        let ran = pretrain(&scratch, "vat", "model", &format!("--checkpoint-minutes={minutes}"));
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("expected minutes above 0"), "{}", ran.stderr);
    }
}

#[test]
fn retraining_survives_a_kill() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "one", "-s schedule=[0,1]").ok();
    pseudolabel(&scratch, "one", "").ok();
    killed_and_run_again(&scratch, MOAM, |out| {
        let more = "--labels labels.parquet --init one -s checkpoint_every=2";
        moam_words("retrain", out, more)
    });
}

#[test]
fn fine_tuning_survives_a_kill() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "one", "-s schedule=[0,1]").ok();
    killed_and_run_again(&scratch, MOAM, |out| {
        let more = "--labelled labelled.parquet --init one -s checkpoint_every=2";
        moam_words("finetune", out, more)
    });
}

#[test]
fn distillation_survives_a_kill() {
    let scratch = labelled_shards();
    pretrain(&scratch, "moam_step1", "one", "-s schedule=[0,1]").ok();
    pseudolabel(&scratch, "one", "").ok();
    killed_and_run_again(&scratch, MOAM, |out| {
        moam_words("distill", out, "--labels labels.parquet -s checkpoint_every=2")
    });
}

#[test]
fn signals_end_training_with_a_checkpoint_and_75_however_many_come() {
    let scratch = labelled_shards();
    let more = "-s schedule=[1,4,8] -s checkpoint_every=1000";
    pretrain(&scratch, "supervised_10p", "whole", more).ok();
    let whole = model(&scratch, "whole");
    use libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    let cases: [(&str, &[i32]); 8] = [
        ("term", &[SIGTERM]),
        ("int", &[SIGINT]),
        ("hup", &[SIGHUP]),
        ("usr1", &[SIGUSR1]),
        ("usr2", &[SIGUSR2]),
        ("term-term", &[SIGTERM, SIGTERM]),
        ("usr1-term", &[SIGUSR1, SIGTERM]),
        ("int-int-hup", &[SIGINT, SIGINT, SIGHUP]),
    ];
    for (out, signals) in cases {
        let line = pretrain_words("supervised_10p", out, more);
        let log = format!("{out}/metrics.jsonl");
        let ended = signalled(&scratch, PRETRAIN, &line, &log, signals);
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(75), "{stderr}");
        let message = format!("error: s4l-pretrain: {out}: stopped at step ");
        assert!(stderr.starts_with(&message), "{stderr}");
        assert!(stderr.contains(" of 48 with a checkpoint; run the same command again"));
        assert!(scratch.path(&format!("{out}/checkpoint/state.safetensors")).is_file());
        assert!(!scratch.path(&format!("{out}/model.safetensors")).exists());
        pretrain(&scratch, "supervised_10p", out, more).ok();
        assert_eq!(differing(&whole, &model(&scratch, out)), NONE);
    }
}

/// Validation also looks for signals: a stop in the middle of it loses no step.
#[test]
fn a_signal_during_validation_ends_training_with_a_checkpoint() {
    let scratch = labelled_shards();
    let labelled = read_labels(&scratch, "labelled.parquet");
    let split = Shards::open(&scratch.path("shards")).unwrap().split("train").unwrap();
    let rest: Vec<(&str, i64)> = (0..split.len())
        .filter(|&row| labelled.iter().all(|l| l.0 != split.key(row)))
        .map(|row| (split.key(row), i64::from(split.labels().unwrap()[row].unwrap())))
        .collect();
    write_labels(&scratch, "val.parquet", &rest);
    // 300 images in 20 views, against one step per epoch.
    let slow = "-s batch=100 -s augment_eval=resize_small(32)|multi_crop(28,28)|-1_to_1|rotate";
    for (out, epochs) in [("middle", 3), ("end", 1)] {
        let more = format!("{slow} -s schedule=[0,{epochs}]");
        let whole = format!("whole-{out}");
        pretrain(&scratch, "supervised_10p", &whole, &more).ok();
        let line = pretrain_words("supervised_10p", out, &more);
        let log = format!("{out}/metrics.jsonl");
        let ended = signalled(&scratch, PRETRAIN, &line, &log, &[libc::SIGTERM]);
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(75), "{stderr}");
        let message = format!("{out}: stopped at step 1 of {epochs} with a checkpoint");
        assert!(stderr.contains(&message), "{stderr}");
        pretrain(&scratch, "supervised_10p", out, &more).ok();
        assert_eq!(differing(&model(&scratch, &whole), &model(&scratch, out)), NONE);
        assert_eq!(curve(&scratch, out, "validation/top1").len(), epochs);
    }
}

#[test]
fn max_seconds_end_training_with_a_checkpoint_and_75() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "long", "-s schedule=[0,10000] --max-seconds 1").fails(
        75,
        &["long: stopped at step ", " of 60000 with a checkpoint", "run the same command again"],
    );
    pretrain(&scratch, "supervised_10p", "model", "--max-seconds 0")
        .fails(75, &["model: stopped at step 0 of 18 with a checkpoint"]);
    pretrain(&scratch, "supervised_10p", "model", "").ok();
    pretrain(&scratch, "supervised_10p", "whole", "").ok();
    assert_eq!(differing(&model(&scratch, "whole"), &model(&scratch, "model")), NONE);
}

#[test]
fn a_checkpoint_of_another_recipe_is_refused_unless_forced() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "model", "--max-seconds 0").fails(75, &[]);
    let before = contents(&scratch.path("model/checkpoint"));
    for other in ["-s learning_rate=0.01", "--seed 1", "--method vat -s weight_vat=0.5"] {
        pretrain(&scratch, "supervised_10p", "model", other).fails(
            65,
            &["model/checkpoint/state.safetensors", "checkpoint of this recipe", "--force"],
        );
        assert_eq!(contents(&scratch.path("model/checkpoint")), before);
    }
    pretrain(&scratch, "supervised_10p", "model", "--seed 1 --force").ok();
    pretrain(&scratch, "supervised_10p", "fresh", "--seed 1").ok();
    assert_eq!(differing(&model(&scratch, "fresh"), &model(&scratch, "model")), NONE);
}

/// Kills a run that saves every second step once two checkpoints exist.
fn killed_with_two_checkpoints(scratch: &Scratch) -> String {
    let line =
        pretrain_words("supervised_10p", "killed", "-s checkpoint_every=2 -s schedule=[1,8]");
    let previous = "killed/checkpoint/previous.safetensors";
    signalled(scratch, PRETRAIN, &line, previous, &[libc::SIGKILL]);
    assert!(!scratch.path("killed/model.safetensors").exists());
    line.replace(" -q", "")
}

/// The step from which a run says that it continues.
fn goes_on(ran: &Ran) -> u64 {
    let step = ran.stderr.split("going on from step ").nth(1).expect(&ran.stderr);
    step.lines().next().unwrap().parse().unwrap()
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "whole", "-s checkpoint_every=2 -s schedule=[1,8]").ok();
    let damages: [fn(&Path); 3] = [
        flip,
        |path| std::fs::write(path, b"").unwrap(),
        // One value too few, in a file that is otherwise valid.
        |path| {
            rewrite(path, |_, tensors| {
                let parameters = tensors.iter_mut().find(|tensor| tensor.0 == "parameters");
                let (_, shape, values) = parameters.unwrap();
                values.pop();
                *shape = vec![values.len()];
            });
        },
    ];
    for damage in damages {
        let line = killed_with_two_checkpoints(&scratch);
        let newest = scratch.path("killed/checkpoint/state.safetensors");
        // Killed between the two renames: the file is absent.
        if !newest.exists() {
            std::fs::copy(newest.with_file_name("previous.safetensors"), &newest).unwrap();
        }
        damage(&newest);
        let ran = scratch.run(PRETRAIN, &words(&line)).ok();
        let warning = "warning: killed/checkpoint/state.safetensors: ";
        assert!(ran.stderr.contains(warning), "{}", ran.stderr);
        assert!(ran.stderr.contains("checkpoint/previous.safetensors takes its place"));
        assert!(goes_on(&ran) >= 2);
        assert_eq!(differing(&model(&scratch, "whole"), &model(&scratch, "killed")), NONE);
        std::fs::remove_dir_all(scratch.path("killed")).unwrap();
    }
}

/// A checkpoint does not depend on the settings for saving and validating, or on the version of the
/// program.
#[test]
fn what_changes_no_weight_drops_no_checkpoint() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "whole", "-s schedule=[1,8]").ok();
    let line = killed_with_two_checkpoints(&scratch);
    let line = line.replace("checkpoint_every=2", "checkpoint_every=7");
    let other =
        "-s log_every=3 -s validate_every=2 -s augment_eval=resize(28)|-1_to_1|rotate --force";
    let ran = scratch.run(PRETRAIN, &words(&format!("{line} {other}"))).ok();
    assert!(goes_on(&ran) >= 2);
    let weights =
        |name: &str| s4l::model::folder::Model::open(&scratch.path(name)).unwrap().weights;
    assert!(weights("whole") == weights("killed"));
}

/// What earlier runs used counts. Continuing on another kind of machine gives a warning.
#[test]
fn a_checkpoint_knows_what_was_used_and_its_instructions() {
    let scratch = labelled_shards();
    let line = killed_with_two_checkpoints(&scratch);
    let previous = scratch.path("killed/checkpoint/previous.safetensors");
    let newest = previous.with_file_name("state.safetensors");
    std::fs::rename(previous, &newest).unwrap();
    rewrite(&newest, |header, _| {
        for (key, value) in
            [("seconds", "5000"), ("cpu_seconds", "7000"), ("peak_memory_mb", "123456789")]
        {
            assert!(header[key].parse::<f64>().unwrap() > 0.0);
            header.insert(key.into(), value.into());
        }
        header.insert("instructions".into(), "abacus".into());
    });
    let ran = scratch.run(PRETRAIN, &words(&line)).ok();
    assert!(ran.stderr.contains("warning: killed: begun with abacus, going on with "));
    let sidecar = std::fs::read(scratch.path("killed.prov.json")).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
    for (key, earlier) in [("seconds", 5000.0), ("cpu_seconds", 7000.0)] {
        let value = sidecar[key].as_f64().unwrap();
        assert!((earlier..earlier + 1000.0).contains(&value), "{key} {value}");
    }
    assert_eq!(sidecar["peak_memory_mb"], 123_456_789);
}

/// `--force` drops a checkpoint with a message. The old checkpoint stays until it is replaced, so the
/// command that began it can still continue.
#[test]
fn a_drop_is_said() {
    let scratch = labelled_shards();
    let line = killed_with_two_checkpoints(&scratch);
    let other = format!("{line} -s learning_rate=0.03 --seed 7 --force --max-seconds 0");
    let ran = scratch.run(PRETRAIN, &words(&other));
    assert_eq!(ran.code, 75, "{}", ran.stderr);
    for word in
        ["warning: ", "learning_rate 0.1 in place of 0.03", "seed 0 in place of 7", "dropped"]
    {
        assert!(ran.stderr.contains(word), "{word:?} in {}", ran.stderr);
    }
    let ran = scratch.run(PRETRAIN, &words(&format!("{line} --force"))).ok();
    assert!(ran.stderr.contains("previous.safetensors takes its place"), "{}", ran.stderr);
    assert!(goes_on(&ran) >= 2);
}

/// Weights are never beside the files of another model: if anything prevents writing the new ones, the
/// folder holds no mixture, and the same command completes it.
#[test]
fn a_model_that_is_replaced_is_never_a_mixture() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "new", "--seed 1").ok();
    for file in ["README.md", "config.json", "metrics.parquet"] {
        pretrain(&scratch, "supervised_1p", "model", "--force").ok();
        let (file, kept) = (scratch.path("model").join(file), scratch.path("kept"));
        std::fs::rename(&file, &kept).unwrap();
        std::fs::create_dir(&file).unwrap();
        pretrain(&scratch, "supervised_1p", "model", "--seed 1 --force").fails(74, &["model/"]);
        std::fs::remove_dir(&file).unwrap();
        // Files of the old model would make the folder look complete.
        if !file.exists() {
            std::fs::rename(&kept, &file).unwrap();
        }
        let inspected = scratch.run(env!("CARGO_BIN_EXE_s4l-inspect"), &["--verify", "model"]);
        inspected.fails(3, &["model"]);
        pretrain(&scratch, "supervised_1p", "model", "--seed 1 --force").ok();
        assert_eq!(differing(&model(&scratch, "new"), &model(&scratch, "model")), NONE);
    }
}

/// The next run removes the remains of killed runs, also if the model already exists.
#[test]
fn left_overs_are_removed() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_1p", "model", "").ok();
    let whole = model(&scratch, "model");
    for force in ["", "--force"] {
        for name in
            [".s4l-abc.tmp", "checkpoint/.s4l-abc.tmp", ".s4l-def.tmp/README.md", "metrics.jsonl"]
        {
            scratch.write(&format!("model/{name}"), "half");
        }
        pretrain(&scratch, "supervised_1p", "model", force).ok();
        assert_eq!(differing(&whole, &model(&scratch, "model")), NONE);
    }
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "model", "--max-seconds 0").fails(75, &[]);
    let path = scratch.path("model/checkpoint/state.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    pretrain(&scratch, "supervised_10p", "model", "")
        .fails(65, &["model/checkpoint/state.safetensors", "--force"]);
    let ran = pretrain(&scratch, "supervised_10p", "model", "--force").ok();
    assert!(
        ran.stderr.starts_with("warning: model/checkpoint/state.safetensors: "),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("dropped"), "{}", ran.stderr);
}

/// Diverges with an error that names the keys of images.
#[track_caller]
fn diverges(scratch: &Scratch, more: &str, message: &[&str]) -> Ran {
    let ran = pretrain(scratch, "vat", "model", more);
    let message = [message, &["model: ", "lower the learning rate"]].concat();
    ran.fails(3, &message);
    let labelled = read_labels(scratch, "labelled.parquet");
    let shards = Shards::open(&scratch.path("shards")).unwrap();
    let split = shards.split("train").unwrap();
    let keys = |word: &str| -> Vec<String> {
        let text = ran.stderr.split(word).nth(1).unwrap();
        let text = text.split([';', ')']).next().unwrap();
        text.split(", ").map(str::to_string).collect()
    };
    let (named, unlabelled) = (keys("(images: labelled "), keys("; unlabelled "));
    assert_eq!((named.len(), unlabelled.len()), (16, 16), "{}", ran.stderr);
    assert!(named.iter().all(|key| labelled.iter().any(|l| l.0 == *key)));
    assert!(unlabelled.iter().all(|key| split.row(key).is_some()));
    ran
}

#[test]
fn a_loss_that_is_not_finite_ends_training_with_3_and_keeps_the_checkpoint() {
    let scratch = labelled_shards();
    pretrain(&scratch, "vat", "model", "").ok();
    let finished = model(&scratch, "model");
    let bad = "-s learning_rate=1e9 -s schedule=[3,4] -s checkpoint_every=3 --force";
    let checkpoint = "model/checkpoint/state.safetensors";
    let kept = format!("{checkpoint} of step 3 is kept");
    diverges(&scratch, bad, &["loss/supervised is NaN at step ", &kept]);
    // The old model is unchanged.
    for (name, bytes) in &finished {
        assert!(std::fs::read(scratch.path("model").join(name)).unwrap() == *bytes, "{name}");
    }
    // The same command continues from the checkpoint to the same end; a lower rate starts again.
    let bytes = std::fs::read(scratch.path(checkpoint)).unwrap();
    diverges(&scratch, bad, &[&kept]);
    assert_eq!(std::fs::read(scratch.path(checkpoint)).unwrap(), bytes);
    pretrain(&scratch, "vat", "model", "--force").ok();
    assert_eq!(model(&scratch, "model"), finished);
}

/// The loss of the last step is finite, but the weights after it are not.
#[test]
fn weights_that_are_not_finite_end_training_with_3_and_are_not_written() {
    let scratch = labelled_shards();
    let bad = "-s learning_rate=1e300 -s schedule=[0,0.1]";
    diverges(&scratch, bad, &["a weight is ", " at step 0 ", "there is no checkpoint yet"]);
    let files = contents(&scratch.path("model"));
    let names: Vec<&str> = files.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["events.out.tfevents.0.s4l", "metrics.jsonl"]);
}
