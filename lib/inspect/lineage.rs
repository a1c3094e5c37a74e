//! The lineage of an output: its inputs, their inputs in turn, and so on up to the images.
//!
//! A footer or header names the inputs and their hashes. The provenance file has the command, which names
//! the paths of the inputs. These paths are first taken relative to the output, which may have been moved
//! together with its inputs, then as they were.

use super::folder::verify_shards;
use crate::artifact::{self, beside};
use crate::cli::quoted;
use crate::error::{Error, Result};
use crate::evaluate::pictures;
use crate::input::{self, Columns, Format, Options};
use crate::labelled::rows::labels_hash;
use crate::model;
use crate::schema::{self, input as inputs};
use crate::shards::Shards;
use crate::tables::table;
use clap::ValueEnum;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

/// The tree of an output, each file once.
pub fn tree(path: &Path) -> Result<String> {
    Ok(walk(path, false)?.text)
}

/// Hashes all inputs of an output again, and their inputs. Errors: `BadData` for the first input that is
/// changed, missing or another one.
pub fn verify(path: &Path) -> Result<()> {
    let faults = walk(path, true)?.faults;
    let more = match faults.len() {
        0 | 1 => String::new(),
        n => format!("; {} more, see --lineage without --verify", n - 1),
    };
    let Some(Fault { path, expected, found }) = faults.into_iter().next() else {
        return Ok(());
    };
    let hint = format!("bring it back, or make again what was made from it{more}");
    Err(Error::bad_data(&path, expected, found, hint))
}

fn walk(path: &Path, verify: bool) -> Result<Walk> {
    let root = Made::open(path)?;
    let mut walk = Walk { verify, ..Walk::default() };
    if verify && root.is_shards() {
        verify_shards(&root.path)?;
    }
    walk.seen.insert(root.path.clone());
    walk.line(0, &shown(&root.path));
    walk.made(&root, 1);
    Ok(walk)
}

/// What is wrong with an input.
struct Fault {
    path: PathBuf,
    expected: String,
    found: String,
}

#[derive(Default)]
struct Walk {
    /// Whether shards and images are read completely.
    verify: bool,
    text: String,
    seen: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
}

impl Walk {
    fn line(&mut self, depth: usize, words: &str) {
        self.text += &format!("{}{words}\n", "  ".repeat(depth));
    }

    /// How an output was made, and its inputs.
    fn made(&mut self, made: &Made, depth: usize) {
        let value = |key: &str| made.metadata.get(key).map_or("unknown", String::as_str);
        let line = format!(
            "by {} {}, commit {}, seed {}, recipe {}",
            made.tool(),
            value(schema::VERSION_KEY),
            made.commit.as_deref().unwrap_or("unknown"),
            value(schema::SEED_KEY),
            value(schema::RECIPE_KEY),
        );
        self.line(depth, &line);
        match made.command.is_empty() {
            true => {
                let file = shown(&beside(&made.path, schema::PROVENANCE));
                self.line(depth, &format!("command unknown, there is no {file}"));
            }
            false => {
                let words: Vec<String> = made.command.iter().map(|word| quoted(word)).collect();
                self.line(depth, &format!("$ {}", words.join(" ")));
            }
        }
        let pairs = made.metadata.iter();
        let pairs =
            pairs.filter_map(|(k, hash)| Some((k.strip_prefix(schema::INPUT_PREFIX)?, hash)));
        pairs.for_each(|(name, hash)| self.input(made, name, hash, depth));
    }

    /// An input, and how it was made.
    fn input(&mut self, made: &Made, name: &str, hash: &str, depth: usize) {
        let expected = format!("{name} {hash}, which {} was made from", shown(&made.path));
        let Some(place) = made.place(name) else {
            self.line(depth, &format!("{name} {hash}: not found"));
            let found = "nothing where the command had it".to_string();
            self.faults.push(Fault { path: made.path.clone(), expected, found });
            return;
        };
        let line = format!("{name} {hash}: {}", shown(&place));
        if let Err(found) = self.check(made, name, hash, &place) {
            self.line(depth, &format!("{line}, CHANGED: {found}"));
            self.faults.push(Fault { path: place, expected, found });
            return;
        }
        let next = match is_read_from_shards(made, name) || name == inputs::IMAGES {
            true => None,
            // A file that no stage has made ends the chain.
            false => Made::open(&place).ok(),
        };
        match next {
            Some(next) if !self.seen.insert(next.path.clone()) => {
                self.line(depth, &format!("{line}, see above"));
            }
            Some(next) => {
                self.line(depth, &line);
                self.made(&next, depth + 1);
            }
            None => self.line(depth, &line),
        }
    }

    /// Errors with what was found instead of an input. Shards and images are read completely only to
    /// verify, and shards only once.
    fn check(
        &self,
        made: &Made,
        name: &str,
        hash: &str,
        place: &Path,
    ) -> std::result::Result<(), String> {
        let words = |e: Error| e.to_string();
        if name == inputs::SHARDS {
            let shards = Shards::open(place).map_err(words)?;
            let contents = shards.contents();
            if !contents.values().any(|content| *content == hash) {
                let splits = contents.iter().map(|(split, content)| format!("{split} {content}"));
                return Err(splits.collect::<Vec<_>>().join(", "));
            }
            return match self.verify && !self.seen.contains(place) {
                true => verify_shards(place).map_err(words),
                false => Ok(()),
            };
        }
        let found = match name {
            inputs::MODEL | inputs::INIT => artifact::hash_file(&place.join(schema::WEIGHTS)),
            inputs::IMAGES if self.verify => made.images(place),
            inputs::IMAGES => return Ok(()),
            _ if made.is_predictions() => pictures::hash(place),
            _ if is_read_from_shards(made, name) => match self.verify {
                true => made.labels_in(place),
                false => return Ok(()),
            },
            _ => artifact::hash_file(place),
        };
        let found = found.map_err(words)?;
        if found == hash { Ok(()) } else { Err(found) }
    }
}

/// The labels that s4l-subset and s4l-eval read are in the shards, not in a file.
fn is_read_from_shards(made: &Made, name: &str) -> bool {
    ["s4l-subset", "s4l-eval"].contains(&made.tool()) && name == inputs::LABELS
}

/// An output of a stage.
struct Made {
    /// The file, or the folder of shards, of a model or of a report.
    path: PathBuf,
    /// The metadata of the footer or header.
    metadata: BTreeMap<String, String>,
    command: Vec<String>,
    /// The options of the command that names the inputs.
    options: Vec<String>,
    /// The folder in which the command ran; empty if unknown.
    directory: PathBuf,
    commit: Option<String>,
}

impl Made {
    /// Errors: `BadData` if no stage has made the file.
    fn open(path: &Path) -> Result<Made> {
        let path = output(&std::path::absolute(path).map_err(Error::io(path))?);
        let made_by = "the stage of its name";
        let has = |name: &str| artifact::exists(&path.join(name));
        let metadata = if has(schema::DATASET_JSON)? {
            Shards::open(&path)?;
            Shards::lineage(&path)?.unwrap_or_default()
        } else if has(schema::WEIGHTS)? {
            model::folder::describe(&path)?.metadata
        } else if has(schema::ONNX_MODEL)? {
            model::onnx::read(&path)?.metadata
        } else {
            let folder = artifact::is_folder(&path)?;
            let table = if folder { path.join(schema::TABLE) } else { path.clone() };
            match artifact::is_file(&table)? {
                true => table::metadata(&table, made_by)?,
                false => HashMap::new(),
            }
        };
        if !metadata.contains_key(schema::TOOL_KEY) {
            let hint = "name what a stage has made";
            return Err(Error::bad_data(&path, "the lineage of an output", "none", hint));
        }
        let own = read(&beside(&path, schema::PROVENANCE));
        let command = words(&own);
        let merged = command.iter().any(|word| word == "--merge");
        // The command of a part names the inputs.
        let part = if merged { own[schema::PARTS][0].clone() } else { own.clone() };
        let text = |value: &Value, key: &str| value[key].as_str().map(str::to_string);
        Ok(Made {
            path,
            metadata: metadata.into_iter().collect(),
            command,
            options: words(&part),
            directory: text(&part, schema::DIRECTORY).unwrap_or_default().into(),
            commit: text(&own, schema::COMMIT),
        })
    }

    fn tool(&self) -> &str {
        self.metadata.get(schema::TOOL_KEY).map_or("", String::as_str)
    }

    fn is_predictions(&self) -> bool {
        self.tool() == "s4l-predict"
    }

    fn is_shards(&self) -> bool {
        is_there(&self.path.join(schema::DATASET_JSON))
    }

    /// The value of an option in the command.
    fn option(&self, name: &str) -> Option<&str> {
        let mut words = self.options.iter();
        words
            .by_ref()
            .find_map(|word| match word.strip_prefix(name)? {
                "" => Some(None),
                value => value.strip_prefix('=').map(Some),
            })?
            .or_else(|| words.next().map(String::as_str))
    }

    /// The present path of an input.
    fn place(&self, name: &str) -> Option<PathBuf> {
        if self.tool() == "s4l-report" {
            let folder = Path::new(self.option("--in").unwrap_or("runs"));
            return self.find(&folder.join(name));
        }
        if self.is_predictions() && name != inputs::MODEL {
            return self.find(Path::new(name));
        }
        let given = match name {
            inputs::SHARDS => self.option("--in").or(Some(schema::SHARDS)),
            inputs::LABELS if is_read_from_shards(self, name) => {
                self.option("--in").or(Some(schema::SHARDS))
            }
            inputs::IMAGES => self.option("--in"),
            inputs::LABELS => self.option("--labels").or_else(|| self.option("--labelled")),
            inputs::LABELLED => self.option("--labelled"),
            inputs::LIST => self.option("--list"),
            inputs::NESTED_IN => self.option("--nested-in"),
            inputs::VALIDATION => self.option("--val"),
            inputs::INIT => self.option("--init"),
            inputs::MODEL => self.option("--model").or(Some(schema::MODEL)),
            inputs::EVALUATION => self.option("--eval"),
            _ => None,
        };
        self.find(Path::new(given?))
    }

    /// The present path of a path in the command.
    fn find(&self, given: &Path) -> Option<PathBuf> {
        let name = Path::new(self.path.file_name()?);
        let outs = ["--val-out", "--out", "-o"].map(|option| self.option(option).map(Path::new));
        let mut outs = outs.into_iter().flatten();
        let out = outs.clone().find(|out| out.file_name() == Some(name.as_os_str()));
        let out = out.or(outs.next_back()).unwrap_or(name);
        let then = |path: &Path| normal(&self.directory.join(path));
        let moved = relative(&then(given), then(out).parent()?);
        let moved = moved.map(|way| normal(&self.path.with_file_name("").join(way)));
        let was = std::path::absolute(then(given)).ok();
        [moved, was].into_iter().flatten().find(|path| is_there(path))
    }

    /// The hash of the images, read with the options of the command.
    fn images(&self, place: &Path) -> Result<String> {
        let format = self.option("--format").map(|name| Format::from_str(name, false));
        let file = |option| self.option(option).and_then(|file| self.find(Path::new(file)));
        let (labels, classes) = (file("--labels"), file("--classes"));
        let text = |option| self.option(option).map(str::to_string);
        let options = Options {
            format: format.transpose().map_err(Error::Usage)?,
            labels: labels.as_deref(),
            classes: classes.as_deref(),
            columns: Columns { key: text("--key-column"), label: text("--label-column") },
            unlabelled: self.option("--unlabelled"),
        };
        input::open(place, &options)?.hash()
    }

    /// The hash of the labels in shards, for the split that the command reads.
    fn labels_in(&self, shards: &Path) -> Result<String> {
        let default = if self.tool() == "s4l-eval" { "test" } else { "train" };
        let split = self.option("--split").unwrap_or(default);
        labels_hash(&Shards::open(shards)?.split(split)?)
    }
}

/// The output at a path, or the output to which the file at the path belongs.
fn output(path: &Path) -> PathBuf {
    let of_report = [
        schema::TABLE,
        schema::TABLE_MD,
        schema::TABLE_CSV,
        schema::PAGE,
        schema::COST_CSV,
        schema::COST_PAGE,
    ];
    let is_part = |folder: &&Path| {
        path.is_file()
            && (is_there(&folder.join(schema::DATASET_JSON))
                || is_there(&folder.join(schema::WEIGHTS))
                || is_there(&folder.join(schema::ONNX_MODEL))
                || path.file_name().is_some_and(|name| of_report.iter().any(|part| name == *part)))
    };
    normal(path.parent().filter(is_part).unwrap_or(path))
}

/// A path that cannot be examined counts as existing: reading it gives the error.
fn is_there(path: &Path) -> bool {
    artifact::exists(path).unwrap_or(true)
}

/// A provenance file; null if there is none.
fn read(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn words(provenance: &Value) -> Vec<String> {
    let words = provenance[schema::COMMAND].as_array().into_iter().flatten();
    words.filter_map(|word| word.as_str().map(str::to_string)).collect()
}

/// A path without `.`, and without `..` as far as possible.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some() => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

/// The relative path from a folder to a path.
fn relative(to: &Path, from: &Path) -> Option<PathBuf> {
    if to.is_absolute() != from.is_absolute() {
        return None;
    }
    let same = to.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(same).map(|_| Component::ParentDir);
    Some(up.chain(to.components().skip(same)).collect())
}

/// Relative to the working directory if the path is inside it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_found_as_seen_from_the_output() {
        let way = |to: &str, from: &str| relative(Path::new(to), Path::new(from));
        assert_eq!(way("/a/shards", "/a/seed0/vat"), Some("../../shards".into()));
        assert_eq!(way("a/shards", "a"), Some("shards".into()));
        assert_eq!(way("/a/shards", "a"), None);
        assert_eq!(normal(Path::new("/a/./b/../c/")), Path::new("/a/c"));
        assert_eq!(normal(Path::new("../a/../..")), Path::new("../.."));
    }
}
