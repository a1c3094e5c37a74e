//! What a process has used: time and memory.

use std::fmt::{Display, Formatter};
use std::time::Instant;

/// Of one process, or of several that made one output after each other.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// In units of 1,048,576 bytes, of the process that needed most.
    pub peak_memory_mb: u64,
}

impl Usage {
    /// Of this process so far, with the seconds since `start`.
    pub fn since(start: Instant) -> Usage {
        // SAFETY: getrusage fills the struct that it is given.
        let used = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut used);
            used
        };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
        Usage {
            seconds: start.elapsed().as_secs_f64(),
            cpu_seconds: seconds(used.ru_utime) + seconds(used.ru_stime),
            peak_memory_mb: peak_kb().unwrap_or(used.ru_maxrss as u64) / 1024,
        }
    }

    /// Of both.
    pub fn and(self, other: Usage) -> Usage {
        Usage {
            seconds: self.seconds + other.seconds,
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            peak_memory_mb: self.peak_memory_mb.max(other.peak_memory_mb),
        }
    }
}

/// The most memory of this program, from /proc. `ru_maxrss` knows too, but begins with the memory of the process that
/// started this one.
fn peak_kb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Display for Usage {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let Usage { seconds, cpu_seconds, peak_memory_mb } = self;
        write!(f, "{seconds:.1} s (CPU {cpu_seconds:.1} s, peak memory {peak_memory_mb} MB)")
    }
}
