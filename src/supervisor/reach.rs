//! Workers that cannot be signalled: a master without the right to (workers of another user, and no `CAP_KILL`)
//! cannot end them, and says so instead of taking them for gone.

use super::ids::WorkerId;
use super::notice::CannotSignal;
use super::rollback::Culprit;
use super::slot::{Kill, Place, Slot, State, Told, Worker};
use super::{ExitStatus, Notice, Supervisor};

impl Supervisor {
    /// It was told to leave, as far as anybody can know.
    pub(super) fn told(&mut self, id: WorkerId) {
        self.note_told(id, Told::Yes);
    }

    /// A signal that it should have got was refused. One that is killed is beyond reach; one that was to make way for a
    /// replacement goes on, and so the restart has failed.
    pub(super) fn signal_denied(&mut self, id: WorkerId, cause: &str) {
        let Some((slot, place)) = self.find(id) else { return };
        let Some(worker) = self.slots[slot].get(place).cloned() else { return };
        match worker.state {
            State::Disconnecting { told: Told::Ordered | Told::Yes, .. } => {
                self.note_told(id, Told::Denied);
                self.report_denied(id, slot, cause);
                let older = |generation| worker.generation < generation;
                if self.rolls_out().is_some_and(older) {
                    self.refuse_release(format!("worker {id} cannot be signalled: {cause}"), Culprit::Nobody);
                }
            }
            State::Killed { why, .. } => {
                self.report_denied(id, slot, cause);
                self.beyond_reach(slot, place, id, why);
            }
            State::Hung { .. } => {
                self.report_denied(id, slot, cause);
            }
            State::Disconnecting { told: Told::Denied, .. }
            | State::Spawning
            | State::Starting
            | State::Ready { .. }
            | State::Unkillable { .. } => {}
        }
    }

    fn report_denied(&mut self, worker: WorkerId, slot: usize, cause: &str) {
        let cause = cause.to_owned();
        self.report(Notice::CannotSignal(CannotSignal { worker, slot, cause }));
    }

    /// Nothing ends it: it is waited for no longer, and its seat goes to another.
    pub(super) fn beyond_reach(&mut self, slot: usize, place: Place, id: WorkerId, why: Kill) {
        let (now, min_uptime) = (self.now, self.policy.min_uptime);
        let Some(worker) = self.worker_mut(id) else { return };
        worker.state = State::Unkillable { why };
        let (generation, cause) = (worker.generation, worker.cause(now, min_uptime));
        self.vacated(slot);
        if place == Place::Seat {
            let stuck = self.lost(slot, id, generation, cause, ExitStatus::Unknown);
            self.slots[slot].leaving.extend(stuck);
        }
        let exit = self.last_exit_of(slot, id, cause);
        self.culprit_ended(id, exit);
    }

    /// Whether an older worker is still to be told to leave.
    pub(super) fn is_telling(&self, before: super::Generation) -> bool {
        let untold =
            |worker: &Worker| matches!(worker.state, State::Disconnecting { told: Told::Ordered, .. });
        let leaving = self.slots.iter().flat_map(|slot: &Slot| &slot.leaving);
        leaving.filter(|worker| worker.generation < before).any(untold)
    }

    fn note_told(&mut self, id: WorkerId, word: Told) {
        if let Some(State::Disconnecting { told, .. }) = self.worker_mut(id).map(|worker| &mut worker.state) {
            *told = word;
        }
    }
}
