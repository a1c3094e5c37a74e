//! A stage and those who start it: keys typed at its terminal, and messages that cannot be written.

use crate::common::Scratch;
use crate::common::training::{labelled_shards, model, pretrain, pretrain_words, words};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INSPECT: &str = env!("CARGO_BIN_EXE_s4l-inspect");
const PRETRAIN: &str = env!("CARGO_BIN_EXE_s4l-pretrain");

fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(60), "waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether SIGINT is in a signal set of a process: `SigCgt`, the signals with a handler; `ShdPnd`, the
/// signals that no thread has handled yet.
fn interrupts_in(set: &str, child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let signals = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':'));
    u64::from_str_radix(signals.unwrap().trim(), 16).unwrap() & (1 << (libc::SIGINT - 1)) != 0
}

/// A stage at a terminal of its own that waits for a pipe that nobody writes; and the other end of the
/// terminal.
fn at_a_terminal(scratch: &Scratch) -> (Child, File) {
    let pipe = scratch.path("pipe.parquet");
    let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the name ends in 0; the two numbers are written by `openpty` and owned from then on.
    let (keys, terminal) = unsafe {
        assert_eq!(libc::mkfifo(name.as_ptr(), 0o600), 0);
        let (mut keys, mut terminal) = (0, 0);
        let (name, termios, size) = (std::ptr::null_mut(), std::ptr::null(), std::ptr::null());
        assert_eq!(libc::openpty(&mut keys, &mut terminal, name, termios, size), 0);
        (File::from_raw_fd(keys), File::from_raw_fd(terminal))
    };
    let number = terminal.as_raw_fd();
    let mut command = Command::new(INSPECT);
    command.arg(&pipe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            libc::ioctl(number, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let child = command.spawn().unwrap();
    until("it catches signals", || interrupts_in("SigCgt", &child));
    (child, keys)
}

#[test]
fn the_second_ctrl_c_ends_a_stage_at_once() {
    let scratch = Scratch::new();
    let (mut child, mut keys) = at_a_terminal(&scratch);
    // SAFETY: the process is our child and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    // Two signals of a kind count once if the second comes before the first is handled.
    until("the signal is handled", || !interrupts_in("ShdPnd", &child));
    keys.write_all(b"\x03").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    until("the first Ctrl-C is handled", || !interrupts_in("ShdPnd", &child));
    assert!(child.try_wait().unwrap().is_none(), "one signal and one Ctrl-C only ask for a stop");
    keys.write_all(b"\x03").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn words_that_cannot_be_written_end_no_training() {
    let scratch = labelled_shards();
    pretrain(&scratch, "supervised_10p", "whole", "").ok();
    for (out, place) in [("full", "/dev/full"), ("closed", "/dev/null")] {
        let line = pretrain_words("supervised_10p", out, "").replace(" -q", "");
        let log = File::options().write(true).open(place).unwrap();
        let mut command = Command::new(PRETRAIN);
        command.args(words(&line)).current_dir(scratch.path(".")).stderr(log);
        if out == "closed" {
            // SAFETY: the call may be made between fork and exec.
            unsafe {
                command.pre_exec(|| {
                    libc::close(2);
                    Ok(())
                });
            }
        }
        assert_eq!(command.status().unwrap().code(), Some(0), "{out}");
        assert_eq!(model(&scratch, "whole"), model(&scratch, out), "{out}");
    }
}
