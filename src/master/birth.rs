//! Workers that were ordered and have no process yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::Waker;

use super::capture::Pipes;
use super::channel::Channel;
use super::dialect::Dialect;
use super::guard::GuardId;
use super::notify::NotifySocket;
use super::offload::Offload;
use super::pinned::Pinned;
use super::spawn::PATIENCE;
use super::starter::Starters;
use crate::supervisor::{Action, Generation, Moment, SpawnFailure, WorkerId};
use crate::sys::attempt::Attempt;

/// Commands wait for workers that were ordered before them, unless nothing has come of any for so long.
const HOLD: Duration = Duration::from_millis(100);

/// All workers that were ordered and have no process yet.
pub(super) struct Births {
    pub(super) open: BTreeMap<WorkerId, Birth>,
    /// Those that wait for their turn, and some that have been told to go meanwhile.
    pub(super) queues: BTreeMap<Generation, VecDeque<WorkerId>>,
    /// Those whose turn it is or comes next.
    pub(super) starting: BTreeMap<Generation, VecDeque<WorkerId>>,
    pub(super) looks: Offload<(Generation, Result<Pinned, SpawnFailure>)>,
    /// Generations whose paths are being read, for somebody or for nobody any more.
    pub(super) looking: BTreeSet<Generation>,
    pub(super) starters: Starters,
    /// When one was last ordered, or came.
    pub(super) progress: Moment,
}

pub(super) struct Birth {
    pub(super) slot: usize,
    pub(super) generation: Generation,
    pub(super) stage: Stage,
    /// What was ordered of it meanwhile.
    pub(super) later: Vec<Action>,
}

pub(super) enum Stage {
    /// The paths of its program are being read.
    Looking { due: Moment },
    /// Others of its generation are being started.
    Queued,
    Starting {
        ends: Box<Ends>,
        attempt: Arc<Attempt>,
        /// None while others are before it.
        due: Option<Moment>,
    },
}

/// The master's ends of what the worker gets.
pub(super) struct Ends {
    pub(super) channel: Channel,
    pub(super) notify: NotifySocket,
    pub(super) pipes: Option<Pipes>,
    pub(super) dialect: Dialect,
    pub(super) port: Option<u16>,
    /// Which guard it announces itself to.
    pub(super) guard: Option<GuardId>,
}

impl Births {
    pub(super) fn new(waker: &Arc<Waker>, with_pidfd: bool) -> io::Result<Self> {
        Ok(Births {
            open: BTreeMap::new(),
            queues: BTreeMap::new(),
            starting: BTreeMap::new(),
            looks: Offload::new(Arc::clone(waker)),
            looking: BTreeSet::new(),
            starters: Starters::new(Arc::clone(waker), with_pidfd)?,
            progress: Moment::default(),
        })
    }

    /// Whether a process may exist that the loop does not know yet.
    pub(super) fn are_starting(&self) -> bool {
        !self.starting.is_empty()
    }

    pub(super) fn holds(&self, worker: WorkerId) -> bool {
        self.open.contains_key(&worker)
    }

    /// Until when commands wait for them.
    pub(super) fn hold_commands_until(&self) -> Option<Moment> {
        (!self.open.is_empty()).then_some(self.progress + HOLD)
    }

    pub(super) fn next_deadline(&self, now: Moment) -> Option<Moment> {
        let dues = self.open.values().filter_map(|birth| birth.stage.due());
        dues.chain(self.hold_commands_until().filter(|until| *until > now)).min()
    }

    pub(super) fn next_of(&mut self, generation: Generation) -> Option<WorkerId> {
        let next = self.queues.get_mut(&generation)?.pop_front();
        if next.is_none() {
            self.queues.remove(&generation);
        }
        next
    }

    /// How many of a generation are on their way.
    pub(super) fn starting_of(&self, generation: Generation) -> usize {
        self.starting.get(&generation).map_or(0, VecDeque::len)
    }

    /// It has a process, or will have none; the time of the next one begins.
    pub(super) fn close(&mut self, worker: WorkerId, now: Moment) -> Option<Birth> {
        let birth = self.open.remove(&worker)?;
        let Some(starting) = self.starting.get_mut(&birth.generation) else { return Some(birth) };
        starting.retain(|other| *other != worker);
        match starting.front() {
            Some(next) => {
                if let Some(Stage::Starting { due, .. }) = self.open.get_mut(next).map(|next| &mut next.stage)
                {
                    due.get_or_insert(now + PATIENCE);
                }
            }
            None => drop(self.starting.remove(&birth.generation)),
        }
        Some(birth)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.open.values().filter_map(|birth| birth.stage.ends()?.port)
    }
}

impl Drop for Births {
    fn drop(&mut self) {
        for birth in self.open.values() {
            birth.stage.give_up();
        }
    }
}

impl Stage {
    pub(super) fn due(&self) -> Option<Moment> {
        match self {
            Stage::Looking { due } => Some(*due),
            Stage::Starting { due, .. } => *due,
            Stage::Queued => None,
        }
    }

    fn ends(&self) -> Option<&Ends> {
        match self {
            Stage::Looking { .. } | Stage::Queued => None,
            Stage::Starting { ends, .. } => Some(ends),
        }
    }

    pub(super) fn give_up(&self) {
        match self {
            Stage::Looking { .. } | Stage::Queued => {}
            Stage::Starting { attempt, .. } => attempt.give_up(),
        }
    }
}
