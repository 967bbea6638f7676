//! How much waits in the queue, and what it had no room for.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::account::{Account, Kind};

/// Bytes that may wait, overhead included: some tens of thousands of lines.
const ROOM: usize = 16 << 20;
/// Beyond them, for the master itself: it must be heard whatever the workers do.
const RESERVE: usize = 1 << 20;

/// Counts that all who log and the log thread share.
#[derive(Debug)]
pub(super) struct Gauge {
    held: AtomicUsize,
    dropped: AtomicU64,
    /// A wake-up is under way: one is enough.
    waking: AtomicBool,
}

impl Gauge {
    pub(super) const fn new() -> Self {
        Gauge { held: AtomicUsize::new(0), dropped: AtomicU64::new(0), waking: AtomicBool::new(false) }
    }

    /// Takes room for `cost` bytes, if there is any: of the worker's account as well, or of all for the master itself.
    pub(super) fn admit(&self, cost: usize, worker: Option<&Account>) -> bool {
        let Some(account) = worker else { return take(&self.held, cost, ROOM + RESERVE) };
        if !account.admit(Kind::Log, cost) {
            return false;
        }
        let fits = take(&self.held, cost, ROOM);
        if !fits {
            account.release(Kind::Log, cost);
        }
        fits
    }

    /// Gives room back.
    pub(super) fn release(&self, cost: usize, worker: Option<&Account>) {
        self.held.fetch_sub(cost, Relaxed);
        if let Some(account) = worker {
            account.release(Kind::Log, cost);
        }
    }

    /// Whether a wake-up is to be sent, which is then under way until [`Gauge::woken`].
    pub(super) fn wake(&self) -> bool {
        !self.waking.swap(true, Relaxed)
    }

    pub(super) fn woken(&self) {
        self.waking.store(false, Relaxed);
    }

    pub(super) fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

fn take(held: &AtomicUsize, cost: usize, room: usize) -> bool {
    let before = held.fetch_add(cost, Relaxed);
    let fits = before + cost <= room;
    if !fits {
        held.fetch_sub(cost, Relaxed);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let gauge = Gauge::new();
        assert!(gauge.admit(ROOM + RESERVE - 10, None));
        assert!(!gauge.admit(11, None), "no room for it");
        assert!(gauge.admit(10, None), "what did not fit took nothing");
        gauge.release(10, None);
        assert!(gauge.admit(1, None));
        gauge.drop_lines(3);
        assert_eq!(gauge.dropped(), 3);
    }

    #[test]
    fn a_worker_has_its_share_and_the_master_a_reserve() {
        const SHARE: usize = Kind::Log.most();
        let gauge = Gauge::new();
        let [flood, quiet, third] = [(); 3].map(|()| Account::default());
        assert!(gauge.admit(SHARE, Some(&flood)));
        assert!(!gauge.admit(1, Some(&flood)), "its share is used up");
        assert!(gauge.admit(ROOM - SHARE, Some(&quiet)), "which leaves the others' room");
        assert!(!gauge.admit(1, Some(&third)), "until all of it is taken");
        assert!(gauge.admit(RESERVE, None), "the master has more");
        gauge.release(1, Some(&flood));
        assert!(!gauge.admit(1, Some(&third)), "the master's reserve is not the workers'");
        gauge.release(RESERVE, None);
        assert!(gauge.admit(1, Some(&third)));
    }
}
