//! Sockets that a slot has alone (`reusePort`): new connections go to slots that serve, and what waits on a slot that
//! goes is served before its worker is told.
//!
//! The kernel gives each new connection to one of the sockets, whether or not anybody accepts there, and resets what
//! waits on a socket that is closed.

use std::time::Duration;

use super::ids::Moment;
use super::slot::{Slot, State, Worker};
use super::{Action, Stage, Supervisor};

/// A connection whose handshake had begun when the others were steered away arrives a round trip later.
pub(super) const HANDSHAKE: Duration = Duration::from_millis(200);
/// How often a queue is looked at that is not empty yet.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether each slot has listening sockets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sockets {
    Shared,
    PerSlot,
}

/// A slot that goes: its worker serves what waits on its sockets, and nothing new comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draining {
    begun: Moment,
    look_at: Moment,
}

impl Draining {
    fn begin(now: Moment) -> Self {
        Draining { begun: now, look_at: now + HANDSHAKE }
    }
}

impl Supervisor {
    /// A slot goes. Where its sockets are its own, they are emptied first.
    pub(super) fn give_up(&mut self, slot: usize) {
        let (now, timeout) = (self.now, self.policy.disconnect_timeout);
        let has_queue = self.policy.sockets == Sockets::PerSlot && !timeout.is_zero();
        if !has_queue || !self.slots[slot].occupant().is_some_and(may_drain) {
            return self.close_slot(slot);
        }
        self.slots[slot].draining = Some(Draining::begin(now));
        if let Some(successor) = self.slots[slot].succession.end() {
            self.dismiss(slot, successor);
        }
    }

    /// Takes the slots that go as far as they can now.
    pub(super) fn drain(&mut self) {
        for slot in self.policy.workers..self.slots.len() {
            let Some(draining) = self.slots[slot].draining else { continue };
            let over = draining.begun + self.policy.disconnect_timeout <= self.now;
            if over || !self.slots[slot].occupant().is_some_and(may_drain) {
                self.close_slot(slot);
            } else if draining.look_at <= self.now {
                let look_at = self.now + LOOK_EVERY;
                self.slots[slot].draining = Some(Draining { look_at, ..draining });
                self.act(Action::LookAtQueue { slot });
            }
        }
    }

    /// Nothing waits on the slot's sockets any more.
    pub(super) fn queue_seen_empty(&mut self, slot: usize) {
        let draining = self.slots.get(slot).and_then(|slot| slot.draining);
        if draining.is_some_and(|draining| draining.begun + HANDSHAKE <= self.now) {
            self.close_slot(slot);
        }
    }

    pub(super) fn drain_due(&self) -> Option<Moment> {
        if self.stage != Stage::Running {
            return None;
        }
        let timeout = self.policy.disconnect_timeout;
        let slots = self.slots.iter().filter_map(|slot| slot.draining);
        slots.map(|draining| draining.look_at.min(draining.begun + timeout)).min()
    }

    /// New connections go where somebody serves; where nobody does, they wait on any slot for who comes.
    pub(super) fn steer(&mut self) {
        if self.policy.sockets == Sockets::Shared || self.stage != Stage::Running {
            return;
        }
        let serves = |slot: &Slot| slot.occupant().into_iter().chain(slot.successor()).any(Worker::is_ready);
        let wanted = self.wanted().iter().enumerate();
        let mut slots: Vec<usize> = wanted.filter(|(_, slot)| serves(slot)).map(|(index, _)| index).collect();
        if slots.is_empty() {
            slots = (0..self.wanted().len()).collect();
        }
        if self.steered != slots {
            self.steered.clone_from(&slots);
            self.act(Action::Steer { slots });
        }
    }
}

/// Whether this worker accepts what waits, or will.
fn may_drain(worker: &Worker) -> bool {
    match worker.state {
        State::Spawning | State::Starting | State::Ready { .. } => true,
        State::Hung { .. }
        | State::Disconnecting { .. }
        | State::Killed { .. }
        | State::Unkillable { .. } => false,
    }
}
