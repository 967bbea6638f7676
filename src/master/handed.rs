//! Sockets that were handed to the master itself (`LISTEN_FDS`): each listener of the settings adopts its own.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::absolute;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use socket2::{SockRef, Type};

use super::listener::{Listener, Origin, Sockets};
use crate::config::{ListenAddress, ListenerConfig};
use crate::error::{Cause, Error, Result};
use crate::journal;
use crate::sys::inherit;

/// All that were handed over.
pub(super) struct Handed(Vec<Offer>);

struct Offer {
    name: String,
    /// `None` for what no listener can be.
    address: Option<ListenAddress>,
    socket: Arc<OwnedFd>,
    taken: bool,
}

/// The descriptors are the first cluster's of the process: later their numbers are somebody else's.
static HANDED_TAKEN: AtomicBool = AtomicBool::new(false);

impl Handed {
    pub(super) fn take() -> Result<Self> {
        if HANDED_TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(Handed(Vec::new()));
        }
        let of = |key| std::env::var(key).ok();
        let for_us = |_: &usize| inherit::listeners_are_ours();
        let count = of("LISTEN_FDS").and_then(|count| count.parse().ok()).filter(for_us).unwrap_or(0);
        let names = of("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let sockets = inherit::listeners(count).map_err(|error| {
            Error::start(
                format_args!("LISTEN_FDS={count}, but not all of the descriptors were passed"),
                error,
            )
        })?;
        let offer = |(name, socket)| Offer {
            name,
            address: address_of(&socket),
            socket: Arc::new(socket),
            taken: false,
        };
        Ok(Handed(names.zip(sockets).map(offer).collect()))
    }

    /// For each listener of the settings the socket of its name, or else the one at its address, or else one that
    /// takes its connections as well (IPv6 with IPv4), which may be a neighbour's. What is left is closed.
    pub(super) fn adopt(mut self, configs: &[ListenerConfig]) -> Vec<Option<Listener>> {
        let mut adopted: Vec<Option<Listener>> = configs.iter().map(|_| None).collect();
        let ways: [fn(&Offer, &ListenerConfig) -> bool; 3] =
            [Offer::has_name, Offer::has_address, Offer::serves];
        for fits in ways {
            for (config, place) in configs.iter().zip(&mut adopted).filter(|(_, place)| place.is_none()) {
                let found = self.0.iter_mut().find(|offer| fits(offer, config));
                *place = found.and_then(|offer| {
                    offer.taken = true;
                    offer.listener(config)
                });
            }
        }
        self.warn_of_the_rest();
        adopted
    }

    fn warn_of_the_rest(&self) {
        for Offer { name, address, .. } in self.0.iter().filter(|offer| !offer.taken) {
            let address = address.as_ref().map_or_else(|| "an unknown address".into(), ToString::to_string);
            journal::warn!(
                "socket {name:?} at {address} was handed over (LISTEN_FDS) but no listener of the settings has its name or address; closing it"
            );
        }
    }
}

impl Offer {
    fn has_name(&self, config: &ListenerConfig) -> bool {
        let same_kind = |address: &ListenAddress| address.kind() == config.address.kind();
        !self.taken && self.name == config.name && self.address.as_ref().is_some_and(same_kind)
    }

    fn has_address(&self, config: &ListenerConfig) -> bool {
        !self.taken
            && match (&self.address, &config.address) {
                (Some(ListenAddress::Unix(ours)), ListenAddress::Unix(wanted)) => {
                    absolute(wanted).is_ok_and(|wanted| *ours == wanted)
                }
                (ours, wanted) => ours.as_ref() == Some(wanted),
            }
    }

    fn serves(&self, config: &ListenerConfig) -> bool {
        self.listener(config).is_some_and(|listener| listener.serves(&config.address))
    }

    fn listener(&self, config: &ListenerConfig) -> Option<Listener> {
        let address = self.address.clone()?;
        if let Err(error) = SockRef::from(&*self.socket).set_nonblocking(false) {
            journal::warn!("listener {}: {}", config.name, Cause(&error));
        }
        Some(Listener {
            name: config.name.clone(),
            address,
            origin: Origin::Adopted,
            backlog: config.backlog,
            sockets: Sockets::Shared(Arc::clone(&self.socket)),
            node_data: Value::Null,
            file: None,
        })
    }
}

fn address_of(socket: &OwnedFd) -> Option<ListenAddress> {
    let socket = SockRef::from(socket);
    let address = socket.local_addr().ok()?;
    match (address.as_socket(), socket.r#type().ok()?) {
        (Some(at), Type::STREAM) => Some(ListenAddress::Tcp(at)),
        (Some(at), Type::DGRAM) => Some(ListenAddress::Udp(at)),
        (None, Type::STREAM) => match (address.as_pathname(), address.as_abstract_namespace()) {
            (Some(path), _) => Some(ListenAddress::Unix(path.to_owned())),
            (None, name) => Some(ListenAddress::Abstract(OsStr::from_bytes(name?).to_owned())),
        },
        (_, _) => None,
    }
}
