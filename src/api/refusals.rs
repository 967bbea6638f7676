//! Calls that were refused: all are counted, and the log says so once a second at most.

use std::time::Instant;

use super::caller::Refused;
use crate::handle::Handle;
use crate::journal;
use crate::journal::throttle::{LeftOut, Throttle};

/// What was refused and not said yet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    throttle: Throttle,
    last: Option<Refused>,
}

impl Refusals {
    pub(super) fn note(&mut self, refused: Refused, handle: &Handle, now: Instant) {
        handle.count_refused_call();
        if let Some(line) = self.add(refused, now) {
            journal::warn!("{line}");
        }
    }

    /// When there is something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.throttle.due()
    }

    /// Says what there is to say, if it is time.
    pub(super) fn say(&mut self, now: Instant) {
        if let Some(line) = self.line(now, 0) {
            journal::warn!("{line}");
        }
    }

    fn add(&mut self, refused: Refused, now: Instant) -> Option<String> {
        self.last = Some(refused);
        self.line(now, 1)
    }

    fn line(&mut self, now: Instant, more: u64) -> Option<String> {
        let count = self.throttle.count(now, more)?;
        let last = self.last.take()?;
        Some(format!("control API: refused {}{}", last.line, LeftOut(count - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_line_a_second_with_the_count_of_the_others() {
        let mut refusals = Refusals::default();
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut refuse = |path: &str, milliseconds| {
            refusals.add(Refused { status: 403, line: path.into() }, at(milliseconds))
        };
        assert_eq!(refuse("/a", 0).as_deref(), Some("control API: refused /a"));
        assert_eq!(refuse("/b", 1), None);
        assert_eq!(refuse("/c", 999), None);
        assert_eq!(refusals.deadline(), Some(at(1000)));
        assert_eq!(
            refusals.line(at(1000), 0).as_deref(),
            Some("control API: refused /c (and 1 more before it)")
        );
        assert_eq!((refusals.deadline(), refusals.line(at(5000), 0)), (None, None));
    }
}
