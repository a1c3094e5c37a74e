//! The page of a report.

use super::curves;
use super::made;
use super::outcomes::Bin;
use super::rows::{Difference, Estimate, TableRow};
use super::runs::Run;
use super::table::{self, PUBLISHED_NOTE, Shown, percent, published, spread};
use crate::evaluate::metrics::{CALIBRATION_BINS, Summary};
use crate::page::chart::{self, Bar, Dot, Place};
use crate::page::frame::{Page, escape, section};
use crate::page::matrix;
use crate::schema::{COST_CSV, COST_PAGE};
use indicatif::HumanCount;
use std::fmt::Write;

/// Most classes in the heat table.
const MOST_CLASSES: usize = 30;

/// The whole page. `rows` is not empty.
pub fn page(rows: &[TableRow]) -> String {
    let sections = [
        headline(rows),
        accuracy(rows),
        accuracy_by_labels(rows),
        learning_curves(rows),
        classes(rows),
        confusion(rows),
        calibration(rows),
        made::section(rows),
        cost(),
    ];
    let note = "<p class=note>From the eval.parquet and metrics.parquet of each run. The same figures: \
        table.md, table.csv, table.parquet.</p>\n";
    let page = Page {
        generator: "s4l-report",
        title: "Semi-supervised image classification",
        width: 1160,
        body: &(sections.join("\n") + note),
    };
    page.html()
}

/// Our figures beside the published ones. Only top-1 has a spread here; the files have the others. Each of
/// our figures links to how it was made.
fn headline(rows: &[TableRow]) -> String {
    let shown = Shown::of(rows);
    let head = |shown: bool, name: &str| {
        if shown { format!("<th scope=col>{name}") } else { String::new() }
    };
    let best = rows.iter().map(top1).fold(0.0, f64::max);
    let mut body = String::new();
    for (nth, row) in rows.iter().enumerate() {
        let class = if top1(row) == best { "best" } else { "" };
        let _ = writeln!(
            body,
            "<tr class='{class}'><th scope=row><a href='#{}'>{}{}</a>{}<td class='theirs apart'>{}</tr>",
            made::anchor(nth),
            escape(row.title),
            row.mark(),
            ours(nth, row, shown),
            published(row.published.paper_top5),
        );
    }
    format!(
        "<p class=lead>{}</p>\n<p>{}.</p>\n<section>\n<div class=wide><table class=main>\n<thead>\
         <tr><th class=under rowspan=2><th class=group colspan={}><span>This project</span>\
         <th class='group apart'><span>ImageNet</span>\
         <tr><th scope=col>Top-1 %<th>{}{}{}<th scope=col>Top-5 %<th scope=col>NLL{}\
         <th scope=col>Seeds<th scope=col class=apart>Top-5 % in the paper\n</thead>\n<tbody>\n{body}</tbody>\n\
         </table></div>\n{}<p class=note>{} {PUBLISHED_NOTE}</p>\n</section>",
        lead(rows),
        escape(&table::subject(rows)),
        5 + 2 * usize::from(shown.compared)
            + usize::from(shown.averaged)
            + usize::from(shown.balanced)
            + 2 * usize::from(shown.budgets),
        head(shown.compared, "To supervised<th>"),
        head(shown.balanced, "Balanced %"),
        head(shown.averaged, "4 rotations"),
        head(shown.budgets, "Labels seen<th scope=col>Images seen"),
        mixed(rows),
        shown.notes(),
    )
}

/// The cells of our figures. Each links to how it was made, and shows the values of all seeds on hover.
fn ours(nth: usize, row: &TableRow, shown: Shown) -> String {
    let cell = |text: String, value: &dyn Fn(&Run) -> Option<f64>, decimals: usize| {
        let values = row.runs.iter().map(|run| match value(run) {
            Some(value) => format!("seed {}: {value:.decimals$}", run.summary.seed),
            None => format!("seed {}: not known", run.summary.seed),
        });
        let values = values.collect::<Vec<_>>().join(", ");
        format!("<td><a href='#{}' title='{values}'>{text}</a>", made::anchor(nth))
    };
    let figure = |text: String, value: fn(&Summary) -> f64| {
        cell(text, &move |run| Some(value(&run.summary.unrotated) * 100.0), 2)
    };
    let rotations = row.rotation_averaged_top1().map_or(String::new(), |e| percent(e.mean));
    let mut cells = figure(percent(top1(row)), |s| s.top1);
    let _ = write!(cells, "<td class=range>{}", range(row));
    if shown.compared {
        cells += &difference(row);
    }
    if shown.balanced {
        let balanced = percent(row.balanced_accuracy().mean);
        cells += &figure(balanced, |s| crate::evaluate::metrics::balanced_accuracy(&s.per_class));
    }
    if shown.averaged {
        let of = |run: &Run| Some(run.summary.rotation_averaged.as_ref()?.top1 * 100.0);
        cells += &cell(rotations, &of, 2);
    }
    cells += &figure(percent(row.estimate(|s| s.top5).mean), |s| s.top5);
    let nll = format!("{:.3}", row.estimate(|s| s.nll).mean);
    cells += &cell(nll, &|run| Some(run.summary.unrotated.nll), 4);
    if shown.budgets {
        let counts = [table::budget(row, |b| b.labelled), table::budget(row, |b| b.seen)];
        let _ = write!(cells, "<td>{}", counts.join("<td>"));
    }
    let _ = write!(cells, "<td>{}", row.runs.len());
    cells
}

/// Two cells: the difference in points, and its interval.
fn difference(row: &TableRow) -> String {
    match row.difference {
        None => "<td><td>".to_string(),
        Some(Difference { mean, low, high }) => {
            let [mean, low, high] = [mean, low, high].map(|fraction| fraction * 100.0);
            format!("<td>{mean:+.1}<td class=range>{low:.1} to {high:.1}")
        }
    }
}

/// The list of what does not belong together; empty if there is nothing to list.
fn mixed(rows: &[TableRow]) -> String {
    let notes = rows.iter().flat_map(|row| row.notes.iter().map(move |note| (row, note)));
    let item = |(row, note): (&TableRow, &String)| {
        format!("<li>{}: {}</li>\n", escape(row.title), escape(note))
    };
    let items: String = notes.map(item).collect();
    match items.is_empty() {
        true => items,
        false => format!("<p><strong>* {}</strong></p>\n<ul>\n{items}</ul>\n", table::MIXED_NOTE),
    }
}

fn top1(row: &TableRow) -> f64 {
    row.estimate(|s| s.top1).mean
}

/// `± 0.4` over seeds, `82.1–83.6` for one seed.
fn range(row: &TableRow) -> String {
    match (row.bootstrap(), row.estimate(|s| s.top1).sd) {
        (Some((low, high)), _) => format!("{}\u{2013}{}", percent(low), percent(high)),
        (None, Some(sd)) => format!("\u{b1} {}", percent(sd)),
        (None, None) => String::new(),
    }
}

/// The row with the highest top-1; of equal rows, the first.
fn best<'a, 'b>(rows: &'a [TableRow<'b>]) -> &'a TableRow<'b> {
    let better = |a, b| if top1(b) > top1(a) { b } else { a };
    rows.iter().fold(&rows[0], better)
}

/// The best row as a sentence, compared with the supervised row on 10% of the labels if there is one.
fn lead(rows: &[TableRow]) -> String {
    let best = best(rows);
    let (title, value) = (escape(best.title), percent(top1(best)));
    if rows.len() == 1 {
        return format!("{title}: {value}% top-1.");
    }
    let mut text = format!("{title} is highest, with {value}% top-1");
    if let Some(base) = rows.iter().find(|r| r.name == "supervised_10p")
        && base.name != best.name
    {
        let gain = percent(top1(best) - top1(base));
        let _ = write!(text, ": {gain} points above {}", escape(base.title));
    }
    text + "."
}

fn accuracy(rows: &[TableRow]) -> String {
    let dots: Vec<Dot> = rows
        .iter()
        .map(|row| Dot {
            interval: Some(row.top1_interval()),
            ..dot(row, |s| s.top1, table::top1(row))
        })
        .collect();
    section(
        "Top-1 accuracy",
        "Bars: 95% bootstrap interval over the images for one seed; one standard deviation to each \
         side for several, whose own values are the small circles. The axis does not start at 0.",
        &chart::dot_chart("Top-1 accuracy by row", &dots, &[]),
    )
}

fn dot(row: &TableRow, figure: fn(&Summary) -> f64, text: String) -> Dot {
    let Estimate { mean, sd } = row.estimate(figure);
    let single = |run: &&Run| {
        let value = figure(&run.summary.unrotated);
        (format!("seed {}: {}", run.summary.seed, percent(value)), value)
    };
    Dot {
        title: row.title.to_string(),
        mean,
        interval: sd.map(|sd| (mean - sd, mean + sd)),
        singles: row.runs.iter().map(single).collect(),
        text,
    }
}

/// Empty unless the rows differ in their number of labels. The best row of each number is named.
fn accuracy_by_labels(rows: &[TableRow]) -> String {
    let known: Vec<(f64, &TableRow)> = rows.iter().filter_map(|r| Some((r.labels()?, r))).collect();
    if known.iter().all(|(labels, _)| *labels == known[0].0) {
        return String::new();
    }
    let place = |&(labels, row): &(f64, &TableRow)| {
        let same = known.iter().filter(|(other, _)| *other == labels);
        let highest = same.map(|(_, other)| top1(other)).fold(0.0, f64::max);
        Place {
            count: labels,
            height: top1(row),
            title: format!("{}\n{labels:.0} labels: {}", row.title, table::top1(row)),
            name: (top1(row) == highest).then(|| row.title.to_string()),
        }
    };
    let places: Vec<Place> = known.iter().map(place).collect();
    let missing = match rows.len() - known.len() {
        0 => String::new(),
        n => format!(" Of {n} rows the labels were not found beside or above their runs."),
    };
    section(
        "Accuracy by number of labels",
        &format!("Top-1 over the number of known labels that a row was trained on.{missing}"),
        &chart::scatter("Top-1 accuracy by number of labels", &places),
    )
}

fn learning_curves(rows: &[TableRow]) -> String {
    section(
        "Learning curves",
        "Over training steps, averaged over neighbouring ones; bands span the seeds. Loss terms have \
         the scale of their row, accuracies one scale for all rows.",
        &curves::charts(rows),
    )
}

fn classes(rows: &[TableRow]) -> String {
    let accuracies: Vec<Vec<Option<f64>>> = rows.iter().map(TableRow::per_class).collect();
    let names = &rows[0].runs[0].summary.unrotated.per_class;
    let lowest = |class: usize| {
        let values = accuracies.iter().filter_map(|row| row[class]);
        values.fold(f64::INFINITY, f64::min)
    };
    let mut shown: Vec<usize> = (0..names.len()).collect();
    let mut note =
        "Share of each class's images that are classified rightly, in percent.".to_string();
    if names.len() > MOST_CLASSES {
        shown.sort_by(|&a, &b| lowest(a).total_cmp(&lowest(b)));
        shown.truncate(MOST_CLASSES);
        let _ =
            write!(note, " The {MOST_CLASSES} of {} classes with the lowest figure.", names.len());
    }
    let values = || shown.iter().flat_map(|&c| accuracies.iter().filter_map(move |row| row[c]));
    let low = values().fold(1.0, f64::min);
    let high = values().fold(0.0, f64::max);
    let mut html = "<div class=wide><table class=heat>\n<thead><tr><th>".to_string();
    for row in rows {
        let _ = write!(html, "<th scope=col>{}", escape(row.title));
    }
    html += "</thead>\n<tbody>\n";
    for &class in &shown {
        let name = escape(&names[class].name);
        let _ = write!(html, "<tr><th scope=row>{name}</th>");
        for (row, values) in rows.iter().zip(&accuracies) {
            let _ = match values[class] {
                Some(value) => {
                    let shade = (value - low) / (high - low).max(1e-9);
                    let (title, text) = (escape(row.title), percent(value));
                    write!(
                        html,
                        "<td style='--v:{shade:.2}' title=\"{title}, {name}: {text}%\">{text}</td>"
                    )
                }
                None => write!(html, "<td></td>"),
            };
        }
        html += "</tr>\n";
    }
    section("Accuracy by class", &note, &(html + "</tbody></table></div>"))
}

/// One matrix per row; that of the best row is open.
fn confusion(rows: &[TableRow]) -> String {
    let classes = &rows[0].runs[0].summary.unrotated.per_class;
    let names: Vec<String> = classes.iter().map(|class| class.name.clone()).collect();
    let best = best(rows).name;
    let mut html = String::new();
    for row in rows {
        let open = if row.name == best { " open" } else { "" };
        let counts = row.outcomes().confusion;
        let _ = writeln!(
            html,
            "<details{open}><summary>{}</summary>{}</details>",
            escape(row.title),
            matrix::table(&names, &counts, "class", "predicted"),
        );
    }
    section(
        "Confusion",
        "Which class was taken for which: percent of the images of a class, all seeds together; of many \
         classes the pairs that are confused most.",
        &html,
    )
}

/// Runs with the same bytes take other times, so a page of its own has them.
fn cost() -> String {
    let note = "Seconds and memory of every stage, as the provenance files say.";
    section(
        "Cost",
        note,
        &format!("<p><a href='{COST_PAGE}'>{COST_PAGE}</a>, {COST_CSV}: beside this page.</p>"),
    )
}

fn calibration(rows: &[TableRow]) -> String {
    let dots: Vec<Dot> = rows
        .iter()
        .map(|row| {
            let text = spread(row.estimate(|s| s.ece), 100.0, 1);
            dot(row, |s| s.ece, text)
        })
        .collect();
    let mut html = chart::dot_chart("Expected calibration error by row", &dots, &[0.0]);
    html += "\n<p>Accuracy of the images of each bin of confidence, all seeds together; on the broken \
        line they are equal.</p>\n<div class=tiles>\n";
    for row in rows {
        let bins = row.outcomes().bins;
        let bars: Vec<Bar> = bins.iter().enumerate().filter_map(reliability).collect();
        let title = escape(row.title);
        let label = format!("Accuracy by confidence of {}", row.title);
        let _ = writeln!(html, "<div><p>{title}</p>{}</div>", chart::bars(&label, &bars, true));
    }
    section(
        "Calibration",
        "Expected calibration error: by how many percentage points confidence and accuracy differ, \
         on average over 15 bins of confidence. Lower is better.",
        &(html + "</div>"),
    )
}

/// The bar of a bin that has images.
fn reliability((nth, bin): (usize, &Bin)) -> Option<Bar> {
    if bin.images == 0 {
        return None;
    }
    let edge = |n: usize| n as f64 / CALIBRATION_BINS as f64;
    let of = |sum: f64| sum / bin.images as f64;
    let (height, confidence) = (of(bin.correct as f64), of(bin.confidence));
    let title = format!(
        "confidence {}%\naccuracy {}%\n{} images",
        percent(confidence),
        percent(height),
        HumanCount(bin.images)
    );
    Some(Bar { from: edge(nth), to: edge(nth + 1), height, title })
}
