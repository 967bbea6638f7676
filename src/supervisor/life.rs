//! A worker's life: what it says, what its time-outs mean, how it is told to go.

use std::time::Duration;

use super::ids::{Generation, WorkerId};
use super::rollback::Culprit;
use super::slot::{Cause, Kill, Place, Slot, State, Told, Voice, Worker};
use super::{Action, Boot, ExitStatus, KILL_GRACE, LastExit, Moment, Notice, Supervisor};

/// How far beyond its time-out a worker may ask to be waited for.
pub(super) const MOST_PATIENCE: Duration = Duration::from_secs(3600);

impl Supervisor {
    pub(super) fn said_hello(&mut self, worker: WorkerId) {
        if let Some(worker) = self.worker_mut(worker) {
            worker.voice = Voice::SaidHello;
            if let State::Disconnecting { signal_at, .. } = &mut worker.state {
                *signal_at = None;
            }
        }
    }

    pub(super) fn said_ready(&mut self, id: WorkerId) {
        if let Some(generation) = self.worker_mut(id).map(|worker| worker.generation) {
            let workers = || self.slots.iter().flat_map(Slot::workers);
            self.expectation.learn(generation, |other| workers().any(|worker| worker.generation == other));
        }
        self.become_ready(id);
    }

    /// It takes no more work and ends soon: its seat is filled at once, and no crash is counted. One that
    /// does so again and again, before it is of use, waits as quick failures do.
    pub(super) fn said_leaving(&mut self, id: WorkerId) {
        let Some((slot, place)) = self.find(id) else { return };
        let (now, min_uptime) = (self.now, self.policy.min_uptime);
        let Some(worker) = self.worker_mut(id).filter(|w| w.is_ready() || w.is_starting()) else { return };
        let (cause, generation) = (worker.cause(now, min_uptime), worker.generation);
        match place {
            Place::Leaving(_) => {}
            Place::Successor => {
                let leaving = self.slots[slot].succession.put_off(now);
                self.let_go(slot, leaving);
                let exit = self.last_exit_of(slot, id, Cause::Stopped);
                let reason = format!("worker {id} left by itself before it took over");
                self.successor_failed(slot, reason, Culprit::Dying(exit));
            }
            Place::Seat => {
                let leaving = if self.is_taken_back(generation) {
                    self.vacate_refused(slot)
                } else {
                    self.vacate_planned(slot, id, cause)
                };
                self.let_go(slot, leaving);
            }
        }
    }

    /// Puts its time-out off. Each word counts from now, and all of them together to a limit: a shutdown ends.
    pub(super) fn needs_time(&mut self, id: WorkerId, span: Duration) {
        let (asked, ready_timeout) = (self.now + span, self.policy.ready_timeout);
        let Some(worker) = self.worker_mut(id) else { return };
        let due = match worker.state {
            State::Starting => worker.started + ready_timeout,
            State::Disconnecting { due, .. } => due,
            State::Spawning
            | State::Ready { .. }
            | State::Hung { .. }
            | State::Killed { .. }
            | State::Unkillable { .. } => {
                return;
            }
        };
        let asked = asked.min(due + MOST_PATIENCE);
        worker.asked_until = Some(worker.asked_until.map_or(asked, |before| before.max(asked)));
    }

    /// It has begun to leave: from now on it only waits to be reaped, for as long as one that was told.
    fn let_go(&mut self, slot: usize, worker: Option<Worker>) {
        let due = self.now + self.policy.disconnect_timeout;
        let state = State::Disconnecting { due, signal_at: None, told: Told::Yes };
        let leaving = worker.map(|worker| Worker { state, asked_until: None, ..worker });
        self.slots[slot].leaving.extend(leaving);
    }

    pub(super) fn said_failed(&mut self, id: WorkerId, reason: String) {
        if let Some((slot, _)) = self.find(id) {
            self.slots[slot].last_words = Some((id, reason));
        }
    }

    pub(super) fn become_ready(&mut self, id: WorkerId) {
        let now = self.now;
        let Some((slot, place)) = self.find(id) else { return };
        let Some(worker) = self.worker_mut(id).filter(|worker| worker.is_starting()) else { return };
        worker.state = State::Ready { since: now };
        worker.hear(now);
        let after = now - worker.started;
        self.report(Notice::WorkerReady { worker: id, slot, after });
        let is_on_trial =
            self.slots[slot].get(place).is_some_and(|worker| self.canary_due_of(worker).is_some());
        if is_on_trial && place == Place::Successor {
            let canary = self.policy.canary;
            self.report(Notice::CanaryReady { worker: id, canary });
        }
    }

    pub(super) fn kill(&mut self, id: WorkerId, why: Kill) {
        let due = self.now + KILL_GRACE;
        if let Some(worker) = self.worker_mut(id) {
            worker.state = State::Killed { why, due };
            self.act(Action::Kill { worker: id });
        }
    }

    /// Tells a worker to leave; from now on it only waits to be reaped.
    pub(super) fn dismiss(&mut self, slot: usize, mut worker: Worker) {
        match worker.state {
            State::Spawning | State::Starting | State::Ready { .. } => {
                let (by, signal_at) = worker.notification(self.now);
                let due = self.now + self.policy.disconnect_timeout;
                worker.state = State::Disconnecting { due, signal_at, told: Told::Ordered };
                worker.asked_until = None;
                self.act(Action::Disconnect { worker: worker.id, by });
            }
            State::Hung { .. }
            | State::Disconnecting { .. }
            | State::Killed { .. }
            | State::Unkillable { .. } => {}
        }
        self.slots[slot].leaving.push(worker);
    }

    /// A worker was reaped: the seat, the successor or a leaving one is gone.
    pub(super) fn exited(&mut self, id: WorkerId, status: ExitStatus, stderr: Vec<String>) {
        if let Some((slot, place)) = self.find(id) {
            self.ended(id, slot, place, status, stderr);
            self.slot_of.remove(&id);
        }
    }

    fn ended(&mut self, id: WorkerId, index: usize, place: Place, status: ExitStatus, stderr: Vec<String>) {
        let (now, min_uptime) = (self.now, self.policy.min_uptime);
        let slot = &mut self.slots[index];
        let Some(worker) = slot.get_mut(place).cloned() else { return };
        let cause = worker.cause(now, min_uptime);
        let reason = slot.take_last_words(id);
        let exit = LastExit { worker: id, cause, status: Some(status), reason, stderr };
        slot.last_exit = Some(exit.clone());
        match place {
            Place::Leaving(at) => {
                slot.leaving.swap_remove(at);
                self.report(Notice::Stopped { worker: id, slot: index, status });
                self.vacated(index);
                self.culprit_ended(id, exit);
            }
            Place::Seat => {
                self.lost(index, id, worker.generation, cause, status);
            }
            Place::Successor => {
                let reason = format!("worker {id} {cause}: {status}{}", exit.in_its_words());
                self.successor_failed(index, reason, Culprit::Ended(exit));
            }
        }
    }

    /// A seat has lost its worker, and nobody asked for it. Returns who sat there.
    pub(super) fn lost(
        &mut self,
        slot: usize,
        id: WorkerId,
        generation: Generation,
        cause: Cause,
        status: ExitStatus,
    ) -> Option<Worker> {
        if self.is_on_probation(generation) {
            let exit = self.last_exit_of(slot, id, cause);
            let reason = format!("worker {id} {cause}: {status}{}", exit.in_its_words());
            self.lost_on_probation(slot, exit, reason)
        } else {
            self.crashed(slot, id, cause, status)
        }
    }

    /// All workers ready for `stableAfter` fills the fork budget again.
    pub(super) fn watch_stability(&mut self) {
        let all_ready = self.wanted().iter().all(|slot| slot.occupant().is_some_and(Worker::is_ready));
        if !all_ready {
            self.all_ready_since = None;
            return;
        }
        let since = *self.all_ready_since.get_or_insert(self.now);
        if self.now - since >= self.policy.stable_after {
            self.budget.refill();
        }
        if self.boot != Boot::AllReady {
            self.boot = Boot::AllReady;
            self.report(Notice::AllReady { workers: self.policy.workers });
        }
    }

    pub(super) fn stable_due(&self) -> Option<Moment> {
        let since = self.all_ready_since.filter(|_| !self.budget.is_full())?;
        Some(since + self.policy.stable_after)
    }
}
