//! Refuses settings that make no sense.

use crate::augment::{Mode, Pipe};
use crate::error::{Error, Result};
use crate::methods;
use crate::methods::views::Views;
use crate::network::cpu;
use crate::network::layout::{Layout, largest_kernel};
use crate::recipe::Recipe;
use crate::settings::{Checked, Fault, Settings};

/// Values of a kernel, and units of a network, that no network exceeds in practice.
const MAX_KERNEL: usize = 1_000_000_000;
const MAX_UNITS: usize = 10_000;

/// Errors: `Recipe` for settings that make no sense.
pub fn settings(recipe: &Recipe, s: &Settings) -> Result<()> {
    if let Some((key, fault)) = s.out_of_range()? {
        return Err(recipe.error_of(key, fault.what, &fault.hint));
    }
    let together = network(s).and_then(|()| methods::check(s));
    together.map_err(|fault| recipe_error(recipe, fault))
}

/// Errors: `Usage` unless each rank can have as many images of every step.
pub fn divides(s: &Settings, ranks: usize) -> Result<()> {
    for (key, batch) in [("batch", s.batch), ("unlabelled_batch", s.unlabelled_batch)] {
        if !batch.is_multiple_of(ranks) {
            let above = batch.next_multiple_of(ranks);
            let near = match above - ranks {
                0 => format!("-s {key}={above}"),
                below => format!("-s {key}={below} or {above}"),
            };
            return Err(Error::Usage(format!(
                "{key} {batch} does not divide among {ranks} ranks; the nearest that do: {near}"
            )));
        }
    }
    Ok(())
}

/// The views of training images of that many channels.
///
/// Errors: `Recipe` for pipes that do not parse, or do not give what the method and the engine need.
pub fn views(recipe: &Recipe, s: &Settings, channels: usize) -> Result<Views> {
    // A pipe of another method must make sense too.
    Pipe::parse(&s.augment_strong, Mode::Train)?;
    let views = methods::views(s, channels)?;
    let together = methods::check_views(s, &views).and_then(|()| offsets(s, &views));
    together.map_err(|fault| recipe_error(recipe, fault))?;
    Ok(views)
}

/// Offsets inside one image of a layer are numbers of 32 bits, whatever the batch.
fn offsets(s: &Settings, views: &Views) -> Checked {
    let first = views.labelled.first();
    let size = (first.height, first.width);
    let classes = 1;
    match cpu::is_addressable(
        &Layout::new(&methods::architecture(s, first.channels, classes)),
        size,
    ) {
        true => Ok(()),
        false => Err(Fault::new(
            format!(
                "with width_factor {} an image of {}x{} has 2^32 values or more in a layer",
                s.width_factor, size.0, size.1
            ),
            "lower width_factor or the size of the images",
        )),
    }
}

fn recipe_error(recipe: &Recipe, fault: Fault) -> Error {
    recipe.error(fault.what, &fault.hint)
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
