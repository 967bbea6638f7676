//! The master's end of a worker's channel: never blocks, reads by budget, writes from a bounded queue.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::message::{Framer, FromWorker, Line, ToWorker};
use crate::sys::ancillary;

/// What is read from one channel in one turn of the loop, so that a flood starves nobody.
const TURN: usize = 256 * 1024;
/// What may wait for a worker that does not read: past it, lines to that worker are dropped.
const QUEUE: usize = 8 << 20;

/// The channel to one worker.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
    framer: Framer,
    outgoing: VecDeque<Frame>,
    queued: usize,
}

/// Bytes on their way out; a descriptor travels with the first of them.
#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    fd: Option<Arc<OwnedFd>>,
}

/// What one turn of reading found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) lines: Vec<FromWorker>,
    /// Lines that were too long or not JSON, each with its cause.
    pub(super) refused: Vec<String>,
    pub(super) rest: Rest,
}

/// What is left in the socket after a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing for now; the loop will hear of more.
    #[default]
    Drained,
    /// The budget ended first: edge-triggered events will not come again, so come back unasked.
    More,
    /// The worker's end is closed. Not a death: only the reap is.
    Ended,
}

impl Channel {
    /// The master's end and the worker's, which is blocking and its own open file description.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let channel = Channel { socket: ours, framer: Framer::new(), outgoing: VecDeque::new(), queued: 0 };
        Ok((channel, theirs.into()))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads for one turn.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Reading {
        let mut reading = Reading::default();
        let mut budget = TURN;
        reading.rest = loop {
            if budget == 0 {
                break Rest::More;
            }
            let room = buffer.len().min(budget);
            // Descriptors that a worker sends are nothing we asked for: dropped here, and so closed.
            match ancillary::receive(self.socket.as_fd(), &mut buffer[..room]) {
                Ok(received) if received.bytes == 0 => break Rest::Ended,
                Ok(received) => {
                    budget -= received.bytes;
                    self.framer.push(&buffer[..received.bytes]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Rest::Drained,
                Err(_) => break Rest::Ended,
            }
        };
        while let Some(line) = self.framer.next_line() {
            reading.take(line);
        }
        if reading.rest == Rest::Ended && self.framer.finish().is_some() {
            reading.refused.push("the worker ended within it".into());
        }
        reading
    }

    /// Queues a line and sends what the socket takes. An error says why the line was dropped.
    pub(super) fn send(&mut self, line: &ToWorker, fd: Option<Arc<OwnedFd>>) -> Result<(), &'static str> {
        let bytes = line.encode();
        if self.queued + bytes.len() > QUEUE {
            return Err("its queue is full: it does not read its channel");
        }
        self.queued += bytes.len();
        self.outgoing.push_back(Frame { bytes, sent: 0, fd });
        self.flush();
        Ok(())
    }

    /// Sends what the socket takes now; the loop calls again when it takes more.
    pub(super) fn flush(&mut self) {
        while let Some(frame) = self.outgoing.front_mut() {
            let fd = frame.fd.as_ref().map(|fd| fd.as_fd());
            match ancillary::send(self.socket.as_fd(), &frame.bytes[frame.sent..], fd) {
                Ok(count) => {
                    frame.fd = None;
                    frame.sent += count;
                    self.queued -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The worker's end is gone: its exit tells the rest.
                Err(_) => return self.discard(),
            }
            if frame.sent == frame.bytes.len() {
                self.outgoing.pop_front();
            }
        }
    }

    fn discard(&mut self) {
        self.outgoing.clear();
        self.queued = 0;
    }
}

impl Reading {
    fn take(&mut self, line: Line) {
        match line {
            Line::Text(text) => match FromWorker::parse(&text) {
                Ok(line) => self.lines.push(line),
                Err(garbage) => self.refused.push(garbage.to_string()),
            },
            Line::Oversize => self.refused.push("a line of more than 4 MiB".into()),
        }
    }
}
