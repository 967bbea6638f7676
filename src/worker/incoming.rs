//! Connections, until told to disconnect: fair, without loss, and blind to whether the socket blocks.

use std::io;
use std::iter::FusedIterator;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use super::Worker;
use super::waiters::Booking;
use crate::error::Cause;
use crate::sys::accept::{Turnstile, accept, queued, readable};
use crate::sys::interrupt::{Interrupt, Tid};
use crate::sys::sentinel::is_shut_down;

const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_millis(500);
/// How long a listener that somebody has shut down is waited for: the master makes it listen again.
const REVIVAL: Duration = Duration::from_secs(5);
/// A process out of descriptors says so no more often than this.
const WARN_EVERY: Duration = Duration::from_secs(5);

mod sealed {
    pub trait Sealed {
        /// What the log calls it.
        fn name(&self) -> String;
    }
}

/// A listener that [`Worker::incoming`] takes: [`TcpListener`] or [`UnixListener`].
pub trait Accept: AsFd + sealed::Sealed {
    /// What it accepts.
    type Stream: From<OwnedFd>;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
}

impl sealed::Sealed for TcpListener {
    fn name(&self) -> String {
        self.local_addr().map_or_else(|_| "tcp".into(), |address| address.to_string())
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
}

impl sealed::Sealed for UnixListener {
    fn name(&self) -> String {
        let address = self.local_addr().ok();
        let path = address.as_ref().and_then(|address| address.as_pathname());
        path.map_or_else(|| "unix".into(), |path| format!("unix:{}", path.display()))
    }
}

/// The connections of a listener; see [`Worker::incoming`].
#[must_use = "an iterator accepts nothing until it is asked"]
pub struct Incoming<'a, L: Accept> {
    worker: Worker,
    listener: &'a L,
    stage: Stage,
    turnstile: Option<Turnstile>,
    shortage: Shortage,
    /// Since when the listener has been found shut down.
    shut_down: Option<Instant>,
    /// The thread whose signal mask is known to let the interrupt through.
    open_thread: Option<Tid>,
}

enum Stage {
    Open(Booking),
    /// Told to disconnect: at most as many connections more as were queued then.
    LastPass(Booking, usize),
    Over,
}

/// What one try came to.
enum Turn {
    Accepted(OwnedFd),
    Again,
    Over,
}

impl<'a, L: Accept> Incoming<'a, L> {
    pub(super) fn new(worker: Worker, listener: &'a L) -> Self {
        let stage = Stage::Open(worker.0.disconnect.waiters().book());
        let shortage = Shortage { delay: FIRST_DELAY, warned: None };
        Incoming { worker, listener, stage, turnstile: None, shortage, shut_down: None, open_thread: None }
    }

    fn turn(&mut self) -> Turn {
        let tried = match &mut self.stage {
            Stage::Open(booking) => {
                let seated = booking.sit();
                if self.worker.disconnect_requested() {
                    drop(seated);
                    return self.begin_last_pass();
                }
                accept(self.listener.as_fd())
            }
            Stage::LastPass(booking, left) => {
                if *left == 0 || !readable(self.listener.as_fd(), Duration::ZERO).unwrap_or(false) {
                    return Turn::Over;
                }
                *left -= 1;
                // A sibling may take it first; on a blocking socket the interrupt gets us out then.
                let _seated = booking.sit();
                accept(self.listener.as_fd())
            }
            Stage::Over => return Turn::Over,
        };
        match tried {
            Ok(stream) => self.accepted(stream),
            Err(error) => self.refused(&error),
        }
    }

    /// A worker that was woken for a connection and leaves without accepting would strand it, and so would the
    /// last worker with the whole queue. What comes later belongs to others: a busy service must let us go.
    fn begin_last_pass(&mut self) -> Turn {
        if let Stage::Open(booking) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.stage = Stage::LastPass(booking, queued(self.listener.as_fd()));
        }
        Turn::Again
    }

    fn accepted(&mut self, stream: OwnedFd) -> Turn {
        self.shortage.delay = FIRST_DELAY;
        self.shut_down = None;
        self.worker.0.disconnect.waiters().note_accepted();
        Turn::Accepted(stream)
    }

    fn refused(&mut self, error: &io::Error) -> Turn {
        match Refusal::of(error) {
            Refusal::Passing => Turn::Again,
            Refusal::Empty => match self.wait() {
                Ok(turn) => turn,
                Err(error) if Refusal::of(&error) == Refusal::Shortage => self.out_of_descriptors(&error),
                Err(error) => self.broken(&error),
            },
            Refusal::Shortage => self.out_of_descriptors(error),
            Refusal::ShutDown => self.shut_down(error),
            Refusal::Broken => self.broken(error),
        }
    }

    /// A non-blocking socket with nothing in its queue. In the last pass a sibling was faster.
    fn wait(&mut self) -> io::Result<Turn> {
        if matches!(self.stage, Stage::Open(_)) {
            let turnstile = match self.turnstile.take() {
                Some(turnstile) => turnstile,
                None => Turnstile::new(self.worker.disconnect_fd())?,
            };
            self.turnstile.insert(turnstile).wait(self.listener.as_fd())?;
        }
        Ok(Turn::Again)
    }

    /// Leaves the connection in the queue for as long as this process has no descriptor for it.
    fn out_of_descriptors(&mut self, error: &io::Error) -> Turn {
        self.shortage.warn(self.listener, error);
        let delay = self.shortage.next_delay();
        match self.stage {
            Stage::Open(_) => wait_at_most(self.worker.disconnect_fd(), delay),
            // The bell has rung already; the connection's last hope is that a descriptor comes free.
            Stage::LastPass(..) if delay < LONGEST_DELAY => thread::sleep(delay),
            Stage::LastPass(..) | Stage::Over => return Turn::Over,
        }
        Turn::Again
    }

    /// Another process has shut the listener down. The master makes it listen again, or has this worker replaced.
    fn shut_down(&mut self, error: &io::Error) -> Turn {
        if !matches!(self.stage, Stage::Open(_)) {
            return Turn::Over;
        }
        let since = *self.shut_down.get_or_insert_with(Instant::now);
        self.shortage.warn(self.listener, error);
        if since.elapsed() >= REVIVAL {
            return self.broken(error);
        }
        wait_at_most(self.worker.disconnect_fd(), FIRST_DELAY);
        if !is_shut_down(self.listener.as_fd()) {
            self.shut_down = None;
        }
        Turn::Again
    }

    fn broken(&self, error: &io::Error) -> Turn {
        log::error!("accept on {}: {}; no more connections are taken", self.listener.name(), Cause(error));
        Turn::Over
    }

    /// The caller's thread may block our signal, and the next call may come from another thread.
    fn open_this_thread(&mut self) {
        let thread = Tid::current();
        if self.open_thread != Some(thread) {
            // Where none can be had, whoever interrupts says so.
            if let Ok(interrupt) = Interrupt::claim() {
                interrupt.unblock();
            }
            self.open_thread = Some(thread);
        }
    }
}

impl<L: Accept> Iterator for Incoming<'_, L> {
    type Item = L::Stream;

    fn next(&mut self) -> Option<L::Stream> {
        self.open_this_thread();
        let _idle = self.worker.0.disconnect.waiters().idle();
        self.worker.beat();
        loop {
            match self.turn() {
                Turn::Accepted(stream) => return Some(stream.into()),
                Turn::Again => {}
                Turn::Over => {
                    self.stage = Stage::Over;
                    return None;
                }
            }
        }
    }
}

impl<L: Accept> FusedIterator for Incoming<'_, L> {}

fn wait_at_most(bell: BorrowedFd<'_>, delay: Duration) {
    if readable(bell, delay).is_err() {
        thread::sleep(delay);
    }
}

/// What a failed accept means.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// One client's fault, an interruption, or the network's: the next may do better.
    Passing,
    /// Nothing to accept, on a socket that does not block.
    Empty,
    /// No descriptor, memory or epoll watch for it now.
    Shortage,
    /// The listener does not listen: somebody's shutdown(2).
    ShutDown,
    /// No listener at all.
    Broken,
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error().unwrap_or(0) {
            libc::EAGAIN => Refusal::Empty,
            libc::EINVAL => Refusal::ShutDown,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC => Refusal::Shortage,
            // accept(2) passes on what is already wrong with the new connection, and EPERM of a firewall.
            libc::EINTR
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::EPERM
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ETIMEDOUT
            | libc::ECONNRESET => Refusal::Passing,
            _ => Refusal::Broken,
        }
    }
}

/// How long to leave the queue alone, and when we last said why.
struct Shortage {
    delay: Duration,
    warned: Option<Instant>,
}

impl Shortage {
    fn next_delay(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(LONGEST_DELAY);
        delay
    }

    fn warn(&mut self, listener: &impl Accept, error: &io::Error) {
        if self.warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            log::warn!("accept on {}: {}; trying again", listener.name(), Cause(error));
        }
    }
}
