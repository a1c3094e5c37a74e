//! A contact sheet: some images of each class with their keys, on one page that needs no network, so that
//! wrong labels can be seen.

use super::count;
use crate::error::Result;
use crate::labelled::rows::{labelled_rows, split_of};
use crate::page::frame::escape;
use crate::page::picture::{Shown, group};
use crate::rng::{Stream, permutation, rng};
use crate::schema;
use crate::shards::{Shards, Split};
use crate::tables::table;
use indicatif::HumanCount;
use std::path::Path;

/// Images per class, and of all classes, by default: a larger page is slow.
const PER_CLASS: usize = 8;
const MOST_IMAGES: usize = 8192;

/// How images are chosen.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// Images per class; by default fewer than `PER_CLASS` if there are many classes.
    pub per_class: Option<u32>,
    pub seed: u64,
}

/// The page for all splits of shards.
pub fn of_shards(folder: &Path, draw: Draw) -> Result<String> {
    let shards = Shards::open(folder)?;
    let mut groups = Vec::new();
    for name in shards.splits() {
        let split = shards.split(&name)?;
        let labels = split.labels()?.iter().copied().enumerate();
        groups.push(section(&shards, &name, &split, labels, draw)?);
    }
    Ok(body(&groups, draw))
}

/// The page for the images of a table of labels.
pub fn of_table(path: &Path, folder: &Path, draw: Draw) -> Result<String> {
    let shards = Shards::open(folder)?;
    let table = table::read(path, "s4l-subset")?;
    let (name, split) = split_of(&table, &shards)?;
    let (rows, labels) = labelled_rows(&table, &split, shards.classes().len(), schema::LABEL)?;
    let rows = rows.into_iter().zip(labels).map(|(row, label)| (row as usize, Some(label)));
    Ok(body(&[section(&shards, &name, &split, rows, draw)?], draw))
}

fn body(sections: &[String], draw: Draw) -> String {
    format!(
        "<p>Images of each class, drawn by seed {}, each with its key. The label of an image is the \
         heading that it stands under.</p>\n{}",
        draw.seed,
        sections.concat(),
    )
}

/// The classes of a split, each with some of its images; images without a label come last.
fn section(
    shards: &Shards,
    name: &str,
    split: &Split,
    labelled: impl Iterator<Item = (usize, Option<u32>)>,
    draw: Draw,
) -> Result<String> {
    let classes = shards.classes();
    let mut groups: Vec<Vec<u32>> = vec![Vec::new(); classes.len() + 1];
    for (row, label) in labelled {
        groups[label.map_or(classes.len(), |label| label as usize)].push(row as u32);
    }
    let images: usize = groups.iter().map(Vec::len).sum();
    let fewer = (MOST_IMAGES / groups.len()).clamp(1, PER_CLASS);
    let per_class = draw.per_class.map_or(fewer, |images| images as usize);
    let (images, count) = (count(images as u64, "image"), HumanCount(classes.len() as u64));
    let (name, content) = (escape(name), split.content_hash());
    let mut html = format!("<h2>{name}</h2>\n<p>{images}, {count} classes, shards {content}</p>\n");
    for (class, mut rows) in groups.into_iter().enumerate() {
        let (number, title) = match classes.get(class) {
            Some(title) => (class.to_string(), title.as_str()),
            None if rows.is_empty() => continue,
            None => (String::new(), "without a label"),
        };
        let all = rows.len();
        rows.sort_unstable();
        let order = permutation(&mut rng(draw.seed, Stream::Sheet, 0, class as u64), all);
        let mut drawn: Vec<u32> =
            order.into_iter().take(per_class).map(|nth| rows[nth as usize]).collect();
        drawn.sort_unstable();
        let shown =
            drawn.iter().map(|&row| Shown { row: row as usize, label: title, note: String::new() });
        html += &group(split, &number, title, all, &shown.collect::<Vec<_>>())?;
    }
    Ok(html)
}
