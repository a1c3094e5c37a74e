//! The measurements during a run: means over the steps between two points of the curves, and
//! the files that grow with them, `metrics.jsonl` and TensorBoard's.

use super::tfevents::EventFile;
use crate::artifact;
use crate::error::{Error, Result};
use crate::methods::main_pass::Record;
use crate::model::metrics::Metric;
use crate::schema;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Sum and count of the values of one name.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Mean {
    pub sum: f64,
    pub count: u64,
}

/// Means by name over the steps since the last log line.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct RunningMeans(pub BTreeMap<String, Mean>);

impl RunningMeans {
    pub fn add(&mut self, record: &Record) {
        for value in record {
            let mean = self.0.entry(value.name.to_string()).or_default();
            mean.sum += value.value;
            mean.count += 1;
        }
    }

    /// The means so far as metrics of `step`; then all of them start again.
    pub fn take(&mut self, step: u64) -> Vec<Metric> {
        let means = std::mem::take(&mut self.0).into_iter();
        let metric = |(name, mean): (String, Mean)| {
            let value = mean.sum / mean.count as f64;
            Metric { step, name, value }
        };
        means.map(metric).collect()
    }
}

/// The metrics while the stage runs, in files if this rank writes.
pub struct MetricsLog(Option<Files>);

struct Files {
    path: PathBuf,
    file: std::fs::File,
    events: EventFile,
}

impl MetricsLog {
    /// Starts the files with the metrics so far.
    pub fn open(model: &Path, metrics: &[Metric], wall_times: bool) -> Result<MetricsLog> {
        let path = model.join(schema::METRICS_JSONL);
        let file = std::fs::File::create(&path).map_err(Error::io(&path))?;
        let events = EventFile::open(&events_path(model)?, metrics, wall_times)?;
        let mut files = Files { path, file, events };
        metrics.iter().try_for_each(|metric| files.write(metric))?;
        Ok(MetricsLog(Some(files)))
    }

    /// Without files.
    pub fn nowhere() -> MetricsLog {
        MetricsLog(None)
    }

    /// Writes metrics and adds them to those so far.
    pub fn add(&mut self, metrics: &mut Vec<Metric>, new: Vec<Metric>) -> Result<()> {
        if let Some(files) = &mut self.0 {
            new.iter().try_for_each(|metric| files.write(metric))?;
            files.events.add(&new)?;
        }
        metrics.extend(new);
        Ok(())
    }

    /// The bytes of TensorBoard's file.
    pub fn events(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |files| files.events.bytes())
    }

    /// Removes `metrics.jsonl` of a finished run, if it is there.
    pub fn remove(model: &Path) -> Result<()> {
        let path = model.join(schema::METRICS_JSONL);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&path)(e)),
            _ => Ok(()),
        }
    }
}

impl Files {
    fn write(&mut self, Metric { step, name, value }: &Metric) -> Result<()> {
        let line =
            serde_json::json!({schema::STEP: step, schema::NAME: name, schema::VALUE: value});
        // In one write, so that a reader who follows the file sees whole lines.
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }
}

/// TensorBoard's file of a run: in the new model's folder, or beside the checkpoints while an old model
/// with a file of its own is there.
fn events_path(model: &Path) -> Result<PathBuf> {
    if !artifact::exists(&model.join(schema::WEIGHTS))? {
        return Ok(model.join(schema::EVENTS));
    }
    let folder = model.join(schema::CHECKPOINT);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    Ok(folder.join(schema::EVENTS))
}
