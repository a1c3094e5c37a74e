//! Files mapped into memory. If a file shrinks while it is read, or its disk fails, the system sends
//! SIGBUS. The process then ends with one line that names the file, and the exit code of an I/O error.

use crate::cli;
use crate::error::{Error, Result};
use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Maps a file whole.
pub fn map(file: &File, path: &Path) -> Result<Bytes> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(catch_bus_errors);
    // SAFETY: files are replaced by rename and never written in place, so the bytes under the map do not
    // change while it lives. If the file shrinks, the handler ends the process.
    let map = unsafe { Mmap::map(file) }.map_err(Error::io(path))?;
    let source = std::io::Error::other("it shrank while it was read, or its disk fails");
    let error = Error::io(path)(source);
    let line = cli::error_line(&error);
    let place = Box::leak(Box::new(Place {
        start: AtomicUsize::new(map.as_ptr().addr()),
        length: map.len(),
        line,
        code: error.exit_code(),
        next: AtomicPtr::new(std::ptr::null_mut()),
    }));
    place.enlist();
    Ok(Bytes::from_owner(Mapped { map, place }))
}

/// A map, and its entry in the list of all maps.
struct Mapped {
    map: Mmap,
    place: &'static Place,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // Another file may be mapped at this address later.
        self.place.start.store(0, Ordering::Release);
    }
}

/// The address of a mapped file, and the message if it cannot be read. Never freed, because a signal
/// handler may read it at any time; there is one per file that was opened.
struct Place {
    /// 0 after unmapping.
    start: AtomicUsize,
    length: usize,
    line: String,
    code: u8,
    next: AtomicPtr<Place>,
}

/// The first of the list of all places.
static PLACES: AtomicPtr<Place> = AtomicPtr::new(std::ptr::null_mut());

impl Place {
    fn enlist(&'static self) {
        let this = std::ptr::from_ref(self).cast_mut();
        let mut first = PLACES.load(Ordering::Acquire);
        loop {
            self.next.store(first, Ordering::Relaxed);
            match PLACES.compare_exchange(first, this, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(other) => first = other,
            }
        }
    }

    /// The place that an address is in.
    fn of(address: usize) -> Option<&'static Place> {
        // SAFETY: the list has only places that live for ever.
        let mut place = unsafe { PLACES.load(Ordering::Acquire).as_ref() };
        while let Some(p) = place {
            let start = p.start.load(Ordering::Acquire);
            if start != 0 && (start..start + p.length).contains(&address) {
                return Some(p);
            }
            // SAFETY: as above.
            place = unsafe { p.next.load(Ordering::Acquire).as_ref() };
        }
        None
    }
}

fn catch_bus_errors() {
    let handler = |info: &libc::siginfo_t| {
        // SAFETY: the kernel fills the address in for this signal.
        let address = unsafe { info.si_addr() }.addr();
        // SAFETY: these functions may be called in a signal handler; the line lives for ever.
        unsafe {
            match Place::of(address) {
                Some(place) => {
                    static SAID: AtomicBool = AtomicBool::new(false);
                    if !SAID.swap(true, Ordering::Relaxed) {
                        libc::write(2, place.line.as_ptr().cast(), place.line.len());
                    }
                    libc::_exit(place.code.into());
                }
                // Another cause: as if there were no handler.
                None => {
                    libc::signal(libc::SIGBUS, libc::SIG_DFL);
                }
            }
        }
    };
    // SAFETY: the handler does only what may be done in a signal handler. If it cannot be installed, the
    // process ends as it would without.
    let _ = unsafe { signal_hook_registry::register_sigaction(libc::SIGBUS, handler) };
}
