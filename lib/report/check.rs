//! Checks that the runs of a table belong together, by the lineage in their files.

use super::rows::TableRow;
use super::runs::Run;
use crate::schema::{INPUT_PREFIX, RECIPE_KEY, VERSION_KEY, input};
use serde_json::{Map, Value};

/// Most settings that a note lists.
const NAMED: usize = 4;

/// Adds notes to the rows that do not belong together: an evaluation of another model than the one beside
/// it, runs of a row with other recipes or views, rows with other images or programs.
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
                add(in_the_same_views(runs[0], run));
            }
            if run.path != first.path {
                add(as_evaluated(first, run));
                add(by_the_same_program(first, run));
            }
        }
    }
}

/// An evaluation must be of the model beside it.
fn of_its_model(run: &Run) -> Option<String> {
    let evaluated = run.lineage.get(&key(input::MODEL))?;
    let hash = &run.model.as_ref()?.hash;
    (hash != evaluated).then(|| {
        format!("eval.parquet is of model {evaluated}, but {hash} lies beside it; evaluate again")
    })
}

/// The runs of a row may differ only in seed and labels.
fn as_trained(first: &Run, run: &Run) -> Option<String> {
    let (one, other) = (first.model.as_ref()?, run.model.as_ref()?);
    let seed = first.summary.seed;
    if one.header.get(RECIPE_KEY) != other.header.get(RECIPE_KEY) {
        let differ = settings(&one.settings, &other.settings);
        return Some(format!("trained by another recipe than seed {seed}{differ}"));
    }
    let shards = key(input::SHARDS);
    (one.header.get(&shards) != other.header.get(&shards))
        .then(|| format!("trained on other images than seed {seed}"))
}

/// How settings differ, as text.
fn settings(first: &Map<String, Value>, other: &Map<String, Value>) -> String {
    let differ = other.iter().filter(|(key, value)| first.get(*key) != Some(value));
    let words = differ.map(|(key, value)| match first.get(key) {
        Some(old) => format!("{key} {value} in place of {old}"),
        None => format!("{key} {value}"),
    });
    let words: Vec<_> = words.take(NAMED).collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) }
}

/// The evaluations of a row must be in the same views.
fn in_the_same_views(first: &Run, run: &Run) -> Option<String> {
    let differ = run.lineage.get(RECIPE_KEY) != first.lineage.get(RECIPE_KEY);
    differ.then(|| format!("evaluated in other views than seed {}", first.summary.seed))
}

/// All evaluations must be on the same images.
fn as_evaluated(first: &Run, run: &Run) -> Option<String> {
    let keys = [input::SHARDS, input::LABELLED].map(key);
    let differ = keys.iter().any(|key| run.lineage.get(key) != first.lineage.get(key));
    differ.then(|| format!("evaluated on other images than {}", name(first)))
}

fn by_the_same_program(first: &Run, run: &Run) -> Option<String> {
    let versions =
        |run: &Run| [run.lineage.get(VERSION_KEY), trained_by(run)].map(Option::<&String>::cloned);
    let pairs = versions(run).into_iter().zip(versions(first));
    // Only versions known for both runs are compared.
    let differ = pairs.filter_map(|(a, b)| Some(a? != b?)).any(|differ| differ);
    differ.then(|| format!("made by another version than {}", name(first)))
}

/// Runs whose programs were built from another commit than those of the first run. Commits are only in the
/// provenance files, on which no output may depend, so this is not a note of a row.
pub fn commits(rows: &[TableRow]) -> Vec<String> {
    let runs = rows.iter().flat_map(|row| row.runs.iter().map(move |run| (row.title, *run)));
    let mut known = runs.filter(|(_, run)| !run.commits.is_empty());
    let Some((_, first)) = known.next() else {
        return Vec::new();
    };
    let others = known.filter(|(_, run)| run.commits != first.commits);
    let words = others.map(|(title, run)| {
        let [these, those] = [run, first].map(|run| run.commits.join(" and "));
        let seed = run.summary.seed;
        format!("{title}: seed {seed}: made by commit {these}, {} by {those}", name(first))
    });
    words.collect()
}

/// The version of the program that trained the model, if known.
fn trained_by(run: &Run) -> Option<&String> {
    run.model.as_ref()?.header.get(VERSION_KEY)
}

fn name(run: &Run) -> String {
    format!("seed {} of {}", run.summary.seed, run.row)
}

fn key(input: &str) -> String {
    format!("{INPUT_PREFIX}{input}")
}
