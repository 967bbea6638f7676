//! The line that says why the cluster ends. It must reach stderr, also where the log does not show it, goes
//! elsewhere, or stands still.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{escape, sink};

/// Said, and not yet seen on stderr.
static UNSEEN: Mutex<Option<String>> = Mutex::new(None);

fn unseen() -> MutexGuard<'static, Option<String>> {
    UNSEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on it waits to be seen.
pub(super) fn say(message: &str) {
    *unseen() = Some(escape::text(message).into_owned());
}

/// The log has shown it there, or to the program's own logger.
pub(super) fn seen() {
    *unseen() = None;
}

/// The log has had its time.
pub(super) fn tell_stderr_if_unseen() {
    let message = unseen().take();
    if let Some(message) = message {
        sink::tell_stderr(format!("proteus: {message}\n").as_bytes());
    }
}
