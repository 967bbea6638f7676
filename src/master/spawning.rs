//! A worker's way to its process: nothing of it is waited for by the loop.

use std::io;
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
use super::starter::Outcome;
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
/// Workers of a generation that are given to its thread at a time, so that it need not wait for the loop.
const AHEAD: usize = 4;

impl Master {
    /// Begins with a worker; what becomes of it is told later.
    pub(super) fn spawn(&mut self, worker: WorkerId, slot: usize, generation: Generation) {
        self.births.progress = self.now();
        if self.launcher.has_pinned(generation) {
            self.queue(worker, slot, generation);
            self.start_queued();
            return self.take_started();
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

    /// It waits for its turn, and has nothing yet: thousands that had all they need at once would take twice the
    /// descriptors that they have in the end.
    fn queue(&mut self, worker: WorkerId, slot: usize, generation: Generation) {
        let stage = Stage::Queued;
        self.births.queues.entry(generation).or_default().push_back(worker);
        self.births.open.insert(worker, Birth { slot, generation, stage, later: Vec::new() });
    }

    /// All that a worker needs but its process.
    fn prepare(
        &mut self,
        worker: WorkerId,
        slot: usize,
        generation: Generation,
    ) -> Result<(Ends, Job), SpawnFailure> {
        self.guard_if_needed(generation).map_err(|error| passing("the guard", &error))?;
        self.revive_for(slot);
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

    /// Each generation has a thread: if its program does not answer, only its own workers wait.
    fn start_queued(&mut self) {
        let generations: Vec<Generation> = self.births.queues.keys().copied().collect();
        for generation in generations {
            if self.births.starters.are_busy_with(generation) && self.births.starting_of(generation) == 0 {
                self.refuse_queued(generation);
            }
            while self.births.starting_of(generation) < AHEAD
                && let Some(worker) = self.births.next_of(generation)
            {
                self.start(worker);
            }
        }
    }

    /// Nobody waits any more for those that were on their way, and one of them sleeps still.
    fn refuse_queued(&mut self, generation: Generation) {
        while let Some(worker) = self.births.next_of(generation) {
            if self.births.open.contains_key(&worker) {
                let failure = self.launcher.no_answer(FailureKind::Passing);
                self.not_born(worker, failure);
            }
        }
    }

    /// Sends it on its way, unless it was told to go meanwhile.
    fn start(&mut self, worker: WorkerId) {
        let Some(Birth { slot, generation, stage: Stage::Queued, .. }) = self.births.open.get(&worker) else {
            return;
        };
        let (ends, job) = match self.prepare(worker, *slot, *generation) {
            Ok(both) => both,
            Err(failure) => return self.not_born(worker, failure),
        };
        let (due, attempt) = (self.now() + PATIENCE, Arc::new(Attempt::default()));
        let Some(birth) = self.births.open.get_mut(&worker) else { return };
        let starting = self.births.starting.entry(birth.generation).or_default();
        let due = starting.is_empty().then_some(due);
        birth.stage = Stage::Starting { ends: Box::new(ends), attempt: Arc::clone(&attempt), due };
        starting.push_back(worker);
        if let Err(error) = self.births.starters.start(job, attempt) {
            self.not_born(worker, passing("a thread", &error));
        }
    }

    /// There is no process.
    fn not_born(&mut self, worker: WorkerId, failure: SpawnFailure) {
        let now = self.now();
        drop(self.births.close(worker, now));
        self.births.progress = now;
        self.outcomes.push_back(Event::SpawnFailed { worker, failure });
    }

    /// Takes in what was read and what was started.
    pub(super) fn take_births(&mut self) {
        while let Some((generation, read)) = self.births.looks.take() {
            self.births.looking.remove(&generation);
            self.take_program(generation, read);
        }
        self.start_queued();
        self.take_started();
        // Those that ended meanwhile: until now one of them might have been a worker.
        self.reap_orphans();
    }

    /// Takes in what was started, and starts who waited for it.
    fn take_started(&mut self) {
        while let Some(outcome) = self.births.starters.take() {
            self.take_outcome(outcome);
            self.start_queued();
        }
    }

    fn take_outcome(&mut self, Outcome { worker, started, .. }: Outcome) {
        let now = self.now();
        // Given up: it has been ended.
        let Some(birth) = self.births.close(worker, now) else { return };
        let Stage::Starting { ends, .. } = birth.stage else { return };
        let begun =
            started.and_then(|started| self.begin(worker, birth.slot, birth.generation, *ends, started));
        match begun {
            Ok(()) => self.born(worker, birth.later),
            Err(failure) => self.not_born(worker, failure),
        }
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
                    self.queue(worker, slot, generation);
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
        self.see_announced(&child, guard.filter(|_| announced));
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
            // What has been found before may answer again; a release that cannot be read is none.
            let kind = match birth.stage {
                Stage::Looking { .. } => FailureKind::Lasting,
                Stage::Queued | Stage::Starting { .. } => FailureKind::Passing,
            };
            let behind = self.births.starting.get(&birth.generation).filter(|_| kind == FailureKind::Passing);
            for worker in behind.map_or_else(|| vec![*worker], |behind| behind.iter().copied().collect()) {
                self.give_up_birth(worker, kind);
            }
        }
        if !late.is_empty() {
            self.start_queued();
        }
    }

    fn give_up_birth(&mut self, worker: WorkerId, kind: FailureKind) {
        if let Some(birth) = self.births.open.get(&worker) {
            birth.stage.give_up();
            let failure = self.launcher.no_answer(kind);
            self.not_born(worker, failure);
        }
    }
}
