//! One listening socket a slot (`reusePort`): the kernel spreads connections over the group, and a
//! worker's successor inherits its slot's socket with all that waits in it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::listener::{Sharing, bind_ip, bound_address};
use crate::config::{ListenAddress, ListenerConfig};

/// The sockets of one listener.
#[derive(Debug)]
pub(super) struct Group {
    /// With the real port, once the first socket has one.
    address: ListenAddress,
    backlog: u32,
    members: Vec<(usize, Arc<OwnedFd>)>,
}

impl Group {
    /// One socket for each slot, all on the port of the first.
    pub(super) fn bind(config: &ListenerConfig, slots: usize) -> io::Result<Self> {
        let (address, backlog) = (config.address.clone(), config.backlog);
        // SO_REUSEPORT would let us in beside a stranger of the same user; bound alone, the kernel tells.
        drop(bind_ip(&address, ip(&address)?, backlog, Sharing::Alone)?);
        let mut group = Group { address, backlog, members: Vec::with_capacity(slots) };
        for slot in 0..slots {
            group.open(slot)?;
        }
        Ok(group)
    }

    pub(super) fn address(&self) -> &ListenAddress {
        &self.address
    }

    pub(super) fn socket(&self, slot: usize) -> Option<&Arc<OwnedFd>> {
        self.members.iter().find(|(of, _)| *of == slot).map(|(_, socket)| socket)
    }

    /// A socket for this slot, unless it has one.
    pub(super) fn open(&mut self, slot: usize) -> io::Result<()> {
        if self.socket(slot).is_some() {
            return Ok(());
        }
        let socket = bind_ip(&self.address, ip(&self.address)?, self.backlog, Sharing::ReusePort)?;
        self.address = bound_address(&self.address, &socket);
        self.members.push((slot, Arc::new(socket.into())));
        Ok(())
    }

    /// Closes the slot's socket; the kernel resets what still waits in it.
    pub(super) fn close(&mut self, slot: usize) {
        self.members.retain(|(of, _)| *of != slot);
    }
}

fn ip(address: &ListenAddress) -> io::Result<SocketAddr> {
    match address {
        ListenAddress::Tcp(at) | ListenAddress::Udp(at) => Ok(*at),
        ListenAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}
