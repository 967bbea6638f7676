//! Keeps a repeated warning from flooding the log. Pure: moments in, counts out.

use std::fmt;
use std::time::{Duration, Instant};

/// How often one kind of warning about one peer is said at most.
const EVERY: Duration = Duration::from_secs(1);

/// A line a second at most.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    told: Option<Instant>,
}

impl Pace {
    /// How long until the next line may be said.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.told.map_or(Duration::ZERO, |told| EVERY.saturating_sub(now.saturating_duration_since(told)))
    }

    /// One is said now.
    pub(crate) fn tell(&mut self, now: Instant) {
        self.told = Some(now);
    }
}

/// One kind of warning about one peer: a line a second at most, which says how many were left out.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    untold: u64,
    pace: Pace,
}

impl Throttle {
    /// Counts `more` of them. Once a line is due: all that no line has told of yet.
    pub(crate) fn count(&mut self, now: Instant, more: u64) -> Option<u64> {
        self.untold += more;
        if self.untold == 0 || !self.pace.wait(now).is_zero() {
            return None;
        }
        self.pace.tell(now);
        Some(self.rest())
    }

    /// When a line is due, if something is untold.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pace.told.filter(|_| self.untold > 0).map(|told| told + EVERY)
    }

    /// Those that no line has told of, for the last line of all.
    pub(crate) fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.untold)
    }
}

/// So many lines were left out before this one: nothing, or a remark for its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftOut(pub(crate) u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " (and {count} more before it)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_with_the_count_of_all_before_it() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(throttle.count(at(0), 0), None, "nothing to tell");
        assert_eq!(throttle.count(at(0), 1), Some(1), "the first at once");
        assert_eq!((throttle.pace.wait(at(400)), throttle.due()), (Duration::from_millis(600), None));
        assert_eq!((throttle.count(at(1), 5), throttle.count(at(999), 2)), (None, None));
        assert_eq!(throttle.due(), Some(at(1000)));
        assert_eq!(throttle.count(at(1000), 1), Some(8));
        assert_eq!(throttle.count(at(1999), 3), None);
        assert_eq!((throttle.rest(), throttle.rest()), (3, 0));
        assert_eq!(throttle.count(at(5000), 0), None);
    }

    #[test]
    fn what_was_left_out_is_said_where_there_is_any() {
        assert_eq!(format!("no{} and no{}", LeftOut(0), LeftOut(3)), "no and no (and 3 more before it)");
    }
}
