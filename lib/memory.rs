//! Memory: how much a process may take, and one line instead of an abort if there is no more.

use crate::error::{Error, Result};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What to do about too little memory.
const HINT: &str =
    "lower batch, unlabelled_batch or width_factor, or --threads, or allow more memory";

/// `--max-memory` in bytes; 0 if not given.
static MOST: AtomicU64 = AtomicU64::new(0);
/// Whether settings can still be changed without loss.
static PREPARING: AtomicBool = AtomicBool::new(false);

/// Limits the memory of this process to a number of bytes.
pub fn limit(bytes: u64) -> Result<()> {
    MOST.store(bytes, Ordering::Relaxed);
    // SAFETY: both calls get a struct of their kind, which the first one fills.
    let failed = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_DATA, &mut limit);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_DATA, &limit) != 0
    };
    match failed {
        true => Err(Error::io(Path::new("--max-memory"))(std::io::Error::last_os_error())),
        false => Ok(()),
    }
}

/// Says whether a training stage is before its first step.
pub fn preparing(yes: bool) {
    PREPARING.store(yes, Ordering::Relaxed);
}

/// The error of a process that cannot get the bytes it needs for `what`.
pub fn lacking(what: &str, bytes: u64) -> Error {
    let what = format!("{what} {} MB of memory, and there is not so much", bytes >> 20);
    refused(what, HINT.to_string())
}

/// The error of what takes more memory than there is.
pub fn refused(what: String, hint: String) -> Error {
    Error::Memory { what, hint, preparing: PREPARING.load(Ordering::Relaxed) }
}

/// The most bytes that this process may take, and which limit sets that: `--max-memory`, the control
/// group, the resource limits or the machine.
pub fn most() -> Option<(u64, &'static str)> {
    let limits = [
        ("--max-memory", Some(MOST.load(Ordering::Relaxed)).filter(|&most| most > 0)),
        ("the control group", control_group(Path::new("/"))),
        ("ulimit -v", resource(libc::RLIMIT_AS)),
        ("ulimit -d", resource(libc::RLIMIT_DATA)),
        ("this machine", installed()),
    ];
    limits.into_iter().filter_map(|(who, limit)| Some((limit?, who))).min()
}

/// All memory of the machine.
fn installed() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

fn resource(which: libc::__rlimit_resource_t) -> Option<u64> {
    // SAFETY: getrlimit fills the struct that it is given.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(which, &mut limit);
        limit.rlim_cur
    };
    (limit != libc::RLIM_INFINITY).then_some(limit)
}

/// The lowest limit of this process's control groups, of either version, in the files below `root`.
fn control_group(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().flat_map(|line| {
        // `0::/a/b`, `4:memory:/a/b`
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (folder, file) = match controllers.split(',').any(|c| c == "memory") {
            true => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("sys/fs/cgroup", "memory.max"),
        };
        // In a container the folder of its own group may be the root.
        let group = Path::new(group.trim_start_matches('/')).to_path_buf();
        let above: Vec<_> = group.ancestors().map(Path::to_path_buf).collect();
        above.into_iter().filter_map(move |group| {
            let path = root.join(folder).join(group).join(file);
            // `max`, or a number close to 2^63, is no limit; it is above whatever is needed.
            std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        })
    });
    limits.min()
}

/// The system's allocator. If it has no memory, the process ends with one line and the right exit code.
pub struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: every call is the system allocator's; where that gives null the process ends.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that System asks for.
        there_is(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        there_is(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`; every block is System's.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`.
        there_is(unsafe { System.realloc(block, layout, size) }, size)
    }
}

#[inline]
fn there_is(block: *mut u8, size: usize) -> *mut u8 {
    if block.is_null() {
        end(size);
    }
    block
}

/// Ends the process with one line, without taking memory for it.
#[cold]
fn end(size: usize) -> ! {
    let mut line = Line { bytes: [0; 256], len: 0 };
    let _ = writeln!(line, "error: no memory for {size} bytes more; {HINT}");
    // As `Error::exit_code` has it.
    let code = if PREPARING.load(Ordering::Relaxed) { 78 } else { 74 };
    // SAFETY: the bytes are the line's; both calls may be made at any time.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len);
        libc::_exit(code)
    }
}

/// Text in place; what is too long is cut.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let fits = text.len().min(room.len());
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_the_control_groups() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(control_group(root.path()), None);
        write("proc/self/cgroup", "0::/job/step\n");
        assert_eq!(control_group(root.path()), None);
        write("sys/fs/cgroup/job/step/memory.max", "max\n");
        assert_eq!(control_group(root.path()), None);
        write("sys/fs/cgroup/job/memory.max", "1000000\n");
        assert_eq!(control_group(root.path()), Some(1_000_000));
        write("proc/self/cgroup", "3:cpu:/x\n4:memory,hugetlb:/a\n0::/job/step\n");
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "900000\n");
        assert_eq!(control_group(root.path()), Some(900_000));
    }
}
