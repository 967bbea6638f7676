//! Whoever takes a path for a socket, or gives it up, does so alone: two that looked at the same moment would both find
//! it free.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Far longer than anybody needs. Whoever may read a folder can hold it: that must keep nobody from starting.
const PATIENCE: Duration = Duration::from_millis(400);
const STEP: Duration = Duration::from_millis(2);

/// The folder of a path, held (`flock`) against others of our kind until this is dropped.
#[must_use]
pub(super) struct SocketLock {
    _folder: Option<File>,
}

impl SocketLock {
    /// Waits for whoever has it, but not for long; where it cannot be had, all is as without it.
    pub(super) fn take(path: &Path) -> Self {
        SocketLock { _folder: path.parent().and_then(|folder| File::open(folder).ok()).filter(lock) }
    }
}

fn lock(folder: &File) -> bool {
    let until = Instant::now() + PATIENCE;
    while folder.try_lock().is_err() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(STEP);
    }
    true
}
