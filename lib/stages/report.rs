//! `s4l-report`: every evaluated run below a folder → one table and one page.
//!
//! Reads each `eval.parquet` below `--in` (the name of its folder is the row of the table) and the
//! learning curves in `model/metrics.parquet` beside it. Runs of one row with other seeds are
//! averaged. Writes `table.md`, `table.csv`, `table.parquet` and last `index.html`, one file that
//! needs no network: a folder that has it is complete.

use crate::artifact::{self, Lineage, Target};
use crate::cli::{self, Common};
use crate::error::{Error, Result};
use crate::recipe::{self, NoSettings};
use crate::report::{html, rows, runs, table};
use crate::tables::table as parquet;
use std::path::PathBuf;
use std::time::Instant;

const HELP: &str = "\
EXAMPLES
  s4l-report --in runs --out report          all runs; also prints the table
  s4l-report --in runs/seed0 -o report0 -q   one seed; nothing but the table is printed";

/// Compare evaluated runs: a table beside the paper's, and one offline page
#[derive(Debug, clap::Parser)]
#[command(name = "s4l-report", version, before_help = HELP)]
pub struct Args {
    /// Folder that is searched for eval.parquet files
    #[arg(long = "in", value_name = "DIR", default_value = "runs")]
    input: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl cli::Stage for Args {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let settings: NoSettings = recipe::load(self.common.recipe.as_deref(), &self.common.set)?;
        let found = runs::find(&self.input)?;
        let rows = rows::group(&found.runs);
        let markdown = table::markdown(&rows);

        let out = self.common.out_or("report");
        let page = out.join("index.html");
        let figures = out.join("table.parquet");
        let mut lineage = Lineage::new("s4l-report", self.common.seed, recipe::hash(&settings));
        lineage.inputs = found.hashes;
        if self.common.dry_run {
            let (rows, runs) = (rows.len(), found.runs.len());
            return cli::print(&format!("{rows} rows of {runs} runs to {}\n", out.display()));
        }
        let made_from = page.exists().then(|| parquet::footer(&figures)).flatten();
        if artifact::target(&self.common, &page, &lineage, made_from)? == Target::Write {
            remove_if_there(&page)?;
            artifact::write_bytes(&out.join("table.md"), markdown.as_bytes())?;
            artifact::write_bytes(&out.join("table.csv"), table::csv(&rows).as_bytes())?;
            table::parquet(&figures, &rows, &lineage)?;
            artifact::write_bytes(&page, html::page(&rows).as_bytes())?;
            artifact::write_provenance(&out, &self.common, start)?;
            cli::info(&format!("{}: {}", page.display(), table::subject(&rows)));
        }
        cli::print(&markdown)
    }
}

/// While the tables are replaced, no page says that the report is complete.
fn remove_if_there(page: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(page) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(page)(e)),
        _ => Ok(()),
    }
}
