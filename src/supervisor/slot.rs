//! One stable seat of the cluster, who sits in it, who comes and who leaves.

use std::fmt;
use std::time::Duration;

use super::Policy;
use super::backoff::Backoff;
use super::drain::Draining;
use super::event::ExitStatus;
use super::expectation::ReadyExpectation;
use super::ids::{Generation, Moment, WorkerId};
use super::recycle::Wear;
use super::succession::Succession;
use crate::config::Ready;

/// A worker that reads its channel says hello in the first moments of its life, before it accepts anything.
/// Signalled in these, it could die with its first connection in hand.
pub(super) const HELLO_GRACE: Duration = Duration::from_millis(250);

/// A process of the cluster, as the core sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) generation: Generation,
    pub(super) started: Moment,
    pub(super) voice: Voice,
    pub(super) pulse: Pulse,
    pub(super) heard: Heard,
    /// Why it is to be replaced, if it is.
    pub(super) wear: Option<Wear>,
    pub(super) state: State,
    /// Until when it has asked to be waited for, while it starts or stops.
    pub(super) asked_until: Option<Moment>,
}

/// Whether the worker reads its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    Silent,
    SaidHello,
}

/// Where a worker is in its life; each state carries what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its process is on the way: what it is waited for begins with that.
    Spawning,
    Starting,
    Ready {
        since: Moment,
    },
    /// It said nothing for too long. SIGABRT is on its way; killed at `kill_at`.
    Hung {
        kill_at: Moment,
    },
    /// Told to leave; killed at `due`. `stopSignal` follows the line on its channel at `signal_at`, where that
    /// is still to come.
    Disconnecting {
        due: Moment,
        signal_at: Option<Moment>,
        told: Told,
    },
    /// SIGKILL is on its way; `due` is when we stop counting on it.
    Killed {
        why: Kill,
        due: Moment,
    },
    /// It outlived SIGKILL: reported, and waited for no longer.
    Unkillable {
        why: Kill,
    },
}

/// Whether a worker that is to leave knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The driver is about to say how that went.
    Ordered,
    Yes,
    /// It may not be signalled, and goes on.
    Denied,
}

/// Why the master killed a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kill {
    ReadyTimeout,
    DisconnectTimeout,
    Forced,
    Hung,
}

/// The watchdog's view of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// When it last said that it is alive; the first time, when it became ready.
    Heard(Moment),
    /// Its channel is paused: what it says there must wait, and it cannot be called silent.
    Paused,
}

/// How much of what a worker says, its end included, is known for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// All that it had said by this moment.
    UpTo(Moment),
    /// The driver listens, and will have told all that was said by this moment.
    Coming(Moment),
}

impl Heard {
    pub(super) fn is_coming(self) -> bool {
        matches!(self, Heard::Coming(_))
    }

    pub(super) fn arrives(&mut self) {
        match *self {
            Heard::UpTo(_) => {}
            Heard::Coming(at) => *self = Heard::UpTo(at),
        }
    }
}

/// How a worker is told to disconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notification {
    /// It said hello: the line on its channel is enough, and a signal on top could lose a request.
    Channel,
    /// The line, and `stopSignal` for those that do not read it.
    ChannelAndSignal,
    /// `stopSignal` after all: it was told by its channel alone, and never said hello.
    Signal,
}

/// What a starting worker's time-out means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It has no way to say ready: alive for so long is taken for it.
    CountsAsReady(Moment),
    /// It was expected to say ready.
    TimesOut(Moment),
}

impl Worker {
    pub(super) fn new(id: WorkerId, generation: Generation, now: Moment) -> Self {
        Worker {
            id,
            generation,
            started: now,
            voice: Voice::Silent,
            pulse: Pulse::Heard(now),
            heard: Heard::UpTo(now),
            wear: None,
            state: State::Spawning,
            asked_until: None,
        }
    }

    /// There is a process now. One that was told to go meanwhile goes on going.
    pub(super) fn begin(&mut self, now: Moment) {
        if self.state == State::Spawning {
            self.state = State::Starting;
            self.started = now;
            self.hear(now);
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.state, State::Spawning | State::Starting)
    }

    /// How long a starting worker is waited for, and what its time-out means.
    pub(super) fn patience(&self, policy: &Policy, expectation: &ReadyExpectation) -> Patience {
        let by_age = Patience::CountsAsReady(self.started + policy.min_uptime);
        let by_word = Patience::TimesOut(self.at_least(self.started + policy.ready_timeout));
        // Who asks for time to start will say when that is over.
        let is_expected = self.asked_until.is_some() || expectation.holds_for(self.generation);
        match (policy.ready, self.voice, is_expected) {
            (Ready::Alive, _, _) | (Ready::Auto, Voice::Silent, false) => by_age,
            (Ready::Notify, _, _)
            | (Ready::Auto, Voice::SaidHello, _)
            | (Ready::Auto, Voice::Silent, true) => by_word,
        }
    }

    /// The next moment at which time alone changes this worker's state.
    pub(super) fn deadline(&self, policy: &Policy, expectation: &ReadyExpectation) -> Option<Moment> {
        match &self.state {
            State::Starting => match self.patience(policy, expectation) {
                Patience::CountsAsReady(due) | Patience::TimesOut(due) => Some(due),
            },
            State::Disconnecting { due, signal_at, .. } => {
                let due = self.at_least(*due);
                Some(signal_at.map_or(due, |at| at.min(due)))
            }
            State::Killed { due, .. } | State::Hung { kill_at: due } => Some(*due),
            State::Spawning | State::Ready { .. } | State::Unkillable { .. } => None,
        }
    }

    /// A deadline, put off for as long as it has asked.
    pub(super) fn at_least(&self, due: Moment) -> Moment {
        self.asked_until.map_or(due, |asked| due.max(asked))
    }

    /// How it is told to go, and when `stopSignal` follows, where that is not at once.
    pub(super) fn notification(&self, now: Moment) -> (Notification, Option<Moment>) {
        let hello_due = self.started + HELLO_GRACE;
        match (self.voice, &self.state) {
            (Voice::SaidHello, _) => (Notification::Channel, None),
            (Voice::Silent, State::Spawning) => (Notification::Channel, Some(now + HELLO_GRACE)),
            (Voice::Silent, State::Starting) if now < hello_due => (Notification::Channel, Some(hello_due)),
            (Voice::Silent, _) => (Notification::ChannelAndSignal, None),
        }
    }

    /// The cause of an exit in this state, at this moment.
    pub(super) fn cause(&self, now: Moment, min_uptime: Duration) -> Cause {
        match &self.state {
            State::Spawning => Cause::SpawnFailed,
            State::Starting => Cause::BootFailed,
            State::Ready { .. } if now - self.started < min_uptime => Cause::Quick,
            State::Ready { .. } => Cause::Crashed,
            State::Hung { .. } => Cause::Hung,
            State::Disconnecting { .. } => Cause::Stopped,
            State::Killed { why, .. } | State::Unkillable { why } => match why {
                Kill::ReadyTimeout => Cause::ReadyTimeout,
                Kill::DisconnectTimeout => Cause::KilledAtTimeout,
                Kill::Forced => Cause::Stopped,
                Kill::Hung => Cause::Hung,
            },
        }
    }
}

/// Why a worker ended. The names are those of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Stopped,
    BootFailed,
    Quick,
    Crashed,
    ReadyTimeout,
    Hung,
    KilledAtTimeout,
    SpawnFailed,
}

impl Cause {
    /// The name in the status.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::Stopped => "stopped",
            Cause::BootFailed => "boot-failed",
            Cause::Quick => "quick",
            Cause::Crashed => "crashed",
            Cause::ReadyTimeout => "ready-timeout",
            Cause::Hung => "hung",
            Cause::KilledAtTimeout => "killed-at-timeout",
            Cause::SpawnFailed => "spawn-failed",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Stopped => "was stopped",
            Cause::BootFailed => "died before it was ready",
            Cause::Quick => "died soon after its start",
            Cause::Crashed => "crashed",
            Cause::ReadyTimeout => "was not ready in time",
            Cause::Hung => "was hung",
            Cause::KilledAtTimeout => "was killed at the time-out",
            Cause::SpawnFailed => "could not be started",
        })
    }
}

/// A seat's last end, whoever sat there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastExit {
    pub(crate) worker: WorkerId,
    pub(crate) cause: Cause,
    pub(crate) status: Option<ExitStatus>,
    /// What the worker said of it (its closure's error), or why it could not be started.
    pub(crate) reason: Option<String>,
    /// Its last lines on stderr, oldest first, where that is captured.
    pub(crate) stderr: Vec<String>,
}

impl LastExit {
    /// What the worker said of it, for the end of a line.
    pub(super) fn in_its_words(&self) -> String {
        self.reason.as_ref().map(|words| format!(" ({words})")).unwrap_or_default()
    }
}

/// A stable seat `0..N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) seat: Seat,
    /// The replacement that a rolling restart is trying out.
    pub(super) succession: Succession,
    /// Told to go or killed, and not yet reaped.
    pub(super) leaving: Vec<Worker>,
    /// It goes, but not before what waits on its own sockets is served.
    pub(super) draining: Option<Draining>,
    pub(super) failures: Backoff,
    pub(super) respawns: u64,
    pub(super) last_exit: Option<LastExit>,
    /// The word of a worker about its own end, kept until it is reaped.
    pub(super) last_words: Option<(WorkerId, String)>,
}

/// Who serves in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    Taken(Worker),
    /// Empty, and filled again at `until`.
    Waiting {
        until: Moment,
        last: Option<WorkerId>,
        generation: Generation,
        cover: Cover,
    },
    /// Lost by a refused release. Only a successor fills it, of the generation that serves.
    Vacant {
        last: Option<WorkerId>,
        generation: Generation,
    },
    /// Nobody comes any more: the slot was given up, or the cluster is shutting down.
    Closed,
}

/// Whether the fork budget had room for filling an empty seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// The first worker of the seat, or a crash replacement that the budget has paid for.
    Covered,
    /// The budget is spent: filled only while another worker keeps the service up.
    Beyond,
}

/// Where a worker was found in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Seat,
    Successor,
    Leaving(usize),
}

impl Slot {
    /// An empty seat that wants its first worker at once.
    pub(super) fn new(generation: Generation) -> Self {
        let seat = Seat::Waiting { until: Moment::default(), last: None, generation, cover: Cover::Covered };
        Slot {
            seat,
            succession: Succession::default(),
            leaving: Vec::new(),
            draining: None,
            failures: Backoff::default(),
            respawns: 0,
            last_exit: None,
            last_words: None,
        }
    }

    pub(super) fn occupant(&self) -> Option<&Worker> {
        match &self.seat {
            Seat::Taken(worker) => Some(worker),
            Seat::Waiting { .. } | Seat::Vacant { .. } | Seat::Closed => None,
        }
    }

    pub(super) fn occupant_mut(&mut self) -> Option<&mut Worker> {
        match &mut self.seat {
            Seat::Taken(worker) => Some(worker),
            Seat::Waiting { .. } | Seat::Vacant { .. } | Seat::Closed => None,
        }
    }

    /// The generation of the seat, whether somebody sits in it or not.
    pub(super) fn generation(&self) -> Option<Generation> {
        match &self.seat {
            Seat::Taken(worker) => Some(worker.generation),
            Seat::Waiting { generation, .. } | Seat::Vacant { generation, .. } => Some(*generation),
            Seat::Closed => None,
        }
    }

    pub(super) fn successor(&self) -> Option<&Worker> {
        self.succession.worker()
    }

    pub(super) fn is_vacant(&self) -> bool {
        matches!(self.seat, Seat::Vacant { .. })
    }

    /// A seat that waits for a worker of the refused generation is vacant.
    pub(super) fn refuse(&mut self, refused: Generation, back_to: Generation) {
        if let Seat::Waiting { last, generation, .. } = self.seat
            && generation == refused
        {
            self.seat = Seat::Vacant { last, generation: back_to };
        }
    }

    /// A vacant seat becomes one that waits for its next worker of this generation.
    pub(super) fn refill_vacant(&mut self, until: Moment, generation: Generation) {
        if let Seat::Vacant { last, .. } = self.seat {
            self.seat = Seat::Waiting { until, last, generation, cover: Cover::Covered };
        }
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.occupant().into_iter().chain(self.successor()).chain(&self.leaving)
    }

    pub(super) fn find(&self, id: WorkerId) -> Option<Place> {
        if self.occupant().is_some_and(|w| w.id == id) {
            return Some(Place::Seat);
        }
        if self.successor().is_some_and(|w| w.id == id) {
            return Some(Place::Successor);
        }
        self.leaving.iter().position(|w| w.id == id).map(Place::Leaving)
    }

    pub(super) fn get(&self, place: Place) -> Option<&Worker> {
        match place {
            Place::Seat => self.occupant(),
            Place::Successor => self.succession.worker(),
            Place::Leaving(index) => self.leaving.get(index),
        }
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Worker> {
        match place {
            Place::Seat => self.occupant_mut(),
            Place::Successor => self.succession.worker_mut(),
            Place::Leaving(index) => self.leaving.get_mut(index),
        }
    }

    /// What the worker said about its end, if it was the last to say something.
    pub(super) fn take_last_words(&mut self, id: WorkerId) -> Option<String> {
        self.last_words.take_if(|(who, _)| *who == id).map(|(_, words)| words)
    }
}
