//! More or fewer workers while the cluster runs: slots come and go at the end.

use std::mem;

use super::event::{Order, Scale};
use super::ids::{Headcount, Ticket};
use super::slot::{Cover, Seat, Slot, State, Worker};
use super::{Action, Notice, Reply, Stage, Supervisor};

impl Supervisor {
    /// Taken at once, also during a restart: a slot that comes begins on the generation that serves and is
    /// rolled like the rest, one that goes takes its replacement along.
    pub(super) fn order_scale(&mut self, scale: Scale, ticket: Option<Ticket>) {
        if self.stage != Stage::Running {
            return self.refuse(Order::Scale(scale), ticket);
        }
        self.reply(ticket, Reply::Accepted);
        let from = self.policy.workers;
        let to = match scale {
            Scale::To(headcount) => Some(headcount),
            Scale::OneMore => Headcount::new(from + 1),
            Scale::OneFewer => Headcount::new(from - 1),
        };
        match to.map(Headcount::get) {
            Some(to) if to != from => self.resize(from, to),
            Some(_) | None => self.report(Notice::ScaleChangesNothing { workers: from }),
        }
    }

    fn resize(&mut self, from: usize, to: usize) {
        let min_ready = self.policy.min_ready;
        self.report(Notice::Scaled { from, to, short_of: Some(min_ready).filter(|least| to < *least) });
        self.policy.workers = to;
        // Before the start there are no slots yet; it makes as many as are wanted by then.
        for slot in to..self.slots.len().min(from) {
            self.give_up(slot);
        }
        let started = !self.slots.is_empty();
        for slot in (from..to).filter(|_| started) {
            self.open_slot(slot);
        }
    }

    /// The slots that are to have a worker; behind them are those that were given up and may come back.
    pub(super) fn wanted(&self) -> &[Slot] {
        &self.slots[..self.policy.workers.min(self.slots.len())]
    }

    fn open_slot(&mut self, slot: usize) {
        let generation = self.generation;
        if slot == self.slots.len() {
            return self.slots.push(Slot::new(generation));
        }
        self.slots[slot].failures.reset();
        if self.slots[slot].draining.take().is_some() {
            // Its worker was not told yet: it stays, unless a restart has passed it by.
            if self.slots[slot].generation() == Some(generation) {
                return;
            }
            self.close_slot(slot);
        }
        self.slots[slot].seat =
            Seat::Waiting { until: self.now, last: None, generation, cover: Cover::Covered };
    }

    /// Whoever sits there or was to sit there is told to leave.
    pub(super) fn close_slot(&mut self, slot: usize) {
        self.slots[slot].draining = None;
        let seat = mem::replace(&mut self.slots[slot].seat, Seat::Closed);
        let occupant = match seat {
            Seat::Taken(worker) => Some(worker),
            Seat::Waiting { .. } | Seat::Vacant { .. } | Seat::Closed => None,
        };
        let successor = self.slots[slot].succession.end();
        for worker in occupant.into_iter().chain(successor) {
            self.dismiss(slot, worker);
        }
        self.vacated(slot);
    }

    /// A slot that was given up and that the last of its workers has left needs no sockets any more.
    pub(super) fn vacated(&mut self, slot: usize) {
        let given_up = self.stage == Stage::Running && slot >= self.policy.workers;
        let is_left = |worker: &Worker| matches!(worker.state, State::Unkillable { .. });
        if given_up && self.slots[slot].workers().all(is_left) {
            self.act(Action::CloseSlot { slot });
        }
    }
}
