//! One connection through the gate: what it said so far, and what it gets. Nothing here ever blocks.

use std::io::{self, ErrorKind, Read};
use std::mem;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::head::{Head, Refusal};
use super::policy::Site;
use super::routes::{PRINCIPAL, Route};
use crate::error::Cause;
use crate::principal::Principal;
use crate::sys::poll::Watched;

/// How long the request line and the headers may take.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// How long the whole request may take.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a caller may read nothing of an answer that is ready for him.
const READ_TIME: Duration = Duration::from_secs(5);
/// How long what a refused caller still sends is thrown away, so that he gets to read why.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How much of an answer is held for a caller at a time.
const ANSWER_BUFFER: usize = 64 << 10;

/// A caller, from the accept to the end.
pub(super) struct Caller {
    client: Socket,
    principal: Principal,
    since: Instant,
    stage: Stage,
}

enum Stage {
    /// The request is coming in.
    Receiving {
        bytes: Vec<u8>,
        head: Option<Admitted>,
    },
    /// It is complete, and goes to the server behind the gate as soon as there is a connection.
    Received {
        request: Vec<u8>,
        tries: u32,
    },
    /// It is on its way there, or its answer on the way back.
    Relaying(Relay),
    /// All is said: what still comes in is thrown away.
    Lingering {
        until: Instant,
    },
    Over,
}

/// A head that the policy has let through.
struct Admitted {
    head: Head,
    route: &'static Route,
}

struct Relay {
    /// `None` once the answer is complete.
    server: Option<Socket>,
    request: Vec<u8>,
    sent: usize,
    tries: u32,
    answer: Vec<u8>,
    /// Whether any of the answer has been passed on.
    begun: bool,
    /// When the caller last read something, or had nothing to read.
    moved: Instant,
}

/// What a caller needs from the gate.
pub(super) enum Wish {
    Nothing,
    /// A connection to the server behind the gate.
    Server,
    /// The server broke off without a word: another one, please.
    AnotherServer,
}

/// How often a request that the server never saw is brought to it.
const MOST_TRIES: u32 = 3;

impl Caller {
    pub(super) fn new(client: Socket, principal: Principal, now: Instant) -> Self {
        Caller { client, principal, since: now, stage: Stage::Receiving { bytes: Vec::new(), head: None } }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Whether the server behind the gate may still have to accept his connection.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(&self.stage, Stage::Relaying(Relay { server: Some(_), begun: false, .. }))
    }

    /// Since when he keeps us waiting for his request.
    pub(super) fn dallies_since(&self) -> Option<Instant> {
        matches!(self.stage, Stage::Receiving { .. }).then_some(self.since)
    }

    /// What to wait for on the caller's side and on the server's.
    pub(super) fn watched(&self) -> (Watched<'_>, Option<Watched<'_>>) {
        let client = |reads, writes| Watched::new(self.client.as_fd(), reads, writes);
        match &self.stage {
            Stage::Receiving { .. } | Stage::Lingering { .. } => (client(true, false), None),
            Stage::Received { .. } | Stage::Over => (client(false, false), None),
            Stage::Relaying(relay) => {
                let (asks, reads) = (relay.sent < relay.request.len(), relay.answer.len() < ANSWER_BUFFER);
                let server = relay.server.as_ref().map(|server| Watched::new(server.as_fd(), reads, asks));
                (client(false, !relay.answer.is_empty()), server)
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Receiving { head: None, .. } => Some(self.since + HEAD_TIME),
            Stage::Receiving { head: Some(_), .. } => Some(self.since + REQUEST_TIME),
            Stage::Relaying(relay) if !relay.answer.is_empty() => Some(relay.moved + READ_TIME),
            // Who waits for a verdict may wait for long.
            Stage::Relaying(_) | Stage::Received { .. } | Stage::Over => None,
            Stage::Lingering { until } => Some(*until),
        }
    }

    /// Goes as far as it can without waiting.
    pub(super) fn proceed(&mut self, site: &Site, now: Instant, lost: bool) -> Wish {
        if lost && !matches!(self.stage, Stage::Receiving { .. }) {
            self.stage = Stage::Over;
        }
        match &mut self.stage {
            Stage::Receiving { .. } => self.receive(site, now),
            Stage::Relaying(_) => return self.relay(now),
            Stage::Lingering { until } if *until <= now => self.stage = Stage::Over,
            Stage::Lingering { .. } => self.linger(),
            Stage::Received { .. } | Stage::Over => {}
        }
        if matches!(self.stage, Stage::Received { .. }) { Wish::Server } else { Wish::Nothing }
    }

    /// Brings the request to the server; without one, the caller is told so.
    pub(super) fn meet(&mut self, server: io::Result<Socket>, now: Instant) {
        let Stage::Received { request, tries } = &mut self.stage else { return };
        match server {
            Ok(server) => {
                let (request, tries) = (mem::take(request), *tries + 1);
                let server = Some(server);
                let relay =
                    Relay { server, request, sent: 0, tries, answer: Vec::new(), begun: false, moved: now };
                self.stage = Stage::Relaying(relay);
            }
            Err(error) => {
                self.refuse(
                    &Refusal::new(503, format!("the control API is out of order: {}", Cause(&error))),
                    now,
                );
            }
        }
    }

    /// Says why not, and nothing else.
    pub(super) fn refuse(&mut self, refusal: &Refusal, now: Instant) {
        let relay = Relay {
            server: None,
            request: Vec::new(),
            sent: 0,
            tries: 0,
            answer: page(refusal),
            begun: true,
            moved: now,
        };
        self.stage = Stage::Relaying(relay);
        self.relay(now);
    }

    fn receive(&mut self, site: &Site, now: Instant) {
        let ended = match &mut self.stage {
            Stage::Receiving { bytes, .. } => drain(&mut self.client, bytes),
            _ => return,
        };
        match self.understand(site) {
            Err(refusal) => self.refuse(&refusal, now),
            Ok(()) if !matches!(self.stage, Stage::Receiving { .. }) => {}
            Ok(()) if ended => self.stage = Stage::Over,
            Ok(()) if self.deadline().is_some_and(|at| at <= now) => {
                self.refuse(&Refusal::new(408, "the request takes too long"), now);
            }
            Ok(()) => {}
        }
    }

    /// Reads the head, and then the body, out of what has come so far.
    fn understand(&mut self, site: &Site) -> Result<(), Refusal> {
        let Stage::Receiving { bytes, head: admitted } = &mut self.stage else { return Ok(()) };
        if admitted.is_none() {
            let Some(head) = Head::read(bytes)? else { return Ok(()) };
            let route = site.admit(&head)?;
            if head.expects_continue() && bytes.len() == head.length {
                // So few bytes always fit.
                drop(self.client.send_with_flags(b"HTTP/1.1 100 Continue\r\n\r\n", libc::MSG_NOSIGNAL));
            }
            *admitted = Some(Admitted { head, route });
        }
        let Some(Admitted { head, route }) = admitted else { return Ok(()) };
        let Some(body) = head.body.read(&bytes[head.length..])? else { return Ok(()) };
        let request = rebuilt(head, &self.principal, if route.kind.has_body() { &body } else { &[] });
        self.stage = Stage::Received { request, tries: 0 };
        Ok(())
    }

    fn relay(&mut self, now: Instant) -> Wish {
        let Stage::Relaying(relay) = &mut self.stage else { return Wish::Nothing };
        match relay.exchange() {
            Exchange::Unheard if relay.tries < MOST_TRIES => {
                let (request, tries) = (mem::take(&mut relay.request), relay.tries);
                self.stage = Stage::Received { request, tries };
                return Wish::AnotherServer;
            }
            Exchange::Unheard => {
                self.refuse(&Refusal::new(503, "the control API is out of order; ask again"), now);
                return Wish::Nothing;
            }
            Exchange::Heard => {}
        }
        let passed = relay.pass_on(&self.client, now);
        let (over, late) =
            (relay.server.is_none() && relay.answer.is_empty(), relay.moved + READ_TIME <= now);
        if passed.is_err() || late && !relay.answer.is_empty() {
            self.stage = Stage::Over;
        } else if over {
            drop(self.client.shutdown(Shutdown::Write));
            self.stage = Stage::Lingering { until: now + LINGER_TIME };
            self.linger();
        }
        Wish::Nothing
    }

    fn linger(&mut self) {
        let mut thrown_away = Vec::new();
        if drain(&mut self.client, &mut thrown_away) {
            self.stage = Stage::Over;
        }
    }
}

/// How it goes between the gate and the server.
enum Exchange {
    Heard,
    /// It broke off before the first byte of an answer: it never saw the request.
    Unheard,
}

impl Relay {
    fn exchange(&mut self) -> Exchange {
        let Some(server) = &mut self.server else { return Exchange::Heard };
        while self.sent < self.request.len() {
            match server.send_with_flags(&self.request[self.sent..], libc::MSG_NOSIGNAL) {
                Ok(count) => self.sent += count,
                // Whatever it is, reading tells.
                Err(_) => break,
            }
        }
        if self.answer.len() < ANSWER_BUFFER && drain(server, &mut self.answer) {
            self.server = None;
            if !self.begun && self.answer.is_empty() {
                return Exchange::Unheard;
            }
        }
        Exchange::Heard
    }

    fn pass_on(&mut self, client: &Socket, now: Instant) -> io::Result<()> {
        if !self.begun {
            self.begun = announce_end(&mut self.answer);
        }
        // Until its first line is complete, an answer waits; all of it may be a first line only when it has ended.
        while (self.begun || self.server.is_none()) && !self.answer.is_empty() {
            match client.send_with_flags(&self.answer, libc::MSG_NOSIGNAL) {
                Ok(count) => {
                    self.answer.drain(..count);
                    self.moved = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.moved = now;
        Ok(())
    }
}

/// Adds `Connection: close` below the first line, since every connection takes one request.
fn announce_end(answer: &mut Vec<u8>) -> bool {
    let Some(end) = answer.windows(2).position(|two| two == b"\r\n") else { return false };
    answer.splice(end + 2..end + 2, *b"Connection: close\r\n");
    true
}

/// The same request in our own words: nothing of what the caller wrote but method, path and body.
fn rebuilt(head: &Head, by: &Principal, body: &[u8]) -> Vec<u8> {
    let (method, target, length) = (&head.method, &head.target, body.len());
    let by = serde_json::to_string(by).unwrap_or_default();
    let lines = format!(
        "{method} {target} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n{PRINCIPAL}: {by}\r\nContent-Length: {length}\r\n\r\n"
    );
    [lines.as_bytes(), body].concat()
}

fn page(refusal: &Refusal) -> Vec<u8> {
    let reason = match refusal.status {
        400 => "Bad Request",
        401 => "Unauthorized\r\nWWW-Authenticate: Bearer",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Refused",
    };
    let (status, body) = (refusal.status, &refusal.reason);
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Reads what is there, up to a buffer's worth, and says whether that was the end.
fn drain(from: &mut Socket, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 << 10];
    let most = into.len() + 2 * ANSWER_BUFFER;
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
