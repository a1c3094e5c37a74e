//! Writing the files of a run: several at a time, each with the images of its own span.

use super::record::{FileRecord, Reject};
use super::staging::{Staging, check_rejects};
use super::write::{GROUP_BYTES, ImageRow, ShardWriter, group_rows};
use crate::cli;
use crate::decode::encoded::{self, decode_rgb};
use crate::error::{Error, Result};
use crate::input::survey::{FileSpan, Sample, Survey};
use crate::input::{self, Input};
use crate::pixels::Size;
use crate::schema::shard_file;
use indicatif::ProgressBar;
use rayon::prelude::*;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Most files written at the same time, since each takes memory. The number is half the threads, because
/// each file has a reader and a writer, plus one, because one file waits for the disk.
const MAX_FILES: usize = 5;

/// The work of a run.
pub struct Job<'a> {
    /// The path of the input, for messages.
    pub path: &'a Path,
    pub input: &'a Input,
    pub survey: &'a Survey,
    /// The files of this part.
    pub shards: &'a [FileSpan],
    pub staging: &'a Staging,
    /// Whether every image is decoded completely.
    pub decode: bool,
    /// Share of rejects above which the run stops.
    pub allowed: f64,
}

impl Job<'_> {
    /// Writes the missing files, several at a time.
    pub fn run(&self, threads: usize) -> Result<()> {
        let writing = Writing {
            job: self,
            rejects: AtomicU64::new(0),
            error: OnceLock::new(),
            bar: cli::progress(self.survey.items(), "images"),
        };
        let done = writing.missing().map(|missing| writing.write_all(&missing, threads));
        writing.bar.finish_and_clear();
        done?;
        writing.error.into_inner().map_or(Ok(()), Err)
    }
}

/// A running job.
struct Writing<'a> {
    job: &'a Job<'a>,
    /// Number of rejects of all files.
    rejects: AtomicU64,
    /// The error of the file that failed first; the others then stop.
    error: OnceLock<Error>,
    bar: ProgressBar,
}

impl Writing<'_> {
    /// The files that an earlier run has not finished.
    fn missing(&self) -> Result<Vec<&FileSpan>> {
        let mut missing = Vec::new();
        let shards = self.job.shards;
        let records = shards.par_iter().map(|shard| self.job.staging.record(&name(shard)));
        let records = records.collect::<Result<Vec<_>>>()?;
        for (shard, record) in shards.iter().zip(records) {
            match record {
                Some(record) => {
                    self.bar.inc(shard.items);
                    self.count(&record.rejects)?;
                }
                None => missing.push(shard),
            }
        }
        Ok(missing)
    }

    /// Writes files until all are written or one fails.
    fn write_all(&self, missing: &[&FileSpan], threads: usize) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..(threads / 2 + 1).min(MAX_FILES).min(missing.len()) {
                scope.spawn(|| {
                    while let Some(shard) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(e) = self.write(shard) {
                            // It would only take space until the next run.
                            let _ = std::fs::remove_file(self.job.staging.path(&name(shard)));
                            let _ = self.error.set(e);
                            break;
                        }
                    }
                });
            }
        });
    }

    /// Writes a file: one thread reads and checks its images while another writes those before.
    fn write(&self, shard: &FileSpan) -> Result<()> {
        let (name, staging) = (name(shard), self.job.staging);
        let mut file = ShardWriter::create(&staging.path(&name), &staging.identity)?;
        let mut record = FileRecord::default();
        let (read, written) = std::thread::scope(|scope| {
            // Without capacity: one row group is filled while another is written, and none waits.
            let (groups, full) = sync_channel::<Vec<ImageRow>>(0);
            let writer = scope.spawn(|| -> Result<ShardWriter> {
                for rows in full {
                    file.group(rows)?;
                }
                Ok(file)
            });
            let read = self.read(shard, &mut record, &groups);
            drop(groups);
            (read, writer.join())
        });
        // If both failed, the writing error is the cause of the reading error.
        let file = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        read?;
        staging.finished(&name, record, file.finish()?)
    }

    /// Reads the images of a file and passes them on, one row group at a time.
    fn read(
        &self,
        shard: &FileSpan,
        record: &mut FileRecord,
        groups: &SyncSender<Vec<ImageRow>>,
    ) -> Result<()> {
        let stopped = || Error::Interrupted { path: self.job.path.to_path_buf() };
        let mut send = |batch| {
            let rows = self.rows(batch, record)?;
            groups.send(rows).map_err(|_| stopped())
        };
        let most = group_rows(self.job.survey.shape.is_some());
        let (mut batch, mut bytes) = (Vec::new(), 0);
        self.job.survey.read(self.job.input, shard, &mut |sample| {
            if self.error.get().is_some() || cli::stop_requested() {
                return Err(stopped());
            }
            bytes += sample.image.as_ref().map_or(0, Vec::len);
            batch.push(sample);
            if batch.len() == most || bytes >= GROUP_BYTES {
                bytes = 0;
                send(std::mem::take(&mut batch))?;
            }
            Ok(())
        })?;
        send(batch)
    }

    /// The rows of the good images; the others become rejects.
    fn rows(&self, batch: Vec<Sample>, record: &mut FileRecord) -> Result<Vec<ImageRow>> {
        self.bar.inc(batch.len() as u64);
        let checked: Vec<_> = batch.into_par_iter().map(|sample| self.row(sample)).collect();
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

    fn row(&self, sample: Sample) -> std::result::Result<ImageRow, Reject> {
        let Sample { key, path, label, image } = sample;
        match image.and_then(|image| self.checked(image)) {
            Ok((image, size)) => Ok(ImageRow {
                key,
                name: input::base_name(&path).to_string(),
                label,
                height: size.height as u32,
                width: size.width as u32,
                content: blake3::hash(&image),
                image,
            }),
            Err(reason) => Err(Reject { key, path, reason }),
        }
    }

    /// An image as it will be stored, or its error.
    fn checked(&self, image: Vec<u8>) -> std::result::Result<(Vec<u8>, Size), String> {
        if let Some([height, width, channels]) = self.job.survey.shape {
            return match image.len() == height * width * channels {
                true => Ok((image, Size { height, width })),
                false => Err(format!("{} bytes of pixels", image.len())),
            };
        }
        let size = encoded::check(&image)?;
        if self.job.decode {
            decode_rgb(&image, size)?;
        }
        let smaller = match self.job.staging.identity.resized {
            Some(to) => encoded::resize(&image, size, to)?,
            None => None,
        };
        Ok(smaller.unwrap_or((image, size)))
    }

    /// Adds rejects to those of all files, and stops the run if there are too many.
    fn count(&self, rejects: &[Reject]) -> Result<()> {
        let job = self.job;
        let new = rejects.len() as u64;
        let all = self.rejects.fetch_add(new, Ordering::Relaxed) + new;
        check_rejects(job.path, all, rejects.first(), job.survey.items(), job.allowed)
    }
}

fn name(shard: &FileSpan) -> String {
    shard_file(shard.split.name(), shard.file, shard.files)
}
