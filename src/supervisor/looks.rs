//! When things are looked at of which there are news: at once, and after that with pauses, which grow for as long
//! as each look finds something to mend.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ids::Moment;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// The things of which there were news lately.
#[derive(Debug)]
pub(crate) struct Looks<K>(BTreeMap<K, Look>);

#[derive(Debug)]
struct Look {
    stage: Stage,
    pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Due(Moment),
    UnderWay,
    /// There are news since it began.
    Outdated,
    Paused(Moment),
}

/// What a look was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Mended,
    Nothing,
}

impl<K: Copy + Ord> Looks<K> {
    pub(crate) fn new() -> Self {
        Looks(BTreeMap::new())
    }

    /// There are news of this one.
    pub(crate) fn note(&mut self, key: K, now: Moment) {
        let look = self.0.entry(key).or_insert(Look { stage: Stage::Due(now), pause: SHORTEST });
        look.stage = match look.stage {
            Stage::Paused(until) if until < now => {
                look.pause = SHORTEST;
                Stage::Due(now)
            }
            Stage::Paused(until) => Stage::Due(until),
            Stage::UnderWay => Stage::Outdated,
            stage @ (Stage::Due(_) | Stage::Outdated) => stage,
        };
    }

    /// The next one to look at, which is under way from now on. One that never comes back is never due again.
    pub(crate) fn start(&mut self, now: Moment) -> Option<K> {
        let is_due = |look: &Look| matches!(look.stage, Stage::Due(at) if at <= now);
        let (key, look) = self.0.iter_mut().find(|(_, look)| is_due(look))?;
        look.stage = Stage::UnderWay;
        Some(*key)
    }

    pub(crate) fn finish(&mut self, key: K, now: Moment, used: Use) {
        let Some(look) = self.0.get_mut(&key) else { return };
        let until = now + look.pause;
        look.stage = match look.stage {
            Stage::Outdated => Stage::Due(until),
            Stage::Due(_) | Stage::UnderWay | Stage::Paused(_) => Stage::Paused(until),
        };
        look.pause = match used {
            Use::Mended => LONGEST.min(look.pause * 2),
            Use::Nothing => SHORTEST,
        };
    }

    /// It is no more.
    pub(crate) fn forget(&mut self, key: K) {
        self.0.remove(&key);
    }

    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        let due = |look: &Look| match look.stage {
            Stage::Due(at) => Some(at),
            Stage::UnderWay | Stage::Outdated | Stage::Paused(_) => None,
        };
        self.0.values().filter_map(due).min()
    }
}
