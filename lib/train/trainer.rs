//! The training loop: batches in, optimizer steps, metrics and checkpoints out, a model at the end.

use crate::artifact::{self, TemporaryFolder};
use crate::augment::Pipe;
use crate::cli::{self, Output};
use crate::error::{Error, Result};
use crate::evaluate::logits;
use crate::evaluate::metrics::argmax;
use crate::lineage::Lineage;
use crate::memory;
use crate::methods;
use crate::methods::batch::Batch;
use crate::methods::main_pass::{At, Record};
use crate::model::card;
use crate::model::config::Config;
use crate::model::folder;
use crate::model::metrics::{self, Metric};
use crate::network::Network;
use crate::network::device::{self, Device};
use crate::network::update::Update;
use crate::network::weights::Weights;
use crate::ranks::Ranks;
use crate::rng::Stream;
use crate::schema::{self, metric};
use crate::shards::Split;
use crate::train::checkpoint::{self, State};
use crate::train::dry_run::{self, Data};
use crate::train::identity::Identity;
use crate::train::loader::{ImageSet, TrainingImages};
use crate::train::log::MetricsLog;
use crate::train::progress::Progress;
use crate::train::schedule::Schedule;
use crate::usage::Usage;
use std::path::PathBuf;
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
    pub identity: Identity,
    pub network: Network,
    pub device: Device,
    /// Those that train together. Rank 0 alone writes.
    pub ranks: Ranks,
    pub images: Arc<TrainingImages>,
    pub schedule: Schedule,
    pub validation: Option<Validation>,
    /// Whether TensorBoard events have wall-clock times.
    pub wall_times: bool,
    /// The age of a checkpoint at which another one is written, however few steps were done.
    pub checkpoint_after: Option<Duration>,
    pub began: Instant,
    /// When the last one was written.
    pub saved: Instant,
}

/// Images of a set that an error names.
const KEYS_NAMED: usize = 16;

impl Run {
    /// The size of the data, for `--dry-run`.
    pub fn data(&self) -> Data {
        Data {
            channels: self.config.architecture.channels,
            classes: self.config.classes.len(),
            labelled: self.images.labelled.rows.len(),
            unlabelled: self.images.unlabelled.rows.len(),
            ranks: self.ranks.size(),
            device: self.device,
        }
    }

    /// Trains to the end, or to a stop with a checkpoint.
    ///
    /// Errors: `Stopped` if it was told to stop, `Diverged` if a loss or a weight is not finite.
    pub fn train(mut self, output: &Output) -> Result<()> {
        let start = Instant::now();
        let begun = self.begin(output.may_replace());
        let (mut state, mut log) = self.ranks.clone().agree(begun)?;
        let begun = state.step;
        let before = self.ranks.spent();
        let waited = self.steps(&mut state, &mut log)?;
        let between = self.ranks.spent() - before;
        self.finish(&mut state, &mut log)?;
        if self.writes() {
            self.commit(&state.metrics, log.events())?;
            artifact::write_provenance_of_runs(&self.out, self.used(&state));
        }
        let (steps, seconds) = (self.schedule.total_steps - begun, start.elapsed().as_secs_f64());
        let share = |time: Duration| 100.0 * time.as_secs_f64() / seconds;
        let between = match self.ranks.size() {
            1 => String::new(),
            ranks => format!(", {:.1}% between the {ranks} ranks", share(between)),
        };
        cli::info(&format!(
            "{}: {steps} steps, {:.1} a second, {:.1}% of the time waiting for images{between}",
            self.out.display(),
            steps as f64 / seconds,
            share(waited),
        ));
        Ok(())
    }

    /// Whether this rank writes what all of them have made.
    pub fn writes(&self) -> bool {
        self.ranks.rank() == 0
    }

    /// The first state, or that of the checkpoint, and the log of it.
    fn begin(&mut self, force: bool) -> Result<(State, MetricsLog)> {
        // The first rank may have to put the previous checkpoint in the place of a damaged one.
        let folder = || std::fs::create_dir_all(&self.out).map_err(Error::io(&self.out));
        let first = self.writes().then(|| folder().and_then(|()| self.saved(force)));
        let first = self.ranks.agree(first.transpose())?;
        let saved = first.map_or_else(|| self.saved(force), Ok)?;
        let state = self.go_on(saved)?;
        let log = match self.writes() {
            true => MetricsLog::open(&self.out, &state.metrics, self.wall_times)?,
            false => MetricsLog::nowhere(),
        };
        Ok((state, log))
    }

    fn saved(&self, force: bool) -> Result<Option<(State, Weights)>> {
        let like = self.network.engine.get()?;
        checkpoint::load(&self.out, &self.identity, &like, force)
    }

    /// The state of a checkpoint, whose weights the network takes over; without one the first state.
    fn go_on(&mut self, saved: Option<(State, Weights)>) -> Result<State> {
        let Some((state, weights)) = saved else {
            return Ok(State::default());
        };
        cli::info(&format!("{}: going on from step {}", self.out.display(), state.step));
        let here = device::instructions();
        if !state.instructions.is_empty() && state.instructions != here {
            cli::warn(&format!(
                "{}: begun with {}, going on with {here}: the bytes may differ from those of either",
                self.out.display(),
                state.instructions
            ));
        }
        let size = self.ranks.size();
        if state.ranks != size {
            cli::warn(&format!(
                "{}: begun with {} ranks, going on with {size}: the bytes may differ from those of either",
                self.out.display(),
                state.ranks
            ));
        }
        self.network.engine.put(weights)?;
        Ok(state)
    }

    /// The steps that are left. Returns the time spent waiting for images.
    fn steps(&mut self, state: &mut State, log: &mut MetricsLog) -> Result<Duration> {
        let (begun, total) = (state.step, self.schedule.total_steps);
        let mut batches = self.images.batches(begun, total);
        let images = dry_run::images_a_step(&self.config.settings, &self.data())?;
        let mut progress = Progress::new(begun, total, images);
        for step in begun..total {
            self.validate_if_due(state, log, step)?;
            if self.ranks.any(cli::stop_requested())? {
                // The others wait, for MPI ends all of them with the first.
                let saved = self.save(state, step);
                self.ranks.agree(saved)?;
                return Err(self.stopped(step));
            }
            let asked = Instant::now();
            let batch = batches.advance()?;
            let waited = asked.elapsed();
            let record = self.differentiate(batch, step)?;
            self.check_finite(&record, step, state)?;
            self.update(step)?;
            memory::preparing(false);
            state.means.add(&record);
            progress.step(step + 1, &record, self.schedule.learning_rate(step), waited);
            self.log_if_due(state, log, step + 1)?;
            self.save_if_due(state, step + 1)?;
        }
        Ok(progress.waited())
    }

    /// Makes the engine add up the gradient of a step.
    fn differentiate(&mut self, batch: &mut Batch, step: u64) -> Result<Record> {
        let s = &self.config.settings;
        let ramp_steps = s.ramp * self.schedule.steps_per_epoch as f64;
        let ramp = if ramp_steps > 0.0 { (step as f64 / ramp_steps).min(1.0) } else { 1.0 };
        let at = At { seed: self.config.seed, step, ramp };
        methods::step(&mut self.network, s, batch, at)
    }

    /// Moves the weights, and their average, by the gradient of a step.
    fn update(&mut self, step: u64) -> Result<()> {
        let s = &self.config.settings;
        self.network.engine.update(&Update {
            learning_rate: self.schedule.learning_rate(step),
            momentum: s.momentum,
            weight_decay: s.weight_decay,
            half_life: s.polyak_half_life * self.schedule.steps_per_epoch as f64,
        })
    }

    /// Logs the means since the last time, and the learning rate, after `done` steps.
    fn log_if_due(&self, state: &mut State, log: &mut MetricsLog, done: u64) -> Result<()> {
        let s = &self.config.settings;
        if !done.is_multiple_of(s.log_every) && done != self.schedule.total_steps {
            return Ok(());
        }
        let mut metrics = state.means.take(done);
        let learning_rate = self.schedule.learning_rate(done - 1);
        metrics.push(Metric {
            step: done,
            name: metric::LEARNING_RATE.into(),
            value: learning_rate,
        });
        log.add(&mut state.metrics, metrics)
    }

    fn check_finite(&self, record: &Record, step: u64, last: &State) -> Result<()> {
        match record.iter().find(|v| !v.value.is_finite()) {
            Some(v) => Err(self.diverged(format!("{} is {}", v.name, v.value), step, last)),
            None => Ok(()),
        }
    }

    /// What went wrong in `step`; `last` is the state of the last checkpoint.
    fn diverged(&self, what: String, step: u64, last: &State) -> Error {
        let named = |name: &str, set: &ImageSet| {
            let keys = self.images.keys(set, step);
            let more = match keys.len().saturating_sub(KEYS_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let keys = keys.into_iter().take(KEYS_NAMED).collect::<Vec<_>>();
            format!("{name} {}{more}", keys.join(", "))
        };
        let mut keys = named("labelled", &self.images.labelled);
        if self.images.unlabelled.batch > 0 {
            keys += &named("; unlabelled", &self.images.unlabelled);
        }
        let checkpoint = checkpoint::file(&self.out);
        Error::Diverged {
            path: self.out.clone(),
            what,
            step,
            keys,
            checkpoint: match artifact::exists(&checkpoint) {
                Ok(false) => "there is no checkpoint yet".into(),
                _ => format!("{} of step {} is kept", checkpoint.display(), last.step),
            },
        }
    }

    fn save_if_due(&mut self, state: &mut State, done: u64) -> Result<()> {
        let old = self.checkpoint_after.is_some_and(|after| self.saved.elapsed() >= after);
        let due = old || done.is_multiple_of(self.config.settings.checkpoint_every);
        match due && done < self.schedule.total_steps {
            true => self.save(state, done),
            false => Ok(()),
        }
    }

    /// What all runs up to now have used.
    fn used(&self, state: &State) -> Usage {
        Usage::since(self.began).and(state.used)
    }

    /// Checkpoints the run after `step` steps. Weights that are not finite are no state to go on
    /// from: they are an error, and the last checkpoint stays.
    fn save(&mut self, state: &mut State, step: u64) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        let weights = self.network.engine.get()?;
        let Weights { parameters, velocity, average, moving } = &weights;
        let mut all = [parameters, moving, velocity, average].into_iter().flatten();
        if let Some(w) = all.find(|w| !w.is_finite()) {
            return Err(self.diverged(format!("a weight is {w}"), step.saturating_sub(1), state));
        }
        state.step = step;
        state.ranks = self.ranks.size();
        checkpoint::save(&self.out, &self.identity, state, self.used(state), &weights)?;
        self.saved = Instant::now();
        Ok(())
    }

    fn stopped(&self, step: u64) -> Error {
        Error::Stopped { path: self.out.clone(), step, total: self.schedule.total_steps }
    }

    /// Validates before `step` if an epoch has passed, unless that was done before the run was
    /// stopped. A stop in the middle of it is left to the loop.
    fn validate_if_due(
        &mut self,
        state: &mut State,
        log: &mut MetricsLog,
        step: u64,
    ) -> Result<()> {
        let s = &self.config.settings;
        let every = ((s.validate_every * self.schedule.steps_per_epoch as f64) as u64).max(1);
        if step == 0 || !step.is_multiple_of(every) || is_validated(&state.metrics, step) {
            return Ok(());
        }
        match self.validate(state, log, step) {
            Err(Error::Interrupted { .. }) => Ok(()),
            result => result,
        }
    }

    fn validate(&mut self, state: &mut State, log: &mut MetricsLog, step: u64) -> Result<()> {
        let Some(v) = &self.validation else {
            return Ok(());
        };
        let views = v.pipe.output(self.config.architecture.channels)?.views;
        let classes = self.config.classes.len();
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        let own = rank * v.rows.len() / size..(rank + 1) * v.rows.len() / size;
        let (rows, labels) = (&v.rows[own.clone()], &v.labels[own]);
        let logits = logits::logits(&mut self.network, &v.split, rows, &v.pipe, "validating");
        // One rank that is told to stop stops all of them.
        if self.ranks.any(matches!(logits, Err(Error::Interrupted { .. })))? {
            return Err(Error::Interrupted { path: v.split.path().to_path_buf() });
        }
        let logits = logits?;
        let right = logits
            .chunks_exact(views * classes)
            .zip(labels)
            .filter(|(l, label)| argmax(&l[..classes]) == **label)
            .count();
        let right: u64 = self.ranks.gathered(&[right as u64])?.iter().sum();
        let value = right as f64 / v.labels.len() as f64;
        log.add(
            &mut state.metrics,
            vec![Metric { step, name: metric::VALIDATION_TOP1.into(), value }],
        )
    }

    /// Makes the weights to use and validates them. The weights that they are made from are saved
    /// first, since the validation may be stopped.
    fn finish(&mut self, state: &mut State, log: &mut MetricsLog) -> Result<()> {
        let total = self.schedule.total_steps;
        self.save(state, total)?;
        self.use_average()?;
        match self.validate(state, log, total) {
            Err(Error::Interrupted { .. }) => Err(self.stopped(total)),
            result => result,
        }
    }

    /// The weights to use: averaged with Polyak, with batch-norm statistics that fit them.
    fn use_average(&mut self) -> Result<()> {
        let s = &self.config.settings;
        if s.polyak_half_life > 0.0 {
            let mut weights = self.network.engine.get()?;
            weights.parameters = std::mem::take(&mut weights.average);
            self.network.engine.put(weights)?;
        }
        match s.batch_norm_batches {
            0 => Ok(()),
            batches => self.recompute_statistics(batches as u64),
        }
    }

    /// Batch-norm statistics of the weights in the network, over so many batches of training images.
    fn recompute_statistics(&mut self, count: u64) -> Result<()> {
        let mut images = (*self.images).clone();
        for set in [&mut images.labelled, &mut images.unlabelled] {
            set.order = Stream::BatchNormOrder;
            set.augment = Stream::BatchNormAugment;
        }
        let mut batches = Arc::new(images).batches(0, count);
        for index in 0..count {
            let batch = batches.advance()?;
            self.network.recompute_statistics(&mut batch.images, index as usize)?;
        }
        Ok(())
    }

    /// Writes the model folder.
    fn commit(&self, metrics: &[Metric], events: &[u8]) -> Result<()> {
        let staged = TemporaryFolder::beside(&self.out.join(schema::WEIGHTS))?;
        let path = staged.path();
        metrics::write(path, metrics, &self.lineage)?;
        artifact::write_bytes(&path.join(schema::EVENTS), events)?;
        let card = card::markdown(&self.config, &self.lineage, metrics);
        artifact::write_bytes(&path.join(schema::MODEL_CARD), card.as_bytes())?;
        folder::write(path, &self.config, &self.network.engine.get()?, &self.lineage)?;
        folder::commit(path, &self.out)?;
        checkpoint::remove(&self.out)?;
        MetricsLog::remove(&self.out)
    }

    /// Removes what this run left beside a finished model when it was killed at its very end.
    pub fn clear(&self) -> Result<()> {
        if !checkpoint::is_of(&self.out, &self.identity) {
            return Ok(());
        }
        checkpoint::remove(&self.out)?;
        MetricsLog::remove(&self.out)
    }
}

/// A run may have been stopped between a step and its validation.
fn is_validated(metrics: &[Metric], step: u64) -> bool {
    let mut last = metrics.iter().rev().take_while(|m| m.step == step);
    last.any(|m| m.name == metric::VALIDATION_TOP1)
}
