//! The rolling restart: replacement first, a canary before the rest, and at the first failure the way back.

use std::mem;

use super::event::Order;
use super::ids::{Generation, Moment, RestartId, Ticket};
use super::rollback::{Culprit, Refusal};
use super::slot::{Seat, Slot, State, Worker};
use super::succession::Succession;
use super::{
    Action, Boot, Notice, Reply, RestartPhase, RestartState, RestartView, Stage, Supervisor, Verdict,
};

/// How many older generations may still be draining when a remembered restart begins: with more,
/// each restart under a hung worker would leave one more generation behind.
const DRAINING_GENERATIONS: usize = 1;

/// A restart under way.
#[derive(Debug)]
pub(super) struct Rolling {
    pub(super) id: RestartId,
    pub(super) generation: Generation,
    pub(super) phase: Phase,
    tickets: Vec<Ticket>,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// One replacement is on trial.
    Canary,
    /// It has passed; the rest follow, `surge` at a time.
    Rest,
    /// The release is refused; what it has taken is taken back, `surge` at a time.
    RollingBack(Refusal),
}

impl Phase {
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Phase::Canary | Phase::Rest => None,
            Phase::RollingBack(refusal) => Some(refusal),
        }
    }

    fn is_canary(&self) -> bool {
        matches!(self, Phase::Canary)
    }
}

/// The one restart that was asked for while another could not be interrupted.
#[derive(Debug)]
pub(super) struct Remembered {
    id: RestartId,
    tickets: Vec<Ticket>,
}

impl Supervisor {
    pub(super) fn order_restart(&mut self, ticket: Option<Ticket>) {
        if self.stage != Stage::Running {
            return self.refuse(Order::Restart, ticket);
        }
        self.reply(ticket, Reply::Accepted);
        if let Some(remembered) = &mut self.remembered {
            remembered.tickets.extend(ticket);
            return;
        }
        self.newest_restart = self.newest_restart.next();
        let id = self.newest_restart;
        self.remembered = Some(Remembered { id, tickets: ticket.into_iter().collect() });
        if !self.may_begin() {
            self.report(Notice::RestartQueued { id });
        }
    }

    /// Takes the restart as far as it can go now.
    pub(super) fn roll(&mut self) {
        self.begin_remembered();
        self.promote_proven();
        self.complete_when_done();
        self.end_rollback_when_done();
        self.begin_remembered();
        self.spawn_successors();
    }

    fn may_begin(&self) -> bool {
        let mut draining: Vec<Generation> = self
            .slots
            .iter()
            .flat_map(|slot| &slot.leaving)
            .filter(|worker| !matches!(worker.state, State::Unkillable { .. }))
            .map(|worker| worker.generation)
            .collect();
        draining.sort_unstable();
        draining.dedup();
        self.rolling.is_none() && draining.len() <= DRAINING_GENERATIONS
    }

    fn begin_remembered(&mut self) {
        if self.remembered.is_none() || !self.may_begin() {
            return;
        }
        let Some(Remembered { id, tickets }) = self.remembered.take() else { return };
        // Those of recycles: what they were to replace goes anyway.
        self.dismiss_successors();
        self.newest_generation = self.newest_generation.next();
        let generation = self.newest_generation;
        self.rolling = Some(Rolling { id, generation, phase: Phase::Canary, tickets });
        self.report(Notice::RestartBegan { id, generation });
    }

    /// When the next try at a replacement of the restart is due.
    pub(super) fn tries_due(&self) -> Option<Moment> {
        self.rolling.as_ref()?;
        self.slots.iter().filter_map(|slot| slot.succession.due()).min()
    }

    /// When this worker will have stood its trial, if it is the canary.
    pub(super) fn canary_due_of(&self, worker: &Worker) -> Option<Moment> {
        let rolling = self.rolling.as_ref().filter(|rolling| rolling.phase.is_canary())?;
        let on_trial = worker.generation == rolling.generation;
        ready_since(worker).filter(|_| on_trial).map(|since| since + self.policy.canary)
    }

    /// The canary has stood its trial, and was heard out since: one whose death is already known to the kernel must not
    /// pass because the loop was late.
    pub(super) fn end_trial(&mut self) {
        if let Some(rolling) = &mut self.rolling {
            rolling.phase = Phase::Rest;
        }
    }

    fn promote_proven(&mut self) {
        let on_trial = |rolling: &Rolling| rolling.phase.is_canary() && !self.policy.canary.is_zero();
        if self.rolling.as_ref().is_some_and(on_trial) {
            return;
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].successor().is_some_and(Worker::is_ready) {
                self.promote(slot);
            }
        }
    }

    /// The replacement takes the seat; the old worker is told to go.
    fn promote(&mut self, slot: usize) {
        let Some(new) = self.slots[slot].succession.end() else { return };
        if let Some(rolling) = self.rolling.as_mut().filter(|rolling| rolling.phase.is_canary()) {
            rolling.phase = Phase::Rest;
        }
        let new_id = new.id;
        self.slots[slot].failures.reset();
        let old = match mem::replace(&mut self.slots[slot].seat, Seat::Taken(new)) {
            Seat::Taken(worker) => Some(worker),
            Seat::Waiting { .. } | Seat::Vacant { .. } | Seat::Closed => None,
        };
        self.report(Notice::Replaced { slot, old: old.as_ref().map(|worker| worker.id), new: new_id });
        if let Some(old) = old {
            self.note_recycled(slot, &old);
            self.dismiss(slot, old);
        }
    }

    /// Starts as many replacements as may be on trial. Those for vacant seats are extra workers to nobody.
    fn spawn_successors(&mut self) {
        let Some(rolling) = &self.rolling else { return };
        let (generation, width) = match &rolling.phase {
            Phase::Canary => (rolling.generation, 1),
            Phase::Rest => (rolling.generation, self.policy.surge),
            Phase::RollingBack(_) => (self.generation, self.policy.surge),
        };
        let is_extra = |slot: &&Slot| slot.succession != Succession::Nobody && !slot.is_vacant();
        let mut extra = self.slots.iter().filter(is_extra).count();
        for slot in 0..self.wanted().len() {
            match &self.slots[slot].succession {
                Succession::Later { at, .. } if *at <= self.now => {}
                Succession::Later { .. } | Succession::Trial { .. } => continue,
                Succession::Nobody if self.slots[slot].is_vacant() => {}
                Succession::Nobody if is_on(&self.slots[slot], generation) || extra >= width => continue,
                Succession::Nobody => extra += 1,
            }
            let tries = self.slots[slot].succession.tries(self.now);
            let worker = self.spawn(slot, generation);
            self.slots[slot].succession = Succession::Trial { worker, tries };
        }
    }

    fn complete_when_done(&mut self) {
        let Some(rolling) = &self.rolling else { return };
        let serves = |slot: &Slot| slot.occupant().is_some_and(Worker::is_ready);
        let is_done = self.wanted().iter().all(|slot| is_on(slot, rolling.generation) && serves(slot));
        // The last old worker has been told, and not only ordered to be.
        if !is_done || rolling.phase.refusal().is_some() || self.is_telling(rolling.generation) {
            return;
        }
        let Some(rolling) = self.rolling.take() else { return };
        let before = mem::replace(&mut self.generation, rolling.generation);
        self.boot = self.boot.max(Boot::Spawns);
        self.expectation.take_over(self.generation);
        let replaced = self.policy.workers;
        self.report(Notice::RestartCompleted { id: rolling.id, replaced });
        self.act(Action::ReleaseListeners { unused_since: rolling.generation });
        self.act(Action::ForgetGeneration { generation: before });
        self.finish_restart(rolling, replaced, &Verdict::Completed);
    }

    /// The restart is over without success, and the callers are told why.
    pub(super) fn end_aborted(&mut self, reason: String, culprit: Option<Culprit>) {
        let Some(rolling) = self.rolling.take() else { return };
        let (id, total, replaced) = (rolling.id, self.policy.workers, self.seats_of(rolling.generation));
        self.report(Notice::RestartAborted { id, replaced, total, reason: reason.clone() });
        self.act(Action::ForgetGeneration { generation: rolling.generation });
        let failed = culprit.and_then(|culprit| culprit.last_exit().cloned());
        self.finish_restart(rolling, replaced, &Verdict::Aborted { reason, failed });
    }

    fn finish_restart(&mut self, rolling: Rolling, replaced: usize, verdict: &Verdict) {
        self.finished_restart = Some(finished(rolling.id, replaced, self.policy.workers, verdict));
        for ticket in rolling.tickets {
            self.act(Action::Reply { ticket, reply: Reply::Ended(verdict.clone()) });
        }
    }

    /// How many wait for the end of a restart.
    #[cfg(test)]
    pub(super) fn callers(&self) -> usize {
        let running = self.rolling.as_ref().map_or(0, |rolling| rolling.tickets.len());
        running + self.remembered.as_ref().map_or(0, |remembered| remembered.tickets.len())
    }

    pub(super) fn caller_left(&mut self, ticket: Ticket) {
        let running = self.rolling.as_mut().map(|rolling| &mut rolling.tickets);
        let remembered = self.remembered.as_mut().map(|remembered| &mut remembered.tickets);
        for tickets in running.into_iter().chain(remembered) {
            tickets.retain(|waiting| *waiting != ticket);
        }
    }

    /// A shutdown overtakes whatever restart runs or is remembered.
    pub(super) fn drop_restarts(&mut self, reason: &str) {
        self.dismiss_successors();
        let refusal = self.rolling.as_ref().and_then(|rolling| rolling.phase.refusal());
        let culprit = refusal.map(|refusal| refusal.culprit.clone());
        self.end_aborted(reason.to_owned(), culprit);
        let Some(Remembered { id, tickets }) = self.remembered.take() else { return };
        let verdict = Verdict::Aborted { reason: reason.to_owned(), failed: None };
        self.finished_restart = Some(finished(id, 0, self.policy.workers, &verdict));
        for ticket in tickets {
            self.act(Action::Reply { ticket, reply: Reply::Ended(verdict.clone()) });
        }
    }

    /// Slots whose seat is of this generation.
    pub(super) fn seats_of(&self, generation: Generation) -> usize {
        self.slots.iter().filter(|slot| is_on(slot, generation)).count()
    }

    pub(super) fn is_restarting(&self) -> bool {
        self.rolling.is_some() || self.remembered.is_some()
    }

    pub(super) fn restart_view(&self) -> Option<RestartView> {
        let Some(rolling) = &self.rolling else { return self.finished_restart.clone() };
        let (replaced, total) = (self.seats_of(rolling.generation), self.policy.workers);
        let (phase, refusal) = match &rolling.phase {
            Phase::Canary => (RestartPhase::Canary, None),
            Phase::Rest => (RestartPhase::Rest, None),
            Phase::RollingBack(refusal) => (RestartPhase::RollingBack, Some(refusal)),
        };
        let (id, state) = (rolling.id, RestartState::Running(phase));
        let reason = refusal.map(|refusal| refusal.reason.clone());
        let failed = refusal.and_then(|refusal| refusal.culprit.last_exit().cloned());
        Some(RestartView { id, state, replaced, total, reason, failed })
    }
}

fn finished(id: RestartId, replaced: usize, total: usize, verdict: &Verdict) -> RestartView {
    let (state, reason, failed) = match verdict {
        Verdict::Completed => (RestartState::Completed, None, None),
        Verdict::Aborted { reason, failed } => (RestartState::Aborted, Some(reason.clone()), failed.clone()),
    };
    RestartView { id, state, replaced, total, reason, failed }
}

fn is_on(slot: &Slot, generation: Generation) -> bool {
    slot.generation() == Some(generation)
}

fn ready_since(worker: &Worker) -> Option<Moment> {
    match worker.state {
        State::Ready { since } => Some(since),
        State::Spawning
        | State::Starting
        | State::Hung { .. }
        | State::Disconnecting { .. }
        | State::Killed { .. }
        | State::Unkillable { .. } => None,
    }
}
