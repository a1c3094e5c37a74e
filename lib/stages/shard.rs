//! `s4l-shard`: images of any form → a shard folder.

use crate::artifact::{self, Lineage, Target};
use crate::cli::{self, Common};
use crate::error::{Error, Result};
use crate::input::{self, Source};
use crate::recipe;
use crate::schema;
use crate::shards::Shards;
use crate::shards::write::{Settings, Writer};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Turn images into shards: parquet files that every stage maps into memory
#[derive(Debug, clap::Parser)]
#[command(
    name = "s4l-shard",
    version,
    before_help = "\
EXAMPLES
  s4l-shard --in pipelines/fashion/data --out shards
  s4l-shard --in photos --out shards               photos/<class>/*.jpg
  s4l-shard --in photos --out shards               photos/{train,val,test}/<class>/*.png
  s4l-shard --in photos -s file_bytes=268435456    files of 256 MiB

Reads IDX files (plain, .gz, .zst) and folders of PNG or JPEG images; finds out which by itself.
Setting: file_bytes [512 MiB]. Memory: up to 400 MB."
)]
pub struct Args {
    /// Folder of IDX files, or of images in class folders
    #[arg(long = "in", value_name = "PATH")]
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
        let settings: Settings = recipe::load(self.common.recipe.as_deref(), &self.common.set)?;
        if settings.file_bytes == 0 {
            return Err(Error::Recipe {
                recipe: "file_bytes".to_string(),
                what: "0 bytes a file".to_string(),
                hint: "give at least 1".to_string(),
            });
        }
        let out = self.common.out_or("shards");
        let source = input::open(&self.input)?;
        artifact::refuse_overlap(&self.input, &out)?;
        if self.common.dry_run {
            return cli::print(&plan(&self.input, &out, &source));
        }
        let lineage = Lineage::new("s4l-shard", self.common.seed, recipe::hash(&settings))
            .input("images", source.hash()?);
        refuse_foreign(&out)?;
        let found = Shards::lineage(&out);
        if artifact::target(&self.common, &out, &lineage, found)? == Target::UpToDate {
            return Ok(());
        }

        let shape = source.shape();
        let mut writer = Writer::create(&out, source.classes(), shape, &settings, &lineage)?;
        let splits = source.splits();
        let total: usize = splits.iter().map(|(_, images)| images).sum();
        let bar = cli::progress(total as u64, "images");
        for (i, (name, _)) in splits.iter().enumerate() {
            let mut split = writer.split(name);
            for record in source.records(i)? {
                split.push(record?)?;
                bar.inc(1);
                if cli::stop_requested() {
                    return Err(Error::Interrupted { path: out });
                }
            }
            split.finish()?;
        }
        bar.finish_and_clear();
        writer.commit()?;
        artifact::write_provenance(&out, &self.common, start)?;
        cli::info(&format!("{}: {}", out.display(), summary(&source)));
        Ok(())
    }
}

/// `--force` replaces shards, never a folder of something else.
fn refuse_foreign(out: &Path) -> Result<()> {
    if !out.exists() || out.join(schema::DATASET_JSON).is_file() {
        return Ok(());
    }
    Err(Error::NotOurs {
        path: out.to_path_buf(),
        what: "a shard folder".to_string(),
    })
}

fn plan(input: &Path, out: &Path, source: &Source) -> String {
    format!(
        "in   {} ({})\nout  {}\n     {}\n",
        input.display(),
        source.format(),
        out.display(),
        summary(source)
    )
}

fn summary(source: &Source) -> String {
    let splits = source.splits().into_iter();
    let splits: Vec<_> = splits.map(|(name, n)| format!("{name} {n}")).collect();
    let form = source
        .shape()
        .map_or("encoded".to_string(), |[h, w, c]| format!("{h}x{w}x{c}"));
    format!(
        "{} images, {form}, {} classes",
        splits.join(" + "),
        source.classes().len()
    )
}
