//! One connection through the gate: what it said so far, and what it gets. Nothing here ever blocks.

use std::io;
use std::mem;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::head::{Head, Refusal};
use super::policy::Site;
use super::relay::{Asking, Delivery, Progress, drain};
use super::request::{Request, page};
use super::routes::{Route, Stay};
use super::waiting::Place;
use crate::error::Cause;
use crate::principal::Principal;
use crate::sys::poll::Watched;

/// How long the request line and the headers may take.
const HEAD_TIME: Duration = Duration::from_secs(2);
/// How long the whole request may take.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a caller may take over its request while nobody else wants its place.
const DALLYING: Duration = Duration::from_millis(100);
/// How long what a refused caller still sends is thrown away, so that it gets to read why.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// How often a request that the server never saw is brought to it.
const MOST_TRIES: u32 = 3;

/// A caller, from the accept to the end.
pub(super) struct Caller {
    client: Socket,
    principal: Principal,
    since: Instant,
    stage: Stage,
    /// What the books have not taken yet.
    refused: Option<Refused>,
}

enum Stage {
    /// The request is coming in.
    Receiving {
        bytes: Vec<u8>,
        head: Option<Admitted>,
    },
    /// It is complete, and goes to the server behind the gate as soon as there is a connection.
    Received {
        request: Request,
        tries: u32,
        place: Option<Place>,
    },
    /// The server has it, or is about to.
    Asking {
        asking: Asking,
        request: Request,
        tries: u32,
        place: Option<Place>,
    },
    /// The whole answer is here, and goes to the caller at the caller's own pace.
    Delivering(Delivery),
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

/// A call that was refused, for the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    /// Method and path, as far as they are known, who asked, and why not.
    pub(super) line: String,
}

/// What a caller needs from the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// A connection to the server behind the gate.
    Server,
    /// The server broke off without a word: another one, please.
    AnotherServer,
}

impl Caller {
    pub(super) fn new(client: Socket, principal: Principal, now: Instant) -> Self {
        let stage = Stage::Receiving { bytes: Vec::new(), head: None };
        Caller { client, principal, since: now, stage, refused: None }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.stage, Stage::Receiving { .. })
    }

    /// Whether the server behind the gate may still have to accept this caller's connection.
    pub(super) fn is_unheard(&self) -> bool {
        matches!(&self.stage, Stage::Asking { asking, .. } if asking.is_unheard())
    }

    /// The place of those who wait that this caller has.
    pub(super) fn place(&self) -> Option<&Place> {
        match &self.stage {
            Stage::Received { place, .. } | Stage::Asking { place, .. } => place.as_ref(),
            Stage::Receiving { .. } | Stage::Delivering(_) | Stage::Lingering { .. } | Stage::Over => None,
        }
    }

    /// How long the request that is complete may stay.
    pub(super) fn wants(&self) -> Option<Stay> {
        match &self.stage {
            Stage::Received { request, place: None, .. } => Some(request.stay()),
            _ => None,
        }
    }

    pub(super) fn take(&mut self, taken: Place) {
        if let Stage::Received { place, .. } = &mut self.stage {
            *place = Some(taken);
        }
    }

    /// The order is given, and nobody waits for its end.
    pub(super) fn wait_no_longer(&mut self) {
        if let Stage::Received { request, .. } = &mut self.stage {
            request.wait_no_longer();
        }
    }

    /// From when on the caller's place at the gate is another's who wants it: while it keeps us waiting for its
    /// request, or for its reading.
    pub(super) fn yields_from(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Receiving { .. } => Some(self.since + DALLYING),
            Stage::Delivering(delivery) => Some(delivery.yields_from()),
            Stage::Lingering { .. } => Some(self.since),
            Stage::Received { .. } | Stage::Asking { .. } | Stage::Over => None,
        }
    }

    /// The bytes of the answer that are held for this caller.
    pub(super) fn held(&self) -> usize {
        match &self.stage {
            Stage::Asking { asking, .. } => asking.held(),
            Stage::Delivering(delivery) => delivery.held(),
            Stage::Receiving { .. } | Stage::Received { .. } | Stage::Lingering { .. } | Stage::Over => 0,
        }
    }

    /// What to wait for on the caller's side and on the server's.
    pub(super) fn watched(&self) -> (Watched<'_>, Option<Watched<'_>>) {
        let client = |reads, writes| Watched::new(self.client.as_fd(), reads, writes);
        match &self.stage {
            Stage::Receiving { .. } | Stage::Lingering { .. } => (client(true, false), None),
            Stage::Received { .. } | Stage::Over => (client(false, false), None),
            Stage::Delivering(_) => (client(false, true), None),
            Stage::Asking { asking, place, .. } => {
                let watches_end = place.as_ref().is_some_and(|place| !place.is_half_closed());
                let watched = client(false, false);
                (if watches_end { watched.and_half_close() } else { watched }, Some(asking.watched()))
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Receiving { head: None, .. } => Some(self.since + HEAD_TIME),
            Stage::Receiving { head: Some(_), .. } => Some(self.since + REQUEST_TIME),
            Stage::Delivering(delivery) => Some(delivery.deadline()),
            // Who waits for a verdict may wait for long.
            Stage::Asking { .. } | Stage::Received { .. } | Stage::Over => None,
            Stage::Lingering { until } => Some(*until),
        }
    }

    /// The caller's end is gone: nothing is held for it any more.
    pub(super) fn leave(&mut self) {
        // What it said before it went may still be an order.
        if !self.is_receiving() {
            self.stage = Stage::Over;
        }
    }

    /// The caller will say nothing more; it may still read, and it may have gone.
    pub(super) fn has_half_closed(&mut self) {
        if let Stage::Asking { place: Some(place), .. } = &mut self.stage {
            place.note_half_close();
        }
    }

    /// The two ends of the connection, for the question whether anybody is there.
    pub(super) fn client(&self) -> &Socket {
        &self.client
    }

    /// Goes as far as it can without waiting.
    pub(super) fn proceed(&mut self, site: &Site, now: Instant) -> Wish {
        if self.is_receiving() {
            self.receive(site, now);
        }
        if let Stage::Asking { .. } = self.stage
            && let Some(wish) = self.ask(now)
        {
            return wish;
        }
        if let Stage::Delivering(delivery) = &mut self.stage {
            match delivery.deliver(&self.client, now) {
                Progress::More => {}
                Progress::Broken => self.stage = Stage::Over,
                Progress::Done => {
                    drop(self.client.shutdown(Shutdown::Write));
                    self.stage = Stage::Lingering { until: now + LINGER_TIME };
                }
            }
        }
        if let Stage::Lingering { until } = self.stage
            && (until <= now || drain(&mut self.client, &mut Vec::new()))
        {
            self.stage = Stage::Over;
        }
        if matches!(self.stage, Stage::Received { .. }) { Wish::Server } else { Wish::Nothing }
    }

    /// Brings the request to the server; without one, the caller is told so.
    pub(super) fn meet(&mut self, server: io::Result<Socket>, now: Instant) {
        match (mem::replace(&mut self.stage, Stage::Over), server) {
            (Stage::Received { request, tries, place }, Ok(server)) => {
                let asking = Asking::new(server, request.encode(&self.principal, place.as_ref()));
                self.stage = Stage::Asking { asking, request, tries: tries + 1, place };
            }
            (Stage::Received { .. }, Err(error)) => {
                let reason = format!("the control API is out of order: {}", Cause(&error));
                self.refuse(&Refusal::new(503, reason), now);
            }
            (other, _) => self.stage = other,
        }
    }

    /// Says why not, and nothing else.
    pub(super) fn refuse(&mut self, refusal: &Refusal, now: Instant) {
        let what = match &self.stage {
            Stage::Receiving { head: Some(admitted), .. } => admitted.head.title(),
            Stage::Receiving { bytes, .. } => Head::title_of(bytes),
            Stage::Received { request, .. } | Stage::Asking { request, .. } => request.title(),
            Stage::Delivering(_) | Stage::Lingering { .. } | Stage::Over => return,
        };
        self.note_refusal(&what, refusal.status, &refusal.reason);
        self.stage = Stage::Delivering(Delivery::new(page(refusal), now));
    }

    /// The call that was refused since somebody last asked.
    pub(super) fn take_refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    fn note_refusal(&mut self, what: &str, status: u16, reason: &str) {
        let line = format!("{what} by {}: {status}, {reason}", self.principal);
        self.refused = Some(Refused { status, line });
    }

    fn receive(&mut self, site: &Site, now: Instant) {
        let Stage::Receiving { bytes, .. } = &mut self.stage else { return };
        let ended = drain(&mut self.client, bytes);
        match self.understand(site) {
            Err(refusal) => self.refuse(&refusal, now),
            Ok(()) if !self.is_receiving() => {}
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
            let route = site.admit(&head, &self.principal)?;
            if head.expects_continue() && bytes.len() == head.length {
                // So few bytes always fit.
                drop(self.client.send_with_flags(b"HTTP/1.1 100 Continue\r\n\r\n", libc::MSG_NOSIGNAL));
            }
            *admitted = Some(Admitted { head, route });
        }
        let Some(Admitted { head, route }) = admitted else { return Ok(()) };
        let Some(body) = head.body.read(&bytes[head.length..])? else { return Ok(()) };
        let request = Request::new(head, route, body);
        self.stage = Stage::Received { request, tries: 0, place: None };
        Ok(())
    }

    /// Takes the server's answer, whole: the server waits for no caller.
    fn ask(&mut self, now: Instant) -> Option<Wish> {
        let Stage::Asking { asking, tries, .. } = &mut self.stage else { return None };
        match asking.exchange() {
            Progress::More => None,
            Progress::Done => {
                self.deliver(now);
                None
            }
            Progress::Broken if *tries < MOST_TRIES => {
                if let Stage::Asking { request, tries, place, .. } =
                    mem::replace(&mut self.stage, Stage::Over)
                {
                    self.stage = Stage::Received { request, tries, place };
                }
                Some(Wish::AnotherServer)
            }
            Progress::Broken => {
                self.refuse(&Refusal::new(503, "the control API is out of order; ask again"), now);
                None
            }
        }
    }

    fn deliver(&mut self, now: Instant) {
        let Stage::Asking { asking, request, .. } = mem::replace(&mut self.stage, Stage::Over) else {
            return;
        };
        if let Some(status) = asking.status().filter(|status| (400..500).contains(status)) {
            self.note_refusal(&request.title(), status, &asking.reason());
        }
        self.stage = Stage::Delivering(Delivery::new(asking.into_answer(), now));
    }
}
