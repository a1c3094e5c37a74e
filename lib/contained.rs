//! The stock parquet reader panics on some damaged files. Here that is an error as any other.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// Runs calls into the reader; whatever a panic leaves behind in them must not be used again.
///
/// Errors: what is wrong with the file, one line.
pub fn contained<T, E: Display>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
    // Nothing is said of a panic that becomes an error.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                others(info);
            }
        }));
    });
    INSIDE.set(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    INSIDE.set(false);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(e.to_string().replace('\n', " ")),
        Err(_) => Err("bytes that the parquet reader stumbles over".to_string()),
    }
}
