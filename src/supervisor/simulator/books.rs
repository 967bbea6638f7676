//! The world's own books: what an onlooker knows from the facts told and the actions ordered,
//! without a look inside the core. The invariants are checked against these.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
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
    /// It is to be replaced.
    pub(super) worn: bool,
    /// Its channel is not read.
    pub(super) paused: bool,
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
    /// The replacement of one worker that is worn.
    Recycle,
    /// Replaced, dismissed or given up on.
    Leaving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Booting,
    Serving { since: Moment, heard: Moment },
    Hung { kill_at: Moment },
    Told { at: Moment },
    Killed { at: Moment },
    GivenUpOn,
}

/// The restart that runs.
#[derive(Clone, Debug)]
pub(super) struct Roll {
    pub(super) generation: Generation,
    pub(super) promoted: usize,
    pub(super) way: Way,
    /// Since when a replacement has been tried in a slot.
    pub(super) tried: BTreeMap<usize, Moment>,
}

/// Where a restart is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    /// A worker of the new generation has failed.
    Back,
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
    Unknown,
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
    /// Seats that a refused release has lost its workers from.
    pub(super) vacant: BTreeSet<usize>,
    /// Slots that have ever lost a worker outside a restart, or could not start one.
    pub(super) unlucky: BTreeSet<usize>,
    /// Generations whose program is held.
    pub(super) programs: BTreeSet<Generation>,
    /// Orders to restart that were accepted, and whose restart has not begun.
    pub(super) remembered: usize,
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
    pub(super) trial_spawns: u64,
    /// Seats that a rollback left to crash replacement.
    pub(super) left_vacant: u64,
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
    /// Who was to replace a worn worker, and makes way for a restart.
    pub(super) dropped: Option<WorkerId>,
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
    /// One that should have taken a seat back.
    ComebackDismissed,
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
            vacant: BTreeSet::new(),
            unlucky: BTreeSet::new(),
            programs: BTreeSet::from([Generation::FIRST]),
            remembered: 0,
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
            trial_spawns: 0,
            left_vacant: 0,
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

    /// Replacements beside a worker who sits in the seat, or will again.
    pub(super) fn extra(&self) -> usize {
        let trials = self.living.iter().filter(|entry| entry.post == Post::Trial);
        trials.filter(|entry| !self.vacant.contains(&entry.slot)).count()
    }

    pub(super) fn holder(&self, slot: usize) -> Option<&Entry> {
        self.living.iter().find(|entry| entry.slot == slot && entry.post == Post::Seat)
    }

    pub(super) fn serves(&self, slot: usize) -> bool {
        self.holder(slot).is_some_and(|entry| matches!(entry.life, Life::Serving { .. }))
    }

    pub(super) fn all_serving(&self) -> bool {
        (0..self.wanted).all(|slot| self.serves(slot))
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
            Life::Serving { .. } | Life::Hung { .. } | Life::Killed { .. } | Life::GivenUpOn => return,
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
            Event::Started | Event::SaidFailed { .. } => {}
            Event::TimePassed => self.pardon_silence(),
            Event::SaidRestartMe { worker } => self.wear(*worker),
            Event::MemorySampled { worker, bytes } => {
                if self.policy.max_memory.is_some_and(|most| *bytes > most) {
                    self.wear(*worker);
                }
            }
            Event::ChannelPaused { worker } => self.paused(*worker, true),
            Event::ChannelResumed { worker } => self.paused(*worker, false),
            Event::SaidAlive { worker } => {
                let now = self.now;
                if let Some(Life::Serving { heard, .. }) =
                    self.entry_mut(*worker).map(|entry| &mut entry.life)
                {
                    *heard = now;
                }
            }
            Event::NeedsTime { worker, span } => self.needs_time(*worker, *span),
            Event::SaidLeaving { worker } => self.leaves_by_itself(*worker),
            Event::Spawned { worker } => {
                self.booted |= self.course == Course::Running;
                let on_trial = self
                    .entry(*worker)
                    .is_some_and(|entry| matches!(entry.post, Post::Trial | Post::Recycle));
                self.trials += u64::from(on_trial);
            }
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

    fn wear(&mut self, id: WorkerId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.worn = true;
        }
    }

    /// Whether it may be replaced: asked for, too big, or within a tenth of the greatest age.
    pub(super) fn is_worn(&self, entry: &Entry) -> bool {
        let lived = self.now - entry.spawned;
        entry.worn || self.policy.max_lifetime.is_some_and(|most| lived >= most / 10 * 9)
    }

    fn paused(&mut self, id: WorkerId, paused: bool) {
        let now = self.now;
        let Some(entry) = self.entry_mut(id) else { return };
        entry.paused = paused;
        if let Life::Serving { heard, .. } = &mut entry.life {
            *heard = now;
            self.story.tell(Scene::PausedWhileServing);
        }
    }

    /// When a silent worker is hung; `None` for those that are not watched.
    pub(super) fn silent_until(&self, entry: &Entry) -> Option<Moment> {
        match entry.life {
            Life::Serving { .. } if entry.paused => None,
            Life::Serving { heard, .. } => Some(heard + self.policy.watchdog?),
            Life::Booting | Life::Told { .. } | Life::Hung { .. } | Life::Killed { .. } | Life::GivenUpOn => {
                None
            }
        }
    }

    /// A loop that was late by half the time blames itself.
    fn pardon_silence(&mut self) {
        let (now, limit) = (self.now, self.policy.watchdog.unwrap_or_default());
        for at in 0..self.living.len() {
            let due = self.silent_until(&self.living[at]);
            if due.is_some_and(|due| now >= due && now - due > limit / 2)
                && let Life::Serving { heard, .. } = &mut self.living[at].life
            {
                *heard = now;
                self.story.tell(Scene::SilencePardoned);
            }
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
        match entry.post {
            Post::Trial if kind == FailureKind::Passing && self.may_try_again(entry.slot) => {
                self.story.tell(Scene::ReplacementTriedAgain);
            }
            Post::Recycle => self.story.tell(Scene::RecycleFailed),
            Post::Trial => self.trial_lost(Scene::AbortedBySpawnFailure),
            Post::Seat if self.on_probation(entry.generation).is_some() => match kind {
                FailureKind::Passing if self.on_probation(entry.generation) == Some(Way::Forward) => {}
                FailureKind::Passing | FailureKind::Lasting => {
                    self.crashes -= u64::from(kind == FailureKind::Lasting && self.booted);
                    self.seat_lost(entry.slot, entry.generation);
                }
            },
            Post::Seat => drop(self.unlucky.insert(entry.slot)),
            Post::Leaving => {}
        }
    }

    fn leaves_by_itself(&mut self, id: WorkerId) {
        let now = self.now;
        let at_work = |entry: &&mut Entry| matches!(entry.life, Life::Booting | Life::Serving { .. });
        let Some(entry) = self.entry_mut(id).filter(at_work) else { return };
        let was = entry.post;
        (entry.life, entry.post, entry.asked_until) = (Life::Told { at: now }, Post::Leaving, None);
        let (slot, generation) = (entry.slot, entry.generation);
        match was {
            Post::Seat if self.on_probation(generation) == Some(Way::Back) => {
                self.story.tell(Scene::RefusedWorkerLost);
                self.seats[slot] = self.running_generation;
                self.vacant.insert(slot);
            }
            Post::Seat => {
                if self.on_probation(generation).is_none() {
                    self.seats[slot] = self.running_generation;
                }
                self.leavings += 1;
                self.unlucky.insert(slot);
                self.story.tell(Scene::LeftByItself);
                if let Some(barren) = &mut self.barren {
                    barren.allowed += 1;
                }
            }
            Post::Trial => {
                self.trial_lost(Scene::AbortedByLeaving);
            }
            Post::Recycle => self.story.tell(Scene::RecycleFailed),
            Post::Leaving => {}
        }
    }

    /// What passes is waited out for as long as a replacement may take to become ready.
    fn may_try_again(&self, slot: usize) -> bool {
        let since = self.roll.as_ref().and_then(|roll| roll.tried.get(&slot));
        since.is_some_and(|since| self.now - *since < self.policy.ready_timeout)
    }

    /// A replacement is lost: on the way forward, that refuses the release.
    pub(super) fn trial_lost(&mut self, how: Scene) {
        let Some(roll) = &mut self.roll else { return };
        match roll.way {
            Way::Forward => {
                self.story.tell(how);
                self.refused();
            }
            Way::Back => self.story.tell(Scene::ComebackFailed),
        }
    }

    fn refused(&mut self) {
        self.turn.trial = TrialFate::Lost;
        let Some(roll) = &mut self.roll else { return };
        roll.way = Way::Back;
        roll.tried.clear();
        let refused = roll.generation;
        for slot in (0..self.wanted).filter(|slot| self.seats[*slot] == refused).collect::<Vec<_>>() {
            if self.holder(slot).is_none() {
                self.seats[slot] = self.running_generation;
                self.vacant.insert(slot);
            }
        }
    }

    /// Whether a worker of this generation is the restart's, on its way forward or back.
    fn on_probation(&self, generation: Generation) -> Option<Way> {
        let roll = self.roll.as_ref()?;
        let is_on_probation = match roll.way {
            Way::Forward => roll.generation == generation,
            Way::Back => self.running_generation != generation,
        };
        is_on_probation.then_some(roll.way)
    }

    /// A worker in its seat is lost: in service, or by a release that is on probation.
    pub(super) fn seat_lost(&mut self, slot: usize, generation: Generation) {
        let probation = self.on_probation(generation);
        self.seats[slot] = self.running_generation;
        match probation {
            None => {
                self.unlucky.insert(slot);
                return self.crashed();
            }
            Some(Way::Forward) => {
                self.story.tell(Scene::PromotedWorkerLost);
                self.refused();
            }
            Some(Way::Back) => self.story.tell(Scene::RefusedWorkerLost),
        }
        self.vacant.insert(slot);
    }

    fn reaped(&mut self, id: WorkerId) {
        let Some(entry) = self.remove(id) else { return };
        match entry.post {
            Post::Seat => self.seat_lost(entry.slot, entry.generation),
            Post::Recycle => self.story.tell(Scene::RecycleFailed),
            Post::Trial => self.trial_lost(Scene::AbortedByExit),
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
            Order::Recycle(worker) if running && self.entry(worker).is_some() => Answer::Accepted,
            Order::Recycle(_) if running => Answer::Unknown,
            Order::ForceShutdown if !ended => Answer::Accepted,
            Order::Restart
            | Order::Shutdown(_)
            | Order::ForceShutdown
            | Order::Scale(_)
            | Order::Recycle(_) => Answer::Refused,
        };
        match order {
            Order::Scale(scale) if running => self.scaled(scale),
            Order::Recycle(worker) if running => self.wear(worker),
            Order::Restart
            | Order::Shutdown(_)
            | Order::ForceShutdown
            | Order::Scale(_)
            | Order::Recycle(_) => {}
        }
        if ended {
            self.story.tell(Scene::OrderAfterTheEnd);
        }
        if order == Order::Restart && running {
            self.remembered += 1;
            if self.roll.as_ref().is_some_and(|roll| roll.way == Way::Back) {
                self.story.tell(Scene::RestartOrderedDuringARollback);
            }
        }
        self.turn.asked = match order {
            Order::Restart | Order::Scale(_) | Order::Recycle(_) => Asked::Nothing,
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
        self.vacant.retain(|slot| *slot < wanted);
        self.unlucky.retain(|slot| *slot < wanted);
        if let Some(roll) = &mut self.roll {
            roll.tried.retain(|slot, _| *slot < wanted);
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
            (Order::Restart | Order::Scale(_) | Order::Recycle(_) | Order::Shutdown(Origin::Request), _) => {
                false
            }
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
