//! Crash replacement: backoff per slot, the fork budget, and the moment to give up.

use std::mem;
use std::time::Duration;

use super::event::{FailureKind, SpawnFailure};
use super::ids::{Generation, Moment, WorkerId};
use super::notice::Respawn;
use super::slot::{Cause, Cover, LastExit, Place, Seat, Slot, Worker};
use super::{Action, Boot, Ending, ExitStatus, Notice, Supervisor};

impl Supervisor {
    /// An exit that nobody asked for: counted, and the seat filled again after a delay.
    /// Returns who sat there.
    pub(super) fn crashed(
        &mut self,
        slot: usize,
        id: WorkerId,
        cause: Cause,
        status: ExitStatus,
    ) -> Option<Worker> {
        let lived = self.slots[slot].occupant().map_or(Duration::ZERO, |worker| self.now - worker.started);
        if cause == Cause::Crashed || cause == Cause::Hung && lived >= self.policy.min_uptime {
            self.slots[slot].failures.reset();
        }
        let after = self.backoff(slot);
        let (worker, next) = self.vacate_crashed(slot, id, after);
        let budget_left = self.budget.left();
        let told = self.slots[slot].last_exit.as_ref().filter(|exit| exit.worker == id);
        let reason = told.and_then(|exit| exit.reason.clone());
        self.report(Notice::Crashed { worker: id, slot, cause, status, next, budget_left, reason });
        worker
    }

    /// The seat of a worker that leaves by its own wish waits for its next one. Returns who sat there.
    pub(super) fn vacate_planned(&mut self, slot: usize, id: WorkerId, cause: Cause) -> Option<Worker> {
        let generation = self.heir_of(self.slots[slot].generation()?);
        if cause == Cause::Crashed {
            self.slots[slot].failures.reset();
        }
        let after = self.backoff(slot);
        self.planned += 1;
        self.report(Notice::LeavesByItself { worker: id, slot, next: Respawn { after } });
        let (until, cover) = (self.now + after, Cover::Covered);
        let waiting = Seat::Waiting { until, last: Some(id), generation, cover };
        match mem::replace(&mut self.slots[slot].seat, waiting) {
            Seat::Taken(worker) => Some(worker),
            Seat::Waiting { .. } | Seat::Vacant { .. } | Seat::Closed => None,
        }
    }

    /// Whether the want of a process for a seat is the restart's affair: one that passes is waited out on the way
    /// forward, as that of a replacement is.
    fn is_lost_to_the_release(&self, generation: Generation, kind: FailureKind) -> bool {
        match kind {
            FailureKind::Passing => self.is_taken_back(generation),
            FailureKind::Lasting => self.is_on_probation(generation),
        }
    }

    /// The generation that follows a worker of this one in its seat: a release that is being rolled out goes on,
    /// what is left of another one does not come again.
    fn heir_of(&self, generation: Generation) -> Generation {
        if self.is_on_probation(generation) { generation } else { self.generation }
    }

    fn backoff(&mut self, slot: usize) -> Duration {
        self.slots[slot].failures.fail(self.policy.backoff_initial, self.policy.backoff_max)
    }

    /// Counts and charges a crash and leaves the seat waiting for its replacement.
    fn vacate_crashed(&mut self, slot: usize, id: WorkerId, after: Duration) -> (Option<Worker>, Respawn) {
        self.crashes += 1;
        self.slots[slot].respawns += 1;
        let (cover, after) = if self.budget.charge() {
            (Cover::Covered, after)
        } else {
            (Cover::Beyond, self.policy.backoff_max)
        };
        let (until, generation) = (self.now + after, self.generation);
        let waiting = Seat::Waiting { until, last: Some(id), generation, cover };
        let worker = match mem::replace(&mut self.slots[slot].seat, waiting) {
            Seat::Taken(worker) => Some(worker),
            Seat::Waiting { .. } | Seat::Vacant { .. } | Seat::Closed => None,
        };
        (worker, Respawn { after })
    }

    /// There is a process. Counted here, so that a lack of processes does not count as planned replacements.
    pub(super) fn spawned(&mut self, id: WorkerId) {
        let Some((slot, place)) = self.find(id) else { return };
        let generation = self.slots[slot].get(place).map(|worker| worker.generation);
        if generation == Some(self.generation) {
            self.boot = self.boot.max(Boot::Spawns);
        }
        let now = self.now;
        if let Some(worker) = self.slots[slot].get_mut(place) {
            worker.begin(now);
        }
        if place == Place::Successor {
            self.planned += 1;
        }
    }

    /// There is no process: not a crash when the machine is short of something for now.
    pub(super) fn spawn_failed(&mut self, id: WorkerId, failure: &SpawnFailure) {
        let Some((slot, place)) = self.find(id) else { return };
        let (now, min_uptime) = (self.now, self.policy.min_uptime);
        let Some(worker) = self.slots[slot].get(place) else { return };
        let (generation, cause) = (worker.generation, worker.cause(now, min_uptime));
        self.slot_of.remove(&id);
        let (reason, stderr) = (Some(failure.reason.clone()), Vec::new());
        let exit = LastExit { worker: id, cause, status: None, reason, stderr };
        self.slots[slot].last_exit = Some(exit.clone());
        match place {
            Place::Seat if self.is_lost_to_the_release(generation, failure.kind) => {
                let reason = format!("worker {id} could not be started: {}", failure.reason);
                self.lost_on_probation(slot, exit, reason);
            }
            Place::Seat => self.seat_not_spawned(slot, id, self.heir_of(generation), failure),
            Place::Successor => self.successor_not_spawned(slot, id, failure),
            Place::Leaving(at) => {
                self.slots[slot].leaving.swap_remove(at);
                self.vacated(slot);
                self.culprit_ended(id, exit);
            }
        }
    }

    fn seat_not_spawned(
        &mut self,
        slot: usize,
        id: WorkerId,
        generation: Generation,
        failure: &SpawnFailure,
    ) {
        let after = self.backoff(slot).max(self.policy.backoff_initial);
        let next = match (failure.kind, self.boot) {
            (FailureKind::Lasting, Boot::Untried) => {
                self.slots[slot].seat = Seat::Closed;
                self.begin_shutdown(Ending::CouldNotStart { reason: failure.reason.clone() });
                return;
            }
            (FailureKind::Lasting, Boot::Spawns | Boot::AllReady) => self.vacate_crashed(slot, id, after).1,
            (FailureKind::Passing, _) => {
                let (until, cover) = (self.now + after, Cover::Covered);
                self.slots[slot].seat = Seat::Waiting { until, last: Some(id), generation, cover };
                Respawn { after }
            }
        };
        let reason = failure.reason.clone();
        self.report(Notice::SpawnFailed { worker: id, slot, reason, next });
    }

    /// Fills the seats whose wait is over, unless nothing is left to hope for.
    pub(super) fn give_up_or_respawn(&mut self) {
        if self.is_hopeless() {
            self.report(Notice::GaveUp { crashes: self.crashes, limit: self.budget.full() });
            self.begin_shutdown(Ending::GaveUp);
            self.finish_when_empty();
            return;
        }
        for slot in 0..self.slots.len() {
            if let Some((due, generation)) = self.refill_due(&self.slots[slot])
                && due <= self.now
            {
                let worker = self.spawn(slot, generation);
                self.slots[slot].seat = Seat::Taken(worker);
            }
        }
    }

    /// When an empty seat is filled again, and with which program. Beyond the budget that takes a
    /// ready worker: seats that die in turn, each while the other boots, would go on for ever.
    pub(super) fn refill_due(&self, slot: &Slot) -> Option<(Moment, Generation)> {
        match slot.seat {
            Seat::Waiting { until, generation, cover: Cover::Covered, .. } => Some((until, generation)),
            Seat::Waiting { until, generation, cover: Cover::Beyond, .. } => {
                self.seats_and_successors().any(Worker::is_ready).then_some((until, generation))
            }
            Seat::Taken(_) | Seat::Vacant { .. } | Seat::Closed => None,
        }
    }

    /// No worker is ready or may become so, and every replacement allowed has been made.
    fn is_hopeless(&self) -> bool {
        let alive = self.seats_and_successors().any(|worker| worker.is_ready() || worker.is_starting());
        let comes = self.slots.iter().any(|slot| slot.is_vacant() || slot.succession.due().is_some());
        let mut waiting = self.slots.iter().filter_map(|slot| match slot.seat {
            Seat::Waiting { cover, .. } => Some(cover),
            Seat::Taken(_) | Seat::Vacant { .. } | Seat::Closed => None,
        });
        !alive && !comes && waiting.clone().next().is_some() && waiting.all(|cover| cover == Cover::Beyond)
    }

    /// A new worker in the books, and the order to start its process.
    pub(super) fn spawn(&mut self, slot: usize, generation: Generation) -> Worker {
        let worker = Worker::new(self.next_worker.take(), generation, self.now);
        self.slot_of.insert(worker.id, slot);
        self.act(Action::Spawn { worker: worker.id, slot, generation });
        worker
    }
}
