//! The training loop: batches in, optimizer steps, records and checkpoints out, a model at the end.

use crate::artifact::Lineage;
use crate::augment::Pipe;
use crate::cli::{self, Common};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::methods::{self, At, Batch, Record};
use crate::model::card;
use crate::model::config::Config;
use crate::model::folder;
use crate::network::Network;
use crate::network::update::Update;
use crate::network::weights::Weights;
use crate::rng::Stream;
use crate::shards::Split;
use crate::tables::table;
use crate::train::checkpoint::{self, State};
use crate::train::dry_run::Data;
use crate::train::loader::Source;
use crate::train::schedule::Schedule;
use crate::train::tfevents;
use crate::{artifact, schema};
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Images whose labels are known but never trained on.
pub struct Validation {
    pub split: Split,
    pub rows: Vec<u32>,
    pub labels: Vec<u32>,
    pub pipe: Pipe,
}

/// A training stage, validated and ready to run.
pub struct Run {
    pub out: PathBuf,
    pub config: Config,
    pub lineage: Lineage,
    pub network: Network,
    pub source: Arc<Source>,
    pub schedule: Schedule,
    pub validation: Option<Validation>,
}

impl Run {
    /// The size of the data, for `--dry-run`.
    pub fn data(&self) -> Data {
        Data {
            channels: self.config.architecture.channels,
            classes: self.config.classes.len(),
            labelled: self.source.labelled.rows.len(),
            unlabelled: self.source.unlabelled.rows.len(),
        }
    }

    /// Trains to the end, or to a stop with a checkpoint.
    pub fn train(mut self, common: &Common) -> Result<()> {
        let start = Instant::now();
        let plan = recipe_of(&self.lineage);
        let out = self.out.clone();
        std::fs::create_dir_all(&out).map_err(Error::io(&out))?;
        let total = self.schedule.total_steps;
        let mut state = match checkpoint::load(&out, &plan, common.force)? {
            Some((state, weights)) => {
                cli::info(&format!("{}: going on from step {}", out.display(), state.step));
                self.network.engine.put(weights)?;
                state
            }
            None => State::default(),
        };
        let mut log = MetricsLog::open(&out, &state.metrics)?;
        let s = self.config.settings.clone();
        let half_life = s.polyak_half_life * self.schedule.steps_per_epoch as f64;
        let validate_every =
            ((s.validate_every * self.schedule.steps_per_epoch as f64) as u64).max(1);
        let mut waited = Duration::ZERO;
        let bar = cli::progress(total, "training");
        let begun = state.step;
        let mut batches = self.source.batches(begun, total);
        for step in begun..total {
            if step > 0 && step % validate_every == 0 && !is_validated(&state.metrics, step) {
                interruptible(self.validate(&mut log, &mut state.metrics, step))?;
            }
            if cli::stop_requested() {
                bar.abandon();
                self.save(&mut state, step, &plan)?;
                return Err(Error::Stopped { path: out, step, total });
            }
            let asked = Instant::now();
            let batch = batches.advance()?;
            waited += asked.elapsed();
            let record = self.step(batch, step)?;
            self.check_finite(&record, step, &state)?;
            let learning_rate = self.schedule.learning_rate(step);
            self.network.engine.update(&Update {
                learning_rate,
                momentum: s.momentum,
                weight_decay: s.weight_decay,
                half_life,
            })?;
            add_to(&mut state.window, &record);
            bar.set_position(step + 1);
            let done = step + 1;
            if done % s.log_every == 0 || done == total {
                let mut row = means(&mut state.window);
                row.push(("learning_rate".into(), learning_rate));
                log.add(&mut state.metrics, done, row)?;
            }
            if done % s.checkpoint_every == 0 && done < total {
                self.save(&mut state, done, &plan)?;
            }
        }
        bar.finish_and_clear();
        // The weights to use are made from these, and the validation of them may be stopped.
        self.save(&mut state, total, &plan)?;
        if !interruptible(self.finish(&mut state, &mut log, total))? {
            return Err(Error::Stopped { path: out, step: total, total });
        }
        self.commit(&state.metrics)?;
        artifact::write_provenance(&out, common, start)?;
        let seconds = start.elapsed().as_secs_f64();
        cli::info(&format!(
            "{}: {} steps, {:.1} a second, {:.1}% of the time waiting for images",
            out.display(),
            total - begun,
            (total - begun) as f64 / seconds,
            100.0 * waited.as_secs_f64() / seconds,
        ));
        Ok(())
    }

    fn step(&mut self, batch: &Batch, step: u64) -> Result<Record> {
        let s = &self.config.settings;
        let ramp_steps = s.ramp * self.schedule.steps_per_epoch as f64;
        let ramp = if ramp_steps > 0.0 { (step as f64 / ramp_steps).min(1.0) } else { 1.0 };
        let seed = self.config.seed;
        let at = At { seed, step, ramp };
        methods::step(&mut self.network, s, batch, at)
    }

    fn check_finite(&self, record: &Record, step: u64, last: &State) -> Result<()> {
        match record.iter().find(|(_, v)| !v.is_finite()) {
            Some((name, value)) => Err(self.diverged(format!("{name} is {value}"), step, last)),
            None => Ok(()),
        }
    }

    /// What went wrong in `step`; `last` is the state of the last checkpoint.
    fn diverged(&self, what: String, step: u64, last: &State) -> Error {
        let part = |name: &str, part| {
            let keys = self.source.keys(part, step);
            let more = match keys.len().saturating_sub(KEYS_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let keys = keys.into_iter().take(KEYS_NAMED).collect::<Vec<_>>();
            format!("{name} {}{more}", keys.join(", "))
        };
        let mut keys = part("labelled", &self.source.labelled);
        if self.source.unlabelled.batch > 0 {
            keys += &part("; unlabelled", &self.source.unlabelled);
        }
        let checkpoint = checkpoint::file(&self.out);
        Error::Diverged {
            path: self.out.clone(),
            what,
            step,
            keys,
            checkpoint: match checkpoint.exists() {
                true => format!("{} of step {} is kept", checkpoint.display(), last.step),
                false => "there is no checkpoint yet".into(),
            },
        }
    }

    /// Checkpoints the run after `step` steps. Weights that are not finite are no state to go on
    /// from: they are an error, and the last checkpoint stays.
    fn save(&self, state: &mut State, step: u64, plan: &str) -> Result<()> {
        let weights = self.network.engine.get()?;
        let Weights { parameters, velocity, average, moving } = &weights;
        let mut all = [parameters, moving, velocity, average].into_iter().flatten();
        if let Some(w) = all.find(|w| !w.is_finite()) {
            return Err(self.diverged(format!("a weight is {w}"), step.saturating_sub(1), state));
        }
        state.step = step;
        checkpoint::save(&self.out, plan, state, &weights)
    }

    fn validate(&mut self, log: &mut MetricsLog, metrics: &mut Metrics, step: u64) -> Result<()> {
        let Some(v) = &self.validation else {
            return Ok(());
        };
        let views = v.pipe.output(v.split.channels()?)?.views;
        let logits = logits::logits(&mut self.network, &v.split, &v.rows, &v.pipe, "validating")?;
        let classes = self.config.classes.len();
        let right = logits
            .chunks_exact(views * classes)
            .zip(&v.labels)
            .filter(|(l, label)| crate::evaluate::metrics::argmax(&l[..classes]) == **label)
            .count();
        let top1 = right as f64 / v.labels.len() as f64;
        log.add(metrics, step, vec![(VALIDATION.into(), top1)])
    }

    /// The weights to use: averaged where Polyak is on, with batch-norm statistics that fit them.
    fn finish(&mut self, state: &mut State, log: &mut MetricsLog, total: u64) -> Result<()> {
        let s = &self.config.settings;
        if s.polyak_half_life > 0.0 {
            let mut weights = self.network.engine.get()?;
            weights.parameters = std::mem::take(&mut weights.average);
            self.network.engine.put(weights)?;
        }
        let count = s.batch_norm_batches as u64;
        if count > 0 {
            let mut source = (*self.source).clone();
            for part in [&mut source.labelled, &mut source.unlabelled] {
                part.order = Stream::BatchNormOrder;
                part.augment = Stream::BatchNormAugment;
            }
            let mut batches = Arc::new(source).batches(0, count);
            for index in 0..count {
                let batch = batches.advance()?;
                let mut images = [&*batch.unlabelled, &*batch.labelled].concat();
                self.network.recompute_statistics(&mut images, index as usize)?;
            }
        }
        self.validate(log, &mut state.metrics, total)
    }

    /// Writes the model folder; the weights come last.
    fn commit(&self, metrics: &Metrics) -> Result<()> {
        let out = &self.out;
        let steps = metrics.iter().map(|m| m.0 as i64);
        let names = metrics.iter().map(|m| m.1.as_str());
        let values = metrics.iter().map(|m| m.2);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(steps)),
            Arc::new(StringArray::from_iter_values(names)),
            Arc::new(Float64Array::from_iter_values(values)),
        ];
        table::write(
            &out.join(schema::METRICS),
            schema::metrics(),
            columns,
            &self.lineage,
            BTreeMap::new(),
        )?;
        let events = out.join("events.out.tfevents.0.s4l");
        artifact::write_bytes(&events, &tfevents::encode(metrics))?;
        let card = card::markdown(&self.config, &self.lineage, metrics);
        artifact::write_bytes(&out.join(schema::MODEL_CARD), card.as_bytes())?;
        folder::write(out, &self.config, &self.network.engine.get()?, &self.lineage)?;
        checkpoint::remove(out)?;
        let jsonl = out.join(schema::METRICS_JSONL);
        std::fs::remove_file(&jsonl).map_err(Error::io(&jsonl))
    }
}

/// Images of a part that an error names.
const KEYS_NAMED: usize = 16;

/// One string for everything that the run depends on.
fn recipe_of(lineage: &Lineage) -> String {
    format!("{:?}", lineage.metadata())
}

/// Whether the work was done; `false` where it was told to stop.
fn interruptible(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Interrupted { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A run may have been stopped between a step and its validation.
fn is_validated(metrics: &Metrics, step: u64) -> bool {
    let mut last = metrics.iter().rev().take_while(|m| m.0 == step);
    last.any(|m| m.1 == VALIDATION)
}

const VALIDATION: &str = "validation/top1";

/// Records: (step, name, value).
type Metrics = Vec<(u64, String, f64)>;

/// Sum and count of each named value since the last log line.
type Window = BTreeMap<String, (f64, u64)>;

fn add_to(window: &mut Window, record: &Record) {
    for (name, value) in record {
        let entry = window.entry(name.to_string()).or_default();
        entry.0 += value;
        entry.1 += 1;
    }
}

/// The means of a window, which begins anew.
fn means(window: &mut Window) -> Vec<(String, f64)> {
    let means = std::mem::take(window).into_iter();
    means.map(|(name, (sum, n))| (name, sum / n as f64)).collect()
}

/// `metrics.jsonl`: the records while the stage runs.
struct MetricsLog {
    path: PathBuf,
    file: std::fs::File,
}

impl MetricsLog {
    /// Starts the file anew with the records so far.
    fn open(model: &Path, metrics: &Metrics) -> Result<MetricsLog> {
        let path = model.join(schema::METRICS_JSONL);
        let file = std::fs::File::create(&path).map_err(Error::io(&path))?;
        let mut log = MetricsLog { path, file };
        for (step, name, value) in metrics {
            log.write(*step, name, *value)?;
        }
        Ok(log)
    }

    fn add(&mut self, metrics: &mut Metrics, step: u64, row: Vec<(String, f64)>) -> Result<()> {
        for (name, value) in row {
            self.write(step, &name, value)?;
            metrics.push((step, name, value));
        }
        Ok(())
    }

    fn write(&mut self, step: u64, name: &str, value: f64) -> Result<()> {
        let line = serde_json::json!({"step": step, "name": name, "value": value});
        writeln!(self.file, "{line}").map_err(Error::io(&self.path))
    }
}
