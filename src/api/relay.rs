//! The two ways of the gate's bytes: a request to the server and its answer back, and the answer to the caller.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::sys::poll::Watched;

/// How long a caller may read nothing of its answer.
const READ_TIME: Duration = Duration::from_secs(5);
/// How long a caller may take over all of its answer.
const DELIVERY_TIME: Duration = Duration::from_secs(60);
/// The same while somebody else wants its place: more than the way to another continent takes, and in all.
const STALLED: Duration = Duration::from_millis(250);
const UNHURRIED: Duration = Duration::from_secs(5);
/// How much is read at a turn.
const PIECE: usize = 128 << 10;
/// The longest reason that the log shows.
const REASON: usize = 200;

/// How far something has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
    /// The other end broke off: a server before the first byte of an answer, so that it never saw the request.
    Broken,
}

/// A request on its way to the server, and its answer on the way back.
pub(super) struct Asking {
    server: Socket,
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
}

/// An answer on its way to the caller.
pub(super) struct Delivery {
    answer: Vec<u8>,
    passed: usize,
    since: Instant,
    /// When the caller last read something.
    moved: Instant,
}

impl Asking {
    pub(super) fn new(server: Socket, request: Vec<u8>) -> Self {
        Asking { server, request, sent: 0, answer: Vec::new() }
    }

    pub(super) fn is_unheard(&self) -> bool {
        self.answer.is_empty()
    }

    pub(super) fn held(&self) -> usize {
        self.answer.len()
    }

    pub(super) fn watched(&self) -> Watched<'_> {
        Watched::new(self.server.as_fd(), true, self.sent < self.request.len())
    }

    /// Goes as far as it can without waiting.
    pub(super) fn exchange(&mut self) -> Progress {
        while self.sent < self.request.len() {
            match self.server.send_with_flags(&self.request[self.sent..], libc::MSG_NOSIGNAL) {
                Ok(count) => self.sent += count,
                // Whatever it is, reading tells.
                Err(_) => break,
            }
        }
        match drain(&mut self.server, &mut self.answer) {
            false => Progress::More,
            true if self.answer.is_empty() => Progress::Broken,
            true => Progress::Done,
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> Option<u16> {
        let line = self.answer.get(..12)?;
        std::str::from_utf8(line.strip_prefix(b"HTTP/1.")?.get(2..5)?).ok()?.parse().ok()
    }

    /// The first words of the answer's body.
    pub(super) fn reason(&self) -> String {
        let head = self.answer.windows(4).position(|end| end == b"\r\n\r\n");
        let body = head.map_or(&[][..], |end| &self.answer[end + 4..]);
        String::from_utf8_lossy(&body[..body.len().min(REASON)]).into_owned()
    }

    /// The whole answer, which says that the connection ends: every one takes one request.
    pub(super) fn into_answer(mut self) -> Vec<u8> {
        if let Some(end) = self.answer.windows(2).position(|two| two == b"\r\n") {
            self.answer.splice(end + 2..end + 2, *b"Connection: close\r\n");
        }
        self.answer.shrink_to_fit();
        self.answer
    }
}

impl Delivery {
    pub(super) fn new(answer: Vec<u8>, now: Instant) -> Self {
        Delivery { answer, passed: 0, since: now, moved: now }
    }

    pub(super) fn held(&self) -> usize {
        self.answer.len()
    }

    pub(super) fn deadline(&self) -> Instant {
        (self.moved + READ_TIME).min(self.since + DELIVERY_TIME)
    }

    pub(super) fn yields_from(&self) -> Instant {
        (self.moved + STALLED).min(self.since + UNHURRIED)
    }

    /// Passes on as much as the caller takes now.
    pub(super) fn deliver(&mut self, client: &Socket, now: Instant) -> Progress {
        while self.passed < self.answer.len() {
            match client.send_with_flags(&self.answer[self.passed..], libc::MSG_NOSIGNAL) {
                Ok(count) => {
                    self.passed += count;
                    self.moved = now;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.deadline() > now => {
                    return Progress::More;
                }
                Err(_) => return Progress::Broken,
            }
        }
        Progress::Done
    }
}

/// Reads what is there, up to a turn's worth, and says whether that was the end.
pub(super) fn drain(from: &mut Socket, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 << 10];
    let most = into.len() + PIECE;
    while into.len() < most {
        match from.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => into.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
    false
}
