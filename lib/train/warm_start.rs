//! The weights that a run starts from if it is given a model: the trunk, and the heads that both have.

use crate::cli;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::folder::Model;
use crate::network::layout::{Architecture, Head, Layout};
use crate::network::weights::Weights;
use crate::schema;
use std::path::Path;

/// Takes over the trunk of `init`, its class head if it has the same classes, in any order, and the other
/// heads that both networks have. All else stays as initialized. `shards` names the classes in words.
///
/// Errors: `BadData` if the trunks differ.
pub fn warm_start(
    weights: &mut Weights,
    layout: &Layout,
    wanted: &Config,
    init: &Model,
    shards: &Path,
) -> Result<()> {
    let trunk = |a: &Architecture| (a.channels, a.units.clone(), a.width_factor, a.stem);
    let (wanted_trunk, found) = (trunk(&wanted.architecture), trunk(&init.config.architecture));
    if wanted_trunk != found {
        return Err(Error::bad_data(
            &init.path,
            format!("a network of (channels, units, width factor, stem) {wanted_trunk:?}"),
            format!("{found:?}"),
            "start from a model of the recipe's network",
        ));
    }
    let trunk = layout.trunk_parameters;
    weights.parameters[..trunk].copy_from_slice(&init.weights.parameters[..trunk]);
    weights.moving.copy_from_slice(&init.weights.moving);
    let classes = order(&wanted.classes, &init.config.classes);
    say(&wanted.classes, init, classes.as_deref(), shards);
    for head in &layout.heads {
        let Some(old) = init.layout.head(&head.name) else {
            continue;
        };
        let order = match head.name == schema::head::CLASSES {
            true => classes.clone(),
            false => (old.outputs == head.outputs).then(|| (0..head.outputs).collect()),
        };
        if let Some(order) = order {
            take_head(weights, (layout, head), (init, old), &order);
        }
    }
    Ok(())
}

/// The place of each wanted class among those found, if they are the same.
fn order(wanted: &[String], found: &[String]) -> Option<Vec<usize>> {
    let place = |class: &String| found.iter().position(|other| other == class);
    match wanted.len() == found.len() {
        true => wanted.iter().map(place).collect(),
        false => None,
    }
}

/// Reports what happens to a head whose classes differ from those of the shards.
fn say(wanted: &[String], init: &Model, order: Option<&[usize]>, shards: &Path) {
    let (model, shards, found) = (init.path.display(), shards.display(), &init.config.classes);
    if found == wanted {
        return;
    }
    if order.is_some() {
        cli::info(&format!(
            "{model}: has the classes of {shards} in another order; its class head is reordered"
        ));
        return;
    }
    let first = wanted.iter().zip(found).find(|(wanted, found)| wanted != found);
    let names =
        first.map_or(String::new(), |(wanted, found)| format!(", {found:?} for {wanted:?}"));
    cli::info(&format!(
        "{model}: has {} classes that are not the {} of {shards}{names}; its trunk is kept, the class head \
         is new",
        found.len(),
        wanted.len(),
    ));
}

/// Copies the outputs of a head, the one at `order[i]` to the `i`-th.
fn take_head(
    weights: &mut Weights,
    (layout, head): (&Layout, &Head),
    (init, old): (&Model, &Head),
    order: &[usize],
) {
    for (to, from) in [
        (layout.head_kernel(head), init.layout.head_kernel(old)),
        (layout.head_bias(head), init.layout.head_bias(old)),
    ] {
        let (to, from) = (&mut weights.parameters[to], &init.weights.parameters[from]);
        let rows = to.chunks_exact_mut(order.len()).zip(from.chunks_exact(order.len()));
        for (to, from) in rows {
            to.iter_mut().zip(order).for_each(|(to, &place)| *to = from[place]);
        }
    }
}
