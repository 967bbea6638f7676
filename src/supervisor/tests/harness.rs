//! A driver without processes: it steps from deadline to deadline and writes orders down as text.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::Ready;
use crate::supervisor::{
    Action, Cause, Event, ExitStatus, FailureKind, Headcount, Moment, Notice, Notification, Order, Origin,
    Policy, Reply, Scale, Sockets, SpawnFailure, Supervisor, Ticket, Verdict, View, WorkerId,
};

/// What becomes of the spawns that the core orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spawning {
    Works,
    /// They are answered by the test itself.
    TakesTime,
    Fails(FailureKind),
}

pub(super) struct Cluster {
    pub(super) core: Supervisor,
    pub(super) spawning: Spawning,
    pub(super) notices: Vec<Notice>,
    pub(super) spawns: usize,
    /// Generations whose program was let go.
    pub(super) forgotten: Vec<u64>,
    /// When it is told that a worker was heard out.
    pub(super) hearing: Hearing,
    /// Workers that may not be signalled.
    pub(super) denied: BTreeSet<u64>,
    now: Moment,
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// When the core is told that a worker was heard out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    AtOnce,
    /// After what the test tells first.
    Later,
}

/// The defaults of the design.
pub(super) fn policy(workers: usize) -> Policy {
    Policy {
        workers,
        max_fork_count: 100,
        stable_after: ms(60_000),
        min_ready: 1,
        ready: Ready::Auto,
        ready_timeout: ms(30_000),
        min_uptime: ms(1000),
        backoff_initial: ms(100),
        backoff_max: ms(5000),
        surge: 1,
        canary: ms(1000),
        disconnect_timeout: ms(10_000),
        watchdog: None,
        max_lifetime: None,
        max_memory: None,
        sockets: Sockets::Shared,
    }
}

impl Cluster {
    /// A cluster whose first workers have been spawned.
    pub(super) fn boot(policy: Policy) -> Self {
        let mut cluster = Cluster::unstarted(policy);
        cluster.tell(Event::Started);
        cluster
    }

    pub(super) fn unstarted(policy: Policy) -> Self {
        Cluster {
            core: Supervisor::new(policy),
            spawning: Spawning::Works,
            notices: Vec::new(),
            spawns: 0,
            forgotten: Vec::new(),
            hearing: Hearing::AtOnce,
            denied: BTreeSet::new(),
            now: Moment::default(),
        }
    }

    /// A cluster whose first workers have all said ready.
    pub(super) fn ready(policy: Policy) -> Self {
        let workers = policy.workers as u64;
        let mut cluster = Cluster::boot(policy);
        for worker in 1..=workers {
            cluster.says_ready(worker);
        }
        cluster
    }

    /// A ready cluster of so many workers, with the defaults.
    pub(super) fn of(workers: usize) -> Self {
        Cluster::ready(policy(workers))
    }

    /// One fact, and the orders that follow from it; spawns are answered at once.
    pub(super) fn tell(&mut self, event: Event) -> Vec<String> {
        let mut orders = Vec::new();
        let mut answers = Vec::new();
        for action in self.core.handle(self.now, event) {
            match &action {
                Action::Report(notice) => self.notices.push(notice.clone()),
                Action::ForgetGeneration { generation } => self.forgotten.push(generation.0),
                Action::Spawn { worker, .. } => {
                    self.spawns += 1;
                    orders.push(spelled(&action));
                    answers.extend(self.spawned(*worker));
                }
                Action::HearOut { worker } if self.hearing == Hearing::AtOnce => {
                    answers.push(Event::HeardOut { worker: *worker });
                }
                Action::Disconnect { worker, by } => {
                    orders.push(spelled(&action));
                    let worker = *worker;
                    if self.denied.contains(&worker.0) && *by != Notification::Channel {
                        answers.push(denied(worker));
                    }
                    answers.push(Event::Told { worker });
                }
                Action::Kill { worker } | Action::Abort { worker } if self.denied.contains(&worker.0) => {
                    orders.push(spelled(&action));
                    answers.push(denied(*worker));
                }
                Action::HearOut { .. }
                | Action::Abort { .. }
                | Action::Kill { .. }
                | Action::CloseListeners
                | Action::ReleaseListeners { .. }
                | Action::Steer { .. }
                | Action::LookAtQueue { .. }
                | Action::CloseSlot { .. }
                | Action::StartGuard
                | Action::ReopenLogs
                | Action::Reply { .. }
                | Action::Finish(_) => orders.push(spelled(&action)),
            }
        }
        for answer in answers {
            orders.extend(self.tell(answer));
        }
        orders
    }

    fn spawned(&self, worker: WorkerId) -> Option<Event> {
        match self.spawning {
            Spawning::Works => Some(Event::Spawned { worker }),
            Spawning::TakesTime => None,
            Spawning::Fails(kind) => {
                let failure = SpawnFailure { kind, reason: "exec ./server: no such file".to_owned() };
                Some(Event::SpawnFailed { worker, failure })
            }
        }
    }

    pub(super) fn says_hello(&mut self, worker: u64) -> Vec<String> {
        self.tell(Event::SaidHello { worker: WorkerId(worker) })
    }

    pub(super) fn says_ready(&mut self, worker: u64) -> Vec<String> {
        self.tell(Event::SaidReady { worker: WorkerId(worker) })
    }

    pub(super) fn says_leaving(&mut self, worker: u64) -> Vec<String> {
        self.tell(Event::SaidLeaving { worker: WorkerId(worker) })
    }

    pub(super) fn says_alive(&mut self, worker: u64) -> Vec<String> {
        self.tell(Event::SaidAlive { worker: WorkerId(worker) })
    }

    /// All that it has said was told.
    pub(super) fn was_heard_out(&mut self, worker: u64) -> Vec<String> {
        self.tell(Event::HeardOut { worker: WorkerId(worker) })
    }

    pub(super) fn exits(&mut self, worker: u64) -> Vec<String> {
        self.tell(Event::Exited {
            worker: WorkerId(worker),
            status: ExitStatus::Code(1),
            stderr: vec![format!("bye from {worker}")],
        })
    }

    pub(super) fn restart(&mut self, ticket: u64) -> Vec<String> {
        self.tell(Event::Ordered { order: Order::Restart, ticket: Some(Ticket(ticket)) })
    }

    /// An order to scale, by a signal.
    pub(super) fn scale(&mut self, scale: Scale) -> Vec<String> {
        self.tell(Event::Ordered { order: Order::Scale(scale), ticket: None })
    }

    pub(super) fn scale_to(&mut self, workers: usize) -> Vec<String> {
        self.scale(Scale::To(Headcount::new(workers).expect("in range")))
    }

    pub(super) fn reopen(&mut self, ticket: u64) -> Vec<String> {
        self.tell(Event::Ordered { order: Order::ReopenLogs, ticket: Some(Ticket(ticket)) })
    }

    pub(super) fn signal(&mut self) -> Vec<String> {
        self.tell(Event::Ordered { order: Order::Shutdown(Origin::Signal), ticket: None })
    }

    pub(super) fn ask_shutdown(&mut self, ticket: u64) -> Vec<String> {
        self.tell(Event::Ordered { order: Order::Shutdown(Origin::Request), ticket: Some(Ticket(ticket)) })
    }

    pub(super) fn force(&mut self, ticket: u64) -> Vec<String> {
        self.tell(Event::Ordered { order: Order::ForceShutdown, ticket: Some(Ticket(ticket)) })
    }

    /// Steps through every deadline of this time, and returns the orders of all.
    pub(super) fn pass(&mut self, millis: u64) -> Vec<String> {
        let end = self.now + ms(millis);
        let mut orders = Vec::new();
        while let Some(due) = self.core.next_deadline().filter(|due| *due <= end) {
            assert!(due > self.now || self.now == Moment::default(), "the core is busy at {due:?}");
            self.now = due;
            orders.extend(self.tell(Event::TimePassed));
        }
        self.now = end;
        orders
    }

    /// The loop stands still for this time: nothing is told, not even that time passed.
    pub(super) fn stall(&mut self, millis: u64) {
        self.now = self.now + ms(millis);
    }

    /// Milliseconds from now to the next deadline.
    pub(super) fn wait(&self) -> Option<u128> {
        self.core.next_deadline().map(|due| (due - self.now).as_millis())
    }

    pub(super) fn status(&self) -> View {
        self.core.status(self.now)
    }

    /// The rows as `slot: worker state`, in order.
    pub(super) fn rows(&self) -> Vec<String> {
        let row = |row: &crate::supervisor::WorkerView| {
            format!("{}: {} {:?} of {}", row.slot, row.id, row.state, row.generation).to_lowercase()
        };
        self.status().workers.iter().map(row).collect()
    }

    /// How the last worker of this slot ended.
    pub(super) fn last_cause(&self, slot: usize) -> Option<Cause> {
        let view = self.status();
        let row = view.workers.iter().find(|row| row.slot == slot)?;
        row.last_exit.as_ref().map(|exit| exit.cause)
    }

    pub(super) fn budget_left(&self) -> u32 {
        self.status().budget_left
    }
}

fn denied(worker: WorkerId) -> Event {
    Event::SignalDenied { worker, cause: "operation not permitted".to_owned() }
}

fn spelled(action: &Action) -> String {
    match action {
        Action::Spawn { worker, slot, generation } => format!("spawn {worker} in {slot} of {generation}"),
        Action::Disconnect { worker, by: Notification::Channel } => format!("tell {worker}"),
        Action::Disconnect { worker, by: Notification::ChannelAndSignal } => format!("tell+signal {worker}"),
        Action::Abort { worker } => format!("abort {worker}"),
        Action::Kill { worker } => format!("kill {worker}"),
        Action::Disconnect { worker, by: Notification::Signal } => format!("signal {worker}"),
        Action::HearOut { worker } => format!("hear out {worker}"),
        Action::CloseListeners => "close".to_owned(),
        Action::ReleaseListeners { unused_since } => format!("release before {unused_since}"),
        Action::Steer { slots } => format!("steer to {slots:?}"),
        Action::LookAtQueue { slot } => format!("look at {slot}"),
        Action::CloseSlot { slot } => format!("close slot {slot}"),
        Action::ForgetGeneration { generation } => format!("forget {generation}"),
        Action::StartGuard => "start guard".to_owned(),
        Action::ReopenLogs => "reopen".to_owned(),
        Action::Reply { ticket, reply } => match reply {
            Reply::Accepted => format!("{ticket} accepted"),
            Reply::Unknown => format!("{ticket} unknown"),
            Reply::Refused => format!("{ticket} refused"),
            Reply::Ended(Verdict::Completed) => format!("{ticket} completed"),
            Reply::Ended(Verdict::Aborted { reason, .. }) => format!("{ticket} aborted: {reason}"),
        },
        Action::Report(notice) => notice.to_string(),
        Action::Finish(ending) => format!("finish {ending:?}"),
    }
}
