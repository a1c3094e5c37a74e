//! The system calls that count, and the file of each.

use libc::user_regs_struct;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The calls that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Counted {
    /// Calls that change a regular file, or a folder
    Changes,
    /// Those, and every open of a regular file
    Opens,
    /// Writes to standard output and standard error
    Words,
}

/// A counted call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: &'static str,
    /// The file; for a rename or link, the new name.
    pub path: PathBuf,
}

/// The argument by which a call names its file.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// As an open file.
    Fd(usize),
    /// By a path from the working directory.
    Path(usize),
    /// By a path from an open folder.
    At(usize, usize),
}
use Place::{At, Fd, Path as Name};

/// An open counts only with certain flags.
#[derive(Debug, Clone, Copy)]
enum Flags {
    None,
    Argument(usize),
    /// In the structure to which this argument points.
    Behind(usize),
}

/// Flags of an open that may change a file.
const CHANGING: [i32; 4] = [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC];

/// Writing by `mmap` or `io_uring` is not seen.
const CALLS: &[(libc::c_long, &str, Place)] = &[
    (libc::SYS_write, "write", Fd(0)),
    (libc::SYS_pwrite64, "pwrite64", Fd(0)),
    (libc::SYS_writev, "writev", Fd(0)),
    (libc::SYS_pwritev, "pwritev", Fd(0)),
    (libc::SYS_pwritev2, "pwritev2", Fd(0)),
    (libc::SYS_sendfile, "sendfile", Fd(0)),
    (libc::SYS_copy_file_range, "copy_file_range", Fd(2)),
    (libc::SYS_splice, "splice", Fd(2)),
    (libc::SYS_fsync, "fsync", Fd(0)),
    (libc::SYS_fdatasync, "fdatasync", Fd(0)),
    (libc::SYS_sync_file_range, "sync_file_range", Fd(0)),
    (libc::SYS_ftruncate, "ftruncate", Fd(0)),
    (libc::SYS_fallocate, "fallocate", Fd(0)),
    (libc::SYS_fchmod, "fchmod", Fd(0)),
    (libc::SYS_open, "open", Name(0)),
    (libc::SYS_openat, "openat", At(0, 1)),
    (libc::SYS_openat2, "openat2", At(0, 1)),
    (libc::SYS_creat, "creat", Name(0)),
    (libc::SYS_rename, "rename", Name(1)),
    (libc::SYS_renameat, "renameat", At(2, 3)),
    (libc::SYS_renameat2, "renameat2", At(2, 3)),
    (libc::SYS_link, "link", Name(1)),
    (libc::SYS_linkat, "linkat", At(2, 3)),
    (libc::SYS_symlink, "symlink", Name(1)),
    (libc::SYS_symlinkat, "symlinkat", At(1, 2)),
    (libc::SYS_unlink, "unlink", Name(0)),
    (libc::SYS_unlinkat, "unlinkat", At(0, 1)),
    (libc::SYS_rmdir, "rmdir", Name(0)),
    (libc::SYS_mkdir, "mkdir", Name(0)),
    (libc::SYS_mkdirat, "mkdirat", At(0, 1)),
    (libc::SYS_truncate, "truncate", Name(0)),
    (libc::SYS_chmod, "chmod", Name(0)),
    (libc::SYS_fchmodat, "fchmodat", At(0, 1)),
    (libc::SYS_utimensat, "utimensat", At(0, 1)),
];

fn flags(number: libc::c_long) -> Flags {
    match number {
        libc::SYS_open => Flags::Argument(1),
        libc::SYS_openat => Flags::Argument(2),
        libc::SYS_openat2 => Flags::Behind(2),
        _ => Flags::None,
    }
}

/// A seccomp program that stops a process only at the calls that may count, so reading costs nothing.
pub fn filter(counted: Counted) -> Result<BpfProgram> {
    let calls = CALLS.iter().map(|&(number, _, _)| {
        let rules = match flags(number) {
            Flags::Argument(argument) if counted == Counted::Changes => changing(argument)?,
            // No rule: every call counts.
            _ => Vec::new(),
        };
        Ok((number, rules))
    });
    let calls = calls.collect::<seccompiler::Result<_>>().map_err(Error::other)?;
    let (others, these) = (SeccompAction::Allow, SeccompAction::Trace(0));
    let filter = SeccompFilter::new(calls, others, these, TargetArch::x86_64);
    filter.and_then(BpfProgram::try_from).map_err(Error::other)
}

/// One rule per flag.
fn changing(argument: usize) -> seccompiler::Result<Vec<SeccompRule>> {
    let rules = CHANGING.iter().map(|&flag| {
        let flag = flag as u64;
        let set = SeccompCmpOp::MaskedEq(flag);
        let condition = SeccompCondition::new(argument as u8, SeccompCmpArgLen::Dword, set, flag)?;
        Ok(SeccompRule::new(vec![condition])?)
    });
    rules.collect()
}

/// The call at which a thread stands, if it counts.
pub fn of_thread(thread: i32, registers: &user_regs_struct, counted: Counted) -> Option<Call> {
    let r = registers;
    let arguments = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
    let number = r.orig_rax as libc::c_long;
    let &(_, name, place) = CALLS.iter().find(|c| c.0 == number)?;
    if counted == Counted::Words {
        let Fd(0) = place else { return None };
        let words = name.contains("write") && [1, 2].contains(&arguments[0]);
        return words.then(|| Call { name, path: open_file(thread, arguments[0]) });
    }
    let changes = match flags(number) {
        Flags::None => true,
        Flags::Argument(argument) => may_change(arguments[argument]),
        Flags::Behind(argument) => {
            let mut flags = [0; 8];
            read(thread, arguments[argument], &mut flags).ok()?;
            may_change(u64::from_ne_bytes(flags))
        }
    };
    if !changes && counted == Counted::Changes {
        return None;
    }
    let path = path_of(thread, place, &arguments)?;
    let pseudo = ["/dev", "/proc", "/sys"].iter().any(|root| path.starts_with(root));
    (!pseudo || path.starts_with("/dev/shm")).then_some(Call { name, path })
}

fn may_change(flags: u64) -> bool {
    CHANGING.iter().any(|&flag| flags & flag as u64 != 0)
}

/// The path of a regular file or folder, `None` for pipes, sockets and the like.
fn path_of(thread: i32, place: Place, arguments: &[u64; 6]) -> Option<PathBuf> {
    match place {
        Fd(argument) => {
            let fd = arguments[argument];
            let kind = std::fs::metadata(format!("/proc/{thread}/fd/{fd}")).ok()?;
            let path = open_file(thread, fd);
            let in_memory = path.to_string_lossy().starts_with("/memfd:");
            ((kind.is_file() || kind.is_dir()) && !in_memory).then_some(path)
        }
        Name(argument) => text(thread, arguments[argument]),
        // Times are also set through the open file only.
        At(folder, argument) if arguments[argument] == 0 => path_of(thread, Fd(folder), arguments),
        At(folder, argument) => {
            let path = text(thread, arguments[argument])?;
            let folder = arguments[folder];
            if path.is_absolute() || folder as i32 == libc::AT_FDCWD {
                return Some(path);
            }
            Some(open_file(thread, folder).join(path))
        }
    }
}

/// The path of a thread's open file; empty if there is none.
fn open_file(thread: i32, fd: u64) -> PathBuf {
    std::fs::read_link(format!("/proc/{thread}/fd/{fd}")).unwrap_or_default()
}

/// The path at an address of a thread.
fn text(thread: i32, address: u64) -> Option<PathBuf> {
    let mut bytes = [0; libc::PATH_MAX as usize];
    let read = read(thread, address, &mut bytes).ok()?;
    let length = bytes[..read].iter().position(|&b| b == 0)?;
    let text = std::os::unix::ffi::OsStrExt::from_bytes(&bytes[..length]);
    Some(Path::new::<std::ffi::OsStr>(text).to_path_buf())
}

/// Reads at an address of a thread; returns the number of bytes read.
pub fn read(thread: i32, address: u64, bytes: &mut [u8]) -> Result<usize> {
    File::open(format!("/proc/{thread}/mem"))?.read_at(bytes, address)
}
