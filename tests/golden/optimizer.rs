//! Momentum SGD with weight decay, Polyak averaging, the schedule.

use crate::{close, float, floats, rows, singles, whole};
use s4l::settings::Settings;
use s4l::train::optimizer::{Schedule, momentum_sgd, polyak};
use serde_json::Value;

fn cases(kind: &str) -> Vec<Value> {
    let all = rows("optimizer.json").into_iter();
    let cases: Vec<Value> = all.filter(|c| c["kind"] == kind).collect();
    assert!(!cases.is_empty(), "{kind}");
    cases
}

fn steps(case: &Value) -> &Vec<Value> {
    case["steps"].as_array().unwrap()
}

#[test]
fn momentum_and_weight_decay_are_tensorflow_s() {
    let case = &cases("momentum")[0];
    let settings = Settings {
        momentum: float(&case["momentum"]),
        weight_decay: float(&case["weight_decay"]),
        ..Settings::default()
    };
    let mut weights = singles(&case["weights"]);
    let mut velocity = vec![0f32; weights.len()];
    for (i, step) in steps(case).iter().enumerate() {
        momentum_sgd(
            &mut weights,
            &mut velocity,
            &mut singles(&step["gradients"]),
            std::slice::from_ref(&(0..5)),
            &settings,
            float(&step["learning_rate"]),
        );
        close(&format!("weights of step {i}"), &weights, &floats(&step["weights"]), 1e-6);
        close(&format!("velocity of step {i}"), &velocity, &floats(&step["velocity"]), 1e-6);
    }
}

#[test]
fn averages_are_tensorflow_s() {
    let case = &cases("polyak")[0];
    let mut average = singles(&case["start"]);
    for (i, step) in steps(case).iter().enumerate() {
        polyak(&mut average, &singles(&step["weights"]), float(&case["half_life"]));
        close(&format!("average of step {i}"), &average, &floats(&step["average"]), 1e-6);
    }
}

/// Exactly, as the float32 that the optimizer multiplies with.
#[test]
fn the_schedule_is_that_of_the_reference() {
    for case in cases("schedule") {
        let settings = Settings {
            batch: whole(&case["batch"]),
            learning_rate: float(&case["learning_rate"]),
            learning_rate_batch: whole(&case["scale_batch"]),
            schedule: floats(&case["epochs"]),
            ..Settings::default()
        };
        let schedule = Schedule::new(&settings, whole(&case["images"]));
        assert_eq!(schedule.steps_per_epoch as usize, whole(&case["steps_per_epoch"]));
        assert_eq!(schedule.total_steps as usize, whole(&case["total"]));
        assert_eq!(schedule.base() as f32, float(&case["base"]) as f32);
        for (step, rate) in steps(&case).iter().zip(singles(&case["rates"])) {
            let step = step.as_u64().unwrap();
            let got = schedule.learning_rate(step) as f32;
            assert_eq!(got, rate, "step {step} of {case}");
        }
    }
}
