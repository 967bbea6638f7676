//! Who takes a seat next, while somebody else may still sit in it.

use std::mem;
use std::time::Duration;

use super::backoff::Backoff;
use super::ids::Moment;
use super::slot::Worker;

/// The next holder of a seat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Succession {
    #[default]
    Nobody,
    /// On trial, beside whoever sits there.
    Trial { worker: Worker, tries: Tries },
    /// The last try failed in a way that may pass; the next one is made at `at`.
    Later { at: Moment, tries: Tries },
}

/// The tries at one replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tries {
    /// When the first was made.
    pub(super) since: Moment,
    failures: Backoff,
}

impl Tries {
    fn new(now: Moment) -> Self {
        Tries { since: now, failures: Backoff::default() }
    }

    /// One more failure: how long to wait before the next try.
    pub(super) fn fail(&mut self, initial: Duration, max: Duration) -> Duration {
        self.failures.fail(initial, max).max(initial)
    }
}

impl Succession {
    pub(super) fn worker(&self) -> Option<&Worker> {
        match self {
            Succession::Trial { worker, .. } => Some(worker),
            Succession::Nobody | Succession::Later { .. } => None,
        }
    }

    pub(super) fn worker_mut(&mut self) -> Option<&mut Worker> {
        match self {
            Succession::Trial { worker, .. } => Some(worker),
            Succession::Nobody | Succession::Later { .. } => None,
        }
    }

    /// From now on nobody comes; returns who was on trial.
    pub(super) fn end(&mut self) -> Option<Worker> {
        match mem::take(self) {
            Succession::Trial { worker, .. } => Some(worker),
            Succession::Nobody | Succession::Later { .. } => None,
        }
    }

    /// The one on trial is of no use, and another try may follow; returns who was on trial.
    pub(super) fn put_off(&mut self, now: Moment) -> Option<Worker> {
        let tries = self.tries(now);
        match mem::replace(self, Succession::Later { at: now, tries }) {
            Succession::Trial { worker, .. } => Some(worker),
            Succession::Nobody | Succession::Later { .. } => None,
        }
    }

    /// The tries so far, or the first one that begins now.
    pub(super) fn tries(&self, now: Moment) -> Tries {
        match self {
            Succession::Nobody => Tries::new(now),
            Succession::Trial { tries, .. } | Succession::Later { tries, .. } => *tries,
        }
    }

    /// When the next try is due.
    pub(super) fn due(&self) -> Option<Moment> {
        match self {
            Succession::Later { at, .. } => Some(*at),
            Succession::Nobody | Succession::Trial { .. } => None,
        }
    }
}
