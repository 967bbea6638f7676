//! How many descriptors a process may have open: the master's limit while it runs, and its workers'.

use std::io;

use libc::{rlim_t, rlimit};

use super::check;

/// The limit of this process, raised as far as it may be; put back when dropped, if nobody has changed it since.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    before: rlimit,
}

impl OpenFiles {
    /// Raises the limit in force (the soft one) to the hard one.
    pub(crate) fn raise() -> io::Result<Self> {
        let before = current()?;
        set(rlimit { rlim_cur: before.rlim_max, ..before })?;
        Ok(OpenFiles { before })
    }

    /// What was in force before, which is what others expect.
    pub(crate) fn usual(&self) -> rlim_t {
        self.before.rlim_cur
    }

    /// What may be open from now on.
    pub(crate) fn most(&self) -> rlim_t {
        self.before.rlim_max
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        let raised = rlimit { rlim_cur: self.before.rlim_max, ..self.before };
        let is_ours = |now: &rlimit| (now.rlim_cur, now.rlim_max) == (raised.rlim_cur, raised.rlim_max);
        if current().is_ok_and(|now| is_ours(&now)) {
            // A lower limit in force is always allowed.
            drop(set(self.before));
        }
    }
}

fn current() -> io::Result<rlimit> {
    let mut limit = rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write to.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok(limit)
}

fn set(limit: rlimit) -> io::Result<()> {
    // SAFETY: `limit` is valid; descriptors that are open already stay so.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// Gives the calling process, a new one, the limit that is usual. Async-signal-safe; cannot fail where the limit in
/// force is the hard one.
pub(super) fn lower(usual: rlim_t) {
    if let Ok(now) = current() {
        drop(set(rlimit { rlim_cur: usual.min(now.rlim_max), ..now }));
    }
}
