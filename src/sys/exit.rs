//! A last word before the process exits.

use std::sync::OnceLock;

static LAST: OnceLock<(u32, fn())> = OnceLock::new();

/// Runs `f` when the process exits by returning from `main` or by `exit`, on the thread that does; the first
/// caller's counts. A child that was forked without an exec has none of our threads, and skips it.
pub(crate) fn before_exit(f: fn()) {
    if LAST.set((std::process::id(), f)).is_ok() {
        // SAFETY: takes a function that lives as long as the process. Without memory for it, nothing runs.
        unsafe { libc::atexit(run) };
    }
}

extern "C" fn run() {
    if let Some((pid, f)) = LAST.get()
        && *pid == std::process::id()
    {
        f();
    }
}
