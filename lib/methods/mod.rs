//! The methods: the requirements of each on a run, and the terms of its loss. One file per method or loss;
//! the table of methods and the step here; `batch`, `views` and `main_pass` are shared by the methods.

pub mod batch;
pub mod entropy_minimization;
pub mod exemplar;
pub mod fixmatch;
pub mod main_pass;
pub mod moam;
pub mod rotation;
pub mod supervised;
pub mod vat;
pub mod views;

use crate::error::Result;
use crate::network::engine::{BATCH_NORM_MOMENTUM, Pass};
use crate::network::layout::Architecture;
use crate::network::{Network, Outputs};
use crate::schema::{head, metric};
use crate::settings::{Checked, Fault, Method, Settings, method_name};
use batch::{Batch, Half, Rows, Stride};
use candle_core::Tensor;
use main_pass::{At, MainPass, Record, Term, Value};
use vat::Clean;
use views::{Pipes, Views};

/// The requirements of a method on a run, and the terms that it adds to the supervised one.
struct Definition {
    /// Heads beside `classes`: names and outputs.
    heads: fn(&Settings) -> Vec<(String, usize)>,
    /// Weights of its terms. The weights of other methods have no effect.
    weights: &'static [&'static str],
    /// Whether its labels are the class probabilities of a teacher.
    soft_labels: bool,
    /// Checks that its settings make sense.
    check: fn(&Settings) -> Checked,
    /// The pipes that make the views of each image.
    pipes: fn(&Settings) -> Pipes<'_>,
    /// Checks that its terms can use these views.
    check_views: fn(&Settings, &Views) -> Checked,
    /// Terms of the main pass.
    terms: fn(&MainPass) -> Result<Vec<Term>>,
    /// With VAT: the rows that VAT perturbs.
    perturbed: Option<fn(&Settings, &Rows) -> Stride>,
}

/// Only the supervised term, and no checks. The other methods state how they differ.
const SUPERVISED: Definition = Definition {
    heads: |_| Vec::new(),
    weights: &[WEIGHT_SUPERVISED],
    soft_labels: false,
    check: |_| Ok(()),
    pipes: |s| Pipes {
        labelled: vec![&s.augment_labelled],
        unlabelled: vec![&s.augment_unlabelled],
    },
    check_views: |_, _| Ok(()),
    terms: |_| Ok(Vec::new()),
    perturbed: None,
};

/// The table of methods.
fn definition(method: Method) -> Definition {
    match method {
        Method::Supervised => SUPERVISED,
        Method::Distill => Definition { soft_labels: true, check: check_distill, ..SUPERVISED },
        Method::Rotation => Definition {
            heads: rotation::heads,
            weights: &["weight_rotation"],
            check_views: rotation::check_views,
            terms: |pass| Ok(vec![rotation::term(pass)?]),
            ..SUPERVISED
        },
        Method::Exemplar => Definition {
            heads: exemplar::heads,
            weights: &["weight_exemplar"],
            check: exemplar::check,
            check_views: exemplar::check_views,
            terms: |pass| Ok(vec![exemplar::term(pass)?]),
            ..SUPERVISED
        },
        Method::Vat => Definition {
            weights: &["weight_vat", "weight_entmin"],
            check: vat::check,
            terms: vat::terms,
            perturbed: Some(vat::perturbed),
            ..SUPERVISED
        },
        Method::Fixmatch => Definition {
            weights: &["weight_fixmatch"],
            check: fixmatch::check,
            pipes: fixmatch::pipes,
            check_views: fixmatch::check_views,
            terms: |pass| Ok(vec![fixmatch::term(pass)?]),
            ..SUPERVISED
        },
        Method::Moam => Definition {
            heads: rotation::heads,
            weights: &["weight_rotation", "weight_vat", "weight_entmin"],
            check: moam::check,
            check_views: rotation::check_views,
            terms: moam::terms,
            perturbed: Some(moam::perturbed),
            ..SUPERVISED
        },
    }
}

fn check_distill(s: &Settings) -> Checked {
    match s.balance_classes {
        true => Err(Fault::new("balance_classes has no effect on soft labels", "set it to false")),
        false => Ok(()),
    }
}

/// The network that a method trains: the trunk from the settings, the head `classes`, and the method's
/// heads.
pub fn architecture(s: &Settings, channels: usize, classes: usize) -> Architecture {
    let mut heads = vec![(head::CLASSES.to_string(), classes)];
    heads.extend((definition(s.method).heads)(s));
    Architecture {
        channels,
        units: s.units.clone(),
        width_factor: s.width_factor,
        stem: s.stem,
        heads,
    }
}

/// Whether a method trains on the class probabilities of a teacher.
pub fn needs_soft_labels(method: Method) -> bool {
    definition(method).soft_labels
}

/// Checks that the settings make sense for their method.
pub fn check(s: &Settings) -> Checked {
    let method = definition(s.method);
    check_weights(s, method.weights)?;
    if s.upright_classes && !matches!(s.method, Method::Rotation | Method::Moam) {
        let what = format!("upright_classes has no effect in {}", method_name(s.method));
        return Err(Fault::new(what, "set it to false, or method to rotation or moam"));
    }
    (method.check)(s)
}

const WEIGHT_SUPERVISED: &str = "weight_supervised";

/// Errors unless one of the method's own weights is above 0, and all other weights are 0, except that of
/// the supervised term, which every method has.
fn check_weights(s: &Settings, own: &[&str]) -> Checked {
    let weights = [
        (WEIGHT_SUPERVISED, s.weight_supervised),
        ("weight_rotation", s.weight_rotation),
        ("weight_exemplar", s.weight_exemplar),
        ("weight_vat", s.weight_vat),
        ("weight_entmin", s.weight_entmin),
        ("weight_fixmatch", s.weight_fixmatch),
    ];
    let set = weights.into_iter().filter(|&(_, weight)| weight > 0.0);
    let (own_set, others): (Vec<_>, Vec<_>) = set.partition(|(key, _)| own.contains(key));
    if let Some((key, _)) = others.into_iter().find(|&(key, _)| key != WEIGHT_SUPERVISED) {
        let hint = "set it to 0, or method to one that has it";
        return Err(Fault::new(format!("{key} has no effect in {}", method_name(s.method)), hint));
    }
    match own_set.is_empty() {
        true => {
            let are = if own.len() == 1 { "is" } else { "are" };
            let what = format!("{} {are} 0 in {}", own.join(" and "), method_name(s.method));
            Err(Fault::new(what, "give a weight above 0, or another method"))
        }
        false => Ok(()),
    }
}

/// The views that a method makes of images with this many channels.
///
/// Errors: as `Views::new`.
pub fn views(s: &Settings, channels: usize) -> Result<Views> {
    Views::new(&(definition(s.method).pipes)(s), channels)
}

/// Checks that these views have one size and are those that the method needs.
pub fn check_views(s: &Settings, views: &Views) -> Checked {
    views.check_sizes(s)?;
    (definition(s.method).check_views)(s, views)
}

/// Images of a step that VAT moves.
pub fn moved_images(s: &Settings, views: &Views) -> usize {
    let rows = Rows {
        unlabelled: Half { images: s.unlabelled_batch, views: views.unlabelled.count() },
        labelled: Half { images: s.batch, views: views.labelled.count() },
    };
    definition(s.method).perturbed.map_or(0, |perturbed| perturbed(s, &rows).rows)
}

/// Computes the loss of one step; the engine accumulates its gradient.
///
/// All images of the batch go through the network together and share its batch statistics
/// (reference semi_supervised/utils.py). VAT's perturbed passes have statistics of their own and
/// leave the moving ones alone. The engine leaves the buffer of the last step in the images' place.
pub fn step(
    network: &mut Network,
    settings: &Settings,
    batch: &mut Batch,
    at: At,
) -> Result<Record> {
    network.engine.images(&mut batch.images);
    let batch = &*batch;
    let method = definition(settings.method);
    let perturbed = method.perturbed.map(|rows| rows(settings, &batch.rows));
    let mut record = Record::new();
    let mut clean = None;
    let main_loss = |outputs: &Outputs| -> Result<Tensor> {
        let logits = outputs.head(head::CLASSES)?;
        let pass = MainPass { settings, batch, at, outputs, logits };
        let mut terms = vec![supervised::term(&pass, &mut record)?];
        terms.extend((method.terms)(&pass)?);
        if let Some(rows) = perturbed {
            clean = Some(Clean::new(&pass, rows)?);
        }
        weighted_sum(&terms, &mut record)
    };
    let pass = Pass::Train { keep: BATCH_NORM_MOMENTUM };
    let weight = vat::weight(settings, at);
    // A term of weight 0, as at the start of a ramp, needs no gradient.
    let last = perturbed.is_none() || weight == 0.0;
    let mut loss = f64::from(network.differentiate(pass, last, batch.rows.parts(), main_loss)?);
    if let Some(clean) = clean.filter(|_| !last) {
        let term = vat::term(network, settings, clean, at)?;
        loss += weight * term.value;
        record.push(term);
    }
    record.push(Value { name: metric::LOSS, value: loss });
    Ok(record)
}

/// The sum of at least one term; each unweighted term is recorded.
fn weighted_sum(terms: &[Term], record: &mut Record) -> Result<Tensor> {
    let mut total = (&terms[0].value * terms[0].weight)?;
    for term in &terms[1..] {
        total = (total + (&term.value * term.weight)?)?;
    }
    for term in terms {
        let value = f64::from(term.value.to_scalar::<f32>()?);
        record.push(Value { name: term.name, value });
    }
    Ok(total)
}
