//! The control API: `tiny_http` behind a gate, giving orders through a `Handle` like anybody else.
#![warn(clippy::disallowed_macros)]

mod asked;
mod backend;
mod caller;
mod door;
mod gate;
mod head;
mod host;
mod messages;
mod pair;
mod place;
mod policy;
mod refusals;
mod relay;
mod request;
pub(crate) mod routes;
mod users;
mod verdict;
mod waiting;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use socket2::Socket;

use self::backend::{Backend, quietly};
use self::door::Door;
use self::gate::{Gate, Over, Server};
use self::policy::{Orders, Reach, Site};
use self::users::Users;
use crate::config::{ApiConfig, ListenAddress};
use crate::error::{Error, Kind, Result};
use crate::handle::Handle;
use crate::journal;
use crate::master::listener::{Sharing, bind_abstract, bind_ip};
use crate::master::patience::patiently;
use crate::master::socketfile::{self, Access, Mode, Place, SocketFile};
use crate::sys::inotify::{Inotify, WatchId};
use crate::sys::process::effective_user;

/// How many callers may wait to be accepted.
const BACKLOG: u32 = 128;
/// Only the master's own user may give orders through a unix socket.
const OWN: Access = Access { mode: Mode::Exactly(0o600), uid: None, gid: None };
/// How long the end of the cluster waits for an answer that is being written.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// The API's sockets, bound before anything else starts, so that a busy port is a start-up error.
pub(crate) struct Bound {
    listener: Socket,
    address: ListenAddress,
    file: Option<SocketFile>,
    token: Option<String>,
    any_user: bool,
    hosts: Vec<String>,
    probes: Option<Socket>,
}

/// The API at work; it ends when dropped.
pub(crate) struct Serving {
    /// One for each gate.
    bells: Vec<UnixStream>,
    open: Receiver<Over>,
    over: Receiver<Over>,
}

impl Bound {
    pub(crate) fn bind(config: &ApiConfig, news: Option<&Inotify>) -> Result<Self> {
        let token = config.read_token()?;
        let (listener, address, file) = match &config.listen {
            ListenAddress::Tcp(at) => {
                let (listener, bound) = bind_tcp("control API", *at)?;
                (listener, ListenAddress::Tcp(bound), None)
            }
            ListenAddress::Unix(path) => {
                let bind = || socketfile::bind(path, OWN, BACKLOG, news);
                let failed = |error| Error::start(format_args!("control API at {}", config.listen), error);
                let (listener, file) = patiently(bind).map_err(failed)?;
                (listener, config.listen.clone(), Some(file))
            }
            ListenAddress::Abstract(name) => {
                let failed = |error| Error::start(format_args!("control API at {}", config.listen), error);
                let listener = patiently(|| bind_abstract(name, BACKLOG)).map_err(failed)?;
                (listener, config.listen.clone(), None)
            }
            ListenAddress::Udp(_) => {
                let reason = format!("control API at {}: not a stream", config.listen);
                return Err(Error::new(Kind::Setting, reason));
            }
        };
        if let Some(warning) = config.warning(&address) {
            journal::warn!("{warning}");
        }
        let probes =
            config.probes.map(|at| bind_tcp("probes", at).map(|(listener, _)| listener)).transpose()?;
        let (any_user, hosts) = (config.any_user, config.hosts.clone());
        Ok(Bound { listener, address, file, token, any_user, hosts, probes })
    }

    /// Its socket file, if it is to be looked after.
    pub(crate) fn watched_file(&self) -> Option<(WatchId, Arc<Place>)> {
        let (watch, place) = self.file.as_ref()?.watched()?;
        Some((watch, Arc::clone(place)))
    }

    /// Where it listens, with the port that the system chose where the settings say 0.
    pub(crate) fn address(&self) -> ListenAddress {
        self.address.clone()
    }

    pub(crate) fn serve(self, handle: Handle) -> Result<Serving> {
        let address = self.address.clone();
        let (opened, open) = channel();
        let (alive, over) = channel();
        let mut serving = Serving { bells: Vec::new(), open, over };
        let started = self.start(handle, &opened, &alive, &mut serving.bells);
        started.map_err(|error| Error::start(format_args!("control API at {address}"), error))?;
        Ok(serving)
    }

    fn start(
        self,
        handle: Handle,
        opened: &Sender<Over>,
        alive: &Sender<Over>,
        bells: &mut Vec<UnixStream>,
    ) -> io::Result<()> {
        if let Some(probes) = self.probes {
            let at = probes.local_addr()?.as_socket();
            let door = Door::new(probes, None, opened.clone())?;
            // A thread for each: they are few, and the other callers' server stays theirs.
            let start = |handle: &Handle, alive: &Sender<Over>| Ok(Backend::pairs(handle, alive));
            let server = Server { handle: handle.clone(), backend: None, start, alive: alive.clone() };
            bells.push(open_gate("proteus-probes", Gate::new(door, Site::of_probes(), server)?)?);
            journal::info!(
                "/health and /ready, and nothing else, on {}",
                at.map_or_else(String::new, |at| at.to_string())
            );
        }
        let door = Door::new(self.listener, self.file, opened.clone())?;
        let reach = Reach::of(&self.address);
        let orders = match reach {
            _ if self.token.is_some() || self.any_user => Orders::Anybody,
            Reach::Loopback => users(&door, &self.address),
            Reach::Name => Orders::Users(Users::of_this_process(effective_user())),
            Reach::File | Reach::Network => Orders::Anybody,
        };
        let names = own_names().chain(self.hosts).collect();
        let site = Site { reach, names, token: self.token, orders };
        let backend = Some(Backend::start(&handle, alive)?);
        let server = Server { handle, backend, start: Backend::start, alive: alive.clone() };
        bells.push(open_gate("proteus-gate", Gate::new(door, site, server)?)?);
        Ok(())
    }
}

fn bind_tcp(what: &str, at: SocketAddr) -> Result<(Socket, SocketAddr)> {
    let bind = || {
        let listener = bind_ip(&ListenAddress::Tcp(at), at, BACKLOG, Sharing::Alone)?;
        let bound = listener.local_addr()?.as_socket().unwrap_or(at);
        Ok((listener, bound))
    };
    patiently(bind).map_err(|error| Error::start(format_args!("{what} at {at}"), error))
}

/// Whose orders are taken, where it is for the kernel to say who somebody is.
fn users(door: &Door, address: &ListenAddress) -> Orders {
    if door.knows_users() {
        return Orders::Users(Users::of_this_process(effective_user()));
    }
    journal::warn!(
        "the control API at {address} takes orders from every user of this machine: the kernel does not say whose a connection is; `api.token` restricts it"
    );
    Orders::Anybody
}

/// A gate at work on a thread of its own; its bell.
fn open_gate(name: &str, (mut gate, bell): (Gate, UnixStream)) -> io::Result<UnixStream> {
    let thread = std::thread::Builder::new().name(name.into());
    quietly(|| {
        thread.spawn(move || {
            while catch_unwind(AssertUnwindSafe(|| gate.run())).is_err() {
                journal::error!("control API: a panic at its gate; the callers are let go, and it goes on");
                gate.clear();
            }
        })
    })?;
    Ok(bell)
}

impl Serving {
    /// Gives the addresses back. Who was let in before is still answered.
    pub(crate) fn close(&mut self) {
        self.bells.clear();
        drop(self.open.recv_timeout(LAST_ANSWER));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.close();
        // A caller who does not read its answer is no reason to stay.
        drop(self.over.recv_timeout(LAST_ANSWER));
    }
}

/// The machine's own name, with its domain and without.
fn own_names() -> impl Iterator<Item = String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_ascii_lowercase();
    let first = name.split('.').next().unwrap_or_default().to_owned();
    [first, name].into_iter().filter(|name| !name.is_empty())
}
