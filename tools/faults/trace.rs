//! Runs a command under ptrace, and injects a fault at one of its calls.
//!
//! seccomp stops the threads of the command and of all its children at the calls that may count, one at a
//! time. So calls are numbered over all threads, whichever library makes them.

use super::calls::{self, Call, Counted};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{Error, Read, Result};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What is done at a call. Calls are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The whole process group is killed, before the call or after it.
    Kill {
        at: usize,
        after: bool,
    },
    /// The call fails; with `onwards`, all later calls fail too.
    Fail {
        at: usize,
        errno: i32,
        onwards: bool,
    },
    /// The call writes half of what it should.
    Short {
        at: usize,
    },
    /// The process group receives these signals before the call, with a pause between them.
    Signal {
        at: usize,
        signals: Vec<Signal>,
        pause: Duration,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Killed(Signal),
}

impl End {
    /// The exit code as shells report it.
    pub fn code(self) -> i32 {
        match self {
            End::Exit(code) => code,
            End::Killed(signal) => 128 + signal as i32,
        }
    }
}

/// The result of a run.
#[derive(Debug)]
pub struct Ran {
    pub end: End,
    pub calls: Vec<Call>,
    /// Number of calls that were changed.
    pub injected: usize,
    /// Killed at the time limit.
    pub hung: bool,
    /// Empty unless output was piped.
    pub stderr: String,
}

/// Called at each counted call before it continues, with its number.
pub type Watch<'a> = &'a mut dyn FnMut(usize, &Call);

/// Runs a command until it and all its children have ended.
pub fn run(
    mut command: Command,
    counted: Counted,
    fault: &Fault,
    limit: Duration,
    watch: Watch,
) -> Result<Ran> {
    let filter = calls::filter(counted)?;
    command.process_group(0);
    // SAFETY: the closure runs in the child before exec and makes two system calls there.
    unsafe {
        command.pre_exec(move || {
            ptrace::traceme()?;
            seccompiler::apply_filter(&filter).map_err(Error::other)
        });
    }
    // If exec failed, reporting the error would need calls that now stop, and nobody would continue them.
    executable(command.get_program())?;
    let mut child = command.spawn()?;
    let main = Pid::from_raw(child.id() as i32);
    // The command has stopped at the end of exec.
    let WaitStatus::Stopped(..) = waitpid(main, None)? else {
        return Err(Error::other("the command may not be traced"));
    };
    let options = Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(main, options)?;
    let stderr = reader(child.stderr.take());
    let watchdog = Watchdog::new(main, limit);
    let mut tracer = Tracer::new(main, counted, fault, watch);
    ptrace::cont(main, None)?;
    let end = tracer.follow()?;
    tracer.pauses.into_iter().for_each(|thread| drop(thread.join()));
    let stderr = stderr.join().unwrap_or_default();
    let hung = watchdog.stop();
    Ok(Ran { end, calls: tracer.calls, injected: tracer.injected, hung, stderr })
}

/// Checks that the program exists.
fn executable(program: &OsStr) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).map(|folder| folder.join(program));
    let by_itself = Path::new(program).components().count() > 1;
    let mut places = std::iter::once(program.into()).filter(|_| by_itself).chain(folders);
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    match places.find(runs) {
        Some(_) => Ok(()),
        None => Err(Error::other(format!("{}: no such program", program.display()))),
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

struct Tracer<'a> {
    main: Pid,
    counted: Counted,
    fault: &'a Fault,
    watch: Watch<'a>,
    /// All living threads.
    threads: HashSet<Pid>,
    calls: Vec<Call>,
    injected: usize,
    /// The thread whose return from a call kills the process group.
    leaving: Option<Pid>,
    /// Pause between signals.
    pauses: Vec<JoinHandle<()>>,
}

impl<'a> Tracer<'a> {
    fn new(main: Pid, counted: Counted, fault: &'a Fault, watch: Watch<'a>) -> Tracer<'a> {
        Tracer {
            main,
            counted,
            fault,
            watch,
            threads: HashSet::from([main]),
            calls: Vec::new(),
            injected: 0,
            leaving: None,
            pauses: Vec::new(),
        }
    }

    /// Follows all threads until none is left; returns how the command ended.
    fn follow(&mut self) -> Result<End> {
        let mut end = None;
        // Only children of this thread: other threads of this process may trace too.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(Pid::from_raw(-1), Some(flags)) {
                Ok(WaitStatus::Exited(thread, code)) => {
                    self.threads.remove(&thread);
                    end = end.or((thread == self.main).then_some(End::Exit(code)));
                }
                Ok(WaitStatus::Signaled(thread, signal, _)) => {
                    self.threads.remove(&thread);
                    end = end.or((thread == self.main).then_some(End::Killed(signal)));
                }
                Ok(status) => self.stopped(status),
                Err(nix::Error::EINTR) => (),
                Err(nix::Error::ECHILD) => break,
                Err(e) => return Err(e.into()),
            }
        }
        end.ok_or_else(|| Error::other("the command's end was not seen"))
    }

    /// Continues a stopped thread. A thread that was killed meanwhile gives errors here, and its end later.
    fn stopped(&mut self, status: WaitStatus) {
        const SECCOMP: i32 = Event::PTRACE_EVENT_SECCOMP as i32;
        let _ = match status {
            WaitStatus::PtraceEvent(thread, _, SECCOMP) => self.at_call(thread),
            WaitStatus::PtraceSyscall(thread) => {
                if self.leaving == Some(thread) {
                    self.kill();
                }
                ptrace::cont(thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => ptrace::cont(thread, None),
            // A new thread starts stopped.
            WaitStatus::Stopped(thread, Signal::SIGSTOP) if self.threads.insert(thread) => {
                ptrace::cont(thread, None)
            }
            WaitStatus::Stopped(thread, signal) => ptrace::cont(thread, signal),
            _ => Ok(()),
        };
    }

    fn at_call(&mut self, thread: Pid) -> nix::Result<()> {
        let registers = ptrace::getregs(thread)?;
        let Some(call) = calls::of_thread(thread.as_raw(), &registers, self.counted) else {
            return ptrace::cont(thread, None);
        };
        let number = self.calls.len() + 1;
        (self.watch)(number, &call);
        self.calls.push(call);
        match self.fault {
            &Fault::Kill { at, after } if number == at => {
                self.injected += 1;
                if after {
                    self.leaving = Some(thread);
                    return ptrace::syscall(thread, None);
                }
                self.kill();
            }
            &Fault::Fail { at, errno, onwards } if number == at || onwards && number > at => {
                self.injected += 1;
                let mut registers = registers;
                // A call number that does not exist, and the result of the call.
                registers.orig_rax = u64::MAX;
                registers.rax = i64::from(-errno) as u64;
                ptrace::setregs(thread, registers)?;
            }
            &Fault::Short { at } if number == at => {
                let shorter = shortened(thread, registers);
                self.injected += usize::from(shorter.is_some());
                ptrace::setregs(thread, shorter.unwrap_or(registers))?;
            }
            Fault::Signal { at, signals, pause } if number == *at => {
                self.injected += 1;
                self.send(signals, *pause);
            }
            _ => (),
        }
        ptrace::cont(thread, None)
    }

    /// The process group, and the processes that have left it.
    fn kill(&self) {
        let _ = killpg(self.main, Signal::SIGKILL);
        for &thread in &self.threads {
            let _ = kill(thread, Signal::SIGKILL);
        }
    }

    fn send(&mut self, signals: &[Signal], pause: Duration) {
        let group = self.main;
        let (Some(&first), rest) = (signals.first(), signals[1..].to_vec()) else { return };
        let _ = killpg(group, first);
        if pause.is_zero() {
            for signal in rest {
                let _ = killpg(group, signal);
            }
            return;
        }
        self.pauses.push(thread::spawn(move || {
            for signal in rest {
                thread::sleep(pause);
                let _ = killpg(group, signal);
            }
        }));
    }
}

/// The registers for half of a write; `None` if the call is no write, or writes one byte.
fn shortened(thread: Pid, mut registers: libc::user_regs_struct) -> Option<libc::user_regs_struct> {
    let length = match registers.orig_rax as libc::c_long {
        libc::SYS_write | libc::SYS_pwrite64 => &mut registers.rdx,
        libc::SYS_sendfile => &mut registers.r10,
        libc::SYS_copy_file_range | libc::SYS_splice => &mut registers.r8,
        // Half of the first of its buffers.
        libc::SYS_writev => {
            let mut piece = [0; 16];
            calls::read(thread.as_raw(), registers.rsi, &mut piece).ok()?;
            let [address, length] = [0, 8].map(|at| {
                let bytes = piece[at..].first_chunk().copied().unwrap_or_default();
                u64::from_ne_bytes(bytes)
            });
            (registers.rsi, registers.rdx) = (address, length);
            registers.orig_rax = libc::SYS_write as u64;
            &mut registers.rdx
        }
        _ => return None,
    };
    *length /= 2;
    (*length > 0).then_some(registers)
}

/// Kills a process group at a time limit.
struct Watchdog {
    thread: JoinHandle<()>,
    hung: Arc<AtomicBool>,
    ended: mpsc::Sender<()>,
}

impl Watchdog {
    fn new(group: Pid, limit: Duration) -> Watchdog {
        let hung = Arc::new(AtomicBool::new(false));
        let (ended, wait) = mpsc::channel();
        let set = hung.clone();
        let thread = thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                set.store(true, Ordering::Relaxed);
                let _ = killpg(group, Signal::SIGKILL);
            }
        });
        Watchdog { thread, hung, ended }
    }

    /// Whether the time limit was reached.
    fn stop(self) -> bool {
        drop(self.ended);
        let _ = self.thread.join();
        self.hung.load(Ordering::Relaxed)
    }
}
