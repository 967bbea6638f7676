//! The master's end of a worker's channel: never blocks, reads by budget, leaves in the socket what nobody has
//! room for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::dispatch::Mail;
use crate::message::{Framer, Line};
use crate::sys::ancillary;

/// What is read from one channel in one turn of the loop, so that a flood starves nobody.
const TURN: usize = 64 * 1024;

/// The reading side of the channel to one worker; the writing side is its [`Outbox`](super::outbox::Outbox).
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<UnixStream>,
    framer: Framer,
    flow: Flow,
}

/// Whether lines are taken from the channel.
#[derive(Debug)]
enum Flow {
    Open,
    /// Something has no room for more. Until it has, what follows stays where it is: for as long the worker cannot
    /// be heard, and so is not hung.
    Paused(Pause),
}

/// What has no room.
#[derive(Debug)]
pub(super) enum Pause {
    /// The listeners, for this message.
    Listeners(Box<Mail>),
    /// The worker itself: it does not read the answers to what it asks.
    Answers,
}

/// What is left in the socket after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing for now; the loop will hear of more.
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
        let channel = Channel { socket: Arc::new(ours), framer: Framer::new(), flow: Flow::Open };
        Ok((channel, theirs.into()))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// For the side that writes.
    pub(super) fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.socket)
    }

    /// Why the master has stopped reading it, if it has.
    pub(super) fn paused(&self) -> Option<&Pause> {
        match &self.flow {
            Flow::Open => None,
            Flow::Paused(pause) => Some(pause),
        }
    }

    /// Takes no more lines until [`Channel::resume`].
    pub(super) fn pause(&mut self, pause: Pause) {
        self.flow = Flow::Paused(pause);
    }

    /// Opens it again; the message for which there was no room, if it was paused for one.
    pub(super) fn resume(&mut self) -> Option<Mail> {
        match std::mem::replace(&mut self.flow, Flow::Open) {
            Flow::Open | Flow::Paused(Pause::Answers) => None,
            Flow::Paused(Pause::Listeners(mail)) => Some(*mail),
        }
    }

    /// Reads for one turn; the lines are then there to take.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Rest {
        let mut budget = TURN;
        while budget > 0 {
            let room = buffer.len().min(budget);
            // Descriptors that a worker sends are nothing we asked for: dropped here, and so closed.
            match ancillary::receive(self.socket.as_fd(), &mut buffer[..room]) {
                Ok(received) if received.bytes == 0 => return Rest::Ended,
                Ok(received) => {
                    budget -= received.bytes;
                    self.framer.push(&buffer[..received.bytes]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Rest::Drained,
                Err(_) => return Rest::Ended,
            }
        }
        Rest::More
    }

    /// All whole lines that have come.
    pub(super) fn take_lines(&mut self) -> VecDeque<Line> {
        self.framer.take_lines()
    }

    /// Lines that were taken and must wait, before all others.
    pub(super) fn put_back(&mut self, lines: VecDeque<Line>) {
        self.framer.put_back(lines);
    }

    /// Whether the worker ended within a line.
    pub(super) fn ends_within_a_line(&mut self) -> bool {
        self.framer.finish().is_some()
    }
}
