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
/// Epochs that nobody waits for.
const MAX_EPOCHS: f64 = 1e9;

/// Errors: `Recipe` for settings that cannot be meant.
pub fn settings(recipe: &Recipe, s: &Settings) -> Result<()> {
    let all = || -> Checked {
        schedule(s)?;
        counts(s)?;
        numbers(s)?;
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
    let inside = s.schedule.iter().all(|epoch| (0.0..=MAX_EPOCHS).contains(epoch));
    if s.schedule.len() < 2 || !ascending || !inside {
        return Err(Fault::new(
            format!("schedule {:?}", s.schedule),
            "give ascending epochs from 0 to 1e9: end of warm-up, decays, end of training",
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

/// Numbers that no optimizer and no loss takes.
fn numbers(s: &Settings) -> Checked {
    let above_0 = |value: f64| value > 0.0 && value.is_finite();
    let from_0 = |value: f64| value >= 0.0 && value.is_finite();
    let numbers = [
        ("learning_rate", s.learning_rate, above_0(s.learning_rate), "give a number above 0"),
        (
            "momentum",
            s.momentum,
            (0.0..1.0).contains(&s.momentum),
            "give a number from 0 to below 1",
        ),
        ("weight_decay", s.weight_decay, from_0(s.weight_decay), "give 0 or more"),
        (
            "decay_factor",
            s.decay_factor,
            above_0(s.decay_factor) && s.decay_factor <= 1.0,
            "give a number above 0, up to 1",
        ),
        (
            "polyak_half_life",
            s.polyak_half_life,
            from_0(s.polyak_half_life),
            "give 0 or more epochs",
        ),
        ("validate_every", s.validate_every, above_0(s.validate_every), "give epochs above 0"),
        ("weight_supervised", s.weight_supervised, from_0(s.weight_supervised), "give 0 or more"),
        ("weight_rotation", s.weight_rotation, from_0(s.weight_rotation), "give 0 or more"),
        ("weight_exemplar", s.weight_exemplar, from_0(s.weight_exemplar), "give 0 or more"),
        ("weight_vat", s.weight_vat, from_0(s.weight_vat), "give 0 or more"),
        ("weight_entmin", s.weight_entmin, from_0(s.weight_entmin), "give 0 or more"),
        ("ramp", s.ramp, from_0(s.ramp), "give 0 or more epochs"),
        ("vat_eps", s.vat_eps, above_0(s.vat_eps), "give a norm above 0"),
    ];
    match numbers.into_iter().find(|(_, _, fits, _)| !fits) {
        Some((key, value, _, range)) => Err(Fault::new(format!("{key} is {value}"), range)),
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
