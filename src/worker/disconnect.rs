//! Being told to disconnect: once, by whichever way comes first, and never taken back.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::lock;
use super::waiters::Waiters;
use crate::sys::signal::Mask;

type Hook = Box<dyn FnOnce() + Send>;

pub(super) struct Disconnect {
    phase: Mutex<Phase>,
    told: Condvar,
    bell: Bell,
    waiters: Arc<Waiters>,
    /// The signals that the program blocked when the worker began: what its hooks run under.
    mask: Mask,
}

enum Phase {
    Running(Vec<Hook>),
    Told,
}

/// A descriptor that is readable from the first ring on, whoever reads it: the end of a stream never runs dry.
struct Bell {
    ours: UnixStream,
    rope: UnixStream,
}

impl Disconnect {
    pub(super) fn new() -> io::Result<Self> {
        let (ours, rope) = UnixStream::pair()?;
        Ok(Disconnect {
            phase: Mutex::new(Phase::Running(Vec::new())),
            told: Condvar::new(),
            bell: Bell { ours, rope },
            waiters: Arc::default(),
            mask: Mask::current(),
        })
    }

    /// Tells everybody; the second time nothing is left to do. Never waits for anybody.
    pub(super) fn request(&self) {
        let mut phase = lock(&self.phase);
        let Phase::Running(hooks) = std::mem::replace(&mut *phase, Phase::Told) else { return };
        self.waiters.close();
        if let Err(error) = self.bell.rope.shutdown(Shutdown::Write) {
            log::error!("disconnect_fd: {error}");
        }
        drop(phase);
        self.told.notify_all();
        self.run_apart(hooks);
    }

    pub(super) fn is_requested(&self) -> bool {
        self.waiters.is_closing()
    }

    pub(super) fn wait(&self) {
        let mut phase = lock(&self.phase);
        while matches!(*phase, Phase::Running(_)) {
            phase = self.told.wait(phase).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Waits for so long at most; whether it was told.
    pub(super) fn wait_for(&self, time: Duration) -> bool {
        let running = |phase: &mut Phase| matches!(phase, Phase::Running(_));
        let waited = self.told.wait_timeout_while(lock(&self.phase), time, running);
        let (phase, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        matches!(*phase, Phase::Told)
    }

    pub(super) fn add_hook(&self, hook: Hook) {
        match &mut *lock(&self.phase) {
            Phase::Running(hooks) => return hooks.push(hook),
            Phase::Told => {}
        }
        run(hook);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.ours.as_fd()
    }

    pub(super) fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    /// On a thread of their own, in order: a hook that blocks must not keep the channel from being read.
    fn run_apart(&self, hooks: Vec<Hook>) {
        if hooks.is_empty() {
            return;
        }
        let (mask, hooks) = (self.mask, Arc::new(Mutex::new(hooks)));
        let theirs = Arc::clone(&hooks);
        let run_all = move || {
            mask.apply();
            lock(&theirs).drain(..).for_each(run);
        };
        if let Err(error) = thread::Builder::new().name("proteus-disconnect".into()).spawn(run_all) {
            log::warn!("no thread for on_disconnect ({error}); its functions run on the channel's");
            lock(&hooks).drain(..).for_each(run);
        }
    }
}

fn run(hook: Hook) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(hook)) {
        log::error!("on_disconnect panicked: {}", crate::error::panic_text(&*panic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::accept::readable;
    use std::io::Read;
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn hooks_run_once_in_order_and_their_panics_stay_inside() {
        let disconnect = Disconnect::new().unwrap();
        let (tell, told) = mpsc::channel();
        for number in 0..3 {
            let tell = tell.clone();
            disconnect.add_hook(Box::new(move || {
                tell.send(number).unwrap();
                assert_ne!(number, 1, "a panic in a hook");
            }));
        }
        drop(tell);
        disconnect.request();
        disconnect.request();
        let order: Vec<_> = std::iter::from_fn(|| told.recv_timeout(SOON).ok()).collect();
        assert_eq!(order, [0, 1, 2]);
    }

    #[test]
    fn a_late_hook_runs_at_once_and_may_add_another() {
        let disconnect = Arc::new(Disconnect::new().unwrap());
        disconnect.request();
        let (tell, told) = mpsc::channel();
        let again = Arc::clone(&disconnect);
        disconnect.add_hook(Box::new(move || {
            again.add_hook(Box::new(move || tell.send(()).unwrap()));
        }));
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn the_descriptor_stays_readable() {
        let disconnect = Disconnect::new().unwrap();
        assert!(!readable(disconnect.fd(), Duration::ZERO).unwrap());
        assert!(!disconnect.is_requested());
        disconnect.request();
        for _ in 0..3 {
            assert!(readable(disconnect.fd(), Duration::ZERO).unwrap());
            assert_eq!((&disconnect.bell.ours).read(&mut [0; 8]).unwrap(), 0);
        }
        assert!(disconnect.is_requested());
        disconnect.wait();
    }
}
