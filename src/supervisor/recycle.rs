//! Planned replacement of single workers: too old, too big, or asked for. Replacement first, one at a time,
//! never during a restart, and at nobody's expense: the old worker stays until the new one is ready.

use std::fmt;
use std::time::Duration;

use super::event::{Order, Remedy};
use super::ids::{Moment, Ticket, WorkerId};
use super::notice::{Recycle, ShutListener};
use super::slot::{Slot, Worker};
use super::succession::Succession;
use super::{Notice, Reply, Stage, Supervisor};

/// How many workers a line names as those who may have shut a listener down.
const MOST_NAMED: usize = 4;

/// Why a worker is to be replaced. To add a rule: a variant here, and where its fact is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wear {
    /// It has lived for its share of `maxLifetime`.
    Age { lived: Duration, limit: Duration },
    /// It holds more than `maxMemory`.
    Memory { bytes: u64, limit: u64 },
    /// It asked for it.
    Wish,
    /// Somebody ordered it.
    Order,
    /// There is another socket at the address of one that it has.
    OldSocket,
}

impl fmt::Display for Wear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wear::Age { lived, limit } => {
                write!(
                    f,
                    "it has lived for {} ms, and maxLifetime is {}",
                    lived.as_millis(),
                    limit.as_millis()
                )
            }
            Wear::Memory { bytes, limit } => {
                write!(f, "it holds {bytes} bytes of memory, and maxMemory is {limit}")
            }
            Wear::Wish => write!(f, "it asked for it"),
            Wear::Order => write!(f, "it was ordered"),
            Wear::OldSocket => write!(f, "a listener that it has is dead"),
        }
    }
}

/// A worker's share of `maxLifetime`: up to a tenth less, by its id, so that workers of one age do not
/// come due together. (The multiplier of Fibonacci hashing spreads neighbours far apart.)
pub(super) fn lifetime(id: WorkerId, most: Duration) -> Duration {
    let spread = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54; // 0..1024
    most.saturating_sub(most / 10 * u32::try_from(spread).unwrap_or(0) / 1024)
}

impl Supervisor {
    pub(super) fn said_restart_me(&mut self, id: WorkerId) {
        self.wear(id, Wear::Wish);
    }

    pub(super) fn memory_sampled(&mut self, id: WorkerId, bytes: u64) {
        if let Some(limit) = self.policy.max_memory.filter(|_| self.is_too_much(bytes)) {
            self.wear(id, Wear::Memory { bytes, limit });
        }
    }

    pub(super) fn is_too_much(&self, bytes: u64) -> bool {
        self.policy.max_memory.is_some_and(|limit| bytes > limit)
    }

    pub(super) fn order_recycle(&mut self, id: WorkerId, ticket: Option<Ticket>) {
        if self.stage != Stage::Running {
            return self.refuse(Order::Recycle(id), ticket);
        }
        if self.find(id).is_none() {
            self.report(Notice::Recycle(Recycle::FindsNobody { worker: id }));
            return self.reply(ticket, Reply::Unknown);
        }
        self.reply(ticket, Reply::Accepted);
        self.wear(id, Wear::Order);
    }

    /// A worker has shut a listener down. Those who have a socket that stays dead are replaced.
    pub(super) fn listener_shut_down(&mut self, listener: String, remedy: Remedy) {
        let leaving = self.slots.iter().flat_map(|slot| &slot.leaving).map(|worker| worker.id);
        let leaving = leaving.take(MOST_NAMED).collect();
        if remedy == Remedy::NewSocket {
            let holders: Vec<WorkerId> = self.seats_and_successors().map(|worker| worker.id).collect();
            for id in holders {
                self.wear(id, Wear::OldSocket);
            }
        }
        self.report(Notice::ListenerShutDown(ShutListener { listener, remedy, leaving }));
    }

    /// The first reason counts.
    fn wear(&mut self, id: WorkerId, wear: Wear) {
        if let Some(worker) = self.worker_mut(id) {
            worker.wear.get_or_insert(wear);
        }
    }

    /// Takes the replacement of worn workers as far as it can go now.
    pub(super) fn recycle(&mut self) {
        self.find_aged();
        self.drop_pointless_tries();
        if let Some(slot) = self.next_to_recycle().filter(|slot| self.recycle_at(*slot) <= Some(self.now)) {
            self.try_recycle(slot);
        }
    }

    fn find_aged(&mut self) {
        let Some(limit) = self.policy.max_lifetime else { return };
        let now = self.now;
        for worker in self.slots.iter_mut().filter_map(Slot::occupant_mut) {
            let lived = now - worker.started;
            if worker.wear.is_none() && worker.is_ready() && lived >= lifetime(worker.id, limit) {
                worker.wear = Some(Wear::Age { lived, limit });
            }
        }
    }

    /// When the next worker comes of age.
    pub(super) fn age_due(&self) -> Option<Moment> {
        let limit = self.policy.max_lifetime.filter(|_| self.stage == Stage::Running)?;
        let young = self.slots.iter().filter_map(Slot::occupant).filter(|worker| worker.is_ready());
        let young = young.filter(|worker| worker.wear.is_none());
        young.map(|worker| worker.started + lifetime(worker.id, limit)).min()
    }

    /// Who was to be replaced has crashed meanwhile: whoever came for it needs no replacement.
    fn drop_pointless_tries(&mut self) {
        if self.is_restarting() {
            return;
        }
        for slot in &mut self.slots {
            let pointless = slot.occupant().is_none_or(|worker| worker.wear.is_none());
            if pointless && slot.succession.due().is_some() {
                slot.succession = Succession::Nobody;
            }
        }
    }

    /// The slot whose worker is replaced next, now or later.
    fn next_to_recycle(&self) -> Option<usize> {
        let on_trial = self.slots.iter().any(|slot| slot.successor().is_some());
        if self.is_restarting() || on_trial || self.stage != Stage::Running {
            return None;
        }
        let candidates = (0..self.wanted().len()).filter_map(|slot| Some((self.recycle_at(slot)?, slot)));
        candidates.min().map(|(_, slot)| slot)
    }

    /// When the worker of this slot may be replaced, if it is to be. One that is worn as soon as it starts
    /// lives for `minUptime` all the same: it would be replaced without end.
    fn recycle_at(&self, slot: usize) -> Option<Moment> {
        let slot = self.slots.get(slot)?;
        let worker = slot.occupant().filter(|worker| worker.is_ready())?;
        let earliest = match worker.wear? {
            Wear::Age { .. } | Wear::Order => worker.started,
            Wear::Memory { .. } | Wear::Wish | Wear::OldSocket => worker.started + self.policy.min_uptime,
        };
        Some(slot.succession.due().map_or(earliest, |at| at.max(earliest)))
    }

    /// When time alone begins the next replacement.
    pub(super) fn recycle_due(&self) -> Option<Moment> {
        self.recycle_at(self.next_to_recycle()?)
    }

    fn try_recycle(&mut self, slot: usize) {
        let occupant = self.slots[slot].occupant();
        let Some((old, generation, wear)) = occupant.and_then(|w| Some((w.id, w.generation, w.wear?))) else {
            return;
        };
        self.report(Notice::Recycle(Recycle::Begins { worker: old, slot, wear }));
        let tries = self.slots[slot].succession.tries(self.now);
        let worker = self.spawn(slot, generation);
        self.slots[slot].succession = Succession::Trial { worker, tries };
    }

    /// The replacement failed, which is no crash: the old worker stays, and the next try comes later.
    pub(super) fn recycle_failed(&mut self, slot: usize, reason: String) {
        let next = self.try_later(slot);
        self.report(Notice::Recycle(Recycle::Fails { slot, reason, next }));
    }

    /// The cause of the end that follows, for its last exit.
    pub(super) fn note_recycled(&mut self, slot: usize, old: &Worker) {
        if let Some(wear) = old.wear.filter(|_| !self.is_restarting()) {
            self.slots[slot].last_words = Some((old.id, format!("recycled: {wear}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_lifetime_are_spread_over_its_last_tenth() {
        let most = Duration::from_secs(1000);
        let mut shares: Vec<u64> = (1..=100).map(|id| lifetime(WorkerId(id), most).as_secs()).collect();
        assert!(shares.iter().all(|share| (900..=1000).contains(share)), "{shares:?}");
        shares.sort_unstable();
        shares.dedup();
        assert!(shares.len() > 60, "neighbours do not come due together: {shares:?}");
        assert!(shares.first() < Some(&910) && shares.last() > Some(&990), "{shares:?}");
        assert_eq!(
            lifetime(WorkerId(7), Duration::from_millis(1)),
            lifetime(WorkerId(7), Duration::from_millis(1))
        );
    }
}
