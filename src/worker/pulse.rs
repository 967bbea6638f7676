//! How often the heartbeat is worth a line: a loop that says it at each turn must not flood its channel.

use std::env;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::lock;

/// Heartbeats that are sent while the master would wait for one.
const BEATS: u32 = 4;

/// When the last heartbeat was sent.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    last: Mutex<Option<Instant>>,
}

impl Pulse {
    /// As often as `WATCHDOG_USEC` asks for; without it, each counts.
    pub(super) fn from_env() -> Self {
        let watchdog = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Pulse::new(watchdog.map_or(Duration::ZERO, Duration::from_micros))
    }

    fn new(watchdog: Duration) -> Self {
        Pulse { every: watchdog / BEATS, last: Mutex::new(None) }
    }

    /// Whether it is time for another one, which the caller then sends.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut last = lock(&self.last);
        let due = last.is_none_or(|last| now - last >= self.every);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_loop_sends_four_in_the_time_and_a_slow_one_each() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        for (watchdog, step, sent) in [(400, 1, 4), (400, 99, 3), (400, 100, 4), (400, 390, 2), (0, 1, 400)] {
            let pulse = Pulse::new(ms(watchdog));
            let turns = (0..400).step_by(step).filter(|at| pulse.is_due(start + ms(*at)));
            assert_eq!(turns.count(), sent, "{watchdog} {step}");
        }
    }
}
