//! Last words before the process exits.

use std::sync::{Once, OnceLock};

/// What is done then, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// A worker's messages leave for the master.
    Messages,
    /// What is logged is written.
    Log,
}

/// The process that it was meant for, and what to do.
type Registered = (u32, fn());

static LAST: [OnceLock<Registered>; 2] = [const { OnceLock::new() }; 2];

/// Runs `f` when the process exits by returning from `main` or by `exit`, on the thread that does; of each kind the
/// first caller's counts. A child that was forked without an exec has none of our threads, and skips it.
pub(crate) fn before_exit(word: LastWord, f: fn()) {
    static REGISTERED: Once = Once::new();
    if LAST[word as usize].set((std::process::id(), f)).is_ok() {
        REGISTERED.call_once(|| {
            // SAFETY: takes a function that lives as long as the process. Without memory for it, nothing runs.
            unsafe { libc::atexit(run) };
        });
    }
}

extern "C" fn run() {
    let process = std::process::id();
    LAST.iter().filter_map(OnceLock::get).filter(|(pid, _)| *pid == process).for_each(|(_, f)| f());
}
