//! How often the heartbeat is worth a line: a loop that says it at each turn must not flood its channel.

use std::env;
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use super::{Worker, lock, spawn_quiet};

/// Heartbeats that are sent while the master would wait for one.
const BEATS: u32 = 4;

/// When the last heartbeat was sent.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    last: Mutex<Option<Instant>>,
    /// The thread that beats while `incoming` waits.
    idle: Once,
}

impl Pulse {
    /// As often as `WATCHDOG_USEC` asks for; without it, each counts.
    pub(super) fn from_env() -> Self {
        let watchdog = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Pulse::new(watchdog.map_or(Duration::ZERO, Duration::from_micros))
    }

    fn new(watchdog: Duration) -> Self {
        Pulse { every: watchdog / BEATS, last: Mutex::new(None), idle: Once::new() }
    }

    /// Whether the master listens for it.
    fn is_wanted(&self) -> bool {
        !self.every.is_zero()
    }

    /// One is sent anyway.
    fn note(&self, now: Instant) {
        *lock(&self.last) = Some(now);
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

impl Worker {
    /// The heartbeat of `incoming`, which is the loop that serves: at each turn, and while a thread waits there
    /// for its next connection. A thread that hangs with a connection in hand is in neither.
    pub(super) fn beat(&self) {
        if !self.0.pulse.is_wanted() {
            return;
        }
        self.alive();
        self.0.pulse.idle.call_once(|| {
            let worker = self.clone();
            if let Err(error) = spawn_quiet("proteus-pulse", move || worker.beat_while_idle()) {
                log::warn!("no thread for the heartbeat of an idle worker: {error}");
            }
        });
    }

    fn beat_while_idle(&self) {
        while !self.0.disconnect.wait_for(self.0.pulse.every) {
            // Not held back as in `alive`: work gets the whole of the watchdog's time from its accept on.
            if self.0.disconnect.waiters().has_served() {
                self.0.pulse.note(Instant::now());
                self.say_alive();
            }
        }
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
