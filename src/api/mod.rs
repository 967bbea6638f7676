//! The control API: `tiny_http` on a thread of its own, which gives orders through a `Handle` like anybody else.
#![warn(clippy::disallowed_macros)]

mod asked;
mod messages;
pub(crate) mod routes;
mod verdict;
mod waiters;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tiny_http::{Request, Server};

use self::routes::{Answer, Page, text};
use self::waiters::Waiters;
use crate::config::{ApiConfig, ListenAddress};
use crate::error::{Error, Kind, Result};
use crate::handle::Handle;
use crate::journal;
use crate::master::patience::patiently;
use crate::master::socketfile::{self, SocketFile};

/// How many callers may wait to be accepted.
const BACKLOG: u32 = 128;
/// Only the master's own user may give orders through a unix socket.
const SOCKET_MODE: u32 = 0o600;
/// How long the end of the cluster waits for an answer that is being written.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// The API's socket, bound before anything else starts, so that a busy port is a start-up error.
pub(crate) struct Bound {
    listener: tiny_http::Listener,
    address: ListenAddress,
    file: Option<SocketFile>,
    token: Option<String>,
}

/// The API at work; stopped when dropped.
pub(crate) struct Serving {
    server: Arc<Server>,
    over: Receiver<Over>,
    _file: Option<SocketFile>,
}

/// Never sent: the channel ends with the last thread that answers.
enum Over {}

impl Bound {
    pub(crate) fn bind(config: &ApiConfig) -> Result<Self> {
        let failed = |error| Error::start(format_args!("control API at {}", config.listen), error);
        let token = config.token.clone();
        let (listener, address, file) = match &config.listen {
            ListenAddress::Tcp(at) => {
                let listener = patiently(|| TcpListener::bind(at)).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                if !bound.ip().is_loopback() && token.is_none() {
                    journal::warn!(
                        "the control API at {bound} has no token: whoever reaches that address can restart and stop this service"
                    );
                }
                (listener.into(), ListenAddress::Tcp(bound), None)
            }
            ListenAddress::Unix(path) => {
                let (socket, file) =
                    patiently(|| socketfile::bind_in_place(path, SOCKET_MODE, BACKLOG)).map_err(failed)?;
                let listener = std::os::unix::net::UnixListener::from(OwnedFd::from(socket));
                (listener.into(), config.listen.clone(), Some(file))
            }
            ListenAddress::Udp(_) => {
                return Err(Error::new(
                    Kind::Setting,
                    format!("control API at {}: not a stream", config.listen),
                ));
            }
        };
        Ok(Bound { listener, address, file, token })
    }

    /// Where it listens, with the port that the system chose where the settings say 0.
    pub(crate) fn address(&self) -> ListenAddress {
        self.address.clone()
    }

    pub(crate) fn serve(self, handle: Handle) -> Result<Serving> {
        let server = Server::from_listener(self.listener, None)
            .map_err(|error| Error::new(Kind::Start, format!("control API at {}: {error}", self.address)))?;
        let server = Arc::new(server);
        let (serving, token) = (Arc::clone(&server), self.token);
        let (ends, over) = channel();
        std::thread::Builder::new()
            .name("proteus-api".into())
            .spawn(move || {
                let waiters = Waiters::new(ends);
                answer_all(&serving, &waiters, &handle, token.as_deref());
                // In this order: the server's own drop wakes its accept thread through the socket's file,
                // which goes once `over` has heard.
                drop(serving);
                drop(waiters);
            })
            .map_err(|error| Error::start("control API", error))?;
        Ok(Serving { server, over, _file: self.file })
    }
}

fn answer_all(server: &Server, waiters: &Waiters, handle: &Handle, token: Option<&str>) {
    while let Ok(mut request) = server.recv() {
        match routes::answer(&mut request, handle, token) {
            Answer::Now(page) => send(request, page),
            Answer::Later(later) if waiters.has_room() => waiters.answer(request, later),
            Answer::Later(_) => send(request, text(503, "too many callers wait already")),
        }
    }
}

fn send(request: Request, answer: Page) {
    if let Err(error) = request.respond(answer) {
        journal::debug!("control API: the caller has gone: {error}");
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.server.unblock();
        // A caller who stalls within a request holds the thread for as long as he likes: no reason to stay.
        drop(self.over.recv_timeout(LAST_ANSWER));
    }
}
