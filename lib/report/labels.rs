//! How many known labels a model was trained on. A model stores the hash of its table of labels, not the
//! rows. The rows are in the table itself, if it is in the folder of a run or in a folder above. Pseudo
//! labels store the hash of the labelled set that they were made with.

use super::runs::{Found, Run, place};
use crate::artifact;
use crate::error::{Error, Result};
use crate::schema::{self, input};
use crate::tables::table;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Sets the number of labels of each run, and adds the tables it comes from to the files read.
pub fn count(found: &mut Found) -> Result<()> {
    let tables = find(&found.root, &found.runs)?;
    give(&mut found.runs, &tables);
    let hashes = tables.into_iter().map(|table| (place(&found.root, &table.path), table.hash));
    found.hashes.extend(hashes);
    Ok(())
}

/// A table on which a model was trained, or with which its labels were made.
struct LabelTable {
    path: PathBuf,
    hash: String,
    known: Known,
}

/// The known labels of a table.
enum Known {
    /// All rows of the table.
    Rows(u64),
    /// The known labels of the table with this hash.
    Of(String),
}

/// The tables of labels of `runs`, in the folders of the runs and the folders above, up to `root`.
fn find(root: &Path, runs: &[Run]) -> Result<Vec<LabelTable>> {
    let above = |run: &Run| -> Vec<PathBuf> {
        let folders = run.path.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
        folders.map(Path::to_path_buf).collect()
    };
    let folders: BTreeSet<PathBuf> = runs.iter().flat_map(above).collect();
    let mut tables = Vec::new();
    for folder in folders {
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            // Only a file whose footer says that it is a table of labels is read whole.
            if let Some(known) = known(&path) {
                tables.push(LabelTable { hash: artifact::hash_file(&path)?, path, known });
            }
        }
    }
    let mut wanted: BTreeSet<String> =
        runs.iter().filter_map(|run| input_of(run, input::LABELS)).cloned().collect();
    let made_with = tables.iter().filter_map(|table| match &table.known {
        Known::Of(labelled) if wanted.contains(&table.hash) => Some(labelled.clone()),
        _ => None,
    });
    let made_with: Vec<String> = made_with.collect();
    wanted.extend(made_with);
    tables.retain(|table| wanted.contains(&table.hash));
    Ok(tables)
}

/// `None` for a file that is no table of labels.
fn known(path: &Path) -> Option<Known> {
    if path.extension().is_none_or(|ending| ending != "parquet") {
        return None;
    }
    let (pairs, columns, rows) = table::claims(path)?;
    let labelled = || pairs.get(&format!("{}{}", schema::INPUT_PREFIX, input::LABELLED));
    match columns.iter().any(|column| column == schema::KNOWN) {
        true => Some(Known::Of(labelled()?.clone())),
        false => (columns == [schema::KEY, schema::LABEL]).then_some(Known::Rows(rows)),
    }
}

/// The labels of a run are its own, or those of the model from which it was initialized.
fn give(runs: &mut [Run], tables: &[LabelTable]) {
    let known: HashMap<&str, &Known> = tables.iter().map(|t| (&*t.hash, &t.known)).collect();
    let rows = |hash: &String| match known.get(&**hash)? {
        Known::Rows(rows) => Some(*rows),
        Known::Of(labelled) => match known.get(&**labelled)? {
            Known::Rows(rows) => Some(*rows),
            Known::Of(_) => None,
        },
    };
    let mut of_models: BTreeMap<String, u64> = BTreeMap::new();
    // Each round adds at least one model, or is the last.
    loop {
        let before = of_models.len();
        for run in runs.iter_mut() {
            let init = || of_models.get(input_of(run, input::INIT)?).copied();
            let labels = input_of(run, input::LABELS).and_then(rows).or_else(init);
            run.labels = labels;
            if let (Some(model), Some(labels)) = (&run.model, run.labels) {
                of_models.insert(model.hash.clone(), labels);
            }
        }
        if of_models.len() == before {
            return;
        }
    }
}

fn input_of<'a>(run: &'a Run, name: &str) -> Option<&'a String> {
    run.model.as_ref()?.header.get(&format!("{}{name}", schema::INPUT_PREFIX))
}
