//! The watchdog: a ready worker that says nothing for too long is hung.

use std::time::Duration;

use super::ids::{Moment, WorkerId};
use super::rollback::Culprit;
use super::slot::{Cause, Place, Pulse, State, Worker};
use super::{Action, Notice, Supervisor};

/// How long a hung worker may take to die of SIGABRT, which a large core needs.
pub(super) const CORE_GRACE: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) fn said_alive(&mut self, id: WorkerId) {
        let now = self.now;
        if let Some(worker) = self.worker_mut(id) {
            worker.hear(now);
        }
    }

    pub(super) fn channel_paused(&mut self, id: WorkerId) {
        if let Some(worker) = self.worker_mut(id) {
            worker.pulse = Pulse::Paused;
        }
    }

    /// What it has said meanwhile is on its way.
    pub(super) fn channel_resumed(&mut self, id: WorkerId) {
        let now = self.now;
        if let Some(worker) = self.worker_mut(id) {
            worker.pulse = Pulse::Heard(now);
        }
    }

    /// It was heard out, and has said nothing for longer than the limit, by so much.
    pub(super) fn was_silent(&mut self, id: WorkerId, beyond: Duration) {
        let Some(limit) = self.policy.watchdog else { return };
        // We stood still ourselves, and perhaps the whole machine did: it has a chance to speak first.
        if beyond > limit / 2 { self.said_alive(id) } else { self.hung(id, limit) }
    }

    /// SIGABRT first, so that there is something to learn from. A replacement that hangs ends its restart.
    fn hung(&mut self, id: WorkerId, limit: Duration) {
        let Some((slot, place)) = self.find(id) else { return };
        let kill_at = self.now + CORE_GRACE;
        let Some(worker) = self.worker_mut(id) else { return };
        worker.state = State::Hung { kill_at };
        self.report(Notice::Hung { worker: id, slot, limit, grace: CORE_GRACE });
        self.act(Action::Abort { worker: id });
        if place == Place::Successor {
            let reason = format!("worker {id} said nothing for {} ms", limit.as_millis());
            let failed = self.slots[slot].succession.put_off(self.now);
            self.slots[slot].leaving.extend(failed);
            let exit = self.last_exit_of(slot, id, Cause::Hung);
            self.successor_failed(slot, reason, Culprit::Dying(exit));
        }
    }

    /// In a shutdown a hung worker has no more time than the others.
    pub(super) fn hurry_hung(&mut self) {
        let due = self.now + self.policy.disconnect_timeout;
        for worker in self.slots.iter_mut().flat_map(|slot| &mut slot.leaving) {
            if let State::Hung { kill_at } = &mut worker.state {
                *kill_at = due.min(*kill_at);
            }
        }
    }
}

impl Worker {
    /// A word from it, which in a pause came by another way than its channel.
    pub(super) fn hear(&mut self, now: Moment) {
        match self.pulse {
            Pulse::Heard(_) => self.pulse = Pulse::Heard(now),
            Pulse::Paused => {}
        }
    }

    /// When it will have been silent for too long; `None` for those that are not watched.
    pub(super) fn silent_until(&self, limit: Duration) -> Option<Moment> {
        match (&self.state, self.pulse) {
            (State::Ready { .. }, Pulse::Heard(at)) => Some(at + limit),
            (State::Ready { .. }, Pulse::Paused)
            | (
                State::Spawning
                | State::Starting
                | State::Hung { .. }
                | State::Disconnecting { .. }
                | State::Killed { .. }
                | State::Unkillable { .. },
                Pulse::Heard(_) | Pulse::Paused,
            ) => None,
        }
    }
}
