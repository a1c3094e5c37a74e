//! The page of an audit.

use super::figures::{self, BINS, Figures, by, of_classes, pairs};
use super::gallery;
use super::labels::{Labels, Pseudo};
use crate::error::Result;
use crate::labelled::collapse;
use crate::page::chart::{self, Bar, Dot};
use crate::page::frame::{escape, section};
use crate::page::matrix;
use indicatif::HumanCount;
use std::fmt::Write;

/// More classes have no chart of their shares.
const MOST_CHARTED: usize = 30;

/// Of `min_confidence`, from which labels are trained on.
const THRESHOLDS: [f64; 7] = [0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99];

/// What stands on the page.
pub fn body(labels: &Labels) -> Result<String> {
    let mut html = lead(labels);
    if labels.pseudo.is_empty() {
        return Ok(html);
    }
    html += &classes(labels);
    html += &confidence(labels);
    html += &agreement(labels);
    if labels.before {
        html += &drift(labels);
    }
    if labels.truth {
        html += &truth(labels);
    }
    Ok(html + &gallery::html(labels)?)
}

fn percent(fraction: f64) -> String {
    format!("{:.1}%", fraction * 100.0)
}

fn or_dash(fraction: Option<f64>) -> String {
    fraction.map_or("\u{2013}".to_string(), percent)
}

fn lead(labels: &Labels) -> String {
    let all = Figures::of(&labels.pseudo);
    let mut html = format!(
        "<p class=lead>{} pseudo labels and {} known ones of the images of {}, in {} classes.</p>\n",
        HumanCount(all.images),
        HumanCount(labels.known as u64),
        escape(&labels.split_name),
        labels.classes.len(),
    );
    let counts: Vec<u64> = of_classes(labels).iter().map(|figures| figures.images).collect();
    if let Some(words) = collapse::words(&labels.classes, &counts, &labels.labelled) {
        let _ = writeln!(html, "<p class=bad>{}.</p>", escape(&words));
    }
    let mut words = format!(
        "Of the pseudo labels the mean confidence is {}, the mean agreement over views {}",
        or_dash(all.confidence()),
        or_dash(all.agreement())
    );
    if labels.before {
        let _ = write!(words, "; {} of {} have changed", all.changed, all.compared);
    }
    if labels.truth {
        let precision = or_dash(all.precision());
        let _ = write!(words, "; {precision} of {} are right", HumanCount(all.judged));
    }
    let content = labels.split.content_hash();
    let _ = writeln!(html, "<p>{words}. Shards <code>{content}</code>.</p>");
    html
}

/// Share of a class in the labelled set, if there is one.
fn labelled_share(labels: &Labels, class: usize) -> Option<f64> {
    match labels.labelled.iter().sum::<u64>() {
        0 => None,
        known => Some(labels.labelled[class] as f64 / known as f64),
    }
}

fn classes(labels: &Labels) -> String {
    let figures = of_classes(labels);
    let share = |class: usize| figures[class].images as f64 / labels.pseudo.len() as f64;
    let dot = |class: usize| Dot {
        title: labels.classes[class].clone(),
        mean: share(class),
        interval: labelled_share(labels, class)
            .map(|known| (known.min(share(class)), known.max(share(class)))),
        singles: Vec::new(),
        text: percent(share(class)),
    };
    let mut html = String::new();
    if labels.classes.len() <= MOST_CHARTED {
        let dots: Vec<Dot> = (0..labels.classes.len()).map(dot).collect();
        html += &chart::dot_chart("Share of each class in the pseudo labels", &dots, &[0.0]);
    }
    let head = |shown: bool, names: &'static str| if shown { names } else { "" };
    let _ = write!(
        html,
        "\n<div class=wide><table>\n<thead><tr><th scope=col>Class<th scope=col>Labelled\
         <th scope=col>Share<th scope=col>Pseudo<th scope=col>Share<th scope=col>Confidence\
         <th scope=col>Agreement{}{}</thead>\n<tbody>\n",
        head(labels.before, "<th scope=col>Before<th scope=col>Left<th scope=col>Came"),
        head(labels.truth, "<th scope=col>Precision<th scope=col>Recall"),
    );
    let (before, found) = (before(labels), figures::found(labels));
    for (class, f) in figures.iter().enumerate() {
        html += &line(labels, class, f, before[class], found[class]);
    }
    let note = match labels.labelled.iter().all(|&images| images == 0) {
        true => {
            "No label is known, so there is no share to compare with; --labelled names the labelled set."
        }
        false => {
            "Dots: the share of a class in the pseudo labels; bars begin at its share in the labelled set."
        }
    };
    section("Classes", note, &(html + "</tbody>\n</table></div>"))
}

/// A class in the table. `before`: images that had its label, and those that have left it; `found`: images
/// whose right label it is, and those that have it.
fn line(
    labels: &Labels,
    class: usize,
    f: &Figures,
    before: (u64, u64),
    found: (u64, u64),
) -> String {
    let mut html = format!(
        "<tr><th scope=row>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
        escape(&labels.classes[class]),
        HumanCount(labels.labelled[class]),
        or_dash(labelled_share(labels, class)),
        HumanCount(f.images),
        percent(f.images as f64 / labels.pseudo.len() as f64),
        or_dash(f.confidence()),
        or_dash(f.agreement()),
    );
    if labels.before {
        let (all, left) = before;
        html += &[all, left, f.changed].map(|n| format!("<td>{}", HumanCount(n))).concat();
    }
    if labels.truth {
        let (images, hits) = found;
        let recall = (images > 0).then(|| hits as f64 / images as f64);
        let _ = write!(html, "<td>{}<td>{}", or_dash(f.precision()), or_dash(recall));
    }
    html + "\n"
}

/// Images of each class of the labels before, and those of them that have another label now.
fn before(labels: &Labels) -> Vec<(u64, u64)> {
    let mut before = vec![(0, 0); labels.classes.len()];
    for (class, pseudo) in labels.pseudo.iter().filter_map(|p| Some((p.before?, p))) {
        let (all, left) = &mut before[class as usize];
        *all += 1;
        *left += u64::from(pseudo.changed());
    }
    before
}

/// Shares of the labels in each bin, and with the truth how many of them are right.
fn histogram(labels: &Labels, what: &str, value: fn(&Pseudo) -> f64) -> String {
    let bins = by(labels, value);
    let edge = |n: usize| n as f64 / BINS as f64;
    let bar = |(nth, f): (usize, &Figures), height: Option<f64>| {
        let (from, to) = (edge(nth), edge(nth + 1));
        let precision = f.precision().map_or(String::new(), |p| format!("\n{} right", percent(p)));
        let title = format!(
            "{what} {:.0}% to {:.0}%\n{} labels{precision}",
            from * 100.0,
            to * 100.0,
            HumanCount(f.images)
        );
        Some(Bar { from, to, height: height?, title })
    };
    let share = |f: &Figures| (f.images > 0).then(|| f.images as f64 / labels.pseudo.len() as f64);
    let all = bins.iter().enumerate().filter_map(|(nth, f)| bar((nth, f), share(f)));
    let all: Vec<Bar> = all.collect();
    let mut html = format!(
        "<div class=tiles><div><p>Share of the pseudo labels by {what}</p>{}</div>",
        chart::bars(&format!("Share of the pseudo labels by {what}"), &all, false)
    );
    if labels.truth {
        let right = bins.iter().enumerate().filter_map(|(nth, f)| bar((nth, f), f.precision()));
        let right: Vec<Bar> = right.collect();
        let label = format!("Share of right labels by {what}");
        let _ = write!(html, "<div><p>{label}</p>{}</div>", chart::bars(&label, &right, true));
    }
    html + "</div>\n"
}

fn confidence(labels: &Labels) -> String {
    let mut html = histogram(labels, "confidence", |p| p.confidence);
    html += "<div class=wide><table>\n<thead><tr><th scope=col>min_confidence<th scope=col>Kept<th scope=col>Share\
        <th scope=col>Classes without";
    html += if labels.truth {
        "<th scope=col>Precision</thead>\n<tbody>\n"
    } else {
        "</thead>\n<tbody>\n"
    };
    for threshold in THRESHOLDS {
        let kept: Vec<&Pseudo> =
            labels.pseudo.iter().filter(|p| p.confidence >= threshold).collect();
        let mut has = vec![false; labels.classes.len()];
        kept.iter().for_each(|p| has[p.label as usize] = true);
        let (figures, without) = (Figures::of(kept), has.iter().filter(|has| !**has).count());
        let _ = write!(
            html,
            "<tr><th scope=row>{threshold}<td>{}<td>{}<td>{without}",
            HumanCount(figures.images),
            percent(figures.images as f64 / labels.pseudo.len() as f64),
        );
        if labels.truth {
            let _ = write!(html, "<td>{}", or_dash(figures.precision()));
        }
        html.push('\n');
    }
    section(
        "Confidence",
        "The largest probability of the mean over the views of an image, and what is left to train on \
         from a threshold on.",
        &(html + "</tbody>\n</table></div>"),
    )
}

fn agreement(labels: &Labels) -> String {
    section(
        "Agreement over views",
        "The share of the views of an image whose own label is that of their mean.",
        &histogram(labels, "agreement", |p| p.agreement),
    )
}

fn drift(labels: &Labels) -> String {
    let all = Figures::of(&labels.pseudo);
    let mut note = format!(
        "Of {} images that the earlier model labelled too, {} have another label now.",
        HumanCount(all.compared),
        HumanCount(all.changed)
    );
    if labels.truth {
        let became = |from: bool, to: bool| {
            let changed = labels.pseudo.iter().filter(|p| p.changed());
            let both = changed.filter_map(|p| Some((p.before == Some(p.truth?), p.right()?)));
            HumanCount(both.filter(|both| *both == (from, to)).count() as u64)
        };
        let _ = write!(
            note,
            " Of these {} became right, {} wrong, and {} stayed wrong.",
            became(false, true),
            became(true, false),
            became(false, false)
        );
    }
    let counts = pairs(labels, |p| p.before);
    section("Drift", &note, &matrix::table(&labels.classes, &counts, "before", "now"))
}

fn truth(labels: &Labels) -> String {
    let all = Figures::of(&labels.pseudo);
    let note = format!(
        "{} of {} pseudo labels are right, {}. In percent of the images of a class.",
        HumanCount(all.right),
        HumanCount(all.judged),
        or_dash(all.precision())
    );
    let counts = pairs(labels, |p| p.truth);
    section("Truth", &note, &matrix::table(&labels.classes, &counts, "right", "pseudo label"))
}
