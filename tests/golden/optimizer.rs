//! Momentum SGD with weight decay, Polyak averaging, the schedule.

use crate::{close, float, floats, rows, singles, whole};
use s4l::network::update::{Update, update};
use s4l::network::weights::Weights;
use s4l::settings::Settings;
use s4l::train::schedule::Schedule;
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
    let parameters = singles(&case["weights"]);
    let mut weights =
        Weights { velocity: vec![0.0; parameters.len()], parameters, ..Weights::default() };
    for (i, step) in steps(case).iter().enumerate() {
        let by = Update {
            learning_rate: float(&step["learning_rate"]),
            momentum: float(&case["momentum"]),
            weight_decay: float(&case["weight_decay"]),
            half_life: 0.0,
        };
        let mut gradient = singles(&step["gradients"]);
        update(&mut weights, &mut gradient, std::slice::from_ref(&(0..5)), &by);
        let (got, expected) = (&weights.parameters, floats(&step["weights"]));
        close(&format!("weights of step {i}"), got, &expected, 1e-6);
        let (got, expected) = (&weights.velocity, floats(&step["velocity"]));
        close(&format!("velocity of step {i}"), got, &expected, 1e-6);
    }
}

#[test]
fn averages_are_tensorflow_s() {
    let case = &cases("polyak")[0];
    let average = singles(&case["start"]);
    let mut weights = Weights { velocity: vec![0.0; average.len()], average, ..Weights::default() };
    let by = Update {
        learning_rate: 0.0,
        momentum: 0.0,
        weight_decay: 0.0,
        half_life: float(&case["half_life"]),
    };
    for (i, step) in steps(case).iter().enumerate() {
        weights.parameters = singles(&step["weights"]);
        let mut gradient = vec![0.0; weights.parameters.len()];
        update(&mut weights, &mut gradient, &[], &by);
        let expected = floats(&step["average"]);
        close(&format!("average of step {i}"), &weights.average, &expected, 1e-6);
    }
}

/// Exactly: the float32 by which the optimizer multiplies.
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
