//! A process of the simulated world, and what it is going to do.

use std::time::Duration;

use super::climate::Climate;
use super::random::Random;
use crate::supervisor::{CORE_GRACE, KILL_GRACE, Moment, Policy, WorkerId};

/// It exists from its spawn until it is reaped.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) id: WorkerId,
    /// The core has been told that it exists.
    pub(super) announced: bool,
    pub(super) ends_at: Option<Moment>,
    /// How long it takes to leave once told; `None` ignores it.
    pub(super) leaves_after: Option<Duration>,
    /// How often it says that it is alive, and until when.
    pub(super) beat: Option<Duration>,
    pub(super) hangs_at: Option<Moment>,
    /// The master does not read its channel.
    pub(super) paused: bool,
    /// How long its core takes after SIGABRT; `None` blocks that signal.
    pub(super) aborts_after: Option<Duration>,
    /// It may not be signalled.
    pub(super) out_of_reach: bool,
    /// How long it survives SIGKILL; `None` is for ever.
    pub(super) dies_after: Option<Duration>,
}

impl Process {
    /// Decides its fate at birth.
    pub(super) fn conceive(
        id: WorkerId,
        now: Moment,
        policy: &Policy,
        climate: Climate,
        random: &mut Random,
    ) -> Self {
        let life = random.pick(&[
            Duration::ZERO,
            policy.min_uptime,
            policy.min_uptime * 2,
            policy.min_uptime + policy.ready_timeout,
            policy.canary * 2,
            policy.stable_after,
        ]);
        let ends_at = random.chance(climate.crash).then(|| now + random.up_to(life));
        let limit = if climate.is_calm() { Duration::from_millis(50) } else { policy.disconnect_timeout * 2 };
        let deaf = random.chance(climate.deaf);
        let leaves_after = (!deaf).then(|| random.up_to(limit));
        let dies_after = if random.chance(climate.stuck) {
            random.chance(50).then(|| random.up_to(KILL_GRACE * 2))
        } else {
            Some(Duration::ZERO)
        };
        let beat = policy.watchdog.map(|limit| (limit / 2).max(Duration::from_millis(1)));
        let hangs = random.chance(climate.hang) && policy.watchdog.is_some();
        let hangs_at =
            hangs.then(|| now + random.up_to(random.clone().pick(&[policy.canary, policy.stable_after])));
        let aborts_after = random.chance(70).then(|| random.up_to(CORE_GRACE / 4));
        Process {
            id,
            announced: false,
            ends_at,
            leaves_after,
            beat,
            hangs_at,
            paused: false,
            aborts_after,
            out_of_reach: random.chance(climate.out_of_reach),
            dies_after,
        }
    }

    pub(super) fn end_by(&mut self, end: Moment) {
        self.ends_at = Some(self.ends_at.map_or(end, |before| before.min(end)));
    }

    /// When it next says that it is alive.
    pub(super) fn next_beat(&self, now: Moment) -> Option<Moment> {
        let at = now + self.beat?;
        self.hangs_at.is_none_or(|hangs| at < hangs).then_some(at)
    }

    /// SIGABRT.
    pub(super) fn abort(&mut self, now: Moment) {
        if let Some(span) = self.aborts_after {
            self.end_by(now + span);
        }
    }

    /// SIGKILL: at once, or, stuck in the kernel, later or never.
    pub(super) fn kill(&mut self, now: Moment) {
        if self.dies_after == Some(Duration::ZERO) {
            self.end_by(now);
        } else {
            self.ends_at = self.dies_after.map(|span| now + span);
        }
    }

    pub(super) fn has_ended(&self, now: Moment) -> bool {
        self.announced && self.ends_at.is_some_and(|end| end <= now)
    }
}
