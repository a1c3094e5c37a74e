//! Confusion: counts per (row, column) as a shaded table.

use super::frame::escape;
use indicatif::HumanCount;
use std::collections::BTreeMap;
use std::fmt::Write;

/// With more classes than this the table would be unreadable: the most frequent confusions are listed
/// instead.
const MOST_CLASSES: usize = 30;

/// Counts of pairs of classes. Pairs that do not occur have no entry.
pub type Counts = BTreeMap<(u32, u32), u64>;

/// A table of `counts`, as percent of each row. `row` and `column` name the classes of a pair.
pub fn table(classes: &[String], counts: &Counts, row: &str, column: &str) -> String {
    let mut totals = vec![0; classes.len()];
    for ((from, _), images) in counts {
        totals[*from as usize] += images;
    }
    let words = |from: usize, to: usize, images: u64| {
        let (images, all) = (HumanCount(images), HumanCount(totals[from]));
        format!(
            "{row} {}, {column} {}: {images} of {all}",
            escape(&classes[from]),
            escape(&classes[to])
        )
    };
    if classes.len() > MOST_CLASSES {
        return pairs(counts, words);
    }
    let mut html =
        format!("<div class=wide><table class=matrix>\n<thead><tr><th scope=col>{row} \\ {column}");
    for class in classes {
        let _ = write!(html, "<th scope=col><span>{}</span>", escape(class));
    }
    html += "</thead>\n<tbody>\n";
    for (from, class) in classes.iter().enumerate() {
        let _ = write!(html, "<tr><th scope=row>{}", escape(class));
        for to in 0..classes.len() {
            let Some(&images) = counts.get(&(from as u32, to as u32)) else {
                html += "<td>";
                continue;
            };
            let share = images as f64 / totals[from] as f64;
            let class = if from == to { "" } else { " class=off" };
            let _ = write!(
                html,
                "<td{class} style='--v:{share:.2}' title=\"{}\">{:.0}",
                words(from, to, images),
                share * 100.0
            );
        }
        html.push('\n');
    }
    html + "</tbody>\n</table></div>\n"
}

fn pairs(counts: &Counts, words: impl Fn(usize, usize, u64) -> String) -> String {
    let mut pairs: Vec<_> = counts.iter().filter(|((from, to), _)| from != to).collect();
    // A stable sort: equal counts stay in the order of their classes.
    pairs.sort_by_key(|(_, images)| std::cmp::Reverse(**images));
    let item = |(pair, images): (&(u32, u32), &u64)| {
        format!("<li>{}\n", words(pair.0 as usize, pair.1 as usize, *images))
    };
    format!("<ol>\n{}</ol>\n", pairs.into_iter().take(MOST_CLASSES).map(item).collect::<String>())
}
