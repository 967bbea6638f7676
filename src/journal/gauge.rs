//! How much waits in the queue, and what it had no room for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bytes that may wait, overhead included: some tens of thousands of lines.
const ROOM: usize = 8 << 20;

/// Counts that all who log and the log thread share.
#[derive(Debug)]
pub(super) struct Gauge {
    held: AtomicUsize,
    dropped: AtomicU64,
}

impl Gauge {
    pub(super) const fn new() -> Self {
        Gauge { held: AtomicUsize::new(0), dropped: AtomicU64::new(0) }
    }

    /// Takes room for `cost` bytes, if there is any.
    pub(super) fn admit(&self, cost: usize) -> bool {
        let before = self.held.fetch_add(cost, Relaxed);
        let fits = before + cost <= ROOM;
        if !fits {
            self.held.fetch_sub(cost, Relaxed);
        }
        fits
    }

    /// Gives room back.
    pub(super) fn release(&self, cost: usize) {
        self.held.fetch_sub(cost, Relaxed);
    }

    pub(super) fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let gauge = Gauge::new();
        assert!(gauge.admit(ROOM - 10));
        assert!(!gauge.admit(11), "no room for it");
        assert!(gauge.admit(10), "what did not fit took nothing");
        gauge.release(10);
        assert!(gauge.admit(1));
        gauge.drop_lines(3);
        assert_eq!(gauge.dropped(), 3);
    }
}
