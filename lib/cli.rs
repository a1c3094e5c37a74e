//! What the binaries share: groups of options, of which a stage takes those that it obeys; how `main`
//! runs a stage; messages on stderr, progress, and the stop flag.

use crate::error::{Error, Result};
use crate::memory;
use crate::schema;
use crate::usage::Usage;
use clap::ValueEnum;
use clap_complete::Shell;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Heading in a help text of the options about where and how a stage computes.
pub const COMPUTING: &str = "Computing";

/// Options of the stages that read shards.
#[derive(Debug, clap::Args)]
pub struct InputShards {
    /// Shards made by s4l-shard
    #[arg(long = "in", value_name = "SHARDS", default_value = schema::SHARDS, display_order = 0)]
    pub path: PathBuf,
}

/// Options of the stages that draw at random.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = COMPUTING)]
pub struct Seed {
    /// Random seed
    #[arg(long = "seed", default_value_t = 0, value_name = "N")]
    pub value: u64,
}

/// Options of the stages that run long.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
#[command(next_help_heading = COMPUTING)]
pub struct Limits {
    /// Number of worker threads; the results do not depend on it [default: the cores it may use]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Stop after N seconds with exit code 75; a training stage writes a checkpoint first
    #[arg(long, value_name = "N")]
    max_seconds: Option<u64>,
    /// Use at most this much memory, in MB [default: what the system allows]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(1..1 << 40))]
    max_memory: Option<u64>,
}

impl Limits {
    /// The number of worker threads, at most a few per core.
    pub fn threads(&self) -> usize {
        let cores = cores();
        self.threads.map_or(cores, |threads| threads.min(cores.max(MOST_THREADS / 4) * 4))
    }
}

/// Cores that this process may use. If a scheduler grants cores without binding the process to them, the
/// system reports all of the machine.
fn cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let given = std::env::var("SLURM_CPUS_PER_TASK").ok().and_then(|text| text.parse().ok());
    given.map_or(cores, |given: usize| given.clamp(1, cores))
}

/// Options of the stages that run a network.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = COMPUTING)]
pub struct Computing {
    #[command(flatten)]
    pub seed: Seed,
    #[command(flatten)]
    pub limits: Limits,
    /// Device to compute on: cpu, cuda or cuda:N (a GPU), or auto (a GPU if there is one)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
}

/// Options of every stage about its result.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Result")]
pub struct Output {
    /// Path of the output
    #[arg(short, long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Replace an existing output
    #[arg(short, long)]
    pub force: bool,
    /// Replace an output made from other inputs or settings; wait if another run is making it
    #[arg(long, conflicts_with = "force")]
    pub update: bool,
    /// Print the plan and stop
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

impl Output {
    /// The output path, or `default` when none was given.
    pub fn out_or(&self, default: &str) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from(default))
    }

    /// Whether an output of other inputs may be replaced.
    pub fn may_replace(&self) -> bool {
        self.force || self.update
    }
}

/// Options of every stage about its messages.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Messages")]
pub struct Messages {
    /// Print only warnings and errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Format of the messages on stderr
    #[arg(long, default_value = "text", value_parser = ["text", "json"], value_name = "FORMAT")]
    log_format: String,
    /// Print a completion script for this shell and stop
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,
}

/// Implemented by the `Args` of each stage.
pub trait Stage: clap::Parser {
    fn messages(&self) -> &Messages;
    /// Whether messages other than warnings and errors are left out.
    fn quiet(&self) -> bool {
        self.messages().quiet
    }
    /// The limits of the command line, for a stage that takes them.
    fn limits(&self) -> Limits {
        Limits::default()
    }
    /// Whether several processes with one command line are what is meant: each makes a part of the output,
    /// or they are ranks of one training.
    fn is_part(&self) -> bool {
        false
    }
    /// Whether this process says what is wrong with the command line, which others may have too.
    fn tells_usage() -> bool {
        true
    }
    fn run(self) -> Result<()>;
}

/// Threads that are allowed on a machine with few cores. More would only wait for one another, and the
/// results do not depend on them.
const MOST_THREADS: usize = 64;

struct Log {
    program: String,
    quiet: bool,
    json: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();
/// Set by a signal.
static STOP: AtomicBool = AtomicBool::new(false);
/// The moment at which `--max-seconds` have passed.
static DEADLINE: OnceLock<Instant> = OnceLock::new();
/// Set by the first Ctrl-C.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Set in ranks that leave the words to the first one.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Set when there was nothing to do.
static UP_TO_DATE: AtomicBool = AtomicBool::new(false);

/// The exit code of a process that SIGINT ended, as shells have it.
const INTERRUPT_CODE: i32 = 130;

/// The whole of every binary's `main`.
pub fn main<S: Stage>() -> ExitCode {
    let start = Instant::now();
    let signals = catch_signals();
    if let Some(script) = completions::<S>() {
        return finish(signals.and_then(|()| print(&script)));
    }
    let stage = S::try_parse().unwrap_or_else(|e| match S::tells_usage() {
        true => e.exit(),
        false => std::process::exit(e.exit_code()),
    });
    let result = signals.and_then(|()| prepare(&stage, start)).and_then(|()| stage.run());
    if result.is_ok() && !UP_TO_DATE.load(Ordering::Relaxed) {
        info(&format!("{}: done in {}", program(), Usage::since(start)));
    }
    finish(result)
}

/// The completion script, if the command line asks for that and nothing else.
fn completions<S: Stage>() -> Option<String> {
    let words: Vec<String> =
        std::env::args_os().skip(1).filter_map(|word| word.into_string().ok()).collect();
    let [option, shell] = &words[..] else {
        return None;
    };
    let shell = Shell::from_str(shell, true).ok().filter(|_| option == "--completions")?;
    let (mut command, mut script) = (S::command(), Vec::new());
    let name = command.get_name().to_string();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8(script).ok()
}

/// The exit code of a stage; prints its error.
fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            write(&error_line(&e));
            ExitCode::from(e.exit_code())
        }
    }
}

fn prepare<S: Stage>(stage: &S, start: Instant) -> Result<()> {
    let limits = stage.limits();
    LOG.get_or_init(|| Log {
        program: S::command().get_name().to_string(),
        quiet: stage.quiet(),
        json: stage.messages().log_format == "json",
    });
    if !stage.is_part() {
        refuse_copies()?;
    }
    if limits.threads == Some(0) {
        return Err(Error::Usage("--threads 0: give at least 1".into()));
    }
    if let Some(megabytes) = limits.max_memory {
        memory::limit(megabytes << 20)?;
    }
    let threads = limits.threads();
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        // The panic itself prints a message, and whoever waits for the task sees that it has ended.
        .panic_handler(|_| ())
        .build_global()
        .map_err(|e| Error::Usage(format!("--threads {threads}: {e}; give fewer")))?;
    // A deadline beyond the range of the clock means no deadline.
    let deadline = limits.max_seconds.and_then(|s| start.checked_add(Duration::from_secs(s)));
    if let Some(deadline) = deadline {
        DEADLINE.get_or_init(|| deadline);
    }
    Ok(())
}

/// Errors if this process is one of several that were started at once with one command line, as
/// `srun -n4` and `mpirun` do: all of them would make the same output.
fn refuse_copies() -> Result<()> {
    for name in ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let tasks = std::env::var(name).ok().and_then(|text| text.parse().ok());
        if let Some(tasks @ 2u64..) = tasks {
            return Err(Error::Usage(format!(
                "started as {tasks} tasks of one step ({name}), and each would make the whole \
                 output; start one task, as srun -n1 does, or split the work with --part if the stage has it; \
                 training takes several in programs built with --features mpi"
            )));
        }
    }
    Ok(())
}

/// Makes signals request a stop, however many arrive: schedulers, `timeout` and make send several.
/// Only the second Ctrl-C of a terminal ends the process at once.
fn catch_signals() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        if signal == libc::SIGHUP && ignores_hangup() {
            continue;
        }
        let handler = move |info: &libc::siginfo_t| {
            STOP.store(true, Ordering::Relaxed);
            // A key typed at a terminal makes the kernel send the signal.
            let typed = signal == libc::SIGINT && info.si_code == libc::SI_KERNEL;
            if typed && INTERRUPTED.swap(true, Ordering::Relaxed) {
                // SAFETY: `_exit` may be called in a signal handler.
                unsafe { libc::_exit(INTERRUPT_CODE) }
            }
        };
        // SAFETY: the handler sets atomic flags and calls what may be called in a signal handler.
        unsafe { signal_hook_registry::register_sigaction(signal, handler) }
            .map_err(|e| Error::Internal(e.to_string()))?;
    }
    Ok(())
}

/// Whether `nohup` or the like started this process.
fn ignores_hangup() -> bool {
    // SAFETY: with no new action `sigaction` fills the struct that it is given with the one in force.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut action);
        action.sa_sigaction == libc::SIG_IGN
    }
}

/// True once a signal has come or `--max-seconds` have passed.
pub fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed) || DEADLINE.get().is_some_and(|&d| Instant::now() >= d)
}

/// A word of a command line, quoted for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_=+.,:/@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// One line for people, on stderr; silent under `--quiet`.
pub fn info(message: &str) {
    if !LOG.get().is_some_and(|l| l.quiet) {
        say("info", message);
    }
}

/// Progress on stderr: `text` for people, or `fields` as JSON; silent under `--quiet`.
pub fn report(text: &str, mut fields: serde_json::Value) {
    match LOG.get() {
        Some(log) if log.quiet => {}
        Some(log) if log.json => {
            fields["level"] = "info".into();
            write(&format!("{fields}\n"));
        }
        _ => write(&format!("{text}\n")),
    }
}

/// Says that an output is up to date. A run that does nothing else prints no closing line.
pub fn up_to_date(out: &Path) {
    UP_TO_DATE.store(true, Ordering::Relaxed);
    info(&format!("{}: up to date", out.display()));
}

/// Makes the run print its closing line.
pub fn made() {
    UP_TO_DATE.store(false, Ordering::Relaxed);
}

/// One line for people, on stderr, also under `--quiet`.
pub fn warn(message: &str) {
    say("warning", message);
}

/// The result of a command, on stdout. A reader that has seen enough (`| head`) is no error.
pub fn print(result: &str) -> Result<()> {
    if SILENT.load(Ordering::Relaxed) {
        return Ok(());
    }
    match std::io::stdout().write_all(result.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io(Path::new("stdout"))(e))
        }
        _ => Ok(()),
    }
}

/// The line that a process prints when it ends with an error.
pub fn error_line(error: &Error) -> String {
    line("error", &format!("{}: {error}", program()))
}

fn say(level: &str, message: &str) {
    write(&line(level, message));
}

/// Prints the error that a process ends with before its end.
pub fn last_words(error: &Error) {
    write(&error_line(error));
    silence();
}

/// Writes and prints nothing from now on: another rank has the same to say.
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

fn write(line: &str) {
    if SILENT.load(Ordering::Relaxed) {
        return;
    }
    // The work continues if the log is full or closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn line(level: &str, message: &str) -> String {
    if LOG.get().is_some_and(|l| l.json) {
        serde_json::json!({"level": level, "message": message}).to_string() + "\n"
    } else if level == "info" {
        format!("{message}\n")
    } else {
        format!("{level}: {message}\n")
    }
}

fn program() -> &'static str {
    LOG.get().map_or("s4l", |log| &log.program)
}

/// A progress bar on a terminal; nothing in a log file or under `--quiet`.
pub fn progress(total: u64, what: &'static str) -> ProgressBar {
    let style = "{msg} {wide_bar} {pos}/{len} {elapsed} eta {eta}";
    bar(ProgressBar::new(total), what, style)
}

/// As `progress`, with a message beside a short bar, cut at the width of the terminal.
pub fn progress_with_words(total: u64) -> ProgressBar {
    bar(ProgressBar::new(total), "", "{bar:20} {pos}/{len} {wide_msg}")
}

/// As `progress`, in bytes of an unknown total.
pub fn progress_bytes(what: &'static str) -> ProgressBar {
    let style = "{msg} {bytes} {elapsed} {bytes_per_sec}";
    bar(ProgressBar::no_length(), what, style)
}

fn bar(bar: ProgressBar, what: &'static str, style: &str) -> ProgressBar {
    if SILENT.load(Ordering::Relaxed) || LOG.get().is_some_and(|l| l.quiet || l.json) {
        return ProgressBar::hidden();
    }
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.with_message(what)
}
