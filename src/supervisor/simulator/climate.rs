//! The kind of world that a schedule plays in: its settings, and the misfortunes that befall it.
//!
//! Each schedule has only some of the misfortunes (swarm testing): with all of them at once, the
//! long stories, such as a restart that completes, would never be told.

use std::time::Duration;

use super::random::Random;
use crate::config::Ready;
use crate::supervisor::{Policy, Sockets};

/// How likely each misfortune is, in per cent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Climate {
    /// A spawned worker ends by itself sooner or later.
    pub(super) crash: usize,
    /// It leaves by its own wish.
    pub(super) leaving: usize,
    /// It asks for more time, to start or to stop.
    pub(super) begging: usize,
    /// It never says ready (and perhaps lies about it by saying hello).
    pub(super) mute: usize,
    /// A whole release never says ready, however healthy the world becomes.
    pub(super) mute_release: usize,
    /// It takes about as long as `readyTimeout` to boot.
    pub(super) slow: usize,
    /// Sooner or later it says no longer that it is alive.
    pub(super) hang: usize,
    /// At each step, a channel that is paused, or read again.
    pub(super) flood: usize,
    /// At each step, a worker that is to be replaced, for whatever reason.
    pub(super) wear: usize,
    /// It ignores the order to disconnect.
    pub(super) deaf: usize,
    /// It survives SIGKILL, for a while or for ever.
    pub(super) stuck: usize,
    /// A spawn takes its time, as where a file system is slow to answer.
    pub(super) slow_spawn: usize,
    /// It may not be signalled.
    pub(super) out_of_reach: usize,
    pub(super) passing_failure: usize,
    pub(super) lasting_failure: usize,
    /// At each step, a late or repeated delivery.
    pub(super) stray: usize,
    /// At each step, a clock that jumps and a loop that is late, early, or woken for nothing.
    pub(super) bent_clock: usize,
}

impl Climate {
    /// Nothing goes wrong, and the loop is prompt.
    pub(super) fn calm() -> Self {
        Climate::default()
    }

    pub(super) fn is_calm(self) -> bool {
        let Climate {
            crash,
            leaving,
            begging,
            mute,
            mute_release,
            slow,
            hang,
            flood,
            wear,
            deaf,
            stuck,
            slow_spawn,
            out_of_reach,
            passing_failure,
            lasting_failure,
            stray,
            bent_clock,
        } = self;
        [
            crash,
            leaving,
            begging,
            mute,
            mute_release,
            slow,
            hang,
            flood,
            wear,
            deaf,
            stuck,
            slow_spawn,
            out_of_reach,
            passing_failure,
            lasting_failure,
            stray,
            bent_clock,
        ] == [0; 17]
    }

    pub(super) fn roll(random: &mut Random) -> Self {
        let mut often = |choices: &[usize]| if random.chance(50) { 0 } else { random.pick(choices) };
        Climate {
            crash: often(&[5, 15, 40, 100]),
            leaving: often(&[5, 15, 40]),
            begging: often(&[20, 60]),
            mute: often(&[5, 30, 100]),
            mute_release: often(&[30, 60]),
            slow: often(&[5, 30]),
            hang: often(&[30, 100]),
            flood: often(&[5, 20]),
            wear: often(&[10, 30]),
            deaf: often(&[10, 50, 100]),
            stuck: often(&[10, 50]),
            slow_spawn: often(&[5, 40]),
            out_of_reach: often(&[2, 10, 30]),
            passing_failure: often(&[5, 40]),
            lasting_failure: often(&[2, 10]),
            stray: often(&[10, 40]),
            bent_clock: often(&[10, 40]),
        }
    }
}

/// Random settings. Time-outs of zero are allowed only where nothing needs to come right.
pub(super) fn roll_policy(random: &mut Random, zeroes: bool) -> Policy {
    let mut span = |choices: &[u64]| {
        if zeroes && random.chance(30) { Duration::ZERO } else { random.millis(choices) }
    };
    let (stable_after, canary) = (span(&[40, 400, 60_000]), span(&[0, 20, 1000]));
    let (ready_timeout, min_uptime) = (span(&[30, 300, 30_000]), span(&[5, 50, 1000]));
    let disconnect_timeout = span(&[10, 100, 10_000]);
    // Without any delay a slot that dies at once would keep time from passing; so would a budget that
    // is always full.
    let stable_after = stable_after.max(Duration::from_millis(1));
    let (backoff_initial, backoff_max) = (random.millis(&[1, 10, 100]), random.millis(&[100, 5000]));
    Policy {
        workers: 1 + random.below(6),
        max_fork_count: random.pick(&[0, 1, 2, 3, 5, 10, 100]),
        stable_after,
        min_ready: random.below(3),
        ready: random.pick(&[Ready::Auto, Ready::Auto, Ready::Notify, Ready::Alive]),
        ready_timeout,
        min_uptime,
        backoff_initial,
        backoff_max,
        surge: 1 + random.below(3),
        canary,
        disconnect_timeout,
        max_lifetime: random.pick(&[None, None, Some(120_000)]).map(Duration::from_millis),
        sockets: random.pick(&[Sockets::Shared, Sockets::PerSlot]),
        max_memory: random.pick(&[None, Some(1000)]),
        watchdog: random.pick(&[None, Some(700), Some(5000)]).map(Duration::from_millis),
    }
}
