//! The HTTP server behind the gate: `tiny_http` on a socket that has no name, so that nobody but the gate can
//! reach it.
//!
//! What comes from outside never meets it raw: it has no time-outs and no limits, and dies of some requests.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;
use tiny_http::{Request, Server};

use super::asked::BODY_LIMIT;
use super::door::is_exhausted;
use super::gate::Over;
use super::pair;
use super::place::Place;
use super::routes::{self, Answer, Later, PRINCIPAL, Page, text};
use crate::error::Cause;
use crate::handle::Handle;
use crate::journal;
use crate::principal::By;
use crate::sys::signal::Mask;

/// How long a server that was lost still answers.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// What every thread of a server holds until it ends.
pub(super) type Alive = Sender<Over>;

/// The server at work; it ends when dropped, and nobody waits for that: its thread may have an answer in hand that
/// the gate itself has to take.
pub(super) enum Backend {
    Server(Named),
    /// Where no folder can be written to: a thread for each request.
    Pairs {
        handle: Handle,
        alive: Alive,
    },
}

/// `tiny_http`, behind a socket in the file system that nobody else finds.
pub(super) struct Named {
    place: Arc<Place>,
    /// `None` once it is handed over.
    server: Option<Arc<Server>>,
    /// Takes the gate's share of the server, so that the last share goes where it blocks nobody.
    last: Sender<Arc<Server>>,
}

impl Backend {
    pub(super) fn start(handle: &Handle, alive: &Alive) -> io::Result<Self> {
        match Place::take() {
            Ok((place, listener)) => Named::start(place, listener, handle, alive).map(Backend::Server),
            Err(error) if is_exhausted(&error) => Err(error),
            Err(error) => {
                journal::debug!(
                    "control API: no folder for its inner socket ({}): it does without",
                    Cause(&error)
                );
                Ok(Backend::pairs(handle, alive))
            }
        }
    }

    pub(super) fn pairs(handle: &Handle, alive: &Alive) -> Self {
        Backend::Pairs { handle: handle.clone(), alive: alive.clone() }
    }

    /// A connection to it, which it may not have accepted yet.
    pub(super) fn connect(&self) -> io::Result<Socket> {
        match self {
            Backend::Server(server) => server.place.connect(),
            Backend::Pairs { handle, alive } => pair::connect(handle, alive),
        }
    }
}

impl Named {
    fn start(
        place: Place,
        listener: std::os::unix::net::UnixListener,
        handle: &Handle,
        alive: &Alive,
    ) -> io::Result<Self> {
        // It panics where it gets no thread.
        let server = quietly(|| catch_unwind(|| Server::from_listener(listener, None)))
            .map_err(|_| io::Error::other("no thread for the HTTP server"))?
            .map_err(io::Error::other)?;
        let (place, server) = (Arc::new(place), Arc::new(server));
        let (last, gates) = channel();
        let answering = Answering {
            place: Arc::clone(&place),
            server: Arc::clone(&server),
            gates,
            handle: handle.clone(),
            alive: alive.clone(),
        };
        let thread = thread::Builder::new().name("proteus-api".into());
        quietly(|| thread.spawn(move || answering.run()))?;
        Ok(Named { place, server: Some(server), last })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.unblock();
        // Given away, not copied: the thread has the last share, or its server would end without it. Fails only where
        // the thread has ended.
        let _ = self.last.send(server);
    }
}

/// Starts threads that take none of the program's signals.
pub(super) fn quietly<T>(start: impl FnOnce() -> T) -> T {
    let before = Mask::block_all();
    let started = start();
    before.apply();
    started
}

/// The thread that answers.
struct Answering {
    place: Arc<Place>,
    server: Arc<Server>,
    gates: Receiver<Arc<Server>>,
    handle: Handle,
    alive: Alive,
}

impl Answering {
    fn run(self) {
        let mut lost = false;
        let gates = loop {
            match self.server.recv() {
                Ok(request) => self.answer(request),
                Err(error) => {
                    // By its accept thread, whose errors are the system's; any other is the gate's word that its
                    // share is on the way.
                    if error.raw_os_error().is_none() {
                        break self.gates.recv().ok();
                    }
                    lost = true;
                }
            }
        };
        if lost {
            self.answer_the_last();
        }
        drop((gates, self.server));
        // Its accept thread has been told to end, and is woken by us: the server cannot find its own socket.
        drop(self.place.connect());
    }

    /// Those whom a lost server had accepted: what they ask is on its way to the queue.
    fn answer_the_last(&self) {
        let until = Instant::now() + LAST_REQUESTS;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if let Ok(Some(request)) = self.server.recv_timeout(left) {
                self.answer(request);
            }
        }
    }

    fn answer(&self, request: Request) {
        let answered = catch_unwind(AssertUnwindSafe(|| answer(request, &self.handle, &self.alive)));
        if answered.is_err() {
            journal::error!("control API: a panic while it answered; it goes on");
        }
    }
}

fn answer(mut request: Request, handle: &Handle, alive: &Alive) {
    let Some(by) = principal(&request) else {
        return send(request, text(400, "whoever asks must be named"));
    };
    let mut body = Vec::new();
    if let Err(error) = request.as_reader().take(BODY_LIMIT as u64).read_to_end(&mut body) {
        return send(request, text(400, &format!("the body ends early: {error}")));
    }
    match routes::answer(request.url(), by, body, handle) {
        Answer::Now(page) => send(request, page),
        Answer::Later(later) => answer_later(request, later, alive.clone()),
    }
}

/// Who asks, in the gate's words.
fn principal(request: &Request) -> Option<By> {
    let header = request.headers().iter().find(|header| header.field.equiv(PRINCIPAL))?;
    serde_json::from_str(header.value.as_str()).ok()
}

/// On a thread of its own, which may wait; the gate lets in only so many who do.
fn answer_later(request: Request, later: Later, alive: Alive) {
    let thread = thread::Builder::new().name("proteus-api-wait".into());
    let spawned = quietly(|| {
        thread.spawn(move || {
            send(request, later());
            drop(alive);
        })
    });
    if let Err(error) = spawned {
        journal::warn!("control API: no thread for a caller who waits: {error}; it is told of a failure");
    }
}

fn send(request: Request, answer: Page) {
    if let Err(error) = request.respond(answer) {
        journal::debug!("control API: the caller has gone: {error}");
    }
}
