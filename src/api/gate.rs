//! The gate: the only part of the control API that meets the outside.
//!
//! One thread accepts, receives under limits of time and size, refuses what the policy refuses, and passes the
//! rest on, rebuilt, to the HTTP server behind it, whose answers it takes whole. It sleeps until something comes;
//! nothing in it blocks, and it waits for no thread, so no caller holds up another one.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::backend::Backend;
use super::caller::{Caller, Wish};
use super::door::{Door, is_exhausted};
use super::head::Refusal;
use super::policy::Site;
use super::refusals::Refusals;
use super::routes::Stay;
use super::waiting::{Place, Seating, seat};
use crate::handle::Handle;
use crate::journal;
use crate::principal::CallId;
use crate::sys::poll::{Watched, poll};

/// How many connections are held at a time, beside those of callers who wait; more wait in the kernel's queue.
const CALLERS: usize = 16;
/// Descriptors between the gate and the server: our end, and its own twice.
const WAY_TO_SERVER: usize = 3;
/// How long nobody is accepted where the system has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How many bytes of answers are held for callers who read slowly; the slowest is let go beyond it.
const HELD: usize = 16 << 20;

/// The gate and all that it owns.
pub(super) struct Gate {
    door: Option<Door>,
    site: Site,
    server: Server,
    /// Its end says that it is time to close.
    bell: UnixStream,
    callers: Vec<Caller>,
    refusals: Refusals,
    next_call: u64,
    /// Not before this may anybody be accepted.
    accepts_from: Option<Instant>,
}

/// The server behind the gate, and how another one is made.
pub(super) struct Server {
    pub(super) handle: Handle,
    pub(super) backend: Option<Backend>,
    pub(super) start: fn(&Handle, &super::backend::Alive) -> io::Result<Backend>,
    pub(super) alive: super::backend::Alive,
}

/// Never sent: a channel's end is the news.
pub(super) enum Over {}

impl Gate {
    /// With the bell that closes it.
    pub(super) fn new(door: Door, site: Site, server: Server) -> io::Result<(Self, UnixStream)> {
        let (rope, bell) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let gate = Gate {
            door: Some(door),
            site,
            server,
            bell,
            callers: Vec::new(),
            refusals: Refusals::default(),
            next_call: 1,
            accepts_from: None,
        };
        Ok((gate, rope))
    }

    /// Until the bell has rung and the last caller is served.
    pub(super) fn run(&mut self) {
        while self.door.is_some() || !self.callers.is_empty() {
            if let Err(error) = self.wait() {
                journal::error!("control API: {error}; its callers are let go");
                self.callers.clear();
                std::thread::park_timeout(EXHAUSTED);
                continue;
            }
            self.serve();
            self.listen_for_the_bell();
            self.accept();
            self.refusals.say(Instant::now());
        }
    }

    /// Lets everybody go, after a panic that left them in a state nobody knows.
    pub(super) fn clear(&mut self) {
        self.callers.clear();
    }

    /// Sleeps until something is to be done, and notes which callers have gone.
    fn wait(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut watched = Vec::with_capacity(2 + 2 * self.callers.len());
        if let Some(door) = &self.door {
            watched.push(Watched::new(self.bell.as_fd(), true, false));
            watched.push(Watched::new(door.as_fd(), self.has_room(now), false));
        }
        let first = watched.len();
        let (clients, servers): (Vec<_>, Vec<_>) = self.callers.iter().map(Caller::watched).unzip();
        watched.extend(clients);
        watched.extend(servers.into_iter().flatten());
        poll(&mut watched, self.deadline(now).map(|at| at.saturating_duration_since(now)))?;
        let seen = watched[first..].iter().map(|end| (end.is_lost(), end.is_half_closed()));
        let seen: Vec<_> = seen.take(self.callers.len()).collect();
        for (caller, (lost, half_closed)) in self.callers.iter_mut().zip(seen) {
            let left = || self.door.as_ref().is_some_and(|door| door.has_left(caller.client()));
            if lost || half_closed && left() {
                caller.leave();
            } else if half_closed {
                caller.has_half_closed();
            }
        }
        Ok(())
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let full = self.in_passage() >= CALLERS && self.door.is_some();
        let yields = self.callers.iter().filter_map(Caller::yields_from).min();
        // Once that is over there is room, and only a newcomer changes anything.
        let room = yields.filter(|at| full && *at > now);
        let callers = self.callers.iter().filter_map(Caller::deadline);
        callers.chain(room).chain(self.accepts_from).chain(self.refusals.deadline()).min()
    }

    /// How many callers there are beside those who wait, who have places of their own.
    fn in_passage(&self) -> usize {
        self.callers.iter().filter(|caller| caller.place().is_none()).count()
    }

    fn has_room(&self, now: Instant) -> bool {
        self.accepts_from.is_none_or(|at| at <= now)
            && (self.in_passage() < CALLERS || self.slowest(now).is_some())
    }

    /// The caller who has kept us waiting for longest, where that is long enough to give its place to another.
    fn slowest(&self, now: Instant) -> Option<usize> {
        let slow =
            self.callers.iter().enumerate().filter_map(|(at, caller)| Some((caller.yields_from()?, at)));
        slow.min().filter(|(from, _)| *from <= now).map(|(_, at)| at)
    }

    fn listen_for_the_bell(&mut self) {
        // Nothing is ever sent: it rings by its end.
        if self.door.is_some() && matches!(self.bell.read(&mut [0]), Ok(0)) {
            self.door = None;
            self.callers.retain(|caller| !caller.is_receiving());
        }
    }

    fn serve(&mut self) {
        let now = Instant::now();
        for at in 0..self.callers.len() {
            self.serve_one(at, now);
        }
        self.callers.retain(|caller| !caller.is_over());
        self.let_go_of_answers();
    }

    fn serve_one(&mut self, at: usize, now: Instant) {
        let mut wish = self.callers[at].proceed(&self.site, now);
        while wish != Wish::Nothing {
            if wish == Wish::AnotherServer {
                self.server.backend = None;
            }
            if self.has_place(at, now) {
                let unheard = self.callers.iter().filter(|caller| caller.is_unheard()).count();
                let connected = check_descriptors(&self.bell, WAY_TO_SERVER * (1 + unheard))
                    .and_then(|()| self.server.connect());
                self.callers[at].meet(connected, now);
            }
            wish = self.callers[at].proceed(&self.site, now);
        }
        if let Some(refused) = self.callers[at].take_refused() {
            self.refusals.note(refused, &self.server.handle, now);
        }
    }

    /// Whether the caller's request may go on: one that waits needs a place for that.
    fn has_place(&mut self, at: usize, now: Instant) -> bool {
        let Some(stay) = self.callers[at].wants().filter(|stay| *stay != Stay::Brief) else { return true };
        let places = self.callers.iter().enumerate().filter_map(|(at, caller)| Some((at, caller.place()?)));
        match seat(stay, places) {
            Seating::Free => {}
            Seating::InsteadOf(other) => {
                let others = Refusal::new(503, "others wait; what was ordered goes on");
                self.callers[other].refuse(&others, now);
            }
            // The order is carried out in any case.
            Seating::Full if stay == Stay::WaitsToStop => {
                self.callers[at].wait_no_longer();
                return true;
            }
            Seating::Full => {
                self.callers[at].refuse(&Refusal::new(503, "too many callers wait already"), now);
                return false;
            }
        }
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.callers[at].take(Place::take(&self.server.handle, call, stay));
        true
    }

    /// Slow readers together hold so much and no more.
    fn let_go_of_answers(&mut self) {
        while self.callers.iter().map(Caller::held).sum::<usize>() > HELD {
            let reading = self.callers.iter().enumerate().filter(|(_, caller)| caller.held() > 0);
            let reading = reading.filter_map(|(at, caller)| Some((caller.yields_from()?, at)));
            match (reading.clone().min(), reading.count()) {
                (Some((_, slowest)), 2..) => drop(self.callers.swap_remove(slowest)),
                _ => return,
            }
        }
    }

    fn accept(&mut self) {
        loop {
            let now = Instant::now();
            let Some(door) = self.door.as_ref().filter(|_| self.has_room(now)) else { return };
            self.accepts_from = None;
            let unheard = self.callers.iter().filter(|caller| caller.is_unheard()).count();
            let needed = 1 + WAY_TO_SERVER * (1 + unheard);
            let accepted = check_descriptors(&self.bell, needed).and_then(|()| door.accept());
            let (client, principal) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_exhausted(&error) => {
                    journal::debug!("control API: accept: {error}");
                    self.accepts_from = Some(now + EXHAUSTED);
                    return;
                }
                // That caller has gone; the next one may be there.
                Err(_) => continue,
            };
            self.make_room(now);
            self.callers.push(Caller::new(client, principal, now));
            // Most requests are there already.
            self.serve_one(self.callers.len() - 1, now);
            self.callers.retain(|caller| !caller.is_over());
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.in_passage() < CALLERS {
            return;
        }
        let Some(slowest) = self.slowest(now) else { return };
        if self.callers[slowest].is_receiving() {
            let why = Refusal::new(408, "the request takes too long, and others are waiting");
            self.callers[slowest].refuse(&why, now);
            self.serve_one(slowest, now);
        }
        self.callers.swap_remove(slowest);
    }
}

impl Server {
    /// A connection to the server, which is built anew where it was lost.
    fn connect(&mut self) -> io::Result<Socket> {
        if let Some(backend) = &self.backend {
            match backend.connect() {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    journal::warn!("control API: its server is lost; a new one takes over");
                }
                connected => return connected,
            }
        }
        // The old one goes first: it holds descriptors, and they may be what is missing.
        self.backend = None;
        let backend = (self.start)(&self.handle, &self.alive)?;
        let connected = backend.connect();
        self.backend = Some(backend);
        connected
    }
}

/// Whether so many descriptors are to be had: the server needs its own for connections that it may not have
/// accepted yet, and dies where it lacks one.
fn check_descriptors(some: &UnixStream, count: usize) -> io::Result<()> {
    let taken: Vec<_> = (0..count).map(|_| some.try_clone()).collect();
    taken.into_iter().try_for_each(|taken| taken.map(drop))
}
