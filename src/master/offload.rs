//! Calls that may sleep in the kernel, such as those on a path whose file system does not answer, made beside
//! the loop: each on a thread of its own, which is left behind if it never comes back.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use mio::Waker;

use crate::sys::signal::Mask;

/// Enough for a few calls with paths.
const STACK: usize = 128 << 10;

/// Work beside the loop, whose outcomes the loop takes in. How many may run, and how long they are waited for,
/// is its owner's affair: see [`Jobs`](crate::supervisor::Jobs).
#[derive(Debug)]
pub(super) struct Offload<T> {
    outcomes: Sender<T>,
    finished: Receiver<T>,
    waker: Arc<Waker>,
}

impl<T: Send + 'static> Offload<T> {
    /// The waker brings the loop to [`Offload::take`].
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (outcomes, finished) = channel();
        Offload { outcomes, finished, waker }
    }

    /// An outcome that nobody takes any more is dropped on the thread.
    pub(super) fn run(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<()> {
        let (outcomes, waker) = (self.outcomes.clone(), Arc::clone(&self.waker));
        start(move || {
            if outcomes.send(work()).is_ok() {
                // Without it the outcome waits for the loop's next turn.
                let _ = waker.wake();
            }
        })
    }

    /// What has come back, one at a time.
    pub(super) fn take(&self) -> Option<T> {
        self.finished.try_recv().ok()
    }
}

/// Runs `work` on a thread and waits so long for it: `None` if it takes longer, or no thread can be had.
pub(crate) fn within<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, outcome) = channel();
    start(move || drop(sender.send(work()))).ok()?;
    outcome.recv_timeout(time).ok()
}

/// The program's signals stay its own.
pub(crate) fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let before = Mask::block_all();
    let started = Builder::new().name("proteus-files".into()).stack_size(STACK).spawn(work);
    before.apply();
    started.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_does_not_come_back_is_left_behind() {
        let (_keep, never) = channel::<()>();
        let began = Instant::now();
        assert_eq!(within(Duration::from_millis(20), move || never.recv()), None);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(within(Duration::from_secs(30), || 7), Some(7));
    }

    #[test]
    fn outcomes_wake_the_loop() {
        let mut poll = mio::Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(1)).unwrap());
        let offload = Offload::new(waker);
        assert_eq!(offload.take(), None);
        offload.run(|| 7).unwrap();
        let mut events = mio::Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
        assert_eq!((events.is_empty(), offload.take(), offload.take()), (false, Some(7), None));
    }
}
