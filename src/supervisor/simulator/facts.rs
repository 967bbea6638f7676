//! Facts, written into the books before the core hears of them.

use std::time::Duration;

use super::books::{Books, Course, Entry, Existence, Life, Post, Telling, Turn};
use super::rolls::Way;
use super::story::Scene;
use crate::supervisor::life::MOST_PATIENCE;
use crate::supervisor::{Event, FailureKind, HANDSHAKE, Moment, Remedy, WorkerId};

impl Books {
    pub(super) fn needs_time(&mut self, id: WorkerId, span: Duration) {
        let (now, policy) = (self.now, &self.policy);
        let (ready_timeout, disconnect_timeout) = (policy.ready_timeout, policy.disconnect_timeout);
        let Some(entry) = self.entry_mut(id) else { return };
        let most = match entry.life {
            Life::Booting if entry.has_begun() => entry.spawned + ready_timeout,
            Life::Told { at } => at + disconnect_timeout,
            Life::Booting
            | Life::Serving { .. }
            | Life::Hung { .. }
            | Life::Killed { .. }
            | Life::GivenUpOn => return,
        };
        let asked = (now + span).min(most + MOST_PATIENCE);
        entry.asked_until = entry.asked_until.max(Some(asked));
        if matches!(entry.life, Life::Told { .. }) {
            self.asked_until = self.asked_until.max(asked);
            self.story.tell(Scene::AskedForTimeToLeave);
        } else {
            self.story.tell(Scene::AskedForTimeToStart);
        }
    }

    /// Writes down a fact, before the core hears of it.
    pub(super) fn happened(&mut self, now: Moment, event: &Event) {
        self.now = self.now.max(now);
        self.turn = Turn::default();
        match event {
            Event::QueueSeenEmpty { slot } => {
                if self.draining.get(slot).is_some_and(|since| self.now >= *since + HANDSHAKE) {
                    self.turn.drained = Some(*slot);
                }
            }
            Event::CallerLeft { ticket } => self.left(*ticket),
            Event::Started
            | Event::SaidFailed { .. }
            | Event::ListenerShutDown { remedy: Remedy::SameSocket | Remedy::None(_), .. }
            | Event::TimePassed => {}
            Event::HeardOut { worker } => self.heard_out(*worker),
            Event::Told { worker } => {
                let is_ordered = |entry: &&mut Entry| entry.telling == Telling::Ordered;
                if let Some(entry) = self.entry_mut(*worker).filter(is_ordered) {
                    entry.telling = Telling::Done;
                }
            }
            Event::SignalDenied { worker, .. } => self.out_of_reach(*worker),
            Event::GuardLost { .. } => self.lost_guards += 1,
            Event::SaidRestartMe { worker } => self.wear(*worker),
            Event::ListenerShutDown { remedy: Remedy::NewSocket, .. } => {
                let staying = self.living.iter_mut().filter(|entry| entry.post != Post::Leaving);
                staying.for_each(|entry| entry.worn = true);
            }
            Event::MemorySampled { worker, bytes } => {
                if self.policy.max_memory.is_some_and(|most| *bytes > most) {
                    self.wear(*worker);
                }
            }
            Event::ChannelPaused { worker } => self.paused(*worker, true),
            Event::ChannelResumed { worker } => self.paused(*worker, false),
            Event::SaidAlive { worker } => {
                let now = self.now;
                if let Some(Life::Serving { heard, .. }) =
                    self.entry_mut(*worker).map(|entry| &mut entry.life)
                {
                    *heard = now;
                }
            }
            Event::NeedsTime { worker, span } => self.needs_time(*worker, *span),
            Event::SaidLeaving { worker } => self.leaves_by_itself(*worker),
            Event::Spawned { worker } => {
                let now = self.now;
                if let Some(entry) = self.entry_mut(*worker) {
                    entry.process = Existence::Begun;
                    if entry.life == Life::Booting {
                        entry.spawned = now;
                    }
                }
                let serves =
                    self.entry(*worker).map(|entry| entry.generation) == Some(self.running_generation);
                self.booted |= serves && self.course == Course::Running;
                let on_trial = self
                    .entry(*worker)
                    .is_some_and(|entry| matches!(entry.post, Post::Trial | Post::Recycle));
                self.trials += u64::from(on_trial);
            }
            Event::SpawnFailed { worker, failure } => self.not_spawned(*worker, failure.kind),
            Event::SaidHello { worker } => {
                if let Some(entry) = self.entry_mut(*worker) {
                    entry.said_hello = true;
                    entry.signal_at = None;
                }
            }
            Event::SaidReady { worker } => {
                let of = self.entry(*worker).map(|entry| entry.generation);
                self.say_ready.extend(of);
                let booting = self.entry(*worker).filter(|entry| entry.life == Life::Booting);
                self.turn.said_ready = booting.map(|entry| entry.id);
            }
            Event::Exited { worker, .. } => self.reaped(*worker),
            Event::Ordered { order, ticket } => self.asked(*order, *ticket),
        }
    }

    /// An old worker that does not hear that it is to make way ends the restart.
    fn out_of_reach(&mut self, id: WorkerId) {
        let Some(entry) = self.entry_mut(id) else { return };
        entry.telling = Telling::OutOfReach;
        self.story.tell(Scene::OutOfReach);
        let Some(entry) = self.entry(id).filter(|entry| matches!(entry.life, Life::Told { .. })) else {
            return;
        };
        let generation = entry.generation;
        let Some(roll) = self.roll.as_mut().filter(|roll| roll.way == Way::Forward) else { return };
        if generation < roll.generation {
            roll.nobody_failed = true;
            self.story.tell(Scene::AbortedByAnOldWorkerOutOfReach);
            self.refused();
        }
    }

    pub(super) fn wear(&mut self, id: WorkerId) {
        if let Some(entry) = self.entry_mut(id) {
            entry.worn = true;
        }
    }

    /// Whether it may be replaced: asked for, too big, or within a tenth of the greatest age.
    pub(super) fn is_worn(&self, entry: &Entry) -> bool {
        let lived = self.now - entry.spawned;
        entry.worn || self.policy.max_lifetime.is_some_and(|most| lived >= most / 10 * 9)
    }

    pub(super) fn paused(&mut self, id: WorkerId, paused: bool) {
        let now = self.now;
        let Some(entry) = self.entry_mut(id) else { return };
        entry.paused = paused;
        if let Life::Serving { heard, .. } = &mut entry.life {
            *heard = now;
            self.story.tell(Scene::PausedWhileServing);
        }
    }

    /// When a silent worker is hung; `None` for those that are not watched.
    pub(super) fn silent_until(&self, entry: &Entry) -> Option<Moment> {
        match entry.life {
            Life::Serving { .. } if entry.paused => None,
            Life::Serving { heard, .. } => Some(heard + self.policy.watchdog?),
            Life::Booting | Life::Told { .. } | Life::Hung { .. } | Life::Killed { .. } | Life::GivenUpOn => {
                None
            }
        }
    }

    /// A loop that was late by half the time blames itself.
    fn heard_out(&mut self, id: WorkerId) {
        let (now, limit) = (self.now, self.policy.watchdog.unwrap_or_default());
        let Some(entry) = self.entry_mut(id) else { return };
        entry.heard = entry.being_heard.take().unwrap_or(entry.heard);
        let heard = entry.heard;
        let due = self.entry(id).and_then(|entry| self.silent_until(entry));
        if due.is_some_and(|due| heard >= due && heard - due > limit / 2)
            && let Some(Life::Serving { heard, .. }) = self.entry_mut(id).map(|entry| &mut entry.life)
        {
            *heard = now;
            self.story.tell(Scene::SilencePardoned);
        }
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Entry> {
        let at = self.living.iter().position(|entry| entry.id == id)?;
        Some(self.living.swap_remove(at))
    }

    pub(super) fn not_spawned(&mut self, id: WorkerId, kind: FailureKind) {
        let Some(entry) = self.remove(id) else { return };
        match kind {
            FailureKind::Passing => {
                self.passing_failures += 1;
                self.story.tell(Scene::PassingFailure);
                if let Some(barren) = &mut self.barren {
                    barren.allowed += 1;
                }
            }
            FailureKind::Lasting => {
                self.story.tell(Scene::LastingFailure);
                self.crashes += u64::from(entry.post == Post::Seat && self.booted);
            }
        }
        match entry.post {
            Post::Trial if kind == FailureKind::Passing && self.may_try_again(entry.slot) => {
                self.story.tell(Scene::ReplacementTriedAgain);
            }
            Post::Recycle => self.story.tell(Scene::RecycleFailed),
            Post::Trial => self.trial_lost(Scene::AbortedBySpawnFailure),
            Post::Seat if self.on_probation(entry.generation).is_some() => match kind {
                FailureKind::Passing if self.on_probation(entry.generation) == Some(Way::Forward) => {}
                FailureKind::Passing | FailureKind::Lasting => {
                    self.crashes -= u64::from(kind == FailureKind::Lasting && self.booted);
                    self.seat_lost(entry.slot, entry.generation);
                }
            },
            Post::Seat => {
                self.seats[entry.slot] = self.running_generation;
                self.unlucky.insert(entry.slot);
            }
            Post::Leaving => {}
        }
    }

    pub(super) fn leaves_by_itself(&mut self, id: WorkerId) {
        let now = self.now;
        let at_work = |entry: &&mut Entry| matches!(entry.life, Life::Booting | Life::Serving { .. });
        let Some(entry) = self.entry_mut(id).filter(at_work) else { return };
        let was = entry.post;
        (entry.life, entry.post, entry.asked_until) = (Life::Told { at: now }, Post::Leaving, None);
        let (slot, generation) = (entry.slot, entry.generation);
        match was {
            Post::Seat if self.on_probation(generation) == Some(Way::Back) => {
                self.story.tell(Scene::RefusedWorkerLost);
                self.seats[slot] = self.running_generation;
                self.vacate(slot);
            }
            Post::Seat => {
                if self.on_probation(generation).is_none() {
                    self.seats[slot] = self.running_generation;
                }
                self.leavings += 1;
                self.unlucky.insert(slot);
                self.story.tell(Scene::LeftByItself);
                if let Some(barren) = &mut self.barren {
                    barren.allowed += 1;
                }
            }
            Post::Trial => {
                self.trial_lost(Scene::AbortedByLeaving);
            }
            Post::Recycle => self.story.tell(Scene::RecycleFailed),
            Post::Leaving => {}
        }
    }

    pub(super) fn reaped(&mut self, id: WorkerId) {
        let Some(entry) = self.remove(id) else { return };
        match entry.post {
            Post::Seat => self.seat_lost(entry.slot, entry.generation),
            Post::Recycle => self.story.tell(Scene::RecycleFailed),
            Post::Trial => self.trial_lost(Scene::AbortedByExit),
            Post::Leaving => {}
        }
    }

    pub(super) fn crashed(&mut self) {
        self.crashes += 1;
        self.story.tell(Scene::Crash);
        if self.roll.is_some() {
            self.story.tell(Scene::OldWorkerCrashedDuringARestart);
        }
    }
}
