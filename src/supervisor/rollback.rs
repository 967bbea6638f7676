//! The way back after a refused release: the generation that serves takes its seats again, replacement first,
//! so that generations are never left mixed.

use std::mem;

use super::event::{FailureKind, SpawnFailure};
use super::ids::{Generation, WorkerId};
use super::notice::{Respawn, Rollback};
use super::restart::{Phase, Rolling};
use super::slot::{Cause, LastExit, Seat, Slot, Worker};
use super::succession::Succession;
use super::{Notice, Supervisor};

/// Why a restart is aborted, and whose fault it is.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) culprit: Culprit,
}

/// The worker whose failure aborts a restart.
#[derive(Clone, Debug)]
pub(super) enum Culprit {
    /// Killed and not reaped yet: its exit status and its last lines are still to come.
    Dying(LastExit),
    Ended(LastExit),
    /// No worker of the release: one that it was to replace cannot be told to leave.
    Nobody,
}

impl Culprit {
    pub(super) fn last_exit(&self) -> Option<&LastExit> {
        match self {
            Culprit::Dying(exit) | Culprit::Ended(exit) => Some(exit),
            Culprit::Nobody => None,
        }
    }
}

impl Supervisor {
    /// A worker of the new generation failed: its replacements on trial go, and those that have taken a seat
    /// give it back.
    pub(super) fn refuse_release(&mut self, reason: String, culprit: Culprit) {
        let Some(rolling) = &mut self.rolling else { return };
        let (id, generation) = (rolling.id, rolling.generation);
        rolling.phase = Phase::RollingBack(Refusal { reason: reason.clone(), culprit });
        self.dismiss_successors();
        let (back_to, replaced) = (self.generation, self.seats_of(generation));
        for slot in &mut self.slots {
            slot.refuse(generation, back_to);
        }
        if replaced > 0 {
            let total = self.policy.workers;
            self.report(Notice::Rollback(Rollback::Begins { id, replaced, total, reason, back_to }));
        }
    }

    pub(super) fn dismiss_successors(&mut self) {
        for slot in 0..self.slots.len() {
            if let Some(worker) = self.slots[slot].succession.end() {
                self.dismiss(slot, worker);
            }
        }
    }

    /// Whether a worker of this generation is one of those that the restart brings, or takes back: its failure is the
    /// release's, not a crash in service.
    pub(super) fn is_on_probation(&self, generation: Generation) -> bool {
        self.rolling.as_ref().is_some_and(|rolling| match rolling.phase {
            Phase::Canary | Phase::Rest => rolling.generation == generation,
            Phase::RollingBack(_) => self.generation != generation,
        })
    }

    /// The generation that a restart brings, for as long as it is not refused.
    pub(super) fn rolls_out(&self) -> Option<Generation> {
        let rolling = self.rolling.as_ref().filter(|rolling| rolling.phase.refusal().is_none())?;
        Some(rolling.generation)
    }

    /// Whether a worker of this generation sits in a seat that is to be taken back.
    pub(super) fn is_taken_back(&self, generation: Generation) -> bool {
        let is_back = |rolling: &Rolling| rolling.phase.refusal().is_some();
        self.generation != generation && self.rolling.as_ref().is_some_and(is_back)
    }

    /// A worker of the new generation is lost from a seat that it had taken already. Returns who sat there.
    pub(super) fn lost_on_probation(
        &mut self,
        slot: usize,
        exit: LastExit,
        reason: String,
    ) -> Option<Worker> {
        let worker = self.vacate_refused(slot);
        match self.rolling.as_ref().map(|rolling| &rolling.phase) {
            Some(Phase::Canary | Phase::Rest) => self.refuse_release(reason, Culprit::Ended(exit)),
            Some(Phase::RollingBack(_)) => {
                self.report(Notice::Rollback(Rollback::LosesWorker { slot, reason }));
            }
            None => {}
        }
        worker
    }

    /// Leaves a seat to the rollback. Returns who sat there.
    pub(super) fn vacate_refused(&mut self, slot: usize) -> Option<Worker> {
        let last = self.slots[slot].occupant().map(|worker| worker.id);
        let vacant = Seat::Vacant { last, generation: self.generation };
        match mem::replace(&mut self.slots[slot].seat, vacant) {
            Seat::Taken(worker) => Some(worker),
            Seat::Waiting { .. } | Seat::Vacant { .. } | Seat::Closed => None,
        }
    }

    /// The slot's last exit, if it was this worker's; else what is known of it.
    pub(super) fn last_exit_of(&self, slot: usize, id: WorkerId, cause: Cause) -> LastExit {
        let told = self.slots[slot].last_exit.clone().filter(|exit| exit.worker == id);
        let (status, reason, stderr) = (None, None, Vec::new());
        told.unwrap_or(LastExit { worker: id, cause, status, reason, stderr })
    }

    /// A replacement was reaped, or its time to become ready is over: `culprit` says how.
    pub(super) fn successor_failed(&mut self, slot: usize, reason: String, culprit: Culprit) {
        match self.rolling.as_ref().map(|rolling| &rolling.phase) {
            Some(Phase::Canary | Phase::Rest) => {
                self.slots[slot].succession = Succession::Nobody;
                self.refuse_release(reason, culprit);
            }
            Some(Phase::RollingBack(_)) => {
                let next = self.try_later(slot);
                self.report(Notice::Rollback(Rollback::Falters { slot, reason, next }));
            }
            None => self.recycle_failed(slot, reason),
        }
    }

    /// There is no process for a replacement. What passes is waited out, for as long as a replacement may take to
    /// become ready; on the way back, whatever it is.
    pub(super) fn successor_not_spawned(&mut self, slot: usize, id: WorkerId, failure: &SpawnFailure) {
        let limit = self.policy.ready_timeout;
        let over = self.now - self.slots[slot].succession.tries(self.now).since >= limit;
        let (reason, exit) = (failure.reason.clone(), self.last_exit_of(slot, id, Cause::SpawnFailed));
        match (self.rolling.as_ref().map(|rolling| &rolling.phase), failure.kind) {
            (Some(Phase::Canary | Phase::Rest), FailureKind::Passing) if !over => {
                let next = self.try_later(slot);
                self.report(Notice::SpawnFailed { worker: id, slot, reason, next });
            }
            (Some(Phase::RollingBack(_)), _) => {
                let next = self.try_later(slot);
                self.report(Notice::SpawnFailed { worker: id, slot, reason, next });
            }
            (Some(Phase::Canary | Phase::Rest), FailureKind::Passing | FailureKind::Lasting) | (None, _) => {
                let reason = format!("worker {id} could not be started: {reason}");
                self.successor_failed(slot, reason, Culprit::Ended(exit));
            }
        }
    }

    /// Puts off the next try at a replacement; a release has its last one when `readyTimeout` is over.
    pub(super) fn try_later(&mut self, slot: usize) -> Respawn {
        let (initial, max) = (self.policy.backoff_initial, self.policy.backoff_max);
        let mut tries = self.slots[slot].succession.tries(self.now);
        let after = tries.fail(initial, max);
        let last = tries.since + self.policy.ready_timeout;
        let at = if last > self.now { (self.now + after).min(last) } else { self.now + after };
        self.slots[slot].succession = Succession::Later { at, tries };
        Respawn { after: at - self.now }
    }

    /// The worker that was killed for the release's failure is reaped, or given up on.
    pub(super) fn culprit_ended(&mut self, id: WorkerId, exit: LastExit) {
        let Some(rolling) = &mut self.rolling else { return };
        if let Phase::RollingBack(Refusal { culprit, .. }) = &mut rolling.phase
            && matches!(culprit, Culprit::Dying(known) if known.worker == id)
        {
            *culprit = Culprit::Ended(exit);
        }
    }

    /// Ends a rollback that has come to its end, or that cannot go on while a new restart waits for it.
    pub(super) fn end_rollback_when_done(&mut self) {
        let Some(refusal) = self.rolling.as_ref().and_then(|rolling| rolling.phase.refusal()) else { return };
        if matches!(refusal.culprit, Culprit::Dying(_)) {
            return;
        }
        if self.wanted().iter().all(|slot| self.is_rolled_back(slot)) {
            let refusal = refusal.clone();
            self.end_aborted(refusal.reason, Some(refusal.culprit));
        } else if self.remembered.is_some() && self.slots.iter().any(|slot| self.is_stuck(slot)) {
            let refusal = refusal.clone();
            let reason = format!("{}; the rollback failed and gave way to the next restart", refusal.reason);
            self.give_way();
            self.end_aborted(reason, Some(refusal.culprit));
        }
    }

    /// A seat that keeps losing workers of the generation that serves is not the release's doing, and no reason to
    /// hold back the verdict.
    fn is_rolled_back(&self, slot: &Slot) -> bool {
        let flaps = slot.failures.is_series() || self.budget.left() == 0;
        let settled = match &slot.seat {
            Seat::Taken(worker) => worker.generation == self.generation && (worker.is_ready() || flaps),
            Seat::Waiting { .. } => flaps,
            Seat::Vacant { .. } => false,
            Seat::Closed => true,
        };
        settled && slot.succession == Succession::Nobody
    }

    /// Nothing has taken the seat back for as long as a worker may take to become ready.
    fn is_stuck(&self, slot: &Slot) -> bool {
        match &slot.succession {
            Succession::Later { tries, .. } => self.now - tries.since >= self.policy.ready_timeout,
            Succession::Nobody | Succession::Trial { .. } => false,
        }
    }

    /// Leaves the seats to the next restart, and the empty ones to crash replacement.
    fn give_way(&mut self) {
        self.dismiss_successors();
        let (now, generation) = (self.now, self.generation);
        for slot in &mut self.slots {
            slot.refill_vacant(now, generation);
        }
    }
}
