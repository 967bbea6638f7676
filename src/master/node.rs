//! Node workers: what they say in Node's own words, answered.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::Master;
use super::complaints::Complaint;
use super::listen::Wish;
use super::on_demand::{Asker, Found};
use crate::account::{Held, Kind};
use crate::config::Config;
use crate::dispatch::Mail;
use crate::error::Error;
use crate::node::{self, Attention, FromNode, Parcel, Peer, Query};
use crate::supervisor::{Event, WorkerId};

/// The conversation with a Node worker.
pub(super) type NodePeer = Peer<Handle>;

/// A descriptor that waits to be sent, with the room that it takes of the worker's account.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    fd: Arc<OwnedFd>,
    _held: Arc<Held>,
}

impl Master {
    /// A message that came with a handle comes back.
    pub(super) fn take_node_line(&mut self, worker: WorkerId, line: FromNode) -> Option<Mail> {
        match line {
            FromNode::Query(query) => self.answer_query(worker, query),
            FromNode::Closed { key } => drop(self.converse(worker, |peer| peer.closed(&key))),
            FromNode::Arrived => {
                let next = self.converse(worker, Peer::arrived).flatten();
                self.deliver(worker, next);
            }
            FromNode::Lost => {
                let again = self.converse(worker, Peer::lost).unwrap_or_default();
                self.deliver(worker, again);
            }
            FromNode::Leaving { seq } => {
                self.peers.leave(worker.0);
                let allowed = self.converse(worker, |peer| peer.allow_leaving(seq));
                self.deliver(worker, allowed.map(|line| (line, None)));
                self.events.push_back(Event::SaidLeaving { worker });
            }
            FromNode::Gift(message) => {
                self.complain(worker, Complaint::Strange, || {
                    " sent a handle with a message; it was closed".into()
                });
                self.deliver(worker, [(node::gift_arrived(), None)]);
                return self.take_message(worker, message?);
            }
            FromNode::Internal => {}
        }
        None
    }

    /// Asking to listen is a promise: it will say `listening`, and it reads its channel.
    pub(super) fn answer_query(&mut self, worker: WorkerId, query: Query) {
        let Some(process) = self.processes.get(&worker) else { return };
        let asker = Asker { slot: process.slot, generation: process.generation };
        let held = process.origin.account.take(Kind::Handles, query.cost());
        if self.converse(worker, Peer::asks) != Some(Attention::Answer) {
            return;
        }
        self.events.push_back(Event::SaidHello { worker });
        let Some(held) = held.map(Arc::new) else {
            let reason = "it does not take the handles that it was sent, and more are not kept for it";
            let full = io::Error::new(io::ErrorKind::QuotaExceeded, reason);
            return self.refuse_query(worker, &query, &Error::start("listen", full));
        };
        let query = query.resolved(&worker_directory(&self.config));
        self.grant_query(worker, query, asker, held);
    }

    fn grant_query(&mut self, worker: WorkerId, query: Query, asker: Asker, held: Arc<Held>) {
        match self.listeners.for_node(&query, asker) {
            Ok(Found::Here(grant)) => {
                let grant = grant.map(|fd| Handle { fd, _held: held });
                let answer = self.converse(worker, |peer| peer.grant(&query, grant)).flatten();
                self.deliver(worker, answer);
            }
            Ok(Found::AtPath(path)) => self.bind_beside(worker, &path, Wish::Node(query)),
            Err(error) => self.refuse_query(worker, &query, &error),
        }
    }

    pub(super) fn refuse_query(&mut self, worker: WorkerId, query: &Query, error: &Error) {
        if error.is_ended() {
            return;
        }
        self.complain(worker, Complaint::ListenRefused, || format!(" asked to listen: {error}"));
        let errno = errno_of(error);
        let answer = self.converse(worker, |peer| (peer.refuse(query, errno), None));
        self.deliver(worker, answer);
    }

    pub(super) fn converse<T>(
        &mut self,
        worker: WorkerId,
        speak: impl FnOnce(&mut NodePeer) -> T,
    ) -> Option<T> {
        self.processes.get_mut(&worker)?.node.as_mut().map(speak)
    }

    fn deliver(&mut self, worker: WorkerId, parcels: impl IntoIterator<Item = Parcel<Handle>>) {
        for (line, handle) in parcels {
            self.send_line(worker, &line, handle.map(|handle| handle.fd));
        }
    }
}

fn worker_directory(config: &Config) -> PathBuf {
    let directory = config.cwd.clone().unwrap_or_default();
    std::path::absolute(directory.join(".")).unwrap_or(directory)
}

/// What Node makes an error of its own from: `EADDRINUSE`, `EACCES`…
fn errno_of(error: &Error) -> i32 {
    let Some(cause) = error.io() else { return libc::EMFILE };
    match (cause.raw_os_error(), cause.kind()) {
        (Some(errno), _) => errno,
        // A path where there is something else is taken too.
        (None, io::ErrorKind::AddrInUse | io::ErrorKind::AlreadyExists) => libc::EADDRINUSE,
        (None, io::ErrorKind::PermissionDenied) => libc::EACCES,
        (None, io::ErrorKind::TimedOut) => libc::ETIMEDOUT,
        (None, io::ErrorKind::ResourceBusy) => libc::EBUSY,
        (None, io::ErrorKind::QuotaExceeded) => libc::ENOBUFS,
        (None, _) => libc::EINVAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn errors_are_those_that_node_knows() {
        let of = |error: io::Error| errno_of(&Error::start("listener", error));
        let table = [
            (of(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)), libc::EADDRNOTAVAIL),
            (of(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there")), libc::EADDRINUSE),
            (of(io::Error::new(io::ErrorKind::AlreadyExists, "a file")), libc::EADDRINUSE),
            (of(io::Error::new(io::ErrorKind::PermissionDenied, "not in the settings")), libc::EACCES),
            (of(io::Error::new(io::ErrorKind::TimedOut, "no answer")), libc::ETIMEDOUT),
            (of(io::Error::new(io::ErrorKind::ResourceBusy, "too much at a time")), libc::EBUSY),
            (of(io::ErrorKind::InvalidInput.into()), libc::EINVAL),
            (errno_of(&Error::new(Kind::Start, "64 are the most")), libc::EMFILE),
        ];
        for (found, expected) in table {
            assert_eq!(found, expected);
        }
    }
}
