//! One listening socket a slot (`reusePort`): the kernel spreads connections over the group, and a
//! worker's successor inherits its slot's socket with all that waits in it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, Socket};

use super::listener::{Sharing, bind_configured, bound_address};
use super::revival::listen_again;
use crate::config::{ListenAddress, ListenerConfig};
use crate::error::Cause;
use crate::journal;
use crate::sys::accept::{queued, readable};
use crate::sys::sentinel::is_shut_down;
use crate::sys::steer::steer;

/// The sockets of one listener.
#[derive(Debug)]
pub(super) struct Group {
    /// With the real port, once the first socket has one.
    config: ListenerConfig,
    /// In the kernel's order: as they were bound, and the last takes the place of one that is closed.
    members: Vec<(usize, Arc<OwnedFd>)>,
    /// The slots that new connections go to; none is all of them, as the kernel likes.
    live: BTreeSet<usize>,
}

impl Group {
    /// One socket for each slot, all on the port of the first.
    pub(super) fn bind(config: &ListenerConfig, slots: usize) -> io::Result<Self> {
        let config = config.clone();
        let mut group = Group { config, members: Vec::with_capacity(slots), live: BTreeSet::new() };
        // SO_REUSEPORT would let us in beside a stranger of the same user, and beside another master. The first socket
        // listens alone, which the kernel allows to one of all, before it lets the others in.
        let first = bind_configured(&group.config, ip(&group.config.address)?, Sharing::Alone)?;
        first.set_reuse_port(true)?;
        group.take_in(0, first);
        for slot in 1..slots {
            group.open(slot)?;
        }
        Ok(group)
    }

    pub(super) fn address(&self) -> &ListenAddress {
        &self.config.address
    }

    pub(super) fn socket(&self, slot: usize) -> Option<&Arc<OwnedFd>> {
        self.members.iter().find(|(of, _)| *of == slot).map(|(_, socket)| socket)
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = &Arc<OwnedFd>> {
        self.members.iter().map(|(_, socket)| socket)
    }

    /// A socket for this slot, unless it has one: the new one.
    pub(super) fn open(&mut self, slot: usize) -> io::Result<Option<&Arc<OwnedFd>>> {
        if self.socket(slot).is_some() {
            return Ok(None);
        }
        let socket = bind_configured(&self.config, ip(&self.config.address)?, Sharing::ReusePort)?;
        self.take_in(slot, socket);
        Ok(self.members.last().map(|(_, socket)| socket))
    }

    fn take_in(&mut self, slot: usize, socket: Socket) {
        self.config.address = bound_address(&self.config.address, &socket);
        self.members.push((slot, Arc::new(socket.into())));
    }

    /// Makes those listen again that a worker has shut down. The kernel took them out of their places, as if they were
    /// closed, and puts them behind the others.
    pub(super) fn listen_again(&mut self) -> io::Result<()> {
        let at = ip(&self.config.address)?;
        let mut dead = Vec::new();
        while let Some(place) = self.members.iter().position(|(_, socket)| is_shut_down(socket.as_fd())) {
            dead.push(self.members.swap_remove(place));
        }
        let mut outcome = Ok(());
        for (slot, socket) in dead {
            let listens = listen_again(&socket, at, self.config.backlog);
            outcome = outcome.and(listens);
            self.members.push((slot, socket));
        }
        self.attach();
        outcome
    }

    /// Closes the slot's socket; the kernel resets what still waits in it.
    pub(super) fn close(&mut self, slot: usize) {
        let Some(at) = self.members.iter().position(|(of, _)| *of == slot) else { return };
        let (_, socket) = self.members.swap_remove(at);
        if let ListenAddress::Tcp(_) = self.config.address {
            // Whoever else may hold it: it leaves the group now, while its place there is known.
            drop(SockRef::from(&*socket).shutdown(Shutdown::Both));
        }
        drop(socket);
        self.attach();
    }

    /// Lets new connections go to these slots alone.
    pub(super) fn steer(&mut self, slots: &BTreeSet<usize>) {
        self.live.clone_from(slots);
        self.attach();
    }

    fn attach(&self) {
        let live: Vec<bool> = self.members.iter().map(|(slot, _)| self.live.contains(slot)).collect();
        let Some((_, member)) = self.members.first().filter(|_| live.contains(&true)) else { return };
        if let Err(error) = steer(member.as_fd(), &live) {
            let address = &self.config.address;
            journal::warn!(
                "{address}: new connections cannot be kept from slots that do not serve: {}",
                Cause(&error)
            );
        }
    }

    /// Whether nothing waits on the slot's socket.
    pub(super) fn is_drained(&self, slot: usize) -> bool {
        let Some(socket) = self.socket(slot) else { return true };
        match self.config.address {
            ListenAddress::Tcp(_) => queued(socket.as_fd()) == 0,
            ListenAddress::Udp(_) | ListenAddress::Unix(_) | ListenAddress::Abstract(_) => {
                !readable(socket.as_fd(), Duration::ZERO).unwrap_or(false)
            }
        }
    }
}

fn ip(address: &ListenAddress) -> io::Result<SocketAddr> {
    match address {
        ListenAddress::Tcp(at) | ListenAddress::Udp(at) => Ok(*at),
        ListenAddress::Unix(_) | ListenAddress::Abstract(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Listener};
    use std::net::{TcpListener, UdpSocket};
    use std::sync::Barrier;
    use std::thread;

    fn config(address: &str) -> ListenerConfig {
        let listener = Listener::new("slots", address).reuse_port(true);
        Config::builder().listener(listener).build().unwrap().listeners.remove(0)
    }

    /// Each of them has a socket of its own for each slot, and would share its connections with the others.
    #[test]
    fn one_of_many_who_take_an_address_at_once_has_it() {
        let tcp = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap();
        for config in [config(&tcp.to_string()), config(&format!("udp:{udp}"))] {
            for round in 0..100 {
                let start = Barrier::new(4);
                let bind = || {
                    start.wait();
                    Group::bind(&config, 2)
                };
                let taken: Vec<_> = thread::scope(|scope| {
                    let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                    threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
                });
                assert!(taken.len() <= 1, "round {round} at {}: {}", config.address, taken.len());
            }
            let group = Group::bind(&config, 3).unwrap();
            assert_eq!(group.members.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1, 2]);
            assert_eq!(Group::bind(&config, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        }
    }
}
