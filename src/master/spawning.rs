//! A worker's way to its process: nothing of it is waited for by the loop.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Master;
use super::birth::{Birth, Ends, Stage};
use super::capture::Pipes;
use super::channel::Channel;
use super::complaints::Complaints;
use super::dialect::Dialect;
use super::notify::NotifySocket;
use super::outbox::{Bell, Outbox};
use super::pinned::Pinned;
use super::process::Process;
use super::spawn::{Job, Newcomer, PATIENCE, passing};
use super::token::Source;
use crate::config::Output;
use crate::journal::{self, Origin};
use crate::node::Peer;
use crate::peers::WorkerInfo;
use crate::supervisor::{Action, Event, FailureKind, Generation, SpawnFailure, WorkerId};
use crate::sys::attempt::Attempt;
use crate::sys::spawn::Started;

/// Looks at paths that may sleep at a time.
const MOST_LOOKS: usize = 4;

impl Master {
    /// Begins with a worker; what becomes of it is told later.
    pub(super) fn spawn(&mut self, worker: WorkerId, slot: usize, generation: Generation) {
        self.births.progress = self.now();
        if self.launcher.has_pinned(generation) {
            self.conceive(worker, slot, generation);
            return self.start_queued();
        }
        let stage = Stage::Looking { due: self.now() + PATIENCE };
        self.births.open.insert(worker, Birth { slot, generation, stage, later: Vec::new() });
        if self.births.looking.contains(&generation) {
            return;
        }
        if self.births.looking.len() >= MOST_LOOKS {
            let failure = self.launcher.no_answer(FailureKind::Lasting);
            return self.not_born(worker, failure);
        }
        let read = self.launcher.reader();
        match self.births.looks.run(move || (generation, read())) {
            Ok(()) => drop(self.births.looking.insert(generation)),
            Err(error) => self.not_born(worker, passing("a thread", &error)),
        }
    }

    /// All that a worker needs but its process.
    fn conceive(&mut self, worker: WorkerId, slot: usize, generation: Generation) {
        match self.prepare(worker, slot, generation) {
            Ok(both) => {
                let stage = Stage::Queued(Box::new(both));
                self.births.queues.entry(generation).or_default().push_back(worker);
                self.births.open.insert(worker, Birth { slot, generation, stage, later: Vec::new() });
            }
            Err(failure) => self.not_born(worker, failure),
        }
    }

    fn prepare(
        &mut self,
        worker: WorkerId,
        slot: usize,
        generation: Generation,
    ) -> Result<(Ends, Job), SpawnFailure> {
        self.guard_if_needed(generation).map_err(|error| passing("the guard", &error))?;
        self.listeners.open_slot(slot).map_err(|error| passing("a socket for the slot", &error))?;
        let dialect = self.launcher.dialect(generation);
        let (channel, theirs) = Channel::pair().map_err(|error| passing("channel", &error))?;
        let notify = NotifySocket::bind(worker).map_err(|error| passing("notify socket", &error))?;
        let (pipes, output) = self.pipes().map_err(|error| passing("output pipe", &error))?.unzip();
        let (processes, births) = (&self.processes, &self.births);
        let port = self.launcher.port(|port| {
            let given = processes.values().filter_map(|process| process.port);
            given.chain(births.ports()).any(|given| given == port)
        });
        let port = port.map_err(|error| passing("a port for the worker", &error))?;
        let (guard, control) = self.guard.control().map_err(|error| passing("the guard", &error))?.unzip();
        let newcomer = Newcomer {
            worker,
            slot,
            generation,
            notify: notify.address(),
            listeners: self.listeners.for_slot(slot).collect(),
            channel: theirs,
            dialect,
            output,
            port,
            guard: control,
        };
        let job = self.launcher.job(newcomer);
        let job = job.ok_or_else(|| self.launcher.no_answer(FailureKind::Lasting))?;
        Ok((Ends { channel, notify, pipes, dialect, port, guard }, job))
    }

    /// Where a worker's output is captured, and as whom it may open them anew.
    fn pipes(&self) -> io::Result<Option<(Pipes, [OwnedFd; 2])>> {
        match self.config.output.unwrap_or_default() {
            Output::Inherit => Ok(None),
            Output::Log => {
                Pipes::new(self.launcher.changes_user().then(|| self.launcher.worker_uid())).map(Some)
            }
        }
    }

    /// One of each generation at a time: if its program does not answer, all the others would sleep as well.
    fn start_queued(&mut self) {
        let generations: Vec<Generation> = self.births.queues.keys().copied().collect();
        for generation in generations {
            if !self.births.starters.is_busy_with(generation) {
                self.start_next(generation);
            } else if !self.births.starting.contains_key(&generation) {
                self.refuse_queued(generation);
            }
        }
    }

    fn start_next(&mut self, generation: Generation) {
        while let Some(worker) = self.births.next_of(generation) {
            if self.start(worker) {
                return;
            }
        }
    }

    /// Nobody waits any more for the one that is on its way, and it sleeps still.
    fn refuse_queued(&mut self, generation: Generation) {
        while let Some(worker) = self.births.next_of(generation) {
            if self.births.open.contains_key(&worker) {
                let failure = self.launcher.no_answer(FailureKind::Passing);
                self.not_born(worker, failure);
            }
        }
    }

    /// Whether it is on its way; one that was told to go meanwhile is not.
    fn start(&mut self, worker: WorkerId) -> bool {
        let due = self.now() + PATIENCE;
        let Some(birth) = self.births.open.get_mut(&worker) else { return false };
        let Stage::Queued(both) = mem::replace(&mut birth.stage, Stage::Looking { due }) else {
            return false;
        };
        let (ends, job) = *both;
        let attempt = Arc::new(Attempt::default());
        birth.stage = Stage::Starting { ends: Box::new(ends), attempt: Arc::clone(&attempt), due };
        self.births.starting.insert(birth.generation, worker);
        let started = self.births.starters.start(job, attempt);
        started.map_err(|error| self.not_born(worker, passing("a thread", &error))).is_ok()
    }

    /// There is no process.
    fn not_born(&mut self, worker: WorkerId, failure: SpawnFailure) {
        drop(self.births.close(worker));
        self.births.progress = self.now();
        self.outcomes.push_back(Event::SpawnFailed { worker, failure });
    }

    /// Takes in what was read and what was started.
    pub(super) fn take_births(&mut self) {
        while let Some((generation, read)) = self.births.looks.take() {
            self.births.looking.remove(&generation);
            self.take_program(generation, read);
        }
        while let Some((worker, outcome)) = self.births.starters.take() {
            // Given up: it has been ended.
            let Some(birth) = self.births.close(worker) else { continue };
            let Stage::Starting { ends, .. } = birth.stage else { continue };
            let begun =
                outcome.and_then(|started| self.begin(worker, birth.slot, birth.generation, *ends, started));
            match begun {
                Ok(()) => self.born(worker, birth.later),
                Err(failure) => self.not_born(worker, failure),
            }
        }
        self.start_queued();
        // Those that ended meanwhile: until now one of them might have been a worker.
        self.reap_orphans();
    }

    fn take_program(&mut self, generation: Generation, read: Result<Pinned, SpawnFailure>) {
        let waits =
            |birth: &Birth| birth.generation == generation && matches!(birth.stage, Stage::Looking { .. });
        let waiting = self.births.open.iter().filter(|(_, birth)| waits(birth));
        let waiting: Vec<(WorkerId, usize)> = waiting.map(|(worker, birth)| (*worker, birth.slot)).collect();
        if waiting.is_empty() {
            return;
        }
        match read {
            Ok(pinned) => {
                self.launcher.pin(generation, pinned);
                for (worker, slot) in waiting {
                    self.conceive(worker, slot, generation);
                }
            }
            Err(failure) => {
                for (worker, _) in waiting {
                    self.not_born(worker, failure.clone());
                }
            }
        }
    }

    fn begin(
        &mut self,
        worker: WorkerId,
        slot: usize,
        generation: Generation,
        ends: Ends,
        started: Started,
    ) -> Result<(), SpawnFailure> {
        let Ends { channel, notify, pipes, dialect, port, guard } = ends;
        let Started { child, announced } = started;
        if let Some(guard) = guard {
            self.see_announced(guard, announced);
        }
        let origin = Origin::new(worker.0, slot, child.pid);
        let capture = pipes.map(|pipes| pipes.capture(Arc::clone(&origin)));
        let bell = Bell { registry: Arc::clone(&self.registry), token: Source::Channel(worker).token() };
        let info = WorkerInfo::new(worker.0, slot, child.pid, generation.0);
        let process = Process {
            outbox: Arc::new(Outbox::new(info, channel.socket(), bell, Arc::clone(&origin.account))),
            child,
            channel,
            node: (dialect == Dialect::Node).then(Peer::new),
            notify,
            port,
            status_text: None,
            slot,
            generation,
            messages_in: 0,
            handler_panics: 0,
            origin,
            capture,
            complaints: Complaints::default(),
        };
        let watched = process.sources(worker).try_for_each(|(source, fd)| self.watch(source, fd));
        if let Err(error) = watched {
            self.guard_no_more(process.child.pid);
            process.child.end_now();
            return Err(passing("event loop", &error));
        }
        self.peers.join(Arc::clone(&process.outbox));
        self.processes.insert(worker, process);
        Ok(())
    }

    /// What was ordered of it meanwhile is done; and it may have ended before anybody could hear of that.
    fn born(&mut self, worker: WorkerId, later: Vec<Action>) {
        self.births.progress = self.now();
        self.outcomes.push_back(Event::Spawned { worker });
        if let Some(Process { slot, generation, child, .. }) = self.processes.get(&worker) {
            let news = if later.is_empty() { "started as" } else { "is told to go, and was on its way as" };
            journal::debug!(
                "worker {worker} (slot {slot}, generation {generation}) {news} pid {}",
                child.pid
            );
        }
        for action in later {
            self.order(action);
        }
        self.look_for_exit(worker);
    }

    /// An order to a worker that has no process yet: it waits for that, or is the end of it.
    pub(super) fn order_unborn(&mut self, worker: WorkerId, action: Action) {
        let Some(birth) = self.births.open.get_mut(&worker) else { return };
        let is_on_its_way = matches!(birth.stage, Stage::Starting { .. });
        if is_on_its_way && !matches!(action, Action::Kill { .. }) {
            birth.later.push(action);
            return;
        }
        birth.stage.give_up();
        let reason = "it was told to go before it began".to_owned();
        self.not_born(worker, SpawnFailure { kind: FailureKind::Passing, reason });
    }

    /// Gives up those whose file system does not answer.
    pub(super) fn expire_births(&mut self) {
        let now = self.now();
        let late =
            self.births.open.iter().filter(|(_, birth)| birth.stage.due().is_some_and(|due| due <= now));
        let late: Vec<WorkerId> = late.map(|(worker, _)| *worker).collect();
        for worker in &late {
            let Some(birth) = self.births.open.get(worker) else { continue };
            birth.stage.give_up();
            // What has been found before may answer again; a release that cannot be read is none.
            let kind = match birth.stage {
                Stage::Looking { .. } => FailureKind::Lasting,
                Stage::Queued(_) | Stage::Starting { .. } => FailureKind::Passing,
            };
            let failure = self.launcher.no_answer(kind);
            self.not_born(*worker, failure);
        }
        if !late.is_empty() {
            self.start_queued();
        }
    }
}
