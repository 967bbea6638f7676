//! Listeners that workers ask for while they run: bound once, shared by all that ask for the same.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use socket2::{SockRef, Socket};

use super::listener::{
    Listener, Listeners, Origin, Privilege, Sockets, bind_abstract, bind_ip_with, bound_address,
    shutting_down,
};
use super::socketfile::{self, Access, Mode, SocketFile};
use crate::config::ListenAddress;
use crate::error::{Error, Kind, Result};
use crate::node::{Grant, HandleKind, Options, Query, Target};
use crate::supervisor::Generation;
use crate::sys::inotify::Inotify;

/// The accept queue of listeners that workers ask for; those of the settings choose their own.
const BACKLOG: u32 = 1024;
/// More than any service asks for: a worker that asks without end must not use up the master's descriptors.
const MOST: usize = 64;
/// Ports below this need a privilege.
const FIRST_FREE_PORT: u16 = 1024;
/// Where the listeners of the settings begin among a worker's descriptors.
const FIRST_DESCRIPTOR: usize = 3;

/// A listener that is not in the settings.
#[derive(Debug)]
pub(super) struct OnDemand {
    pub(super) listener: Listener,
    /// Generations whose workers have asked for it.
    asked_in: BTreeSet<Generation>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) slot: usize,
    pub(super) generation: Generation,
}

/// A listener for a worker, or what is to be done before there is one.
#[derive(Debug)]
pub(super) enum Found<T> {
    Here(T),
    /// A path is to be bound, beside the loop: its file system may not answer.
    AtPath(PathBuf),
}

/// A path that was bound, or was not.
pub(super) type Bound = io::Result<(Socket, SocketFile)>;

impl Listeners {
    /// A worker asks for a listener at an address. Costs no descriptor beside the listener's own, however many
    /// answers wait for workers that do not read them.
    pub(super) fn on_demand(&mut self, text: &str, asker: Asker) -> Result<Found<Arc<OwnedFd>>> {
        let address: ListenAddress = text.parse()?;
        match self.obtain(&[address], 0, None, asker)? {
            Found::Here(listener) => listener.share_with(asker.slot).map(Found::Here),
            Found::AtPath(path) => Ok(Found::AtPath(path)),
        }
    }

    /// The same in Node's own words.
    pub(super) fn for_node(&mut self, query: &Query, asker: Asker) -> Result<Found<Grant<Arc<OwnedFd>>>> {
        let found = match &query.target {
            Err(errno) => Err(Error::start("listen", io::Error::from_raw_os_error(*errno))),
            Ok(Target::Descriptor(number)) => self.inherited(*number).map(Found::Here),
            Ok(Target::Addresses { candidates, index }) => {
                self.obtain(candidates, *index, Some(query.options), asker)
            }
        }?;
        let listener = match found {
            Found::Here(listener) => listener,
            Found::AtPath(path) => return Ok(Found::AtPath(path)),
        };
        let handle = listener.share_with(asker.slot)?;
        // Node takes every handle for non-blocking. The flag is the socket's: all of its workers are Node's.
        SockRef::from(&*handle)
            .set_nonblocking(true)
            .map_err(|error| Error::start(format_args!("listener {}", listener.name), error))?;
        if listener.node_data.is_null() {
            listener.node_data.clone_from(&query.data);
        }
        let kind = match listener.address {
            ListenAddress::Tcp(_) | ListenAddress::Unix(_) | ListenAddress::Abstract(_) => HandleKind::Stream,
            ListenAddress::Udp(_) => HandleKind::Datagram,
        };
        let (name, data) = (listener.name.clone(), listener.node_data.clone());
        Ok(Found::Here(Grant { handle, kind, name, data }))
    }

    /// A listener of the settings, by the number that a worker knows it by.
    fn inherited(&mut self, number: usize) -> Result<&mut Listener> {
        let at = number.checked_sub(FIRST_DESCRIPTOR);
        at.and_then(|at| self.configured.get_mut(at)).ok_or_else(|| {
            let none = io::Error::from_raw_os_error(libc::EINVAL);
            Error::start(format_args!("descriptor {number} is no listener of the settings"), none)
        })
    }

    /// The listener at the first of these addresses that there is, or that can be bound.
    fn obtain(
        &mut self,
        candidates: &[ListenAddress],
        index: u64,
        options: Option<Options>,
        asker: Asker,
    ) -> Result<Found<&mut Listener>> {
        let serves = |listener: &Listener| candidates.iter().any(|address| listener.serves(address));
        let configured = self.configured.iter().position(serves);
        if let Some(at) = configured {
            return Ok(Found::Here(&mut self.configured[at]));
        }
        let names = candidates.iter().map(|address| name_of(address, index));
        let known = names.into_iter().find(|name| self.on_demand.contains_key(name)).or_else(|| {
            let mut entries = self.on_demand.iter();
            let of_another = entries.find(|(_, entry)| index == 0 && serves(&entry.listener));
            of_another.map(|(name, _)| name.clone())
        });
        let name = match known {
            Some(name) => name,
            None => match self.add(candidates, index, options)? {
                Found::Here(name) => name,
                Found::AtPath(path) => return Ok(Found::AtPath(path)),
            },
        };
        let entry = self.on_demand.get_mut(&name).ok_or_else(shutting_down)?;
        entry.asked_in.insert(asker.generation);
        Ok(Found::Here(&mut entry.listener))
    }

    fn add(
        &mut self,
        candidates: &[ListenAddress],
        index: u64,
        options: Option<Options>,
    ) -> Result<Found<String>> {
        let mut refusal = None;
        for address in candidates {
            self.permit(address)?;
            let bound = match address {
                ListenAddress::Unix(path) => return Ok(Found::AtPath(path.clone())),
                ListenAddress::Abstract(name) => bind_abstract(name, backlog(options)),
                ListenAddress::Tcp(at) | ListenAddress::Udp(at) => {
                    bind(address, *at, options, self.has_ipv4_at_port_of(address))
                }
            };
            match bound {
                Ok(socket) => {
                    return Ok(Found::Here(self.insert(address, index, socket, backlog(options), None)));
                }
                Err(error) => {
                    // In use is in use: the next address would only hide it.
                    let is_final = error.kind() == io::ErrorKind::AddrInUse;
                    refusal = Some(Error::start(format_args!("listener at {address}"), error));
                    if is_final {
                        break;
                    }
                }
            }
        }
        Err(refusal.unwrap_or_else(|| Error::new(Kind::Start, "no address to listen at")))
    }

    /// Takes in a path that was bound. One that nobody may have any more is given back.
    pub(super) fn add_bound(&mut self, path: &Path, bound: Bound) -> Result<()> {
        let address = ListenAddress::Unix(path.to_owned());
        let (socket, file) =
            bound.map_err(|error| Error::start(format_args!("listener at {address}"), error))?;
        match self.permit(&address) {
            Ok(()) => drop(self.insert(&address, 0, socket, BACKLOG, Some(file))),
            Err(refusal) => {
                file.discard();
                return Err(refusal);
            }
        }
        Ok(())
    }

    fn insert(
        &mut self,
        address: &ListenAddress,
        index: u64,
        socket: Socket,
        backlog: u32,
        file: Option<SocketFile>,
    ) -> String {
        let name = name_of(address, index);
        let listener = Listener {
            name: name.clone(),
            address: bound_address(address, &socket),
            origin: Origin::Bound,
            backlog,
            sockets: Sockets::shared(socket),
            node_data: Value::Null,
            file,
        };
        listener.all_sockets().into_iter().for_each(|socket| self.sentinel.watch(socket.as_fd()));
        self.on_demand.insert(name.clone(), OnDemand { listener, asked_in: BTreeSet::new() });
        name
    }

    fn has_ipv4_at_port_of(&self, address: &ListenAddress) -> bool {
        let on_demand = self.on_demand.values().map(|entry| &entry.listener);
        self.configured.iter().chain(on_demand).any(|other| address.shares_port_with_ipv4(&other.address))
    }

    fn permit(&self, address: &ListenAddress) -> Result<()> {
        let privileged = match address {
            ListenAddress::Tcp(address) | ListenAddress::Udp(address) => {
                address.port() != 0 && address.port() < FIRST_FREE_PORT
            }
            ListenAddress::Unix(_) => true,
            ListenAddress::Abstract(_) => false,
        };
        if self.on_demand.len() >= MOST {
            let reason = format!("{address}: {MOST} listeners beside those of the settings are the most");
            return Err(Error::new(Kind::Start, reason));
        }
        match self.privilege {
            Privilege::Over => Err(shutting_down()),
            Privilege::Less if privileged => {
                let reason = "not in the settings, and the workers run as another user than the master";
                Err(Error::start(address, io::Error::new(io::ErrorKind::PermissionDenied, reason)))
            }
            Privilege::Less | Privilege::Same => Ok(()),
        }
    }

    /// Drops what no worker of this or a later generation has asked for.
    pub(super) fn release(&mut self, unused_since: Generation) {
        self.drop_where(|entry| entry.asked_in.last() < Some(&unused_since));
    }

    /// Drops what the workers of this generation alone have asked for.
    pub(super) fn forget(&mut self, generation: Generation) {
        self.drop_where(|entry| entry.asked_in.remove(&generation) && entry.asked_in.is_empty());
    }

    /// Workers that leave may still hold what is dropped: nobody comes in there any more.
    fn drop_where(&mut self, mut is_unused: impl FnMut(&mut OnDemand) -> bool) {
        self.on_demand.retain(|_, entry| {
            let is_unused = is_unused(entry);
            if is_unused {
                entry.listener.refuse_newcomers();
                if let Some(file) = entry.listener.file.take() {
                    file.discard();
                }
            }
            !is_unused
        });
    }
}

/// Binds a path as a listener of the settings is bound, or as Node has it.
pub(super) fn bind_path(path: &Path, options: Option<Options>, news: Option<&Inotify>) -> Bound {
    let mode = options
        .filter(|options| options.mode != 0)
        .map_or(Mode::Umask, |options| Mode::AtLeast(options.mode));
    socketfile::bind(path, Access { mode, ..Access::default() }, backlog(options), news)
}

fn backlog(options: Option<Options>) -> u32 {
    options.and_then(|options| options.backlog).unwrap_or(BACKLOG)
}

/// Without options, as a listener of the settings is bound.
fn bind(
    address: &ListenAddress,
    at: SocketAddr,
    options: Option<Options>,
    leaves_ipv4: bool,
) -> io::Result<Socket> {
    bind_ip_with(address, at, backlog(options), |socket| {
        if at.is_ipv6() && leaves_ipv4 {
            socket.set_only_v6(true)?;
        }
        let Some(options) = options else { return Ok(()) };
        if at.is_ipv6() && !leaves_ipv4 {
            socket.set_only_v6(options.only_ipv6)?;
        }
        if options.reuse_address { socket.set_reuse_address(true) } else { Ok(()) }
    })
}

/// Port 0 is a new port for each time that a worker asks, and the same in each worker.
fn name_of(address: &ListenAddress, index: u64) -> String {
    match address {
        ListenAddress::Tcp(at) | ListenAddress::Udp(at) if at.port() == 0 && index > 0 => {
            format!("{address} ({})", index + 1)
        }
        _ => address.to_string(),
    }
}
