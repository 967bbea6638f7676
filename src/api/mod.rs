//! The control API: `tiny_http` behind a gate, giving orders through a `Handle` like anybody else.
#![warn(clippy::disallowed_macros)]

mod asked;
mod backend;
mod caller;
mod gate;
mod head;
mod messages;
mod policy;
pub(crate) mod routes;
mod verdict;
mod waiters;

use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use socket2::Socket;

use self::gate::{Door, Gate, Over};
use self::policy::{Reach, Site};
use crate::config::{ApiConfig, ListenAddress};
use crate::error::{Error, Kind, Result};
use crate::handle::Handle;
use crate::journal;
use crate::master::listener::{Sharing, bind_ip};
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
    listener: Socket,
    address: ListenAddress,
    file: Option<SocketFile>,
    token: Option<String>,
    hosts: Vec<String>,
}

/// The API at work; it ends when dropped.
pub(crate) struct Serving {
    bell: Option<UnixStream>,
    open: Receiver<Over>,
    over: Receiver<Over>,
}

impl Bound {
    pub(crate) fn bind(config: &ApiConfig) -> Result<Self> {
        let failed = |error| Error::start(format_args!("control API at {}", config.listen), error);
        let (token, hosts) = (config.token.clone(), config.hosts.clone());
        match &config.listen {
            ListenAddress::Tcp(at) => {
                let listener =
                    patiently(|| bind_ip(&config.listen, *at, BACKLOG, Sharing::Alone)).map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?.as_socket().unwrap_or(*at);
                if !bound.ip().is_loopback() && token.is_none() {
                    journal::warn!(
                        "the control API at {bound} has no token: whoever reaches that address can restart and stop this service"
                    );
                }
                Ok(Bound { listener, address: ListenAddress::Tcp(bound), file: None, token, hosts })
            }
            ListenAddress::Unix(path) => {
                let bind = || socketfile::bind(path, Some(SOCKET_MODE), BACKLOG);
                let (listener, file) = patiently(bind).map_err(failed)?;
                Ok(Bound { listener, address: config.listen.clone(), file: Some(file), token, hosts })
            }
            ListenAddress::Udp(_) => {
                Err(Error::new(Kind::Setting, format!("control API at {}: not a stream", config.listen)))
            }
        }
    }

    /// Where it listens, with the port that the system chose where the settings say 0.
    pub(crate) fn address(&self) -> ListenAddress {
        self.address.clone()
    }

    pub(crate) fn serve(self, handle: Handle) -> Result<Serving> {
        let failed = |error| Error::start(format_args!("control API at {}", self.address), error);
        let names = own_names().chain(self.hosts).collect();
        let site = Site { reach: Reach::of(&self.address), names, token: self.token };
        let (bell, rings) = UnixStream::pair().map_err(failed)?;
        let (opened, open) = channel();
        let (ends, over) = channel();
        let door = Door::new(self.listener, self.file, opened);
        let mut gate = Gate::new(door, site, rings, handle).map_err(failed)?;
        std::thread::Builder::new()
            .name("proteus-gate".into())
            .spawn(move || {
                while catch_unwind(AssertUnwindSafe(|| gate.run())).is_err() {
                    journal::error!(
                        "control API: a panic at its gate; the callers are let go, and it goes on"
                    );
                    gate.clear();
                }
                drop(gate);
                drop(ends);
            })
            .map_err(failed)?;
        Ok(Serving { bell: Some(bell), open, over })
    }
}

impl Serving {
    /// Gives the address back. Who was let in before is still answered.
    pub(crate) fn close(&mut self) {
        self.bell = None;
        drop(self.open.recv_timeout(LAST_ANSWER));
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.close();
        // A caller who does not read his answer is no reason to stay.
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
