//! Replacements and restarts in the books: what they may do, on the way forward and on the way back.

use std::collections::BTreeMap;

use super::Check;
use super::books::{Books, Course, Entry, Life, Post, RestartFate, Telling, TrialFate};
use super::promise;
use super::story::Scene;
use crate::supervisor::{Generation, Moment, Verdict, WorkerId};

/// The restart that runs.
#[derive(Clone, Debug)]
pub(super) struct Roll {
    pub(super) generation: Generation,
    pub(super) promoted: usize,
    /// It is refused, and none of its own workers has failed.
    pub(super) nobody_failed: bool,
    pub(super) way: Way,
    /// Since when a replacement has been tried in a slot.
    pub(super) tried: BTreeMap<usize, Moment>,
}

/// Where a restart is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    /// A worker of the new generation has failed.
    Back,
}

impl Books {
    /// One replacement until the canary has passed, then `surge` at a time, all of the new generation.
    pub(super) fn trial_spawned(&mut self, slot: usize, generation: Generation) -> Check {
        let Some(roll) = &mut self.roll else { return Err("a replacement without a restart".to_owned()) };
        let (wanted, first) = match roll.way {
            Way::Forward => (roll.generation, roll.promoted == 0),
            Way::Back => (self.running_generation, false),
        };
        promise!(generation == wanted, "generation {generation} is nobody's");
        roll.tried.entry(slot).or_insert(self.now);
        let doubled = self.living.iter().any(|entry| entry.slot == slot && entry.post == Post::Trial);
        promise!(!doubled, "two replacements on trial in slot {slot}");
        let width = if first { 1 } else { self.policy.surge };
        let crowded = !self.vacant.contains(&slot) && self.extra() >= width;
        promise!(!crowded, "more than {width} replacements at a time");
        self.trial_spawns += 1;
        Ok(())
    }

    /// One at a time, never in or before a restart, by the seat's own program, for a worker that is worn.
    pub(super) fn recycle_spawned(&mut self, slot: usize, generation: Generation) -> Check {
        promise!(self.remembered == 0, "a worker is recycled, and a restart waits");
        promise!(generation == self.seats[slot], "recycled by generation {generation}");
        let other = self.living.iter().find(|entry| entry.post == Post::Recycle);
        promise!(other.is_none(), "recycled beside {other:?}");
        let Some(holder) = self.holder(slot) else { return Err("an empty seat is recycled".to_owned()) };
        promise!(matches!(holder.life, Life::Serving { .. }), "recycled in state {:?}", holder.life);
        promise!(self.is_worn(holder), "recycled and not worn: {holder:?}");
        self.trial_spawns += 1;
        Ok(())
    }

    /// Nobody is to be started with it any more.
    pub(super) fn forget(&mut self, generation: Generation) -> Check {
        promise!(self.programs.remove(&generation), "the program of generation {generation} is not held");
        promise!(generation != self.running_generation, "the program that serves is let go");
        Ok(())
    }

    /// The verdict tells how the worker ended that failed, so it comes after that.
    pub(super) fn names_a_dead_culprit(&self, verdict: &Verdict) -> Check {
        let failed = match verdict {
            Verdict::Completed => None,
            Verdict::Aborted { failed, .. } => failed.as_ref(),
        };
        let alive = |id| self.entry(id).is_some_and(|entry| entry.life != Life::GivenUpOn);
        let early = failed.is_some_and(|exit| alive(exit.worker)) && self.course == Course::Running;
        promise!(!early, "a verdict before the end of the worker that failed: {failed:?}");
        promise!(
            failed.is_some()
                || self.nobody_failed
                || self.course != Course::Running
                || *verdict == Verdict::Completed,
            "nobody failed"
        );
        Ok(())
    }

    /// The old worker stays until the new one is ready.
    pub(super) fn recycled(&mut self, slot: usize, old: Option<WorkerId>, new: WorkerId) -> Check {
        let Some(entry) = self.entry_mut(new) else {
            return Err(format!("worker {new} takes a seat, but is gone"));
        };
        promise!(entry.post == Post::Recycle && entry.slot == slot, "worker {new} replaces nobody");
        let serves = matches!(entry.life, Life::Serving { .. });
        promise!(serves, "worker {new} is not ready");
        entry.post = Post::Seat;
        self.story.tell(Scene::Recycled);
        if let Some(entry) = old.and_then(|old| self.entry_mut(old)) {
            entry.post = Post::Leaving;
        }
        Ok(())
    }

    /// A seat changes hands only to a replacement that is ready and, if it is the first, has lasted.
    pub(super) fn replaced(&mut self, slot: usize, old: Option<WorkerId>, new: WorkerId) -> Check {
        let canary = self.policy.canary;
        promise!(
            self.holder(slot).map(|entry| entry.id) == old,
            "slot {slot} had another worker than {old:?}"
        );
        let Some(roll) = &mut self.roll else { return self.recycled(slot, old, new) };
        roll.tried.remove(&slot);
        let (first, generation) = match roll.way {
            Way::Forward => {
                roll.promoted += 1;
                (roll.promoted == 1, roll.generation)
            }
            Way::Back => (false, self.running_generation),
        };
        let Some(entry) = self.living.iter_mut().find(|entry| entry.id == new) else {
            return Err(format!("worker {new} takes a seat, but is gone"));
        };
        promise!(entry.post == Post::Trial && entry.slot == slot, "worker {new} is no replacement");
        promise!(entry.generation == generation, "worker {new} is of generation {}", entry.generation);
        let Life::Serving { since, .. } = entry.life else {
            return Err(format!("worker {new} is not ready"));
        };
        let lasted = entry.heard >= since + canary || canary.is_zero();
        promise!(!first || lasted, "the canary has not lasted");
        entry.post = Post::Seat;
        if let Some(entry) = old.and_then(|old| self.entry_mut(old)) {
            entry.post = Post::Leaving;
        }
        self.seats[slot] = generation;
        self.vacant.remove(&slot);
        Ok(())
    }

    /// With more than one older generation still draining, a restart waits.
    pub(super) fn restart_began(&mut self, generation: Generation) -> Check {
        promise!(self.course == Course::Running && self.roll.is_none(), "a restart begins at the wrong time");
        promise!(generation > self.newest_generation, "a generation is used twice");
        self.newest_generation = generation;
        let draining = |entry: &&Entry| {
            let older = self.turn.dropped != Some(entry.id);
            older && entry.post == Post::Leaving && entry.life != Life::GivenUpOn
        };
        let mut generations = self.living.iter().filter(draining).map(|entry| entry.generation);
        let first = generations.next();
        let several = generations.any(|generation| Some(generation) != first);
        promise!(!several, "several generations are draining");
        self.roll = Some(Roll {
            generation,
            promoted: 0,
            nobody_failed: false,
            way: Way::Forward,
            tried: BTreeMap::new(),
        });
        self.programs.insert(generation);
        self.remembered = 0;
        Ok(())
    }

    pub(super) fn restart_completed(&mut self) -> Check {
        let Some(roll) = self.roll.take() else { return Err("completed twice".to_owned()) };
        let everywhere = self.seats[..self.wanted].iter().all(|generation| *generation == roll.generation);
        promise!(everywhere, "completed with an old worker in its seat");
        promise!(roll.way == Way::Forward, "completed after a failure");
        let untold = self.living.iter().find(|entry| {
            let is_ordered = entry.telling == Telling::Ordered && matches!(entry.life, Life::Told { .. });
            is_ordered && entry.generation < roll.generation
        });
        promise!(untold.is_none(), "completed before an old worker was told: {untold:?}");
        self.turn.restart = RestartFate::Completed;
        self.running_generation = roll.generation;
        self.booted = true;
        self.story.tell(Scene::RestartCompleted);
        Ok(())
    }

    pub(super) fn restart_aborted(&mut self) -> Check {
        let Some(roll) = self.roll.take() else { return Err("aborted twice".to_owned()) };
        self.nobody_failed = roll.nobody_failed;
        self.turn.restart = RestartFate::Aborted;
        self.story.tell(Scene::RestartAborted);
        if roll.promoted > 0 {
            self.story.tell(Scene::AbortedAfterAPromotion);
        }
        if self.course != Course::Running {
            return Ok(());
        }
        promise!(roll.way == Way::Back, "aborted without a failure");
        let mut seats = self.seats[..self.wanted].iter();
        let old = seats.all(|generation| *generation == self.running_generation);
        if old && self.vacant.is_empty() && self.on_trial() == 0 {
            let spent = self.crashes >= u64::from(self.policy.max_fork_count);
            let lucky = |slot: &usize| !self.unlucky.contains(slot) && !spent;
            let unready = (0..self.wanted).find(|slot| !self.serves(*slot) && lucky(slot));
            promise!(unready.is_none(), "aborted before slot {unready:?} is ready");
            if roll.promoted > 0 {
                self.story.tell(Scene::RolledBack);
            }
            return Ok(());
        }
        let stuck = roll.tried.values().any(|since| self.now - *since >= self.policy.ready_timeout);
        promise!(self.remembered > 0 && stuck, "aborted with mixed generations");
        self.left_vacant += self.vacant.len() as u64;
        if let Some(barren) = &mut self.barren {
            barren.allowed += self.vacant.len() as u64;
        }
        self.vacant.clear();
        self.story.tell(Scene::RollbackGaveWay);
        Ok(())
    }

    /// What passes is waited out for as long as a replacement may take to become ready.
    pub(super) fn may_try_again(&self, slot: usize) -> bool {
        let since = self.roll.as_ref().and_then(|roll| roll.tried.get(&slot));
        since.is_some_and(|since| self.now - *since < self.policy.ready_timeout)
    }

    /// A replacement is lost: on the way forward, that refuses the release.
    pub(super) fn trial_lost(&mut self, how: Scene) {
        let Some(roll) = &mut self.roll else { return };
        match roll.way {
            Way::Forward => {
                self.story.tell(how);
                self.refused();
            }
            Way::Back => self.story.tell(Scene::ComebackFailed),
        }
    }

    /// A seat that a refused release leaves empty, if anybody is wanted there.
    pub(super) fn vacate(&mut self, slot: usize) {
        if slot < self.wanted {
            self.vacant.insert(slot);
        }
    }

    pub(super) fn refused(&mut self) {
        self.turn.trial = TrialFate::Lost;
        let Some(roll) = &mut self.roll else { return };
        roll.way = Way::Back;
        roll.tried.clear();
        let refused = roll.generation;
        if self.say_ready.contains(&refused) && !self.say_ready.contains(&self.running_generation) {
            self.story.tell(Scene::RefusedReleaseAloneSaidReady);
        }
        for slot in (0..self.wanted).filter(|slot| self.seats[*slot] == refused).collect::<Vec<_>>() {
            if self.holder(slot).is_none() {
                self.seats[slot] = self.running_generation;
                self.vacate(slot);
            }
        }
    }

    /// Whether ready is expected to be said by the workers of this generation: one of its own has, or, where it is on
    /// trial, one of those that it is to replace.
    pub(super) fn is_expected_to_say_ready(&self, generation: Generation) -> bool {
        let before = self.running_generation;
        let inherited = generation > before && self.say_ready.contains(&before);
        inherited || self.say_ready.contains(&generation)
    }

    /// Whether a worker of this generation is the restart's, on its way forward or back.
    pub(super) fn on_probation(&self, generation: Generation) -> Option<Way> {
        let roll = self.roll.as_ref()?;
        let is_on_probation = match roll.way {
            Way::Forward => roll.generation == generation,
            Way::Back => self.running_generation != generation,
        };
        is_on_probation.then_some(roll.way)
    }

    /// A worker in its seat is lost: in service, or by a release that is on probation.
    pub(super) fn seat_lost(&mut self, slot: usize, generation: Generation) {
        let probation = self.on_probation(generation);
        self.seats[slot] = self.running_generation;
        match probation {
            None => {
                self.unlucky.insert(slot);
                return self.crashed();
            }
            Some(Way::Forward) => {
                self.story.tell(Scene::PromotedWorkerLost);
                self.refused();
            }
            Some(Way::Back) => self.story.tell(Scene::RefusedWorkerLost),
        }
        self.vacate(slot);
    }
}

pub(super) fn fits(verdict: &Verdict, completed: bool, ending: bool) -> Check {
    match verdict {
        Verdict::Completed => promise!(completed, "a restart that did not complete is called completed"),
        Verdict::Aborted { reason, .. } => {
            promise!(!reason.is_empty(), "aborted without a reason");
            promise!(!ending || reason == "shutdown", "a shutdown overtook it, but the reason is {reason}");
        }
    }
    Ok(())
}
