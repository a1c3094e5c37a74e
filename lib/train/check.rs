//! Settings that cannot be meant.

use crate::error::{Error, Result};
use crate::methods;
use crate::methods::views::Views;
use crate::network::layout::largest_kernel;
use crate::recipe::Recipe;
use crate::schema;
use crate::settings::{Checked, Fault, Settings};

/// Values of a kernel, and units of a network, beyond which there is no network that anybody trains.
const MAX_KERNEL: usize = 1_000_000_000;
const MAX_UNITS: usize = 10_000;

/// Errors: `Recipe` for settings that cannot be meant.
pub fn settings(recipe: &Recipe, s: &Settings) -> Result<()> {
    let all = || -> Checked {
        schedule(s)?;
        counts(s)?;
        network(s)?;
        methods::check(s)?;
        labels(s)
    };
    all().map_err(|fault| recipe_error(recipe, fault))
}

/// The views of training images of that many channels.
///
/// Errors: `Recipe` for pipes that do not parse, or do not give what the method needs.
pub fn views(recipe: &Recipe, s: &Settings, channels: usize) -> Result<Views> {
    let views = methods::views(s, channels)?;
    methods::check_views(s, &views).map_err(|fault| recipe_error(recipe, fault))?;
    Ok(views)
}

fn recipe_error(recipe: &Recipe, fault: Fault) -> Error {
    recipe.error(fault.what, fault.hint)
}

fn schedule(s: &Settings) -> Checked {
    let ascending = s.schedule.windows(2).all(|w| w[0] < w[1]);
    if s.schedule.len() < 2 || !ascending || s.schedule[0] < 0.0 {
        return Err(Fault::new(
            format!("schedule {:?}", s.schedule),
            "give ascending epochs: end of warm-up, decays, end of training",
        ));
    }
    Ok(())
}

fn counts(s: &Settings) -> Checked {
    let counts = [
        ("batch", s.batch),
        ("width_factor", s.width_factor),
        ("units", s.units.iter().copied().min().unwrap_or(0)),
        ("log_every", s.log_every as usize),
        ("checkpoint_every", s.checkpoint_every as usize),
    ];
    match counts.into_iter().find(|(_, count)| *count == 0) {
        Some((key, _)) => Err(Fault::new(format!("{key} is 0"), "it must be at least 1")),
        None => Ok(()),
    }
}

/// With these bounds nothing in the layout overflows.
fn network(s: &Settings) -> Checked {
    let largest = largest_kernel(s.units.len(), s.width_factor);
    let units = s.units.iter().fold(0, |sum: usize, &n| sum.saturating_add(n));
    if largest.is_none_or(|n| n > MAX_KERNEL) || units > MAX_UNITS {
        let kernels = largest.map_or("too many to count".to_string(), |n| n.to_string());
        return Err(Fault::new(
            format!("a network of {units} units and kernels of up to {kernels} values"),
            "lower width_factor or units",
        ));
    }
    Ok(())
}

fn labels(s: &Settings) -> Checked {
    if !matches!(s.label_column.as_str(), schema::LABEL | schema::LABEL_SINGLE) {
        let what = format!("label_column {:?}", s.label_column);
        return Err(Fault::new(what, "use label or label_single"));
    }
    if !(0.0..=1.0).contains(&s.min_confidence) {
        let what = format!("min_confidence is {}", s.min_confidence);
        return Err(Fault::new(what, "give a probability from 0 to 1"));
    }
    Ok(())
}
