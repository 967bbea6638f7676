//! Workers that ask to listen: answered at once, or when the file system of a path has answered.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use super::Master;
use super::complaints::Complaint;
use super::offload::Offload;
use super::on_demand::{Asker, Bound, Found, bind_path};
use crate::account::cut;
use crate::error::{Error, Kind, Result};
use crate::message::ToWorker;
use crate::node::{Options, Query};
use crate::supervisor::{Jobs, WorkerId};

/// How long a worker waits for a path to be bound before it hears that this cannot be done.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked for may be no longer, many times what any address takes: the answer repeats it.
const LONGEST_ADDRESS: usize = 1 << 10;

/// Paths on their way to be bound, each on a thread of its own.
#[derive(Debug)]
pub(super) struct Binds {
    pub(super) jobs: Jobs<PathBuf, Wish>,
    offload: Offload<(PathBuf, Bound)>,
}

impl Binds {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Binds { jobs: Jobs::new(), offload: Offload::new(waker) }
    }
}

/// What a worker has asked for, in whose words.
#[derive(Debug)]
pub(super) enum Wish {
    Own { address: String },
    Node(Query),
}

impl Wish {
    fn options(&self) -> Option<Options> {
        match self {
            Wish::Own { .. } => None,
            Wish::Node(query) => Some(query.options),
        }
    }
}

impl Master {
    pub(super) fn answer_listen(&mut self, worker: WorkerId, mut address: String) {
        if address.len() > LONGEST_ADDRESS {
            let reason = format!("an address of {} bytes; {LONGEST_ADDRESS} are the most", address.len());
            cut(&mut address, LONGEST_ADDRESS);
            return self.refuse(worker, Wish::Own { address }, Error::new(Kind::Start, reason));
        }
        let Some(process) = self.processes.get(&worker) else { return };
        let asker = Asker { slot: process.slot, generation: process.generation };
        match self.listeners.on_demand(&address, asker) {
            Ok(Found::Here(socket)) => self.send_listening(worker, address, Ok(socket)),
            Ok(Found::AtPath(path)) => self.bind_beside(worker, &path, Wish::Own { address }),
            Err(error) => self.refuse(worker, Wish::Own { address }, error),
        }
    }

    fn send_listening(&mut self, worker: WorkerId, address: String, found: Result<Arc<OwnedFd>>) {
        let (outcome, socket) = match found {
            Ok(socket) => (Ok(()), Some(socket)),
            Err(error) => (Err(error.to_string()), None),
        };
        self.send(worker, &ToWorker::Listening { address, outcome }, socket);
    }

    /// Binds a path for a worker without waiting for it.
    pub(super) fn bind_beside(&mut self, worker: WorkerId, path: &PathBuf, wish: Wish) {
        let due = self.now() + PATIENCE;
        match self.binds.jobs.ask(path, worker, due, wish) {
            Ok(()) => self.start_binds(),
            Err(wish) => {
                let why = "the worker waits for too many paths already";
                self.refuse(worker, wish, failed(path, io::Error::new(io::ErrorKind::ResourceBusy, why)));
            }
        }
    }

    fn start_binds(&mut self) {
        while let Some((path, wish)) = self.binds.jobs.start() {
            let options = wish.options();
            let at = path.clone();
            let news = self.sockets.as_ref().map(|watch| Arc::clone(watch.news()));
            let started = self.binds.offload.run(move || {
                let bound = bind_path(&at, options, news.as_deref());
                (at, bound)
            });
            if let Err(error) = started {
                self.end_bind(&path, Err(error));
            }
        }
    }

    /// Takes in what has been bound.
    pub(super) fn take_bound(&mut self) {
        while let Some((path, bound)) = self.binds.offload.take() {
            self.end_bind(&path, bound);
        }
        self.start_binds();
    }

    fn end_bind(&mut self, path: &PathBuf, bound: Bound) {
        let waiting = self.binds.jobs.finish(path);
        let bound = match bound {
            // Nobody waits any more.
            Ok((_, file)) if waiting.is_empty() => return file.discard(),
            bound => self.listeners.add_bound(path, bound),
        };
        for (worker, wish) in waiting {
            match (&bound, wish) {
                (Ok(()), Wish::Own { address }) => self.answer_listen(worker, address),
                (Ok(()), Wish::Node(query)) => self.answer_query(worker, query),
                (Err(error), wish) => self.refuse(worker, wish, error.again()),
            }
        }
    }

    /// Tells those whose time is over. What is under way is left to itself.
    pub(super) fn expire_binds(&mut self) {
        for (path, worker, wish) in self.binds.jobs.expire(self.now()) {
            let why = format!("its file system has not answered for {PATIENCE:?}");
            self.refuse(worker, wish, failed(&path, io::Error::new(io::ErrorKind::TimedOut, why)));
        }
    }

    fn refuse(&mut self, worker: WorkerId, wish: Wish, error: Error) {
        match wish {
            Wish::Own { address } => {
                self.complain(worker, Complaint::ListenRefused, || format!(" asked to listen: {error}"));
                self.send_listening(worker, address, Err(error));
            }
            Wish::Node(query) => self.refuse_query(worker, &query, &error),
        }
    }
}

fn failed(path: &std::path::Path, error: io::Error) -> Error {
    Error::start(format_args!("listener at unix:{}", path.display()), error)
}
