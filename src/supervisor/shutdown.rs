//! The shutdown: graceful, forced, given up. It wins over everything and always ends.

use std::mem;
use std::time::Duration;

use super::event::{Order, Origin};
use super::ids::{Moment, Ticket, WorkerId};
use super::slot::{Kill, Seat, State};
use super::{Action, Ending, Notice, Reply, Supervisor};

/// npm, sudo and `timeout` forward a Ctrl-C that the terminal has sent already: two signals within
/// this time are one order.
const SAME_ORDER: Duration = Duration::from_millis(300);

/// Where the cluster is in its own life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    /// `signalled` is when a signal asked for it, if one did.
    ShuttingDown {
        ending: Ending,
        signalled: Option<Moment>,
    },
    Ended,
}

impl Supervisor {
    pub(super) fn order_shutdown(&mut self, origin: Origin, ticket: Option<Ticket>) {
        let now = self.now;
        match (&self.stage, origin) {
            (Stage::Running, _) => {
                self.begin_shutdown(Ending::Graceful);
                self.reply(ticket, Reply::Accepted);
            }
            // Nothing new began, but a repeated signal is the same order or a stronger one: not counted.
            (Stage::ShuttingDown { .. }, Origin::Signal) => self.reply(ticket, Reply::Refused),
            (Stage::ShuttingDown { .. }, Origin::Request) | (Stage::Ended, _) => {
                self.refuse(Order::Shutdown(origin), ticket);
            }
        }
        let Stage::ShuttingDown { signalled, .. } = &mut self.stage else { return };
        match (origin, *signalled) {
            (Origin::Request, _) => {}
            (Origin::Signal, None) => *signalled = Some(now),
            (Origin::Signal, Some(before)) if now - before < SAME_ORDER => {}
            (Origin::Signal, Some(_)) => self.force(),
        }
    }

    pub(super) fn order_force(&mut self, ticket: Option<Ticket>) {
        match self.stage {
            Stage::Running => self.begin_shutdown(Ending::Forced),
            Stage::ShuttingDown { .. } => {}
            Stage::Ended => return self.refuse(Order::ForceShutdown, ticket),
        }
        self.reply(ticket, Reply::Accepted);
        self.force();
    }

    /// Refuses newcomers and tells every worker to go, also one that is still booting.
    pub(super) fn begin_shutdown(&mut self, ending: Ending) {
        self.act(Action::CloseListeners);
        self.drop_restarts("shutdown");
        // Nobody watches for stability any more: its deadline would pass and wake the loop for ever.
        self.all_ready_since = None;
        for slot in 0..self.slots.len() {
            if let Seat::Taken(worker) = mem::replace(&mut self.slots[slot].seat, Seat::Closed) {
                self.dismiss(slot, worker);
            }
        }
        self.hurry_hung();
        if ending == Ending::Graceful {
            let workers = self.slots.iter().map(|slot| slot.leaving.len()).sum();
            self.report(Notice::ShutdownBegan { workers, limit: self.policy.disconnect_timeout });
        }
        self.stage = Stage::ShuttingDown { ending, signalled: None };
    }

    /// Kills whoever is left.
    fn force(&mut self) {
        if let Stage::ShuttingDown { ending: ending @ Ending::Graceful, .. } = &mut self.stage {
            *ending = Ending::Forced;
        }
        let workers = self.slots.iter().flat_map(|slot| &slot.leaving);
        let left: Vec<WorkerId> = workers
            .filter(|w| matches!(w.state, State::Disconnecting { .. } | State::Hung { .. }))
            .map(|w| w.id)
            .collect();
        self.report(Notice::ForceBegan { workers: left.len() });
        for id in left {
            self.kill(id, Kill::Forced);
        }
    }

    /// Ends the loop once everybody is reaped, or is beyond reach.
    pub(super) fn finish_when_empty(&mut self) {
        let Stage::ShuttingDown { ending, .. } = &self.stage else { return };
        let mut left = self.slots.iter().flat_map(|slot| &slot.leaving);
        let mut stuck = left.clone().filter(|worker| matches!(worker.state, State::Unkillable { .. }));
        let ending = match (stuck.next(), ending) {
            // Somebody is left behind: that is no graceful end.
            (Some(_), Ending::Graceful) => Ending::Forced,
            (_, ending) => ending.clone(),
        };
        if left.all(|worker| matches!(worker.state, State::Unkillable { .. })) {
            self.stage = Stage::Ended;
            self.act(Action::Finish(ending));
        }
    }
}
