//! The world's own books: what an onlooker knows from the facts told and the actions ordered,
//! without a look inside the core. The invariants are checked against these.

use std::cmp::Ordering;
use std::time::Duration;

use super::story::{Scene, Story};
use crate::config::Ready;
use crate::supervisor::life::MOST_PATIENCE;
use crate::supervisor::{
    Ending, Event, FailureKind, Generation, Moment, Order, Origin, Policy, Scale, Ticket, WorkerId,
};

/// A worker that was ordered and is not reaped yet.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: WorkerId,
    pub(super) slot: usize,
    pub(super) generation: Generation,
    pub(super) spawned: Moment,
    pub(super) said_hello: bool,
    /// When `stopSignal` is due after the line, unless it says hello.
    pub(super) signal_at: Option<Moment>,
    /// Until when it asked to be waited for, in the state that it is in.
    pub(super) asked_until: Option<Moment>,
    pub(super) post: Post,
    pub(super) life: Life,
}

/// What the worker is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Post {
    Seat,
    /// The replacement that a restart tries out.
    Trial,
    /// Replaced, dismissed or given up on.
    Leaving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Booting,
    Serving { since: Moment },
    Told { at: Moment },
    Killed { at: Moment },
    GivenUpOn,
}

/// The restart that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roll {
    pub(super) generation: Generation,
    pub(super) promoted: usize,
}

/// Somebody who gave an order.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) order: Order,
    pub(super) expects: Answer,
    pub(super) answer: Option<Answer>,
    pub(super) verdicts: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Refused,
}

/// How the end is coming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Course {
    Running,
    /// `delay` is how late the loop has been since.
    ShuttingDown {
        since: Moment,
        delay: Duration,
    },
    Finished(Ending),
}

#[derive(Debug)]
pub(super) struct Books {
    pub(super) policy: Policy,
    pub(super) now: Moment,
    pub(super) living: Vec<Entry>,
    /// How many workers are wanted.
    pub(super) wanted: usize,
    /// Seats that have come beside the first ones, ever.
    pub(super) grown: u64,
    /// Slots that may have sockets of their own.
    pub(super) open: Vec<bool>,
    /// The generation of each seat, also of those that were given up.
    pub(super) seats: Vec<Generation>,
    pub(super) askers: Vec<Asker>,
    pub(super) course: Course,
    pub(super) roll: Option<Roll>,
    pub(super) newest: Option<WorkerId>,
    pub(super) newest_generation: Generation,
    pub(super) running_generation: Generation,
    /// Some worker has said ready: all are expected to.
    pub(super) custom: bool,
    pub(super) booted: bool,
    pub(super) all_were_ready: bool,
    pub(super) spawns: u64,
    pub(super) trials: u64,
    pub(super) crashes: u64,
    /// Workers that left their seats by their own wish.
    pub(super) leavings: u64,
    pub(super) passing_failures: u64,
    /// Nobody has been ready for so many seat spawns, of so many allowed.
    pub(super) barren: Option<Barren>,
    pub(super) budget_left: u32,
    /// Since when all seats have been ready without a break.
    pub(super) stable_since: Option<Moment>,
    /// When a signal first asked for a shutdown.
    pub(super) signalled: Option<Moment>,
    /// The latest moment for which a worker that was told to leave asked to be waited for.
    pub(super) asked_until: Moment,
    pub(super) turn: Turn,
    pub(super) story: Story,
}

/// A stretch of time in which nobody is ready: the budget bounds the spawns in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barren {
    pub(super) spawns: u64,
    pub(super) allowed: u64,
}

/// What one `handle` has been told and has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    pub(super) asked: Asked,
    pub(super) said_ready: Option<WorkerId>,
    pub(super) trial: TrialFate,
    pub(super) restart: RestartFate,
    pub(super) finished: bool,
}

/// The order that the turn began with, by its effect on the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    Nothing,
    Shutdown,
    Force,
}

/// The worst that befell a replacement on trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TrialFate {
    #[default]
    Untouched,
    Dismissed,
    Lost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RestartFate {
    #[default]
    Undecided,
    Completed,
    Aborted,
}

impl Books {
    pub(super) fn new(policy: &Policy) -> Self {
        let full = u64::from(policy.max_fork_count) + policy.workers as u64;
        Books {
            policy: policy.clone(),
            now: Moment::default(),
            living: Vec::with_capacity(8),
            wanted: policy.workers,
            grown: 0,
            open: vec![false; policy.workers],
            seats: vec![Generation::FIRST; policy.workers],
            askers: Vec::new(),
            course: Course::Running,
            roll: None,
            newest: None,
            newest_generation: Generation::FIRST,
            running_generation: Generation::FIRST,
            custom: false,
            booted: false,
            all_were_ready: false,
            spawns: 0,
            trials: 0,
            crashes: 0,
            leavings: 0,
            passing_failures: 0,
            barren: Some(Barren { spawns: 0, allowed: full }),
            budget_left: policy.max_fork_count,
            stable_since: None,
            signalled: None,
            asked_until: Moment::default(),
            turn: Turn::default(),
            story: Story::default(),
        }
    }

    pub(super) fn entry(&self, id: WorkerId) -> Option<&Entry> {
        self.living.iter().find(|entry| entry.id == id)
    }

    pub(super) fn entry_mut(&mut self, id: WorkerId) -> Option<&mut Entry> {
        self.living.iter_mut().find(|entry| entry.id == id)
    }

    pub(super) fn serving(&self) -> usize {
        self.living.iter().filter(|entry| matches!(entry.life, Life::Serving { .. })).count()
    }

    pub(super) fn booting(&self) -> usize {
        self.living.iter().filter(|entry| entry.life == Life::Booting).count()
    }

    pub(super) fn on_trial(&self) -> usize {
        self.living.iter().filter(|entry| entry.post == Post::Trial).count()
    }

    pub(super) fn holder(&self, slot: usize) -> Option<&Entry> {
        self.living.iter().find(|entry| entry.slot == slot && entry.post == Post::Seat)
    }

    pub(super) fn all_serving(&self) -> bool {
        (0..self.wanted)
            .all(|slot| self.holder(slot).is_some_and(|entry| matches!(entry.life, Life::Serving { .. })))
    }

    /// Whether living long enough is taken for ready (DESIGN, "Ready").
    pub(super) fn age_counts(&self, entry: &Entry) -> bool {
        match self.policy.ready {
            Ready::Alive => true,
            Ready::Notify => false,
            Ready::Auto => !entry.said_hello && !self.custom && entry.asked_until.is_none(),
        }
    }

    /// When a booting worker's patience ends.
    pub(super) fn boot_due(&self, entry: &Entry) -> Moment {
        if self.age_counts(entry) {
            return entry.spawned + self.policy.min_uptime;
        }
        let due = entry.spawned + self.policy.ready_timeout;
        entry.asked_until.map_or(due, |asked| due.max(asked))
    }

    /// When a worker that was told to leave is killed.
    pub(super) fn leave_due(&self, entry: &Entry, told: Moment) -> Moment {
        let due = told + self.policy.disconnect_timeout;
        entry.asked_until.map_or(due, |asked| due.max(asked))
    }

    fn needs_time(&mut self, id: WorkerId, span: Duration) {
        let (now, policy) = (self.now, &self.policy);
        let (ready_timeout, disconnect_timeout) = (policy.ready_timeout, policy.disconnect_timeout);
        let Some(entry) = self.entry_mut(id) else { return };
        let most = match entry.life {
            Life::Booting => entry.spawned + ready_timeout,
            Life::Told { at } => at + disconnect_timeout,
            Life::Serving { .. } | Life::Killed { .. } | Life::GivenUpOn => return,
        };
        let asked = (now + span).min(most + MOST_PATIENCE);
        entry.asked_until = entry.asked_until.max(Some(asked));
        if matches!(entry.life, Life::Told { .. }) {
            self.asked_until = self.asked_until.max(asked);
            self.story.tell(Scene::AskedForTimeToLeave);
        } else {
            self.story.tell(Scene::AskedForTimeToStart);
        }
    }

    /// Writes down a fact, before the core hears of it.
    pub(super) fn happened(&mut self, now: Moment, event: &Event) {
        self.now = self.now.max(now);
        self.turn = Turn::default();
        match event {
            Event::Started | Event::TimePassed | Event::SaidFailed { .. } => {}
            Event::Spawned { .. } => self.booted |= self.course == Course::Running,
            Event::NeedsTime { worker, span } => self.needs_time(*worker, *span),
            Event::SaidLeaving { worker } => self.leaves_by_itself(*worker),
            Event::SpawnFailed { worker, failure } => self.not_spawned(*worker, failure.kind),
            Event::SaidHello { worker } => {
                if let Some(entry) = self.entry_mut(*worker) {
                    entry.said_hello = true;
                    entry.signal_at = None;
                }
            }
            Event::SaidReady { worker } => {
                self.custom = true;
                let booting = self.entry(*worker).filter(|entry| entry.life == Life::Booting);
                self.turn.said_ready = booting.map(|entry| entry.id);
            }
            Event::Exited { worker, .. } => self.reaped(*worker),
            Event::Ordered { order, ticket } => self.asked(*order, *ticket),
        }
    }

    fn remove(&mut self, id: WorkerId) -> Option<Entry> {
        let at = self.living.iter().position(|entry| entry.id == id)?;
        Some(self.living.swap_remove(at))
    }

    fn not_spawned(&mut self, id: WorkerId, kind: FailureKind) {
        let Some(entry) = self.remove(id) else { return };
        match kind {
            FailureKind::Passing => {
                self.passing_failures += 1;
                self.story.tell(Scene::PassingFailure);
                if let Some(barren) = &mut self.barren {
                    barren.allowed += 1;
                }
            }
            FailureKind::Lasting => {
                self.story.tell(Scene::LastingFailure);
                self.crashes += u64::from(entry.post == Post::Seat && self.booted);
            }
        }
        if entry.post == Post::Trial {
            self.turn.trial = TrialFate::Lost;
            self.story.tell(Scene::AbortedBySpawnFailure);
        }
    }

    fn leaves_by_itself(&mut self, id: WorkerId) {
        let now = self.now;
        let at_work = |entry: &&mut Entry| matches!(entry.life, Life::Booting | Life::Serving { .. });
        let Some(entry) = self.entry_mut(id).filter(at_work) else { return };
        let was = entry.post;
        (entry.life, entry.post, entry.asked_until) = (Life::Told { at: now }, Post::Leaving, None);
        match was {
            Post::Seat => {
                self.leavings += 1;
                self.story.tell(Scene::LeftByItself);
                if let Some(barren) = &mut self.barren {
                    barren.allowed += 1;
                }
            }
            Post::Trial => {
                self.turn.trial = TrialFate::Lost;
                self.story.tell(Scene::AbortedByLeaving);
            }
            Post::Leaving => {}
        }
    }

    fn reaped(&mut self, id: WorkerId) {
        let Some(entry) = self.remove(id) else { return };
        match entry.post {
            Post::Seat => self.crashed(),
            Post::Trial => {
                self.turn.trial = TrialFate::Lost;
                self.story.tell(Scene::AbortedByExit);
            }
            Post::Leaving => {}
        }
    }

    pub(super) fn crashed(&mut self) {
        self.crashes += 1;
        self.story.tell(Scene::Crash);
        if self.roll.is_some() {
            self.story.tell(Scene::OldWorkerCrashedDuringARestart);
        }
    }

    fn asked(&mut self, order: Order, ticket: Option<Ticket>) {
        let (running, ended) = (self.course == Course::Running, self.is_finished());
        let expects = match order {
            Order::Restart | Order::Shutdown(_) | Order::Scale(_) if running => Answer::Accepted,
            Order::ForceShutdown if !ended => Answer::Accepted,
            Order::Restart | Order::Shutdown(_) | Order::ForceShutdown | Order::Scale(_) => Answer::Refused,
        };
        if let Order::Scale(scale) = order
            && running
        {
            self.scaled(scale);
        }
        if ended {
            self.story.tell(Scene::OrderAfterTheEnd);
        }
        self.turn.asked = match order {
            Order::Restart | Order::Scale(_) => Asked::Nothing,
            Order::Shutdown(_) | Order::ForceShutdown if ended => Asked::Nothing,
            Order::Shutdown(_) | Order::ForceShutdown if self.forces(order) => Asked::Force,
            Order::Shutdown(_) | Order::ForceShutdown => Asked::Shutdown,
        };
        if let Some(Ticket(number)) = ticket {
            assert_eq!(number, self.askers.len() as u64, "the world numbers tickets in order");
            self.askers.push(Asker { order, expects, answer: None, verdicts: 0 });
        }
    }

    /// Slots come and go at the end; who is in one that goes is there no longer for anything.
    fn scaled(&mut self, scale: Scale) {
        let from = self.wanted;
        let to = match scale {
            Scale::To(headcount) => headcount.get(),
            Scale::OneMore => from + 1,
            Scale::OneFewer => (from - 1).max(1),
        };
        self.wanted = to;
        match to.cmp(&from) {
            Ordering::Less => self.shrunk(),
            Ordering::Equal => self.story.tell(Scene::ScaledToTheBound),
            Ordering::Greater => self.grown_from(from),
        }
        if self.roll.is_some() && to != from {
            self.story.tell(Scene::ScaledDuringARestart);
        }
    }

    fn shrunk(&mut self) {
        self.story.tell(Scene::ScaledDown);
        let wanted = self.wanted;
        for entry in self.living.iter_mut().filter(|entry| entry.slot >= wanted) {
            if entry.post == Post::Trial {
                self.story.tell(Scene::ScaledAwayAReplacement);
            }
            entry.post = Post::Leaving;
        }
    }

    fn grown_from(&mut self, from: usize) {
        self.story.tell(Scene::ScaledUp);
        let more = (self.wanted - from) as u64;
        self.grown += more;
        if let Some(barren) = &mut self.barren {
            barren.allowed += more;
        }
        if self.living.iter().any(|entry| (from..self.wanted).contains(&entry.slot)) {
            self.story.tell(Scene::ScaledUpWhileTheSlotDrains);
        }
        self.seats.truncate(from);
        self.seats.resize(self.wanted, self.running_generation);
        self.open.resize(self.wanted.max(self.open.len()), false);
        // They have to boot first.
        self.all_were_ready = false;
    }

    /// A force order, or a second signal; two within 300 ms are one.
    fn forces(&mut self, order: Order) -> bool {
        match (order, self.signalled) {
            (Order::Restart | Order::Scale(_) | Order::Shutdown(Origin::Request), _) => false,
            (Order::ForceShutdown, _) => {
                self.story.tell(Scene::ForcedByOrder);
                true
            }
            (Order::Shutdown(Origin::Signal), None) => {
                self.signalled = Some(self.now);
                false
            }
            (Order::Shutdown(Origin::Signal), Some(first)) => {
                let again = self.now - first >= Duration::from_millis(300);
                self.story.tell(if again {
                    Scene::ForcedByASecondSignal
                } else {
                    Scene::SignalRepeatedAtOnce
                });
                again
            }
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        matches!(self.course, Course::Finished(_))
    }

    /// The loop woke up too late by so much.
    pub(super) fn delayed(&mut self, by: Duration) {
        if let Course::ShuttingDown { delay, .. } = &mut self.course {
            *delay += by;
        }
    }
}
