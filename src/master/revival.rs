//! Listeners that a worker has shut down for all: they listen again, at the address that they had.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mio::Waker;
use socket2::SockRef;

use super::Master;
use super::listener::{Listener, Listeners, Origin, Sockets};
use super::offload::Offload;
use super::on_demand::Bound;
use super::socketfile::Place;
use super::token::Source;
use crate::config::ListenAddress;
use crate::error::Cause;
use crate::supervisor::{Event, LookUse, Looks, Remedy};
use crate::sys::sentinel::{disconnect, is_shut_down};

/// The looks at listeners of which one may have been shut down, and what has come of them.
#[derive(Debug)]
pub(super) struct Revival {
    pub(super) looks: Looks<()>,
    offload: Offload<(String, Bound)>,
    /// Listeners whose path is being bound anew: its file system may not answer.
    under_way: BTreeSet<String>,
    /// Listeners that cannot be helped, as has been said.
    given_up: BTreeSet<String>,
}

/// What can be done about a listener that has been shut down.
enum Treatment {
    Done(Remedy),
    /// It fails, and may go better later.
    Failed(io::Error),
    /// A new socket at its path, beside the loop.
    Path(Arc<Place>),
}

impl Revival {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let offload = Offload::new(waker);
        Revival { looks: Looks::new(), offload, under_way: BTreeSet::new(), given_up: BTreeSet::new() }
    }
}

impl Master {
    pub(super) fn watch_listeners(&self) -> io::Result<()> {
        self.watch(Source::Listeners, self.listeners.sentinel.as_fd())
    }

    pub(super) fn hear_of_listeners(&mut self) {
        if self.listeners.sentinel.take() {
            self.revival.looks.note((), self.now());
        }
    }

    /// Makes listen again what has been shut down, where it is time to look.
    pub(super) fn look_after_listeners(&mut self) {
        while let Some((name, bound)) = self.revival.offload.take() {
            self.take_new_socket(&name, bound);
        }
        let now = self.now();
        if self.revival.looks.start(now).is_some() {
            let used = self.revive();
            self.revival.looks.finish((), now, used);
        }
    }

    /// A worker that is about to be started is given nothing dead.
    pub(super) fn revive_for(&mut self, slot: usize) {
        if self.listeners.for_slot(slot).any(|(_, socket)| is_shut_down(socket.as_fd())) {
            self.revive();
        }
    }

    fn revive(&mut self) -> LookUse {
        let mut used = LookUse::Nothing;
        for (name, treatment) in self.listeners.treat() {
            used = LookUse::Mended;
            match treatment {
                Treatment::Done(remedy) => self.tell_remedy(name, remedy),
                Treatment::Failed(error) => {
                    self.tell_remedy(name, Remedy::None(Cause(&error).to_string()));
                    self.revival.looks.note((), self.now());
                }
                Treatment::Path(place) => self.bind_anew(&name, place),
            }
        }
        used
    }

    fn bind_anew(&mut self, name: &str, place: Arc<Place>) {
        if !self.revival.under_way.insert(name.to_owned()) {
            return;
        }
        let (at, news) = (name.to_owned(), self.sockets.as_ref().map(|watch| Arc::clone(watch.news())));
        let started = self.revival.offload.run(move || {
            let bound = place.bind_anew(news.as_deref());
            (at, bound)
        });
        if let Err(error) = started {
            self.take_new_socket(name, Err(error));
        }
    }

    fn take_new_socket(&mut self, name: &str, bound: Bound) {
        self.revival.under_way.remove(name);
        let remedy = match (bound, self.listeners.named(name)) {
            (Ok((socket, file)), Some(listener)) if !matches!(listener.sockets, Sockets::Closed) => {
                listener.sockets = Sockets::shared(socket);
                listener.file = Some(file);
                self.listeners.watch_all_of(name);
                Remedy::NewSocket
            }
            // The cluster shuts down, or nobody asks for it any more.
            (Ok((_, file)), _) => return file.discard(),
            (Err(error), _) => {
                self.revival.looks.note((), self.now());
                Remedy::None(Cause(&error).to_string())
            }
        };
        self.tell_remedy(name.to_owned(), remedy);
    }

    /// What cannot be helped is said once.
    fn tell_remedy(&mut self, listener: String, remedy: Remedy) {
        let is_news = match remedy {
            Remedy::SameSocket | Remedy::NewSocket => {
                self.revival.given_up.remove(&listener);
                true
            }
            Remedy::None(_) => self.revival.given_up.insert(listener.clone()),
        };
        if is_news {
            self.outcomes.push_back(Event::ListenerShutDown { listener, remedy });
        }
    }
}

impl Listeners {
    /// Hears from now on when one of the sockets of this listener is shut down.
    pub(super) fn watch_all_of(&mut self, name: &str) {
        let mut all = self.configured.iter().chain(self.on_demand.values().map(|entry| &entry.listener));
        if let Some(listener) = all.find(|listener| listener.name == name) {
            listener.all_sockets().into_iter().for_each(|socket| self.sentinel.watch(socket.as_fd()));
        }
    }

    pub(super) fn named(&mut self, name: &str) -> Option<&mut Listener> {
        let on_demand = self.on_demand.values_mut().map(|entry| &mut entry.listener);
        self.configured.iter_mut().chain(on_demand).find(|listener| listener.name == name)
    }

    /// Does what can be done at once about each listener that has been shut down.
    fn treat(&mut self) -> Vec<(String, Treatment)> {
        let on_demand = self.on_demand.values_mut().map(|entry| &mut entry.listener);
        let all = self.configured.iter_mut().chain(on_demand);
        all.filter_map(|listener| Some((listener.name.clone(), listener.treat()?))).collect()
    }
}

impl Listener {
    fn treat(&mut self) -> Option<Treatment> {
        let is_dead = |socket: &Arc<OwnedFd>| is_shut_down(socket.as_fd());
        if !self.all_sockets().into_iter().any(is_dead) {
            return None;
        }
        Some(match (&self.address, &mut self.sockets, self.origin) {
            (ListenAddress::Tcp(_), Sockets::PerSlot(group), _) => done(group.listen_again()),
            (ListenAddress::Tcp(at), Sockets::Shared(socket), _) => {
                done(listen_again(socket, *at, self.backlog))
            }
            (ListenAddress::Unix(_), _, Origin::Bound) => {
                let place = self.file.as_ref().and_then(|file| file.place());
                place.map_or_else(
                    || cannot("it has no file any more"),
                    |place| Treatment::Path(Arc::clone(place)),
                )
            }
            (ListenAddress::Unix(_), _, Origin::Adopted) => {
                cannot("whoever handed it over must make it anew")
            }
            (ListenAddress::Abstract(_), _, _) => {
                cannot("its name cannot be bound again before every worker has gone; restart the cluster")
            }
            (ListenAddress::Tcp(_), Sockets::Closed, _) | (ListenAddress::Udp(_), _, _) => return None,
        })
    }
}

fn done(outcome: io::Result<()>) -> Treatment {
    outcome.map_or_else(Treatment::Failed, |()| Treatment::Done(Remedy::SameSocket))
}

fn cannot(reason: &str) -> Treatment {
    Treatment::Done(Remedy::None(reason.to_owned()))
}

/// The same socket, for all who have it. A port that the system chose was given back by the shutdown, and is asked
/// for by its number; any other is bound still.
pub(super) fn listen_again(socket: &OwnedFd, at: SocketAddr, backlog: u32) -> io::Result<()> {
    disconnect(socket.as_fd())?;
    let socket = SockRef::from(socket);
    match socket.bind(&at.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        bound => bound?,
    }
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}
