//! Time-outs of workers. Nobody is judged before it is heard out: a loop that is late, for want of processor time or
//! because many speak at once, has not read yet what was said in time.

use super::ids::{Moment, WorkerId};
use super::rollback::Culprit;
use super::slot::{Cause, Heard, Kill, Patience, Place, Slot, State, Worker};
use super::{Action, Notice, Notification, Supervisor};

impl Supervisor {
    /// Acts on every worker whose time is over.
    pub(super) fn expire(&mut self) {
        let workers = self.slots.iter().flat_map(Slot::workers);
        let expired: Vec<WorkerId> =
            workers.filter(|worker| self.is_due(worker)).map(|worker| worker.id).collect();
        for id in expired {
            self.expire_worker(id);
        }
    }

    fn is_due(&self, worker: &Worker) -> bool {
        self.time_of(worker).is_some_and(|due| due <= self.now)
    }

    /// The next moment at which time alone changes anything about this worker.
    fn time_of(&self, worker: &Worker) -> Option<Moment> {
        self.change_of(worker).into_iter().chain(self.silence_of(worker)).min()
    }

    /// The same if it goes on saying that it is alive.
    fn change_of(&self, worker: &Worker) -> Option<Moment> {
        let trial = self.canary_due_of(worker);
        worker.deadline(&self.policy, &self.expectation).into_iter().chain(trial).min()
    }

    fn silence_of(&self, worker: &Worker) -> Option<Moment> {
        worker.silent_until(self.policy.watchdog?)
    }

    /// When the time of the first worker is over that is not being heard out.
    pub(super) fn lives_due(&self) -> Option<Moment> {
        self.unheard().filter_map(|worker| self.change_of(worker)).min()
    }

    /// When the first of these will have been silent for too long.
    pub(super) fn silence_due(&self) -> Option<Moment> {
        self.policy.watchdog?;
        self.unheard().filter_map(|worker| self.silence_of(worker)).min()
    }

    /// The same for one worker.
    pub(super) fn due_of(&self, id: WorkerId) -> Option<Moment> {
        let (slot, place) = self.find(id)?;
        let worker = self.slots[slot].get(place).filter(|worker| !worker.heard.is_coming())?;
        self.time_of(worker)
    }

    fn unheard(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().flat_map(Slot::workers).filter(|worker| !worker.heard.is_coming())
    }

    /// All that the worker had said when that was ordered has been told.
    pub(super) fn heard_out(&mut self, id: WorkerId) {
        if let Some(worker) = self.worker_mut(id) {
            worker.heard.arrives();
        }
    }

    fn expire_worker(&mut self, id: WorkerId) {
        let Some((slot, place)) = self.find(id) else { return };
        let Some(worker) = self.slots[slot].get(place) else { return };
        // Somebody else's time-out may just have given it another one (an abort dismisses replacements).
        let Some(due) = self.time_of(worker).filter(|due| *due <= self.now) else { return };
        match worker.heard {
            Heard::UpTo(heard) if due <= heard => self.judge(slot, place, heard),
            Heard::UpTo(_) => self.hear_out(id),
            Heard::Coming(_) => {}
        }
    }

    fn hear_out(&mut self, id: WorkerId) {
        let now = self.now;
        if let Some(worker) = self.worker_mut(id) {
            worker.heard = Heard::Coming(now);
            self.act(Action::HearOut { worker: id });
        }
    }

    /// Its time was over at `heard`, and nothing that it has said changes that.
    fn judge(&mut self, slot: usize, place: Place, heard: Moment) {
        let now = self.now;
        let Some(worker) = self.slots[slot].get(place).cloned() else { return };
        let id = worker.id;
        match worker.state {
            State::Starting => match worker.patience(&self.policy, &self.expectation) {
                Patience::CountsAsReady(_) => self.become_ready(id),
                Patience::TimesOut(_) => self.ready_timed_out(slot, place, id),
            },
            State::Disconnecting { due, signal_at: Some(_), .. } if now < worker.at_least(due) => {
                self.signal_after_all(id);
            }
            State::Disconnecting { .. } => {
                let limit = self.policy.disconnect_timeout;
                self.report(Notice::DisconnectTimedOut { worker: id, slot, limit });
                self.kill(id, Kill::DisconnectTimeout);
            }
            State::Hung { .. } => self.kill(id, Kill::Hung),
            State::Killed { why, .. } => {
                // It is stuck in the kernel.
                self.report(Notice::Unkillable { worker: id, slot });
                self.beyond_reach(slot, place, id, why);
            }
            State::Ready { .. } => {
                if self.canary_due_of(&worker).is_some_and(|due| due <= heard) {
                    self.end_trial();
                }
                if let Some(due) = self.silence_of(&worker).filter(|due| *due <= heard) {
                    self.was_silent(id, heard - due);
                }
            }
            State::Spawning | State::Unkillable { .. } => {}
        }
    }

    fn ready_timed_out(&mut self, slot: usize, place: Place, id: WorkerId) {
        let limit = self.policy.ready_timeout;
        self.report(Notice::ReadyTimedOut { worker: id, slot, limit });
        self.kill(id, Kill::ReadyTimeout);
        if place == Place::Successor {
            let failed = self.slots[slot].succession.put_off(self.now);
            self.slots[slot].leaving.extend(failed);
            let exit = self.last_exit_of(slot, id, Cause::ReadyTimeout);
            let reason = format!("worker {id} was not ready within {} ms", limit.as_millis());
            self.successor_failed(slot, reason, Culprit::Dying(exit));
        }
    }

    /// It was told while it booted, by its channel alone, and has not said that it reads that.
    fn signal_after_all(&mut self, id: WorkerId) {
        if let Some(State::Disconnecting { signal_at, .. }) = self.worker_mut(id).map(|w| &mut w.state) {
            *signal_at = None;
            self.act(Action::Disconnect { worker: id, by: Notification::Signal });
        }
    }
}
