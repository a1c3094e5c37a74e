//! `s4l-report`: every evaluated run below a folder → one table and one page.
//!
//! Reads each `eval.parquet` below `--in` (the row of the table is named after its folder) and the learning
//! curves in `model/metrics.parquet` beside it. Runs of one row with different seeds are averaged. Runs
//! that do not belong together are marked, with a warning. Writes `table.parquet`, `table.md`, `table.csv`,
//! and last `index.html`, one file that needs no network: a folder with this file is complete. What the
//! stages used, which varies between runs of the same bytes, is in `cost.csv` and `cost.html`. With `--audit`
//! it reads pseudo labels and writes one page about them.

use crate::artifact::{self, Target};
use crate::audit::{self, labels::Sources};
use crate::cli::{self, Messages, Output, Stage};
use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::lock::Lock;
use crate::page::frame::Page;
use crate::report::{budget, check, cost, html, labels, paired, rows, runs, table};
use crate::schema;
use crate::tables::table as parquet;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-report --in runs --out report          all runs; also prints the table
  s4l-report --in runs/seed0 -o report0 -q   one seed; prints only the table
  s4l-report --in runs --check && echo ok    do all runs belong together?
  s4l-report --audit labels.parquet --in shards -o audit.html   a page about pseudo labels
  s4l-report --audit step2/labels.parquet --before step1/labels.parquet --truth shards
An audit is also one page: counts per class beside those of the labelled set, confidence, agreement over views,
changed labels, correct labels, and images with the highest confidence, the lowest confidence and changed labels.";

/// Compare evaluated runs: a table beside the paper's, and one offline page
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    /// Folder to search for eval.parquet files [default: runs]; with --audit, the shards with the images
    /// [default: shards]
    #[arg(long = "in", value_name = "DIR")]
    input: Option<PathBuf>,
    /// Write nothing; exit with 0 if all runs belong together, else with 3
    #[arg(long, conflicts_with_all = ["out", "force", "update", "dry_run"])]
    check: bool,
    /// Write one page about these pseudo labels instead; without --out, audit.html
    #[arg(long, value_name = "LABELS", conflicts_with = "check")]
    audit: Option<PathBuf>,
    /// Labelled set to compare with [default: the known labels in the file of --audit]
    #[arg(long, value_name = "FILE", requires = "audit")]
    labelled: Option<PathBuf>,
    /// Pseudo labels of the same images by an earlier model, to show what has changed
    #[arg(long, value_name = "LABELS", requires = "audit")]
    before: Option<PathBuf>,
    /// True labels, used only for the audit: a table, or shards with the same images
    #[arg(long, value_name = "PATH", requires = "audit")]
    truth: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    messages: Messages,
}

const TOOL: &str = "s4l-report";

/// The default folder of runs.
const RUNS: &str = "runs";

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn quiet(&self) -> bool {
        self.check || self.messages.quiet
    }

    fn run(self) -> Result<()> {
        match &self.audit {
            Some(labels) => self.write_audit(labels),
            None => self.write_report(),
        }
    }
}

impl Args {
    fn write_report(&self) -> Result<()> {
        let start = Instant::now();
        let input = self.input.as_deref().unwrap_or(Path::new(RUNS));
        let mut found = runs::find(input)?;
        labels::count(&mut found)?;
        budget::count(&mut found.runs);
        let mut rows = rows::group(&found.runs);
        check::note(&mut rows);
        paired::compare(&mut rows);
        let notes = rows.iter().flat_map(|row| row.notes.iter().map(move |n| (row.title, n)));
        let notes = notes.map(|(title, note)| format!("{title}: {note}"));
        let notes: Vec<String> = notes.chain(check::commits(&rows)).collect();
        notes.iter().for_each(|note| cli::warn(note));
        if self.check {
            return checked(input, notes.len());
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
        let has_page = artifact::exists(&page)?;
        let made_from = ours(&out)?.filter(|_| has_page);
        let target = artifact::target(&self.output, &page, &lineage, made_from)?;
        if target == Target::Write {
            remove_if_there(&page)?;
            table::parquet(&figures, &rows, &lineage)?;
            artifact::write_bytes(&out.join(schema::TABLE_MD), markdown.as_bytes())?;
            artifact::write_bytes(&out.join(schema::TABLE_CSV), table::csv(&rows).as_bytes())?;
        }
        // Evaluations that are the same may have been made anew.
        cost::write(&out, &rows)?;
        if target == Target::Write {
            artifact::write_bytes(&page, html::page(&rows).as_bytes())?;
            artifact::write_provenance(&out, start);
            cli::info(&format!("{}: {}", page.display(), table::subject(&rows)));
        }
        cli::print(&markdown)
    }

    fn write_audit(&self, path: &Path) -> Result<()> {
        let sources = Sources {
            labels: path,
            shards: self.input.as_deref().unwrap_or(Path::new(schema::SHARDS)),
            labelled: self.labelled.as_deref(),
            before: self.before.as_deref(),
            truth: self.truth.as_deref(),
        };
        let out = self.output.out_or(schema::AUDIT);
        let inputs =
            [Some(path), Some(sources.shards), sources.labelled, sources.before, sources.truth];
        artifact::refuse_inputs(&out, inputs)?;
        let pseudo = audit::labels::read(sources)?;
        if self.output.dry_run {
            let (images, out) = (pseudo.pseudo.len(), out.display());
            return cli::print(&format!("audit of {images} pseudo labels to {out}\n"));
        }
        let _lock = Lock::of(&out, self.output.update)?;
        let body = audit::html::body(&pseudo)?;
        let page = Page {
            generator: "s4l-report --audit",
            title: "Audit of pseudo labels",
            width: 1008,
            body: &body,
        };
        page.write(&out, &self.output)
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

/// The footer of the table in a folder. The table is written first: a folder without it is not ours.
fn ours(out: &Path) -> Result<Option<HashMap<String, String>>> {
    let figures = out.join(schema::TABLE);
    let empty = || std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    match artifact::exists(&figures)? || !artifact::exists(out)? || empty() {
        true => parquet::output(&figures, TOOL),
        false => Err(Error::NotOurs { path: out.to_path_buf(), what: "a report".to_string() }),
    }
}

/// While the tables are replaced, there is no page, which would say that the report is complete.
fn remove_if_there(page: &Path) -> Result<()> {
    match std::fs::remove_file(page) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(page)(e)),
        _ => Ok(()),
    }
}
