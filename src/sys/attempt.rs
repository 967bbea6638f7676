//! A process that is being made, for a thread that does not make it and will not wait for ever.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::process::Child;

/// The way from a clone to its exec, which may sleep in the kernel for as long as a file system does not answer.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// 0 until there is a process.
    pub(super) pid: AtomicU32,
    stage: Mutex<Stage>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The process, if there is one, is not reaped: its pid is its own.
    #[default]
    Open,
    GivenUp,
    /// It has begun, or failed to.
    Over,
}

impl Attempt {
    /// Nobody waits for it any more: it is killed if it is on its way, and again by whoever makes it if it has begun
    /// all the same.
    pub(crate) fn give_up(&self) {
        let mut stage = self.lock();
        if *stage == Stage::Open {
            *stage = Stage::GivenUp;
            let pid = self.pid.load(Ordering::SeqCst);
            if pid != 0 {
                // It may have ended just now.
                drop(Child { pid, pidfd: None }.signal(libc::SIGKILL));
            }
        }
    }

    pub(super) fn is_given_up(&self) -> bool {
        *self.lock() == Stage::GivenUp
    }

    /// From now on it may be reaped. Whether somebody still waits for it.
    pub(super) fn end(&self) -> bool {
        let mut stage = self.lock();
        let is_wanted = *stage == Stage::Open;
        if is_wanted {
            *stage = Stage::Over;
        }
        is_wanted
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
