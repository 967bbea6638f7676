//! The gate: the only part of the control API that meets the outside.
//!
//! One thread accepts, receives under limits of time and size, refuses what the policy refuses, and passes the
//! rest on, rebuilt, to the HTTP server behind it. It sleeps until something comes; nothing in it blocks, so no
//! caller holds up another one.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use super::backend::Backend;
use super::caller::{Caller, Wish};
use super::head::Refusal;
use super::policy::Site;
use super::waiters::Waiters;
use crate::handle::Handle;
use crate::journal;
use crate::master::socketfile::SocketFile;
use crate::principal::{Owner, Principal};
use crate::sys::ancillary;
use crate::sys::poll::{Watched, poll};

/// How many connections are held at a time; more wait in the kernel's queue.
const CALLERS: usize = 16;
/// How long a caller may take over his request while nobody else wants his place.
const DALLYING: Duration = Duration::from_millis(100);
/// Descriptors between the gate and the server: our end, and its own twice.
const WAY_TO_SERVER: usize = 3;
/// How long nobody is accepted where the system has no descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The gate and all that it owns.
pub(super) struct Gate {
    door: Option<Door>,
    site: Site,
    handle: Handle,
    waiters: Waiters,
    backend: Option<Backend>,
    /// Its end says that it is time to close.
    bell: UnixStream,
    callers: Vec<Caller>,
    /// Not before this may anybody be accepted.
    accepts_from: Option<Instant>,
}

/// Where callers come in.
pub(super) struct Door {
    listener: Socket,
    _file: Option<SocketFile>,
    _open: Sender<Over>,
}

/// Never sent: a channel's end is the news.
pub(super) enum Over {}

impl Door {
    /// `open` ends when the door is closed and its file is gone.
    pub(super) fn new(listener: Socket, file: Option<SocketFile>, open: Sender<Over>) -> Self {
        Door { listener, _file: file, _open: open }
    }
}

impl Gate {
    pub(super) fn new(door: Door, site: Site, bell: UnixStream, handle: Handle) -> io::Result<Self> {
        let waiters = Waiters::default();
        let backend = Some(Backend::start(&handle, &waiters)?);
        bell.set_nonblocking(true)?;
        door.listener.set_nonblocking(true)?;
        Ok(Gate {
            door: Some(door),
            site,
            handle,
            waiters,
            backend,
            bell,
            callers: Vec::new(),
            accepts_from: None,
        })
    }

    /// Until the bell has rung and the last caller is served.
    pub(super) fn run(&mut self) {
        while self.door.is_some() || !self.callers.is_empty() {
            let lost = match self.wait() {
                Ok(lost) => lost,
                Err(error) => {
                    journal::error!("control API: {error}; its callers are let go");
                    self.callers.clear();
                    std::thread::park_timeout(EXHAUSTED);
                    continue;
                }
            };
            self.serve(&lost);
            self.listen_for_the_bell();
            self.accept();
        }
    }

    /// Lets everybody go, after a panic that left them in a state nobody knows.
    pub(super) fn clear(&mut self) {
        self.callers.clear();
    }

    /// Sleeps until something is to be done; says which callers have gone.
    fn wait(&self) -> io::Result<Vec<bool>> {
        let mut watched = Vec::with_capacity(2 + 2 * self.callers.len());
        if let Some(door) = &self.door {
            watched.push(Watched::new(self.bell.as_fd(), true, false));
            watched.push(Watched::new(door.listener.as_fd(), self.has_room(Instant::now()), false));
        }
        let first = watched.len();
        let (clients, servers): (Vec<_>, Vec<_>) = self.callers.iter().map(Caller::watched).unzip();
        watched.extend(clients);
        watched.extend(servers.into_iter().flatten());
        let timeout = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        poll(&mut watched, timeout)?;
        Ok(watched[first..].iter().take(self.callers.len()).map(Watched::is_lost).collect())
    }

    fn deadline(&self) -> Option<Instant> {
        let full = self.callers.len() >= CALLERS && self.door.is_some();
        let dallying = self.callers.iter().filter_map(Caller::dallies_since).min();
        // Once that is over there is room, and only a newcomer changes anything.
        let room = dallying.map(|since| since + DALLYING).filter(|at| full && *at > Instant::now());
        let callers = self.callers.iter().filter_map(Caller::deadline);
        callers.chain(room).chain(self.accepts_from).min()
    }

    fn has_room(&self, now: Instant) -> bool {
        self.accepts_from.is_none_or(|at| at <= now)
            && (self.callers.len() < CALLERS || self.slowest(now).is_some())
    }

    /// The caller who has dallied for longest, where that is long enough to give his place to another.
    fn slowest(&self, now: Instant) -> Option<usize> {
        let dallying =
            self.callers.iter().enumerate().filter_map(|(at, caller)| Some((caller.dallies_since()?, at)));
        dallying.min().filter(|(since, _)| *since + DALLYING <= now).map(|(_, at)| at)
    }

    fn listen_for_the_bell(&mut self) {
        // Nothing is ever sent: it rings by its end.
        if self.door.is_some() && matches!(self.bell.read(&mut [0]), Ok(0)) {
            self.door = None;
            self.callers.retain(|caller| caller.dallies_since().is_none());
        }
    }

    fn serve(&mut self, lost: &[bool]) {
        let now = Instant::now();
        for (at, lost) in lost.iter().enumerate().take(self.callers.len()) {
            self.serve_one(at, *lost, now);
        }
        self.callers.retain(|caller| !caller.is_over());
    }

    fn serve_one(&mut self, at: usize, lost: bool, now: Instant) {
        let mut wish = self.callers[at].proceed(&self.site, now, lost);
        loop {
            match wish {
                Wish::Nothing => return,
                Wish::Server => {}
                Wish::AnotherServer => self.backend = None,
            }
            let server = self.server();
            self.callers[at].meet(server, now);
            wish = self.callers[at].proceed(&self.site, now, false);
        }
    }

    /// A connection to the server, which is built anew where it was lost.
    fn server(&mut self) -> io::Result<Socket> {
        self.check_descriptors(WAY_TO_SERVER)?;
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
        let backend = Backend::start(&self.handle, &self.waiters)?;
        let connected = backend.connect();
        self.backend = Some(backend);
        connected
    }

    /// Whether so many descriptors are to be had, beside those that the server needs for connections that it may
    /// not have accepted yet: it dies where it lacks one.
    fn check_descriptors(&self, count: usize) -> io::Result<()> {
        let unheard = self.callers.iter().filter(|caller| caller.is_unheard()).count();
        let needed = count + unheard * WAY_TO_SERVER;
        let taken: Vec<_> = (0..needed).map(|_| self.bell.try_clone()).collect();
        taken.into_iter().try_for_each(|taken| taken.map(drop))
    }

    fn accept(&mut self) {
        loop {
            let now = Instant::now();
            let Some(door) = self.door.as_ref().filter(|_| self.has_room(now)) else { return };
            self.accepts_from = None;
            let accepted = self.check_descriptors(1 + WAY_TO_SERVER).and_then(|()| door.listener.accept());
            let (client, address) = match accepted {
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
            let named = client.set_nonblocking(true).and_then(|()| principal(&client, &address));
            let Ok(principal) = named else { continue };
            if self.callers.len() >= CALLERS
                && let Some(slowest) = self.slowest(now)
            {
                let mut slowest = self.callers.swap_remove(slowest);
                slowest.refuse(&Refusal::new(408, "the request takes too long, and others are waiting"), now);
            }
            self.callers.push(Caller::new(client, principal, now));
            // Most requests are there already.
            self.serve_one(self.callers.len() - 1, false, now);
            self.callers.retain(|caller| !caller.is_over());
        }
    }
}

/// Who has connected.
fn principal(client: &Socket, address: &SockAddr) -> io::Result<Principal> {
    if let Some(address) = address.as_socket() {
        return Ok(Principal::Tcp { address, owner: Owner::Unknown });
    }
    ancillary::peer(client.as_fd()).map(|peer| Principal::Unix { uid: peer.uid, pid: peer.pid })
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
