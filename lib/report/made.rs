//! How each row was made: the command that prints its lineage, its runs, its recipe. Runs with the same
//! bytes give the same text.

use super::rows::TableRow;
use super::runs::Run;
use super::table::percent;
use crate::cli::quoted;
use crate::evaluate::metrics::balanced_accuracy;
use crate::page::frame::escape;
use crate::schema;
use indicatif::HumanCount;
use serde_json::{Map, Value};
use std::fmt::Write;

/// The HTML id for how the nth row was made.
pub fn anchor(nth: usize) -> String {
    format!("made-{nth}")
}

pub fn section(rows: &[TableRow]) -> String {
    let mut html = "<section>\n<h2>How it was made</h2>\n<p>For each row the command that prints all \
        commands, recipes and hashes from its evaluations up to the images, in the folder that --in of \
        s4l-report named; with --verify it hashes them anew. Hashes are the first 16 hex digits of \
        BLAKE3.</p>\n"
        .to_string();
    for (nth, row) in rows.iter().enumerate() {
        let commands: String =
            row.runs.iter().map(|run| format!("{}\n", escape(&command(run)))).collect();
        let _ = writeln!(
            html,
            "<details><summary>{}<small>{}</small></summary>\n<div id={}><pre>{commands}</pre>\n\
             <div class=wide>{}</div>\n{}</div></details>",
            escape(row.title),
            escape(row.name),
            anchor(nth),
            runs(row),
            recipe(row),
        );
    }
    html + "</section>"
}

/// The command that prints the lineage of an evaluation.
fn command(run: &Run) -> String {
    format!("s4l-inspect --lineage {}", quoted(&run.place))
}

/// The figures of each run and its lineage, from the footer of the evaluation and the header of the model.
fn runs(row: &TableRow) -> String {
    let mut html = "<table class=lineage>\n<thead><tr><th scope=col>Seed<th scope=col>Top-1 %\
        <th scope=col>Balanced %<th scope=col>ECE %<th scope=col>Labels<th scope=col>Method\
        <th scope=col>Evaluation<th scope=col>Training</thead>\n<tbody>\n"
        .to_string();
    for run in &row.runs {
        let s = &run.summary.unrotated;
        let labels = run.labels.map_or(String::new(), |labels| HumanCount(labels).to_string());
        let model = run.model.as_ref().map(|model| pairs(|key| model.header.get(key)));
        let _ = writeln!(
            html,
            "<tr><th scope=row>{}<td>{}<td>{}<td>{}<td>{labels}<td>{}<td>{}<td>{}",
            run.summary.seed,
            percent(s.top1),
            percent(balanced_accuracy(&s.per_class)),
            percent(s.ece),
            escape(&run.summary.method),
            pairs(|key| run.lineage.get(key)),
            model.unwrap_or_default(),
        );
    }
    html + "</tbody>\n</table>"
}

/// The lineage in a footer or header, one line per entry.
fn pairs<'a>(get: impl Fn(&str) -> Option<&'a String>) -> String {
    let value = |key: &str| get(key).map_or(String::new(), |value| escape(value));
    let mut html = format!("{} {}", value(schema::TOOL_KEY), value(schema::VERSION_KEY));
    let mut line = |name: &str, hash: String| {
        if !hash.is_empty() {
            let _ = write!(html, "<br>{name} <code>{hash}</code>");
        }
    };
    line("recipe", value(schema::RECIPE_KEY));
    for name in schema::input::ALL {
        line(name, value(&format!("{}{name}", schema::INPUT_PREFIX)));
    }
    html
}

/// The settings of the row's first model, as a recipe.
fn recipe(row: &TableRow) -> String {
    let model = row.runs.iter().find_map(|run| Some((run.summary.seed, run.model.as_ref()?)));
    match model.filter(|(_, model)| !model.settings.is_empty()) {
        Some((seed, model)) => {
            let text = escape(&toml(&model.settings));
            format!("<h3>Recipe of seed {seed}, all settings</h3>\n<pre>{text}</pre>\n")
        }
        None => {
            "<p>No model lies beside the evaluation: its recipe is not known.</p>\n".to_string()
        }
    }
}

/// Settings are numbers, strings and lists of these, for which JSON is also TOML.
fn toml(settings: &Map<String, Value>) -> String {
    let given = settings.iter().filter(|(_, value)| !value.is_null());
    given.map(|(key, value)| format!("{key} = {value}\n")).collect()
}
