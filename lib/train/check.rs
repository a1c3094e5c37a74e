//! Settings that cannot be meant.

use crate::augment::Output;
use crate::error::Result;
use crate::network::layout::largest_kernel;
use crate::recipe::Recipe;
use crate::settings::{Method, Settings};

/// Values of a kernel, and units of a network, beyond which there is no network that anybody trains.
const MAX_KERNEL: usize = 1_000_000_000;
const MAX_UNITS: usize = 10_000;

/// Settings that cannot be meant.
pub fn settings(recipe: &Recipe, s: &Settings) -> Result<()> {
    let bad = |what: String, hint: &str| Err(recipe.error(what, hint));
    let ascending = s.schedule.windows(2).all(|w| w[0] < w[1]);
    if s.schedule.len() < 2 || !ascending || s.schedule[0] < 0.0 {
        return bad(
            format!("schedule {:?}", s.schedule),
            "give ascending epochs: end of warm-up, decays, end of training",
        );
    }
    for (key, value) in [
        ("batch", s.batch),
        ("width_factor", s.width_factor),
        ("units", s.units.iter().copied().min().unwrap_or(0)),
        ("log_every", s.log_every as usize),
        ("checkpoint_every", s.checkpoint_every as usize),
    ] {
        if value == 0 {
            return bad(format!("{key} is 0"), "it must be at least 1");
        }
    }
    let largest = largest_kernel(s.units.len(), s.width_factor);
    let units = s.units.iter().fold(0, |sum: usize, &n| sum.saturating_add(n));
    // Below, nothing in the layout overflows.
    if largest.is_none_or(|n| n > MAX_KERNEL) || units > MAX_UNITS {
        let kernels = largest.map_or("too many to count".to_string(), |n| n.to_string());
        return bad(
            format!("a network of {units} units and kernels of up to {kernels} values"),
            "lower width_factor or units",
        );
    }
    let consistency = s.weight_vat != 0.0 || s.weight_entmin != 0.0;
    if consistency && !matches!(s.method, Method::Vat | Method::Moam) {
        return bad(
            format!("weight_vat and weight_entmin have no effect in {:?}", s.method),
            "set them to 0, or method to vat or moam",
        );
    }
    if s.method == Method::Vat && !s.vat_labelled && s.unlabelled_batch == 0 {
        return bad(
            "vat has no images: vat_labelled is false and unlabelled_batch is 0".into(),
            "set one of them",
        );
    }
    if s.method == Method::Moam && s.unlabelled_batch == 0 {
        return bad("unlabelled_batch is 0".into(), "moam trains on unlabelled images");
    }
    if s.method == Method::Exemplar {
        for (key, value) in [("batch", s.batch), ("unlabelled_batch", s.unlabelled_batch)] {
            if value == 1 {
                return bad(format!("{key} is 1"), "the exemplar loss compares two images or more");
            }
        }
    }
    if !matches!(s.label_column.as_str(), "label" | "label_single") {
        return bad(format!("label_column {:?}", s.label_column), "use label or label_single");
    }
    Ok(())
}

/// Views must be those that the method's losses are about, and alike in both parts.
pub fn views(recipe: &Recipe, s: &Settings, labelled: &Output, unlabelled: &Output) -> Result<()> {
    let bad = |what: &str, hint: &str| Err(recipe.error(what.into(), hint));
    if s.unlabelled_batch > 0 && labelled != unlabelled {
        return bad(
            "augment_labelled and augment_unlabelled give images of different size or views",
            "end both in the same steps",
        );
    }
    let turned = matches!(s.method, Method::Rotation | Method::Moam);
    if turned && !(labelled.rotated && labelled.views == 4) {
        return bad(
            "this method predicts rotations",
            "end augment_labelled and augment_unlabelled in |rotate",
        );
    }
    if s.method == Method::Exemplar && labelled.views < 2 {
        return bad(
            "the exemplar loss needs several patches of an image",
            "begin augment_labelled with crop_inception_patches(n,size)",
        );
    }
    Ok(())
}
