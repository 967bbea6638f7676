//! How long an empty slot waits: 0, initial, twice, four times… up to max.

use std::time::Duration;

/// The quick failures in a row of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    in_a_row: u32,
}

impl Backoff {
    /// One more failure: how long to wait. The first is replaced at once.
    pub(super) fn fail(&mut self, initial: Duration, max: Duration) -> Duration {
        let before = self.in_a_row;
        self.in_a_row = before.saturating_add(1);
        match before {
            0 => Duration::ZERO,
            n => initial.saturating_mul(1u32.checked_shl(n - 1).unwrap_or(u32::MAX)).min(max),
        }
    }

    /// More than one failure without a success between.
    pub(super) fn is_series(self) -> bool {
        self.in_a_row > 1
    }

    /// The series starts anew.
    pub(super) fn reset(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum() {
        let mut series = Backoff::default();
        let delays: Vec<u64> = (0..9)
            .map(|_| series.fail(Duration::from_millis(100), Duration::from_secs(5)))
            .map(|delay| u64::try_from(delay.as_millis()).unwrap())
            .collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        series.reset();
        assert_eq!(series.fail(Duration::from_millis(100), Duration::from_secs(5)), Duration::ZERO);
    }

    #[test]
    fn never_overflows() {
        let mut series = Backoff { in_a_row: u32::MAX };
        assert_eq!(series.fail(Duration::MAX, Duration::from_secs(5)), Duration::from_secs(5));
        let mut series = Backoff { in_a_row: 33 };
        assert_eq!(series.fail(Duration::from_millis(1), Duration::from_secs(5)), Duration::from_secs(5));
    }
}
