//! Whether the runs of a table belong together, by what their files say they were made from.

use super::rows::TableRow;
use super::runs::{Model, Run};
use crate::schema::{INPUT_PREFIX, RECIPE_KEY, VERSION_KEY, input};
use serde_json::{Map, Value};

/// Settings that a note names.
const NAMED: usize = 4;

/// Notes on each row what does not belong together: an evaluation of another model than the one beside
/// it, runs of a row by other recipes or views, rows of other images or programs.
pub fn note(rows: &mut [TableRow]) {
    let Some(first) = rows.first().map(|row| row.runs[0]) else {
        return;
    };
    for row in rows {
        let runs = row.runs.clone();
        for run in &runs {
            let seed = format!("seed {}", run.summary.seed);
            let mut add = |what: Option<String>| {
                row.notes.extend(what.map(|what| format!("{seed}: {what}")));
            };
            add(of_its_model(run));
            if run.path != runs[0].path {
                add(as_trained(runs[0], run));
            }
            if run.path != first.path {
                add(as_evaluated(first, run));
                add(by_the_same_program(first, run));
            }
        }
    }
}

/// An evaluation is of the model that lies beside it.
fn of_its_model(run: &Run) -> Option<String> {
    let evaluated = run.lineage.get(&key(input::MODEL))?;
    match &run.model {
        Model::Absent => None,
        Model::Damaged => Some("the model beside eval.parquet is damaged".into()),
        Model::There { hash, .. } if hash == evaluated => None,
        Model::There { hash, .. } => Some(format!(
            "eval.parquet is of model {evaluated}, but {hash} lies beside it; evaluate again"
        )),
    }
}

/// The runs of a row differ in seed and labels alone.
fn as_trained(first: &Run, run: &Run) -> Option<String> {
    let (Model::There { header: a, settings: s, .. }, Model::There { header: b, settings: t, .. }) =
        (&first.model, &run.model)
    else {
        return None;
    };
    let seed = first.summary.seed;
    if a.get(RECIPE_KEY) != b.get(RECIPE_KEY) {
        return Some(format!("trained by another recipe than seed {seed}{}", settings(s, t)));
    }
    let shards = key(input::SHARDS);
    (a.get(&shards) != b.get(&shards)).then(|| format!("trained on other images than seed {seed}"))
}

/// How settings differ, in words.
fn settings(first: &Map<String, Value>, other: &Map<String, Value>) -> String {
    let differ = other.iter().filter(|(key, value)| first.get(*key) != Some(value));
    let words = differ.map(|(key, value)| match first.get(key) {
        Some(old) => format!("{key} {value} in place of {old}"),
        None => format!("{key} {value}"),
    });
    let words: Vec<_> = words.take(NAMED).collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) }
}

/// All evaluations are of the same images, in the same views within a row.
fn as_evaluated(first: &Run, run: &Run) -> Option<String> {
    let differs = |key: &str| run.lineage.get(key) != first.lineage.get(key);
    if differs(&key(input::SHARDS)) || differs(&key(input::LABELLED)) {
        return Some(format!("evaluated on other images than {}", name(first)));
    }
    let views = run.row == first.row && differs(RECIPE_KEY);
    views.then(|| format!("evaluated in other views than {}", name(first)))
}

fn by_the_same_program(first: &Run, run: &Run) -> Option<String> {
    let versions =
        |run: &Run| [run.lineage.get(VERSION_KEY), trained_by(run)].map(Option::<&String>::cloned);
    let pairs = versions(run).into_iter().zip(versions(first));
    // Of which both are known.
    if pairs.filter_map(|(a, b)| Some(a? != b?)).any(|differ| differ) {
        return Some(format!("made by another version than {}", name(first)));
    }
    let known = !run.commits.is_empty() && !first.commits.is_empty();
    (known && run.commits != first.commits).then(|| {
        let [these, those] = [run, first].map(|run| run.commits.join(" and "));
        format!("made by commit {these}, {} by {those}", name(first))
    })
}

/// The version of the program that trained the model, where that is known.
fn trained_by(run: &Run) -> Option<&String> {
    match &run.model {
        Model::There { header, .. } => header.get(VERSION_KEY),
        _ => None,
    }
}

fn name(run: &Run) -> String {
    format!("seed {} of {}", run.summary.seed, run.row)
}

fn key(input: &str) -> String {
    format!("{INPUT_PREFIX}{input}")
}
