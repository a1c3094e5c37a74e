//! The page: one file that needs no network and no script.

use super::curves;
use super::rows::{Estimate, TableRow};
use super::svg::{self, Dot, Line, escape};
use super::table::{self, PUBLISHED_NOTE, percent, published, spread};
use crate::schema::{self, metric};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The heat table shows at most so many classes.
const MOST_CLASSES: usize = 30;

/// The whole page. `rows` is not empty.
pub fn page(rows: &[TableRow]) -> String {
    let sections = [
        headline(rows),
        accuracy(rows),
        learning_curves(rows),
        classes(rows),
        calibration(rows),
        lineage(rows),
    ];
    format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content='width=device-width, initial-scale=1'>\n\
         <title>S4L report</title>\n<style>\n{}</style>\n\
         <h1>Semi-supervised image classification</h1>\n{}\n\
         <footer>Written by s4l-report {} from the eval.parquet and metrics.parquet of each run. \
         The same figures: table.md, table.csv, table.parquet.</footer>\n</html>\n",
        include_str!("style.css"),
        sections.join("\n"),
        env!("CARGO_PKG_VERSION"),
    )
}

fn section(title: &str, note: &str, content: &str) -> String {
    format!(
        "<section>\n<h2>{title}</h2>\n<p>{note}</p>\n<div class=wide>{content}</div>\n</section>"
    )
}

/// The figures beside the published ones. Spreads of others than top-1 are in the files.
fn headline(rows: &[TableRow]) -> String {
    let averaged = rows.iter().any(|r| r.rotation_averaged_top1().is_some());
    let (head, note) =
        if averaged { ("<th scope=col>4 rotations", table::ROTATIONS_NOTE) } else { ("", "") };
    let best = rows.iter().map(top1).fold(0.0, f64::max);
    let mut body = String::new();
    for row in rows {
        let class = if top1(row) == best { "best" } else { "" };
        let rotations = row.rotation_averaged_top1();
        let rotations = rotations.map_or(String::new(), |e| percent(e.mean));
        let p = &row.published;
        let theirs = [p.paper_top5, p.rerun_top5, p.paper_top1, p.rerun_top1].map(published);
        let _ = writeln!(
            body,
            "<tr class='{class}'><th scope=row>{}{}<td>{}<td class=range>{}{}<td>{}<td>{:.3}<td>{}\
             <td class='theirs apart'>{}</tr>",
            escape(row.title),
            row.mark(),
            percent(top1(row)),
            range(row),
            if averaged { format!("<td>{rotations}") } else { String::new() },
            percent(row.estimate(|s| s.top5).mean),
            row.estimate(|s| s.nll).mean,
            row.runs.len(),
            theirs.join("<td class=theirs>")
        );
    }
    format!(
        "<p class=lead>{}</p>\n<p>{}.</p>\n<section>\n<div class=wide><table class=main>\n<thead>\
         <tr><th class=under rowspan=2><th class=group colspan={}><span>This project</span>\
         <th class='group apart' colspan=4><span>ImageNet, ResNet-50v2, as published</span>\
         <tr><th scope=col>Top-1 %<th>{head}<th scope=col>Top-5 %<th scope=col>NLL\
         <th scope=col>Seeds<th scope=col class=apart>Top-5 paper<th scope=col>re-run\
         <th scope=col>Top-1 paper<th scope=col>re-run\n</thead>\n<tbody>\n{body}</tbody>\n\
         </table></div>\n{}<p class=note>{note} {PUBLISHED_NOTE}</p>\n</section>",
        lead(rows),
        escape(&table::subject(rows)),
        if averaged { 6 } else { 5 },
        mixed(rows),
    )
}

/// What does not belong together, if there is anything.
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

/// `± 0.4` over seeds, `82.1–83.6` of one seed.
fn range(row: &TableRow) -> String {
    match (row.bootstrap(), row.estimate(|s| s.top1).sd) {
        (Some((low, high)), _) => format!("{}\u{2013}{}", percent(low), percent(high)),
        (None, Some(sd)) => format!("\u{b1} {}", percent(sd)),
        (None, None) => String::new(),
    }
}

/// The best row in words, against the supervised row with 10% of the labels if there is one.
fn lead(rows: &[TableRow]) -> String {
    let better = |a, b| if top1(b) > top1(a) { b } else { a };
    let Some(best) = rows.iter().reduce(better) else {
        return String::new();
    };
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
        &svg::dot_chart("Top-1 accuracy by row", &dots, &[]),
    )
}

fn dot(row: &TableRow, figure: fn(&crate::evaluate::metrics::Summary) -> f64, text: String) -> Dot {
    let Estimate { mean, sd } = row.estimate(figure);
    let single = |run: &&super::runs::Run| {
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

/// The loss terms, each with its colour class.
const LOSSES: [(&str, &str, &str); 6] = [
    (metric::LOSS, "total", "total"),
    (metric::LOSS_SUPERVISED, "supervised", "supervised"),
    (metric::LOSS_ROTATION, "rotation", "rotation"),
    (metric::LOSS_EXEMPLAR, "exemplar", "exemplar"),
    (metric::LOSS_VAT, "VAT", "vat"),
    (metric::LOSS_ENTMIN, "EntMin", "entmin"),
];
const ACCURACIES: [(&str, &str, &str); 2] = [
    (metric::TRAIN_TOP1, "training", "total"),
    (metric::VALIDATION_TOP1, "validation", "supervised"),
];

fn learning_curves(rows: &[TableRow]) -> String {
    let accuracies: Vec<Vec<Line>> = rows.iter().map(|r| lines(r, &ACCURACIES)).collect();
    // One range for all rows, so that they compare.
    let range: Vec<f64> = accuracies
        .iter()
        .flatten()
        .flat_map(|line| &line.points)
        .flat_map(|p| [p.low, p.high])
        .collect();
    let mut figures = String::new();
    for (row, accuracy) in rows.iter().zip(&accuracies) {
        let losses = loss_lines(row);
        if losses.is_empty() && accuracy.is_empty() {
            continue;
        }
        let _ = write!(figures, "<h3>{}</h3>\n<div class=pair>", escape(row.title));
        let _ = write!(figures, "<div><p>Training loss</p>");
        if !losses.is_empty() {
            let label = format!("Training loss of {}", row.title);
            figures += &svg::line_chart(&label, &losses, &[0.0], false);
        }
        let _ = write!(figures, "</div><div><p>Top-1 accuracy</p>");
        if !accuracy.is_empty() {
            let label = format!("Top-1 accuracy of {} while training", row.title);
            figures += &svg::line_chart(&label, accuracy, &range, true);
        }
        figures += "</div></div>\n";
    }
    if figures.is_empty() {
        figures = "<p>No run has a model/metrics.parquet beside it.</p>".into();
    }
    section(
        "Learning curves",
        "Over training steps, averaged over neighbouring ones; bands span the seeds. Loss terms have \
         the scale of their row, accuracies one scale for all rows.",
        &figures,
    )
}

/// The losses of a row, those that only its method has last.
fn loss_lines<'a>(row: &TableRow<'a>) -> Vec<Line<'a>> {
    let named = row.runs.iter().flat_map(|run| run.curves.keys());
    let own = named.filter(|name| LOSSES.iter().all(|(known, ..)| known != name));
    let own = own.filter_map(|name| Some((&**name, name.strip_prefix(metric::LOSS_TERM)?)));
    let own = own.collect::<BTreeMap<&str, &str>>().into_iter();
    let own: Vec<_> = own.map(|(key, name)| (key, name, "exemplar")).collect();
    let mut all = lines(row, &LOSSES);
    all.extend(lines(row, &own));
    all
}

fn lines<'a>(row: &TableRow, known: &[(&str, &'a str, &'static str)]) -> Vec<Line<'a>> {
    known
        .iter()
        .map(|(key, name, class)| Line { class, name, points: curves::curve(row, key) })
        .filter(|line| !line.points.is_empty())
        .collect()
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
    let mut html = "<table class=heat>\n<thead><tr><th>".to_string();
    for row in rows {
        let _ = write!(html, "<th scope=col>{}", escape(row.title));
    }
    html += "</thead>\n<tbody>\n";
    for &class in &shown {
        let _ = write!(html, "<tr><th scope=row>{}</th>", escape(&names[class].name));
        for row in &accuracies {
            let _ = match row[class] {
                Some(value) => {
                    let shade = (value - low) / (high - low).max(1e-9);
                    write!(html, "<td style='--v:{shade:.2}'>{}</td>", percent(value))
                }
                None => write!(html, "<td style='--v:0'></td>"),
            };
        }
        html += "</tr>\n";
    }
    section("Accuracy by class", &note, &(html + "</tbody></table>"))
}

fn calibration(rows: &[TableRow]) -> String {
    let dots: Vec<Dot> = rows
        .iter()
        .map(|row| {
            let text = spread(row.estimate(|s| s.ece), 100.0, 1);
            dot(row, |s| s.ece, text)
        })
        .collect();
    section(
        "Calibration",
        "Expected calibration error: by how many percentage points confidence and accuracy differ, \
         on average over 15 bins of confidence. Lower is better.",
        &svg::dot_chart("Expected calibration error by row", &dots, &[0.0]),
    )
}

/// What each evaluation was made from, as its footer has it.
fn lineage(rows: &[TableRow]) -> String {
    let mut html = "<table class=lineage>\n<thead><tr><th scope=col>Row\
        <th scope=col>Seed<th scope=col>Method<th scope=col>Tool<th scope=col>Recipe\
        <th scope=col>Inputs</thead>\n<tbody>\n"
        .to_string();
    for (row, run) in rows.iter().flat_map(|row| row.runs.iter().map(move |run| (row, run))) {
        let of = |key: &str| run.lineage.get(key).map_or(String::new(), |v| escape(v));
        let mut inputs = String::new();
        for (key, hash) in &run.lineage {
            if let Some(name) = key.strip_prefix(schema::INPUT_PREFIX) {
                let _ =
                    write!(inputs, "<span>{} <code>{}</code></span> ", escape(name), escape(hash));
            }
        }
        let _ = writeln!(
            html,
            "<tr><th scope=row>{}</th><td>{}</td><td>{}</td><td>{} {}</td><td><code>{}</code></td>\
             <td>{inputs}</td></tr>",
            escape(row.title),
            run.summary.seed,
            escape(&run.summary.method),
            of(schema::TOOL_KEY),
            of(schema::VERSION_KEY),
            of(schema::RECIPE_KEY),
        );
    }
    section(
        "Lineage",
        "What each evaluation was made from: hashes are the first 16 hex digits of BLAKE3.",
        &(html + "</tbody></table>"),
    )
}
