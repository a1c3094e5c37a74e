//! An unfinished table with one row per image, `<out>.partial/`: its rows in pieces of 256, each a table
//! itself. A run that was stopped or killed continues with the missing pieces. A part of a run makes such a
//! table too, with more rows; parts are joined in the same way as pieces.
//!
//! The footer of a piece or part tells its rows: it has the lineage of the whole table and `s4l.part`.

use super::table::{self, Pairs};
use crate::artifact::{self, Target, beside};
use crate::cli::{self, Output};
use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::lock::Lock;
use crate::part::{self, Part};
use crate::schema::{self, ABOUT_KEY, FORMAT_KEY, HASH_KEY, PART_KEY, TOOL_KEY};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use parquet::arrow::ARROW_SCHEMA_META_KEY;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Rows of a piece: a killed run loses fewer rows than this.
const PIECE_ROWS: usize = 256;

/// Some rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    /// Number among all pieces.
    place: Part,
    rows: Range<usize>,
}

/// The state in which a run finds its output.
pub enum Begun<T> {
    /// Nothing is to be done; the footer of the existing table or part.
    UpToDate(Pairs),
    Open(T),
}

/// The output of a run: a table, or one part of it.
pub struct Making {
    out: PathBuf,
    goal: PathBuf,
    /// Of the pieces. The table may have only the first of these columns.
    schema: Arc<Schema>,
    lineage: Lineage,
    part: Option<Part>,
    pieces: Vec<Piece>,
}

/// The finished pieces of an output.
pub struct Pieces {
    _lock: Lock,
    making: Making,
    finished: BTreeSet<usize>,
}

impl Making {
    /// For a table of `rows` rows at `out`: one part of it, or the whole.
    pub fn new(
        out: &Path,
        schema: Arc<Schema>,
        lineage: &Lineage,
        rows: usize,
        part: Option<Part>,
    ) -> Making {
        let pieces = rows.div_ceil(PIECE_ROWS);
        let pieces: Vec<Piece> = (1..=pieces)
            .map(|nth| Piece {
                place: Part(nth, pieces),
                rows: (nth - 1) * PIECE_ROWS..rows.min(nth * PIECE_ROWS),
            })
            .collect();
        Making {
            out: out.to_path_buf(),
            goal: part.map_or(out.to_path_buf(), |part| part.path(out)),
            schema,
            lineage: lineage.clone(),
            part,
            pieces: part.unwrap_or(Part::WHOLE).of(&pieces).to_vec(),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(|piece| piece.rows.len()).sum()
    }

    /// Locks the output and finds what exists of it. If the whole table exists, a part of it is up to date.
    ///
    /// Errors: as `artifact::target`, and `NotOurs` for a folder with a file that is no piece.
    pub fn begin(self, output: &Output) -> Result<Begun<Pieces>> {
        let tool = self.lineage.tool;
        if self.part.is_some()
            && !output.force
            && let Some(found) = table::output(&self.out, tool)?
            && self.lineage.difference(&found).is_empty()
        {
            cli::up_to_date(&self.out);
            return Ok(Begun::UpToDate(found));
        }
        let lock = Lock::of(&self.goal, output.update)?;
        let found = table::output(&self.goal, tool)?;
        let footer = found.clone().unwrap_or_default();
        if artifact::target(output, &self.goal, &self.lineage, found)? == Target::UpToDate {
            remove_left_over(&self.goal, tool, Some(&self.lineage));
            return Ok(Begun::UpToDate(footer));
        }
        self.open(lock).map(Begun::Open)
    }

    /// Finds the pieces that earlier runs finished; removes damaged pieces and pieces of another table.
    fn open(self, lock: Lock) -> Result<Pieces> {
        let mut finished = BTreeSet::new();
        for (path, nth) in there(&root(&self.goal))? {
            let found = table::output(&path, self.lineage.tool)?;
            let piece = self.pieces.iter().find(|piece| piece.place.0 == nth);
            let wanted = piece.map(|piece| of_part(self.lineage.metadata(), piece.place));
            match found.and_then(own) {
                found if found.is_some() && found == wanted => {
                    finished.insert(nth);
                }
                _ => std::fs::remove_file(&path).map_err(Error::io(&path))?,
            }
        }
        Ok(Pieces { _lock: lock, making: self, finished })
    }
}

impl Pieces {
    /// The path of the finished table or part.
    pub fn goal(&self) -> &Path {
        &self.making.goal
    }

    fn missing(&self) -> Vec<Piece> {
        let pieces = self.making.pieces.iter();
        pieces.filter(|piece| !self.finished.contains(&piece.place.0)).cloned().collect()
    }

    /// Number of rows still to make.
    pub fn missing_rows(&self) -> usize {
        self.missing().iter().map(|piece| piece.rows.len()).sum()
    }

    /// Makes each missing piece, from the columns of its rows, and keeps it.
    ///
    /// Errors: `Paused` if the run was stopped and pieces are kept.
    pub fn make(
        &mut self,
        mut columns: impl FnMut(Range<usize>) -> Result<Vec<ArrayRef>>,
    ) -> Result<()> {
        for piece in self.missing() {
            let put = columns(piece.rows.clone()).and_then(|columns| self.put(&piece, columns));
            put.map_err(|e| self.leave(e))?;
        }
        Ok(())
    }

    fn put(&mut self, piece: &Piece, columns: Vec<ArrayRef>) -> Result<()> {
        let Making { lineage, schema, .. } = &self.making;
        let place = BTreeMap::from([(PART_KEY.to_string(), piece.place.to_string())]);
        table::write(&self.path(piece), schema.clone(), columns, lineage, place)?;
        self.finished.insert(piece.place.0);
        Ok(())
    }

    fn path(&self, piece: &Piece) -> PathBuf {
        root(&self.making.goal).join(schema::piece_file(piece.place.0))
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.making.pieces.iter().map(|piece| self.path(piece)).collect()
    }

    /// Leaves the pieces for a later run. The error says so if this run was stopped.
    fn leave(&self, error: Error) -> Error {
        let Making { goal, pieces, .. } = &self.making;
        let done = pieces.iter().filter(|piece| self.finished.contains(&piece.place.0));
        let done: usize = done.map(|piece| piece.rows.len()).sum();
        if done == 0 {
            // An error does no harm: the next run starts with this folder.
            let _ = std::fs::remove_dir(root(goal));
        }
        match error {
            Error::Interrupted { .. } if done == 0 => Error::Interrupted { path: goal.clone() },
            Error::Interrupted { .. } => Error::Paused {
                path: goal.clone(),
                done,
                total: self.making.rows(),
                what: "images",
            },
            error => error,
        }
    }

    /// Calls `look` with all rows, in order.
    pub fn each(&self, look: impl FnMut(&RecordBatch)) -> Result<()> {
        table::each(&self.paths(), self.making.lineage.tool, look)
    }

    /// Joins all pieces into the output, a table with the columns of `schema` and `more` in its footer,
    /// then removes the pieces.
    pub fn commit(
        self,
        schema: Arc<Schema>,
        more: Option<(&str, String)>,
        start: Instant,
    ) -> Result<()> {
        let Making { goal, lineage, part, .. } = &self.making;
        let pairs = match part {
            None => lineage.metadata(),
            Some(part) => of_part(lineage.metadata(), *part),
        };
        table::join(goal, schema, footer(pairs, more), &self.paths(), lineage.tool)?;
        if let Err(e) = remove(&root(goal)) {
            cli::warn(&format!("{e}; the next run removes it"));
        }
        artifact::write_provenance(goal, start);
        Ok(())
    }
}

/// All parts of a table, of one run.
pub struct Parts {
    _lock: Lock,
    out: PathBuf,
    paths: Vec<PathBuf>,
    pairs: BTreeMap<String, String>,
    /// Of each part.
    pub schema: Arc<Schema>,
    pub lineage: Lineage,
    /// The value of `ABOUT_KEY` in each part.
    pub about: String,
}

impl Parts {
    /// Locks `out`, which `tool` makes, and opens its parts. If `out` was already joined from these parts,
    /// nothing is to be done.
    ///
    /// Errors: as `part::all` and `artifact::target`, and `BadData` if a part is damaged or of another run.
    pub fn begin(
        out: &Path,
        tool: &'static str,
        output: &Output,
        start: Instant,
    ) -> Result<Begun<Parts>> {
        let lock = Lock::of(out, output.update)?;
        let found = table::output(out, tool)?;
        // If a killed merge has already removed some parts, `out` cannot be made again from the rest.
        let again = output.force && part::all(out, tool, artifact::is_file).is_ok();
        if let Some(made) = found.as_ref().filter(|_| !again)
            && let Some(left) = left_of(out, tool, made)?
        {
            let pairs = made.clone().into_iter().collect();
            remove_left_over(out, tool, Some(&Lineage::of_metadata(tool, &pairs)));
            part::joined(out, start, &left, true, remove_part);
            cli::up_to_date(out);
            return Ok(Begun::UpToDate(made.clone()));
        }
        let parts = Parts::open(out, tool, lock)?;
        // Never up to date: `out` was not joined from these parts.
        artifact::target(output, out, &parts.lineage, found)?;
        Ok(Begun::Open(parts))
    }

    fn open(out: &Path, tool: &'static str, lock: Lock) -> Result<Parts> {
        let parts = part::all(out, tool, artifact::is_file)?;
        let first = &parts[0].0;
        let made_by = format!("{tool} --part");
        let (schema, pairs) = table::footer(first, &made_by)?;
        let mut pairs = own(pairs).unwrap_or_default();
        if pairs.get(TOOL_KEY).is_none_or(|made_by| made_by != tool) {
            let what = format!("a part that {tool} made");
            return Err(Error::NotOurs { path: first.clone(), what });
        }
        pairs.remove(PART_KEY);
        for (path, part) in &parts {
            let found = own(table::metadata(path, &made_by)?);
            if found != Some(of_part(pairs.clone(), *part)) {
                return Err(part::another(path, first));
            }
        }
        let about = pairs.remove(ABOUT_KEY).unwrap_or_default();
        let lineage = Lineage::of_metadata(tool, &pairs);
        let paths = parts.into_iter().map(|(path, _)| path).collect();
        Ok(Parts { _lock: lock, out: out.to_path_buf(), paths, pairs, schema, lineage, about })
    }

    /// Calls `look` with all rows, in order.
    pub fn each(&self, look: impl FnMut(&RecordBatch)) -> Result<()> {
        table::each(&self.paths, &self.made_by(), look)
    }

    /// Joins the parts into a table with the columns of `schema` and `more` in its footer, then removes the
    /// parts.
    pub fn join(
        self,
        schema: Arc<Schema>,
        more: Option<(&str, String)>,
        start: Instant,
    ) -> Result<()> {
        let Parts { out, paths, pairs, lineage, .. } = &self;
        table::join(out, schema, footer(pairs.clone(), more), paths, &self.made_by())?;
        remove_left_over(out, lineage.tool, None);
        let computed = artifact::instructions(paths);
        part::joined(out, start, paths, false, remove_part);
        if computed.len() > 1 {
            let with = computed.into_iter().collect::<Vec<_>>().join(" and ");
            let out = out.display();
            cli::warn(&format!(
                "{out}: parts computed with {with}: the bytes may differ from those of either"
            ));
        }
        Ok(())
    }

    fn made_by(&self) -> String {
        format!("{} --part", self.lineage.tool)
    }
}

/// The remaining parts of the table `out` of `tool`, whose footer is `made`. `None` if the table was not
/// joined from these parts.
fn left_of(out: &Path, tool: &'static str, made: &Pairs) -> Result<Option<Vec<PathBuf>>> {
    let mut left = Vec::new();
    for (path, _) in part::found(out, artifact::is_file)? {
        let found = table::output(&path, tool)?.and_then(own);
        let lineage = found.map(|pairs| Lineage::of_metadata(tool, &pairs));
        if lineage.is_none_or(|lineage| !lineage.difference(made).is_empty()) {
            return Ok(None);
        }
        left.push(path);
    }
    Ok(Some(left))
}

fn remove_part(part: &Path) -> Result<()> {
    std::fs::remove_file(part).map_err(Error::io(part))
}

/// The pairs of a footer, in order.
fn footer(pairs: BTreeMap<String, String>, more: Option<(&str, String)>) -> Vec<(String, String)> {
    let more = more.map(|(key, value)| (key.to_string(), value));
    pairs.into_iter().chain(more).collect()
}

/// Removes the remaining pieces of the output `goal`, of this lineage or (`None`) of any. Errors are
/// ignored. The caller has the lock of the output.
fn remove_left_over(goal: &Path, tool: &str, lineage: Option<&Lineage>) {
    let is_left = |(path, nth): &(PathBuf, usize)| match (table::output(path, tool), lineage) {
        (Err(_), _) => false,
        (Ok(_), None) => true,
        (Ok(found), Some(lineage)) => {
            let of_it = |mut found: BTreeMap<String, String>| {
                found.remove(PART_KEY);
                found == lineage.metadata()
            };
            *nth == UNFINISHED || found.and_then(own).is_some_and(of_it)
        }
    };
    let root = root(goal);
    if there(&root).is_ok_and(|there| there.iter().all(is_left)) {
        let _ = remove(&root);
    }
}

/// The folder with the pieces of an output.
fn root(goal: &Path) -> PathBuf {
    beside(goal, schema::PARTIAL)
}

/// The piece number that stands for a temporary file of a killed run.
const UNFINISHED: usize = 0;

/// The existing pieces with their numbers. Errors: `NotOurs` if the folder has another file.
fn there(root: &Path) -> Result<Vec<(PathBuf, usize)>> {
    let entries = match std::fs::read_dir(root) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(root))?,
    };
    let mut there = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(root))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (begin, end) = schema::TEMPORARY;
        let unfinished = name.starts_with(begin) && name.ends_with(end);
        let nth = if unfinished { Some(UNFINISHED) } else { schema::piece_of(&name) };
        let nth = nth.ok_or_else(|| Error::NotOurs {
            path: root.to_path_buf(),
            what: "a folder of pieces of an output".to_string(),
        })?;
        there.push((path, nth));
    }
    Ok(there)
}

/// Removes all pieces that `there` finds, and the folder.
fn remove(root: &Path) -> Result<()> {
    for (path, _) in there(root)? {
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    match std::fs::remove_dir(root) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(root)(e)),
        _ => Ok(()),
    }
}

/// The footer pairs of one part of a table with `pairs`.
fn of_part(mut pairs: BTreeMap<String, String>, part: Part) -> BTreeMap<String, String> {
    pairs.insert(PART_KEY.to_string(), part.to_string());
    pairs
}

/// The footer pairs that say what the table is; `None` if it has no hash.
fn own(mut pairs: Pairs) -> Option<BTreeMap<String, String>> {
    pairs.remove(HASH_KEY)?;
    pairs.retain(|key, _| key != FORMAT_KEY && key != ARROW_SCHEMA_META_KEY);
    Some(pairs.into_iter().collect())
}
