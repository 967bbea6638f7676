//! Calls that were refused: all are counted, and the log says so once a second at most.

use std::time::{Duration, Instant};

use super::caller::Refused;
use crate::handle::Handle;
use crate::journal;

/// How often the log says it.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What was refused and not said yet.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: Option<Instant>,
    /// How many, and the last of them.
    unsaid: Option<(u64, Refused)>,
}

impl Refusals {
    pub(super) fn note(&mut self, refused: Refused, handle: &Handle, now: Instant) {
        handle.count_refused_call();
        let before = self.unsaid.take().map_or(0, |(count, _)| count);
        self.unsaid = Some((before + 1, refused));
        self.say(now);
    }

    /// When there is something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unsaid.as_ref()?;
        Some(self.said? + SAY_EVERY)
    }

    /// Says what there is to say, if it is time.
    pub(super) fn say(&mut self, now: Instant) {
        if let Some(line) = self.line(now) {
            journal::warn!("{line}");
        }
    }

    fn line(&mut self, now: Instant) -> Option<String> {
        if self.deadline().is_some_and(|due| due > now) {
            return None;
        }
        let (count, last) = self.unsaid.take()?;
        self.said = Some(now);
        let others = if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
        Some(format!("control API: refused {}{others}", last.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_with_the_count_of_the_others() {
        let mut refusals = Refusals::default();
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut refuse = |path: &str, milliseconds| {
            let before = refusals.unsaid.take().map_or(0, |(count, _)| count);
            refusals.unsaid = Some((before + 1, Refused { status: 403, line: path.into() }));
            refusals.line(at(milliseconds))
        };
        assert_eq!(refuse("/a", 0).as_deref(), Some("control API: refused /a"));
        assert_eq!(refuse("/b", 1), None);
        assert_eq!(refuse("/c", 999), None);
        assert_eq!(refusals.deadline(), Some(at(1000)));
        assert_eq!(refusals.line(at(1000)).as_deref(), Some("control API: refused /c (and 1 more)"));
        assert_eq!((refusals.deadline(), refusals.line(at(5000))), (None, None));
    }
}
