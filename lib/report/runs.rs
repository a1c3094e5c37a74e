//! The evaluated runs below a folder.

use super::outcomes::Outcomes;
use crate::artifact;
use crate::error::{Error, Result};
use crate::evaluate::metrics::EvalSummary;
use crate::model::folder;
use crate::schema::{self, EVAL, SUMMARY_KEY};
use crate::tables::table::{self, Table};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Add;
use std::path::{Path, PathBuf};

/// One evaluated model.
pub struct Run {
    /// Name of the folder that holds `eval.parquet`.
    pub row: String,
    pub path: PathBuf,
    /// The path relative to the folder that was searched.
    pub place: String,
    pub summary: EvalSummary,
    pub outcomes: Outcomes,
    /// Per image, whether it was classified correctly.
    pub right: Vec<bool>,
    /// Footer of `eval.parquet`, without the summary.
    pub lineage: BTreeMap<String, String>,
    /// The model beside it, if there is one.
    pub model: Option<Model>,
    /// The commits from which the programs of both were built, as far as known.
    pub commits: Vec<String>,
    /// Learning curves of the model beside it, name → (step, value); empty if there are none.
    pub curves: BTreeMap<String, Vec<(i64, f64)>>,
    /// How many known labels the model was trained on, if `labels::count` has found the number.
    pub labels: Option<u64>,
    /// The images seen in training, if `budget::count` has found the numbers.
    pub budget: Option<Budget>,
}

/// Images seen in the steps of a training, and in the trainings of the models that it was initialized from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Images with a label, known or pseudo.
    pub labelled: u64,
    /// All images of the main passes; each view counts as one. VAT's further passes are not counted.
    pub seen: u64,
}

impl Add for Budget {
    type Output = Budget;

    fn add(self, other: Budget) -> Budget {
        Budget { labelled: self.labelled + other.labelled, seen: self.seen + other.seen }
    }
}

/// A model as its folder describes it.
pub struct Model {
    /// Hash of the weights.
    pub hash: String,
    pub header: HashMap<String, String>,
    pub settings: Map<String, Value>,
    /// Channels of its images, if the configuration has them.
    pub channels: Option<usize>,
}

/// The runs below a folder, and the hash of each file that was read, by path relative to it.
pub struct Found {
    pub root: PathBuf,
    pub runs: Vec<Run>,
    pub hashes: BTreeMap<String, String>,
}

/// Reads every `eval.parquet` below `folder` with the metrics of the model beside it.
pub fn find(folder: &Path) -> Result<Found> {
    let hint = "s4l-eval makes the eval.parquet files that --in is searched for";
    // Resolved, because the row of `--in .` is named after the folder.
    let root = folder.canonicalize().map_err(|_| Error::missing(folder, "folder", hint))?;
    let mut found = Found { root: root.clone(), runs: Vec::new(), hashes: BTreeMap::new() };
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::io(folder)(e.into()))?;
        let path = entry.path();
        if entry.file_name() != EVAL || !path.metadata().map_err(Error::io(path))?.is_file() {
            continue;
        }
        let (run, hashes) = read(&root, entry.path())?;
        for (path, hash) in hashes {
            found.hashes.insert(place(&root, &path), hash);
        }
        found.runs.push(run);
    }
    if found.runs.is_empty() {
        return Err(Error::missing(folder, EVAL, hint));
    }
    comparable(&found.runs)?;
    Ok(found)
}

/// A path relative to the folder that was searched.
pub fn place(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

/// The folder of the model beside an evaluation.
pub fn model_of(eval: &Path) -> PathBuf {
    eval.with_file_name(schema::MODEL)
}

/// A run, and the hash of each file that was read for it.
fn read(root: &Path, path: &Path) -> Result<(Run, Vec<(PathBuf, String)>)> {
    let mut table = table::read(path, "s4l-eval")?;
    let mut hashes = vec![(path.to_path_buf(), table.hash.clone())];
    let hint = "make it again with s4l-eval";
    let summary = table.metadata.remove(SUMMARY_KEY).ok_or_else(|| {
        let expected = format!("{SUMMARY_KEY} in the footer");
        Error::bad_data(path, expected, "none", hint)
    })?;
    let summary: EvalSummary = serde_json::from_str(&summary).map_err(|e| {
        let expected = format!("the summary of an evaluation under {SUMMARY_KEY}");
        Error::bad_data(path, expected, e.to_string(), hint)
    })?;
    let folder = model_of(path);
    let model = model(&folder)?;
    if let Some(model) = &model {
        hashes.push((folder.join(schema::WEIGHTS), model.hash.clone()));
    }
    let metrics = folder.join(schema::METRICS);
    let mut curves = BTreeMap::new();
    if artifact::exists(&metrics)? {
        let table = table::read(&metrics, "s4l-pretrain")?;
        curves = points(&table)?;
        hashes.push((metrics, table.hash));
    }
    let row = path.parent().and_then(Path::file_name);
    let (outcomes, right) = Outcomes::read(&table, &summary.unrotated)?;
    let run = Run {
        row: row.map_or_else(|| summary.row.clone(), |name| name.to_string_lossy().into_owned()),
        path: path.to_path_buf(),
        place: place(root, path),
        outcomes,
        right,
        summary,
        lineage: table
            .metadata
            .into_iter()
            .filter(|(key, _)| key.starts_with(schema::METADATA_PREFIX))
            .collect(),
        model,
        commits: commits(path),
        curves,
        labels: None,
        budget: None,
    };
    Ok((run, hashes))
}

fn model(path: &Path) -> Result<Option<Model>> {
    if !artifact::exists(&path.join(schema::WEIGHTS))? {
        return Ok(None);
    }
    let described = folder::describe(path)?;
    let config: Value = serde_json::from_slice(&described.config).unwrap_or_default();
    let channels = config.pointer("/architecture/channels").and_then(Value::as_u64);
    let settings = config.get("settings").and_then(Value::as_object);
    let settings = settings.cloned().unwrap_or_default();
    let channels = channels.map(|channels| channels as usize);
    Ok(Some(Model { hash: described.hash, header: described.metadata, settings, channels }))
}

/// The commits in the provenance of an evaluation and its model, each once.
fn commits(eval: &Path) -> Vec<String> {
    let commit = |path: PathBuf| {
        let record = artifact::provenance_of(&path)?;
        record.get(schema::COMMIT)?.as_str().map(str::to_string)
    };
    let found = [eval.to_path_buf(), model_of(eval)].into_iter().filter_map(commit);
    found.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The points of each curve, by name.
fn points(metrics: &Table) -> Result<BTreeMap<String, Vec<(i64, f64)>>> {
    let mut curves: BTreeMap<String, Vec<(i64, f64)>> = BTreeMap::new();
    let steps = metrics.ints(schema::STEP)?;
    let points = steps.into_iter().zip(metrics.doubles(schema::VALUE)?);
    for (name, point) in metrics.strings(schema::NAME)?.into_iter().zip(points) {
        curves.entry(name).or_default().push(point);
    }
    Ok(curves)
}

/// A table needs runs over the same images and classes, and each row and seed only once: any other mean
/// would have no meaning.
fn comparable(runs: &[Run]) -> Result<()> {
    let hint = "name a folder of comparable runs with --in";
    let first = &runs[0];
    let mut seen = HashMap::new();
    for run in runs {
        if what_was_evaluated(run) != what_was_evaluated(first) {
            let s = |r: &Run| {
                let s = &r.summary;
                let (images, classes) = (s.unrotated.images, s.unrotated.per_class.len());
                format!("{} images of split {} in {classes} classes", images, s.split)
            };
            let expected =
                format!("the images and classes of {}, {}", first.path.display(), s(first));
            return Err(Error::bad_data(&run.path, expected, s(run), hint));
        }
        let key = (&run.row, run.summary.seed);
        if let Some(other) = seen.insert(key, &run.path) {
            let expected = format!("one run of row {} with seed {}", key.0, key.1);
            let found = format!("a second one in {}", other.display());
            return Err(Error::bad_data(&run.path, expected, found, hint));
        }
    }
    Ok(())
}

fn what_was_evaluated(run: &Run) -> (&str, Vec<(&str, u64)>) {
    let classes = &run.summary.unrotated.per_class;
    let classes = classes.iter().map(|c| (c.name.as_str(), c.images));
    (&run.summary.split, classes.collect())
}
