//! Parts of a run: the part to make, its share of the whole, and its output beside the output of the whole
//! as `<out>.part-I-of-N`.

use crate::artifact::{self, beside};
use crate::cli;
use crate::error::{Error, Result};
use crate::schema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

/// Number of a part of a run, from 1, and how many parts the run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part(pub usize, pub usize);

impl Part {
    /// A run that is not cut into parts.
    pub const WHOLE: Part = Part(1, 1);

    /// The share of `all` for this part. The shares of consecutive parts are adjacent.
    pub fn of<T>(self, all: &[T]) -> &[T] {
        let Part(part, parts) = self;
        let end = |part| part * all.len() / parts;
        &all[end(part - 1)..end(part)]
    }

    /// The path of this part of `out`.
    pub fn path(self, out: &Path) -> PathBuf {
        beside(out, &format!("{}{}{OF}{}", schema::PART, self.0, self.1))
    }

    /// The part in a name, `<out>.part-I-of-N` for an output with the name `out`.
    fn of_name(name: &str, out: &str) -> Option<Part> {
        let numbers = name.strip_prefix(out)?.strip_prefix(schema::PART)?;
        let (part, parts) = numbers.split_once(OF)?;
        let part = Part(part.parse().ok()?, parts.parse().ok()?);
        (1..=part.1).contains(&part.0).then_some(part)
    }

    /// The part of this task in a Slurm array. The array may have no gaps. `variable` reads the
    /// environment.
    fn of_array(variable: impl Fn(&str) -> Option<String>) -> std::result::Result<Part, String> {
        let number = |name: &str| {
            let text = variable(name).ok_or(format!("{name} is not set: this is no array job"))?;
            text.parse::<usize>().map_err(|_| format!("{name} is {text:?}"))
        };
        let (task, first) = (number("SLURM_ARRAY_TASK_ID")?, number("SLURM_ARRAY_TASK_MIN")?);
        let tasks = number("SLURM_ARRAY_TASK_COUNT")?;
        let last = number("SLURM_ARRAY_TASK_MAX").unwrap_or(first + tasks.max(1) - 1);
        match (first..first + tasks).contains(&task) && last + 1 == first + tasks {
            true => Ok(Part(task - first + 1, tasks)),
            false => Err(format!(
                "the array has {tasks} tasks from {first} to {last}, with gaps; number them without, or \
                 give I/N"
            )),
        }
    }
}

/// Options of the stages whose output can be made in parts.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Make part I of N, counted from 1; auto: the part of this Slurm array task
    #[arg(long, value_name = "I/N", conflicts_with = "merge")]
    pub part: Option<Part>,
    /// Join the parts of --out
    #[arg(long, conflicts_with_all = OF_MAKING)]
    pub merge: bool,
}

/// Options for making a part, which `--merge` does not obey. `--model` is absent, because it may come from
/// the environment.
const OF_MAKING: [&str; 8] =
    ["path", "labelled", "split", "file", "set", "value", "device", "dry_run"];

/// Between the two numbers in a name.
const OF: &str = "-of-";

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

impl FromStr for Part {
    type Err = String;

    /// From `I/N`, or from `auto` in a task of a Slurm array.
    fn from_str(text: &str) -> std::result::Result<Part, String> {
        if text == "auto" {
            return Part::of_array(|name| std::env::var(name).ok());
        }
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) => Ok(Part(part, parts)),
            _ => Err("expected I/N with I from 1 to N, as 3/8, or auto".to_string()),
        }
    }
}

/// The existing parts of `out`, sorted by name. `is_one`: whether the path is a part.
pub fn found(out: &Path, is_one: impl Fn(&Path) -> Result<bool>) -> Result<Vec<(PathBuf, Part)>> {
    let named = beside(out, "");
    let folder = named.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let out_name = named.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        let part = Part::of_name(&name.to_string_lossy(), &out_name);
        let part = part.map(|part| (part.path(out), part));
        if let Some((path, part)) = part.filter(|(path, _)| path.file_name() == Some(&name))
            && is_one(&path)?
        {
            found.push((path, part));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// The paths of the parts of `out` with their numbers, in order. `is_one` as in `found`; `tool` makes the
/// parts.
///
/// Errors: `Missing` if a part is missing, `BadData` if there are parts of another number of parts.
pub fn all(
    out: &Path,
    tool: &str,
    is_one: impl Fn(&Path) -> Result<bool>,
) -> Result<Vec<(PathBuf, Part)>> {
    let missing = |part: &Path| {
        let hint = format!("run {tool} --part I/N for it, with the same --out");
        Error::missing(part, "part", hint)
    };
    let found = found(out, is_one)?;
    let (first, Part(_, parts)) = found.first().ok_or_else(|| missing(&Part(1, 2).path(out)))?;
    if found.len() > *parts {
        return Err(Error::bad_data(
            first,
            format!("{parts} parts"),
            format!("{}", found.len()),
            "remove the parts that were made with another N",
        ));
    }
    let all: Vec<_> = (1..=*parts).map(|i| Part(i, *parts)).map(|p| (p.path(out), p)).collect();
    match all.iter().find(|part| !found.contains(part)) {
        Some((path, _)) => Err(missing(path)),
        None => Ok(all),
    }
}

/// Finishes the joining of the parts of `out`: writes the provenance with those of all parts, and removes
/// the parts by `remove`. `again`: `out` was joined earlier, and an existing provenance stays. The next
/// merge removes what cannot be removed now.
pub fn joined(
    out: &Path,
    start: Instant,
    parts: &[PathBuf],
    again: bool,
    remove: impl Fn(&Path) -> Result<()>,
) {
    if !again || !parts.is_empty() && !beside(out, schema::PROVENANCE).exists() {
        artifact::write_provenance_of_parts(out, start, parts);
    }
    for part in parts {
        match remove(part) {
            Ok(()) => drop(std::fs::remove_file(beside(part, schema::PROVENANCE))),
            Err(e) => cli::warn(&format!("{e}; the next --merge removes it")),
        }
    }
}

/// The error for a part that is not of the same run as the first part.
pub fn another(part: &Path, first: &Path) -> Error {
    Error::bad_data(
        part,
        format!("a part of the same run as {}", first.display()),
        "a part of another run",
        "make all parts from the same input with the same settings",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_of_an_array_has_the_part_of_its_place() {
        let part = |task: &str, first: &str, last: &str, tasks: &str| {
            Part::of_array(|name| {
                let (_, name) = name.rsplit_once('_')?;
                let values = [("ID", task), ("MIN", first), ("MAX", last), ("COUNT", tasks)];
                values.iter().find(|v| v.0 == name).map(|v| v.1.to_string())
            })
        };
        assert_eq!(part("0", "0", "7", "8"), Ok(Part(1, 8)));
        assert_eq!(part("10", "3", "10", "8"), Ok(Part(8, 8)));
        assert_eq!(part("5", "5", "5", "1"), Ok(Part::WHOLE));
        for (task, first, last, tasks) in [("2", "0", "6", "4"), ("9", "1", "9", "3")] {
            assert!(part(task, first, last, tasks).unwrap_err().contains("gaps"), "{task}");
        }
        assert!(part("x", "0", "7", "8").unwrap_err().contains("SLURM_ARRAY_TASK_ID is \"x\""));
        assert!(Part::of_array(|_| None).unwrap_err().contains("no array job"));
    }

    #[test]
    fn a_part_is_known_by_its_name() {
        assert_eq!(Part(2, 8).path(Path::new("a/shards/")), Path::new("a/shards.part-2-of-8"));
        let part = |name| Part::of_name(name, "shards");
        assert_eq!(part("shards.part-2-of-8"), Some(Part(2, 8)));
        let others =
            ["shards.part-9-of-8", "shards.part-2-of-8.partial", "shards.partial", "part-2-of-8"];
        others.into_iter().for_each(|name| assert_eq!(part(name), None, "{name}"));
    }
}
