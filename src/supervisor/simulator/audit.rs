//! Every action, held against the books as it is ordered.

use super::Check;
use super::books::{
    Answer, Asked, Asker, Barren, Books, Course, Entry, Existence, Life, Post, RestartFate, Telling,
    TrialFate,
};
use super::promise;
use super::rolls::{Way, fits};
use super::story::Scene;
use crate::supervisor::notice::Rollback;
use crate::supervisor::{
    Action, CORE_GRACE, Ending, Generation, HELLO_GRACE, KILL_GRACE, Notice, Notification, Order, Reply,
    Ticket, WorkerId,
};

impl Books {
    pub(super) fn ordered(&mut self, action: &Action) -> Check {
        promise!(!self.turn.finished, "the end is not the last action, but {action:?}");
        promise!(!self.is_finished() || is_only_said(action), "acts after the end: {action:?}");
        match action {
            Action::Spawn { worker, slot, generation } => self.spawn(*worker, *slot, *generation),
            Action::Disconnect { worker, by } => self.disconnect(*worker, *by),
            Action::HearOut { worker } => self.hear_out(*worker),
            Action::Abort { worker } => self.abort(*worker),
            Action::Kill { worker } => self.kill(*worker),
            Action::CloseListeners => self.close_listeners(),
            Action::ReleaseListeners { unused_since } => {
                promise!(
                    self.turn.restart == RestartFate::Completed,
                    "listeners released without a completed restart"
                );
                promise!(*unused_since == self.running_generation, "listeners of the wrong generation");
                Ok(())
            }
            Action::Steer { slots } => {
                self.steered.clone_from(slots);
                Ok(())
            }
            Action::LookAtQueue { slot } => {
                promise!(self.draining.contains_key(slot), "slot {slot} is looked at, and stays");
                Ok(())
            }
            Action::CloseSlot { slot } => self.close_slot(*slot),
            Action::ForgetGeneration { generation } => self.forget(*generation),
            Action::StartGuard => {
                promise!(self.lost_guards > 0, "a guard is started, and none was lost");
                self.lost_guards = 0;
                Ok(())
            }
            Action::ReopenLogs => self.reopened(),
            Action::Reply { ticket, reply } => self.answer(*ticket, reply),
            Action::Report(notice) => self.reported(notice),
            Action::Finish(ending) => self.finish(ending),
        }
    }

    /// Nothing is spawned after a shutdown order; ids only rise; a seat keeps its program.
    pub(super) fn spawn(&mut self, id: WorkerId, slot: usize, generation: Generation) -> Check {
        promise!(
            self.course == Course::Running && self.turn.asked == Asked::Nothing,
            "spawned after a shutdown order"
        );
        promise!(self.newest.is_none_or(|newest| id > newest), "worker ids do not rise");
        promise!(slot < self.wanted, "slot {slot} is not wanted");
        self.open[slot] = true;
        self.newest = Some(id);
        promise!(self.programs.contains(&generation), "the program of generation {generation} is let go");
        let seat_is_free = self.holder(slot).is_none();
        let post = if self.roll.is_none() && !seat_is_free {
            self.recycle_spawned(slot, generation)?;
            Post::Recycle
        } else if generation == self.seats[slot] && !self.vacant.contains(&slot) {
            let rolled = self.roll.as_ref().filter(|roll| roll.way == Way::Forward);
            let of_the_release = rolled.is_some_and(|roll| roll.generation == generation);
            promise!(
                generation == self.running_generation || of_the_release,
                "crash replacement by generation {generation}"
            );
            promise!(seat_is_free, "slot {slot} is taken already");
            self.seat_spawned()?;
            Post::Seat
        } else {
            self.trial_spawned(slot, generation)?;
            if seat_is_free && !self.vacant.contains(&slot) {
                self.story.tell(Scene::RestartIntoAnEmptySeat);
            }
            Post::Trial
        };
        self.spawns += 1;
        let (life, spawned) = (Life::Booting, self.now);
        self.living.push(Entry {
            id,
            slot,
            generation,
            spawned,
            process: Existence::Ordered,
            said_hello: false,
            worn: false,
            paused: false,
            signal_at: None,
            asked_until: None,
            heard: spawned,
            telling: Telling::Nothing,
            being_heard: None,
            post,
            life,
        });
        Ok(())
    }

    /// While nobody is ready, the budget alone says how often to try.
    pub(super) fn seat_spawned(&mut self) -> Check {
        if let Some(Barren { spawns, allowed }) = &mut self.barren {
            *spawns += 1;
            promise!(*spawns <= *allowed, "spawned {spawns} times with nobody ready; allowed are {allowed}");
        }
        Ok(())
    }

    /// Told once, while it lives, and only because a replacement serves, a restart failed, or all go.
    pub(super) fn disconnect(&mut self, id: WorkerId, by: Notification) -> Check {
        if by == Notification::Signal {
            return self.signal(id);
        }
        let (now, ending) = (self.now, self.course != Course::Running);
        let Some(entry) = self.entry_mut(id) else {
            return Err(format!("disconnect of worker {id}, who is gone"));
        };
        promise!(
            matches!(entry.life, Life::Booting | Life::Serving { .. }),
            "worker {id} is told to leave in state {:?}",
            entry.life
        );
        let hello_due = if entry.has_begun() { entry.spawned } else { now } + HELLO_GRACE;
        let about_to_say_hello = entry.life == Life::Booting && now < hello_due;
        let expected = match (entry.said_hello, about_to_say_hello) {
            (false, true) => {
                entry.signal_at = Some(hello_due);
                Notification::Channel
            }
            (true, _) => Notification::Channel,
            (false, false) => Notification::ChannelAndSignal,
        };
        promise!(by == expected, "worker {id} is told by {by:?}");
        entry.telling = Telling::Ordered;
        let (was, booting) = (entry.post, entry.life == Life::Booting);
        (entry.life, entry.asked_until) = (Life::Told { at: now }, None);
        entry.post = Post::Leaving;
        let (generation, slot) = (entry.generation, entry.slot);
        if was == Post::Trial && !ending {
            let comeback = generation == self.running_generation;
            let fate = if comeback { TrialFate::ComebackDismissed } else { TrialFate::Dismissed };
            self.turn.trial = self.turn.trial.max(fate);
        }
        if was == Post::Recycle && !ending {
            let dropped = self.remembered > 0;
            promise!(dropped, "worker {id} was to replace another, and is told to leave");
            self.turn.dropped = Some(id);
            self.story.tell(Scene::RecycleDroppedByARestart);
        }
        let drained = was == Post::Seat && !ending && self.is_drained(slot)?;
        promise!(
            was != Post::Seat || ending || drained,
            "worker {id} is told to leave and nobody took its seat"
        );
        if ending && booting {
            self.story.tell(Scene::ShutdownOfABootingWorker);
        }
        Ok(())
    }

    /// A slot that goes lets its worker go once its queue is empty, or its time is over.
    fn is_drained(&mut self, slot: usize) -> Result<bool, String> {
        let Some(since) = self.draining.remove(&slot) else { return Ok(false) };
        let over = self.now >= since + self.policy.disconnect_timeout;
        promise!(over || self.turn.drained == Some(slot), "slot {slot} goes with something in its queue");
        self.story.tell(if over { Scene::DrainedInVain } else { Scene::DrainedFirst });
        Ok(true)
    }

    /// One that is killed empties no queue; nobody follows it in a slot that goes.
    fn drains_no_more(&mut self, id: WorkerId) {
        let wanted = self.wanted;
        let drains = |entry: &&mut Entry| entry.slot >= wanted && entry.post == Post::Seat;
        let Some(entry) = self.entry_mut(id).filter(drains) else { return };
        entry.post = Post::Leaving;
        let slot = entry.slot;
        self.draining.remove(&slot);
    }

    /// `stopSignal` follows for those that were told as they booted and never said hello.
    pub(super) fn signal(&mut self, id: WorkerId) -> Check {
        let Some(entry) = self.entry_mut(id) else {
            return Err(format!("worker {id} is signalled, but gone"));
        };
        promise!(matches!(entry.life, Life::Told { .. }), "worker {id} is signalled in {:?}", entry.life);
        let (due, heard) = (entry.signal_at.take(), entry.heard);
        promise!(due.is_some_and(|due| due <= heard), "worker {id} is signalled; due is {due:?}");
        self.story.tell(Scene::SignalledAfterAll);
        Ok(())
    }

    /// Once at a time, when a time-out of its is over.
    fn hear_out(&mut self, id: WorkerId) -> Check {
        let now = self.now;
        let Some(entry) = self.entry_mut(id) else {
            return Err(format!("worker {id} is heard out, but gone"));
        };
        promise!(entry.being_heard.is_none(), "worker {id} is being heard out already");
        entry.being_heard = Some(now);
        Ok(())
    }

    /// A ready worker that was silent for too long, and only such a one.
    pub(super) fn abort(&mut self, id: WorkerId) -> Check {
        let now = self.now;
        let Some(entry) = self.entry(id) else { return Err(format!("worker {id} is aborted, but gone")) };
        let due = self.silent_until(entry);
        promise!(due.is_some_and(|due| due <= now), "worker {id} is aborted, but silence is due {due:?}");
        promise!(due.is_some_and(|due| due <= entry.heard), "worker {id} is aborted before it is heard out");
        self.story.tell(Scene::Hung);
        let Some(entry) = self.entry_mut(id) else { return Ok(()) };
        entry.life = Life::Hung { kill_at: now + CORE_GRACE };
        if entry.post == Post::Recycle {
            entry.post = Post::Leaving;
            self.story.tell(Scene::RecycleFailed);
        } else if entry.post == Post::Trial {
            entry.post = Post::Leaving;
            self.trial_lost(Scene::HungReplacement);
        }
        self.drains_no_more(id);
        Ok(())
    }

    /// Killed once, while it lives, and not before its time.
    pub(super) fn kill(&mut self, id: WorkerId) -> Check {
        let (now, forced) = (self.now, self.turn.asked == Asked::Force);
        let Some(entry) = self.entry(id) else { return Err(format!("kill of worker {id}, who is gone")) };
        match entry.life {
            Life::Booting => {
                promise!(!self.age_counts(entry), "worker {id} is killed for not saying ready");
                promise!(entry.has_begun(), "worker {id} is killed before it begins");
                promise!(entry.heard >= self.boot_due(entry), "worker {id} is killed before readyTimeout");
                self.boot_timed_out(id);
            }
            Life::Told { at } if entry.heard >= self.leave_due(entry, at) => {
                self.story.tell(Scene::KilledAtTheDisconnectTimeout);
            }
            Life::Told { .. } => promise!(forced, "worker {id} is killed before disconnectTimeout"),
            Life::Hung { kill_at } if entry.heard >= kill_at || forced => {
                self.story.tell(Scene::KilledAfterAbort);
            }
            Life::Hung { .. } | Life::Serving { .. } | Life::Killed { .. } | Life::GivenUpOn => {
                return Err(format!("worker {id} is killed in state {:?}", entry.life));
            }
        }
        if let Some(entry) = self.entry_mut(id) {
            entry.life = Life::Killed { at: now };
        }
        self.drains_no_more(id);
        Ok(())
    }

    pub(super) fn boot_timed_out(&mut self, id: WorkerId) {
        self.story.tell(Scene::ReadyTimeout);
        let replaces = |entry: &&mut Entry| matches!(entry.post, Post::Trial | Post::Recycle);
        let Some(entry) = self.entry_mut(id).filter(replaces) else { return };
        if std::mem::replace(&mut entry.post, Post::Leaving) == Post::Recycle {
            return self.story.tell(Scene::RecycleFailed);
        }
        self.trial_lost(Scene::AbortedByTimeout);
    }

    fn reopened(&mut self) -> Check {
        promise!(self.turn.asked == Asked::Reopen, "the log file is opened anew, and nobody asked for it");
        self.turn.asked = Asked::Nothing;
        Ok(())
    }

    /// A shutdown begins by refusing newcomers.
    pub(super) fn close_listeners(&mut self) -> Check {
        promise!(self.course == Course::Running, "the listeners are closed twice");
        promise!(
            !matches!(self.turn.trial, TrialFate::Dismissed | TrialFate::ComebackDismissed),
            "workers are told to leave before the listeners are closed"
        );
        match self.roll.as_ref().map(|roll| roll.way) {
            None => {}
            Some(Way::Forward) => self.story.tell(Scene::ShutdownDuringARestart),
            Some(Way::Back) => self.story.tell(Scene::ShutdownDuringARollback),
        }
        let due = self.now + self.policy.disconnect_timeout;
        for entry in &mut self.living {
            entry.post = Post::Leaving;
            if let Life::Hung { kill_at } = &mut entry.life {
                *kill_at = due.min(*kill_at);
            }
        }
        self.course = Course::ShuttingDown { since: self.now, delay: std::time::Duration::ZERO };
        Ok(())
    }

    /// A slot's sockets go once nobody is left who could serve what waits in them.
    pub(super) fn close_slot(&mut self, slot: usize) -> Check {
        promise!(self.course == Course::Running && slot >= self.wanted, "slot {slot} is closed, but wanted");
        let left = self.living.iter().find(|entry| entry.slot == slot && entry.life != Life::GivenUpOn);
        promise!(left.is_none(), "slot {slot} is closed under {left:?}");
        self.open[slot] = false;
        self.story.tell(Scene::SlotClosed);
        Ok(())
    }

    /// Each order is answered once at once; an accepted restart gets one verdict later.
    pub(super) fn answer(&mut self, ticket: Ticket, reply: &Reply) -> Check {
        let index = usize::try_from(ticket.0).map_err(|error| error.to_string())?;
        let (completed, ending) =
            (self.turn.restart == RestartFate::Completed, self.course != Course::Running);
        let Some(asker) = self.askers.get_mut(index) else { return Err(format!("nobody has {ticket:?}")) };
        promise!(!asker.has_left, "{asker:?} has left, and is told {reply:?}");
        let answer = match reply {
            Reply::Accepted => Answer::Accepted,
            Reply::Refused => Answer::Refused,
            Reply::Unknown => {
                self.story.tell(Scene::NoSuchWorker);
                Answer::Unknown
            }
            Reply::Ended(verdict) => {
                let restart = asker.order == Order::Restart && asker.answer == Some(Answer::Accepted);
                promise!(restart, "a verdict for {asker:?}");
                asker.verdicts += 1;
                promise!(asker.verdicts == 1, "{ticket:?} gets two verdicts");
                self.names_a_dead_culprit(verdict)?;
                return fits(verdict, completed, ending);
            }
        };
        promise!(asker.answer.is_none(), "{ticket:?} is answered twice");
        promise!(answer == asker.expects, "{asker:?} is answered {answer:?}");
        asker.answer = Some(answer);
        Ok(())
    }

    /// At the end nobody is left who could still be killed, and everybody has an answer.
    pub(super) fn finish(&mut self, ending: &Ending) -> Check {
        promise!(self.course != Course::Running, "finished without a shutdown");
        for entry in &self.living {
            let Life::GivenUpOn = entry.life else {
                return Err(format!("finished before {entry:?} is reaped"));
            };
        }
        let forced = self.story.tells(Scene::ForcedByOrder) || self.story.tells(Scene::ForcedByASecondSignal);
        let harsh = forced || !self.living.is_empty();
        promise!(*ending != Ending::Graceful || !harsh, "graceful, but forced or with somebody left behind");
        promise!(*ending != Ending::Forced || harsh, "forced, and nobody asked for it");
        let waits = |asker: &&Asker| asker.order == Order::Restart && asker.verdicts == 0 && !asker.has_left;
        let forgotten = self.askers.iter().find(|a| a.answer == Some(Answer::Accepted) && waits(a));
        promise!(forgotten.is_none(), "finished with a restart unanswered: {forgotten:?}");
        self.story.tell(match ending {
            Ending::Graceful => Scene::EndedGraceful,
            Ending::Forced => Scene::EndedForced,
            Ending::GaveUp => Scene::GaveUp,
            Ending::CouldNotStart { .. } => Scene::CouldNotStart,
        });
        let never_started = matches!(ending, Ending::CouldNotStart { .. });
        promise!(!(never_started && self.booted), "could not start, but had started");
        self.course = Course::Finished(ending.clone());
        self.turn.finished = true;
        Ok(())
    }

    /// The log is part of the promise ("nothing is silent"), and tells what actions do not show.
    pub(super) fn reported(&mut self, notice: &Notice) -> Check {
        match notice {
            Notice::WorkerReady { worker, .. } => self.became_ready(*worker),
            Notice::Replaced { slot, old, new } => self.replaced(*slot, *old, *new),
            Notice::RestartBegan { generation, .. } => self.restart_began(*generation),
            Notice::Rollback(Rollback::Begins { replaced, .. }) => {
                promise!(*replaced > 0, "nothing to roll back");
                let back = self.roll.as_ref().is_some_and(|roll| roll.way == Way::Back);
                promise!(back, "rolled back without a failure");
                Ok(())
            }
            Notice::RestartCompleted { .. } => self.restart_completed(),
            Notice::RestartAborted { .. } => self.restart_aborted(),
            Notice::Unkillable { worker, .. } => self.given_up_on(*worker),
            Notice::CannotSignal(denied) => self.said_out_of_reach(denied.worker),
            Notice::GaveUp { .. } => {
                promise!(self.serving() + self.booting() == 0, "gives up while somebody serves or boots");
                Ok(())
            }
            Notice::AllReady { .. } => {
                promise!(self.all_serving(), "not all are ready");
                self.booted = true;
                self.story.tell(Scene::AllReady);
                Ok(())
            }
            Notice::RestartQueued { .. } => {
                self.story.tell(Scene::RestartRemembered);
                Ok(())
            }
            Notice::ForceBegan { .. } => {
                promise!(self.turn.asked == Asked::Force, "forced, and nobody asked");
                Ok(())
            }
            Notice::Crashed { .. }
            | Notice::LeavesByItself { .. }
            | Notice::SpawnFailed { .. }
            | Notice::Stopped { .. }
            | Notice::ReadyTimedOut { .. }
            | Notice::Hung { .. }
            | Notice::DisconnectTimedOut { .. }
            | Notice::CanaryReady { .. }
            | Notice::Rollback(Rollback::LosesWorker { .. } | Rollback::Falters { .. })
            | Notice::OrderRefused { .. }
            | Notice::GuardLost(_)
            | Notice::Recycle(_)
            | Notice::Scaled { .. }
            | Notice::ScaleChangesNothing { .. }
            | Notice::ListenerShutDown(_)
            | Notice::ShutdownBegan { .. } => Ok(()),
        }
    }

    /// Said once when it is told, and once when it is killed; then it is waited for no longer.
    fn said_out_of_reach(&mut self, id: WorkerId) -> Check {
        let Some(entry) = self.entry(id) else {
            return Err(format!("worker {id} is out of reach, but gone"));
        };
        promise!(entry.telling == Telling::OutOfReach, "worker {id} is said to be out of reach");
        match entry.life {
            Life::Killed { .. } => self.given_up_on(id),
            Life::Told { .. } | Life::Hung { .. } => Ok(()),
            Life::Booting | Life::Serving { .. } | Life::GivenUpOn => {
                Err(format!("nobody signals worker {id} in {:?}", entry.life))
            }
        }
    }

    pub(super) fn became_ready(&mut self, id: WorkerId) -> Check {
        let (now, said) = (self.now, self.turn.said_ready == Some(id));
        let Some(entry) = self.entry(id) else { return Err(format!("worker {id} is ready, but gone")) };
        promise!(entry.life == Life::Booting, "worker {id} becomes ready in state {:?}", entry.life);
        let by_age = entry.has_begun() && self.age_counts(entry) && entry.heard >= self.boot_due(entry);
        promise!(said || by_age, "worker {id} is taken for ready, too early or without a word");
        self.story.tell(if said { Scene::ReadyByWord } else { Scene::ReadyByAge });
        if let Some(entry) = self.entry_mut(id) {
            entry.life = Life::Serving { since: now, heard: now };
        }
        self.barren = None;
        Ok(())
    }

    /// Only after the grace, and only of a worker that was killed.
    pub(super) fn given_up_on(&mut self, id: WorkerId) -> Check {
        let Some(entry) = self.entry_mut(id) else {
            return Err(format!("worker {id} is unkillable, but gone"));
        };
        let Life::Killed { at } = entry.life else { return Err(format!("worker {id} was never killed")) };
        let in_time = entry.heard >= at + KILL_GRACE || entry.telling == Telling::OutOfReach;
        promise!(in_time, "worker {id} is given up on too early");
        entry.life = Life::GivenUpOn;
        let was = std::mem::replace(&mut entry.post, Post::Leaving);
        let (slot, generation) = (entry.slot, entry.generation);
        self.story.tell(Scene::Unkillable);
        if was == Post::Seat {
            self.seat_lost(slot, generation);
            self.story.tell(Scene::UnkillableInASeat);
        }
        Ok(())
    }
}

/// After the end only refusals and log lines are possible.
fn is_only_said(action: &Action) -> bool {
    match action {
        Action::Reply { reply: Reply::Refused, .. } | Action::Report(_) => true,
        Action::Spawn { .. }
        | Action::Disconnect { .. }
        | Action::HearOut { .. }
        | Action::Abort { .. }
        | Action::Kill { .. }
        | Action::CloseListeners
        | Action::ReleaseListeners { .. }
        | Action::Steer { .. }
        | Action::LookAtQueue { .. }
        | Action::CloseSlot { .. }
        | Action::ForgetGeneration { .. }
        | Action::StartGuard
        | Action::ReopenLogs
        | Action::Reply { reply: Reply::Accepted | Reply::Unknown | Reply::Ended(_), .. }
        | Action::Finish(_) => false,
    }
}
