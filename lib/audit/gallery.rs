//! The images of an audit: for each class the most confident, the least confident and the changed ones.

use super::labels::{Labels, Pseudo};
use crate::error::Result;
use crate::page::picture::{Shown, group};

/// Of a class in each part, and of all classes together if there are many: a page of more is slow.
const PER_CLASS: usize = 6;
const MOST_IMAGES: usize = 1800;

/// All parts. Images of known labels are not among them.
pub fn html(labels: &Labels) -> Result<String> {
    let sure = |p: &Pseudo| -p.confidence;
    let unsure = |p: &Pseudo| p.confidence;
    let mut html = part(
        labels,
        "The surest",
        "For each class, the images with the highest confidence, which is below each image; then the label \
         before and the true label, if they differ.",
        |_| true,
        sure,
    )?;
    html += &part(
        labels,
        "The least sure",
        "For each class, the images with the lowest confidence.",
        |_| true,
        unsure,
    )?;
    if labels.before {
        let note = "Under their new label, the most confident first.";
        html += &part(labels, "Changed", note, Pseudo::changed, sure)?;
    }
    Ok(html)
}

/// The first of each class, of those that are `wanted`, in the order of `by`.
fn part(
    labels: &Labels,
    title: &str,
    note: &str,
    wanted: impl Fn(&Pseudo) -> bool,
    by: fn(&Pseudo) -> f64,
) -> Result<String> {
    let classes = &labels.classes;
    let mut groups: Vec<Vec<&Pseudo>> = vec![Vec::new(); classes.len()];
    let wanted = labels.pseudo.iter().filter(|pseudo| wanted(pseudo));
    wanted.for_each(|pseudo| groups[pseudo.label as usize].push(pseudo));
    let each = (MOST_IMAGES / (3 * classes.len()).max(1)).clamp(1, PER_CLASS);
    let mut html = format!("<h2>{title}</h2>\n<p>{note}</p>\n");
    for (class, mut group_of) in groups.into_iter().enumerate().filter(|(_, g)| !g.is_empty()) {
        // Stable: equal ones stay in the order of their rows.
        group_of.sort_by(|a, b| by(a).total_cmp(&by(b)));
        let all = group_of.len();
        let shown = group_of.into_iter().take(each).map(|pseudo| Shown {
            row: pseudo.row as usize,
            label: &classes[class],
            note: said(pseudo, classes),
        });
        let shown: Vec<Shown> = shown.collect();
        html += &group(&labels.split, &class.to_string(), &classes[class], all, &shown)?;
    }
    Ok(html)
}

/// Its confidence, the label before where that was another, and the right one where that is another.
fn said(pseudo: &Pseudo, classes: &[String]) -> String {
    let mut words = format!("{:.3}", pseudo.confidence);
    if let Some(before) = pseudo.before.filter(|_| pseudo.changed()) {
        words += &format!(", was {}", classes[before as usize]);
    }
    if let Some(truth) = pseudo.truth.filter(|truth| *truth != pseudo.label) {
        words += &format!(", is {}", classes[truth as usize]);
    }
    words
}
