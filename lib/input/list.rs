//! Rows of a CSV file or of a text list: separated by commas, semicolons, tabs or runs of spaces, as its
//! lines require.

use super::names::without_bom;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A file of rows.
#[derive(Debug)]
pub struct List {
    path: PathBuf,
    /// `None` if a line is one field.
    delimiter: Option<u8>,
}

/// A row: the number of its line, from 1, and its fields.
pub type VisitRow<'a> = &'a mut dyn FnMut(u64, &[&str]) -> Result<()>;

impl List {
    /// Errors: `Missing`, `BadData` if it is no regular file.
    pub fn open(path: &Path) -> Result<List> {
        if path.exists() && !path.is_file() {
            return Err(Error::bad_data(
                path,
                "a file of names and labels",
                "no regular file",
                "write it to a file first",
            ));
        }
        let file = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::missing(path, "labels", "name a file of labels"),
            _ => Error::io(path)(e),
        })?;
        let mut start = Vec::new();
        file.take(1 << 16).read_to_end(&mut start).map_err(Error::io(path))?;
        let delimiter = delimiter(&String::from_utf8_lossy(&start));
        Ok(List { path: path.to_path_buf(), delimiter })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a line may be one field with spaces in it.
    pub fn may_be_lines(&self) -> bool {
        matches!(self.delimiter, None | Some(b' '))
    }

    /// Visits all rows except empty ones.
    ///
    /// Errors: those of `visit`, and `BadData` for a row that cannot be read.
    pub fn for_each(&self, visit: VisitRow) -> Result<()> {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.delimiter.unwrap_or(b','))
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_path(&self.path)
            .map_err(|e| self.bad(&e))?;
        let mut row = csv::StringRecord::new();
        while reader.read_record(&mut row).map_err(|e| self.bad(&e))? {
            let line = row.position().map_or(0, csv::Position::line);
            let fields = row.iter().map(|field| without_bom(field).trim());
            // Spaces align columns: a run of them is one.
            let fields: Vec<&str> = match self.delimiter {
                Some(b' ') => fields.filter(|field| !field.is_empty()).collect(),
                _ => fields.collect(),
            };
            if !fields.is_empty() {
                visit(line, &fields)?;
            }
        }
        Ok(())
    }

    /// The lines, each as one field, including empty ones.
    pub fn lines(&self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.path).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => self.bad(&e),
            _ => Error::io(&self.path)(e),
        })?;
        let lines = without_bom(&text).lines().map(|line| {
            let line = line.trim();
            let quoted = line.strip_prefix('"').and_then(|l| l.strip_suffix('"'));
            quoted.unwrap_or(line).to_string()
        });
        Ok(lines.collect())
    }

    fn bad(&self, e: &dyn std::fmt::Display) -> Error {
        let hint = "write it as CSV in UTF-8";
        Error::bad_data(&self.path, "rows of names and labels", e.to_string(), hint)
    }
}

/// The separator of a list with this beginning: the one that all of its lines have, else the first one,
/// else spaces if there are any.
fn delimiter(start: &str) -> Option<u8> {
    let lines: Vec<&str> = start.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let lines = &lines[..lines.len().min(20)];
    let in_all = |c: char| !lines.is_empty() && lines.iter().all(|line| unquoted(line).contains(c));
    let in_first = |c: char| lines.first().is_some_and(|line| line.contains(c));
    let in_any = |c: char| lines.iter().any(|line| line.contains(c));
    let found = [',', ';', '\t'].into_iter().find(|&c| in_all(c));
    let found = found.or_else(|| [',', ';', '\t'].into_iter().find(|&c| in_first(c)));
    found.or(Some(' ').filter(|_| in_any(' '))).map(|c| c as u8)
}

/// A line without its quoted parts.
fn unquoted(line: &str) -> String {
    line.split('"').step_by(2).collect()
}
