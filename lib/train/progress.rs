//! Progress of a run: a line now and then in a log, a bar at a terminal. It writes to
//! stderr only, and no output depends on it.

use super::log::RunningMeans;
use crate::cli;
use crate::methods::main_pass::Record;
use indicatif::{HumanDuration, ProgressBar};
use serde_json::json;
use std::time::{Duration, Instant};

/// Time between two lines in a log.
const LINE: Duration = Duration::from_secs(30);
/// Time between two changes of the text beside a bar.
const BAR: Duration = Duration::from_secs(1);
/// Time after which the rate of steps is known.
const KNOWN: Duration = Duration::from_secs(2);

/// The progress of a run.
pub struct Progress {
    bar: ProgressBar,
    /// Steps of the run, and images of each.
    total: u64,
    images: usize,
    /// Since this process began the run.
    whole: Window,
    /// Since the last line.
    last: Window,
    means: RunningMeans,
    /// Whether the expected time has been said.
    expected: bool,
}

/// From some step on.
#[derive(Clone, Copy)]
struct Window {
    step: u64,
    start: Instant,
    waited: Duration,
}

impl Window {
    fn from(step: u64) -> Window {
        Window { step, start: Instant::now(), waited: Duration::ZERO }
    }

    /// Steps a second, once `done` are done.
    fn rate(&self, done: u64) -> f64 {
        (done - self.step) as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }
}

impl Progress {
    /// For a run of `total` steps that continues from `step`.
    pub fn new(step: u64, total: u64, images: usize) -> Progress {
        let bar = cli::progress_with_words(total);
        bar.set_position(step);
        let (whole, last) = (Window::from(step), Window::from(step));
        Progress {
            bar,
            total,
            images,
            whole,
            last,
            means: RunningMeans::default(),
            expected: false,
        }
    }

    /// After `done` steps; the last one measured `record`, had this learning rate, and waited so long
    /// for its images.
    pub fn step(&mut self, done: u64, record: &Record, learning_rate: f64, waited: Duration) {
        self.means.add(record);
        self.whole.waited += waited;
        self.last.waited += waited;
        self.bar.set_position(done);
        if !self.expected && self.whole.start.elapsed() >= KNOWN {
            self.expected = true;
            self.say_expected(done);
        }
        let is_bar = !self.bar.is_hidden();
        if self.last.start.elapsed() >= if is_bar { BAR } else { LINE } {
            self.say(done, learning_rate, is_bar);
            self.last = Window::from(done);
        }
    }

    /// The time that the rest will take.
    fn left(&self, done: u64) -> Duration {
        let seconds = (self.total - done) as f64 / self.whole.rate(done);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn say_expected(&self, done: u64) {
        let (left, rate) = (self.left(done), self.whole.rate(done));
        let text =
            format!("time       about {} left, {rate:.3} steps a second", HumanDuration(left));
        let fields = json!({
            "message": "expected time",
            "seconds_left": left.as_secs_f64(),
            "steps_per_second": rate,
        });
        self.bar.suspend(|| cli::report(&text, fields));
    }

    /// Prints the progress since the last time.
    fn say(&mut self, done: u64, learning_rate: f64, on_bar: bool) {
        let left = self.left(done);
        let waiting = self.last.waited.as_secs_f64() / self.last.start.elapsed().as_secs_f64();
        let images = self.last.rate(done) * self.images as f64;
        let metrics = std::mem::take(&mut self.means).take(done);
        let values: String = metrics
            .iter()
            .map(|metric| format!(", {} {}", metric.name, short(metric.value)))
            .collect();
        let text = format!(
            "{} left, {images:.1} images/s, {:.0}% waiting for images, learning rate {}{values}",
            HumanDuration(left),
            100.0 * waiting,
            short(learning_rate),
        );
        if on_bar {
            return self.bar.set_message(text);
        }
        let message = format!("step {done} of {}, {text}", self.total);
        let metrics: serde_json::Map<_, _> =
            metrics.into_iter().map(|metric| (metric.name, metric.value.into())).collect();
        let fields = json!({
            "message": message,
            "step": done,
            "steps": self.total,
            "seconds_left": left.as_secs_f64(),
            "images_per_second": images,
            "waiting": waiting,
            "learning_rate": learning_rate,
            "metrics": metrics,
        });
        cli::report(&message, fields);
    }

    /// The time that was spent waiting for images.
    pub fn waited(&self) -> Duration {
        self.whole.waited
    }
}

/// Three digits of a number.
fn short(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
