//! The world's own books: what an onlooker knows from the facts told and the actions ordered,
//! without a look inside the core. The invariants are checked against these.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::rolls::Roll;
use super::story::Story;
use crate::config::Ready;
use crate::supervisor::{Ending, Generation, Moment, Order, Policy, WorkerId};

/// A worker that was ordered and is not reaped yet.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: WorkerId,
    pub(super) slot: usize,
    pub(super) generation: Generation,
    /// When it was ordered; once it has begun, when that was.
    pub(super) spawned: Moment,
    pub(super) process: Existence,
    pub(super) said_hello: bool,
    /// It is to be replaced.
    pub(super) worn: bool,
    /// Its channel is not read.
    pub(super) paused: bool,
    /// When `stopSignal` is due after the line, unless it says hello.
    pub(super) signal_at: Option<Moment>,
    /// Until when it asked to be waited for, in the state that it is in.
    pub(super) asked_until: Option<Moment>,
    /// All that it said by then is known.
    pub(super) heard: Moment,
    pub(super) telling: Telling,
    /// Since when it is being heard out.
    pub(super) being_heard: Option<Moment>,
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

/// Whether there is a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existence {
    Ordered,
    Begun,
}

/// How far it has been told to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    Nothing,
    Ordered,
    Done,
    /// Signals to it are refused.
    OutOfReach,
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

/// Somebody who gave an order.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) order: Order,
    pub(super) expects: Answer,
    pub(super) answer: Option<Answer>,
    pub(super) verdicts: usize,
    /// It waits for nothing any more.
    pub(super) has_left: bool,
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
    /// Slots that go and have something to serve first, and since when.
    pub(super) draining: BTreeMap<usize, Moment>,
    /// Where new connections go.
    pub(super) steered: Vec<usize>,
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
    /// Since another was started.
    pub(super) lost_guards: u32,
    pub(super) newest_generation: Generation,
    pub(super) running_generation: Generation,
    /// The restart that ended last failed for an old worker that cannot be told to leave.
    pub(super) nobody_failed: bool,
    /// Generations of which a worker has said ready.
    pub(super) say_ready: BTreeSet<Generation>,
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
    /// This slot's queue was seen empty.
    pub(super) drained: Option<usize>,
}

/// The order that the turn began with, by its effect on the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    Nothing,
    Reopen,
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

impl Entry {
    pub(super) fn has_begun(&self) -> bool {
        self.process == Existence::Begun
    }
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
            draining: BTreeMap::new(),
            steered: Vec::new(),
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
            lost_guards: 0,
            newest_generation: Generation::FIRST,
            running_generation: Generation::FIRST,
            nobody_failed: false,
            say_ready: BTreeSet::new(),
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
            Ready::Auto => {
                let expected = self.is_expected_to_say_ready(entry.generation);
                !entry.said_hello && !expected && entry.asked_until.is_none()
            }
        }
    }

    /// When a booting worker's patience ends, which begins with its process.
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
