//! A world of processes that misbehave, a clock that bends, and people who give orders.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Check;
use super::books::Books;
use super::climate::{Climate, roll_policy};
use super::process::Process;
use super::promise;
use super::random::Random;
use super::story::{Scene, Story};
use crate::config::Ready;
use crate::supervisor::{
    Action, Event, ExitStatus, FailureKind, Generation, Headcount, Moment, Notification, Order, Origin,
    Remedy, Scale, SpawnFailure, Supervisor, Ticket, WorkerId,
};

/// How long the master waits for a process, about.
const SLOWEST_SPAWN: Duration = Duration::from_secs(5);
/// More turns than any schedule needs to come to rest.
const MOST_STEPS: usize = 4000;

pub(super) struct World {
    random: Random,
    climate: Climate,
    core: Supervisor,
    /// The same core, which looks at everything after each event.
    twin: Option<Supervisor>,
    /// Workers that are to be heard out.
    to_hear: Vec<WorkerId>,
    books: Books,
    now: Moment,
    processes: Vec<Process>,
    /// Facts on their way to the core.
    inbox: Vec<(Moment, Event)>,
    /// Reaped lately: late words of theirs may still come.
    reaped: Vec<WorkerId>,
    /// Releases whose workers never say ready.
    mute: BTreeSet<Generation>,
    newest: Generation,
    /// Nothing has gone wrong or will.
    calm: bool,
    zeroes: bool,
    events: u64,
    trace: Trace,
}

/// What is written down while a schedule runs.
#[derive(Debug)]
pub(super) enum Trace {
    Off,
    On(Vec<String>),
}

impl Trace {
    fn line(&mut self, text: impl FnOnce() -> String) {
        match self {
            Trace::Off => {}
            Trace::On(lines) => lines.push(text()),
        }
    }
}

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut random = Random::new(seed);
        let climate = if random.chance(15) { Climate::calm() } else { Climate::roll(&mut random) };
        let zeroes = !climate.is_calm() && random.chance(15);
        let policy = roll_policy(&mut random, zeroes);
        let mut world = World {
            random,
            climate,
            books: Books::new(&policy),
            core: Supervisor::new(policy.clone()),
            twin: seed.is_multiple_of(4).then(|| Supervisor::new(policy.clone())),
            to_hear: Vec::new(),
            now: Moment::default(),
            processes: Vec::with_capacity(8),
            inbox: Vec::with_capacity(16),
            reaped: Vec::new(),
            mute: BTreeSet::new(),
            newest: Generation(0),
            calm: climate.is_calm(),
            zeroes,
            events: 0,
            trace,
        };
        world.trace.line(|| format!("{climate:?}\n{policy:?}"));
        world
    }

    /// Plays the whole schedule: a storm, a recovery, and the end.
    pub(super) fn play(&mut self) -> Check {
        self.tell(self.now, Event::Started)?;
        self.storm()?;
        self.heal()?;
        if !self.zeroes {
            self.settle()?;
            self.books.check_healed()?;
        }
        self.shut_down()?;
        self.settle()?;
        promise!(self.books.is_finished(), "the shutdown never ends");
        self.order_something()?;
        self.stray()
    }

    pub(super) fn ended(self) -> (Story, u64, Trace) {
        (self.books.story, self.events, self.trace)
    }

    /// Random orders at random times, one of them perhaps a shutdown.
    fn storm(&mut self) -> Check {
        let steps = 5 + self.random.below(35);
        let restarts = self.random.pick(&[0, 5, 20, 50]);
        let scales = self.random.pick(&[0, 0, 5, 20]);
        let end = if self.random.chance(35) { self.random.below(steps) } else { steps };
        for step in 0..steps {
            if self.random.chance(restarts) {
                self.order(Order::Restart)?;
            }
            if self.random.chance(scales) {
                self.scale()?;
            }
            if step >= end && (step == end || self.random.chance(20)) {
                self.order_something()?;
            }
            if self.random.chance(10) {
                self.caller_leaves()?;
            }
            if self.random.chance(self.climate.wear) {
                self.wear()?;
            }
            if self.random.chance(self.climate.flood) {
                self.flood()?;
            }
            if self.random.chance(self.climate.stray) {
                self.stray()?;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Somebody who gave an order does not wait for its end.
    fn caller_leaves(&mut self) -> Check {
        let askers = self.books.askers.len();
        if askers == 0 {
            return Ok(());
        }
        let ticket = Ticket(self.random.below(askers) as u64);
        self.tell(self.now, Event::CallerLeft { ticket })
    }

    /// Somebody grows too big, asks to be replaced, is ordered to be, or loses a socket.
    fn wear(&mut self) -> Check {
        let nobody = WorkerId(999_999);
        let at = self.random.below(self.processes.len() + 1);
        let worker = self.processes.get(at).map_or(nobody, |process| process.id);
        match self.random.below(5) {
            0 => self.order(Order::Recycle(worker)),
            3 => {
                let remedy = if self.random.chance(50) { Remedy::SameSocket } else { Remedy::NewSocket };
                self.tell(self.now, Event::ListenerShutDown { listener: "http".into(), remedy })
            }
            1 => self.tell(self.now, Event::SaidRestartMe { worker }),
            2 => self.tell(self.now, Event::MemorySampled { worker, bytes: 1001 }),
            _ => self.tell(self.now, Event::MemorySampled { worker, bytes: 1000 }),
        }
    }

    /// The listeners fall behind a worker's messages, or catch up with them.
    fn flood(&mut self) -> Check {
        if self.processes.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.processes.len());
        let process = &mut self.processes[at];
        process.paused = !process.paused;
        let (worker, paused) = (process.id, process.paused);
        let event = if paused { Event::ChannelPaused { worker } } else { Event::ChannelResumed { worker } };
        self.tell(self.now, event)
    }

    /// From now on nothing new goes wrong.
    fn heal(&mut self) -> Check {
        self.climate = Climate::calm();
        for process in &mut self.processes {
            process.hangs_at = process.hangs_at.filter(|at| *at <= self.now);
        }
        let paused: Vec<WorkerId> = self.processes.iter().filter(|p| p.paused).map(|p| p.id).collect();
        for worker in paused {
            self.tell(self.now, Event::ChannelResumed { worker })?;
            if let Some(process) = self.process(worker) {
                process.paused = false;
            }
        }
        self.trace.line(|| "the world is healthy from here on".to_owned());
        Ok(())
    }

    /// Lets time pass until nothing is left to happen.
    fn settle(&mut self) -> Check {
        for _ in 0..MOST_STEPS {
            if self.is_at_rest() || self.books.is_finished() {
                return self.books.check_rows(&self.core, self.now);
            }
            self.step()?;
        }
        Err("never comes to rest".to_owned())
    }

    fn shut_down(&mut self) -> Check {
        if self.books.is_finished() {
            return Ok(());
        }
        let origin = self.random.pick(&[Origin::Signal, Origin::Request]);
        self.order(Order::Shutdown(origin))?;
        for _ in 0..self.random.below(4) {
            self.step()?;
        }
        if self.random.chance(30) { self.order(Order::Shutdown(Origin::Signal)) } else { Ok(()) }
    }

    /// Nothing is left to happen but heartbeats.
    fn is_at_rest(&self) -> bool {
        self.to_hear.is_empty()
            && self.inbox.iter().all(|(_, event)| matches!(event, Event::SaidAlive { .. }))
            && self.processes.iter().all(|p| p.ends_at.is_none() && !self.is_hanging(p))
            && self.core.change_due().is_none()
    }

    /// It is silent, and the core is still to find out.
    fn is_hanging(&self, process: &Process) -> bool {
        let entry = self.books.entry(process.id);
        process.hangs_at.is_some() && entry.is_some_and(|entry| self.books.silent_until(entry).is_some())
    }

    /// When something happens next, by itself or by the core's wish.
    fn next_moment(&self) -> Option<Moment> {
        let deliveries = self.inbox.iter().map(|(due, _)| *due);
        let ends = self.processes.iter().filter(|p| p.announced).filter_map(|p| p.ends_at);
        let deadline = self.core.next_deadline().filter(|_| !self.books.is_finished());
        deliveries.chain(ends).chain(deadline).min()
    }

    /// One turn of the driver: wait, drain, act.
    fn step(&mut self) -> Check {
        self.hear_out()?;
        let idle = Duration::from_millis(5) + self.random.up_to(Duration::from_millis(500));
        let next = self.next_moment().map_or(self.now + idle, |next| next.max(self.now));
        let (target, told) = if self.random.chance(self.climate.bent_clock) {
            self.bend(next)
        } else {
            (next, Duration::ZERO)
        };
        self.advance(target);
        self.deliver(told)?;
        self.time_passed()
    }

    /// A loop that is woken early or late, a jump forward, a clock that is read a little behind.
    fn bend(&mut self, next: Moment) -> (Moment, Duration) {
        let early = self.now + self.random.up_to(next - self.now);
        let late = next + self.random.millis(&[1, 5, 50, 500]);
        let jump = next + self.random.millis(&[10_000, 60_000, 86_400_000]);
        let behind = self.random.millis(&[1, 3]);
        match self.random.below(8) {
            0..3 => (early, Duration::ZERO),
            3..6 => (late, Duration::ZERO),
            6 => (jump, Duration::ZERO),
            _ => (next, behind),
        }
    }

    fn advance(&mut self, target: Moment) {
        if let Some(deadline) = self.core.next_deadline().filter(|deadline| target > *deadline) {
            self.books.delayed(target - deadline.max(self.now));
            self.books.story.tell(Scene::LateLoop);
        }
        self.now = self.now.max(target);
    }

    /// Tells the core all that has happened by now, in any order that cause and effect allow.
    fn deliver(&mut self, behind: Duration) -> Check {
        let mut told = 0;
        while let Some(event) = self.take_due() {
            told += 1;
            promise!(told < MOST_STEPS, "time stands still");
            let clock = Moment(self.now.0.saturating_sub(behind));
            self.tell(clock, event)?;
        }
        if told > 2 {
            self.books.story.tell(Scene::MergedDeliveries);
        }
        Ok(())
    }

    fn take_due(&mut self) -> Option<Event> {
        let now = self.now;
        let news = self.inbox.iter().filter(|(due, _)| *due <= now).count();
        let ends = self.processes.iter().filter(|process| process.has_ended(now)).count();
        if news + ends == 0 {
            return None;
        }
        let nth = self.random.below(news + ends);
        if nth < news {
            let mut due = (0..self.inbox.len()).filter(|at| self.inbox[*at].0 <= now);
            let at = due.nth(nth)?;
            let event = self.inbox.remove(at).1;
            return Some(self.hear(event).unwrap_or(Event::TimePassed));
        }
        let mut due = (0..self.processes.len()).filter(|at| self.processes[*at].has_ended(now));
        let at = due.nth(nth - news)?;
        Some(self.reap(at))
    }

    /// The driver's regular call. A turn that changes nothing must not ask to be woken at once.
    fn time_passed(&mut self) -> Check {
        let due = self.core.next_deadline().is_some_and(|deadline| deadline <= self.now);
        self.tell(self.now, Event::TimePassed)?;
        self.hear_out()?;
        let rounds = if self.zeroes { 24 } else { 0 };
        for _ in 0..rounds {
            if self.is_busy() {
                self.tell(self.now, Event::TimePassed)?;
                self.hear_out()?;
            }
        }
        promise!(!due || !self.is_busy(), "a busy turn: {:?} is wanted again", self.core.next_deadline());
        self.books.check_promptness()?;
        if self.random.chance(10) {
            self.books.check_rows(&self.core, self.now)?;
        }
        Ok(())
    }

    /// Tells all that these workers have said by now, and then that it was all.
    fn hear_out(&mut self) -> Check {
        while let Some(worker) = self.to_hear.pop() {
            let (now, inbox) = (self.now, std::mem::take(&mut self.inbox));
            let is_said = |(due, event): &(Moment, Event)| *due <= now && speaker(event) == Some(worker);
            let (mut said, rest): (Vec<_>, Vec<_>) = inbox.into_iter().partition(is_said);
            said.sort_by_key(|(due, _)| *due);
            self.inbox = rest;
            for (_, event) in said {
                if let Some(event) = self.hear(event) {
                    self.tell(now, event)?;
                }
            }
            if let Some(at) = self.processes.iter().position(|p| p.id == worker && p.has_ended(now)) {
                let end = self.reap(at);
                self.tell(now, end)?;
            }
            self.tell(now, Event::HeardOut { worker })?;
        }
        Ok(())
    }

    /// A word on its way arrives, unless nobody listens.
    fn hear(&mut self, event: Event) -> Option<Event> {
        if let Event::SaidAlive { worker } = event {
            self.plan_beat(worker, self.now);
            if self.process(worker).is_some_and(|process| process.paused) {
                return None;
            }
        }
        Some(event)
    }

    fn reap(&mut self, at: usize) -> Event {
        let worker = self.processes.swap_remove(at).id;
        self.reaped.push(worker);
        let status = self.random.pick(&[ExitStatus::Code(0), ExitStatus::Code(1), ExitStatus::Signal(9)]);
        let stderr = vec![format!("last line of {worker}")];
        Event::Exited { worker, status, stderr }
    }

    fn is_busy(&self) -> bool {
        self.core.next_deadline().is_some_and(|deadline| deadline <= self.now)
    }

    /// One fact to the core, its actions performed, every promise checked.
    fn tell(&mut self, clock: Moment, event: Event) -> Check {
        self.events += 1;
        self.trace.line(|| format!("{:>9} ms  {event:?}", clock.0.as_millis()));
        if let Event::Spawned { worker } = &event
            && let Some(process) = self.process(*worker)
        {
            process.announced = true;
        }
        if let Event::SaidLeaving { worker } = &event
            && let now = self.now
            && let Some(process) = self.process(*worker)
            && let Some(span) = process.leaves_after
        {
            process.end_by(now + span);
        }
        self.books.happened(clock, &event);
        let repeated = self.twin.is_some().then(|| event.clone());
        let actions = self.core.handle(clock, event);
        if let Some((twin, event)) = self.twin.as_mut().zip(repeated) {
            let thorough = twin.handle_thoroughly(clock, event);
            promise!(
                actions == thorough,
                "a look at all workers would have said {thorough:?}, not {actions:?}"
            );
            let (quick, exact) = (self.core.next_deadline(), twin.next_deadline());
            let in_time = exact.is_none_or(|exact| quick.is_some_and(|quick| quick <= exact));
            promise!(in_time, "the next deadline is {exact:?}, not {quick:?}");
        }
        for action in &actions {
            self.trace.line(|| format!("                -> {action:?}"));
            self.books.ordered(action)?;
            self.perform(action);
        }
        self.books.check(&self.core, self.calm)
    }

    fn perform(&mut self, action: &Action) {
        match action {
            Action::Spawn { worker, slot: _, generation } => self.spawn(*worker, *generation),
            Action::Disconnect { worker, by } => {
                let now = self.now;
                let denied = *by != Notification::Channel && self.deny(*worker);
                self.inbox.push((now, Event::Told { worker: *worker }));
                if denied {
                    return;
                }
                if self.random.chance(self.climate.begging) {
                    let limit = self.books.policy.disconnect_timeout;
                    let (at, span) = (now + self.random.up_to(limit), self.random.up_to(limit * 2));
                    self.inbox.push((at, Event::NeedsTime { worker: *worker, span }));
                }
                let Some(process) = self.process(*worker) else { return };
                if let Some(span) = process.leaves_after {
                    process.end_by(now + span);
                }
            }
            Action::HearOut { worker } => self.to_hear.push(*worker),
            Action::LookAtQueue { slot } => {
                if self.climate.is_calm() || self.random.chance(40) {
                    self.inbox.push((self.now, Event::QueueSeenEmpty { slot: *slot }));
                }
            }
            Action::Abort { worker } => {
                let now = self.now;
                if !self.deny(*worker)
                    && let Some(process) = self.process(*worker)
                {
                    process.abort(now);
                }
            }
            Action::Kill { worker } if self.process(*worker).is_some_and(|process| !process.announced) => {
                self.give_up_spawn(*worker);
            }
            Action::Kill { worker } => {
                let now = self.now;
                if !self.deny(*worker)
                    && let Some(process) = self.process(*worker)
                {
                    process.kill(now);
                }
            }
            Action::CloseListeners
            | Action::ReleaseListeners { .. }
            | Action::Steer { .. }
            | Action::CloseSlot { .. }
            | Action::ForgetGeneration { .. }
            | Action::StartGuard
            | Action::ReopenLogs
            | Action::Reply { .. }
            | Action::Report(_)
            | Action::Finish(_) => {}
        }
    }

    /// Whether this worker cannot be signalled; the core is told so.
    fn deny(&mut self, worker: WorkerId) -> bool {
        let denied = self.process(worker).is_some_and(|process| process.out_of_reach);
        if denied {
            let cause = "operation not permitted".to_owned();
            self.inbox.push((self.now, Event::SignalDenied { worker, cause }));
        }
        denied
    }

    fn process(&mut self, worker: WorkerId) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.id == worker)
    }

    fn spawn(&mut self, worker: WorkerId, generation: Generation) {
        self.write_release(generation);
        let is_slow = self.random.chance(self.climate.slow_spawn);
        let begins = if is_slow { self.now + self.random.up_to(SLOWEST_SPAWN) } else { self.now };
        let failure = if self.random.chance(self.climate.passing_failure) {
            Some((FailureKind::Passing, "fork: resource temporarily unavailable"))
        } else if self.random.chance(self.climate.lasting_failure) {
            Some((FailureKind::Lasting, "exec ./server: no such file"))
        } else {
            None
        };
        if let Some((kind, reason)) = failure {
            let failure = SpawnFailure { kind, reason: reason.to_owned() };
            return self.inbox.push((begins, Event::SpawnFailed { worker, failure }));
        }
        self.inbox.push((begins, Event::Spawned { worker }));
        let process = Process::conceive(worker, begins, &self.books.policy, self.climate, &mut self.random);
        self.processes.push(process);
        self.plan_boot(worker, generation, begins);
        self.plan_beat(worker, begins);
    }

    /// A spawn that is given up: there is no process.
    fn give_up_spawn(&mut self, worker: WorkerId) {
        self.inbox.retain(|(_, event)| *event != Event::Spawned { worker });
        self.processes.retain(|process| process.id != worker);
        self.reaped.push(worker);
        let failure = SpawnFailure { kind: FailureKind::Passing, reason: "given up".to_owned() };
        self.inbox.push((self.now, Event::SpawnFailed { worker, failure }));
    }

    /// A release is what it is from its first worker on.
    fn write_release(&mut self, generation: Generation) {
        if generation > self.newest {
            self.newest = generation;
            let may_be_mute = self.books.policy.ready != Ready::Notify;
            if may_be_mute && self.random.chance(self.climate.mute_release) {
                self.mute.insert(generation);
            }
        }
    }

    /// It says that it is alive, for as long as it is.
    fn plan_beat(&mut self, worker: WorkerId, now: Moment) {
        let beat = self.process(worker).and_then(|process| process.next_beat(now));
        self.inbox.extend(beat.map(|at| (at, Event::SaidAlive { worker })));
    }

    /// What it will say while it boots.
    fn plan_boot(&mut self, worker: WorkerId, generation: Generation, begins: Moment) {
        let (mute, slow) = (self.random.chance(self.climate.mute), self.random.chance(self.climate.slow));
        let (release_is_mute, mute) =
            (self.mute.contains(&generation), mute || self.mute.contains(&generation));
        let limit = self.books.policy.ready_timeout;
        let boot = self.random.up_to(if slow { limit * 2 } else { limit / 4 });
        let at = begins + boot;
        if self.random.chance(if mute { 20 } else { 50 }) && !release_is_mute {
            let hello = begins + self.random.up_to(boot);
            self.inbox.push((hello, Event::SaidHello { worker }));
        }
        if !mute {
            self.inbox.push((at, Event::SaidReady { worker }));
        }
        if self.random.chance(self.climate.begging) {
            let span = self.random.up_to(limit * 2);
            self.inbox.push((begins + self.random.up_to(boot), Event::NeedsTime { worker, span }));
        }
        if self.random.chance(self.climate.leaving) {
            let span = self.random.pick(&[boot, self.books.policy.min_uptime * 3]);
            self.inbox.push((begins + self.random.up_to(span), Event::SaidLeaving { worker }));
        }
    }

    /// Something that comes twice, or too late.
    fn stray(&mut self) -> Check {
        let gone = self.reaped.last().copied().filter(|_| self.random.chance(50));
        let worker = gone
            .or_else(|| Some(self.processes.iter().rfind(|process| process.announced)?.id))
            .unwrap_or(WorkerId(999_999));
        let is_alive = self.processes.iter().any(|process| process.id == worker && process.announced);
        self.books.story.tell(Scene::StrayDelivery);
        let event = match self.random.below(if is_alive { 4 } else { 6 }) {
            0 => Event::SaidHello { worker },
            1 if !self.is_mute(worker) => Event::SaidReady { worker },
            1 | 2 => Event::SaidFailed { worker, reason: "cannot go on".to_owned() },
            3 => Event::GuardLost { how: "has ended".to_owned() },
            4 => Event::Exited { worker, status: ExitStatus::Unknown, stderr: Vec::new() },
            _ => Event::TimePassed,
        };
        self.tell(self.now, event)
    }

    fn order_something(&mut self) -> Check {
        let order = self.random.pick(&[
            Order::Restart,
            Order::Shutdown(Origin::Signal),
            Order::Shutdown(Origin::Signal),
            Order::Shutdown(Origin::Request),
            Order::ForceShutdown,
            Order::Scale(Scale::OneMore),
            Order::Recycle(WorkerId(1)),
            Order::ReopenLogs,
        ]);
        self.order(order)
    }

    fn is_mute(&self, worker: WorkerId) -> bool {
        self.books.entry(worker).is_some_and(|entry| self.mute.contains(&entry.generation))
    }

    fn scale(&mut self) -> Check {
        let to = Headcount::new(1 + self.random.below(7)).expect("in range");
        let scale = self.random.pick(&[Scale::OneMore, Scale::OneFewer, Scale::OneFewer, Scale::To(to)]);
        self.order(Order::Scale(scale))
    }

    fn order(&mut self, order: Order) -> Check {
        let ticket = self.random.chance(70).then_some(Ticket(self.books.askers.len() as u64));
        self.tell(self.now, Event::Ordered { order, ticket })
    }
}

/// Whose word it is.
fn speaker(event: &Event) -> Option<WorkerId> {
    match event {
        Event::Spawned { worker }
        | Event::SpawnFailed { worker, .. }
        | Event::SaidHello { worker }
        | Event::SaidReady { worker }
        | Event::SaidLeaving { worker }
        | Event::NeedsTime { worker, .. }
        | Event::SaidAlive { worker }
        | Event::ChannelPaused { worker }
        | Event::ChannelResumed { worker }
        | Event::SaidRestartMe { worker }
        | Event::MemorySampled { worker, .. }
        | Event::SaidFailed { worker, .. }
        | Event::HeardOut { worker }
        | Event::Told { worker }
        | Event::SignalDenied { worker, .. }
        | Event::Exited { worker, .. } => Some(*worker),
        Event::Started
        | Event::Ordered { .. }
        | Event::QueueSeenEmpty { .. }
        | Event::GuardLost { .. }
        | Event::CallerLeft { .. }
        | Event::ListenerShutDown { .. }
        | Event::TimePassed => None,
    }
}

impl Supervisor {
    /// No rule is left out, whatever the event.
    fn handle_thoroughly(&mut self, now: Moment, event: Event) -> Vec<Action> {
        self.due = Some(Moment::default());
        self.handle(now, event)
    }
}
