//! What goes to one worker: written at once by whichever thread has something to say, and queued, within
//! bounds, while the worker does not read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::account::{Account, Held, Kind};
use crate::journal;
use crate::journal::throttle::Throttle;
use crate::peers::WorkerInfo;
use crate::sys::ancillary;

/// What may wait for a worker that does not read: past it, messages to that worker fail.
const QUEUE: usize = 8 << 20;
/// Room beyond that for the master's own lines: few, and the worker must hear them.
const RESERVE: usize = 1 << 20;
/// Lines that wait are joined up to this size, so that one write takes many.
const JOINED: usize = 64 << 10;
/// What a line with a descriptor takes beside its bytes: the frame, and the kernel's note of the descriptor.
const FRAME: usize = 256;

/// The way to one worker. The lock is held for calls that do not block, by the loop and by threads that send.
#[derive(Debug)]
pub(crate) struct Outbox {
    worker: WorkerInfo,
    socket: Arc<UnixStream>,
    queue: Mutex<Queue>,
    /// Whether anything waits: a thread may hold the lock while it sends, and the loop has no need to wait for it.
    waits: AtomicBool,
    bell: Bell,
    account: Arc<Account>,
}

/// How the loop hears that the socket takes more. Only while something waits: otherwise each message that the
/// worker reads would wake it.
#[derive(Debug)]
pub(super) struct Bell {
    pub(super) registry: Arc<Registry>,
    pub(super) token: Token,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// Bytes in all frames that have not gone.
    bytes: usize,
    /// Messages of users that were taken.
    taken: u64,
    /// Refused for want of room.
    refused: Throttle,
}

/// Bytes on their way out; a descriptor travels with the first of them.
#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    fd: Option<Arc<OwnedFd>>,
    /// What the master's own lines in it take of the worker's account.
    held: Option<Held>,
}

/// Whose line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    User,
    Master,
}

/// The socket takes no more for now; or the kernel passes no more descriptors of this user until some that are on
/// their way have come.
fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

/// The queue has no room for this line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Outbox {
    pub(super) fn new(
        worker: WorkerInfo,
        socket: Arc<UnixStream>,
        bell: Bell,
        account: Arc<Account>,
    ) -> Self {
        Outbox { worker, socket, queue: Mutex::default(), waits: AtomicBool::new(false), bell, account }
    }

    pub(crate) fn worker(&self) -> WorkerInfo {
        self.worker
    }

    /// Messages of users that were taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Sends a user's line, which ends in a newline, or queues what the socket does not take.
    pub(crate) fn post(&self, line: &[u8]) -> Result<(), Full> {
        let mut queue = self.lock();
        if queue.bytes + line.len() > QUEUE {
            self.account.count_dropped(1);
            if let Some(count) = queue.refused.count(Instant::now(), 1) {
                journal::warn!(
                    "worker {}: messages to it were dropped: {count}; its queue is full, it does not read its channel",
                    self.worker.id()
                );
            }
            return Err(Full);
        }
        queue.taken += 1;
        self.send(&mut queue, line, None, Sender::User);
        Ok(())
    }

    /// Sends a line of the master's own, with a descriptor where one belongs to it. What waits of these is in the
    /// worker's account.
    pub(super) fn say(&self, line: &[u8], fd: Option<Arc<OwnedFd>>) -> Result<(), Full> {
        let mut queue = self.lock();
        if queue.bytes + line.len() > QUEUE + RESERVE {
            return Err(Full);
        }
        self.send(&mut queue, line, fd, Sender::Master);
        Ok(())
    }

    /// Sends what the socket takes now; the loop calls again when it takes more.
    pub(super) fn flush(&self) {
        if self.waits.load(SeqCst) {
            self.write_out(&mut self.lock());
        }
    }

    /// An empty queue is not used at all: the common line is never copied.
    fn send(&self, queue: &mut Queue, line: &[u8], fd: Option<Arc<OwnedFd>>, by: Sender) {
        let mut fd = fd;
        let mut rest = line;
        while queue.frames.is_empty() && !rest.is_empty() {
            match ancillary::send(self.socket.as_fd(), rest, fd.as_deref().map(AsFd::as_fd)) {
                Ok(count) => {
                    fd = None;
                    rest = &rest[count..];
                }
                Err(error) if is_passing(&error) => break,
                // The worker's end is gone: its exit tells the rest.
                Err(_) => return,
            }
        }
        if rest.is_empty() {
            return;
        }
        let before = queue.frames.len();
        let held = match by {
            Sender::User => None,
            Sender::Master => {
                let frame = if fd.is_some() { FRAME } else { 0 };
                Some(self.account.take_anyway(Kind::Answers, rest.len() + frame))
            }
        };
        queue.push(rest, fd, held);
        if before == 0 && !queue.frames.is_empty() {
            self.waits.store(true, SeqCst);
            self.listen_for(Interest::READABLE | Interest::WRITABLE);
        }
    }

    fn listen_for(&self, interest: Interest) {
        let Bell { registry, token } = &self.bell;
        let mut socket = SourceFd(&self.socket.as_raw_fd());
        // Where the worker has just been reaped there is nothing left to hear of.
        if let Err(error) = registry.reregister(&mut socket, *token, interest) {
            journal::debug!("worker {}: {error}", self.worker.id());
        }
    }

    fn write_out(&self, queue: &mut Queue) {
        if queue.frames.is_empty() {
            return;
        }
        while let Some(frame) = queue.frames.front_mut() {
            let fd = frame.fd.as_deref().map(AsFd::as_fd);
            match ancillary::send(self.socket.as_fd(), &frame.bytes[frame.sent..], fd) {
                Ok(count) => {
                    frame.fd = None;
                    frame.sent += count;
                    queue.bytes -= count;
                }
                Err(error) if is_passing(&error) => return,
                Err(_) => {
                    queue.frames.clear();
                    queue.bytes = 0;
                    self.waits.store(false, SeqCst);
                    return;
                }
            }
            if frame.sent == frame.bytes.len() {
                queue.frames.pop_front();
            }
        }
        self.waits.store(false, SeqCst);
        self.listen_for(Interest::READABLE);
        if let Some(count) = queue.refused.count(Instant::now(), 0) {
            journal::warn!(
                "worker {} reads again; messages to it that were dropped: {count}",
                self.worker.id()
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds it can panic half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// A frame begins with no more room than it may fill, and one with a descriptor with what it needs: there may
    /// be many of them.
    fn push(&mut self, bytes: &[u8], fd: Option<Arc<OwnedFd>>, held: Option<Held>) {
        self.bytes += bytes.len();
        match self.frames.back_mut() {
            Some(last) if fd.is_none() && last.bytes.len() + bytes.len() <= JOINED => {
                last.bytes.extend_from_slice(bytes);
                last.held = Held::joined(last.held.take(), held);
            }
            Some(_) | None => {
                let room = if fd.is_some() { 0 } else { JOINED };
                let mut joined = Vec::with_capacity(room.max(bytes.len()));
                joined.extend_from_slice(bytes);
                self.frames.push_back(Frame { bytes: joined, sent: 0, fd, held });
            }
        }
    }
}

impl AsFd for Outbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
