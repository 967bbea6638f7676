//! The guard that ends workers whose master is gone: one that is lost is replaced, at once and then with delays.

use std::time::Duration;

use super::backoff::Backoff;
use super::ids::Moment;
use super::notice::GuardLost;
use super::{Action, Notice, Supervisor};

/// A guard that lived for so long was well.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// What is known of the guard. Until it is lost for the first time there is nothing to know.
#[derive(Debug, Default)]
pub(super) struct GuardWatch {
    losses: Backoff,
    /// When the last one was lost.
    lost: Option<Moment>,
    /// When another is to be started.
    due: Option<Moment>,
}

impl Supervisor {
    pub(super) fn guard_lost(&mut self, how: String) {
        let (initial, max) = (self.policy.backoff_initial, self.policy.backoff_max);
        let watch = &mut self.guard;
        if watch.lost.is_some_and(|lost| self.now - lost > STABLE_AFTER) {
            watch.losses.reset();
        }
        let delay = watch.losses.fail(initial, max);
        watch.lost = Some(self.now);
        watch.due = Some(self.now + delay);
        self.report(Notice::GuardLost(GuardLost { how, delay }));
    }

    /// In every stage: the last worker of a shutdown is guarded too.
    pub(super) fn replace_guard(&mut self) {
        if self.guard.due.is_some_and(|due| due <= self.now) {
            self.guard.due = None;
            self.act(Action::StartGuard);
        }
    }

    pub(super) fn guard_due(&self) -> Option<Moment> {
        self.guard.due
    }
}
