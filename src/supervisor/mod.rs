//! The pure core: decides, and does nothing.
//!
//! Deterministic: no descriptor, no clock, no system call, no log, no thread; time is an argument.
//! The driver calls, in this order, for ever:
//!
//! 1. `handle(now, event)` for each fact, performing the actions it returns before the next fact
//!    (an action that fails comes back as an event of its own),
//! 2. `next_deadline()`, and waits no longer than that; then `handle(now, Event::TimePassed)`.

mod action;
mod backoff;
mod budget;
mod drain;
mod event;
mod expectation;
mod expiry;
mod guard;
mod ids;
mod jobs;
mod life;
mod looks;
mod notice;
mod reach;
mod recycle;
mod requests;
mod respawn;
mod restart;
mod rollback;
mod scale;
mod shutdown;
mod slot;
mod succession;
mod view;
mod watchdog;

#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use action::{Action, Ending, Reply, Verdict};
#[cfg(test)]
use drain::HANDSHAKE;
pub(crate) use drain::Sockets;
pub(crate) use event::{Event, ExitStatus, FailureKind, Order, Origin, Remedy, Scale, SpawnFailure};
pub(crate) use ids::{Generation, Headcount, Moment, RequestNumber, RestartId, Ticket, WorkerId};
pub(crate) use jobs::Jobs;
pub(crate) use looks::{Looks, Use as LookUse};
pub(crate) use notice::{Notice, Severity};
pub(crate) use requests::{Hearing, Requests};
#[cfg(test)]
use slot::HELLO_GRACE;
pub(crate) use slot::{Cause, LastExit, Notification};
pub(crate) use view::{
    MasterState, Readiness, RestartPhase, RestartState, RestartView, View, WorkerState, WorkerView,
};

#[cfg(test)]
use watchdog::CORE_GRACE;

use budget::Budget;
use expectation::ReadyExpectation;
use guard::GuardWatch;
use restart::{Remembered, Rolling};
use shutdown::Stage;
use slot::{Place, Slot, Worker};

use crate::config::Ready;

/// How long SIGKILL may take before the core stops counting on it. Only a process stuck in the
/// kernel (state D) needs longer, and a shutdown must end all the same.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// The settings that decisions depend on.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How many are wanted; a scale order changes it.
    pub(crate) workers: usize,
    pub(crate) max_fork_count: u32,
    pub(crate) stable_after: Duration,
    pub(crate) min_ready: usize,
    pub(crate) ready: Ready,
    pub(crate) ready_timeout: Duration,
    pub(crate) min_uptime: Duration,
    pub(crate) backoff_initial: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) surge: usize,
    pub(crate) canary: Duration,
    pub(crate) disconnect_timeout: Duration,
    /// How long a ready worker may say nothing; `None` does not watch.
    pub(crate) watchdog: Option<Duration>,
    /// How long a worker may live; `None` is for ever.
    pub(crate) max_lifetime: Option<Duration>,
    /// How many resident bytes a worker may have; `None` is any number.
    pub(crate) max_memory: Option<u64>,
    pub(crate) sockets: Sockets,
}

/// The whole state of a cluster.
#[derive(Debug)]
pub(crate) struct Supervisor {
    policy: Policy,
    now: Moment,
    stage: Stage,
    slots: Vec<Slot>,
    /// In which slot each worker is.
    slot_of: BTreeMap<WorkerId, usize>,
    budget: Budget,
    expectation: ReadyExpectation,
    boot: Boot,
    /// The generation that serves; a restart that is aborted uses up its number without becoming this.
    generation: Generation,
    newest_generation: Generation,
    next_worker: WorkerId,
    newest_restart: RestartId,
    rolling: Option<Rolling>,
    remembered: Option<Remembered>,
    finished_restart: Option<RestartView>,
    all_ready_since: Option<Moment>,
    /// The slots that new connections were last steered to.
    steered: Vec<usize>,
    guard: GuardWatch,
    crashes: u64,
    planned: u64,
    refused: u64,
    actions: Vec<Action>,
    /// No time is over before this moment. May be too early: only a look at all workers tells exactly.
    due: Option<Moment>,
    /// Looks at all workers, so far.
    #[cfg(test)]
    looks: u64,
}

/// What has been proved since the start about the program that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Boot {
    /// No process has been spawned yet: a lasting failure means that the start itself failed.
    Untried,
    /// At least one process of it began.
    Spawns,
    /// All workers have been ready at the same time.
    AllReady,
}

/// How far an event goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// It changes nothing but what is known of this worker, and when its time is over.
    Worker(WorkerId),
    /// Any rule may have something to do.
    Cluster,
    /// No rule has.
    Nobody,
}

impl Supervisor {
    pub(crate) fn new(policy: Policy) -> Self {
        Supervisor {
            now: Moment::default(),
            stage: Stage::Running,
            slots: Vec::new(),
            slot_of: BTreeMap::new(),
            budget: Budget::new(policy.max_fork_count),
            expectation: ReadyExpectation::new(Generation::FIRST),
            boot: Boot::Untried,
            generation: Generation::FIRST,
            newest_generation: Generation::FIRST,
            next_worker: WorkerId::FIRST,
            newest_restart: RestartId(0),
            rolling: None,
            remembered: None,
            finished_restart: None,
            all_ready_since: None,
            steered: Vec::new(),
            guard: GuardWatch::default(),
            crashes: 0,
            planned: 0,
            refused: 0,
            actions: Vec::new(),
            due: None,
            #[cfg(test)]
            looks: 0,
            policy,
        }
    }

    /// Takes in one fact and says what to do about it, in order.
    ///
    /// What concerns one worker alone costs the same however many there are; the rest costs a look at all of them.
    pub(crate) fn handle(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        let reach = self.reach(&event);
        self.apply(event);
        if let Reach::Worker(id) = reach {
            self.due = self.due.into_iter().chain(self.due_of(id)).min();
        }
        if reach == Reach::Cluster || self.due.is_some_and(|due| due <= self.now) {
            self.settle();
            self.due = self.find_due();
        }
        std::mem::take(&mut self.actions)
    }

    /// Every rule does what it can now.
    fn settle(&mut self) {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        match self.stage {
            // Not started yet: orders are taken, and wait.
            Stage::Running if self.slots.is_empty() => {}
            Stage::Running => {
                self.replace_guard();
                self.expire();
                self.drain();
                self.roll();
                self.recycle();
                self.give_up_or_respawn();
                self.watch_stability();
                self.steer();
            }
            Stage::ShuttingDown { .. } => {
                self.replace_guard();
                self.expire();
                self.finish_when_empty();
            }
            Stage::Ended => {}
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Started => {
                self.slots = (0..self.policy.workers).map(|_| Slot::new(self.generation)).collect();
            }
            Event::Spawned { worker } => self.spawned(worker),
            Event::SpawnFailed { worker, failure } => self.spawn_failed(worker, &failure),
            Event::SaidHello { worker } => self.said_hello(worker),
            Event::SaidReady { worker } => self.said_ready(worker),
            Event::SaidLeaving { worker } => self.said_leaving(worker),
            Event::NeedsTime { worker, span } => self.needs_time(worker, span),
            Event::SaidAlive { worker } => self.said_alive(worker),
            Event::ChannelPaused { worker } => self.channel_paused(worker),
            Event::ChannelResumed { worker } => self.channel_resumed(worker),
            Event::SaidRestartMe { worker } => self.said_restart_me(worker),
            Event::MemorySampled { worker, bytes } => self.memory_sampled(worker, bytes),
            Event::SaidFailed { worker, reason } => self.said_failed(worker, reason),
            Event::Exited { worker, status, stderr } => self.exited(worker, status, stderr),
            Event::HeardOut { worker } => self.heard_out(worker),
            Event::Told { worker } => self.told(worker),
            Event::SignalDenied { worker, cause } => self.signal_denied(worker, &cause),
            Event::Ordered { order: Order::Restart, ticket } => self.order_restart(ticket),
            Event::Ordered { order: Order::Shutdown(origin), ticket } => self.order_shutdown(origin, ticket),
            Event::Ordered { order: Order::ForceShutdown, ticket } => self.order_force(ticket),
            Event::Ordered { order: Order::Scale(scale), ticket } => self.order_scale(scale, ticket),
            Event::Ordered { order: Order::Recycle(worker), ticket } => self.order_recycle(worker, ticket),
            Event::CallerLeft { ticket } => self.caller_left(ticket),
            Event::QueueSeenEmpty { slot } => self.queue_seen_empty(slot),
            Event::GuardLost { how } => self.guard_lost(how),
            Event::Ordered { order: Order::ReopenLogs, ticket } => self.order_reopen(ticket),
            Event::ListenerShutDown { listener, remedy } => self.listener_shut_down(listener, remedy),
            Event::TimePassed => {}
        }
    }

    /// How far the event goes.
    fn reach(&self, event: &Event) -> Reach {
        match event {
            Event::Spawned { worker }
            | Event::SaidHello { worker }
            | Event::SaidAlive { worker }
            | Event::NeedsTime { worker, .. }
            | Event::ChannelPaused { worker }
            | Event::ChannelResumed { worker }
            | Event::SaidFailed { worker, .. }
            | Event::HeardOut { worker } => Reach::Worker(*worker),
            Event::CallerLeft { .. } => Reach::Nobody,
            Event::Told { worker } if self.rolling.is_none() => Reach::Worker(*worker),
            Event::MemorySampled { worker, bytes } if !self.is_too_much(*bytes) => Reach::Worker(*worker),
            Event::Started
            | Event::SpawnFailed { .. }
            | Event::SaidReady { .. }
            | Event::SaidLeaving { .. }
            | Event::SaidRestartMe { .. }
            | Event::MemorySampled { .. }
            | Event::Exited { .. }
            | Event::Ordered { .. }
            | Event::QueueSeenEmpty { .. }
            | Event::GuardLost { .. }
            | Event::Told { .. }
            | Event::SignalDenied { .. }
            | Event::ListenerShutDown { .. }
            | Event::TimePassed => Reach::Cluster,
        }
    }

    /// The moment at which `Event::TimePassed` is due, if time alone can change anything. It may come to nothing.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.due
    }

    fn find_due(&self) -> Option<Moment> {
        if self.stage == Stage::Ended {
            return None;
        }
        self.change_due().into_iter().chain(self.silence_due()).chain(self.age_due()).min()
    }

    /// When time alone changes something, if every worker goes on saying that it is alive, and none grows older.
    fn change_due(&self) -> Option<Moment> {
        let seats = self.slots.iter().filter_map(|slot| self.refill_due(slot)).map(|(due, _)| due);
        self.lives_due()
            .into_iter()
            .chain(seats)
            .chain(self.tries_due())
            .chain(self.recycle_due())
            .chain(self.drain_due())
            .chain(self.stable_due())
            .chain(self.guard_due())
            .min()
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn report(&mut self, notice: Notice) {
        self.actions.push(Action::Report(notice));
    }

    fn reply(&mut self, ticket: Option<Ticket>, reply: Reply) {
        if let Some(ticket) = ticket {
            self.act(Action::Reply { ticket, reply });
        }
    }

    /// An order that comes too late: counted, logged, and told to whoever gave it.
    /// As long as there is a log.
    fn order_reopen(&mut self, ticket: Option<Ticket>) {
        if self.stage == Stage::Ended {
            return self.refuse(Order::ReopenLogs, ticket);
        }
        self.act(Action::ReopenLogs);
        self.reply(ticket, Reply::Accepted);
    }

    fn refuse(&mut self, order: Order, ticket: Option<Ticket>) {
        self.refused += 1;
        self.report(Notice::OrderRefused { order });
        self.reply(ticket, Reply::Refused);
    }

    fn find(&self, worker: WorkerId) -> Option<(usize, Place)> {
        let slot = *self.slot_of.get(&worker)?;
        Some((slot, self.slots.get(slot)?.find(worker)?))
    }

    fn worker_mut(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        let (slot, place) = self.find(worker)?;
        self.slots[slot].get_mut(place)
    }

    fn seats_and_successors(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().flat_map(|slot| slot.occupant().into_iter().chain(slot.successor()))
    }
}
