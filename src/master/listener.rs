//! The listening sockets: bound here, owned by the master, shared with every worker.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::handed::Handed;
use super::on_demand::OnDemand;
use super::patience::patiently;
use super::reuseport::Group;
use super::socketfile::{self, Access, Mode, Place, SocketFile};
use crate::config::{ListenAddress, ListenerConfig};
use crate::error::{Cause, Error, Kind, Result};
use crate::journal;
use crate::sys::accept::refuse_newcomers;
use crate::sys::inotify::{Inotify, WatchId};
use crate::sys::sentinel::Sentinel;
use crate::sys::user;

/// All listeners of the cluster.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) configured: Vec<Listener>,
    /// By the address that was asked for.
    pub(super) on_demand: BTreeMap<String, OnDemand>,
    pub(super) privilege: Privilege,
    /// Hears when a worker shuts one of them down.
    pub(super) sentinel: Sentinel,
    /// The control API's socket file, which is looked after like those of listeners.
    pub(super) api_file: Option<(WatchId, Arc<Place>)>,
}

/// What workers may have bound for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privilege {
    /// They run as the master's own user, and could bind it themselves.
    Same,
    /// They run as somebody else: nothing that only the master may bind.
    Less,
    /// The master is shutting down: nothing more is bound.
    Over,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    /// With the port that the system chose where the settings say 0.
    pub(super) address: ListenAddress,
    pub(super) origin: Origin,
    pub(super) backlog: u32,
    pub(super) sockets: Sockets,
    /// What Node workers share about it: the first one's data are for all.
    pub(super) node_data: Value,
    /// Removed from the file system when dropped.
    pub(super) file: Option<SocketFile>,
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Bound,
    /// Handed over by somebody who goes on listening when this master has gone.
    Adopted,
}

#[derive(Debug)]
pub(super) enum Sockets {
    /// One for all workers.
    Shared(Arc<OwnedFd>),
    /// One a slot (`reusePort`).
    PerSlot(Group),
    /// The master is shutting down; its copies are closed.
    Closed,
}

impl Listeners {
    /// Binds every listener of the settings, or adopts the one that systemd has handed over.
    pub(super) fn bind(
        configs: &[ListenerConfig],
        slots: usize,
        privilege: Privilege,
        news: Option<&Inotify>,
    ) -> Result<Self> {
        let mut adopted = Handed::take()?.adopt(configs).into_iter();
        let bind = |config: &ListenerConfig| match adopted.next().flatten() {
            Some(listener) => Ok(listener),
            None => patiently(|| Listener::bind(config, slots, news)).map_err(|error| {
                Error::start(format_args!("listener {} at {}", config.name, config.address), error)
            }),
        };
        let configured = configs.iter().map(bind).collect::<Result<_>>()?;
        let sentinel =
            Sentinel::new().map_err(|error| Error::start("the watch over the listeners", error))?;
        let listeners =
            Listeners { configured, on_demand: BTreeMap::new(), privilege, sentinel, api_file: None };
        let sockets = listeners.configured.iter().flat_map(Listener::all_sockets);
        sockets.for_each(|socket| listeners.sentinel.watch(socket.as_fd()));
        Ok(listeners)
    }

    /// What the worker of a slot gets, in the order of the settings.
    pub(super) fn for_slot(&self, slot: usize) -> impl Iterator<Item = (String, Arc<OwnedFd>)> {
        let of = move |listener: &Listener| Some((listener.name.clone(), Arc::clone(listener.socket(slot)?)));
        self.configured.iter().filter_map(of)
    }

    /// The sockets that this slot alone has, where it has none yet.
    pub(super) fn open_slot(&mut self, slot: usize) -> io::Result<()> {
        for listener in &mut self.configured {
            if let Sockets::PerSlot(group) = &mut listener.sockets
                && let Some(socket) = group.open(slot)?
            {
                self.sentinel.watch(socket.as_fd());
            }
        }
        Ok(())
    }

    /// Closes them.
    pub(super) fn close_slot(&mut self, slot: usize) {
        self.groups().for_each(|group| group.close(slot));
    }

    /// Lets new connections go to these slots alone, where each has a socket of its own.
    pub(super) fn steer(&mut self, slots: &[usize]) {
        let slots: BTreeSet<usize> = slots.iter().copied().collect();
        self.groups().for_each(|group| group.steer(&slots));
    }

    /// Whether nothing waits on the sockets that this slot alone has.
    pub(super) fn is_drained(&mut self, slot: usize) -> bool {
        self.groups().all(|group| group.is_drained(slot))
    }

    fn groups(&mut self) -> impl Iterator<Item = &mut Group> {
        self.configured.iter_mut().filter_map(|listener| match &mut listener.sockets {
            Sockets::PerSlot(group) => Some(group),
            Sockets::Shared(_) | Sockets::Closed => None,
        })
    }

    /// The socket files of which there may be news, until the cluster shuts down.
    pub(super) fn watched(&self) -> impl Iterator<Item = (WatchId, &Arc<Place>)> {
        let on_demand = self.on_demand.values().map(|entry| &entry.listener);
        let listeners = self.configured.iter().chain(on_demand);
        let files = listeners.filter_map(|listener| listener.file.as_ref()?.watched());
        let api = self.api_file.as_ref().map(|(watch, place)| (*watch, place));
        files.chain(api).filter(|_| self.privilege != Privilege::Over)
    }

    /// Names and addresses for the status.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&str, &ListenAddress)> {
        let on_demand = self.on_demand.values().map(|entry| &entry.listener);
        self.configured.iter().chain(on_demand).map(|listener| (listener.name.as_str(), &listener.address))
    }

    /// Refuses newcomers, and closes the master's copies. What waits in the queues is still the workers'.
    pub(super) fn close(&mut self) {
        self.privilege = Privilege::Over;
        let on_demand = self.on_demand.values_mut().map(|entry| &mut entry.listener);
        for listener in self.configured.iter_mut().chain(on_demand) {
            listener.refuse_newcomers();
            listener.file.iter().for_each(SocketFile::begin_removal);
            listener.sockets = Sockets::Closed;
        }
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        let on_demand = self.on_demand.values_mut().map(|entry| &mut entry.listener);
        let all = self.configured.iter_mut().chain(on_demand);
        socketfile::remove_all(all.filter_map(|listener| listener.file.take()));
    }
}

impl Listener {
    fn bind(config: &ListenerConfig, slots: usize, news: Option<&Inotify>) -> io::Result<Self> {
        let name = config.name.clone();
        let (sockets, address, file) = match &config.address {
            ListenAddress::Unix(path) => {
                let (socket, file) = socketfile::bind(path, access(config)?, config.backlog, news)?;
                (Sockets::shared(socket), config.address.clone(), Some(file))
            }
            ListenAddress::Abstract(name) => {
                (Sockets::shared(bind_abstract(name, config.backlog)?), config.address.clone(), None)
            }
            ListenAddress::Tcp(_) | ListenAddress::Udp(_) if config.reuse_port => {
                let group = Group::bind(config, slots)?;
                let address = group.address().clone();
                (Sockets::PerSlot(group), address, None)
            }
            ListenAddress::Tcp(at) | ListenAddress::Udp(at) => {
                let socket = bind_configured(config, *at, Sharing::Alone)?;
                let address = bound_address(&config.address, &socket);
                (Sockets::shared(socket), address, None)
            }
        };
        let (origin, backlog) = (Origin::Bound, config.backlog);
        Ok(Listener { name, address, origin, backlog, sockets, node_data: Value::Null, file })
    }

    /// Workers that stop accepting but keep their copies would leave newcomers to wait, and to be reset in the end.
    pub(super) fn refuse_newcomers(&self) {
        match (self.origin, &self.address) {
            (Origin::Bound, ListenAddress::Tcp(_)) => {}
            // A path is removed; datagrams have no queue of connections; what was adopted is somebody else's; and of
            // a name without a file nothing can be refused but by an error in every worker.
            (Origin::Bound, ListenAddress::Unix(_) | ListenAddress::Udp(_) | ListenAddress::Abstract(_))
            | (Origin::Adopted, _) => return,
        }
        for socket in self.all_sockets() {
            if let Err(error) = refuse_newcomers(socket.as_fd()) {
                let (name, cause) = (&self.name, Cause(&error));
                journal::warn!("listener {name}: newcomers wait until its last worker has gone: {cause}");
            }
        }
    }

    /// Whether it takes what comes to this address: an IPv6 socket for all addresses may take IPv4 as well.
    pub(super) fn serves(&self, wanted: &ListenAddress) -> bool {
        let takes_ipv4 = |socket: &Arc<OwnedFd>| SockRef::from(&**socket).only_v6().is_ok_and(|only| !only);
        self.address == *wanted
            || wanted.is_ipv4_wildcard()
                && self.address.shares_port_with_ipv4(wanted)
                && self.socket(0).is_some_and(takes_ipv4)
    }

    pub(super) fn all_sockets(&self) -> Vec<&Arc<OwnedFd>> {
        match &self.sockets {
            Sockets::Shared(socket) => vec![socket],
            Sockets::PerSlot(group) => group.sockets().collect(),
            Sockets::Closed => Vec::new(),
        }
    }

    fn socket(&self, slot: usize) -> Option<&Arc<OwnedFd>> {
        match &self.sockets {
            Sockets::Shared(socket) => Some(socket),
            Sockets::PerSlot(group) => group.socket(slot),
            Sockets::Closed => None,
        }
    }

    pub(super) fn share_with(&self, slot: usize) -> Result<Arc<OwnedFd>> {
        self.socket(slot).cloned().ok_or_else(shutting_down)
    }
}

/// Who may connect to a unix socket of the settings. Looks users up, and so reads files.
pub(super) fn access(config: &ListenerConfig) -> io::Result<Access> {
    let found = user::run_as(config.user.as_deref(), config.group.as_deref());
    let found = found.map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
    let (uid, gid) = found.map_or((None, None), |found| (found.credentials.uid, found.credentials.gid));
    Ok(Access { mode: config.mode.map_or(Mode::Umask, Mode::Exactly), uid, gid })
}

impl Sockets {
    pub(super) fn shared(socket: Socket) -> Self {
        Sockets::Shared(Arc::new(socket.into()))
    }
}

pub(super) fn shutting_down() -> Error {
    Error::new(Kind::Ended, "the cluster is shutting down")
}

/// Whether other sockets may be bound to the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    Alone,
    ReusePort,
}

pub(crate) fn bind_ip(
    kind: &ListenAddress,
    at: SocketAddr,
    backlog: u32,
    sharing: Sharing,
) -> io::Result<Socket> {
    bind_ip_with(kind, at, backlog, |socket| sharing.set(socket))
}

impl Sharing {
    fn set(self, socket: &Socket) -> io::Result<()> {
        match self {
            Sharing::Alone => Ok(()),
            Sharing::ReusePort => socket.set_reuse_port(true),
        }
    }
}

/// As the settings have it.
pub(super) fn bind_configured(
    config: &ListenerConfig,
    at: SocketAddr,
    sharing: Sharing,
) -> io::Result<Socket> {
    bind_ip_with(&config.address, at, config.backlog, |socket| {
        if config.only_ipv6 {
            socket.set_only_v6(true)?;
        }
        sharing.set(socket)
    })
}

/// The same with options of the caller's own, set before the bind.
pub(super) fn bind_ip_with(
    kind: &ListenAddress,
    at: SocketAddr,
    backlog: u32,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let is_udp = matches!(kind, ListenAddress::Udp(_));
    let (style, protocol) = if is_udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
    let socket = Socket::new(Domain::for_address(at), style, Some(protocol))?;
    if !is_udp {
        socket.set_reuse_address(true)?; // a restarted master must not wait for old connections to time out
        // Inherited by what is accepted: not every server sets it, and those that take the socket for another kind
        // cannot; each answer would wait for the client's delayed acknowledgement.
        socket.set_tcp_nodelay(true)?;
    }
    prepare(&socket)?;
    socket.bind(&at.into())?;
    if !is_udp {
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    }
    Ok(socket)
}

/// A name that has no file.
pub(crate) fn bind_abstract(name: &OsStr, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = [b"\0", name.as_bytes()].concat();
    socket.bind(&SockAddr::unix(OsStr::from_bytes(&address))?)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

pub(super) fn bound_address(wanted: &ListenAddress, socket: &Socket) -> ListenAddress {
    let bound = socket.local_addr().ok().and_then(|address| address.as_socket());
    match (wanted, bound) {
        (ListenAddress::Tcp(_), Some(bound)) => ListenAddress::Tcp(bound),
        (ListenAddress::Udp(_), Some(bound)) => ListenAddress::Udp(bound),
        (_, _) => wanted.clone(),
    }
}
