//! The driver: all input and output of the master, and no decisions.
//!
//! One thread owns everything. Each turn of the loop drains every source that is ready into a queue
//! of events, hands them to the core one at a time, and performs the actions that come back.
#![warn(clippy::disallowed_macros)]

mod ask;
mod birth;
mod capture;
mod channel;
mod complaints;
mod descriptors;
mod dialect;
mod elevation;
mod folder;
mod guard;
mod handed;
mod hear;
mod identity;
mod listen;
pub(crate) mod listener;
mod mounts;
mod node;
mod notify;
mod offload;
mod on_demand;
pub(crate) mod outbox;
pub(crate) mod patience;
mod perform;
mod pidfile;
mod pinned;
mod placeholder;
mod ports;
mod process;
mod program;
mod reuseport;
mod revival;
mod sampler;
mod shebang;
pub(crate) mod signals;
pub(crate) mod socketfile;
mod socketlock;
mod socketpath;
mod socketwatch;
mod spawn;
mod spawning;
mod start;
mod starter;
mod token;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry};

pub(crate) use start::Foundation;
pub use start::{check, own_process};

use crate::config::{Config, ListenAddress};
use crate::dispatch::{Audience, Dispatch};
use crate::error::{Error, Result};
use crate::handle::{Command, Word};
use crate::journal;
use crate::peers::Peers;
use crate::principal::{By, CallId};
use crate::status::{ListenerStatus, Status};
use crate::supervisor::{Ending, Event, Moment, RequestNumber, Requests, Supervisor, Ticket, WorkerId};

use ask::Asking;
use birth::Births;
use guard::Watch;
use listen::Binds;
use listener::Listeners;
use process::Process;
use revival::Revival;
use signals::{Response, Signals};
use socketwatch::SocketWatch;
use spawn::Launcher;
use token::Source;

/// What is read from a worker at a time.
const BUFFER: usize = 64 * 1024;

/// How long the end of the cluster waits for listeners that still hear messages.
const LAST_MESSAGES: Duration = Duration::from_secs(5);

/// The running master.
pub(crate) struct Master {
    config: Config,
    started: Instant,
    supervisor: Supervisor,
    poll: Poll,
    /// For those who write to workers, on any thread.
    registry: Arc<Registry>,
    signals: Arc<Signals>,
    commands: Receiver<Command>,
    launcher: Launcher,
    listeners: Listeners,
    binds: Binds,
    /// Before the processes, so that at the end of a loop that fails it still ends them.
    guard: Watch,
    /// `None` where the files of sockets cannot be watched.
    sockets: Option<SocketWatch>,
    births: Births,
    revival: Revival,
    processes: BTreeMap<WorkerId, Process>,
    waiting: BTreeMap<Ticket, Waiting>,
    /// Callers of the API who are there and wait.
    calls: BTreeSet<CallId>,
    role: Role,
    /// When the last look at the sources began: what had happened by then has been told.
    gathered: Moment,
    /// How performing an action went: told before anything else.
    outcomes: VecDeque<Event>,
    /// Facts from outside that the core has not heard yet.
    events: VecDeque<Event>,
    /// Sources that had more than one turn's worth: edge-triggered events will not come again for them.
    unfinished: Vec<Source>,
    requests: Requests,
    asking: BTreeMap<RequestNumber, Asking>,
    peers: Arc<Peers>,
    audience: Arc<Audience>,
    dispatch: Dispatch,
    buffer: Vec<u8>,
    /// Where the API listens, for the line that says so.
    api_address: Option<ListenAddress>,
}

/// Somebody who waits for the answers to an order.
#[derive(Debug)]
struct Waiting {
    reply: Sender<Word>,
    call: Option<CallId>,
}

/// What this process is, beside being a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The cluster is a guest in somebody's program: strangers' children are none of its business.
    Guest,
    /// The process is nothing but the master and the first of its container: it inherits orphans and reaps them.
    Init,
}

impl Master {
    /// Runs until every worker is gone. Who still waits for an answer then gets it from the caller, once
    /// everything is given back.
    pub(crate) fn run(mut self) -> (Result<Ending>, Vec<Sender<Word>>) {
        let before = self.signals.unblock();
        let ending = self.turn_until_the_end();
        before.apply();
        self.peers.end();
        let unheard = self.dispatch.finish(LAST_MESSAGES);
        if unheard > 0 {
            journal::warn!("messages that no listener heard before the end: {unheard}");
        }
        let waiting = mem::take(&mut self.waiting).into_values().map(|waiting| waiting.reply).collect();
        (ending.map_err(|error| Error::start("the event loop", error)), waiting)
    }

    fn turn_until_the_end(&mut self) -> io::Result<Ending> {
        let mut ready = Events::with_capacity(256);
        self.events.push_back(Event::Started);
        if let Some(ending) = self.decide() {
            return Ok(ending);
        }
        loop {
            if let Some(ending) = self.decide() {
                return Ok(ending);
            }
            self.wait(&mut ready)?;
            self.gather(&ready);
            self.take_commands();
        }
    }

    fn now(&self) -> Moment {
        Moment(self.started.elapsed())
    }

    /// Tells the core all that has happened, and does what it says.
    fn decide(&mut self) -> Option<Ending> {
        self.expire_requests();
        self.expire_binds();
        self.look_after_files();
        self.expire_births();
        self.look_after_listeners();
        loop {
            let now = self.now();
            let due = self.supervisor.next_deadline().is_some_and(|due| due <= self.gathered);
            let told = self.outcomes.pop_front().or_else(|| self.events.pop_front());
            let event = told.or(due.then_some(Event::TimePassed))?;
            for action in self.supervisor.handle(now, event) {
                if let Some(ending) = self.perform(action) {
                    return Some(ending);
                }
            }
        }
    }

    /// Sleeps until something happens or the next deadline.
    fn wait(&mut self, ready: &mut Events) -> io::Result<()> {
        let (core, births) = (self.supervisor.next_deadline(), self.births.next_deadline(self.now()));
        let (binds, sockets) = (self.binds.jobs.next_deadline(), self.sockets.as_ref());
        let sockets = sockets.and_then(|watch| watch.looks.next_deadline());
        let listeners = self.revival.looks.next_deadline();
        let due = [core, births, self.requests.next_deadline(), binds, sockets, listeners];
        let due = due.into_iter().flatten().min();
        let deadline = due.map(|due| due - self.now());
        let timeout = if self.unfinished.is_empty() { deadline } else { Some(Duration::ZERO) };
        match self.poll.poll(ready, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                ready.clear();
                Ok(())
            }
            polled => {
                // An interrupted look has seen nothing.
                self.gathered = self.now();
                polled
            }
        }
    }

    /// Drains every ready source into the queue of events.
    fn gather(&mut self, ready: &Events) {
        let again = mem::take(&mut self.unfinished);
        let sources = ready.iter().filter_map(|event| Source::from_token(event.token()));
        for source in again.into_iter().chain(sources) {
            match source {
                Source::Signals => self.take_signals(),
                Source::Commands => self.take_word_of_threads(),
                Source::Guard => self.look_at_guard(),
                Source::Files => self.hear_of_files(),
                Source::Listeners => self.hear_of_listeners(),
                Source::Exit(worker) => self.look_for_exit(worker),
                Source::Channel(worker) => self.read_channel(worker),
                Source::Notify(worker) => self.read_notify(worker),
                Source::Output(worker, stream) => self.read_output(worker, stream),
            }
        }
    }

    fn take_signals(&mut self) {
        for arrival in self.signals.drain() {
            match arrival.response {
                Response::Order(order) => {
                    journal::info!("{arrival}");
                    self.events.push_back(Event::Ordered { order, ticket: None });
                }
                Response::LookForExits => self.look_for_exits(),
                Response::Ignore => {
                    journal::debug!("{}: ignored (sent by {})", arrival.name, arrival.sent_by);
                }
            }
        }
    }

    fn take_word_of_threads(&mut self) {
        self.resume_channels();
        self.take_bound();
        self.take_births();
    }

    /// What is meant for all workers is meant for those too that were ordered before and are about to begin.
    fn take_commands(&mut self) {
        if self.births.hold_commands_until().is_some_and(|until| until > self.now()) {
            return;
        }
        self.peers.open();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Order { order, by, ticket, reply } => {
                    journal::info!("{order} ordered by {by}");
                    let ticket = self.admit(ticket, &by, reply);
                    self.events.push_back(Event::Ordered { order, ticket });
                }
                Command::Memory(sizes) => {
                    let sampled = |(worker, bytes)| Event::MemorySampled { worker, bytes };
                    self.events.extend(sizes.into_iter().map(sampled));
                }
                Command::Ask(ask) => self.ask(ask),
                Command::CallBegan(call) => {
                    self.calls.insert(call);
                }
                Command::CallEnded(call) => self.forget_call(call),
                Command::Left(ticket) => self.forget_caller(ticket),
                Command::Look { reply } => {
                    // Whoever asked may have gone; the answer is then nobody's.
                    drop(reply.send(self.status()));
                }
            }
        }
    }

    /// For somebody who waits; whoever has left by now gets none, and its order is carried out all the same.
    fn admit(&mut self, ticket: Ticket, by: &By, reply: Sender<Word>) -> Option<Ticket> {
        if by.call.is_some_and(|call| !self.calls.contains(&call)) {
            return None;
        }
        self.waiting.insert(ticket, Waiting { reply, call: by.call });
        Some(ticket)
    }

    /// The core may know it still, by an order that is not carried out yet.
    fn forget_caller(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
        self.events.push_back(Event::CallerLeft { ticket });
    }

    /// A caller of the API has its answer, or has left.
    fn forget_call(&mut self, call: CallId) {
        self.calls.remove(&call);
        let of_it = self.waiting.iter().filter(|(_, waiting)| waiting.call == Some(call));
        for ticket in of_it.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.forget_caller(ticket);
        }
        self.forget_questions(call);
    }

    /// The status as the loop knows it; memory and processor time are read by the thread that asked.
    fn status(&self) -> Status {
        let mut status = Status::of(self.supervisor.status(self.now()), self.listener_rows());
        for row in &mut status.workers {
            if let Some(process) = self.processes.get(&WorkerId(row.id)) {
                row.pid = Some(process.child.pid);
                row.port = process.port;
                row.status.clone_from(&process.status_text);
                row.messages_in = process.messages_in;
                row.handler_panics = process.handler_panics;
                row.messages_out = process.outbox.taken();
                row.held_bytes = process.origin.account.held();
                row.lines_dropped = process.origin.account.dropped();
            }
        }
        status.master.listener_panics = self.audience.panics();
        status.dropped.messages = self.peers.dropped();
        status.dropped.log_lines = journal::dropped();
        status
    }

    fn listener_rows(&self) -> Vec<ListenerStatus> {
        self.listeners.addresses().map(|(name, address)| ListenerStatus::new(name, address)).collect()
    }
}
