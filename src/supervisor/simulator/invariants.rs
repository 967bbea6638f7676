//! The promises of the design, held against the core after every `handle`.

use super::Check;
use super::books::{Asked, Barren, Books, Course, Entry, Life, Post, RestartFate, TrialFate};
use super::promise;
use super::rolls::Way;
use super::story::Scene;
use crate::supervisor::{
    Generation, KILL_GRACE, Moment, Order, Sockets, Supervisor, WorkerState, WorkerView,
};

impl Books {
    pub(super) fn check(&mut self, core: &Supervisor, calm: bool) -> Check {
        self.a_restart_takes_no_worker_away(calm)?;
        self.surge_bounds_the_crowd()?;
        self.slots_that_go_are_left()?;
        self.new_connections_go_where_somebody_serves()?;
        self.shutdown_reaches_everybody_at_once()?;
        self.force_spares_nobody()?;
        self.shutdown_ends_in_time()?;
        self.a_lost_replacement_aborts()?;
        self.what_a_refused_release_said_decides_nothing(core)?;
        self.generations_are_not_mixed()?;
        self.everybody_is_answered()?;
        self.workers_are_found_in_their_slots(core)?;
        self.crashes_alone_are_charged(core)?;
        self.stability_refills_the_budget(core.budget.left())?;
        self.generations_only_rise(core)?;
        self.note_barren_times(core);
        Ok(())
    }

    /// Promise 1: a restart of a healthy cluster never lowers the number of ready workers.
    fn a_restart_takes_no_worker_away(&mut self, calm: bool) -> Check {
        let serving = self.serving();
        self.all_were_ready |= self.all_serving();
        if !calm || !self.all_were_ready || self.course != Course::Running {
            return Ok(());
        }
        if self.turn.restart == RestartFate::Completed {
            self.story.tell(Scene::CalmRestart);
        }
        promise!(self.turn.restart != RestartFate::Aborted, "a restart was aborted in a calm world");
        promise!(serving >= self.wanted, "only {serving} of {} are ready", self.wanted);
        Ok(())
    }

    fn surge_bounds_the_crowd(&self) -> Check {
        let at_work = |entry: &&Entry| matches!(entry.life, Life::Booting | Life::Serving { .. });
        let crowd = self.living.iter().filter(at_work).filter(|entry| entry.slot < self.wanted).count();
        let most = self.wanted + self.policy.surge;
        promise!(crowd <= most, "{crowd} workers are starting or ready; at most {most} may be");
        let each_once = (0..self.seats.len()).all(|slot| {
            self.living.iter().filter(|entry| entry.slot == slot && entry.post == Post::Seat).count() <= 1
        });
        promise!(each_once, "two workers share a seat");
        Ok(())
    }

    /// Whoever is in a slot that was given up has been told to leave; the last one takes its sockets along.
    fn slots_that_go_are_left(&self) -> Check {
        let untold = |entry: &&Entry| matches!(entry.life, Life::Booting | Life::Serving { .. });
        let drains = |entry: &&Entry| self.draining.contains_key(&entry.slot);
        let stays =
            self.living.iter().filter(untold).find(|entry| entry.slot >= self.wanted && !drains(entry));
        promise!(stays.is_none(), "{stays:?} stays in a slot that was given up");
        let empty = |slot: usize| {
            !self.living.iter().any(|entry| entry.slot == slot && entry.life != Life::GivenUpOn)
        };
        let open = (self.wanted..self.open.len()).find(|slot| self.open[*slot] && empty(*slot));
        promise!(open.is_none() || self.course != Course::Running, "slot {open:?} keeps its sockets");
        Ok(())
    }

    /// Where each slot has its sockets: to all that serve and to no other; where nobody does, to all.
    fn new_connections_go_where_somebody_serves(&mut self) -> Check {
        let started = self.now > Moment::default() || !self.living.is_empty();
        if self.policy.sockets == Sockets::Shared || self.course != Course::Running || !started {
            return Ok(());
        }
        let serves = |slot: &usize| {
            let of_it = |entry: &&Entry| entry.slot == *slot && entry.post != Post::Leaving;
            self.living.iter().filter(of_it).any(|entry| matches!(entry.life, Life::Serving { .. }))
        };
        let mut expected: Vec<usize> = (0..self.wanted).filter(serves).collect();
        if expected.is_empty() {
            expected = (0..self.wanted).collect();
        } else if expected.len() < self.wanted {
            self.story.tell(Scene::SteeredAround);
        }
        promise!(self.steered == expected, "steered to {:?} instead of {expected:?}", self.steered);
        Ok(())
    }

    fn shutdown_reaches_everybody_at_once(&self) -> Check {
        promise!(
            self.turn.asked == Asked::Nothing || self.course != Course::Running,
            "a shutdown order was ignored"
        );
        let untold = self.course != Course::Running && self.serving() + self.booting() > 0;
        promise!(!untold, "somebody was not told to leave");
        Ok(())
    }

    fn force_spares_nobody(&self) -> Check {
        let spared =
            self.living.iter().find(|entry| matches!(entry.life, Life::Told { .. } | Life::Hung { .. }));
        promise!(self.turn.asked != Asked::Force || spared.is_none(), "a force order spares {spared:?}");
        Ok(())
    }

    /// Promise 4: a shutdown always ends, by itself or by force.
    fn shutdown_ends_in_time(&self) -> Check {
        let Course::ShuttingDown { since, delay } = self.course else { return Ok(()) };
        let limit = (since + self.policy.disconnect_timeout).max(self.asked_until) + KILL_GRACE + delay;
        promise!(self.now <= limit, "the shutdown has not ended in time");
        let given_up = self.living.iter().all(|entry| entry.life == Life::GivenUpOn);
        promise!(!given_up, "the shutdown does not notice its end");
        Ok(())
    }

    /// Promise 2: a bad release replaces nothing more.
    fn a_lost_replacement_aborts(&self) -> Check {
        let over = self.turn.restart == RestartFate::Aborted || self.course != Course::Running;
        let back = over || self.roll.as_ref().is_some_and(|roll| roll.way == Way::Back);
        promise!(
            self.turn.trial != TrialFate::Dismissed || back,
            "a replacement was dismissed and the restart goes on"
        );
        promise!(
            self.turn.trial != TrialFate::ComebackDismissed || over,
            "a replacement was dismissed and the rollback goes on"
        );
        let refused = |entry: &&Entry| match &self.roll {
            None => true,
            Some(roll) => roll.way == Way::Back && entry.generation == roll.generation,
        };
        let left = self.living.iter().filter(|entry| entry.post == Post::Trial).find(refused);
        promise!(left.is_none(), "a replacement on trial without a restart: {left:?}");
        Ok(())
    }

    /// What is learned of a release on trial goes with it, and decides about no worker of the one before.
    fn what_a_refused_release_said_decides_nothing(&self, core: &Supervisor) -> Check {
        let living = self.living.iter().map(|entry| entry.generation);
        for generation in living.chain([self.running_generation, self.newest_generation.next()]) {
            let (expected, said) = (self.is_expected_to_say_ready(generation), &self.say_ready);
            promise!(
                core.expectation.holds_for(generation) == expected,
                "generation {generation} is expected to say ready: {}; those that did are {said:?}",
                !expected
            );
        }
        Ok(())
    }

    /// Never mixed at rest: without a restart, running or about to begin, all seats are of the generation that serves,
    /// and its program alone is held.
    fn generations_are_not_mixed(&self) -> Check {
        if self.roll.is_some() || self.remembered > 0 || self.course != Course::Running {
            return Ok(());
        }
        let mut seats = self.seats[..self.wanted].iter();
        let old = seats.all(|generation| *generation == self.running_generation);
        promise!(old && self.vacant.is_empty(), "mixed generations at rest: {:?}", self.seats);
        promise!(
            self.programs.iter().eq([&self.running_generation]),
            "programs that nobody runs are held: {:?}",
            self.programs
        );
        Ok(())
    }

    fn workers_are_found_in_their_slots(&self, core: &Supervisor) -> Check {
        let slot_of = self.living.iter().map(|entry| (entry.id, entry.slot)).collect();
        promise!(core.slot_of == slot_of, "{slot_of:?} are looked for in {:?}", core.slot_of);
        Ok(())
    }

    fn everybody_is_answered(&self) -> Check {
        let silent = self.askers.last().filter(|asker| asker.answer.is_none());
        promise!(silent.is_none(), "no answer to {silent:?}");
        Ok(())
    }

    /// Planned replacements and a machine short of processes are never charged.
    fn crashes_alone_are_charged(&mut self, core: &Supervisor) -> Check {
        let (full, left) = (u64::from(self.policy.max_fork_count), u64::from(core.budget.left()));
        promise!(left <= full && left >= full.saturating_sub(self.crashes), "{left} of {full} left");
        promise!(self.crashes > 0 || left == full, "charged without a crash");
        promise!(core.crashes == self.crashes, "{} crashes counted, {} happened", core.crashes, self.crashes);
        let planned = self.trials + self.leavings;
        promise!(core.planned == planned, "{} planned, {planned} happened", core.planned);
        let reasons = self.policy.workers as u64
            + self.grown
            + self.crashes
            + self.leavings
            + self.passing_failures
            + self.trial_spawns
            + self.left_vacant;
        promise!(self.spawns <= reasons, "{} spawns for {reasons} reasons", self.spawns);
        if left == 0 && self.crashes > full && self.course == Course::Running {
            self.story.tell(Scene::CrashBeyondTheBudget);
        }
        Ok(())
    }

    /// All workers ready for `stableAfter`, and nothing else, sets the budget back to full.
    fn stability_refills_the_budget(&mut self, left: u32) -> Check {
        if self.course != Course::Running {
            return Ok(());
        }
        self.stable_since = if self.all_serving() { self.stable_since.or(Some(self.now)) } else { None };
        let stable = self.stable_since.is_some_and(|since| self.now >= since + self.policy.stable_after);
        promise!(!stable || left == self.policy.max_fork_count, "stable, but only {left} are left");
        promise!(stable || left <= self.budget_left, "refilled from {} to {left}", self.budget_left);
        if left > self.budget_left {
            self.story.tell(Scene::BudgetRefilled);
        }
        self.budget_left = left;
        Ok(())
    }

    fn generations_only_rise(&self, core: &Supervisor) -> Check {
        promise!(core.generation == self.running_generation, "generation {} is shown", core.generation);
        promise!(core.generation >= Generation::FIRST, "generations begin at 1");
        Ok(())
    }

    /// Remembers when nobody is ready, and what the budget allows from then on.
    fn note_barren_times(&mut self, core: &Supervisor) {
        if self.serving() > 0 {
            self.barren = None;
        } else if self.barren.is_none() {
            let allowed = u64::from(core.budget.left()) + self.wanted as u64;
            self.barren = Some(Barren { spawns: 0, allowed });
        }
    }

    /// After a turn in time nobody is left waiting whose time has come.
    pub(super) fn check_promptness(&self) -> Check {
        for entry in &self.living {
            let told = matches!(entry.life, Life::Told { at } if self.now < self.leave_due(entry, at));
            let unsignalled = entry.signal_at.filter(|due| told && *due <= self.now);
            promise!(unsignalled.is_none(), "a signal was forgotten: {entry:?}");
            let (begun, due) = match entry.life {
                Life::Booting if !entry.has_begun() => continue,
                Life::Booting => (entry.spawned, self.boot_due(entry)),
                Life::Told { at } => (at, self.leave_due(entry, at)),
                Life::Killed { at } => (at, at + KILL_GRACE),
                Life::Hung { kill_at } => (kill_at, kill_at),
                Life::Serving { heard, .. } => match self.silent_until(entry) {
                    Some(due) => (heard, due),
                    None => continue,
                },
                Life::GivenUpOn => continue,
            };
            promise!(due > self.now || begun == self.now, "a time-out was forgotten: {entry:?}");
        }
        Ok(())
    }

    /// Promise 6: the status shows every worker, as it is.
    pub(super) fn check_rows(&self, core: &Supervisor, now: Moment) -> Check {
        let view = core.status(now);
        let (empty, living): (Vec<&WorkerView>, Vec<&WorkerView>) =
            view.workers.iter().partition(|row| row.state == WorkerState::Backoff);
        promise!(
            living.len() == self.living.len(),
            "{} rows for {} workers",
            living.len(),
            self.living.len()
        );
        for entry in &self.living {
            let row = living.iter().find(|row| row.id == entry.id);
            promise!(row.is_some_and(|row| shows(row, entry)), "the row of {entry:?} is {row:?}");
        }
        for row in empty {
            promise!(self.holder(row.slot).is_none(), "a back-off row for a seat that is taken");
            promise!(row.generation == self.seats[row.slot], "the wrong generation waits: {row:?}");
        }
        Ok(())
    }

    /// In a world that became healthy, everything comes right.
    pub(super) fn check_healed(&mut self) -> Check {
        if self.course != Course::Running {
            promise!(self.is_finished(), "the shutdown never ends");
            return Ok(());
        }
        promise!(self.all_serving(), "a seat stays empty in a healthy world");
        promise!(self.roll.is_none() && self.on_trial() == 0, "a restart never ends");
        let worn = self.living.iter().find(|entry| entry.worn && entry.post == Post::Seat);
        promise!(worn.is_none(), "never replaced: {worn:?}");
        let waiting = self
            .askers
            .iter()
            .find(|asker| asker.order == Order::Restart && asker.verdicts != 1 && !asker.has_left);
        promise!(waiting.is_none(), "never answered: {waiting:?}");
        self.story.tell(Scene::Healed);
        Ok(())
    }
}

fn shows(row: &WorkerView, entry: &Entry) -> bool {
    let state = match entry.life {
        Life::Booting => WorkerState::Starting,
        Life::Serving { .. } => WorkerState::Ready,
        Life::Told { .. } | Life::Hung { .. } | Life::Killed { .. } | Life::GivenUpOn => {
            WorkerState::Disconnecting
        }
    };
    (row.slot, row.generation, row.state) == (entry.slot, entry.generation, state)
}
