//! Writing the files of a plan: several at once, each by the records of its own items.

use super::staging::{self, FileRecord, Reject, Staging};
use super::write::{GROUP_BYTES, Row, ShardFile, group_rows};
use crate::artifact::Lineage;
use crate::cli;
use crate::decode::encoded::{self, Resized, decode_rgb};
use crate::error::{Error, Result};
use crate::input::{self, Input, Plan, Record, Shard};
use crate::schema::shard_file;
use indicatif::ProgressBar;
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

/// Files made at once are half as many as threads, as each has one that reads and one that writes, and one
/// more, since one waits for the disk; but not more than this, since each takes memory.
const MAX_FILES: usize = 5;

/// Writing the files of a plan.
pub struct Job<'a> {
    pub input: &'a Path,
    pub source: &'a Input,
    pub plan: &'a Plan,
    pub shards: &'a [Shard],
    pub staging: &'a Staging,
    pub lineage: &'a Lineage,
    pub decode: bool,
    pub resized: Option<Resized>,
    /// Share of rejects above which the run ends.
    pub allowed: f64,
    pub rejects: AtomicU64,
    pub bar: ProgressBar,
}

impl Job<'_> {
    /// Writes the files that are missing, several at once.
    pub fn run(&self, threads: usize) -> Result<()> {
        let mut missing = Vec::new();
        for shard in self.shards {
            match self.staging.record(&name(shard)) {
                Some(record) => {
                    self.bar.inc(shard.items);
                    self.count(&record.rejects)?;
                }
                None => missing.push(shard),
            }
        }
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let error = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..(threads / 2 + 1).min(MAX_FILES).min(missing.len()) {
                scope.spawn(|| {
                    while let Some(shard) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(e) = self.write(shard, &failed) {
                            // It would only take space until the next run.
                            let _ = std::fs::remove_file(self.staging.path(&name(shard)));
                            failed.store(true, Ordering::Relaxed);
                            if let Ok(mut error) = error.lock() {
                                error.get_or_insert(e);
                            }
                            break;
                        }
                    }
                });
            }
        });
        match error.into_inner() {
            Ok(None) => Ok(()),
            Ok(Some(e)) => Err(e),
            Err(e) => Err(Error::Internal(e.to_string())),
        }
    }

    fn write(&self, shard: &Shard, failed: &AtomicBool) -> Result<()> {
        let name = name(shard);
        let (classes, shape) = (&self.plan.classes, self.plan.shape);
        let path = self.staging.path(&name);
        let mut file = ShardFile::create(&path, shape, classes, self.lineage, self.resized)?;
        let mut record = FileRecord::default();
        let stopped = || Error::Interrupted { path: self.input.to_path_buf() };
        let (read, written) = std::thread::scope(|scope| {
            // Of no places: a row group is filled while one is written, and no more wait.
            let (groups, full) = mpsc::sync_channel::<Vec<Row>>(0);
            let writer = scope.spawn(|| -> Result<ShardFile> {
                for rows in full {
                    file.group(rows)?;
                }
                Ok(file)
            });
            let mut send = |batch| {
                let rows = self.checked(batch, &mut record)?;
                groups.send(rows).map_err(|_| stopped())
            };
            let (mut batch, mut bytes) = (Vec::new(), 0);
            let read = self.plan.read(self.source, shard, &mut |item| {
                if failed.load(Ordering::Relaxed) || cli::stop_requested() {
                    return Err(stopped());
                }
                bytes += item.image.as_ref().map_or(0, Vec::len);
                batch.push(item);
                if batch.len() == group_rows(shape.is_some()) || bytes >= GROUP_BYTES {
                    bytes = 0;
                    send(std::mem::take(&mut batch))?;
                }
                Ok(())
            });
            let read = read.and_then(|()| send(batch));
            drop(groups);
            (read, writer.join())
        });
        // Where both failed, writing is why reading was stopped.
        let file = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        read?;
        let hash = file.finish()?;
        self.staging.finished(&name, record, hash)
    }

    /// The rows of the images that are good; the others are rejects.
    fn checked(&self, batch: Vec<Record>, record: &mut FileRecord) -> Result<Vec<Row>> {
        self.bar.inc(batch.len() as u64);
        let checked: Vec<_> = batch.into_par_iter().map(|item| self.check(item)).collect();
        let (mut rows, mut rejects) = (Vec::new(), Vec::new());
        for row in checked {
            match row {
                Ok(row) => rows.push(row),
                Err(reject) => rejects.push(reject),
            }
        }
        self.count(&rejects)?;
        record.rejects.extend(rejects);
        rows.iter().for_each(|row| record.add(row));
        Ok(rows)
    }

    fn check(&self, record: Record) -> std::result::Result<Row, Reject> {
        let Record { key, path, label, image } = record;
        let checked = image.and_then(|image| {
            if let Some([height, width, channels]) = self.plan.shape {
                return match image.len() == height * width * channels {
                    true => Ok((image, height as u32, width as u32)),
                    false => Err(format!("{} bytes of pixels", image.len())),
                };
            }
            let (height, width) = encoded::check(&image)?;
            if self.decode {
                decode_rgb(&image)?;
            }
            let smaller = match self.resized {
                Some(to) => encoded::resize(&image, (height, width), to)?,
                None => None,
            };
            Ok(smaller.unwrap_or((image, height, width)))
        });
        match checked {
            Ok((image, height, width)) => Ok(Row {
                key,
                name: input::base_name(&path).to_string(),
                label,
                height,
                width,
                content: blake3::hash(&image),
                image,
            }),
            Err(reason) => Err(Reject { key, path, reason }),
        }
    }

    /// Adds rejects to those of all files, and ends the run where they are too many.
    fn count(&self, rejects: &[Reject]) -> Result<()> {
        let new = rejects.len() as u64;
        let all = self.rejects.fetch_add(new, Ordering::Relaxed) + new;
        staging::check_rejects(self.input, all, rejects.first(), self.plan.items(), self.allowed)
    }
}

fn name(shard: &Shard) -> String {
    shard_file(shard.split.name(), shard.file, shard.files)
}
