//! `s4l-report`: every evaluated run below a folder → one table and one page.
//!
//! Reads each `eval.parquet` below `--in` (the name of its folder is the row of the table) and the
//! learning curves in `model/metrics.parquet` beside it. Runs of one row with other seeds are
//! averaged; what does not belong together is marked and said. Writes `table.parquet`, `table.md`,
//! `table.csv` and last `index.html`, one file that
//! needs no network: a folder that has it is complete.

use crate::artifact::{self, Lineage, Target};
use crate::cli::{self, Output, Stage, Words};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::report::{check, html, labels, rows, runs, table};
use crate::schema;
use crate::tables::table as parquet;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-report --in runs --out report          all runs; also prints the table
  s4l-report --in runs/seed0 -o report0 -q   one seed; nothing but the table is printed
  s4l-report --in runs --check && echo ok    do all runs belong together?";

/// Compare evaluated runs: a table beside the paper's, and one offline page
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    /// Folder that is searched for eval.parquet files
    #[arg(long = "in", value_name = "DIR", default_value = "runs")]
    input: PathBuf,
    /// Write nothing; exit 0 when all runs belong together, 3 when not
    #[arg(long, conflicts_with_all = ["out", "force", "update", "dry_run"])]
    check: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    words: Words,
}

const TOOL: &str = "s4l-report";

impl Stage for Args {
    fn words(&self) -> &Words {
        &self.words
    }

    fn quiet(&self) -> bool {
        self.check || self.words.quiet
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let mut found = runs::find(&self.input)?;
        labels::count(&mut found)?;
        let mut rows = rows::group(&found.runs);
        check::note(&mut rows);
        let notes = rows.iter().flat_map(|row| row.notes.iter().map(move |n| (row.title, n)));
        let notes = notes.map(|(title, note)| format!("{title}: {note}"));
        let notes: Vec<String> = notes.chain(check::commits(&rows)).collect();
        notes.iter().for_each(|note| cli::warn(note));
        if self.check {
            return checked(&self.input, notes.len());
        }
        let markdown = table::markdown(&rows);

        let out = self.output.out_or(schema::REPORT);
        let page = out.join(schema::PAGE);
        let figures = out.join(schema::TABLE);
        let mut lineage = Lineage::without_settings(TOOL);
        lineage.inputs = found.hashes;
        if self.output.dry_run {
            let (rows, runs) = (rows.len(), found.runs.len());
            return cli::print(&format!("{rows} rows of {runs} runs to {}\n", out.display()));
        }
        let _lock = Lock::of(&out, self.output.update)?;
        artifact::remove_left_over(&out);
        let made_from = ours(&out)?.filter(|_| page.exists());
        if artifact::target(&self.output, &page, &lineage, made_from)? == Target::Write {
            remove_if_there(&page)?;
            table::parquet(&figures, &rows, &lineage)?;
            artifact::write_bytes(&out.join(schema::TABLE_MD), markdown.as_bytes())?;
            artifact::write_bytes(&out.join(schema::TABLE_CSV), table::csv(&rows).as_bytes())?;
            artifact::write_bytes(&page, html::page(&rows).as_bytes())?;
            artifact::write_provenance(&out, start);
            cli::info(&format!("{}: {}", page.display(), table::subject(&rows)));
        }
        cli::print(&markdown)
    }
}

fn checked(input: &Path, notes: usize) -> Result<()> {
    match notes {
        0 => Ok(()),
        _ => Err(Error::Check {
            path: input.to_path_buf(),
            what: format!("{notes} of the runs' figures do not compare, as said above"),
        }),
    }
}

/// The footer of the figures in a folder, which are written first: a folder without them is not ours.
fn ours(out: &Path) -> Result<Option<HashMap<String, String>>> {
    let figures = out.join(schema::TABLE);
    let empty = || std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    match figures.exists() || !out.exists() || empty() {
        true => parquet::output(&figures, TOOL),
        false => Err(Error::NotOurs { path: out.to_path_buf(), what: "a report".to_string() }),
    }
}

/// While the tables are replaced, no page says that the report is complete.
fn remove_if_there(page: &Path) -> Result<()> {
    match std::fs::remove_file(page) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(page)(e)),
        _ => Ok(()),
    }
}
