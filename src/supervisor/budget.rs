//! The fork budget: how many crash replacements are left before the cluster gives up.

/// Charged for replacements of crashed workers and for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    full: u32,
    left: u32,
}

impl Budget {
    pub(super) fn new(full: u32) -> Self {
        Budget { full, left: full }
    }

    /// Charges one crash replacement; false when nothing is left.
    pub(super) fn charge(&mut self) -> bool {
        let covered = self.left > 0;
        self.left = self.left.saturating_sub(1);
        covered
    }

    /// The cluster has been stable: back to full.
    pub(super) fn refill(&mut self) {
        self.left = self.full;
    }

    pub(super) fn left(self) -> u32 {
        self.left
    }

    pub(super) fn full(self) -> u32 {
        self.full
    }

    pub(super) fn is_full(self) -> bool {
        self.left == self.full
    }
}
