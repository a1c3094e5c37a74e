//! How many images training saw, from the recipe and the number of steps in a model's folder.

use super::runs::{Budget, Run};
use crate::methods;
use crate::schema::{INPUT_PREFIX, input};
use crate::settings::Settings;
use serde_json::Value;
use std::collections::HashMap;

/// Sets the budget of each run, if its model and all models that it was initialized from are in the report.
pub fn count(runs: &mut [Run]) {
    let own = runs.iter().filter_map(|run| Some((run.model.as_ref()?, own(run)?)));
    let own: HashMap<String, Budget> = own.map(|(m, budget)| (m.hash.clone(), budget)).collect();
    let header = format!("{INPUT_PREFIX}{}", input::INIT);
    let models = runs.iter().filter_map(|run| run.model.as_ref());
    let before: HashMap<String, String> = models
        .filter_map(|model| Some((model.hash.clone(), model.header.get(&header)?.clone())))
        .collect();
    for run in runs {
        run.budget = run.model.as_ref().and_then(|model| {
            let chain = std::iter::successors(Some(&model.hash), |hash| before.get(*hash));
            // Hashes that refer to each other in a circle belong to no model.
            let mut budgets = chain.take(before.len() + 1).map(|hash| own.get(hash).copied());
            budgets.try_fold(Budget { labelled: 0, seen: 0 }, |sum, budget| Some(sum + budget?))
        });
    }
}

/// The budget of a single training. `None` if its settings are of another version.
fn own(run: &Run) -> Option<Budget> {
    let model = run.model.as_ref()?;
    let settings: Settings = serde_json::from_value(Value::Object(model.settings.clone())).ok()?;
    let steps = run.curves.values().flatten().map(|(step, _)| *step).max()?;
    let steps = u64::try_from(steps).ok()?;
    let views = methods::views(&settings, model.channels?).ok()?;
    let seen = steps * views.images_a_step(&settings) as u64;
    Some(Budget { labelled: steps * settings.batch as u64, seen })
}
